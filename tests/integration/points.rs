//! What a session's reads must show, carried from session to session and bounded: `pgyard.lsn`, `pgyard.min_lsn`, `pgyard.max_lag`.

use super::harness::client::Protocol;
use super::harness::proxy::host_of;
use super::harness::{Pgyard, RawClient, config, eventually, own_fleet};
use std::time::Duration;

fn show(client: &mut RawClient, name: &str) -> String {
    client.column(&format!("SHOW {name}")).unwrap().remove(0)
}

fn error(client: &mut RawClient, sql: &str) -> (String, Option<String>) {
    let replies = client.run(Protocol::Simple, sql).unwrap();
    let error = replies.iter().find(|reply| reply.tag == b'E').unwrap_or_else(|| panic!("{sql} is accepted"));
    (error.field(b'C').unwrap(), error.field(b'H'))
}

#[test]
fn a_point_is_carried_from_one_process_to_another() {
    let fleet = own_fleet(2);
    fleet.primary().sql("SET ROLE app; CREATE TABLE t AS SELECT 0 AS n").unwrap();
    // Neither process knows anything of the other's writes.
    let start = || Pgyard::start_with_config(&fleet, &config(&fleet, None, "max_lag = \"off\"\nfailover_wait = \"3s\"\n"));
    let (one, two) = (start(), start());
    two.wait_for_replicas(&["replica1", "replica2"]);
    let (mut writer, mut reader) = (one.client(), two.client());
    assert_eq!(show(&mut writer, "pgyard.lsn"), "", "it has nothing to show yet");
    for replica in fleet.replicas() {
        fleet.wait_for_replay(fleet.primary(), replica).unwrap();
        replica.pause_replay().unwrap();
    }
    for protocol in [Protocol::Simple, Protocol::Extended, Protocol::Named] {
        writer.run(protocol, "UPDATE t SET n = n + 1").unwrap();
        let shown = writer.run(protocol, "SHOW pgyard.lsn").unwrap();
        assert!(shown.iter().any(|reply| reply.tag == b'D'), "{protocol:?}");
    }
    let point = show(&mut writer, "pgyard.lsn");
    assert!(point.starts_with("1:") && point.contains('/'), "{point}");
    assert_eq!(reader.column("SELECT n FROM t").unwrap(), ["0"], "the replicas are behind, and nobody asked for more");
    reader.column(&format!("SET pgyard.min_lsn = '{point}'")).unwrap();
    for _ in 0..4 {
        assert_eq!(reader.column("SELECT n FROM t").unwrap(), ["3"]);
        assert_eq!(host_of(&mut reader), "primary");
    }
    assert_eq!(
        (show(&mut reader, "pgyard.min_lsn"), show(&mut reader, "pgyard.lsn")),
        (point.clone(), point.clone()),
        "it is handed on"
    );
    reader.column("RESET pgyard.min_lsn").unwrap();
    assert_eq!(reader.column("SELECT n FROM t").unwrap(), ["0"]);
    reader.column(&format!("SET pgyard.min_lsn = '{point}'")).unwrap();
    fleet.replicas()[1].resume_replay().unwrap();
    eventually("a replica shows it", Duration::from_secs(5), || host_of(&mut reader) == "replica2");
    for _ in 0..10 {
        assert_eq!((reader.column("SELECT n FROM t").unwrap(), host_of(&mut reader)), (vec!["3".into()], "replica2".into()));
    }
    // A point of a timeline that nobody here has seen is waited for, and is an error when it does not come.
    reader.column("SET pgyard.min_lsn = '7:0/1'").unwrap();
    assert_eq!(error(&mut reader, "SELECT n FROM t").0, "57P03");
    // It follows the session like any parameter: rolled back with its transaction, gone with DISCARD ALL.
    for statement in ["DISCARD ALL", "BEGIN", "SET pgyard.min_lsn = '7:0/1'", "ROLLBACK"] {
        reader.column(statement).unwrap();
    }
    assert_eq!(show(&mut reader, "pgyard.min_lsn"), "");
    reader.column("SELECT n FROM t").unwrap();
}

#[test]
fn staleness_is_bounded_per_session() {
    let fleet = own_fleet(2);
    fleet.primary().sql("SET ROLE app; CREATE TABLE t AS SELECT 0 AS n").unwrap();
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, None, "max_lag = \"1min\"\n"));
    let (mut strict, mut loose, mut writer) = (yard.client(), yard.client(), yard.client());
    assert_eq!(show(&mut strict, "pgyard.max_lag"), "1min");
    strict.column("SET pgyard.max_lag = '300ms'").unwrap();
    assert_eq!(show(&mut strict, "pgyard.max_lag"), "300ms");
    assert_eq!(show(&mut loose, "pgyard.max_lag"), "1min", "on whatever server connection");
    fleet.replicas()[0].pause_replay().unwrap();
    writer.column("UPDATE t SET n = 1").unwrap();
    let hosts = |client: &mut RawClient| -> std::collections::BTreeSet<String> { (0..12).map(|_| host_of(client)).collect() };
    let only = |name: &str| std::iter::once(name.to_owned()).collect();
    eventually("the paused one is left by who minds", Duration::from_secs(5), || hosts(&mut strict) == only("replica2"));
    assert!(hosts(&mut loose).contains("replica1"), "and used by who does not");
    fleet.replicas()[1].pause_replay().unwrap();
    writer.column("UPDATE t SET n = 2").unwrap();
    eventually("then the primary", Duration::from_secs(5), || hosts(&mut strict) == only("primary"));
    assert_eq!(strict.column("SELECT n FROM t").unwrap(), ["2"]);
    strict.column("RESET pgyard.max_lag").unwrap();
    assert_eq!(show(&mut strict, "pgyard.max_lag"), "1min");
    assert!(!hosts(&mut strict).contains("primary"));
}

#[test]
fn wrong_values_are_refused_with_a_hint() {
    let fleet = own_fleet(0);
    let yard = Pgyard::start(&fleet, &[]);
    let mut client = yard.client();
    for (statement, state) in [
        ("SET pgyard.max_lag = 'soon'", "22023"),
        ("SET pgyard.max_lag = 100", "22023"),
        ("SET pgyard.max_lag = '-1s'", "22023"),
        ("SET pgyard.min_lsn = '0/16B3748'", "22023"),
        ("SET pgyard.min_lsn = '1:zz'", "22023"),
        ("SET pgyard.consistency = 'yes'", "22023"),
        ("SELECT set_config('pgyard.max_lag', 'soon', false)", "22023"),
        ("SET pgyard.lsn = '1:0/1'", "55P02"),
        ("SET pgyard.nothing = '1'", "42704"),
    ] {
        let (code, hint) = error(&mut client, statement);
        assert!(code == state && hint.is_some(), "{statement}: {code} {hint:?}");
    }
    assert_eq!(show(&mut client, "pgyard.consistency"), "session");
}
