//! A server connection while a session has it.

use crate::cluster::Host;
use crate::database::ClientEntry;
use crate::metrics::QueryRoute;
use crate::pool::Pool;
use crate::server::{ServerConnection, cancel};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A borrowed server connection. Dropping it gives a clean connection back and closes any other; a request that is still
/// running is cancelled, so that the server does not work on for nobody.
#[derive(Debug)]
pub struct Link {
    server: Option<Box<ServerConnection>>,
    pool: Arc<Pool>,
    /// The host it leads to.
    pub host: Arc<Host>,
    /// Whether the host was taken as the primary or as a replica.
    pub route: QueryRoute,
    entry: Arc<ClientEntry>,
}

impl Link {
    /// Takes a connection on for the client.
    pub fn new(
        server: Box<ServerConnection>,
        pool: Arc<Pool>,
        host: Arc<Host>,
        route: QueryRoute,
        entry: Arc<ClientEntry>,
    ) -> Self {
        entry.attach(&server, &pool.key.host);
        host.in_flight.fetch_add(1, Ordering::Relaxed);
        Link { server: Some(server), pool, host, route, entry }
    }

    /// The connection.
    pub fn server(&mut self) -> &mut ServerConnection {
        // Only `drop` takes it out.
        match &mut self.server {
            Some(server) => server,
            None => unreachable!("a link has a server connection until it is dropped"),
        }
    }

    /// Whether the host was taken as a replica.
    pub fn is_replica(&self) -> bool {
        self.route == QueryRoute::Replica
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.host.in_flight.fetch_sub(1, Ordering::Relaxed);
        let undisturbed = self.entry.detach();
        let Some(server) = self.server.take() else { return };
        if undisturbed && server.is_clean() {
            return self.pool.give_back(server);
        }
        let running = !server.broken && !server.incoming.is_quiet();
        if running && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (target, key, pool) = (server.target.clone(), server.key.clone(), self.pool.clone());
            runtime.spawn(async move {
                // The connection is closed whatever becomes of the request.
                let _ = cancel(&target, &key).await;
                pool.discard(server);
            });
            return;
        }
        self.pool.discard(server);
    }
}
