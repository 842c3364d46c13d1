//! The part that every server of the kit has in common: accept, one task per connection, stop, start again.

use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::process::lock;

/// Owns the accepting task, which owns the connections: dropped or stopped, all of them end.
#[derive(Debug, Default)]
pub(crate) struct Listening(Mutex<JoinSet<()>>);

impl Listening {
    /// Listens, and gives each connection to a task of its own. Nothing when it listens already.
    ///
    /// # Panics
    /// When the port is taken.
    pub(crate) async fn start<F>(
        &self,
        addr: SocketAddr,
        serve: impl Fn(TcpStream, SocketAddr) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        if !lock(&self.0).is_empty() {
            return;
        }
        let listener = TcpListener::bind(addr).await.unwrap_or_else(|error| panic!("{addr}: {error}"));
        lock(&self.0).spawn(accept_all(listener, serve));
    }

    /// Closes the listener and every connection; a new one is refused from now on.
    pub(crate) async fn stop(&self) {
        let mut tasks = std::mem::take(&mut *lock(&self.0));
        tasks.shutdown().await;
    }
}

async fn accept_all<F>(listener: TcpListener, serve: impl Fn(TcpStream, SocketAddr) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // An error here is a client that gave up while it waited.
                if let Ok((socket, peer)) = accepted {
                    connections.spawn(serve(socket, peer));
                }
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
}
