//! What takes too long ends, with an error that names the setting, and leaves nothing behind; server connections live as long as
//! the settings say.

use super::harness::client::{Protocol, Reply};
use super::harness::{Pgyard, RawClient, eventually, own_fleet};
use pgyard::demo::LocalFleet;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(30);

fn config(fleet: &LocalFleet, more: &str) -> String {
    let urls: Vec<String> = fleet.replicas().iter().map(|replica| format!("'{}'", replica.superuser_url())).collect();
    format!(
        "listen = '{{listen}}'\nhttp = '{{http}}'\n[databases.app]\nprimary = '{}'\nreplicas = [{}]\n{more}",
        fleet.primary().superuser_url(),
        urls.join(", ")
    )
}

fn error(replies: &[Reply]) -> &Reply {
    replies.iter().find(|reply| reply.tag == b'E').unwrap_or_else(|| panic!("no error: {replies:?}"))
}

fn counted(yard: &Pgyard, kind: &str) -> f64 {
    yard.metric("pgyard_timeouts_total", &[("kind", kind)]).unwrap_or(0.0)
}

fn pool(yard: &Pgyard, metric: &str, fleet: &LocalFleet) -> f64 {
    yard.metric(metric, &[("host", &format!("127.0.0.1:{}", fleet.primary().port()))]).unwrap_or(0.0)
}

#[test]
fn a_statement_over_query_timeout_is_cancelled_and_says_why() {
    let fleet = own_fleet(1);
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, "query_timeout = '300ms'\n"));
    let mut client = yard.client();
    // On the primary, and on the replica.
    for sql in ["SELECT pg_sleep(60)", "SELECT count(*) FROM generate_series(1, 100000000000)"] {
        for protocol in [Protocol::Simple, Protocol::Extended] {
            let replies = client.run(protocol, sql).unwrap();
            let error = error(&replies);
            assert_eq!(error.field(b'C').as_deref(), Some("57014"), "{sql}: {error:?}");
            assert_eq!(error.field(b'M').as_deref(), Some("canceling statement due to statement timeout"), "{sql}");
            assert!(error.field(b'H').is_some_and(|hint| hint.contains("query_timeout")), "{sql}: {error:?}");
            assert_eq!(client.column("SELECT 1").unwrap(), ["1"], "the session goes on");
        }
    }
    assert_eq!(counted(&yard, "query"), 4.0);
    // Within a transaction it fails, as with PostgreSQL's own time-out, and the client ends it.
    assert_eq!(client.run(Protocol::Simple, "BEGIN").unwrap().len(), 2);
    error(&client.run(Protocol::Simple, "SELECT pg_sleep(60)").unwrap());
    let replies = client.run(Protocol::Simple, "SELECT 1").unwrap();
    assert_eq!(error(&replies).field(b'C').as_deref(), Some("25P02"));
    assert!(!replies.is_empty() && client.run(Protocol::Simple, "ROLLBACK").is_ok());
    // Nobody else is cancelled, and what a client cancels itself says so.
    client.run(Protocol::Simple, "SET statement_timeout = '50ms'").unwrap();
    let replies = client.run(Protocol::Simple, "SELECT pg_sleep(60)").unwrap();
    assert_eq!(error(&replies).field(b'H'), None, "PostgreSQL's own time-out came first");
    assert_eq!(counted(&yard, "query"), 5.0);
}

#[test]
fn a_server_that_does_not_answer_the_cancelling_is_given_up() {
    let fleet = own_fleet(0);
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, "query_timeout = '500ms'\nconnect_timeout = '1s'\n"));
    let mut client = yard.client();
    client.set_silence(Duration::from_secs(120)).unwrap();
    client.run(Protocol::Simple, "BEGIN").unwrap();
    assert_eq!(client.column("SELECT 1").unwrap(), ["1"]);
    fleet.primary().freeze().unwrap();
    let replies = client.run(Protocol::Simple, "SELECT 2");
    fleet.primary().thaw().unwrap();
    let replies = replies.unwrap();
    assert_eq!(error(&replies).field(b'C').as_deref(), Some("57014"), "{replies:?}");
    assert!(error(&replies).field(b'H').is_some_and(|hint| hint.contains("query_timeout")), "{replies:?}");
    client.run(Protocol::Simple, "ROLLBACK").unwrap();
    eventually("the session goes on", LONG, || client.column("SELECT 3").is_ok_and(|rows| rows == ["3"]));
}

