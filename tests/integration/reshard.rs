//! Rows move to other shards while clients go on: nothing is lost, nothing comes twice, and no client sees an error.

mod stage;
mod writers;

use super::harness::eventually;
use super::harness::programs::psql;
use stage::{NEW, Stage, Worker, pgyard, said};
use std::time::Duration;
use writers::Writers;

const PATIENCE: Duration = Duration::from_secs(120);

/// All rows of a table of some databases, in order.
fn rows(stage: &Stage, databases: &[&str], table: &str) -> Vec<String> {
    let of = |database: &&str| psql(&stage.url(database), &format!("SELECT t.*::text FROM {table} t"));
    let mut rows: Vec<String> =
        databases.iter().flat_map(|database| of(database).lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    rows.retain(|row| !row.is_empty());
    rows.sort();
    rows
}

/// The tables that the copied database of the first test has.
const TYPES: &str = "
CREATE TYPE mood AS ENUM ('bad', 'good');
CREATE DOMAIN label AS text CHECK (value <> '');
CREATE TABLE owners (id bigint PRIMARY KEY, label label, mood mood, seen timestamptz, price numeric(12,3), part double precision,
  flag boolean, raw bytea, list int[], data jsonb, span interval, twice bigint GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE things (owner bigint REFERENCES owners DEFERRABLE INITIALLY DEFERRED, n bigint GENERATED ALWAYS AS IDENTITY, long text, PRIMARY KEY (owner, n));
CREATE TABLE seen (owner bigint, note text);
ALTER TABLE seen REPLICA IDENTITY FULL;
CREATE TABLE log (at bigint, owner bigint, PRIMARY KEY (at, owner)) PARTITION BY RANGE (at);
CREATE TABLE log_low PARTITION OF log FOR VALUES FROM (MINVALUE) TO (500);
CREATE TABLE log_high PARTITION OF log FOR VALUES FROM (500) TO (MAXVALUE);
CREATE TABLE rates (code text PRIMARY KEY, v numeric);
CREATE FUNCTION noisy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.note := NEW.note || '!'; RETURN NEW; END $$;
CREATE TRIGGER noisy BEFORE INSERT ON seen FOR EACH ROW EXECUTE FUNCTION noisy();
";

/// One round of changes of every kind; `$n` is its number.
const CHANGES: &str = r"
BEGIN;
INSERT INTO owners SELECT $n * 1000 + i, 'o' || i || E' \t\\ '' \n' || $n, (ARRAY['bad', 'good'])[1 + i % 2]::mood, now(), i / 7.0, random(), i % 3 = 0,
  decode(md5(i::text), 'hex'), ARRAY[i, NULL, $n], jsonb_build_object('a', i, 'b', repeat('x', i)), make_interval(days => i, secs => 0.001 * i)
  FROM generate_series(1, 20) i;
INSERT INTO things (owner, long) SELECT $n * 1000 + i, (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 200)) FROM generate_series(1, 5) i;
INSERT INTO seen SELECT $n * 1000 + i, CASE i % 2 WHEN 0 THEN 'same' END FROM generate_series(1, 6) i, generate_series(1, 2);
INSERT INTO log SELECT i * 40 + $n, $n FROM generate_series(1, 25) i;
INSERT INTO rates VALUES ('r' || $n, 1.50) ON CONFLICT (code) DO NOTHING;
COMMIT;
UPDATE owners SET label = label || '+', price = NULL WHERE id % 1000 = 3;
-- A key that changes, with a value that is too large for the stream to repeat.
BEGIN;
UPDATE owners SET id = id + 500 WHERE id = $n * 1000 + 4;
UPDATE things SET owner = owner + 500 WHERE owner = $n * 1000 + 4;
COMMIT;
UPDATE seen SET owner = owner + 7, note = 'moved' WHERE owner = $n * 1000 + 5;
DELETE FROM seen WHERE ctid IN (SELECT ctid FROM seen WHERE note LIKE 'same%' AND owner / 1000 = $n LIMIT 1);
UPDATE log SET at = at + 490 WHERE at = 40 + $n;
DELETE FROM owners WHERE id % 1000 = 9;
UPDATE rates SET v = v + 1;
BEGIN; INSERT INTO rates VALUES ('gone', 0); SAVEPOINT a; INSERT INTO rates VALUES ('goner', 0); ROLLBACK TO a; DELETE FROM rates WHERE code = 'gone'; COMMIT;
";

#[test]
fn a_worker_that_is_killed_again_and_again_loses_nothing() {
    let stage = Stage::new(
        TYPES,
        "[[databases.NAME.sharded_tables]]\ntables = [\"owners\"]\nkey = \"id\"\nscheme = \"hash\"\n\
         [[databases.NAME.sharded_tables]]\ntables = [\"things\", \"seen\", \"log\"]\nkey = \"owner\"\nscheme = \"hash\"\n\
         [databases.NAME.tables]\nrates = \"reference\"\n",
    );
    let source = stage.url("old");
    let change = |n: usize| drop(psql(&source, &CHANGES.replace("$n", &n.to_string())));
    (1..4).for_each(change);
    // The first round of the worker is killed somewhere in its copying or just behind it.
    for n in 6..9 {
        let worker = Worker::start(&stage);
        change(n);
        if n == 8 {
            eventually("the worker follows", PATIENCE, || worker.said().contains("following app"));
            change(n + 10);
        }
        worker.kill();
        change(n + 20);
    }
    psql(&source, "TRUNCATE rates; INSERT INTO rates VALUES ('new', 1)");
    let worker = Worker::start(&stage);
    eventually("the worker follows", PATIENCE, || worker.said().contains("following app"));
    change(40);
    let verified = said(&pgyard(&["reshard", "verify", &stage.file(), "app", "app_new"]), true);
    assert!(verified.contains("all 5 tables are the same"), "{verified}");
    for table in ["owners", "things", "seen", "log"] {
        let (expect, found) = (rows(&stage, &["old"], table), rows(&stage, &NEW, table));
        assert!(expect == found && !expect.is_empty(), "{table}: {} rows, {} on the shards", expect.len(), found.len());
    }
    for shard in NEW {
        assert_eq!(rows(&stage, &["old"], "rates"), rows(&stage, &[shard], "rates"), "{shard} has all rates");
    }
    // Each row is where its key says: PostgreSQL's own hash is asked.
    for (number, shard) in NEW.iter().enumerate() {
        psql(&stage.url(shard), "CREATE TABLE by_hash (id bigint) PARTITION BY HASH (id)");
        for (table, key) in [("owners", "id"), ("things", "owner"), ("seen", "owner"), ("log", "owner")] {
            let strays = format!(
                "SELECT count(*) FROM {table} WHERE NOT satisfies_hash_partition('by_hash'::regclass, 3, {number}, {key})"
            );
            assert_eq!(psql(&stage.url(shard), &strays), "0", "{table} on {shard}");
        }
    }
    // A row that somebody else has changed is found.
    psql(&stage.url("s1"), "UPDATE rates SET v = v + 1 WHERE code = 'new'");
    let verified = said(&pgyard(&["reshard", "verify", &stage.file(), "app", "app_new"]), false);
    assert!(
        verified.contains("table \"public\".\"rates\": 2 rows on the source, 2 on app_new/s1; 1 of 64 chunks differ"),
        "{verified}"
    );
    let refused = said(&pgyard(&["reshard", "cutover", &stage.file(), "app", "app_new"]), false);
    assert!(refused.contains("not everything was copied and compared"), "{refused}");
    said(&pgyard(&["reshard", "rollback", &stage.file(), "app", "app_new"]), true);
    assert_eq!(rows(&stage, &NEW, "owners"), [] as [&str; 0], "the target is empty again");
    worker.ends();
    assert_eq!(psql(&source, "SELECT count(*) FROM pg_replication_slots"), "0");
}

#[test]
fn what_is_in_the_way_is_said_at_once() {
    let stage = Stage::new(
        "CREATE TABLE items (id bigint PRIMARY KEY, v int); CREATE TABLE plain (id bigint)",
        "[[databases.NAME.sharded_tables]]\ntables = [\"items\"]\nkey = \"v\"\nscheme = \"hash\"\n",
    );
    psql(&stage.url("s1"), "DROP TABLE plain; ALTER TABLE items ALTER v TYPE bigint");
    let run = |expect: &[&str]| {
        let refused = said(&pgyard(&["reshard", "run", &stage.file(), "app", "app_new"]), false);
        expect.iter().for_each(|expect| assert!(refused.contains(expect), "{expect}: {refused}"));
    };
    run(&[
        "app_new/s1 has no table public.plain",
        "app_new/s1: table public.items has other columns",
        "the replica identity of table public.items lacks its key",
        "does not say where table public.plain is",
    ]);
    let status = said(&pgyard(&["reshard", "status", &stage.file(), "app", "app_new"]), true);
    assert!(status.contains("nothing is under way"), "{status}");
    assert!(said(&pgyard(&["reshard", "run", &stage.file(), "app", "nowhere"]), false).contains("no database nowhere"));
    psql(&stage.url("old"), "DROP TABLE plain; ALTER TABLE items REPLICA IDENTITY FULL");
    psql(&stage.url("s1"), "ALTER TABLE items ALTER v TYPE int; INSERT INTO items VALUES (1, 1)");
    run(&["must be empty at the beginning", "app_new/s1: table \"public\".\"items\" has rows"]);
    assert_eq!(psql(&stage.url("old"), "SELECT count(*) FROM pg_replication_slots"), "0", "nothing was begun");
}

#[test]
fn clients_go_on_while_one_shard_becomes_three_and_one_again() {
    let stage = Stage::new(
        "CREATE TABLE items (id bigint PRIMARY KEY, note text); CREATE TABLE journal (id bigint PRIMARY KEY, \"from\" bigint, \"to\" bigint, amount bigint);
         CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint); CREATE TABLE rates (code text PRIMARY KEY, v bigint)",
        "[[databases.NAME.sharded_tables]]\ntables = [\"items\", \"journal\", \"accounts\"]\nkey = \"id\"\nscheme = \"hash\"\n\
         [databases.NAME.tables]\nrates = \"reference\"\n",
    );
    psql(&stage.url("old"), writers::FIXTURE);
    let yard = stage.yard();
    let writers = Writers::start(&yard, 4);
    writers.go_on(8);
    for last in [false, true] {
        let worker = Worker::start(&stage);
        eventually("all rows are there and compared", PATIENCE, || worker.said().contains("all 4 tables are the same"));
        writers.go_on(8);
        let moved = said(&pgyard(&["reshard", "cutover", &stage.file(), "app", "app_new"]), true);
        println!("{moved}; longest statement so far {:?}", writers.longest());
        assert!(std::fs::read_to_string(stage.file()).unwrap().contains("served_by = \"app_new\""));
        writers.go_on(8);
        let on_shards = NEW.map(|shard| rows(&stage, &[shard], "journal").len());
        assert!(on_shards.iter().all(|rows| *rows > 0), "{on_shards:?}");
        let fenced = super::harness::programs::psql_output(&stage.url("old"), "DELETE FROM items");
        assert!(String::from_utf8_lossy(&fenced.stderr).contains("have moved to database \"app_new\""), "{fenced:?}");
        eventually("the worker leads back", PATIENCE, || worker.said().contains("following app_new"));
        let status = said(&pgyard(&["reshard", "status", &stage.file(), "app", "app_new"]), true);
        assert!(status.contains("clients are on app_new; app follows"), "{status}");
        if last {
            said(&pgyard(&["reshard", "finish", &stage.file(), "app", "app_new"]), true);
        } else {
            let back = said(&pgyard(&["reshard", "rollback", &stage.file(), "app", "app_new"]), true);
            println!("{back}; longest statement so far {:?}", writers.longest());
            assert!(!std::fs::read_to_string(stage.file()).unwrap().contains("served_by"));
            assert_eq!(rows(&stage, &NEW, "journal"), [] as [&str; 0]);
        }
        worker.ends();
        writers.go_on(8);
    }
    writers.finish(&yard);
    assert_eq!(psql(&stage.url("old"), "SELECT count(*) FROM pg_replication_slots"), "0");
}

