//! Everything that pgyard counts, and how Prometheus reads it.
//!
//! [`catalogue`] is the one table of metrics: an instrument can be made only from an entry of it, with as many label values as
//! the entry has labels (both checked by the compiler), so nothing is rendered that the documentation does not name.
//!
//! **Two ways in.** What happens on the way of a statement is counted by [`Counter`], [`Gauge`] and [`DurationHistogram`]:
//! handles that a session keeps (through [`DatabaseMetrics`], [`FrontMetrics`]), each a few
//! nanoseconds, without lock, allocation or look-up. What is known anyway (roles, lag, pool sizes) is read at scrape time by
//! collectors ([`Registry::on_scrape`]) from the live snapshots.
//!
//! **Per worker.** Each worker thread has its own row of cells, in cache lines of its own, and adds to them without a locked
//! instruction. A thread says which it is with [`set_worker`]; all others share one row and add atomically. A scrape sums the
//! rows.
//!
//! **Why not only `metrics-exporter-prometheus`.** Its `formatting` writes our HELP and TYPE lines, and in the tests its
//! recorder renders the same values as ours, as a second opinion. Its recorder is not used in production: its histograms keep
//! every sample in a list until the next scrape, its counters are shared by all cores, a label set cannot be taken away when
//! its host is, and its escaping maps the label values `a\b` and `a\\b` to the same text, which would be a duplicate series
//! and cost the whole scrape.
//!
//! Invariants: memory is fixed per series and the number of series is limited ([`Registry::with_series_limit`]); beyond the
//! limit an instrument still counts but is not rendered, and `pgyard_metrics_series_refused_total` says so. Nothing here
//! fails or blocks on I/O.

pub mod catalogue;
mod cells;
mod database;
mod exposition;
mod fleet;
mod front;
mod histogram;
mod instruments;
mod labels;
mod registry;
mod sharded;
#[cfg(test)]
pub(crate) mod strict_parser;

pub use cells::{set_worker, worker_index};
pub use database::DatabaseMetrics;
pub use fleet::{HostReading, PoolReading};
pub use front::FrontMetrics;
pub use histogram::{DurationHistogram, HistogramSnapshot};
pub use instruments::{Counter, Gauge, GaugeHold};
pub use labels::{
    ByteDirection, CancelOutcome, LoginFailureReason, PinCause, QueryReason, QueryRoute, RateOutcome, RateScope, RefusalReason,
    RetryReason, TimeoutKind,
};
pub use registry::{Registry, Scrape};
pub use sharded::ShardedMetrics;
