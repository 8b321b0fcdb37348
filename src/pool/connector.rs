//! How a pool makes its connections.

use crate::auth::{KeyCache, ServerCredential};
use crate::server::{ConnectError, ServerConnection, ServerTarget, connect};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// Everything that a new connection needs. The credential may be replaced while the pool lives: a client that logs in with a
/// new password brings the key for the next connections.
#[derive(Debug)]
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
        (connection.worker, connection.opened, connection.defaults) = (worker, begun, defaults);
        Ok(Box::new(connection))
    }
}
