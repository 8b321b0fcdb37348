//! Replication through pgyard, with PostgreSQL's own programs: base backups, streams in both kinds, and who may not.

use super::harness::client::{RawClient, query, startup};
use super::harness::programs::{psql, psql_output};
use super::harness::secure::secure_fleet;
use super::harness::{Pgyard, eventually};
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

fn yard(app: &str) -> Pgyard {
    let secure = secure_fleet();
    Pgyard::start_with_config(&secure.fleet, &secure.config("", app))
}

/// Runs one of PostgreSQL's programs as the role that may replicate.
fn run(yard: &Pgyard, program: &str, arguments: &[&str]) -> Output {
    let mut command = secure_fleet().fleet.programs().command(program);
    command.env("PGPASSWORD", "stream").args(["-h", "127.0.0.1", "-p", &yard.port().to_string(), "-U", "walsender"]);
    command.args(arguments).output().unwrap()
}

fn passed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A directory that the programs may write to.
fn folder(name: &str) -> PathBuf {
    secure_fleet().fleet.directory().join(name)
}

#[test]
fn a_base_backup_and_its_log_come_through() {
    let yard = yard("");
    let to = folder("backup");
    passed(&run(&yard, "pg_basebackup", &["-D", &to.display().to_string(), "-X", "stream", "-c", "fast", "--no-sync"]));
    let mut verify = secure_fleet().fleet.programs().command("pg_verifybackup");
    passed(&verify.arg(&to).output().unwrap());
    eventually("both connections have ended", Duration::from_secs(10), || {
        yard.metric("pgyard_clients_pinned", &[("cause", "replication")]) == Some(0.0)
    });
}

#[test]
fn the_log_is_received_and_decoded() {
    let (yard, primary) = (yard(""), secure_fleet().fleet.primary());
    let slot = passed(&run(&yard, "pg_recvlogical", &["-d", "app", "--slot=decoded", "--create-slot", "--plugin=test_decoding"]));
    assert_eq!(slot, "");
    primary.sql("CREATE TABLE decoded (id int, text text)").unwrap();
    primary.sql("INSERT INTO decoded SELECT n, repeat('x', 1000) FROM generate_series(1, 5000) n").unwrap();
    let end = primary.sql("SELECT pg_current_wal_flush_lsn()").unwrap();
    let start = ["-d", "app", "--slot=decoded", "--start", "--no-loop", "-f", "-", "--endpos", &end];
    let said = passed(&run(&yard, "pg_recvlogical", &start));
    assert_eq!(said.matches("table public.decoded: INSERT").count(), 5000);
    passed(&run(&yard, "pg_recvlogical", &["-d", "app", "--slot=decoded", "--drop-slot"]));

    let to = folder("received");
    std::fs::create_dir_all(&to).unwrap();
    let owner = std::fs::metadata(secure_fleet().fleet.directory()).unwrap();
    use std::os::unix::fs::{MetadataExt, chown};
    chown(&to, Some(owner.uid()), Some(owner.gid())).unwrap();
    // The stream ends with the first record behind this position.
    let end = primary.sql("SELECT pg_current_wal_flush_lsn()").unwrap();
    primary.sql("INSERT INTO decoded VALUES (0, 'the last')").unwrap();
    let directory = to.display().to_string();
    passed(&run(&yard, "pg_receivewal", &["-D", &directory, "--no-loop", "--no-sync", "--endpos", &end]));
    assert!(std::fs::read_dir(&to).unwrap().count() > 0);
}

#[test]
fn a_walsender_speaks_as_if_nobody_were_between() {
    let yard = yard("");
    let script = "IDENTIFY_SYSTEM;\nSHOW server_version;\nSELECT current_user, pg_is_in_recovery();\n";
    let url = |port: u16| {
        format!("host=127.0.0.1 port={port} user=walsender password=stream dbname=app sslmode=disable replication=database")
    };
    let direct = psql(&url(secure_fleet().fleet.primary().port()), script);
    let through = psql(&url(yard.port()), script);
    let columns = |text: &str| text.lines().map(|line| line.split('|').count()).collect::<Vec<_>>();
    assert_eq!(columns(&direct), columns(&through));
    assert_eq!(direct.lines().skip(1).collect::<Vec<_>>(), through.lines().skip(1).collect::<Vec<_>>());
    // What a session may not do is said by the server itself, with both kinds of names.
    let refused = |port: u16, replication: &str| {
        let password = secure_fleet().fleet.app_password().reveal();
        let url = format!(
            "host=127.0.0.1 port={port} user=app password={password} dbname=app sslmode=disable replication={replication}"
        );
        let said = String::from_utf8_lossy(&psql_output(&url, "IDENTIFY_SYSTEM").stderr).into_owned();
        said.split_once("FATAL:").unwrap_or_else(|| panic!("{said}")).1.lines().next().unwrap().trim().to_owned()
    };
    for kind in ["database", "true"] {
        assert_eq!(refused(yard.port(), kind), refused(secure_fleet().fleet.primary().port(), kind), "{kind}");
    }
    assert_eq!(refused(yard.port(), "maybe"), "invalid value for parameter \"replication\": \"maybe\"");
}

