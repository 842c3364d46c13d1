//! The tables `model_versions`, `model_in_use` and `loan_sides`: the only part of this feature that names the pool.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use pools_core::postgres::{Lease, Row, ToSql, Transaction};
use serde::Serialize;

use super::error::RetrainingError;
use crate::{
    database::Database,
    risk::{Example, FEATURE_COUNT, Feature, Split, Trained, service::StoredAs},
};

/// Versions that are listed, and the one in use: 300 KB of JSON. All of them are kept and can be restored.
const LISTED: i64 = 50;
/// Rows that are on the wire at once.
const PAGE: i64 = 10_000;

/// `pg_try_advisory_xact_lock`'s key: "ml_model" as bytes, so that it collides with nobody by accident.
const LOCK: i64 = i64::from_be_bytes(*b"ml_model");

/// Model versions in Postgres. Clones share the pool.
#[derive(Clone, Debug)]
pub struct ModelStore {
    database: Database,
    max_loans: u32,
}

/// The versions that there are.
#[derive(Clone, Debug)]
pub struct Versions {
    /// How many.
    pub total: i64,
    /// The latest of them first, and the one in use.
    pub listed: Vec<Version>,
}

/// A version, as it is listed.
#[derive(Clone, Debug, Serialize)]
pub struct Version {
    /// Its number.
    pub version: u32,
    /// Whether it answers now.
    pub in_use: bool,
    /// When it was first in use.
    pub created_at: DateTime<Utc>,
    /// The model and its report; `None` when what is stored cannot be read.
    #[serde(flatten)]
    pub trained: Option<Trained>,
}

impl ModelStore {
    /// A store in this database, which gives at most so many recorded loans to a retraining.
    pub fn new(database: Database, max_loans: u32) -> Self {
        Self { database, max_loans }
    }

    /// The model in use, unless it is this one. `None` too while no retraining has ever ended.
    ///
    /// # Errors
    /// See [`DatabaseError`](crate::database::DatabaseError), or what is stored is no model.
    pub async fn other_than(
        &self,
        ours: Option<StoredAs>,
    ) -> Result<Option<(Trained, StoredAs)>, RetrainingError> {
        let (version, created_at) =
            (ours.map(|ours| i64::from(ours.version)), ours.map(|ours| ours.created_at));
        let lane = self.database.ready()?.lane();
        let row = lane.read_opt(OTHER_IN_USE, &[&version, &created_at]).await;
        let row = row.map_err(|cause| self.database.failed(cause))?;
        let model = |row: Row| {
            let stored_as = StoredAs { version: number(&row, 1), created_at: row.get(2) };
            Ok((serde_json::from_str(row.get(0))?, stored_as))
        };
        row.map(model).transpose()
    }

    /// The latest versions and the one in use, the latest first.
    ///
    /// # Errors
    /// See [`DatabaseError`](crate::database::DatabaseError).
    pub async fn versions(&self) -> Result<Versions, RetrainingError> {
        let lane = self.database.ready()?.lane();
        let rows = lane.read(VERSIONS, &[&LISTED]).await.map_err(|cause| self.database.failed(cause))?;
        Ok(Versions {
            total: rows.first().map_or(0, |row| row.get(4)),
            listed: rows.iter().map(listed).collect(),
        })
    }

    /// A connection on which a change can begin.
    ///
    /// # Errors
    /// See [`DatabaseError`](crate::database::DatabaseError).
    pub async fn acquire(&self) -> Result<Lease, RetrainingError> {
        Ok(self.database.ready()?.acquire().await.map_err(|cause| self.database.failed(cause))?)
    }

    /// Begins the only change of models that may be under way.
    ///
    /// # Errors
    /// Another one is, or see [`DatabaseError`](crate::database::DatabaseError).
    pub async fn begin<'a>(&'a self, lease: &'a mut Lease) -> Result<Change<'a>, RetrainingError> {
        let failed = |cause| self.database.failed(cause);
        let transaction = lease.begin().await.map_err(failed)?;
        let row = transaction.query_one("SELECT pg_try_advisory_xact_lock($1)", &[&LOCK]).await;
        if row.map_err(failed)?.get(0) {
            let Self { database, max_loans } = self;
            return Ok(Change { database, max_loans: *max_loans, transaction });
        }
        transaction.rollback().await.map_err(failed)?;
        Err(RetrainingError::UnderWay)
    }
}

