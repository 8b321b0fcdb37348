//! `pgyard pause`.

use super::connection::{identifier, with_console};
use super::outcome;
use crate::app::arguments::PauseArguments;
use std::process::ExitCode;

/// Waits until running transactions have ended, and holds new ones.
pub fn run(arguments: &PauseArguments) -> ExitCode {
    let name = arguments.database.as_deref();
    outcome(with_console(&arguments.target, async |console| {
        console.rows(&format!("PAUSE {}", name.map(identifier).unwrap_or_default())).await?;
        Ok(format!("{} paused; `pgyard resume` lets it go on", super::paused_what(name)))
    }))
}
