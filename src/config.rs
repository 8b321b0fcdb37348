//! What the operator wrote (`file`, `quick`), what it means (`settings`), and what may change at a reload (`diff`).
//!
//! One table of keys (`keys`) and one place of defaults (`defaults`) serve the reader of the file, `SHOW CONFIG`, the reload
//! and the documentation. Nothing here opens a connection or looks up a name, and nothing here prints a secret.

mod codec;
mod document;
mod environment;
mod file;
mod keys;
mod listen;
mod quick;
mod secrets;
mod served;
mod sharding;
mod url;

pub mod access;
pub mod choice;
pub mod clients;
pub mod defaults;
pub mod diff;
pub mod duration;
pub mod peers;
pub mod problem;
mod rate;
pub mod settings;
pub mod show;
pub mod size;

pub use access::{
    AccessMethod, AccessQuery, AccessRule, AddressRange, CertName, ClientCertRule, ConnectionKind, NamePattern,
    REPLICATION_KEYWORD, UserMap,
};
pub use choice::NamedChoice;
pub use clients::ClientSettings;
pub use defaults::{DEFAULT_LISTEN_PORT, DEFAULT_LOOKUP_QUERY, DEFAULT_SERVER_PORT};
pub use diff::{ReloadPlan, diff};
pub use document::reference_tables;
pub use duration::{DurationParseError, format_duration, parse_duration};
pub use environment::Environment;
pub use peers::{PeerAddress, PeerSettings};
pub use problem::{ConfigReport, Problem, ProblemKind, ProblemPlace, ProblemSpot, Severity};
pub use quick::{QuickOptions, from_url, quick};
pub use rate::format_rate;
pub use served::set_served_by;
pub use settings::*;
pub use sharding::{COORDINATOR, ShardingSettings, shard_database_name};
pub use show::settings_table;
pub use size::{SizeParseError, format_size, parse_size};

use std::path::Path;

/// Settings out of a file, and what should be looked at though they are legal.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Warnings, in the order of the file.
    pub warnings: Vec<Problem>,
}

/// Reads a configuration file and the secrets it names, and checks that certificates and keys are there. Relative paths in it start at its
/// folder.
///
/// # Errors
/// Every problem that could be found, as a listing for people.
pub fn load(path: &Path, environment: &Environment) -> Result<Loaded, ConfigReport> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let help = match error.kind() {
            std::io::ErrorKind::NotFound => "name a file with --config, or give the hosts with --primary and --replica",
            std::io::ErrorKind::InvalidData => "it has to be TOML in UTF-8",
            _ => "the user that pgyard runs as needs to read it",
        };
        let place = ProblemPlace::File { name: name.clone(), spot: None };
        let message = format!("cannot read the configuration: {error}");
        ConfigReport { problems: vec![file_problem(Severity::Error, place, message, help)] }
    })?;
    let mut reader = file::reader::Reader::new(&text, &name, environment);
    reader.files = secrets::FilePolicy::Read;
    reader.folder = path.parent().unwrap_or(Path::new(""));
    reader.readable_by_others = secrets::readable_by_others(path);
    loaded(file::read(reader))
}

/// Reads a configuration from a text, without looking at any other file: secrets in files are stood in for by a text that no server
/// accepts, certificates are taken to be there. For checks, not for serving.
///
/// # Errors
/// Every problem that could be found, as a listing for people.
pub fn parse(text: &str, file_name: &str, environment: &Environment) -> Result<Loaded, ConfigReport> {
    loaded(file::read(file::reader::Reader::new(text, file_name, environment)))
}

fn loaded((settings, problems): (Option<Settings>, Vec<Problem>)) -> Result<Loaded, ConfigReport> {
    match settings {
        Some(settings) => Ok(Loaded { settings, warnings: problems }),
        None => Err(ConfigReport { problems }),
    }
}

fn file_problem(severity: Severity, place: ProblemPlace, message: String, help: &str) -> Problem {
    Problem { severity, kind: ProblemKind::File, place, message, help: Some(help.to_owned()) }
}

#[cfg(test)]
mod tests;
