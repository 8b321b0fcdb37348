//! SHOW VERSION: the version, and how the process is doing.

use super::context::ConsoleContext;
use super::table::{ResultTable, cell};
use crate::metrics::FrontMetrics;

pub(super) const COLUMNS: [&str; 7] = ["version", "uptime_seconds", "workers", "clients", "logins", "config_reloads", "panics"];

pub(super) fn fill(context: &ConsoleContext, table: &mut ResultTable) {
    // Asking for counters that exist gives the ones that count.
    let front = FrontMetrics::new(&context.registry);
    table.push(vec![
        cell(format!("pgyard {}", env!("CARGO_PKG_VERSION"))),
        cell(context.started.elapsed().as_secs()),
        cell(context.workers),
        cell(context.clients.len()),
        cell(front.logins.get()),
        cell(front.config_reloads.get()),
        cell(front.panics.get()),
    ]);
}
