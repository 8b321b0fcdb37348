//! `pgyard reload`.

use super::connection::{value, with_console};
use super::outcome;
use crate::app::arguments::ReloadArguments;
use std::process::ExitCode;

/// Has a running pgyard read its configuration again, and says what that changed.
pub fn run(arguments: &ReloadArguments) -> ExitCode {
    outcome(with_console(&arguments.target, async |console| {
        let rows = console.rows("RELOAD").await?;
        let line = |row| match value(row, "applied") {
            "yes" => format!("changed: {}", value(row, "change")),
            when => format!("applies {when}: {}", value(row, "change")),
        };
        let lines: Vec<String> = rows.iter().map(line).collect();
        Ok(if lines.is_empty() { "reloaded; nothing has changed".to_owned() } else { format!("reloaded\n{}", lines.join("\n")) })
    }))
}
