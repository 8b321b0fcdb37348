//! Why a local fleet could not be started or driven.

use std::path::PathBuf;
use std::time::Duration;

/// Why a local fleet could not be started or driven. The text says what to do where the operator can do something.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// No directory with PostgreSQL's programs.
    #[error(
        "PostgreSQL's server programs were not found (looked in {}). Install them (Debian, Ubuntu: `apt-get install postgresql`; \
         Fedora: `dnf install postgresql-server`; macOS: `brew install postgresql`), or set PGYARD_PG_BIN to the directory that holds \
         initdb, postgres, pg_basebackup and psql", list(.looked))]
    ProgramsMissing {
        /// The directories that were tried.
        looked: Vec<PathBuf>,
    },
    /// `PGYARD_PG_BIN` names a directory without them.
    #[error("PGYARD_PG_BIN is {}, but there is no {program} in it", .directory.display())]
    ProgramMissing {
        /// The directory named by the variable.
        directory: PathBuf,
        /// The first program that is not in it.
        program: &'static str,
    },
    /// PostgreSQL refuses to run as root, and there is no other user to run it as.
    #[error("PostgreSQL refuses to run as root, and there is neither a user `postgres` nor a user `nobody` to run it as")]
    NoAccount,
    /// The fleet's directory cannot be used.
    #[error("the directory {} cannot be used{}: {source}", .path.display(), account_clause(.account))]
    Directory {
        /// The directory, or a file in it.
        path: PathBuf,
        /// The user the servers run as, where it is not ours.
        account: Option<String>,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program could not be started.
    #[error("{program} could not be started: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program ran and failed.
    #[error("{program} failed: {output}")]
    Failed {
        /// The program.
        program: String,
        /// The end of what it printed.
        output: String,
    },
    /// A server ended instead of becoming ready.
    #[error("{host} ended while it was starting; the end of its log:\n{log}")]
    Ended {
        /// The host's name.
        host: String,
        /// The end of its log.
        log: String,
    },
    /// Something took too long.
    #[error("{what} took longer than {} s", .limit.as_secs())]
    TooSlow {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// A port that was asked for is in use.
    #[error("port {port}, wanted for {host}, is in use; choose another with --ports")]
    PortTaken {
        /// The host's name.
        host: String,
        /// The port.
        port: u16,
    },
    /// The host is not running, or is running already.
    #[error("{host} is {state}")]
    WrongState {
        /// The host's name.
        host: String,
        /// What it is: "not running", "already running".
        state: &'static str,
    },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn account_clause(account: &Option<String>) -> String {
    account.as_ref().map(|name| format!(" by the user {name}, as whom the servers run")).unwrap_or_default()
}
