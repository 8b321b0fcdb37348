//! A primary and its streaming replicas on this machine, from PostgreSQL's own programs.
//!
//! Invariants: nothing is left running when the fleet is dropped or this process dies in any way (see `warden`), and a
//! directory that the caller named is never deleted.

use super::FleetError;
use super::host::{APP_DATABASE, APP_USER, FleetShared, LocalHost, SUPERUSER};
use super::ports::{free_port, is_free};
use super::programs::PgPrograms;
use super::warden::Warden;
use crate::types::Secret;
use std::fmt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long replicas may take to stream.
const STREAMING_LIMIT: Duration = Duration::from_secs(30);

/// What fleet to start.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    /// Streaming replicas. Default 2.
    pub replicas: usize,
    /// Where the data lives. `None` (default): a throw-away directory, without fsync. A named directory is kept, and its data is
    /// found again at the next start.
    pub directory: Option<PathBuf>,
    /// Port of the primary, replicas follow. `None` (default): free ones.
    pub first_port: Option<u16>,
    /// Keeps the data of a throw-away directory. Default false.
    pub keep: bool,
    /// Log every statement that a server executes, so that tests can read where statements ran. Default false.
    pub log_statements: bool,
    /// Lines for `postgresql.conf`, after ours.
    pub settings: Vec<String>,
}

impl Default for FleetOptions {
    fn default() -> Self {
        FleetOptions { replicas: 2, directory: None, first_port: None, keep: false, log_statements: false, settings: Vec::new() }
    }
}

/// What is happening while a fleet starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FleetProgress {
    /// The programs were found.
    Found {
        /// PostgreSQL's version.
        version: String,
        /// Where its programs are.
        programs: PathBuf,
        /// Where the data will be.
        data: PathBuf,
    },
    /// `initdb` runs.
    Initialising(String),
    /// A base backup for a replica is being taken.
    Copying(String),
    /// A host accepts connections.
    Started {
        /// Its name.
        host: String,
        /// Its port.
        port: u16,
    },
    /// All replicas stream.
    Streaming {
        /// Time since the beginning.
        elapsed: Duration,
    },
}

impl fmt::Display for FleetProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FleetProgress::Found { version, programs, data } => {
                write!(f, "PostgreSQL {version} from {}, data in {}", programs.display(), data.display())
            }
            FleetProgress::Initialising(host) => write!(f, "{host}: creating the database cluster"),
            FleetProgress::Copying(host) => write!(f, "{host}: copying the primary"),
            FleetProgress::Started { host, port } => write!(f, "{host}: accepts connections on 127.0.0.1:{port}"),
            FleetProgress::Streaming { elapsed } => {
                write!(f, "every replica streams, {:.1} s after the start", elapsed.as_secs_f64())
            }
        }
    }
}

/// A running fleet. Dropping it stops it and deletes a throw-away directory.
#[derive(Debug)]
pub struct LocalFleet {
    hosts: Vec<LocalHost>,
    shared: Arc<FleetShared>,
    throw_away: bool,
    warden: Warden,
}

impl LocalFleet {
    /// Starts a primary and its replicas; returns when all replicas stream.
    ///
    /// # Errors
    /// When PostgreSQL is not installed, the directory or a port cannot be used, or a server does not start. Whatever was
    /// started is stopped again.
    pub fn start(options: FleetOptions, progress: &mut dyn FnMut(FleetProgress)) -> Result<LocalFleet, FleetError> {
        let begin = Instant::now();
        let programs = PgPrograms::find()?;
        let throw_away = options.directory.is_none() && !options.keep;
        let root = make_root(options.directory.as_deref(), &programs)?;
        let mut warden = Warden::start(&root, !throw_away)?;
        progress(FleetProgress::Found {
            version: programs.version().to_owned(),
            programs: programs.directory().to_owned(),
            data: root.clone(),
        });
        let shared = Arc::new(FleetShared {
            superuser_password: kept_password(&root.join("superuser.password"), &programs)?,
            app_password: kept_password(&root.join("app.password"), &programs)?,
            programs,
            root,
        });
        let hosts = make_hosts(&options, &shared)?;
        if let Err(error) = start_hosts(&options, throw_away, &hosts, progress) {
            end(&mut warden, &hosts);
            return Err(error);
        }
        progress(FleetProgress::Streaming { elapsed: begin.elapsed() });
        Ok(LocalFleet { hosts, shared, throw_away, warden })
    }

