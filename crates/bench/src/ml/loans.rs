//! The requests, and whether they are answered alike.

use std::sync::Arc;

use hyper::body::Bytes;
use ml_api::risk::{Example, Feature, Trained, generator};
use serde_json::{Map, Value, json};
use testkit::Postgres;

use super::subjects::{Running, Subject};
use crate::Fault;

/// Different loans.
const LOANS: usize = 1_000;
/// Two computations of the same formula differ by rounding alone.
const ROUNDING: f64 = 1e-9;
/// Loans that are recorded to be compared, one of them twice.
const RECORDED: usize = 20;

/// Bodies, made once. Clones share them.
#[derive(Clone)]
pub(super) struct Loans(Arc<Made>);

struct Made {
    examples: Vec<Example>,
    singly: Vec<Bytes>,
    batch: Bytes,
}

impl Loans {
    pub(super) fn new() -> Self {
        let examples = generator::generate(LOANS, 11);
        let objects: Vec<Value> = examples.iter().map(|example| object(example).into()).collect();
        let singly = objects.iter().map(|loan| Bytes::from(loan.to_string())).collect();
        let batch = Bytes::from(json!({ "loans": objects }).to_string());
        Self(Arc::new(Made { examples, singly, batch }))
    }

    pub(super) fn one(&self, number: u32) -> Bytes {
        self.0.singly[number as usize % LOANS].clone()
    }

    pub(super) fn batch(&self) -> Bytes {
        self.0.batch.clone()
    }

    /// A loan that has not been recorded before, unless the number has come round.
    pub(super) fn record(&self, round: u32, number: u32) -> Bytes {
        let mut loan = object(&self.0.examples[number as usize % LOANS]);
        loan.insert("loan_id".to_owned(), json!(format!("{round}-{number}")));
        loan.insert("loan_status".to_owned(), json!("funded"));
        loan.insert("chain".to_owned(), json!("mainnet"));
        Bytes::from(Value::from(loan).to_string())
    }

    /// What the service answers is what our model says, and what it records is what it was sent.
    pub(super) async fn check(
        &self,
        running: &Running,
        subject: Subject,
        server: &Postgres,
        round: u32,
    ) -> Result<(), Fault> {
        let expected = Trained::starting()?.model;
        let batch: Value =
            serde_json::from_slice(&running.api.expect("/predict/batch", self.batch()).await?)?;
        for (number, example) in self.0.examples.iter().enumerate() {
            let wanted = serde_json::to_value(expected.predict(&example.features))?;
            compare(&wanted, &batch["predictions"][number])?;
            if number < 50 {
                let body = running.api.expect("/predict", self.0.singly[number].clone()).await?;
                compare(&wanted, &serde_json::from_slice::<Value>(&body)?["prediction"])?;
            }
        }
        self.check_record(running, subject, server, round).await
    }

    async fn check_record(
        &self,
        running: &Running,
        subject: Subject,
        server: &Postgres,
        round: u32,
    ) -> Result<(), Fault> {
        let table = subject.table();
        server.admin_query(&format!("DELETE FROM {table}")).await;
        for number in [0].into_iter().chain(0..RECORDED as u32) {
            running.api.expect("/data/record", self.record(round, number)).await?;
        }
        let sql = format!(
            "SELECT tx_count, interest_rate, loan_status, metadata->>'chain' FROM {table} \
             ORDER BY split_part(loan_id, '-', 2)::int"
        );
        let found = server.admin_query(&sql).await;
        let wanted: Vec<_> = self.0.examples[..RECORDED].iter().map(row).collect();
        if found == wanted { Ok(()) } else { Err("what it recorded differs from what it was sent".into()) }
    }
}

fn row(example: &Example) -> Vec<String> {
    let value = |feature: Feature| example.features[feature as usize].to_string();
    vec![value(Feature::TxCount), value(Feature::InterestRate), "funded".to_owned(), "mainnet".to_owned()]
}

fn object(example: &Example) -> Map<String, Value> {
    let values = Feature::ALL.into_iter().zip(example.features);
    values.map(|(feature, value)| (feature.name().to_owned(), json!(value))).collect()
}

fn compare(wanted: &Value, found: &Value) -> Result<(), Fault> {
    let close = |name: &str| Some((wanted[name].as_f64()? - found[name].as_f64()?).abs() <= ROUNDING);
    let same =
        ["default_prediction", "risk_score", "risk_category"].iter().all(|name| wanted[name] == found[name]);
    if same && close("default_probability") == Some(true) {
        Ok(())
    } else {
        Err(format!("its answer {found} differs from {wanted}").into())
    }
}