#[test]
fn a_transaction_that_does_not_end_is_not_torn() {
    let stage = Stage::new(
        "CREATE TABLE items (id bigint PRIMARY KEY, note text)",
        "[[databases.NAME.sharded_tables]]\ntables = [\"items\"]\nkey = \"id\"\nscheme = \"hash\"\n",
    );
    let yard = stage.yard();
    let mut client = yard.client();
    let _worker = Worker::start(&stage);
    let file = stage.file();
    eventually("all rows are there and compared", PATIENCE, || {
        said(&pgyard(&["reshard", "status", &file, "app", "app_new"]), true).contains("all 1 tables are the same")
    });
    client.column("BEGIN").unwrap();
    assert_eq!(client.column("SELECT count(*) FROM items").unwrap(), ["0"]);
    let refused = said(&pgyard(&["reshard", "cutover", &file, "app", "app_new", "--hold", "400ms"]), false);
    assert!(refused.contains("1 transactions are still under way after 200 ms; nobody is held"), "{refused}");
    assert_eq!(yard.client().column("SELECT count(*) FROM items").unwrap(), ["0"]);
    client.column("INSERT INTO items VALUES (1, 'held open')").unwrap();
    client.column("COMMIT").unwrap();
    let moved = said(&pgyard(&["reshard", "cutover", &file, "app", "app_new"]), true);
    assert!(moved.contains("clients of app are on app_new"), "{moved}");
    assert_eq!(client.column("SELECT note FROM items WHERE id = 1").unwrap(), ["held open"]);
    assert_eq!(yard.client().column("SELECT count(*) FROM items").unwrap(), ["1"], "a new session is there too");
    let again = said(&pgyard(&["reshard", "cutover", &file, "app", "app_new"]), true);
    assert!(again.contains("already"), "{again}");
}
