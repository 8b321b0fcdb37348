//! One PostgreSQL server of a local fleet: its process, its files, its log, and the ways to hurt it.

use super::FleetError;
use super::programs::{PgPrograms, tail};
use crate::types::Secret;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The superuser of a local fleet.
pub const SUPERUSER: &str = "postgres";
/// The role of the application in a local fleet, which owns the database.
pub const APP_USER: &str = "app";
/// The database of a local fleet.
pub const APP_DATABASE: &str = "app";

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// How a server is asked to stop. `LocalHost::kill` does not ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// SIGINT: sessions are ended with 57P01, a checkpoint is written.
    Fast,
    /// SIGQUIT: sessions are ended with 57P02, the next start recovers.
    Immediate,
}

/// One PostgreSQL server of a local fleet. All methods take `&self`: a test may hurt one host while others read its log.
#[derive(Debug)]
pub struct LocalHost {
    pub(super) name: String,
    pub(super) port: u16,
    /// The data directory.
    pub(super) data: PathBuf,
    pub(super) shared: Arc<FleetShared>,
    process: Mutex<Option<Child>>,
}

/// What all hosts of a fleet have in common.
#[derive(Debug)]
pub(super) struct FleetShared {
    pub(super) programs: PgPrograms,
    pub(super) root: PathBuf,
    pub(super) superuser_password: Secret,
    pub(super) app_password: Secret,
}

impl LocalHost {
    pub(super) fn new(name: String, port: u16, shared: Arc<FleetShared>) -> LocalHost {
        let data = shared.root.join(&name);
        LocalHost { name, port, data, shared, process: Mutex::new(None) }
    }

    /// `primary`, `replica1`, ...: also its `cluster_name`. It does not change when the host is promoted.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The file that the server logs to.
    pub fn log_path(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// The directory of the Unix socket, for `host=` in a connection string.
    pub fn socket_directory(&self) -> &Path {
        &self.shared.root
    }

    /// A URL that logs in as the superuser.
    pub fn superuser_url(&self) -> String {
        self.url(SUPERUSER, &self.shared.superuser_password)
    }

    /// A URL that logs in as the application.
    pub fn app_url(&self) -> String {
        self.url(APP_USER, &self.shared.app_password)
    }

    fn url(&self, user: &str, password: &Secret) -> String {
        format!("postgres://{user}:{}@127.0.0.1:{}/{APP_DATABASE}", password.reveal(), self.port)
    }

    /// The postmaster's process id while we run one.
    pub fn process_id(&self) -> Option<u32> {
        self.process().as_ref().map(Child::id)
    }

    /// Runs statements as the superuser, with psql; answers the rows without headings, columns separated by `|`.
    ///
    /// # Errors
    /// When the server cannot be reached or a statement fails.
    pub fn sql(&self, statements: &str) -> Result<String, FleetError> {
        self.sql_in(APP_DATABASE, statements)
    }

    pub(super) fn sql_in(&self, database: &str, statements: &str) -> Result<String, FleetError> {
        let mut command = self.client("psql", SUPERUSER, &self.shared.superuser_password);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", statements]);
        let output = self.shared.programs.run("psql", &mut command)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// A client program pointed at this host.
    pub(super) fn client(&self, program: &str, user: &str, password: &Secret) -> Command {
        let mut command = self.shared.programs.command(program);
        command.env("PGPASSWORD", password.reveal()).env("PGCONNECT_TIMEOUT", "10");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", user]);
        command
    }

    /// Starts the server and waits until it accepts connections. What is left of one that was killed is waited for.
    ///
    /// # Errors
    /// When it is running already, ends at once (the error has the end of its log), or takes more than a minute.
    pub fn start(&self) -> Result<(), FleetError> {
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            match self.start_once() {
                // A session that was being born when its server was killed is in nobody's list, and lives for a moment longer.
                Err(FleetError::Ended { log, .. }) if is_in_the_way(&log) && Instant::now() < deadline => {
                    std::thread::sleep(POLL * 10)
                }
                outcome => return outcome,
            }
        }
    }

    fn start_once(&self) -> Result<(), FleetError> {
        let mut process = self.process();
        if let Some(child) = process.as_mut()
            && !matches!(child.try_wait(), Ok(Some(_)))
        {
            return Err(FleetError::WrongState { host: self.name.clone(), state: "already running" });
        }
        let log = self.open_log()?;
        let log_for_errors = log.try_clone().map_err(|source| self.log_error(source))?;
        let mut command = self.shared.programs.command("postgres");
        command.arg("-D").arg(&self.data).args(["-p", &self.port.to_string(), "-c", &format!("cluster_name={}", self.name)]);
        // A socket's path may have 107 bytes.
        let socket_fits = self.shared.root.as_os_str().len() < 80;
        let socket = if socket_fits { self.shared.root.display().to_string() } else { String::new() };
        command.args(["-c", &format!("unix_socket_directories={socket}")]).stdout(log).stderr(log_for_errors);
        let child = command.spawn().map_err(|source| FleetError::Spawn { program: "postgres".into(), source })?;
        self.wait_until_ready(process.insert(child))
    }

    fn wait_until_ready(&self, child: &mut Child) -> Result<(), FleetError> {
        let deadline = Instant::now() + START_LIMIT;
        // The postmaster writes its state into the eighth line of its pid file: Spec: src/include/utils/pidfile.h.
        loop {
            let pid_file = std::fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
            let mut lines = pid_file.lines();
            let ours = lines.next().and_then(|pid| pid.trim().parse().ok()) == Some(child.id());
            if ours && lines.nth(6).is_some_and(|state| state.trim() == "ready") {
                return Ok(());
            }
            if matches!(child.try_wait(), Ok(Some(_))) {
                let log = std::fs::read(self.log_path()).unwrap_or_default();
                return Err(FleetError::Ended { host: self.name.clone(), log: tail(&String::from_utf8_lossy(&log), 10) });
            }
            if Instant::now() > deadline {
                return Err(FleetError::TooSlow { what: format!("the start of {}", self.name), limit: START_LIMIT });
            }
            std::thread::sleep(POLL);
        }
    }

    /// Asks the server to stop, and waits until it has.
    ///
    /// # Errors
    /// When it is not running, or does not stop.
    pub fn stop(&self, mode: StopMode) -> Result<(), FleetError> {
        let signal = match mode {
            StopMode::Fast => "INT",
            StopMode::Immediate => "QUIT",
        };
        let mut process = self.process();
        let child = process.as_mut().ok_or_else(|| self.not_running())?;
        send_signal(signal, &[child.id()])?;
        let deadline = Instant::now() + STOP_LIMIT;
        while !matches!(child.try_wait(), Ok(Some(_))) {
            if Instant::now() > deadline {
                return Err(FleetError::TooSlow { what: format!("the stop of {}", self.name), limit: STOP_LIMIT });
            }
            std::thread::sleep(POLL);
        }
        *process = None;
        Ok(())
    }

    /// Kills the server and all its processes with SIGKILL, as when a machine is lost, and waits until they are gone.
    ///
    /// # Errors
    /// When it is not running.
    pub fn kill(&self) -> Result<(), FleetError> {
        let mut process = self.process();
        let mut child = process.take().ok_or_else(|| self.not_running())?;
        // It makes no session any more that would be missed, and would go on writing beside a new server.
        send_signal("STOP", &[child.id()])?;
        let family = family_of(child.id());
        send_signal("KILL", &family)?;
        child.wait().map_err(|source| FleetError::Spawn { program: "postgres".into(), source })?;
        // Its sessions are not our children; a new server refuses to start while one of them holds the shared memory.
        let deadline = Instant::now() + STOP_LIMIT;
        while family.iter().any(|pid| is_alive(*pid)) && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        // The id in it may soon be a stranger's.
        match std::fs::remove_file(self.data.join("postmaster.pid")) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(self.data_error(source)),
            _ => Ok(()),
        }
    }