    /// The hosts: the primary of the start first, then the replicas.
    pub fn hosts(&self) -> &[LocalHost] {
        &self.hosts
    }

    /// The host that was the primary at the start.
    pub fn primary(&self) -> &LocalHost {
        &self.hosts[0]
    }

    /// The hosts that were replicas at the start.
    pub fn replicas(&self) -> &[LocalHost] {
        &self.hosts[1..]
    }

    /// The programs that the fleet was started with.
    pub fn programs(&self) -> &PgPrograms {
        &self.shared.programs
    }

    /// Where data, logs and sockets are.
    pub fn directory(&self) -> &Path {
        &self.shared.root
    }

    /// Whether the end of the fleet is the end of its data.
    pub fn deletes_its_data(&self) -> bool {
        self.throw_away
    }

    /// The password of the superuser.
    pub fn superuser_password(&self) -> &Secret {
        &self.shared.superuser_password
    }

    /// The password of the application's role.
    pub fn app_password(&self) -> &Secret {
        &self.shared.app_password
    }

    /// Waits until `replica` has replayed all that `primary` has written so far.
    ///
    /// # Errors
    /// When either cannot be asked, or the replica does not get there within 30 s.
    pub fn wait_for_replay(&self, primary: &LocalHost, replica: &LocalHost) -> Result<(), FleetError> {
        let target = primary.sql("SELECT pg_current_wal_flush_lsn()")?;
        let question = format!("SELECT pg_last_wal_replay_lsn() >= '{target}'");
        wait_until(&format!("replay on {}", replica.name()), || Ok(replica.sql(&question)? == "t"))
    }

    /// Makes a host a replica of another: after a promotion, for the other replicas (their data is kept) and for the old primary
    /// (pass `copy`: its data is replaced by a new base backup). The host is started if it is not running.
    ///
    /// # Errors
    /// When the base backup or a start fails, or the host does not stream within 30 s.
    pub fn follow(&self, host: &LocalHost, primary: &LocalHost, copy: bool) -> Result<(), FleetError> {
        if copy {
            if host.process_id().is_some() {
                host.kill()?;
            }
            std::fs::remove_dir_all(&host.data).map_err(|source| host.data_error(source))?;
            copy_primary(primary, host)?;
        } else {
            make_slot(primary, host)?;
            let connection =
                format!("host=127.0.0.1 port={} user={SUPERUSER} password={}", primary.port, self.superuser_password().reveal());
            host.sql(&format!("ALTER SYSTEM SET primary_conninfo = '{connection}'"))?;
            host.sql("SELECT pg_reload_conf()")?;
        }
        if host.process_id().is_none() {
            host.start()?;
        }
        wait_for_streaming(primary, &[host.name()])
    }
}

impl Drop for LocalFleet {
    fn drop(&mut self) {
        end(&mut self.warden, &self.hosts);
    }
}

/// Lets the warden stop the servers, and reaps them; the warden itself is waited for when it is dropped.
fn end(warden: &mut Warden, hosts: &[LocalHost]) {
    warden.begin();
    hosts.iter().for_each(LocalHost::reap);
}

