//! `pgyard resume`.

use super::connection::{identifier, with_console};
use super::outcome;
use crate::app::arguments::ResumeArguments;
use std::process::ExitCode;

/// Lets what was paused go on.
pub fn run(arguments: &ResumeArguments) -> ExitCode {
    let name = arguments.database.as_deref();
    outcome(with_console(&arguments.target, async |console| {
        console.rows(&format!("RESUME {}", name.map(identifier).unwrap_or_default())).await?;
        Ok(format!("{} resumed", super::paused_what(name)))
    }))
}
