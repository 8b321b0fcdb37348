//! One server with a database for the old shard and for each new one, a configuration of both, and the worker as a process.

use super::super::harness::programs::psql;
use super::super::harness::{Pgyard, guard};
use pgyard::demo::{FleetOptions, LocalFleet};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

/// The new shards, which are also their databases' names.
pub const NEW: [&str; 3] = ["s0", "s1", "s2"];

/// What a test has for itself.
pub struct Stage {
    fleet: LocalFleet,
    config: String,
    directory: tempfile::TempDir,
    yard_file: OnceLock<String>,
}

impl Stage {
    /// Makes the databases `old` and those of the new shards with a schema. `places` says where tables are; `NAME` in it is the database.
    pub fn new(schema: &str, places: &str) -> Stage {
        let options = FleetOptions { replicas: 0, ..FleetOptions::default() };
        let fleet = LocalFleet::start(options, &mut |_| ()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut stage = Stage { fleet, config: String::new(), directory, yard_file: OnceLock::new() };
        for database in NEW.iter().chain(&["old"]) {
            stage.fleet.primary().sql(&format!("CREATE DATABASE {database} OWNER app")).unwrap();
            psql(&stage.url(database), &format!("{schema}; GRANT ALL ON ALL TABLES IN SCHEMA public TO app"));
        }
        let shard = |owner: &str, name: &str| {
            format!("[[databases.{owner}.shards]]\nname = \"{name}\"\nprimary = {:?}\n", stage.url(name))
        };
        let new: String = NEW.iter().map(|name| shard("app_new", name)).collect();
        let places = |name: &str| places.replace("NAME", name);
        stage.config = format!(
            "listen = \"{{listen}}\"\nhttp = \"{{http}}\"\n{}{}{new}{}",
            shard("app", "old"),
            places("app"),
            places("app_new")
        );
        std::fs::write(
            stage.directory.path().join("alone.toml"),
            stage.config.replace("{listen}", "127.0.0.1:1").replace("{http}", "off"),
        )
        .unwrap();
        stage
    }

    /// A URL of a database, as the superuser.
    pub fn url(&self, database: &str) -> String {
        let url = self.fleet.primary().superuser_url();
        let (before, rest) = url.rsplit_once('/').unwrap();
        let options = rest.split_once('?').map(|(_, options)| format!("?{options}")).unwrap_or_default();
        format!("{before}/{database}{options}")
    }

    /// pgyard in front of the old shard and the new ones.
    pub fn yard(&self) -> Pgyard {
        let yard = Pgyard::start_with_config(&self.fleet, &self.config);
        self.yard_file.set(yard.directory().join("pgyard.toml").display().to_string()).unwrap();
        // A single shard needs none.
        for database in NEW {
            let there = || psql(&self.url(database), "SELECT to_regclass('pgyard.decisions') IS NOT NULL") == "t";
            super::super::harness::eventually("the tables of decisions are made", std::time::Duration::from_secs(30), there);
        }
        yard
    }

    /// The configuration's file: pgyard's, if there is one.
    pub fn file(&self) -> String {
        let alone = || self.directory.path().join("alone.toml").display().to_string();
        self.yard_file.get().cloned().unwrap_or_else(alone)
    }
}

/// The command line, with no settings in its environment.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgyard"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PGYARD_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs the command line.
pub fn pgyard(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

/// What a command said, which has to succeed or not.
pub fn said(output: &Output, succeeds: bool) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.success(), succeeds, "{said}");
    said
}

/// `pgyard reshard run` as a process; killed when it is dropped.
pub struct Worker {
    process: Child,
    log: tempfile::NamedTempFile,
}

impl Worker {
    /// Starts one.
    pub fn start(stage: &Stage) -> Worker {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = command(&["reshard", "run", &stage.file(), "app", "app_new"]);
        command.stdout(log.reopen().unwrap()).stderr(log.reopen().unwrap());
        let process = command.spawn().unwrap();
        guard::watch(process.id());
        Worker { process, log }
    }

    /// What it has said so far. It must not have given up.
    pub fn said(&self) -> String {
        let said = std::fs::read_to_string(self.log.path()).unwrap();
        assert!(!said.contains("pgyard: "), "the worker has given up: {said}");
        said
    }

    /// Ends it at once.
    pub fn kill(self) {
        self.said();
    }

    /// Waits until it ends by itself, as it does when the work is done.
    pub fn ends(mut self) {
        super::super::harness::eventually("the worker ends", std::time::Duration::from_secs(60), || {
            self.process.try_wait().unwrap().is_some()
        });
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{status} {}", self.said());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        guard::end(&mut self.process);
        if std::thread::panicking() {
            eprintln!("--- what the worker said\n{}", std::fs::read_to_string(self.log.path()).unwrap_or_default());
        }
    }
}
