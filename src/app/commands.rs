//! The commands beside `serve` and `demo`: each looks at a file, or asks a running pgyard through its console. They run on a
//! small run-time of their own and answer the process's exit code: 0 if all is well, 1 if not.

mod aligned;
pub mod check;
mod connection;
pub mod coordinator;
pub mod drain;
pub mod pause;
pub mod reload;
pub mod reshard;
pub mod resume;
pub mod route;
pub mod sequences;
pub mod status;
pub mod undrain;

use super::arguments::Invocation;
use std::io::Write;
use std::process::ExitCode;

/// Runs a command that is neither `serve` nor `demo`; `None` for those two.
pub fn run(invocation: &Invocation) -> Option<ExitCode> {
    Some(match invocation {
        Invocation::Serve(_) | Invocation::Demo(_) => return None,
        Invocation::Check(arguments) => check::run(arguments),
        Invocation::Coordinator(arguments) => coordinator::run(arguments),
        Invocation::Reshard(arguments) => reshard::run(arguments),
        Invocation::Sequences(arguments) => sequences::run(arguments),
        Invocation::Route(arguments) => route::run(arguments),
        Invocation::Status(arguments) => status::run(arguments),
        Invocation::Reload(arguments) => reload::run(arguments),
        Invocation::Pause(arguments) => pause::run(arguments),
        Invocation::Resume(arguments) => resume::run(arguments),
        Invocation::Drain(arguments) => drain::run(arguments),
        Invocation::Undrain(arguments) => undrain::run(arguments),
    })
}

/// Prints a result.
fn say(text: &str) {
    // Whoever reads it may have had enough, as `head` does.
    let _ = writeln!(std::io::stdout().lock(), "{}", text.trim_end());
}

/// Prints what went wrong.
fn complain(text: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "pgyard: {}", text.to_string().trim_end());
}

/// The exit code of a command that answered a text or failed.
fn outcome(result: Result<String, impl std::fmt::Display>) -> ExitCode {
    match result {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// What a pause was asked for.
fn paused_what(database: Option<&str>) -> String {
    database.map_or("every database is".to_owned(), |name| format!("database {name} is"))
}
