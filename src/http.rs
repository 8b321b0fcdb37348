//! The HTTP listener: metrics, health, and a page to look at. Reads only; nothing can be changed through it.
//!
//! | path | answers |
//! |---|---|
//! | `/` | the status page |
//! | `/metrics` | Prometheus' text format |
//! | `/livez` | 200 while the process can answer at all |
//! | `/readyz` | 200, or 503 with the reasons, while no client could be served |
//! | `/startupz` | 200 once the start is done |
//! | `/health` | every component with its latency; 503 when not ready |
//! | `/status.json` | what the status page shows |
//!
//! It knows nothing of clusters and pools: what it shows comes from a [`HealthSource`].
//!
//! Invariants: at most 64 connections, each for at most two minutes, with headers of at most 16 KiB that arrive within ten
//! seconds. No request body is read. No answer needs anything from outside this process, the page included.

mod endpoints;
mod page;
mod report;
mod server;
#[cfg(test)]
mod tests;

pub use report::{
    ClientCounts, ComponentHealth, DatabaseStatus, DurationQuantiles, HealthSource, HostStatus, PoolStatus, Readiness,
    RouteStatus, StatusReport,
};
pub use server::serve;
