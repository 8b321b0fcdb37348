//! `pgyard undrain`.

use super::drain::change;
use super::outcome;
use crate::app::arguments::UndrainArguments;
use std::process::ExitCode;

/// Puts a drained host back.
pub fn run(arguments: &UndrainArguments) -> ExitCode {
    outcome(change("UNDRAIN", &arguments.host, arguments.database.as_deref(), &arguments.target))
}
