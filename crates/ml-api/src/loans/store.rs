//! The table `loans`: the only part of this feature that names the pool.
//!
//! Every statement is a single one and autocommitted, so it goes through the pool's pipelined lane.

use std::sync::LazyLock;

use pools_core::postgres::ToSql;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    address::Address,
    model::{LoanRecord, Outcome, OutcomeUpdate},
};
use crate::{
    database::{Database, DatabaseError},
    risk::Feature,
};

/// Columns beside the features, in the order of the parameters of [`RECORD`].
const COLUMNS: [&str; 6] =
    ["borrower_address", "lender_address", "timestamp", "loan_status", "default", "actual_repayment_time"];

/// Loans without a status are counted under this name.
const NO_STATUS: &str = "unknown";

/// What the model said of a loan when that was recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Said {
    /// Of default.
    pub probability: f64,
    /// The model that said it.
    pub version: u32,
}

/// Recorded loans in Postgres. Clones share the pool.
#[derive(Clone, Debug)]
pub struct LoanStore(Database);

/// What was recorded, counted by the server in one statement.
#[derive(Clone, Debug, Serialize)]
pub struct Statistics {
    /// Always true; front ends look at it.
    pub success: bool,
    /// Loans.
    pub total_loans: i64,
    /// Loans by `loan_status`; `unknown` without one.
    pub by_status: Value,
    /// Loans by how they ended.
    pub by_outcome: Outcomes,
    /// For each column, how many loans have a value there, and their share (null without any loan).
    pub completeness: Map<String, Value>,
}

/// Loans by how they ended.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Outcomes {
    /// `default` is 0.
    pub repaid: i64,
    /// `default` is 1.
    pub defaulted: i64,
    /// Not known yet.
    pub unknown: i64,
}

impl LoanStore {
    /// A store in this database.
    pub fn new(database: Database) -> Self {
        Self(database)
    }

    /// Inserts a loan, or adds to the one of this id. Returns whether it is new.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub async fn record(&self, loan: &LoanRecord, said: Option<Said>) -> Result<bool, DatabaseError> {
        let id = loan.id.as_str();
        let borrower = loan.borrower_address.as_ref().map(Address::as_str);
        let lender = loan.lender_address.as_ref().map(Address::as_str);
        let mut values: Vec<&(dyn ToSql + Sync)> = vec![&id];
        values.extend(loan.features.iter().map(|value| value as &(dyn ToSql + Sync)));
        values.extend([&borrower as &(dyn ToSql + Sync), &lender, &loan.timestamp]);
        let Outcome { default, actual_repayment_time, loan_status } = &loan.outcome;
        values.extend([loan_status as &(dyn ToSql + Sync), default, actual_repayment_time, &loan.metadata]);
        let (probability, version) =
            (said.map(|said| said.probability), said.map(|said| i64::from(said.version)));
        values.extend([&probability as &(dyn ToSql + Sync), &version]);
        let lane = self.0.ready()?.lane();
        let row = lane.query_one(&RECORD, &values).await.map_err(|cause| self.0.failed(cause))?;
        Ok(row.get(0))
    }

    /// Adds how a loan ended. Returns whether there is such a loan.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub async fn update(&self, update: &OutcomeUpdate) -> Result<bool, DatabaseError> {
        let id = update.id.as_str();
        let Outcome { default, actual_repayment_time, loan_status } = &update.outcome;
        let lane = self.0.ready()?.lane();
        let changed = lane
            .execute(UPDATE, &[&id, loan_status, default, actual_repayment_time, &update.metadata])
            .await
            .map_err(|cause| self.0.failed(cause))?;
        Ok(changed > 0)
    }

    /// Counts what was recorded, in one statement, so that the numbers add up.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub async fn statistics(&self) -> Result<Statistics, DatabaseError> {
        let lane = self.0.ready()?.lane();
        let row = lane.read_one(&STATISTICS, &[]).await.map_err(|cause| self.0.failed(cause))?;
        let (total_loans, repaid, defaulted): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        let completeness = columns().enumerate().map(|(place, column)| {
            let count: i64 = row.get(4 + place);
            let share = (total_loans > 0).then(|| count as f64 / total_loans as f64);
            (column.to_owned(), json!({ "count": count, "share": share }))
        });
        Ok(Statistics {
            success: true,
            total_loans,
            by_status: serde_json::from_str(row.get(3)).expect("BUG: jsonb is JSON"),
            by_outcome: Outcomes { repaid, defaulted, unknown: total_loans - repaid - defaulted },
            completeness: completeness.collect(),
        })
    }
}

/// The columns that may be empty.
fn columns() -> impl Iterator<Item = &'static str> {
    Feature::ALL.into_iter().map(Feature::name).chain(COLUMNS)
}

fn listed(column: impl Fn(&str) -> String) -> String {
    columns().map(column).collect::<Vec<_>>().join(", ")
}

/// What is not given stays. `xmax` is 0 in a row that no update has touched. The first prediction stays as well; once
/// a loan has ended none is added, since that model may have been trained on it.
static RECORD: LazyLock<String> = LazyLock::new(|| {
    let names = listed(|column| format!("\"{column}\""));
    let count = columns().count();
    let places = (2..count + 2).map(|place| format!("${place}")).collect::<Vec<_>>().join(", ");
    let default = 2 + columns().position(|column| column == "default").expect("BUG: it is a column");
    let kept = listed(|column| format!("\"{column}\" = coalesce(excluded.\"{column}\", loans.\"{column}\")"));
    let said = ["predicted", "predicted_by"].map(|column| {
        format!("{column} = CASE WHEN loans.predicted IS NULL AND loans.\"default\" IS NULL THEN excluded.{column} ELSE loans.{column} END")
    });
    let said = said.join(", ");
    format!(
        "INSERT INTO loans (loan_id, {names}, metadata, predicted, predicted_by, outcome_at) \
         VALUES ($1, {places}, ${}::text::jsonb, ${}, ${}::bigint, CASE WHEN ${default}::boolean IS NOT NULL THEN now() END) \
         ON CONFLICT (loan_id) DO UPDATE SET {kept}, {said}, \
         outcome_at = coalesce(loans.outcome_at, excluded.outcome_at), \
         metadata = loans.metadata || excluded.metadata, updated_at = now() \
         RETURNING xmax = 0",
        count + 2,
        count + 3,
        count + 4,
    )
});

const UPDATE: &str = "UPDATE loans SET loan_status = coalesce($2, loan_status), \
    \"default\" = coalesce($3, \"default\"), \
    actual_repayment_time = coalesce($4, actual_repayment_time), \
    outcome_at = CASE WHEN $3::boolean IS NULL THEN outcome_at ELSE coalesce(outcome_at, now()) END, \
    metadata = metadata || $5::text::jsonb, updated_at = now() \
    WHERE loan_id = $1";

static STATISTICS: LazyLock<String> = LazyLock::new(|| {
    let counts = listed(|column| format!("count(\"{column}\")"));
    format!(
        "SELECT count(*), count(*) FILTER (WHERE NOT \"default\"), count(*) FILTER (WHERE \"default\"), \
         (SELECT coalesce(jsonb_object_agg(status, loans), '{{}}')::text FROM \
         (SELECT coalesce(loan_status, '{NO_STATUS}') AS status, count(*) AS loans FROM loans GROUP BY 1) AS s), \
         {counts} FROM loans"
    )
});
