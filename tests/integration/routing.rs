//! Where statements run, by every protocol, judged from the servers' logs. The statements are in `statements.txt`.

use super::harness::client::{Protocol, RawClient, Reply, startup};
use super::harness::proxy::host_of;
use super::harness::server_log::{Deed, Deeds, deeds, mark};
use super::harness::{Pgyard, eventually, own_fleet};
use pgyard::demo::LocalFleet;
use std::time::Duration;

const STATEMENTS: &str = include_str!("statements.txt");
const SETUP: &str = include_str!("routing_setup.sql");
const PROTOCOLS: [Protocol; 3] = [Protocol::Simple, Protocol::Extended, Protocol::Named];

/// Where a statement must run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Replica,
    Primary,
    Anywhere,
}

/// A line of `statements.txt`.
#[derive(Clone, Copy, Debug)]
struct Entry {
    line: usize,
    place: Place,
    simple_only: bool,
    sql: &'static str,
}

impl Entry {
    fn mark(&self, prefix: &str, protocol: Protocol) -> String {
        format!("{prefix}.{protocol:?}.{}.", self.line)
    }
}

/// The sessions of the file.
fn sessions() -> Vec<Vec<Entry>> {
    let mut sessions: Vec<Vec<Entry>> = Vec::new();
    for (index, text) in STATEMENTS.lines().enumerate() {
        if text.starts_with('#') || text.trim().is_empty() {
            continue;
        }
        let (code, sql) = text.trim_start().split_once(' ').unwrap();
        let place = match code.trim_end_matches('1') {
            "R" => Place::Replica,
            "W" | "S" => Place::Primary,
            "-" => Place::Anywhere,
            other => panic!("statements.txt:{}: no such place: {other}", index + 1),
        };
        let entry = Entry { line: index + 1, place, simple_only: code.ends_with('1'), sql };
        match sessions.last_mut().filter(|_| text.starts_with(' ')) {
            Some(session) => session.push(entry),
            None => sessions.push(vec![entry]),
        }
    }
    sessions
}

/// A fleet of its own: the statements take locks, and the objects would be in other tests' catalogue.
fn prepared_fleet() -> LocalFleet {
    let fleet = own_fleet(2);
    let primary = fleet.primary();
    primary.sql("GRANT pg_write_server_files, pg_execute_server_program TO app").unwrap();
    primary.sql(&format!("SET ROLE app; {SETUP}")).unwrap();
    for replica in fleet.replicas() {
        fleet.wait_for_replay(primary, replica).unwrap();
    }
    fleet
}

fn log_in(port: u16, fleet: &LocalFleet) -> RawClient {
    let parameters = [("user", "app"), ("database", "app"), ("search_path", "yard, public")];
    RawClient::log_in_with(port, &startup(&parameters), fleet.app_password().reveal()).unwrap()
}

fn first_error(replies: &[Reply]) -> Option<String> {
    let error = replies.iter().find(|reply| reply.tag == b'E')?;
    Some(format!("{} {}", error.field(b'C').unwrap_or_default(), error.field(b'M').unwrap_or_default()))
}

/// Runs the sessions against a port; answers the lines whose clients saw an error. `before_reads` is called before each session
/// that reads.
fn run_all(
    port: u16,
    fleet: &LocalFleet,
    prefix: &str,
    wanted: impl Fn(&[Entry]) -> bool,
    mut before_reads: impl FnMut(),
) -> Vec<String> {
    let mut errors = Vec::new();
    for protocol in PROTOCOLS {
        for session in sessions().into_iter().filter(|session| wanted(session)) {
            if session.iter().any(|entry| entry.place == Place::Replica) {
                before_reads();
            }
            let mut client = log_in(port, fleet);
            for entry in session.iter().filter(|entry| protocol == Protocol::Simple || !entry.simple_only) {
                let sql = mark(&entry.mark(prefix, protocol)) + entry.sql;
                let failed = match client.run(protocol, &sql) {
                    Ok(replies) => first_error(&replies),
                    Err(error) => Some(format!("the connection broke: {error}")),
                };
                if let Some(error) = failed {
                    errors.push(format!("statements.txt:{} {protocol:?}: {}\n    {error}", entry.line, entry.sql));
                    break;
                }
            }
        }
    }
    errors
}

