//! The only wiring: settings → pool → database → stores → services → routes.
//!
//! Nothing here waits for a server. The model is trained and the schema migrated by jobs, while the service
//! already listens and says in `/health` what it lacks. Before it says that it is ready there is a model, and it has
//! looked which one is in use, so that a replica that comes back answers as it did before; a Postgres that is away
//! is waited for no longer than one connect may take, and `/predict` is answered by the starting model then.

use std::{io, sync::Arc, time::Duration};

use actix_web::web::{self, Data};
use pools_core::{
    config::postgres::PgConfig,
    postgres::{PgError, PgPool},
    registry::Registry,
    tasks::Tasks,
    telemetry::{self, BadLevel},
    web::{AdminToken, QUIET, Service, serve},
};
use tokio::time::{Instant, timeout_at};

use crate::{
    database::Database,
    loans::{self, LoanService, store::LoanStore},
    matching::{self, MatchingService, store::MatchingStore},
    retraining::{self, RetrainingService, store::ModelStore},
    risk::{self, service::RiskService},
    settings::Settings,
    status::{self, Status},
    watching::{self, WatchService, store::WatchStore},
};

/// Why the service does not start. A server that is away is no reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// `LOG_LEVEL` cannot be used.
    #[error(transparent)]
    LogLevel(#[from] BadLevel),
    /// `DATABASE_URL` cannot be used.
    #[error(transparent)]
    Database(#[from] PgError),
    /// The port is taken, or may not be listened on.
    #[error("port {port} (ML_PORT) cannot be listened on")]
    Listen {
        /// The port.
        port: u16,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// Serves until a signal comes. Returns the exit code.
///
/// # Errors
/// See [`StartError`].
pub async fn run(settings: Settings) -> Result<u8, StartError> {
    let Settings { ml, service, postgres } = settings;
    telemetry::init(&service.log_level, QUIET)?;

    telemetry::announce("🚀", format_args!("Initializing connection pools..."));
    let patience = postgres.connect_timeout;
    let pool = open(postgres)?;
    telemetry::announce("✅", format_args!("Connection pools initialized"));

    let risk = RiskService::new();
    let database = pool.clone().map(Database::new);
    let loans = LoanService::new(database.clone().map(LoanStore::new), risk.clone());
    let matching = MatchingService::new(database.clone().map(MatchingStore::new));
    let models = database.clone().map(|database| ModelStore::new(database, ml.retrain_max_loans));
    let retraining = RetrainingService::new(models, risk.clone());
    let watch = WatchService::new(database.clone().map(WatchStore::new), risk.clone());
    let jobs = Tasks::new();
    start_jobs(&jobs, &risk, database.as_ref(), &retraining, &watch, &matching);
    let warm_up = warm_up(pool.clone(), risk.clone(), retraining.clone(), patience);
    let pools = registry(pool, &watch);

    let admin = AdminToken(service.admin_token.clone());
    let status = Data::new(Status { risk: risk.clone(), database, admin: admin.clone() });
    let (risk, loans, matching) = (Data::new(risk), Data::new(loans), Data::new(matching));
    let (retraining, watch, admin) = (Data::new(retraining), Data::new(watch), Data::new(admin));
    let routes = move |config: &mut web::ServiceConfig| {
        config
            .app_data(status.clone())
            .app_data(risk.clone())
            .app_data(loans.clone())
            .app_data(matching.clone())
            .app_data(retraining.clone())
            .app_data(watch.clone())
            .app_data(admin.clone())
            .configure(status::routes)
            .configure(risk::routes::routes)
            .configure(loans::routes::routes)
            .configure(matching::routes::routes)
            .configure(retraining::routes::routes)
            .configure(watching::routes::routes);
    };
    let port = ml.port;
    let served = Service {
        port,
        jobs,
        pools: Arc::new(pools),
        // Its callers are our own services, all of them behind one address or two (decision 0037).
        limits: None,
        config: service,
        own_timeouts: Vec::new(),
        warm_up: Box::pin(warm_up),
    };
    serve(served, routes).await.map_err(|cause| StartError::Listen { port, cause })
}

fn registry(pool: Option<PgPool>, watch: &WatchService) -> Registry {
    let mut registry = Registry::new();
    if let Some(pool) = pool {
        registry.add(Arc::new(pool));
    }
    let watch = watch.clone();
    registry.add_samples(move || watch.samples());
    registry
}

fn open(config: PgConfig) -> Result<Option<PgPool>, StartError> {
    if config.url.is_none() {
        telemetry::announce_warning(
            "⚠️",
            format_args!(
                "Running without a database: DATABASE_URL is not set, /data/* and the matching book answer 503"
            ),
        );
        return Ok(None);
    }
    let (size, overflow) = (config.size, config.overflow);
    let pool = PgPool::open(config)?;
    telemetry::announce("✅", format_args!("Database pool configured: size={size}, max_overflow={overflow}"));
    Ok(Some(pool))
}

/// What is there before the service says that it is ready. A server that is away does not keep it from that for longer
/// than `patience`; pool and jobs go on trying.
async fn warm_up(pool: Option<PgPool>, risk: RiskService, retraining: RetrainingService, patience: Duration) {
    let deadline = Instant::now() + patience;
    let looked = async {
        if timeout_at(deadline, retraining.until_looked()).await.is_err() {
            tracing::warn!("started without having seen which model is in use");
        }
    };
    tokio::join!(warm(pool, deadline), looked, risk.until_ready());
}

async fn warm(pool: Option<PgPool>, deadline: Instant) {
    let Some(pool) = pool else { return };
    if let Err(error) = pool.warm(deadline).await {
        tracing::warn!(cause = error.reason(), "started without the connections of DB_MIN_IDLE");
    }
}

fn start_jobs(
    jobs: &Tasks,
    risk: &RiskService,
    database: Option<&Database>,
    retraining: &RetrainingService,
    watch: &WatchService,
    matching: &MatchingService,
) {
    let risk = risk.clone();
    jobs.spawn("training", async move {
        if let Err(error) = risk.train().await {
            tracing::error!(cause = &error as &dyn std::error::Error, "there is no model");
        }
    });
    if let Some(database) = database {
        jobs.spawn("schema", database.clone().keep_schema(jobs.stopping()));
        jobs.spawn("model in use", retraining.clone().follow(jobs.stopping()));
        jobs.spawn("watching", watch.clone().follow(jobs.stopping()));
        jobs.spawn("expired sides", matching.clone().keep_tidy(jobs.stopping()));
    }
}
