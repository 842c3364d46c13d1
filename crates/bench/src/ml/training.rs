//! Standardising and fitting 100,000 rows that are in memory already.

use ml_api::risk::{Example, Feature, Model, TrainingData, generator};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{process::Command, time::Instant};

use super::{
    goals::{DEFAULT, FIT, LBFGS, NEWTON, OURS, QUICK_NEWTON, SOLVERS, TRAINING},
    subjects::Subjects,
};
use crate::{
    Fault, Plan,
    peer::Peer,
    runs::{Runs, in_turn},
    say,
};

const ROWS: usize = 100_000;
const SEED: u64 = 7;
/// Models this close are one model.
const SAME: f64 = 1e-3;
/// What scikit-learn's default tolerance may miss.
const ROUGH: f64 = 0.1;

/// scikit-learn's solver, its tolerance, and how close to ours its model must be.
type Solver = (&'static str, f64, f64);

const FITTERS: [(&str, Option<Solver>); 5] = [
    (DEFAULT, Some(("lbfgs", 1e-4, ROUGH))),
    (LBFGS, Some(("lbfgs", 1e-6, SAME))),
    (OURS, None),
    (QUICK_NEWTON, Some(("newton-cholesky", 1e-4, SAME))),
    (NEWTON, Some(("newton-cholesky", 1e-8, SAME))),
];

#[derive(Debug, Deserialize)]
struct Fit {
    seconds: f64,
    intercept: f64,
    coefficients: Vec<f64>,
}

pub(super) async fn measure(subjects: &Subjects, plan: Plan, runs: &mut Runs) -> Result<(), Fault> {
    let examples = generator::generate(ROWS, SEED);
    let mut peer = match start(subjects).await {
        Ok(peer) => Some(peer),
        Err(fault) => {
            SOLVERS.iter().for_each(|name| runs.fail(name, fault.to_string()));
            None
        }
    };
    let expected = ours(&examples)?;
    for round in 0..plan.runs {
        for (name, solver) in in_turn(&FITTERS, round) {
            if runs.faults.contains_key(name) {
                continue;
            }
            let fit = match (solver, &mut peer) {
                (None, _) => ours(&examples),
                (Some(solver), Some(peer)) => theirs(peer, solver, &expected).await,
                (Some(_), None) => continue,
            };
            match fit {
                Ok(fit) => runs.add(TRAINING, name, FIT, fit.seconds * 1e3),
                Err(fault) => runs.fail(name, fault.to_string()),
            }
        }
        say(&format!("training: {} of {} rounds", round + 1, plan.runs));
    }
    if let Some(peer) = peer {
        peer.end().await;
    }
    Ok(())
}

/// scikit-learn with the same rows.
async fn start(subjects: &Subjects) -> Result<Peer, Fault> {
    let mut peer = subjects.scikit_learn()?;
    let data = subjects.folder.path().join("training.csv").display().to_string();
    let mut generate = Command::new(subjects.ours());
    generate.args(["generate", "--rows", &ROWS.to_string(), "--seed", &SEED.to_string(), "--out", &data]);
    if !generate.output().await?.status.success() {
        return Err("ml-api generate failed".into());
    }
    let loaded: Value = peer.ask(&json!({ "do": "load", "data": data })).await?;
    if loaded["rows"] == ROWS { Ok(peer) } else { Err("it has other rows".into()) }
}

async fn theirs(peer: &mut Peer, solver: Solver, expected: &Fit) -> Result<Fit, Fault> {
    let (solver, tolerance, close) = solver;
    let fit: Fit = peer.ask(&json!({ "do": "fit", "solver": solver, "tolerance": tolerance })).await?;
    match fit.distance(expected) {
        distance if distance <= close => Ok(fit),
        distance => Err(format!("a coefficient of its model differs from ours by {distance}").into()),
    }
}

fn ours(examples: &[Example]) -> Result<Fit, Fault> {
    let started = Instant::now();
    let model = Model::fit(examples, TrainingData::Synthetic, 1)?;
    let seconds = started.elapsed().as_secs_f64();
    let coefficients = Feature::ALL.map(|feature| model.coefficients()[feature as usize]).to_vec();
    Ok(Fit { seconds, intercept: model.intercept(), coefficients })
}

impl Fit {
    /// Of the coefficients that differ most.
    fn distance(&self, other: &Self) -> f64 {
        if self.coefficients.len() != other.coefficients.len() {
            return f64::INFINITY;
        }
        let pairs = self.coefficients.iter().zip(&other.coefficients);
        pairs.chain([(&self.intercept, &other.intercept)]).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }
}
