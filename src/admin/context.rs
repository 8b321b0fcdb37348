//! What the console looks at, and what it can ask for.

use crate::config::{ReloadPlan, Settings};
use crate::database::{Clients, Directory};
use crate::metrics::Registry;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Instant;

/// How pgyard is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownMode {
    /// Running transactions end first, for at most `drain_timeout`.
    Drain,
    /// At once.
    Now,
}

/// What only the process as a whole can do.
pub trait ConsoleActions: Send + Sync {
    /// The settings in force.
    fn settings(&self) -> Arc<Settings>;

    /// Reads the configuration again and applies what can change. Answers what was changed, or why nothing was.
    fn reload(&self) -> BoxFuture<'static, Result<ReloadPlan, String>>;

    /// Writes into the configuration which sharded database serves the clients of `database`, `None` being itself, and applies it. Answers why
    /// nothing was changed.
    fn serve_by(&self, database: String, other: Option<String>) -> BoxFuture<'static, Result<(), String>>;

    /// Begins to stop; returns at once.
    fn shutdown(&self, mode: ShutdownMode);
}

/// What the console looks at.
#[derive(Clone)]
pub struct ConsoleContext {
    /// The databases.
    pub directory: Arc<Directory>,
    /// The clients.
    pub clients: Arc<Clients>,
    /// The process's metrics.
    pub registry: Registry,
    /// Relay threads.
    pub workers: usize,
    /// When pgyard started.
    pub started: Instant,
    /// The process.
    pub actions: Arc<dyn ConsoleActions>,
}
