//! A server connection while a session has it.

use crate::cluster::Host;
use crate::database::ClientEntry;
use crate::metrics::QueryRoute;
use crate::pool::Pool;
use crate::runtime;
use crate::server::{NO_WRITER, ServerConnection, TransactionStatus, cancel};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A borrowed server connection. Dropping it gives a clean connection back, clears one that is quiet, and closes any other; a
/// request that is still running is cancelled, so that the server does not work on for nobody.
#[derive(Debug)]
pub struct Link {
    server: Option<Box<ServerConnection>>,
    pool: Arc<Pool>,
    /// The host it leads to.
    pub host: Arc<Host>,
    /// Whether the host was taken as the primary or as a replica.
    pub route: QueryRoute,
    entry: Arc<ClientEntry>,
    /// When its last answer was complete.
    pub answered: Option<Instant>,
    /// The session has left things on the server that no other may find.
    pub needs_reset: bool,
    /// Something ran that the catalogue did not know yet: what it left on the server is not known either.
    pub must_forget: bool,
    /// It is closed and not given back: something is on the server that `DISCARD ALL` does not take away, or it was opened for
    /// this session alone.
    pub is_spent: bool,
}

/// Longest time for a server to forget a session.
const RESET_TIMEOUT: Duration = Duration::from_secs(5);

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
        Link {
            server: Some(server),
            pool,
            host,
            route,
            entry,
            answered: None,
            needs_reset: false,
            must_forget: false,
            is_spent: false,
        }
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
        if undisturbed && server.is_clean() && !self.needs_reset && !self.must_forget && !self.is_spent {
            let now = self.answered.unwrap_or_else(Instant::now);
            return self.pool.give_back_at(server, now);
        }
        let quiet = server.incoming.is_quiet() && server.outbox.is_empty() && !server.mid_request;
        let pool = self.pool.clone();
        let usable = !server.broken && runtime::can_spawn();
        match quiet {
            true if usable && undisturbed && !self.is_spent => runtime::spawn(reset(server, pool)),
            false if usable => runtime::spawn(interrupt(server, pool)),
            _ => pool.discard(server),
        }
    }
}

/// Makes the server forget the session: its transaction, and everything that it holds beside it.
async fn reset(mut server: Box<ServerConnection>, pool: Arc<Pool>) {
    let forget = async {
        if server.incoming.status != TransactionStatus::Idle {
            server.run("ROLLBACK").await?.map_err(|report| io::Error::other(report.message))?;
        }
        server.run("DISCARD ALL").await?.map_err(|report| io::Error::other(report.message))?;
        Ok::<(), io::Error>(())
    };
    match tokio::time::timeout(RESET_TIMEOUT, forget).await {
        Ok(Ok(())) => {
            server.parameters = Arc::default();
            server.incoming.prepared.clear();
            server.last_writer = NO_WRITER;
            server.prepared_unknown = false;
            server.own_names.clear();
            pool.give_back(server);
        }
        _ => pool.discard(server),
    }
}

/// Cancels what the server is doing, then closes the connection whatever became of the request.
async fn interrupt(server: Box<ServerConnection>, pool: Arc<Pool>) {
    if let Err(error) = cancel(&server.door.target, &server.door.key).await {
        tracing::debug!(%error, "the statement of a client that left could not be cancelled");
    }
    pool.discard(server);
}
