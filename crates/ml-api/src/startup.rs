//! The only wiring: settings → pool → store → services → routes.
//!
//! Nothing here waits for a server. The model is trained and the schema migrated by jobs, while the service
//! already listens and says in `/health` what it lacks.

use std::{io, sync::Arc};

use actix_web::web::{self, Data};
use pools_core::{
    config::postgres::PgConfig,
    postgres::{PgError, PgPool},
    registry::Registry,
    tasks::Tasks,
    telemetry::{self, BadLevel},
    web::{AdminToken, QUIET, Service, serve},
};

use crate::{
    loans::{self, LoanService, store::LoanStore},
    risk::{self, service::RiskService},
    settings::Settings,
    status::{self, Status},
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
    let pool = open(postgres)?;
    telemetry::announce("✅", format_args!("Connection pools initialized"));

    let mut pools = Registry::new();
    if let Some(pool) = &pool {
        pools.add(Arc::new(pool.clone()));
    }
    let risk = RiskService::new();
    let loans = LoanService::new(pool.clone().map(LoanStore::new));
    let jobs = Tasks::new();
    start_jobs(&jobs, &risk, &loans);

    let status = Data::new(Status {
        risk: risk.clone(),
        loans: loans.clone(),
        pool,
        admin: AdminToken(service.admin_token),
    });
    let (risk, loans) = (Data::new(risk), Data::new(loans));
    let routes = move |config: &mut web::ServiceConfig| {
        config
            .app_data(status.clone())
            .app_data(risk.clone())
            .app_data(loans.clone())
            .configure(status::routes)
            .configure(risk::routes::routes)
            .configure(loans::routes::routes);
    };
    let port = ml.port;
    let served = Service {
        port,
        jobs,
        pools: Arc::new(pools),
        delay: service.shutdown_delay,
        timeout: service.shutdown_timeout,
    };
    serve(served, routes).await.map_err(|cause| StartError::Listen { port, cause })
}

fn open(config: PgConfig) -> Result<Option<PgPool>, StartError> {
    if config.url.is_none() {
        telemetry::announce_warning(
            "⚠️",
            format_args!("Running without a database: DATABASE_URL is not set, /data/* answers 503"),
        );
        return Ok(None);
    }
    let (size, overflow) = (config.size, config.overflow);
    let pool = PgPool::open(config)?;
    telemetry::announce("✅", format_args!("Database pool configured: size={size}, max_overflow={overflow}"));
    Ok(Some(pool))
}

fn start_jobs(jobs: &Tasks, risk: &RiskService, loans: &LoanService) {
    let risk = risk.clone();
    jobs.spawn("training", async move {
        if let Err(error) = risk.train().await {
            tracing::error!(cause = &error as &dyn std::error::Error, "there is no model");
        }
    });
    jobs.spawn("schema", loans.clone().keep_schema(jobs.stopping()));
}
