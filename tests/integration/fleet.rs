//! The local fleet itself: what `pgyard demo` and all other tests stand on.

use super::harness::programs::psql;
use pgyard::demo::{DemoOptions, database_url, start_fleet_with_progress, welcome_text};
use pgyard::demo::{FleetError, FleetOptions, FleetProgress, LocalFleet, StopMode, free_port};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn start(replicas: usize) -> LocalFleet {
    LocalFleet::start(FleetOptions { replicas, ..FleetOptions::default() }, &mut |_| ()).unwrap()
}

#[test]
fn a_fleet_streams_can_be_hurt_and_leaves_nothing() {
    let mut steps = Vec::new();
    let fleet = LocalFleet::start(FleetOptions::default(), &mut |step| steps.push(step)).unwrap();
    assert!(matches!(steps.first(), Some(FleetProgress::Found { .. })));
    assert!(matches!(steps.last(), Some(FleetProgress::Streaming { .. })));
    let (primary, replica1, replica2) = (fleet.primary(), &fleet.replicas()[0], &fleet.replicas()[1]);

    for host in fleet.hosts() {
        assert_eq!(host.sql("SELECT current_setting('cluster_name')").unwrap(), host.name());
    }
    primary.sql("CREATE TABLE t AS SELECT 1 AS a").unwrap();
    fleet.wait_for_replay(primary, replica1).unwrap();
    assert_eq!(replica1.sql("SELECT a FROM t").unwrap(), "1");

    replica1.pause_replay().unwrap();
    primary.sql("UPDATE t SET a = 2").unwrap();
    fleet.wait_for_replay(primary, replica2).unwrap();
    assert_eq!((replica1.sql("TABLE t").unwrap(), replica2.sql("TABLE t").unwrap()), ("1".into(), "2".into()));
    replica1.resume_replay().unwrap();
    fleet.wait_for_replay(primary, replica1).unwrap();

    replica1.kill().unwrap();
    assert!(replica1.sql("SELECT 1").is_err());
    assert!(matches!(replica1.kill(), Err(FleetError::WrongState { .. })));
    replica1.start().unwrap();
    assert!(matches!(replica1.start(), Err(FleetError::WrongState { .. })));
    replica2.restart(StopMode::Fast).unwrap();
    fleet.wait_for_replay(primary, replica1).unwrap();

    // A fail-over, with everybody in line again after it.
    primary.kill().unwrap();
    replica1.promote().unwrap();
    replica1.sql("UPDATE t SET a = 3").unwrap();
    fleet.follow(replica2, replica1, false).unwrap();
    fleet.follow(primary, replica1, true).unwrap();
    fleet.wait_for_replay(replica1, primary).unwrap();
    assert_eq!(primary.sql("SELECT a, pg_is_in_recovery() FROM t").unwrap(), "3|t");

    let (directory, ports) = (fleet.directory().to_owned(), fleet.hosts().iter().map(|host| host.port()).collect::<Vec<_>>());
    drop(fleet);
    assert!(!directory.exists());
    for port in ports {
        assert!(TcpListener::bind(("127.0.0.1", port)).is_ok(), "port {port} is free again");
    }
}

#[test]
fn the_demo_shows_its_steps_and_has_something_to_read() {
    let options = DemoOptions { replicas: 1, ..DemoOptions::default() };
    let mut shown = Vec::new();
    let fleet = start_fleet_with_progress(&options, &mut shown).unwrap();
    let shown = String::from_utf8(shown).unwrap();
    for step in [
        "PostgreSQL 1",
        "primary: creating",
        "primary: accepts",
        "replica1: copying",
        "replica1: accepts",
        "every replica streams",
    ] {
        assert!(shown.contains(step), "{step} is not in:\n{shown}");
    }
    fleet.wait_for_replay(fleet.primary(), &fleet.replicas()[0]).unwrap();
    // As the application, with the password of its URL.
    assert_eq!(psql(&fleet.replicas()[0].app_url(), "SELECT count(*) FROM wagons;"), "5");
    psql(&fleet.primary().app_url(), "INSERT INTO wagons (cargo, track) VALUES ('sand', 4);");
    let text = welcome_text(&fleet, options.listen, options.http);
    assert!(text.contains(&database_url(&fleet, options.listen)) && text.contains("deletes the data"), "{text}");
}

#[test]
fn a_frozen_host_answers_nothing_until_it_is_thawed() {
    let fleet = start(0);
    let host = fleet.primary();
    host.freeze().unwrap();
    let waiting = std::thread::scope(|scope| {
        let question = scope.spawn(|| host.sql("SELECT 1"));
        std::thread::sleep(Duration::from_millis(400));
        let waiting = !question.is_finished();
        host.thaw().unwrap();
        assert_eq!(question.join().unwrap().unwrap(), "1");
        waiting
    });
    assert!(waiting, "a frozen host must not answer");
    // Frozen or not, the end is the same.
    host.freeze().unwrap();
    let directory = fleet.directory().to_owned();
    drop(fleet);
    assert!(!directory.exists());
}

#[test]
fn a_named_directory_is_kept_and_found_again() {
    let parent = tempfile::Builder::new().prefix("pgyard-test").tempdir().unwrap();
    std::fs::set_permissions(parent.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let options = FleetOptions { replicas: 1, directory: Some(parent.path().join("data")), ..FleetOptions::default() };
    let fleet = LocalFleet::start(options.clone(), &mut |_| ()).unwrap();
    fleet.primary().sql("CREATE TABLE kept AS SELECT 42 AS a").unwrap();
    drop(fleet);
    let fleet = LocalFleet::start(options, &mut |_| ()).unwrap();
    assert_eq!(fleet.replicas()[0].sql("TABLE kept").unwrap(), "42");
    drop(fleet);
    assert!(parent.path().join("data/primary/PG_VERSION").exists());
}

#[test]
fn a_port_in_use_is_named_before_anything_starts() {
    let taken = TcpListener::bind(("127.0.0.1", free_port().unwrap())).unwrap();
    let port = taken.local_addr().unwrap().port();
    let options = FleetOptions { replicas: 0, first_port: Some(port), ..FleetOptions::default() };
    let error = LocalFleet::start(options, &mut |_| ()).unwrap_err();
    assert!(matches!(error, FleetError::PortTaken { port: named, .. } if named == port), "{error}");
}

#[test]
fn a_server_that_refuses_its_settings_is_shown_with_its_log() {
    let options = FleetOptions { replicas: 0, settings: vec!["no_such_setting = 1".into()], ..FleetOptions::default() };
    let error = LocalFleet::start(options, &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

/// Set for the child process of the test below, which is this test program again.
const CHILD: &str = "PGYARD_TEST_FLEET_CHILD";

#[test]
fn a_killed_process_leaves_no_server_and_no_directory() {
    if std::env::var_os(CHILD).is_some() {
        let fleet = start(1);
        println!("at {} {}", fleet.directory().display(), fleet.primary().process_id().unwrap());
        std::thread::sleep(Duration::from_secs(120));
        return;
    }
    let name = "integration::fleet::a_killed_process_leaves_no_server_and_no_directory";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let said = lines.map(Result::unwrap).find_map(|line| line.split_once("at /").map(|(_, rest)| format!("/{rest}"))).unwrap();
    let (directory, pid) = said.split_once(' ').unwrap();
    assert!(std::path::Path::new(directory).exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    // A process that nobody reaps stays in the table, without a command line.
    let runs = || std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
    while std::path::Path::new(directory).exists() || runs() {
        assert!(Instant::now() < deadline, "{directory} or process {pid} is still there");
        std::thread::sleep(Duration::from_millis(50));
    }
}
