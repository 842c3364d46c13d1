//! The only wiring: settings → pool → database → stores → services → routes.
//!
//! Nothing here waits for a server, unless `DB_MIN_IDLE` asks for connections, and then no longer than one connect
//! may take. The model is trained and the schema migrated by jobs, while the service
//! already listens and says in `/health` what it lacks.

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
use tokio::time::Instant;

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

    let warm_up = warm(pool.clone(), patience);
    let risk = RiskService::new();
    let database = pool.clone().map(Database::new);
    let loans = LoanService::new(database.clone().map(LoanStore::new), risk.clone());
    let matching = MatchingService::new(database.clone().map(MatchingStore::new));
    let retraining = RetrainingService::new(database.clone().map(ModelStore::new), risk.clone());
    let watch = WatchService::new(database.clone().map(WatchStore::new), risk.clone());
    let jobs = Tasks::new();
    start_jobs(&jobs, &risk, database.as_ref(), &retraining, &watch);
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

/// `DB_MIN_IDLE` connections are there before the service says that it is ready. A server that is away does not keep
/// it from being ready for longer than `patience`; the pool goes on trying.
async fn warm(pool: Option<PgPool>, patience: Duration) {
    let Some(pool) = pool else { return };
    if let Err(error) = pool.warm(Instant::now() + patience).await {
        tracing::warn!(cause = error.reason(), "started without the connections of DB_MIN_IDLE");
    }
}

fn start_jobs(
    jobs: &Tasks,
    risk: &RiskService,
    database: Option<&Database>,
    retraining: &RetrainingService,
    watch: &WatchService,
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
    }
}
