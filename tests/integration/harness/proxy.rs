//! pgyard as a process: started on free ports, ready when the constructor returns, stopped on drop.

use super::{RawClient, eventually, guard};
use pgyard::demo::{LocalFleet, free_port};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const READY_LIMIT: Duration = Duration::from_secs(30);

/// A running pgyard.
#[derive(Debug)]
pub struct Pgyard {
    process: Child,
    port: u16,
    http: u16,
    password: String,
    directory: tempfile::TempDir,
}

impl Pgyard {
    /// Starts it in front of a fleet with no file, and waits until all replicas serve reads. `arguments` are added.
    pub fn start(fleet: &LocalFleet, arguments: &[&str]) -> Pgyard {
        let mut line = vec!["--primary".to_owned(), fleet.primary().superuser_url()];
        for replica in fleet.replicas() {
            line.extend(["--replica".to_owned(), replica.superuser_url()]);
        }
        line.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let (port, http) = (free_port().unwrap(), free_port().unwrap());
        line.extend(["--listen".to_owned(), format!("127.0.0.1:{port}"), "--http".to_owned(), format!("127.0.0.1:{http}")]);
        let yard = Pgyard::spawn((fleet, &[]), &line, (port, http), tempfile::tempdir().unwrap());
        yard.wait_for_replicas(&fleet.replicas().iter().map(|replica| replica.name()).collect::<Vec<_>>());
        yard.wait_for_catalogue();
        yard
    }

    /// Starts it with a configuration file, in which `{listen}` and `{http}` become the addresses; waits until it is ready.
    #[allow(dead_code, reason = "for tests of configuration and reload")]
    pub fn start_with_config(fleet: &LocalFleet, config: &str) -> Pgyard {
        Pgyard::start_at(fleet, free_port().unwrap(), config, &[])
    }

    /// As `start_with_config`, on a port and with variables in its environment.
    pub fn start_at(fleet: &LocalFleet, port: u16, config: &str, environment: &[(&str, &str)]) -> Pgyard {
        let http = free_port().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pgyard.toml");
        let text = config.replace("{listen}", &format!("127.0.0.1:{port}")).replace("{http}", &format!("127.0.0.1:{http}"));
        std::fs::write(&file, text).unwrap();
        let line = ["serve".to_owned(), "--config".to_owned(), file.display().to_string()];
        Pgyard::spawn((fleet, environment), &line, (port, http), directory)
    }

    /// Rewrites its file below the first two lines, which name its addresses, and reloads it; answers what `pgyard reload` said.
    pub fn reload(&self, text: &str) -> String {
        let file = self.directory().join("pgyard.toml");
        let old = std::fs::read_to_string(&file).unwrap();
        let head: Vec<&str> = old.lines().take(2).collect();
        let body: Vec<&str> = text.lines().skip(2).collect();
        std::fs::write(&file, format!("{}\n{}\n", head.join("\n"), body.join("\n"))).unwrap();
        let url = format!("postgres://pgyard@127.0.0.1:{}/pgyard", self.port());
        let output = Command::new(env!("CARGO_BIN_EXE_pgyard")).args(["reload", "--admin", &url]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || said.contains("not reloaded"), "{said}");
        said
    }

    fn spawn(
        (fleet, environment): (&LocalFleet, &[(&str, &str)]),
        line: &[String],
        (port, http): (u16, u16),
        directory: tempfile::TempDir,
    ) -> Pgyard {
        let log = File::create(directory.path().join("pgyard.log")).unwrap();
        // Figures are those of a release build: the tests themselves need not be one.
        let program = std::env::var_os("PGYARD_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_pgyard").into());
        let mut command = Command::new(program);
        command.args(line).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PGYARD_") {
                command.env_remove(name);
            }
        }
        command.envs(environment.iter().copied());
        let process = command.spawn().unwrap();
        guard::watch(process.id());
        let password = fleet.app_password().reveal().to_owned();
        let mut yard = Pgyard { process, port, http, password, directory };
        let what = format!("pgyard {} is ready", line.join(" "));
        eventually(&what, READY_LIMIT, || {
            if let Ok(Some(status)) = yard.process.try_wait() {
                panic!("pgyard ended: {status}\n{}", yard.log());
            }
            yard.get("/readyz").is_some_and(|(status, _)| status == 200)
        });
        yard
    }

    /// Where clients connect.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its files: `pgyard.log`, and `pgyard.toml` if it was started with a configuration.
    #[allow(dead_code, reason = "for tests of configuration and reload")]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A URL for the application's role.
    pub fn url(&self) -> String {
        format!("postgres://app:{}@127.0.0.1:{}/app?sslmode=disable", self.password, self.port)
    }

    /// A logged-in raw client.
    pub fn client(&self) -> RawClient {
        RawClient::log_in(self.port, "app", &self.password, "app").unwrap()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("pgyard.log")).unwrap_or_default()
    }

    /// Waits until each of these hosts, and no other, has answered reads.
    pub fn wait_for_replicas(&self, names: &[&str]) {
        let wanted: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        if wanted.is_empty() {
            return;
        }
        let mut client = self.client();
        let mut seen = BTreeSet::new();
        eventually(&format!("reads go to {names:?}"), READY_LIMIT, || {
            seen = (0..2 * names.len() + 2).map(|_| host_of(&mut client)).collect();
            seen == wanted
        });
    }

    /// Waits until the catalogue of `app` has been read. Log-ins wait for that too, but only half a second; and what it is not known of,
    /// a table or a function, may do anything.
    pub fn wait_for_catalogue(&self) {
        drop(self.client());
        let read = || self.metric("pgyard_catalogue_reloads_total", &[("database", "app"), ("result", "ok")]);
        eventually("the catalogue was read", READY_LIMIT, || read() >= Some(1.0));
    }

    /// GET of a path on the HTTP listener: status and body. `None` while nothing listens.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.http)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        Some((status, if chunked { unchunked(body) } else { body.to_owned() }))
    }

    /// The value of a metric's first sample with these labels.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let (_, text) = self.get("/metrics")?;
        let matches = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|(label, value)| line.contains(&format!("{label}=\"{value}\"")))
        };
        text.lines().find(matches).and_then(|line| line.rsplit_once(' ')?.1.parse().ok())
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel tells VmRSS");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Files and sockets that it has open.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }

    /// Sends a signal by name: `HUP`, `TERM`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("sh").args(["-c", r#"kill -s "$1" "$2""#, "sh", name, &self.process.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }
}

impl Drop for Pgyard {
    fn drop(&mut self) {
        guard::end(&mut self.process);
        if std::thread::panicking() {
            eprintln!("--- the end of pgyard's log\n{}", last_lines(&self.log(), 40));
        }
    }
}

/// The host that answers a read.
pub fn host_of(client: &mut RawClient) -> String {
    client.column("SELECT current_setting('cluster_name')").unwrap().remove(0)
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn unchunked(body: &str) -> String {
    let mut text = String::new();
    let mut rest = body;
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 || size > after.len() {
            break;
        }
        text.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
    text
}