fn number(row: &Row, column: usize) -> u32 {
    row.get::<_, i32>(column).unsigned_abs()
}

/// Without what only the watching of drift needs, which is most of a stored version.
fn listed(row: &Row) -> Version {
    let version = number(row, 0);
    let trained = match serde_json::from_str::<Trained>(row.get(3)) {
        Ok(trained) => Some(Trained { reference: None, ..trained }),
        Err(fault) => {
            let cause = &fault as &dyn std::error::Error;
            tracing::error!(cause, version, "a stored model cannot be read");
            None
        }
    };
    Version { version, in_use: row.get(1), created_at: row.get(2), trained }
}

/// A change of models. Dropped without [`commit`](Self::commit), nothing has changed.
#[derive(Debug)]
pub struct Change<'a> {
    database: &'a Database,
    max_loans: u32,
    transaction: Transaction<'a>,
}

impl Change<'_> {
    async fn rows(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, RetrainingError> {
        Ok(self.transaction.query(sql, params).await.map_err(|cause| self.database.failed(cause))?)
    }

    /// The model in use, if any was ever stored.
    ///
    /// # Errors
    /// As [`ModelStore::other_than`].
    pub async fn in_use(&self) -> Result<Option<Trained>, RetrainingError> {
        let rows = self.rows(OTHER_IN_USE, &[&None::<i64>, &None::<DateTime<Utc>>]).await?;
        Ok(rows.first().map(|row| serde_json::from_str(row.get(0))).transpose()?)
    }

    /// The recorded loans with an outcome. Those that no retraining has seen get their side now.
    ///
    /// # Errors
    /// Too many, or see [`DatabaseError`](crate::database::DatabaseError).
    pub async fn recorded(&self) -> Result<Split, RetrainingError> {
        // Told before the work, not after most of it.
        let limit = self.max_loans;
        let counted = self.rows(COUNT, &[&(i64::from(limit) + 1)]).await?;
        let loans: i64 = counted.first().expect("BUG: an aggregate is one row").get(0);
        if loans > i64::from(limit) {
            return Err(RetrainingError::TooMany { limit });
        }
        self.rows(ASSIGN, &[]).await?;
        // Room for all at once: a vector that grows is there twice while it does.
        let room = loans.unsigned_abs() as usize;
        let mut split = Split { train: Vec::with_capacity(room), held_out: Vec::with_capacity(room / 4) };
        let mut after = String::new();
        loop {
            let rows = self.rows(&RECORDED, &[&after, &PAGE]).await?;
            let Some(last) = rows.last() else { return Ok(split) };
            after = last.get(0);
            for row in &rows {
                let mut features = [0.0; FEATURE_COUNT];
                for feature in Feature::ALL {
                    features[feature as usize] = row.get(3 + feature as usize);
                }
                let part = if row.get(1) { &mut split.held_out } else { &mut split.train };
                part.push(Example { features, default: row.get(2) });
            }
        }
    }

    /// The number of the next version.
    ///
    /// # Errors
    /// See [`DatabaseError`](crate::database::DatabaseError).
    pub async fn next_version(&self) -> Result<u32, RetrainingError> {
        let rows = self.rows("SELECT coalesce(max(version), 0) + 1 FROM model_versions", &[]).await?;
        let next: i32 = rows.first().expect("BUG: an aggregate is one row").get(0);
        Ok(u32::try_from(next).expect("BUG: versions are above 0"))
    }

    /// Stores a version.
    ///
    /// # Errors
    /// See [`DatabaseError`](crate::database::DatabaseError).
    pub async fn store(&self, trained: &Trained) -> Result<(), RetrainingError> {
        let (version, text) = (i64::from(trained.model.version()), serde_json::to_string(trained)?);
        self.rows(STORE, &[&version, &text]).await.map(drop)
    }

    /// Takes a stored version into use. Returns whether there is such a one.
    ///
    /// # Errors
    /// See [`DatabaseError`](crate::database::DatabaseError).
    pub async fn take(&self, version: u32) -> Result<bool, RetrainingError> {
        Ok(!self.rows(TAKE, &[&i64::from(version)]).await?.is_empty())
    }

    /// Undoes everything and returns why. The lock is free when this returns: a caller that is told of a refusal may
    /// come again at once.
    pub async fn give_up(self, reason: RetrainingError) -> RetrainingError {
        match self.transaction.rollback().await {
            Ok(()) => reason,
            // The connection is closed then, and the lock with it; the reason is what the caller can act on.
            Err(cause) => {
                tracing::warn!(cause = cause.reason(), "a retraining could not be rolled back");
                reason
            }
        }
    }

    /// Makes the change last.
    ///
    /// # Errors
    /// See [`DatabaseError`](crate::database::DatabaseError).
    pub async fn commit(self) -> Result<(), RetrainingError> {
        let Self { database, transaction, .. } = self;
        Ok(transaction.commit().await.map_err(|cause| database.failed(cause))?)
    }
}

