//! What a pool is told and what it tells: its name, limits, figures and errors.

use crate::server::ConnectError;
use std::sync::Arc;
use std::time::Duration;

/// Which pool it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// The host's process-wide id.
    pub host_id: u32,
    /// The host's name.
    pub host: Arc<str>,
    /// The database as clients name it.
    pub database: Arc<str>,
    /// The role.
    pub role: Arc<str>,
}

/// Sizes and times of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Most connections.
    pub size: usize,
    /// Connections kept open even if idle.
    pub min_idle: usize,
    /// Most waiting sessions.
    pub max_waiting: usize,
    /// Longest wait.
    pub checkout_timeout: Duration,
    /// Idle connections are closed after this; zero is never.
    pub idle_timeout: Duration,
    /// Connections are closed at their next return after this; zero is never.
    pub max_age: Duration,
}

/// Why a session gets no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckoutError {
    /// All connections stayed in use.
    #[error("no server connection was free within {waited:?}: all {size} of the pool for {role}@{host} are in use")]
    TimedOut {
        /// How long it waited.
        waited: Duration,
        /// The pool's size.
        size: usize,
        /// The pool's host.
        host: Arc<str>,
        /// The pool's role.
        role: Arc<str>,
    },
    /// Too many wait already.
    #[error("{waiting} sessions wait for a server connection of {role}@{host} already")]
    TooManyWaiting {
        /// How many wait.
        waiting: usize,
        /// The pool's host.
        host: Arc<str>,
        /// The pool's role.
        role: Arc<str>,
    },
    /// A new connection could not be made.
    #[error(transparent)]
    Connect(Arc<ConnectError>),
    /// The host does not answer its probe any more; nobody waits for it.
    #[error("the host does not answer")]
    HostSilent,
    /// The pool is gone: its host was taken out of the configuration.
    #[error("the pool was closed")]
    Closed,
}

/// A pool's figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Most connections.
    pub size: usize,
    /// Connections that exist or are being made.
    pub open: usize,
    /// Of these, idle.
    pub idle: usize,
    /// Of these, being made.
    pub connecting: usize,
    /// Sessions that wait.
    pub waiting: usize,
    /// How long the first of them has waited.
    pub oldest_wait: Duration,
    /// Checkouts so far.
    pub checkouts: u64,
    /// Waits that ended with `checkout_timeout`, so far.
    pub timeouts: u64,
    /// Sessions turned away because too many were waiting, so far.
    pub overflows: u64,
}

impl PoolStats {
    /// Connections that sessions have.
    pub fn active(&self) -> usize {
        self.open.saturating_sub(self.idle + self.connecting)
    }
}