fn make_root(named: Option<&Path>, programs: &PgPrograms) -> Result<PathBuf, FleetError> {
    let root = match named {
        Some(named) => std::path::absolute(named).unwrap_or_else(|_| named.to_owned()),
        None => std::env::temp_dir().join(format!("pgyard-fleet-{:016x}", rand::random::<u64>())),
    };
    let fail = |source| FleetError::Directory { path: root.clone(), account: None, source };
    let existed = root.is_dir();
    std::fs::create_dir_all(&root).map_err(fail)?;
    if !existed {
        std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o711)).map_err(fail)?;
    }
    if let Some(account) = programs.account() {
        if !existed {
            chown(&root, Some(account.uid), Some(account.gid)).map_err(fail)?;
        }
        // The user may be unable to reach the directory at all, for instance below /root.
        let mut probe = programs.command("postgres");
        let reachable = probe.arg("--version").current_dir(&root).output().is_ok();
        if !reachable {
            let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
            return Err(FleetError::Directory { path: root, account: Some(account.name.clone()), source });
        }
    }
    Ok(root)
}

/// The password in a file, made at the first start.
fn kept_password(file: &Path, programs: &PgPrograms) -> Result<Secret, FleetError> {
    let fail = |source| FleetError::Directory { path: file.to_owned(), account: None, source };
    if !file.exists() {
        std::fs::write(file, format!("{:032x}", rand::random::<u128>())).map_err(fail)?;
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).map_err(fail)?;
        if let Some(account) = programs.account() {
            chown(file, Some(account.uid), Some(account.gid)).map_err(fail)?;
        }
    }
    Ok(Secret::new(std::fs::read_to_string(file).map_err(fail)?.trim()))
}

fn make_hosts(options: &FleetOptions, shared: &Arc<FleetShared>) -> Result<Vec<LocalHost>, FleetError> {
    let mut hosts: Vec<LocalHost> = Vec::new();
    for index in 0..=options.replicas {
        let name = if index == 0 { "primary".to_owned() } else { format!("replica{index}") };
        let port = match options.first_port {
            Some(first) => first.saturating_add(u16::try_from(index).unwrap_or(u16::MAX)),
            None => free_port()?,
        };
        if options.first_port.is_some() && !is_free(port) {
            return Err(FleetError::PortTaken { host: name, port });
        }
        hosts.push(LocalHost::new(name, port, Arc::clone(shared)));
    }
    Ok(hosts)
}

fn start_hosts(
    options: &FleetOptions,
    throw_away: bool,
    hosts: &[LocalHost],
    progress: &mut dyn FnMut(FleetProgress),
) -> Result<(), FleetError> {
    let (primary, replicas) = (&hosts[0], &hosts[1..]);
    let fresh = !primary.data.join("PG_VERSION").exists();
    if fresh {
        progress(FleetProgress::Initialising(primary.name.clone()));
        init_database(primary, throw_away)?;
    }
    write_settings(primary, options, throw_away)?;
    primary.start()?;
    progress(FleetProgress::Started { host: primary.name.clone(), port: primary.port });
    if fresh {
        create_app(primary)?;
    }
    for replica in replicas {
        progress(FleetProgress::Copying(replica.name.clone()));
        // One that an earlier start left behind may be on another port or timeline: a copy takes less time than finding out.
        if replica.data.exists() {
            std::fs::remove_dir_all(&replica.data).map_err(|source| replica.data_error(source))?;
        }
    }
    std::thread::scope(|scope| {
        let copies: Vec<_> = replicas
            .iter()
            .map(|replica| scope.spawn(move || copy_primary(primary, replica).and_then(|()| replica.start())))
            .collect();
        for (copy, replica) in copies.into_iter().zip(replicas) {
            copy.join().unwrap_or_else(|_| {
                Err(FleetError::Failed { program: "pg_basebackup".into(), output: "its thread panicked".into() })
            })?;
            progress(FleetProgress::Started { host: replica.name.clone(), port: replica.port });
        }
        Ok::<(), FleetError>(())
    })?;
    wait_for_streaming(primary, &replicas.iter().map(LocalHost::name).collect::<Vec<_>>())
}

