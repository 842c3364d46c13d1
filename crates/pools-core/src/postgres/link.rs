//! What reaches a connection past whoever holds it: its observers, a cancel request, the end of its task.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock, atomic::AtomicBool},
};

use bb8_postgres::tokio_postgres::{CancelToken, Error};
use tokio::{net::UnixStream, task::AbortHandle};

use super::{tls::Connector, watch::Watch, wire::Wire};

/// How to reach a connection that somebody else holds.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) token: Token,
    pub(super) wire: Arc<Wire>,
    /// Set by the connection's task when it ends.
    pub(super) ended: AtomicBool,
    pub(super) watch: Watch,
    /// The connection's task.
    task: OnceLock<AbortHandle>,
}

impl Link {
    pub(super) fn new(token: Token, wire: Arc<Wire>, watch: Watch) -> Self {
        Self { token, wire, ended: AtomicBool::new(false), watch, task: OnceLock::new() }
    }

    /// By the task that was spawned for it.
    pub(super) fn driven_by(&self, task: AbortHandle) {
        self.task.get_or_init(|| task);
    }

    /// Makes the connection's task close the socket at once, even when an unread answer blocks it.
    pub(super) fn cut(&self) {
        self.task.get().inspect(|task| task.abort());
    }
}

/// Asks the server to cancel what a connection is doing.
pub(super) struct Token {
    pub(super) token: CancelToken,
    pub(super) connector: Connector,
    /// The socket, when it is not TCP.
    pub(super) socket: Option<PathBuf>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key of a cancel request is a secret.
        f.debug_struct("Token").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Token {
    /// Returns when the server has closed the request's own connection, which is after the signal was sent: no
    /// statement begun later can be hit by it.
    pub(super) async fn cancel(&self) -> Result<(), Error> {
        let Some(path) = &self.socket else {
            return self.token.cancel_query(self.connector.fresh()).await;
        };
        match UnixStream::connect(path).await {
            Ok(stream) => self.token.cancel_query_raw(stream, self.connector.plain().handshake("")).await,
            // Without the socket there is no server, and nothing left to cancel.
            Err(_) => Ok(()),
        }
    }
}