    /// Stops the server and starts it again on the same port.
    ///
    /// # Errors
    /// As `stop` and `start`.
    pub fn restart(&self, mode: StopMode) -> Result<(), FleetError> {
        self.stop(mode)?;
        self.start()
    }

    /// Promotes a replica, and waits until it accepts writes.
    ///
    /// # Errors
    /// When the server is not a replica, or takes more than 30 s.
    pub fn promote(&self) -> Result<(), FleetError> {
        match self.sql("SELECT pg_promote(true, 30)")?.as_str() {
            "t" => Ok(()),
            _ => Err(FleetError::TooSlow { what: format!("the promotion of {}", self.name), limit: Duration::from_secs(30) }),
        }
    }

    /// Holds a replica where it is: it goes on receiving, and applies nothing.
    ///
    /// # Errors
    /// When the server is not a replica.
    pub fn pause_replay(&self) -> Result<(), FleetError> {
        self.sql("SELECT pg_wal_replay_pause()")?;
        // The request is granted between two records.
        let deadline = Instant::now() + START_LIMIT;
        while self.sql("SELECT pg_get_wal_replay_pause_state()")? != "paused" {
            if Instant::now() > deadline {
                return Err(FleetError::TooSlow { what: format!("pausing replay on {}", self.name), limit: START_LIMIT });
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Lets a replica apply again.
    ///
    /// # Errors
    /// When the server is not a replica.
    pub fn resume_replay(&self) -> Result<(), FleetError> {
        self.sql("SELECT pg_wal_replay_resume()").map(|_| ())
    }

    /// Stops all the server's processes with SIGSTOP: connections stay open and nothing answers.
    ///
    /// # Errors
    /// When it is not running.
    pub fn freeze(&self) -> Result<(), FleetError> {
        let pid = self.process_id().ok_or_else(|| self.not_running())?;
        // The postmaster first, so that no child is born meanwhile.
        send_signal("STOP", &[pid])?;
        send_signal("STOP", &family_of(pid))
    }

    /// Ends `freeze`.
    ///
    /// # Errors
    /// When it is not running.
    pub fn thaw(&self) -> Result<(), FleetError> {
        let pid = self.process_id().ok_or_else(|| self.not_running())?;
        send_signal("CONT", &family_of(pid))
    }

    /// Waits for a process that something else has told to stop.
    pub(super) fn reap(&self) {
        if let Some(mut child) = self.process().take()
            && let Err(error) = child.wait()
        {
            tracing::warn!(host = self.name, %error, "could not wait for the end of a server");
        }
    }

    fn open_log(&self) -> Result<File, FleetError> {
        OpenOptions::new().create(true).append(true).open(self.log_path()).map_err(|source| self.log_error(source))
    }

    fn log_error(&self, source: std::io::Error) -> FleetError {
        FleetError::Directory { path: self.log_path(), account: None, source }
    }

    pub(super) fn data_error(&self, source: std::io::Error) -> FleetError {
        FleetError::Directory { path: self.data.clone(), account: None, source }
    }

    fn not_running(&self) -> FleetError {
        FleetError::WrongState { host: self.name.clone(), state: "not running" }
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a server did not start because something of the one before it is still there: its shared memory, its port, its lock file.
/// Spec: src/backend/utils/init/miscinit.c, src/backend/libpq/pqcomm.c
fn is_in_the_way(log: &str) -> bool {
    let last = log.lines().rev().find(|line| line.contains("FATAL:")).unwrap_or_default();
    ["pre-existing shared memory block", "could not create any TCP/IP sockets", "already exists"]
        .iter()
        .any(|text| last.contains(text))
}

/// Sends a signal with the shell's own `kill`: every system has it, and it needs no unsafe code. Processes that are gone are
/// skipped.
fn send_signal(signal: &str, processes: &[u32]) -> Result<(), FleetError> {
    let status = Command::new("sh")
        .args(["-c", r#"signal=$1; shift; for pid; do kill -s "$signal" "$pid"; done"#, "sh", signal])
        .args(processes.iter().map(u32::to_string))
        .stderr(Stdio::null())
        .status();
    status.map(|_| ()).map_err(|source| FleetError::Spawn { program: "sh".into(), source })
}

/// A process and its children.
fn family_of(parent: u32) -> Vec<u32> {
    let listed = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).stderr(Stdio::null()).output();
    let from_ps = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let table = if from_ps.is_empty() { table_from_proc() } else { from_ps };
    let mut family = vec![parent];
    family.extend(table.lines().filter_map(|line| {
        let (pid, ppid) = line.trim().split_once(char::is_whitespace)?;
        (ppid.trim().parse() == Ok(parent)).then(|| pid.parse::<u32>().ok()).flatten()
    }));
    family
}

/// What `ps` would say, on a system without it.
fn table_from_proc() -> String {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let line = |entry: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name, in parentheses, may contain anything.
        let (name, rest) = stat.rsplit_once(')')?;
        Some(format!("{} {}\n", name.split_once(' ')?.0, rest.split_whitespace().nth(1)?))
    };
    entries.filter_map(line).collect()
}

/// Whether a process runs; one that only waits to be reaped does not.
fn is_alive(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_killed_server_is_told_from_other_reasons() {
        let memory =
            "FATAL:  pre-existing shared memory block (key 1, ID 2) is still in use\nHINT:  Terminate any old server processes";
        let port = "LOG:  could not bind IPv4 address \"127.0.0.1\": Address already in use\nHINT:  Is another postmaster already running?\n\
                    WARNING:  could not create listen socket\nFATAL:  could not create any TCP/IP sockets\nLOG:  database system is shut down";
        let lock = "FATAL:  lock file \"postmaster.pid\" already exists\nHINT:  Is another postmaster (PID 7) running?";
        assert!([memory, port, lock].into_iter().all(is_in_the_way));
        let other = "FATAL:  unrecognized configuration parameter \"no_such\"";
        assert!(!is_in_the_way(other) && !is_in_the_way(""));
        assert!(!is_in_the_way(&format!("{memory}\n{other}")), "only why it did not start this time");
    }

    #[test]
    fn a_family_is_found_with_ps_and_without() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let us = std::process::id();
        assert!(family_of(us).contains(&child.id()), "ps or /proc lists the child");
        assert!(table_from_proc().lines().any(|line| line == format!("{} {us}", child.id())));
        assert!(is_alive(child.id()));
        send_signal("KILL", &[child.id()]).unwrap();
        child.wait().unwrap();
        assert!(!is_alive(child.id()));
    }
}
