//! A server that is told to end when a client's work is done and its answer is not: what it has committed was committed.

use super::harness::client::{Protocol, RawClient, Reply};
use super::harness::way::{pass, way_to};
use super::harness::{Pgyard, config, eventually, own_fleet};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SYNC: [u8; 5] = [b'S', 0, 0, 0, 4];

/// A way to a server that keeps back the Sync behind a COMMIT.
struct Way {
    port: u16,
    has_kept: Arc<AtomicBool>,
}

impl Way {
    fn to(server: u16) -> Way {
        let has_kept = Arc::new(AtomicBool::new(false));
        let told = has_kept.clone();
        let port = way_to(server, move || {
            let told = told.clone();
            (move |request: &[u8], to: &mut TcpStream| pass(without_sync(request, &told), to), pass)
        });
        Way { port, has_kept }
    }
}

fn without_sync<'a>(request: &'a [u8], told: &AtomicBool) -> &'a [u8] {
    if request.windows(7).any(|window| window == b"COMMIT\0")
        && let Some(head) = request.strip_suffix(&SYNC[..])
    {
        told.store(true, Ordering::SeqCst);
        return head;
    }
    request
}

/// What a simple query had committed when its server was lost stays with the session; what it had not is gone.
#[test]
fn parameters_that_were_committed_before_the_server_was_lost_stay() {
    let fleet = own_fleet(0);
    let yard = Pgyard::start(&fleet, &[]);
    let settings = |client: &mut RawClient| {
        ["a.x", "a.y", "a.z"].map(|name| client.column(&format!("SELECT current_setting('{name}', true)")).unwrap().concat())
    };
    let lose = |client: &mut RawClient, text: &str| {
        std::thread::scope(|scope| {
            let running = scope.spawn(|| client.run(Protocol::Simple, text).map(|replies| tags(&replies)));
            let sleepers = "FROM pg_stat_activity WHERE usename = 'app' AND state = 'active' AND wait_event = 'PgSleep'";
            eventually("it sleeps", Duration::from_secs(20), || {
                fleet.primary().sql(&format!("SELECT count(*) {sleepers}")).unwrap() == "1"
            });
            fleet.primary().sql(&format!("SELECT pg_terminate_backend(pid) {sleepers}")).unwrap();
            running.join().unwrap()
        })
    };
    let mut client = yard.client();
    lose(&mut client, "BEGIN; SET a.x = 'one'; COMMIT; SET a.y = 'two'; SELECT pg_sleep(600)").unwrap();
    assert_eq!(settings(&mut client), ["one", "", ""], "outside a block all behind the COMMIT is one transaction");
    lose(&mut client, "SET a.x = 'three'; BEGIN; SET a.y = 'four'; SELECT pg_sleep(600)").unwrap();
    client.column("ROLLBACK").unwrap();
    assert_eq!(settings(&mut client), ["one", "", ""], "what came before BEGIN is part of the block");
    client.column("BEGIN").unwrap();
    client.column("SET a.z = 'five'").unwrap();
    lose(&mut client, "SET a.y = 'six'; COMMIT; BEGIN; SET a.x = 'seven'; SELECT pg_sleep(600)").unwrap();
    client.column("ROLLBACK").unwrap();
    assert_eq!(settings(&mut client), ["one", "six", "five"]);
}

fn tags(replies: &[Reply]) -> String {
    replies.iter().map(|reply| char::from(reply.tag)).collect()
}

#[test]
fn a_commit_whose_server_ends_before_its_sync_is_acknowledged() {
    let fleet = own_fleet(0);
    let primary = fleet.primary();
    primary.sql("SET ROLE app; CREATE TABLE t (n int)").unwrap();
    let way = Way::to(primary.port());
    let text = config(&fleet, None, "").replace(&format!(":{}/", primary.port()), &format!(":{}/", way.port));
    let yard = Pgyard::start_with_config(&fleet, &text);
    let commit = |client: &mut RawClient, number: u32| {
        client.column("BEGIN").unwrap();
        client.column(&format!("INSERT INTO t VALUES ({number})")).unwrap();
        std::thread::scope(|scope| {
            let answer = scope.spawn(|| {
                let outcome = client.run(Protocol::Extended, "COMMIT");
                outcome.map(|replies| tags(&replies)).map_err(|error| error.kind())
            });
            eventually("the Sync is kept back", Duration::from_secs(20), || way.has_kept.swap(false, Ordering::SeqCst));
            let count = format!("SELECT count(*) FROM t WHERE n = {number}");
            eventually("it is committed", Duration::from_secs(20), || primary.sql(&count).unwrap() == "1");
            primary
                .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND query = 'COMMIT'")
                .unwrap();
            answer.join().unwrap()
        })
    };
    // PostgreSQL itself commits, says so, and goes without a ReadyForQuery.
    let mut direct = RawClient::log_in(way.port, "app", fleet.app_password().reveal(), "app").unwrap();
    assert_eq!(commit(&mut direct, 1), Err(std::io::ErrorKind::UnexpectedEof));
    let mut client = yard.client();
    assert_eq!(commit(&mut client, 2), Ok("12nCZ".to_owned()));
    assert_eq!(client.column("SELECT n FROM t ORDER BY n").unwrap(), ["1", "2"], "the session goes on");
}
