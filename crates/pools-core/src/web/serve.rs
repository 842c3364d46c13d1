//! The listener of a service, from bind to exit code.

use std::{io, net::Ipv4Addr, sync::Arc, time::Duration};

use actix_web::{
    App, HttpServer,
    dev::ServerHandle,
    middleware::from_fn,
    web::{self, ServiceConfig},
};

use futures_util::future::BoxFuture;

use super::{
    Limits, ServiceConfig as Config, middleware,
    ops::{self, Ops},
    requests::Requests,
};
use crate::{
    registry::Registry,
    shutdown::{Lifecycle, Listener, Shutdown, Signals},
    tasks::Tasks,
};

/// For [`telemetry::init`](crate::telemetry::init): actix tells of its threads at info, where our own lines already
/// say what it does.
pub const QUIET: &str = "actix_server=warn";

/// What a service hands over to be served.
pub struct Service {
    /// TCP port, on all IPv4 addresses.
    pub port: u16,
    /// Background jobs of the service.
    pub jobs: Tasks,
    /// Its pools.
    pub pools: Arc<Registry>,
    /// What every service can be told.
    pub config: Config,
    /// How often an address may ask, if that is limited.
    pub limits: Option<Limits>,
    /// Routes, by their pattern, that have so much time instead of `REQUEST_TIMEOUT`.
    pub own_timeouts: Vec<(&'static str, Duration)>,
    /// What has to happen before `/health/ready` says so; meanwhile the service listens and is live.
    pub warm_up: BoxFuture<'static, ()>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service")
            .field("port", &self.port)
            .field("pools", &self.pools)
            .finish_non_exhaustive()
    }
}

/// Serves `routes` until a signal comes, then closes everything in order. Returns the exit code.
///
/// # Errors
/// The port cannot be bound, or the signals cannot be listened for.
pub async fn serve(
    service: Service,
    routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
) -> io::Result<u8> {
    let mut signals = Signals::listen()?;
    let lifecycle = Lifecycle::new();
    let requests = Requests::new().map_err(io::Error::other)?;
    let (delay, timeout) = (service.config.shutdown_delay, service.config.shutdown_timeout);
    let ops = web::Data::new(Ops {
        lifecycle: lifecycle.clone(),
        pools: Arc::clone(&service.pools),
        requests,
        config: service.config,
        limits: service.limits,
        own_timeouts: service.own_timeouts,
    });
    let server = HttpServer::new(move || {
        App::new()
            .wrap(from_fn(middleware::trace))
            .app_data(ops.clone())
            .configure(ops::routes)
            .configure(routes.clone())
    })
    // A client that closes its side has gone: its handler is dropped, and with it what it asked of others.
    .h1_allow_half_closed(false)
    .disable_signals()
    .shutdown_timeout(timeout.as_secs().max(1))
    .bind((Ipv4Addr::UNSPECIFIED, service.port))?
    .run();

    let handle = server.handle();
    let listening = service.jobs.spawn("listener", server);
    let (ready, warm_up) = (lifecycle.clone(), service.warm_up);
    let stopping = service.jobs.stopping();
    service.jobs.spawn("warm-up", async move {
        tokio::select! {
            () = warm_up => ready.ready(),
            () = stopping => {}
        }
    });
    tracing::info!(port = service.port, "listening");
    let shutdown = Shutdown {
        lifecycle,
        listener: Actix(handle),
        jobs: service.jobs,
        pools: service.pools,
        delay,
        timeout,
    };
    let code = shutdown.run(&mut signals).await;
    listening.abort();
    Ok(code)
}

#[derive(Debug)]
struct Actix(ServerHandle);

impl Listener for Actix {
    async fn pause(&self) {
        self.0.pause().await;
    }

    async fn close(&self, cut: bool) {
        self.0.stop(!cut).await;
    }
}
