//! How a pool makes its connections.

use crate::auth::{KeyCache, ServerCredential};
use crate::server::{ConnectError, ServerConnection, ServerTarget, connect};
use crate::types::SqlState;
use crate::wire::reply::Report;
use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// When the server was started, as the probe counts it: in microseconds since 2000. Without operators, which a role may have redefined, and the
/// same under every setting.
const STARTED: &str = "SELECT pg_catalog.encode(pg_catalog.timestamptz_send(pg_catalog.pg_postmaster_start_time()), 'hex')";

/// Answers whether the server that was started at this moment is the right one.
pub type IdentityCheck = Arc<dyn Fn(i64) -> BoxFuture<'static, bool> + Send + Sync>;

/// Everything that a new connection needs. The credential may be replaced while the pool lives: a client that logs in with a
/// new password brings the key for the next connections.
pub struct Connector {
    /// The host; a reload may replace how it is reached.
    pub target: Arc<ArcSwap<ServerTarget>>,
    /// The database's name on the server.
    pub database: String,
    /// The role to log in as.
    pub role: String,
    /// What proves the role; shared by the role's pools on all hosts.
    pub credential: Arc<ArcSwap<ServerCredential>>,
    /// SCRAM keys derived before.
    pub keys: Arc<KeyCache>,
    /// Whether a server is the one that is probed; `None` takes any.
    pub identity: Option<IdentityCheck>,
    /// Counts how often what new server sessions begin with has changed.
    pub defaults: Arc<AtomicU32>,
}

impl Connector {
    /// Opens and logs in one connection, watched by the reactor of the calling thread.
    ///
    /// # Cancel safety
    /// Dropping the future closes the half-made connection.
    pub async fn connect(&self, worker: usize) -> Result<Box<ServerConnection>, ConnectError> {
        let credential = self.credential.load_full();
        // It may have been opened before a change that came while it was.
        let (begun, defaults) = (Instant::now(), self.defaults.load(Ordering::Acquire));
        let mut connection = connect(&self.target.load_full(), &self.database, &self.role, &credential, &self.keys).await?;
        (connection.worker, connection.opened, connection.valid, connection.defaults) = (worker, begun, begun, defaults);
        if let Some(check) = &self.identity
            && let Some(started_us) = started(&mut connection).await?
        {
            if !check(started_us).await {
                return Err(ConnectError::Stranger(connection.door.target.to_string()));
            }
            connection.started_us = Some(started_us);
        }
        Ok(Box::new(connection))
    }
}

/// When the connection's server was started; `None` where it does not tell.
async fn started(connection: &mut ServerConnection) -> Result<Option<i64>, ConnectError> {
    let target = connection.door.target.clone();
    let lost = |source| ConnectError::Socket { target: target.to_string(), source };
    let asked = tokio::time::timeout(target.connect_timeout, connection.run(STARTED)).await;
    match asked.map_err(|_| ConnectError::Timeout(target.to_string()))?.map_err(lost)? {
        Ok(text) => Ok(text.and_then(|text| u64::from_str_radix(&text, 16).ok()).map(u64::cast_signed)),
        // The server ends; it is not for a role to be kept from asking.
        Err(Report { state, message, .. }) if state.class() == *b"57" && state != SqlState::QUERY_CANCELED => {
            Err(ConnectError::Refused { target: target.to_string(), state, message })
        }
        Err(Report { state, message, .. }) => {
            tracing::debug!(%target, ?state, message, "a server does not tell when it was started");
            Ok(None)
        }
    }
}
