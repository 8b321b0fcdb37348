//! Large things pass without being held: rows, COPY data both ways, parameters of hundreds of megabytes.

use super::harness::client::{RawClient, describe_portal, execute, frame, parse, query, sync};
use super::harness::{Pgyard, eventually, own_fleet};
use super::isolation::{check, pipeline, q};
use pgyard::demo::LocalFleet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A Bind of the unnamed portal with one parameter of `len` bytes, as text.
pub fn large_bind(statement: &str, len: usize) -> Vec<u8> {
    let head = [b"\0", statement.as_bytes(), b"\0\0\0\0\x01"].concat();
    let length = i32::try_from(len).unwrap().to_be_bytes();
    frame(b'B', &[&head, &length[..], &vec![b'x'; len], b"\0\0"].concat())
}

#[test]
fn long_parameters_are_answered_as_by_postgresql() {
    const LONG: usize = 3 << 20;
    let fleet = own_fleet(0);
    let flush = || frame(b'H', b"");
    let select = || parse("", "select length($1)");
    check(&fleet, "unnamed", &[pipeline(0, &[select(), large_bind("", LONG), execute("")]), q(0, "select 1")]);
    check(
        &fleet,
        "named, and prepared again for another client",
        &[
            pipeline(0, &[parse("s", "select length($1) + 1")]),
            pipeline(1, &[parse("s", "select length($1) + 2")]),
            pipeline(0, &[large_bind("s", LONG), execute("")]),
            pipeline(1, &[large_bind("s", LONG), execute(""), large_bind("s", LONG + 1), execute("")]),
            pipeline(0, &[large_bind("s", 10), execute(""), flush(), large_bind("s", LONG), execute("")]),
        ],
    );
    check(
        &fleet,
        "errors before it, in it and behind it",
        &[
            pipeline(0, &[parse("", "select nosuch"), large_bind("", LONG), execute("")]),
            pipeline(0, &[large_bind("nosuch", LONG), execute("")]),
            pipeline(0, &[parse("", "select $1::int"), large_bind("", LONG), execute(""), large_bind("", LONG)]),
            pipeline(0, &[select(), large_bind("", LONG), execute("nosuch"), large_bind("", LONG)]),
            q(0, "begin; select 1/0"),
            pipeline(0, &[select(), large_bind("", LONG), execute("")]),
            q(0, "rollback"),
            pipeline(0, &[parse("", "copy nosuch from stdin"), large_bind("", LONG), flush(), large_bind("", LONG)]),
            pipeline(0, &[select(), large_bind("", LONG), execute("")]),
        ],
    );
    fleet.primary().sql("SET ROLE app; CREATE TABLE written (n int)").unwrap();
    check(
        &fleet,
        "a write",
        &[
            pipeline(0, &[parse("", "insert into written select length($1)"), large_bind("", LONG), execute("")]),
            q(0, "begin"),
            pipeline(0, &[parse("", "insert into written select length($1)"), large_bind("", LONG), execute("")]),
            q(0, "rollback"),
            q(1, "select count(*), min(n) from written"),
            q(1, "truncate written"),
        ],
    );
}

/// Also where what has come ends with the bytes of a Sync, and is none.
#[test]
fn a_pipeline_may_come_in_two_pieces() {
    let fleet = own_fleet(0);
    let yard = small_pool(&fleet);
    let direct = RawClient::log_in(fleet.primary().port(), "app", fleet.app_password().reveal(), "app");
    let mut clients = [direct.unwrap(), yard.client()];
    let value = [sync(), sync()].concat();
    let head = [b"\0\0\0\x01\0\x01\0\x01", &u32::try_from(value.len()).unwrap().to_be_bytes()[..]].concat();
    let bind = frame(b'B', &[&head[..], &value, b"\0\0"].concat());
    let bytes = [parse("", "select $1::bytea, 'one'"), bind, describe_portal(""), execute(""), sync()].concat();
    for cut in 1..bytes.len() {
        let [direct, through] = clients.each_mut().map(|client| {
            client.send(&bytes[..cut]).unwrap();
            std::thread::sleep(Duration::from_millis(2));
            client.send(&bytes[cut..]).unwrap();
            client.until_ready().unwrap()
        });
        assert_eq!(through, direct, "cut at {cut}");
    }
}

fn small_pool(fleet: &LocalFleet) -> Pgyard {
    let config = format!(
        "listen = '{{listen}}'\nhttp = '{{http}}'\n[databases.app]\nprimary = '{}'\npool_size = 1\n",
        fleet.primary().superuser_url()
    );
    Pgyard::start_with_config(fleet, &config)
}