#[test]
fn a_stream_is_seen_cancelled_and_ended_by_a_drain() {
    let (mut yard, primary) = (yard(""), secure_fleet().fleet.primary());
    let packet =
        startup(&[("user", "walsender"), ("database", "app"), ("replication", "database"), ("application_name", "streamer")]);
    let mut client = RawClient::log_in_with(yard.port(), &packet, "stream").unwrap();
    client.send(&query("SELECT pg_sleep(113)")).unwrap();
    let active = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(113)' AND application_name = 'streamer' AND backend_type = 'walsender'";
    eventually("it sleeps", Duration::from_secs(10), || primary.sql(active).unwrap() == "1");
    assert_eq!(yard.metric("pgyard_clients_pinned", &[("cause", "replication")]), Some(1.0));
    let mut canceller = RawClient::connect(yard.port()).unwrap();
    canceller.send(&super::harness::client::cancel_request(client.key)).unwrap();
    assert_eq!(canceller.receive().unwrap(), None);
    assert!(client.until_ready().unwrap().iter().any(|reply| reply.field(b'C').as_deref() == Some("57014")));
    // The slot's log position is where nothing has happened: CopyBoth begins and waits.
    primary.sql("SELECT pg_create_physical_replication_slot('streamed', true)").unwrap();
    let at = primary.sql("SELECT pg_current_wal_flush_lsn()").unwrap();
    client.send(&query(&format!("START_REPLICATION SLOT streamed PHYSICAL {at}"))).unwrap();
    assert_eq!(client.receive().unwrap().unwrap().tag, b'W');
    // A status update to the server, which asks for an answer: both directions are open.
    let status = [&b"r"[..], &[0; 32], &[1]].concat();
    client.send(&super::harness::client::frame(b'd', &status)).unwrap();
    loop {
        // What others write comes too.
        let answer = client.receive().unwrap().unwrap();
        assert!(answer.tag == b'd' && b"wk".contains(&answer.body[0]), "{answer:?}");
        if answer.body[0] == b'k' {
            break;
        }
    }
    yard.signal("TERM");
    let mut last = None;
    while let Some(reply) = client.receive().unwrap() {
        last = Some(reply);
    }
    assert_eq!(last.unwrap().field(b'C').as_deref(), Some("57P01"));
    eventually("pgyard has ended", Duration::from_secs(20), || !yard.is_running());
    eventually("the server's side has ended", Duration::from_secs(20), || {
        primary.sql("SELECT count(*) FROM pg_stat_replication WHERE application_name = 'streamer'").unwrap() == "0"
    });
    primary.sql("SELECT pg_drop_replication_slot('streamed')").unwrap();
}

#[test]
fn physical_replication_needs_its_rule_and_its_cluster() {
    let secure = secure_fleet();
    let more = format!("[databases.other]\nprimary = '{}'\n", secure.fleet.primary().superuser_url());
    let two = Pgyard::start_with_config(&secure.fleet, &secure.config("", &more));
    let said = run(&two, "pg_basebackup", &["-D", &folder("never").display().to_string(), "-c", "fast"]);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("which cluster to replicate is not known") && said.contains("called `replication`"), "{said}");
    let physical = startup(&[("user", "walsender"), ("database", "app"), ("replication", "true")]);
    assert!(RawClient::log_in_with(two.port(), &physical, "stream").is_ok(), "a database that is named is the one");

    let rules = "[[access]]\ndatabases = 'pgyard'\n[[access]]\nusers = 'app'\n[[access]]\ndatabases = '*'\n";
    let yard = Pgyard::start_with_config(&secure.fleet, &secure.config(rules, ""));
    let refused = RawClient::log_in_with(yard.port(), &physical, "stream").unwrap_err().to_string();
    assert_eq!(
        refused,
        "28000: no access rule allows replication connection for host \"127.0.0.1\", user \"walsender\", no encryption"
    );
    let logical = startup(&[("user", "walsender"), ("database", "app"), ("replication", "database")]);
    assert!(RawClient::log_in_with(yard.port(), &logical, "stream").is_ok());
    yard.reload(&secure.config(&format!("[[access]]\ndatabases = 'replication'\n{rules}"), ""));
    assert!(RawClient::log_in_with(yard.port(), &physical, "stream").is_ok());
}
