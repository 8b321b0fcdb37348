//! `pgyard drain`.

use super::connection::{CommandError, identifier, value, with_console};
use super::outcome;
use crate::app::arguments::{DrainArguments, TargetArguments};
use std::process::ExitCode;

/// Takes a host out of use for new statements.
pub fn run(arguments: &DrainArguments) -> ExitCode {
    outcome(change("DRAIN", &arguments.host, arguments.database.as_deref(), &arguments.target))
}

/// Drains a host or puts it back, and says how it stands.
pub(super) fn change(
    command: &str,
    host: &str,
    database: Option<&str>,
    target: &TargetArguments,
) -> Result<String, CommandError> {
    with_console(target, async |console| {
        let place = database.map(|name| format!(" IN {}", identifier(name))).unwrap_or_default();
        let rows = console.rows(&format!("{command} {}{place}", identifier(host))).await?;
        let line = |row| format!("{} of {}: {}", value(row, "host"), value(row, "database"), value(row, "standing"));
        Ok(rows.iter().map(line).collect::<Vec<_>>().join("\n"))
    })
}