#[test]
fn a_transaction_that_waits_for_its_client_is_rolled_back() {
    let fleet = own_fleet(0);
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, "idle_transaction_timeout = '500ms'\n"));
    let (mut idle, mut other) = (yard.client(), yard.client());
    other.column("CREATE TABLE waits AS SELECT 1 AS v").unwrap();
    idle.run(Protocol::Simple, "BEGIN; UPDATE waits SET v = 2").unwrap();
    let last = idle.receive().unwrap().expect("last words");
    assert_eq!((last.tag, last.field(b'C').as_deref()), (b'E', Some("25P03")), "{last:?}");
    assert!(last.field(b'D').is_some_and(|detail| detail.contains("idle_transaction_timeout")), "{last:?}");
    assert!(idle.receive().unwrap().is_none(), "the connection ends");
    // Its lock is free, its change is gone, and so is its server connection's transaction.
    assert_eq!(other.column("UPDATE waits SET v = v + 10 RETURNING v").unwrap(), ["11"]);
    assert_eq!(counted(&yard, "idle_transaction"), 1.0);
    eventually("no connection is in use", LONG, || pool(&yard, "pgyard_pool_active", &fleet) == 0.0);
    // A session without a transaction may be idle for as long as it likes.
    std::thread::sleep(Duration::from_millis(800));
    assert_eq!(other.column("SELECT v FROM waits").unwrap(), ["11"]);
}

#[test]
fn a_locked_catalogue_makes_no_host_look_sick() {
    let fleet = own_fleet(0);
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, ""));
    let (mut client, failures) = (yard.client(), || yard.metric("pgyard_probe_failures_total", &[]).unwrap_or(0.0));
    assert_eq!(client.column("SELECT 1").unwrap(), ["1"]);
    let before = failures();
    // Log-ins wait for it too, open connections don't. The lock ends with its statement.
    let lock = "BEGIN; LOCK TABLE pg_db_role_setting IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(4); COMMIT";
    std::thread::scope(|scope| {
        let holder = scope.spawn(|| fleet.primary().sql(lock).unwrap());
        let mut reads = 0;
        while !holder.is_finished() {
            assert_eq!(client.column("SELECT 1").unwrap(), ["1"]);
            reads += 1;
        }
        assert!(reads > 10, "{reads} reads in four seconds");
    });
    assert_eq!(failures(), before, "probes have failed");
}

#[test]
fn server_connections_live_as_long_as_the_settings_say() {
    let fleet = own_fleet(0);
    let settings = |more: &str| config(&fleet, &format!("pool_size = 4\n{more}"));
    let yard = Pgyard::start_with_config(&fleet, &settings("idle_timeout = '300ms'\nmin_idle = 2\n"));
    let open = || pool(&yard, "pgyard_pool_idle", &fleet) + pool(&yard, "pgyard_pool_active", &fleet);
    let mut clients: Vec<RawClient> = (0..4).map(|_| yard.client()).collect();
    for client in &mut clients {
        client.run(Protocol::Simple, "BEGIN").unwrap();
        client.column("SELECT 1").unwrap();
    }
    assert_eq!(open(), 4.0);
    clients.iter_mut().for_each(|client| drop(client.run(Protocol::Simple, "COMMIT").unwrap()));
    eventually("all but min_idle are closed when they were idle", LONG, || open() == 2.0);
    // With no minimum, all of them.
    assert!(yard.reload(&settings("idle_timeout = '300ms'\n")).contains("min_idle"));
    eventually("none is kept", LONG, || open() == 0.0);
    // In use all the time, it is renewed all the same when it is too old.
    assert!(yard.reload(&settings("max_age = '1s'\n")).contains("max_age"));
    let mut backends = std::collections::BTreeSet::new();
    eventually("its place is taken by new ones", LONG, || {
        backends.extend(clients[0].column("SELECT pg_backend_pid()").unwrap());
        backends.len() >= 3
    });
}

#[test]
fn a_storm_of_clients_opens_no_more_server_connections_than_the_pool_has() {
    let fleet = own_fleet(0);
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, "pool_size = 3\ncheckout_timeout = '60s'\n"));
    let barrier = std::sync::Barrier::new(100);
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                barrier.wait();
                let mut client = yard.client();
                assert_eq!(client.column("SELECT 1 FROM pg_class LIMIT 1").unwrap(), ["1"]);
            });
        }
    });
    let opened = pool(&yard, "pgyard_server_connects_total", &fleet);
    assert!((1.0..=3.0).contains(&opened), "{opened} connections for a pool of 3");
}