/// A server that goes away in the middle of a long message: the rest of it is not taken for other messages.
#[test]
fn the_rest_of_a_long_message_is_dropped_with_its_server() {
    let fleet = own_fleet(0);
    fleet.primary().sql("SET ROLE app; CREATE TABLE lines (line text)").unwrap();
    let yard = small_pool(&fleet);
    let bind = [parse("", "insert into lines values ($1)"), large_bind("", 4 << 20)].concat();
    let copy = [query("copy lines from stdin"), frame(b'd', &vec![b'Q'; 4 << 20])].concat();
    for (what, bytes, end) in [("Bind", bind, [execute(""), sync()].concat()), ("COPY", copy, frame(b'c', b""))] {
        let mut client = yard.client();
        client.send(&bytes[..2 << 20]).unwrap();
        let busy = "SELECT pid FROM pg_stat_activity WHERE usename = 'app' AND state = 'active' AND query LIKE '%lines%'
            AND wait_event = 'ClientRead'";
        // A server that waits for the rest of a Bind has not begun to work on it: it shows as idle.
        let waiting = "SELECT pid FROM pg_stat_activity WHERE usename = 'app' AND wait_event = 'ClientRead'";
        let pids = if what == "COPY" { busy } else { waiting };
        eventually("the server waits for the rest", Duration::from_secs(10), || !fleet.primary().sql(pids).unwrap().is_empty());
        fleet.primary().sql(&format!("SELECT pg_terminate_backend(pid) FROM ({pids}) AS its")).unwrap();
        client.send(&[&bytes[2 << 20..], &end].concat()).unwrap();
        let replies = client.until_ready().unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(replies.iter().any(|reply| reply.tag == b'E'), "{what}: {replies:?}");
        assert_eq!(client.column("SELECT count(*) FROM lines").unwrap(), ["0"], "{what}");
    }
}

/// No server to be had: the client is told, and the rest of its message is dropped.
#[test]
fn a_long_message_that_no_server_takes_is_dropped() {
    let fleet = own_fleet(0);
    let config = format!(
        "listen = '{{listen}}'\nhttp = '{{http}}'\n[databases.app]\nprimary = '{}'\npool_size = 1\ncheckout_timeout = '200ms'\n",
        fleet.primary().superuser_url()
    );
    let yard = Pgyard::start_with_config(&fleet, &config);
    let (mut holder, mut client) = (yard.client(), yard.client());
    holder.column("BEGIN").unwrap();
    client.send(&[parse("", "select length($1)"), large_bind("", 8 << 20), execute(""), sync()].concat()).unwrap();
    let replies = client.until_ready().unwrap();
    assert_eq!(replies.iter().map(|reply| reply.tag as char).collect::<String>(), "EZ");
    assert_eq!(replies[0].field(b'C').as_deref(), Some("53300"));
    holder.column("COMMIT").unwrap();
    assert_eq!(client.column("SELECT 1").unwrap(), ["1"]);
}

/// Sends `bytes` and reads what comes to the end of the answer; returns its length.
fn transfer(client: &mut RawClient, bytes: &[u8]) -> usize {
    client.send(bytes).unwrap();
    let replies = client.until_ready().unwrap();
    assert!(replies.iter().all(|reply| reply.tag != b'E'), "{:?}", replies.iter().find(|reply| reply.tag == b'E'));
    replies.iter().map(|reply| reply.body.len()).sum()
}

#[test]
fn large_transfers_take_no_memory() {
    const LARGE: usize = 48 << 20;
    const GROWTH_MAX: u64 = 4 << 20;
    let fleet = own_fleet(0);
    let yard = small_pool(&fleet);
    let mut client = yard.client();
    let rows = |count: usize, len: usize| query(&format!("SELECT repeat('x', {len}) FROM generate_series(1, {count})"));
    let copy = |sql: &str, data: &[Vec<u8>]| [&[query(sql)], data, &[frame(b'c', b"")]].concat().concat();
    let mut line = vec![b'y'; 1 << 20];
    line.extend_from_slice(b"\n");
    let one = frame(b'd', &line.repeat(LARGE >> 20));
    let transfers = [
        ("small rows", rows(LARGE / 1000, 1000)),
        ("one row", rows(1, LARGE)),
        ("COPY out", query(&format!("COPY (SELECT repeat('x', 1000) FROM generate_series(1, {})) TO STDOUT", LARGE / 1000))),
        ("COPY in, small messages", copy("COPY taken FROM STDIN WHERE false", &vec![frame(b'd', &line[1 << 19..]); LARGE >> 19])),
        ("COPY in, one message", copy("COPY taken FROM STDIN WHERE false", &[one])),
        ("a parameter", [parse("", "select length($1)"), large_bind("", LARGE), execute(""), sync()].concat()),
    ];
    fleet.primary().sql("SET ROLE app; CREATE TABLE taken (line text)").unwrap();
    // What every first use allocates is not growth.
    transfer(&mut client, &rows(5000, 1000));
    for (what, bytes) in transfers {
        let (before, peak, stop) = (yard.resident_bytes(), AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    peak.fetch_max(yard.resident_bytes(), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            transfer(&mut client, &bytes);
            stop.store(true, Ordering::Relaxed);
        });
        let grown = peak.into_inner().saturating_sub(before);
        assert!(grown <= GROWTH_MAX, "{what}: {} KiB more than before", grown / 1024);
    }
}