/// The lines that ran somewhere else than they must, or nowhere.
fn misplaced(fleet: &LocalFleet, prefix: &str, expected: impl Fn(Place) -> Place) -> Vec<String> {
    // A log is written before the statement is executed: nothing has to be waited for.
    let found: Deeds = deeds(fleet, prefix);
    let mut wrong = Vec::new();
    for protocol in PROTOCOLS {
        for entry in sessions().into_iter().flatten().filter(|entry| protocol == Protocol::Simple || !entry.simple_only) {
            let deeds: Vec<&(String, Deed)> = found.get(&entry.mark(prefix, protocol)).into_iter().flatten().collect();
            let right = |host: &str| match expected(entry.place) {
                Place::Replica => host.starts_with("replica"),
                Place::Primary => host == "primary",
                Place::Anywhere => true,
            };
            let nowhere = entry.place != Place::Anywhere && !deeds.iter().any(|(_, deed)| *deed == Deed::Executed);
            if nowhere || deeds.iter().any(|(host, _)| !right(host)) {
                let (line, place, sql) = (entry.line, entry.place, entry.sql);
                wrong.push(format!("statements.txt:{line} {protocol:?}: {sql}\n    must run on {place:?}, but: {deeds:?}"));
            }
        }
    }
    wrong
}

#[test]
fn the_file_has_what_was_promised() {
    let entries: Vec<Entry> = sessions().into_iter().flatten().collect();
    let count = |place: Place| entries.iter().filter(|entry| entry.place == place).count();
    assert!(
        count(Place::Replica) >= 100 && count(Place::Primary) >= 120,
        "{} and {}",
        count(Place::Replica),
        count(Place::Primary)
    );
}

/// PostgreSQL itself says that the file is right: no statement fails on a primary, no read fails on a replica, and the logs tell
/// what was executed where.
#[test]
fn the_statements_are_what_the_file_says() {
    let fleet = prepared_fleet();
    let errors = run_all(fleet.primary().port(), &fleet, "direct", |_| true, || {});
    assert!(errors.is_empty(), "on the primary:\n{}", errors.join("\n"));
    let wrong = misplaced(&fleet, "direct", |_| Place::Primary);
    assert!(wrong.is_empty(), "the log of the primary lacks:\n{}", wrong.join("\n"));
    for replica in fleet.replicas() {
        fleet.wait_for_replay(fleet.primary(), replica).unwrap();
    }
    let all_reads = |session: &[Entry]| session.iter().all(|entry| entry.place == Place::Replica);
    let errors = run_all(fleet.replicas()[0].port(), &fleet, "standby", all_reads, || {});
    assert!(errors.is_empty(), "on a replica:\n{}", errors.join("\n"));
}

#[test]
fn writes_reach_only_the_primary_and_reads_only_replicas() {
    let fleet = prepared_fleet();
    let yard = Pgyard::start(&fleet, &[]);
    // After DDL reads are on the primary until the catalogue has been read again.
    let mut scout = yard.client();
    let settled =
        || eventually("reads are on replicas again", Duration::from_secs(10), || host_of(&mut scout).starts_with("replica"));
    let errors = run_all(yard.port(), &fleet, "routed", |_| true, settled);
    let wrong = misplaced(&fleet, "routed", |place| place);
    let report = format!(
        "{} errors seen by clients:\n{}\n{} in the wrong place:\n{}",
        errors.len(),
        errors.join("\n"),
        wrong.len(),
        wrong.join("\n")
    );
    assert!(errors.is_empty() && wrong.is_empty(), "{report}");
}

/// A write, SET and the like keep a session's reads on the primary for as long as they must, not for ever.
#[test]
fn reads_come_back_to_replicas_after_a_write_and_after_set() {
    let fleet = prepared_fleet();
    let yard = Pgyard::start(&fleet, &[]);
    let mut client = log_in(yard.port(), &fleet);
    for before in ["UPDATE t SET n = 1 WHERE id = 1", "SET work_mem = '8MB'", "BEGIN; SELECT 1; COMMIT", "SHOW work_mem"] {
        client.run(Protocol::Simple, before).unwrap();
        eventually(&format!("a read on a replica after {before}"), Duration::from_secs(2), || {
            client.column("SELECT current_setting('cluster_name')").unwrap()[0].starts_with("replica")
        });
    }
    assert_eq!(client.column("SELECT current_setting('work_mem')").unwrap(), ["8MB"], "SET holds wherever a statement runs");
    // A read of the row that this session has written last never shows what was there before.
    for value in 0..200 {
        client.run(Protocol::Simple, &format!("UPDATE t SET n = {value} WHERE id = 1")).unwrap();
        assert_eq!(client.column("SELECT n FROM t WHERE id = 1").unwrap(), [value.to_string()]);
    }
}
