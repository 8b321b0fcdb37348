//! What reading over several shards costs: time beside the shards alone, memory, and bytes that come from the shards.
//!
//! `PGYARD_SHARD_ROWS=1000000` (`make shards`) puts so many rows on each shard and prints the figures; without it there are few.

use super::super::harness::Pgyard;
use super::super::harness::client::{RawClient, query};
use super::super::harness::programs::psql;
use super::stage::{app_url, shard_url, stage};
use pgyard::demo::LocalFleet;
use std::time::{Duration, Instant};

const PARTS: [&str; 3] = ["big0", "big1", "big2"];
/// Rows on each shard in the usual run.
const FEW: u64 = 4000;
/// Runs of which the best counts.
const RUNS: usize = 7;

const TABLE: &str = "
    CREATE TABLE big (k bigint NOT NULL, id bigint NOT NULL, amount numeric(12,2), note text);
    CREATE TABLE by_key (key bigint) PARTITION BY HASH (key);";

fn rows_of_each() -> (u64, bool) {
    let wanted = std::env::var("PGYARD_SHARD_ROWS").ok().filter(|rows| !rows.is_empty());
    wanted.map_or((FEW, false), |rows| (rows.parse().unwrap(), true))
}

fn fill(fleet: &LocalFleet, rows: u64) -> Pgyard {
    for (number, part) in PARTS.iter().enumerate() {
        fleet.primary().sql(&format!("CREATE DATABASE {part} OWNER app")).unwrap();
        let all = rows * 3;
        psql(
            &app_url(fleet, part),
            &format!(
                "{TABLE} INSERT INTO big SELECT i, i, (i * 7919 % 1000003)::numeric / 7, 'note number ' || i || repeat('.', 60)
                 FROM generate_series(1::bigint, {all}) AS i WHERE satisfies_hash_partition('by_key'::regclass, 3, {number}, i);
                 CREATE INDEX ON big (id);"
            ),
        );
        fleet.primary().sql("CHECKPOINT").unwrap();
        psql(&shard_url(fleet, part), "VACUUM ANALYZE big");
    }
    let shard = |name: &&str| format!("[[databases.app.shards]]\nname = \"{name}\"\nprimary = {:?}\n", shard_url(fleet, name));
    let shards: String = PARTS.iter().map(shard).collect();
    Pgyard::start_with_config(
        fleet,
        &format!(
            "listen = \"{{listen}}\"\nhttp = \"{{http}}\"\n[databases.app]\nprobe_interval = \"2s\"\nprobe_timeout = \"10s\"\n{shards}[[databases.app.sharded_tables]]\n\
             tables = [\"big\"]\nkey = \"k\"\nscheme = \"hash\"\n"
        ),
    )
}

/// The shortest time of a statement, and the rows of its answer.
fn best(client: &mut RawClient, sql: &str) -> (Duration, usize) {
    let mut rows = 0;
    let time = (0..RUNS).map(|_| {
        let begin = Instant::now();
        client.send(&query(sql)).unwrap();
        let replies = client.until_ready().unwrap();
        rows = replies.iter().filter(|reply| reply.tag == b'D').count();
        begin.elapsed()
    });
    (time.min().unwrap(), rows)
}

/// Reads an answer without keeping it: its rows, the time, and how much more memory pgyard had at most.
fn scan(yard: &Pgyard, sql: &str) -> (u64, Duration, u64) {
    let mut client = yard.client();
    client.set_silence(Duration::from_secs(300)).unwrap();
    let before = yard.resident_bytes();
    let (mut rows, mut most, begin) = (0, before, Instant::now());
    client.send(&query(sql)).unwrap();
    loop {
        let reply = client.receive().unwrap().unwrap();
        match reply.tag {
            b'D' => rows += 1,
            b'E' => panic!("{sql}: {:?}", reply.field(b'M')),
            b'Z' => return (rows, begin.elapsed(), most - before),
            _ => {}
        }
        if rows % 5000 == 0 {
            most = most.max(yard.resident_bytes());
        }
    }
}

/// Bytes that the legs have been sent by the shards.
fn bytes_from_shards(yard: &Pgyard) -> f64 {
    let of = |part: &&str| {
        let database = format!("app/{part}");
        yard.metric("pgyard_client_bytes_total", &[("database", &database), ("direction", "client_out")]).unwrap_or(0.0)
    };
    PARTS.iter().map(of).sum()
}

#[test]
fn reading_over_shards_in_figures() {
    let fleet = &stage().fleet;
    let (rows, shows) = rows_of_each();
    let yard = fill(fleet, rows);
    let say = |text: String| {
        if shows {
            println!("{text}")
        }
    };
    let mut through = yard.client();
    let password = fleet.app_password().reveal();
    let shard = |part: &str| {
        let client = RawClient::log_in(fleet.primary().port(), "app", password, part).unwrap();
        client.set_silence(Duration::from_secs(300)).unwrap();
        client
    };
    for (name, sql) in [
        ("sorted", "SELECT id, amount, note FROM big ORDER BY amount DESC, id LIMIT 100"),
        ("by an index", "SELECT id, amount, note FROM big ORDER BY id LIMIT 100"),
    ] {
        let alone: Vec<(Duration, usize)> = PARTS.iter().map(|part| best(&mut shard(part), sql)).collect();
        let slowest = alone.iter().map(|(time, _)| *time).max().unwrap();
        let at_once = std::thread::scope(|scope| {
            let threads: Vec<_> = PARTS.iter().map(|part| scope.spawn(|| best(&mut shard(part), sql).0)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
        });
        let (time, count) = best(&mut through, sql);
        assert_eq!((count, alone[0].1), (100, 100), "{sql}");
        let ratio = |beside: Duration| time.as_secs_f64() / beside.as_secs_f64();
        say(format!(
            "ORDER BY ... LIMIT 100, {name}: {time:?}; the slowest shard alone {slowest:?} ({:.2}), all three at once {at_once:?} ({:.2})",
            ratio(slowest),
            ratio(at_once)
        ));
    }
    for sql in ["SELECT * FROM big", "SELECT * FROM big ORDER BY id", "SELECT * FROM big ORDER BY amount, id"] {
        let (count, time, more) = scan(&yard, sql);
        assert_eq!(count, rows * 3, "{sql}");
        say(format!("{sql}: {count} rows in {time:?}, at most {} KiB more memory", more / 1024));
        assert!(more < 64 << 20, "{sql}: {more} bytes more");
    }
    let before = bytes_from_shards(&yard);
    let grouped = "SELECT k % 10 AS g, count(*), sum(amount), avg(amount), min(note), max(id) FROM big GROUP BY 1 ORDER BY 1";
    let (time, count) = best(&mut through, grouped);
    let bytes = (bytes_from_shards(&yard) - before) / RUNS as f64;
    assert_eq!(count, 10);
    say(format!("{grouped}: {time:?}, {bytes} bytes from the shards for {} rows on them", rows * 3));
    assert!(bytes > 100.0 && bytes < 20_000.0, "{bytes} bytes");
}
