//! What is counted once for the process: the front door, and pgyard itself.

use super::{CancelOutcome, Counter, Gauge, LoginFailureReason, RefusalReason, Registry, catalogue};

/// The process-wide instruments.
#[derive(Clone, Debug)]
pub struct FrontMetrics {
    /// Client connections accepted.
    pub connections: Counter,
    /// Connections that have not logged in yet.
    pub logging_in: Gauge,
    /// Clients that logged in.
    pub logins: Counter,
    /// Relay threads in use.
    pub workers_in_use: Gauge,
    /// Sessions that went on on another relay thread.
    pub sessions_moved: Counter,
    /// Sessions that ended in a panic.
    pub panics: Counter,
    /// Reloads of the configuration that were applied.
    pub config_reloads: Counter,
    /// Reloads that were refused.
    pub config_reload_failures: Counter,
    login_failures: [Counter; LoginFailureReason::ALL.len()],
    refused: [Counter; RefusalReason::ALL.len()],
    cancels: [Counter; CancelOutcome::ALL.len()],
}

impl FrontMetrics {
    /// The process-wide instruments of `registry`.
    pub fn new(registry: &Registry) -> Self {
        FrontMetrics {
            connections: registry.counter(&catalogue::CONNECTIONS, &[]),
            logging_in: registry.gauge(&catalogue::CLIENTS_LOGGING_IN, &[]),
            logins: registry.counter(&catalogue::LOGINS, &[]),
            workers_in_use: registry.gauge(&catalogue::WORKERS_IN_USE, &[]),
            sessions_moved: registry.counter(&catalogue::SESSIONS_MOVED, &[]),
            panics: registry.counter(&catalogue::PANICS, &[]),
            config_reloads: registry.counter(&catalogue::CONFIG_RELOADS, &["ok"]),
            config_reload_failures: registry.counter(&catalogue::CONFIG_RELOADS, &["failed"]),
            login_failures: LoginFailureReason::ALL.map(|reason| registry.counter(&catalogue::LOGIN_FAILURES, &[reason.label()])),
            refused: RefusalReason::ALL.map(|reason| registry.counter(&catalogue::CONNECTIONS_REFUSED, &[reason.label()])),
            cancels: CancelOutcome::ALL.map(|outcome| registry.counter(&catalogue::CANCEL_REQUESTS, &[outcome.label()])),
        }
    }

    /// Log-ins that failed for `reason`.
    pub fn login_failures(&self, reason: LoginFailureReason) -> &Counter {
        &self.login_failures[reason as usize]
    }

    /// Connections refused for `reason`.
    pub fn refused(&self, reason: RefusalReason) -> &Counter {
        &self.refused[reason as usize]
    }

    /// Cancel requests that ended as `outcome`.
    pub fn cancels(&self, outcome: CancelOutcome) -> &Counter {
        &self.cancels[outcome as usize]
    }
}
