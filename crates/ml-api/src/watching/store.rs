//! Predictions beside outcomes, read from `loans`: the only part of this feature that names the pool.

use std::sync::LazyLock;

use pools_core::postgres::Row;

use super::model::Judged;
use crate::{
    database::{Database, DatabaseError},
    risk::{FEATURE_COUNT, Feature, Features, drift::HALF},
};

/// Judged predictions that are looked at: the latest of them.
pub const LATEST: i64 = 10_000;

/// Predictions in Postgres. Clones share the pool.
#[derive(Clone, Debug)]
pub struct WatchStore(Database);

impl WatchStore {
    /// A store in this database.
    pub fn new(database: Database) -> Self {
        Self(database)
    }

    /// The latest predictions whose loans have ended.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub async fn judged(&self) -> Result<Vec<Judged>, DatabaseError> {
        let lane = self.0.ready()?.lane();
        let row = lane.read_one(JUDGED, &[&LATEST]).await.map_err(|cause| self.0.failed(cause))?;
        let (probabilities, defaults, versions): (Vec<f64>, Vec<bool>, Vec<i32>) =
            (row.get(0), row.get(1), row.get(2));
        let rows = probabilities.into_iter().zip(defaults).zip(versions);
        let judged = |((probability, default), version): ((f64, bool), i32)| Judged {
            probability,
            default,
            version: version.unsigned_abs(),
        };
        Ok(rows.map(judged).collect())
    }

    /// What the model was asked when the latest loans were recorded, and how long ago that was.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub async fn asked(&self) -> Result<Vec<(Features, f64)>, DatabaseError> {
        let lane = self.0.ready()?.lane();
        let rows = lane.read(&ASKED, &[&i64::from(HALF)]).await.map_err(|cause| self.0.failed(cause))?;
        let asked = |row: &Row| (std::array::from_fn(|column| row.get(column)), row.get(FEATURE_COUNT));
        Ok(rows.iter().map(asked).collect())
    }
}

/// One row of arrays: ten thousand rows would weigh ten times as much.
const JUDGED: &str = "SELECT coalesce(array_agg(predicted), '{}'), coalesce(array_agg(\"default\"), '{}'), \
    coalesce(array_agg(predicted_by), '{}') FROM (SELECT predicted, \"default\", predicted_by FROM loans \
    WHERE predicted IS NOT NULL AND \"default\" IS NOT NULL ORDER BY outcome_at DESC LIMIT $1) AS latest";

/// Absent features count as 0, as in the prediction.
static ASKED: LazyLock<String> = LazyLock::new(|| {
    let features = Feature::ALL.map(|feature| format!("coalesce(\"{}\", 0)", feature.name())).join(", ");
    let seconds = "extract(epoch FROM now() - recorded_at)::double precision";
    format!(
        "SELECT {features}, {seconds} FROM loans WHERE predicted IS NOT NULL ORDER BY recorded_at DESC LIMIT $1"
    )
});
