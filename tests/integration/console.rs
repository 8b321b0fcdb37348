//! The console and the command line that uses it, in front of real servers.

use super::harness::client::Protocol;
use super::harness::programs::{psql, psql_output, python};
use super::harness::{Pgyard, RawClient, eventually, shared_fleet, shared_pgyard};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

fn console_url(yard: &Pgyard) -> String {
    format!("postgres://pgyard@127.0.0.1:{}/pgyard?sslmode=disable", yard.port())
}

/// The command line, with no settings in its environment.
fn pgyard(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgyard"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PGYARD_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).output().unwrap()
}

/// The primary's name where pgyard has no file: its address.
fn primary() -> String {
    format!("127.0.0.1:{}", shared_fleet().primary().port())
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs the command line against a yard; answers what it printed.
fn asked(yard: &Pgyard, arguments: &[&str]) -> String {
    let url = console_url(yard);
    let output = pgyard(&[arguments, &["--admin", &url]].concat());
    assert!(output.status.success(), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
    stdout(&output)
}

#[test]
fn psql_gets_every_table() {
    let yard = shared_pgyard();
    let mut client = yard.client();
    client.column("BEGIN").unwrap();
    client.column("SELECT 1").unwrap();
    let url = console_url(yard);
    for name in ["HOSTS", "LAG", "POOLS", "CLIENTS", "SERVERS", "STATS", "DATABASES", "USERS", "CONFIG", "VERSION", "HELP"] {
        assert!(!psql(&url, &format!("SHOW {name};")).is_empty(), "{name}");
    }
    let process = client.key.0.to_string();
    let clients = psql(&url, "SHOW CLIENTS;");
    let own = clients.lines().find(|line| line.contains(&process)).expect("the client is listed");
    assert!(own.contains("|app|app|idle in transaction|127.0.0.1|") && own.ends_with(&format!("|{}", primary())), "{own}");
    let servers = psql(&url, "SHOW SERVERS;");
    let server = servers.lines().find(|line| line.contains(&format!("|{process}|"))).expect("its server is listed");
    assert!(server.starts_with("S|app|app|active|"), "{server}");
    client.column("COMMIT").unwrap();
    let route = psql(&url, "SHOW ROUTE FOR 'select count(*) from pg_class' IN app;");
    assert!(route.starts_with("app|replica|read|"), "{route}");
    let wrong = psql_output(&url, "SHOW POLS;");
    assert!(!wrong.status.success() && stderr(&wrong).contains("Did you mean SHOW POOLS?"), "{}", stderr(&wrong));
}

#[test]
fn psycopg_and_asyncpg_speak_to_the_console() {
    for script in ["console.py", "console_asyncpg.py"] {
        assert!(python(script, &[&console_url(shared_pgyard())]).ends_with("ok\n"), "{script}");
    }
}

#[test]
fn statistics_count_what_is_sent() {
    let yard = Pgyard::start(shared_fleet(), &[]);
    let url = console_url(&yard);
    let stats = || {
        let line = psql(&url, "SHOW STATS;").lines().find(|line| line.starts_with("app|")).map(str::to_owned);
        line.expect("the database is listed").split('|').map(str::to_owned).collect::<Vec<_>>()
    };
    let number = |row: &[String], column: usize| row[column].parse::<u64>().unwrap();
    let before = stats();
    let mut client = yard.client();
    for _ in 0..10 {
        client.column("SELECT 1").unwrap();
    }
    client.column("BEGIN").unwrap();
    client.column("SELECT pg_sleep(0.1)").unwrap();
    client.column("COMMIT").unwrap();
    let after = stats();
    let grown = |column: usize| number(&after, column) - number(&before, column);
    assert_eq!((grown(1), grown(2)), (11, 13), "transactions and queries");
    assert_eq!((grown(15), grown(16)), (3, 10), "on the primary and on replicas");
    assert!(grown(3) > 0 && grown(4) > 0, "bytes");
    assert!((100_000..2_000_000).contains(&grown(5)) && grown(6) >= 100_000, "times in microseconds: {after:?}");
}

#[test]
fn status_and_route_answer_people() {
    let yard = shared_pgyard();
    drop(yard.client());
    let status = asked(yard, &["status"]);
    for part in ["pgyard ", "Hosts\n", "primary", "takes writes", "in rotation", "Pools\n"] {
        assert!(status.contains(part), "{part} is not in\n{status}");
    }
    let route = asked(yard, &["route", "select 1", "--database", "app"]);
    assert!(route.starts_with("a replica (read: ") && route.contains("host now: ") && route.contains("(one of "), "{route}");
    assert!(asked(yard, &["route", "delete from t where a = 'b''c'", "-d", "app"]).contains(&format!("host now: {}", primary())));
    let offline = pgyard(&["route", "select * from t for update"]);
    assert!(stdout(&offline).starts_with("the primary (lock: "), "{}", stdout(&offline));
}

#[test]
fn without_a_pgyard_the_commands_say_what_to_do() {
    let url = "postgres://pgyard@127.0.0.1:1/pgyard";
    for command in
        [&["status"][..], &["reload"], &["pause"], &["resume"], &["drain", "a"], &["undrain", "a"], &["route", "select 1"]]
    {
        let output = pgyard(&[command, &["--admin", url]].concat());
        assert!(
            output.status.code() == Some(1) && stderr(&output).contains("Is it running?"),
            "{command:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn a_drained_host_gets_no_statements() {
    let yard = Pgyard::start(shared_fleet(), &[]);
    let (one, two) = (shared_fleet().replicas()[0].name(), shared_fleet().replicas()[1].name());
    let address = format!("127.0.0.1:{}", shared_fleet().replicas()[0].port());
    assert!(asked(&yard, &["drain", &address]).contains(": drained"));
    yard.wait_for_replicas(&[two]);
    assert!(asked(&yard, &["status"]).contains("OUT: drained"));
    asked(&yard, &["undrain", &address]);
    yard.wait_for_replicas(&[one, two]);
    let nobody = pgyard(&["drain", "nobody", "--admin", &console_url(&yard)]);
    assert!(!nobody.status.success() && stderr(&nobody).contains(&address), "{}", stderr(&nobody));
}

#[test]
fn a_pause_waits_for_transactions_and_holds_new_ones() {
    let yard = Pgyard::start(shared_fleet(), &[]);
    let mut busy = yard.client();
    busy.column("BEGIN").unwrap();
    busy.column("SELECT 1").unwrap();
    std::thread::scope(|scope| {
        let pausing = scope.spawn(|| asked(&yard, &["pause", "app"]));
        eventually("the database is paused", Duration::from_secs(5), || asked(&yard, &["status"]).contains("Paused: app"));
        assert!(!pausing.is_finished(), "a transaction is still open");
        let waiting = scope.spawn(|| {
            let (mut held, began) = (yard.client(), Instant::now());
            held.column("SELECT 1").unwrap();
            began.elapsed()
        });
        assert_eq!(busy.column("SELECT 2").unwrap(), ["2"], "a running transaction goes on");
        busy.column("COMMIT").unwrap();
        pausing.join().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(!waiting.is_finished(), "a new statement is held");
        let url = console_url(&yard);
        let servers = psql(&url, "SHOW SERVERS;");
        assert!(servers.is_empty(), "idle connections are closed: {servers}");
        asked(&yard, &["resume", "app"]);
        assert!(waiting.join().unwrap() >= Duration::from_millis(300));
    });
}

#[test]
fn a_killed_client_is_gone_and_its_transaction_is_rolled_back() {
    let yard = Pgyard::start(shared_fleet(), &[]);
    let mut other = yard.client();
    other.column("CREATE TABLE IF NOT EXISTS console_kill (id int)").unwrap();
    let mut victim = yard.client();
    victim.column("BEGIN").unwrap();
    victim.column("INSERT INTO console_kill VALUES (1)").unwrap();
    psql(&console_url(&yard), &format!("KILL {};", victim.key.0));
    let farewell = victim.receive().unwrap().expect("it is told");
    assert_eq!((farewell.tag, farewell.field(b'C').as_deref()), (b'E', Some("57P01")));
    assert_eq!(other.column("/* pgyard: primary */ SELECT count(*) FROM console_kill").unwrap(), ["0"]);
    other.column("DROP TABLE console_kill").unwrap();
}

#[test]
fn the_console_shuts_pgyard_down() {
    for (command, lets_transactions_end) in [("SHUTDOWN", true), ("SHUTDOWN NOW", false)] {
        let mut yard = Pgyard::start(shared_fleet(), &[]);
        let mut busy = yard.client();
        busy.column("BEGIN").unwrap();
        busy.column("SELECT 1").unwrap();
        psql(&console_url(&yard), &format!("{command};"));
        if lets_transactions_end {
            std::thread::sleep(Duration::from_millis(300));
            assert!(yard.is_running());
            busy.column("COMMIT").unwrap();
        }
        eventually("the process ends", Duration::from_secs(5), || !yard.is_running());
    }
}

#[test]
fn the_console_is_not_for_everybody() {
    let yard = Pgyard::start_with_config(
        shared_fleet(),
        &format!(
            "listen = '{{listen}}'\nhttp = '{{http}}'\n[admin.users]\nops = 'secret'\n[databases.app]\nprimary = '{}'\n",
            shared_fleet().primary().superuser_url()
        ),
    );
    let refused = |user: &str, password: &str| RawClient::log_in(yard.port(), user, password, "pgyard").is_err();
    assert!(refused("pgyard", "") && refused("ops", "wrong") && refused("app", shared_fleet().app_password().reveal()));
    let mut ops = RawClient::log_in(yard.port(), "ops", "secret", "pgyard").unwrap();
    for protocol in [Protocol::Simple, Protocol::Extended, Protocol::Named] {
        let replies = ops.run(protocol, "SHOW HOSTS").unwrap();
        assert!(replies.iter().any(|reply| reply.tag == b'D'), "{protocol:?}: {replies:?}");
    }
    let config = ops.run(Protocol::Simple, "SHOW CONFIG").unwrap();
    let shown: Vec<u8> = config.into_iter().flat_map(|reply| reply.body).collect();
    assert!(!String::from_utf8_lossy(&shown).contains("secret"), "secrets are masked");
    // The file leads the command line to the console, with user and password.
    let file = yard.directory().join("pgyard.toml");
    let status = pgyard(&["status", "--config", &file.display().to_string()]);
    assert!(status.status.success(), "{}", stderr(&status));
}

#[test]
fn check_explains_a_file_or_what_is_wrong_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pgyard.toml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        pgyard(&["check", &file.display().to_string()])
    };
    let good = check("[databases.app]\nprimary = 'postgres://yard@10.0.0.1'\nreplicas = ['10.0.0.2']\n");
    assert!(good.status.success() && stdout(&good).contains("OK: "), "{}{}", stdout(&good), stderr(&good));
    let bad = check("[databases.app]\nprimray = 'postgres://yard@10.0.0.1'\n");
    assert!(bad.status.code() == Some(1), "{}", stdout(&bad));
    assert!(stderr(&bad).contains("pgyard.toml:2:1") && stderr(&bad).contains("primary"), "{}", stderr(&bad));
}
