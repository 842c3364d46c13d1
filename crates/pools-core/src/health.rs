//! Whether a pool's server answers, since when, and if not why.

use std::fmt;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use serde::Serialize;

use crate::pool::PoolKind;

/// The three words of `/health`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// It answered last time.
    Up,
    /// It did not answer last time, or was never reached.
    Down,
    /// No address or key was given: the feature is off.
    NotConfigured,
}

impl fmt::Display for HealthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::NotConfigured => "not_configured",
        })
    }
}

/// State, its age, and the last reason for being down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// The state.
    pub state: HealthState,
    /// When it took this state.
    pub since: DateTime<Utc>,
    /// Why it is down; `None` when it is up. Free of secrets.
    pub reason: Option<String>,
}

impl Health {
    /// A pool whose server was never named.
    pub fn not_configured() -> Self {
        Self { state: HealthState::NotConfigured, since: Utc::now(), reason: None }
    }
}

/// The reason before the first attempt.
const NOT_REACHED: &str = "not reached yet";

/// The one place where a pool's health changes, so that each change is logged once.
#[derive(Debug)]
pub struct HealthCell {
    pool: PoolKind,
    health: Mutex<Health>,
}

impl HealthCell {
    /// Starts `Down` with the reason "not reached yet".
    pub fn new(pool: PoolKind) -> Self {
        let reason = Some(NOT_REACHED.to_owned());
        Self { pool, health: Mutex::new(Health { state: HealthState::Down, since: Utc::now(), reason }) }
    }

    /// The server answered. Returns whether that is news.
    pub fn up(&self) -> bool {
        let mut health = self.health.lock();
        if health.state == HealthState::Up {
            return false;
        }
        *health = Health { state: HealthState::Up, since: Utc::now(), reason: None };
        drop(health);
        tracing::info!(pool = %self.pool, "pool is up");
        true
    }

    /// The server did not answer. `reason` must be free of secrets. Returns whether the state changed; a new
    /// reason for the same state is kept without a log line, unless it is the first.
    pub fn down(&self, reason: &(impl fmt::Display + ?Sized)) -> bool {
        let reason = reason.to_string();
        let mut health = self.health.lock();
        let news = health.state != HealthState::Down;
        if news || health.reason.as_deref() == Some(NOT_REACHED) {
            tracing::warn!(pool = %self.pool, reason, "pool is down");
        }
        if !news {
            health.reason = Some(reason);
            return false;
        }
        *health = Health { state: HealthState::Down, since: Utc::now(), reason: Some(reason) };
        true
    }

    /// The present health.
    pub fn get(&self) -> Health {
        self.health.lock().clone()
    }

    /// Whether the server answered last time.
    pub fn is_up(&self) -> bool {
        self.health.lock().state == HealthState::Up
    }
}