const OTHER_IN_USE: &str = "SELECT trained::text, version, created_at \
    FROM model_versions JOIN model_in_use USING (version) \
    WHERE (version, created_at) IS DISTINCT FROM ($1::bigint, $2::timestamptz)";
const VERSIONS: &str = "SELECT v.version, u.version IS NOT NULL, v.created_at, v.trained::text, \
    (SELECT count(*) FROM model_versions) \
    FROM model_versions v LEFT JOIN model_in_use u USING (version) \
    WHERE u.version IS NOT NULL OR v.version IN \
    (SELECT version FROM model_versions ORDER BY version DESC LIMIT $1) ORDER BY v.version DESC";
const STORE: &str = "INSERT INTO model_versions (version, trained) VALUES ($1::bigint, $2::text::json)";
const TAKE: &str = "INSERT INTO model_in_use (version) \
    SELECT version FROM model_versions WHERE version = $1::bigint \
    ON CONFLICT (only_row) DO UPDATE SET version = excluded.version RETURNING 1";

/// Up to a bound.
const COUNT: &str =
    "SELECT count(*) FROM (SELECT FROM loans WHERE \"default\" IS NOT NULL LIMIT $1) AS loans";

/// Every fifth of a class, counted on from those that have a side already.
const ASSIGN: &str = "WITH seen AS (SELECT \"default\", count(*) AS loans FROM loan_sides GROUP BY 1) \
    INSERT INTO loan_sides (loan_id, \"default\", held_out) \
    SELECT l.loan_id, l.\"default\", (coalesce(seen.loans, 0) + \
    row_number() OVER (PARTITION BY l.\"default\" ORDER BY l.loan_id)) % 5 = 0 \
    FROM loans l LEFT JOIN seen ON seen.\"default\" = l.\"default\" \
    WHERE l.\"default\" IS NOT NULL AND NOT EXISTS (SELECT FROM loan_sides s WHERE s.loan_id = l.loan_id)";

/// Absent features count as 0, as in a prediction. `OFFSET 0` keeps each page to its rows' index entries: joined as tables,
/// both would be read, joined and sorted whole for every page (2 s instead of 0.08 s of 900,000 rows).
static RECORDED: LazyLock<String> = LazyLock::new(|| {
    let features = Feature::ALL.map(|feature| format!("coalesce(l.\"{}\", 0)", feature.name())).join(", ");
    format!(
        "SELECT l.loan_id, s.held_out, l.\"default\", {features} FROM loans l CROSS JOIN LATERAL \
         (SELECT held_out FROM loan_sides WHERE loan_id = l.loan_id OFFSET 0) s \
         WHERE l.\"default\" IS NOT NULL AND l.loan_id > $1 ORDER BY l.loan_id LIMIT $2"
    )
});
