//! Where PostgreSQL's programs are, and as whom they run.

use super::FleetError;
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What a fleet cannot do without.
const NEEDED: [&str; 4] = ["initdb", "postgres", "pg_basebackup", "psql"];

/// PostgreSQL's programs of one version, and the user they run as.
#[derive(Clone, Debug)]
pub struct PgPrograms {
    directory: PathBuf,
    version: String,
    account: Option<Account>,
}

/// The user that servers run as when we are root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl PgPrograms {
    /// Finds them: in `PGYARD_PG_BIN` if that is set, else the newest of `/usr/lib/postgresql/*/bin` and its like, else where
    /// `pg_config` says, else on the `PATH`.
    ///
    /// # Errors
    /// When they are nowhere, or when we are root and there is no other user to run them as.
    pub fn find() -> Result<PgPrograms, FleetError> {
        let directory = match std::env::var_os("PGYARD_PG_BIN") {
            Some(named) => named_directory(PathBuf::from(named))?,
            None => {
                let looked = candidates();
                looked.iter().find(|at| missing(at).is_none()).cloned().ok_or(FleetError::ProgramsMissing { looked })?
            }
        };
        let account = account_to_run_as()?;
        let mut programs = PgPrograms { directory, version: String::new(), account };
        let output = programs.run("postgres", programs.command("postgres").arg("--version"))?;
        programs.version = String::from_utf8_lossy(&output.stdout).trim().replace("postgres (PostgreSQL) ", "");
        Ok(programs)
    }

    /// The directory they are in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// PostgreSQL's version, as its programs print it: `15.18`.
    pub fn version(&self) -> &str {
        &self.version
    }

    pub(super) fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    /// A command for one of the programs, run as the right user, in a process group of its own (Ctrl-C at the terminal is for
    /// pgyard, which stops servers in order), and free of the environment's PG* variables.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.directory.join(program));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        // Nor do files of the user's own count: another user's may not even be readable.
        command.env("HOME", "/nonexistent").env("LC_ALL", "C").current_dir("/").stdin(Stdio::null()).process_group(0);
        if let Some(account) = &self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// When it cannot be started or fails; the error has the end of what it printed.
    pub(super) fn run(&self, program: &str, command: &mut Command) -> Result<Output, FleetError> {
        let output = command.output().map_err(|source| FleetError::Spawn { program: program.to_owned(), source })?;
        if output.status.success() {
            return Ok(output);
        }
        let printed = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
        Err(FleetError::Failed { program: program.to_owned(), output: tail(&String::from_utf8_lossy(printed), 10) })
    }
}

/// The last lines of a text.
pub(super) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.trim_end().lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn named_directory(directory: PathBuf) -> Result<PathBuf, FleetError> {
    match missing(&directory) {
        None => Ok(directory),
        Some(program) => Err(FleetError::ProgramMissing { directory, program }),
    }
}

fn missing(directory: &Path) -> Option<&'static str> {
    NEEDED.into_iter().find(|program| !directory.join(program).is_file())
}

fn candidates() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (parent, prefix) in
        [("/usr/lib/postgresql", ""), ("/usr", "pgsql-"), ("/opt/homebrew/opt", "postgresql@"), ("/usr/local/opt", "postgresql@")]
    {
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        let names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        found.extend(newest_first(&names, prefix).into_iter().map(|name| Path::new(parent).join(name).join("bin")));
    }
    if let Ok(output) = Command::new("pg_config").arg("--bindir").stderr(Stdio::null()).output() {
        let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        found.extend((!printed.is_empty()).then(|| PathBuf::from(printed)));
    }
    found.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    found
}

/// Of names such as `pgsql-9.6` those with the prefix and a version, newest first.
fn newest_first<'a>(names: &'a [String], prefix: &str) -> Vec<&'a str> {
    let mut versions: BTreeMap<Vec<u32>, &str> = BTreeMap::new();
    for name in names {
        let version: Option<Vec<u32>> =
            name.strip_prefix(prefix).and_then(|rest| rest.split('.').map(|part| part.parse().ok()).collect());
        if let Some(version) = version {
            versions.insert(version, name);
        }
    }
    versions.into_values().rev().collect()
}

fn account_to_run_as() -> Result<Option<Account>, FleetError> {
    if id(&["-u"]) != Some(0) {
        return Ok(None);
    }
    ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| Some(Account { name: name.to_owned(), uid: id(&["-u", name])?, gid: id(&["-g", name])? }))
        .map(Some)
        .ok_or(FleetError::NoAccount)
}

/// What `id` prints: it knows users that are not in `/etc/passwd`, and needs no unsafe code.
fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).stderr(Stdio::null()).output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_comes_first_and_other_names_are_skipped() {
        let check = |names: &[&str], prefix: &str, expect: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(newest_first(&names, prefix), expect);
        };
        check(&["9.6", "15", "16", "10"], "", &["16", "15", "10", "9.6"]);
        check(&["bin", "pgsql-14", "pgsql-9.6", "pgsql-x", "lib"], "pgsql-", &["pgsql-14", "pgsql-9.6"]);
        check(&["", "common", "16beta1"], "", &[]);
    }

    #[test]
    fn a_directory_named_by_the_operator_must_hold_the_programs() {
        let directory = tempfile::tempdir().unwrap();
        let error = named_directory(directory.path().to_owned()).unwrap_err();
        assert!(error.to_string().contains("there is no initdb in it"), "{error}");
        for program in NEEDED {
            std::fs::write(directory.path().join(program), "").unwrap();
        }
        assert_eq!(named_directory(directory.path().to_owned()).unwrap(), directory.path());
    }

    #[test]
    fn the_end_of_a_text_is_kept() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a\n", 2), "a");
        assert_eq!(tail("", 2), "");
    }
}