fn init_database(primary: &LocalHost, throw_away: bool) -> Result<(), FleetError> {
    let shared = &primary.shared;
    let mut command = shared.programs.command("initdb");
    command.arg("-D").arg(&primary.data).args(["-U", SUPERUSER, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8"]);
    command.arg(format!("--pwfile={}", shared.root.join("superuser.password").display()));
    if throw_away {
        command.arg("--no-sync");
    }
    shared.programs.run("initdb", &mut command).map(|_| ())
}

fn write_settings(primary: &LocalHost, options: &FleetOptions, throw_away: bool) -> Result<(), FleetError> {
    let file = primary.data.join("postgresql.conf");
    let fail = |source| FleetError::Directory { path: file.clone(), account: None, source };
    let old = std::fs::read_to_string(&file).map_err(fail)?;
    let begin = "# pgyard's local fleet";
    let above = old.split(begin).next().unwrap_or_default().trim_end();
    let mut text = format!(
        "{above}\n{begin}\nlisten_addresses = '127.0.0.1'\nwal_level = logical\nmax_connections = 200\nmax_prepared_transactions = 64\n\
         max_wal_senders = 20\nmax_replication_slots = 20\nhot_standby = on\nhot_standby_feedback = on\nshared_buffers = 32MB\n\
         max_wal_size = 256MB\nmax_slot_wal_keep_size = 1GB\nwal_receiver_status_interval = 1s\nwal_retrieve_retry_interval = 200ms\n\
         log_line_prefix = '%m [%p] %q%u@%d '\nlog_checkpoints = off\n"
    );
    if throw_away {
        // Pages are still written whole to the log: a process that is killed may have written half of one.
        text.push_str("fsync = off\n");
    }
    if options.log_statements {
        text.push_str("log_statement = all\n");
    }
    for line in &options.settings {
        text.push_str(line);
        text.push('\n');
    }
    std::fs::write(&file, text).map_err(fail)
}

fn create_app(primary: &LocalHost) -> Result<(), FleetError> {
    // The password is hexadecimal: it cannot leave the quotes.
    let password = primary.shared.app_password.reveal();
    primary.sql_in("postgres", &format!("CREATE ROLE {APP_USER} LOGIN PASSWORD '{password}'"))?;
    primary.sql_in("postgres", &format!("CREATE DATABASE {APP_DATABASE} OWNER {APP_USER}")).map(|_| ())
}

fn make_slot(primary: &LocalHost, replica: &LocalHost) -> Result<(), FleetError> {
    let name = replica.name();
    let statement = format!(
        "SELECT pg_create_physical_replication_slot('{name}', true) \
         WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{name}')"
    );
    primary.sql_in("postgres", &statement).map(|_| ())
}

fn copy_primary(primary: &LocalHost, replica: &LocalHost) -> Result<(), FleetError> {
    make_slot(primary, replica)?;
    let shared = &primary.shared;
    let mut command = primary.client("pg_basebackup", SUPERUSER, &shared.superuser_password);
    command.arg("-D").arg(&replica.data).args([
        "-R",
        "-S",
        replica.name(),
        "-X",
        "stream",
        "-c",
        "fast",
        "--no-sync",
        "--no-manifest",
    ]);
    shared.programs.run("pg_basebackup", &mut command).map(|_| ())
}

fn wait_for_streaming(primary: &LocalHost, replicas: &[&str]) -> Result<(), FleetError> {
    let question = "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'";
    wait_until("streaming replication", || {
        let streaming = primary.sql(question)?;
        Ok(replicas.iter().all(|replica| streaming.lines().any(|name| name == *replica)))
    })
}

fn wait_until(what: &str, mut done: impl FnMut() -> Result<bool, FleetError>) -> Result<(), FleetError> {
    let deadline = Instant::now() + STREAMING_LIMIT;
    while !done()? {
        if Instant::now() > deadline {
            return Err(FleetError::TooSlow { what: what.to_owned(), limit: STREAMING_LIMIT });
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    Ok(())
}
