//! `consistency = "global"`: a read shows every write to its tables that was acknowledged to anybody, and waits for no other.
//!
//! Replay is paused while a case is played, so that a read that a replica answers is stale for certain, and one that must not wait is
//! seen to be answered by a replica. No time is measured.

use super::harness::client::{Protocol, bind, execute, frame, parse, query, sync};
use super::harness::{Pgyard, RawClient, config, eventually};
use pgyard::demo::{FleetOptions, LocalFleet};
use std::time::Duration;

const SCHEMA: &str = "
    SET ROLE app;
    CREATE TABLE a (n int);
    CREATE TABLE b AS SELECT 0 AS n;
    CREATE TABLE u AS SELECT 0 AS n;
    CREATE SCHEMA s1; CREATE SCHEMA s2;
    CREATE TABLE s1.x AS SELECT 0 AS n;
    CREATE TABLE s2.x AS SELECT 0 AS n;
    CREATE TABLE parts (n int) PARTITION BY RANGE (n);
    CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (n);
    CREATE TABLE part_1_1 PARTITION OF part_1 FOR VALUES FROM (0) TO (50);
    CREATE TABLE old (n int); CREATE TABLE older () INHERITS (old);
    CREATE TABLE copied (n int); CREATE TABLE emptied AS SELECT 1 AS n;
    CREATE TABLE counted (id serial, n int);
    CREATE FUNCTION adds() RETURNS int LANGUAGE sql AS 'UPDATE u SET n = n + 1 RETURNING n';
    CREATE FUNCTION lies() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN adds(); END';
    CREATE FUNCTION checks(int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN adds() > 0; END';
    CREATE PROCEDURE calls() LANGUAGE sql AS 'UPDATE u SET n = n + 1';
    CREATE FUNCTION trigger_adds() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE u SET n = n + 1; RETURN NEW; END';
    CREATE TABLE triggers (n int);
    CREATE TRIGGER adds AFTER INSERT ON triggers FOR EACH ROW EXECUTE FUNCTION trigger_adds();
    CREATE TABLE trigger_parts (n int) PARTITION BY RANGE (n);
    CREATE TABLE trigger_part PARTITION OF trigger_parts FOR VALUES FROM (0) TO (100);
    CREATE TRIGGER adds AFTER INSERT ON trigger_parts FOR EACH ROW EXECUTE FUNCTION trigger_adds();
    CREATE TABLE ruled (n int);
    CREATE RULE adds AS ON INSERT TO ruled DO ALSO UPDATE u SET n = n + 1;
    CREATE TABLE defaults (m int, n int DEFAULT adds());
    CREATE DOMAIN numbered AS int DEFAULT adds();
    CREATE TABLE domained (m int, n numbered);
    CREATE TABLE checked (n int CHECK (checks(n)));
    CREATE TABLE parents (id int PRIMARY KEY);
    CREATE TABLE children (id int REFERENCES parents ON DELETE CASCADE);
    INSERT INTO parents SELECT generate_series(1, 20); INSERT INTO children SELECT generate_series(1, 20);
    CREATE TABLE late (n int);
    CREATE VIEW view_u AS SELECT n FROM u;
    CREATE FUNCTION reads_u() RETURNS int LANGUAGE sql STABLE AS 'SELECT n FROM u';
    CREATE FUNCTION reads_u_and_lies() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n FROM u';
    CREATE FUNCTION plus_u(int, int) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1 + $2 + n FROM u';
    CREATE OPERATOR |+| (LEFTARG = int, RIGHTARG = int, FUNCTION = plus_u);
";

/// Among statements: the replica is to show all that was done so far.
const HOLD: &str = "hold";

struct Stage {
    fleet: LocalFleet,
    yard: Pgyard,
    reader: RawClient,
}

impl Stage {
    fn build() -> Stage {
        let settings = vec!["max_prepared_transactions = 5".to_owned()];
        let fleet = LocalFleet::start(FleetOptions { replicas: 1, settings, ..FleetOptions::default() }, &mut |_| ()).unwrap();
        fleet.primary().sql("GRANT CREATE ON DATABASE app TO app").unwrap();
        fleet.primary().sql(SCHEMA).unwrap();
        fleet.wait_for_replay(fleet.primary(), &fleet.replicas()[0]).unwrap();
        let settings = "consistency = \"global\"\nmax_lag = \"off\"\nprobe_interval = \"20ms\"\n";
        let yard = Pgyard::start_with_config(&fleet, &config(&fleet, None, settings));
        let reader = yard.client();
        Stage { fleet, yard, reader }
    }

    fn replica(&self) -> &pgyard::demo::LocalHost {
        &self.fleet.replicas()[0]
    }

    /// The host that answers a read of a table, or of none.
    fn host_for(&mut self, table: &str) -> String {
        self.reader.column(&format!("SELECT current_setting('cluster_name'), (SELECT count(*) FROM {table})")).unwrap().remove(0)
    }

    /// The replica shows everything and answers reads of every kind; then it stands still.
    fn hold_replay(&mut self) {
        self.replica().resume_replay().unwrap();
        self.fleet.wait_for_replay(self.fleet.primary(), self.replica()).unwrap();
        eventually("the replica answers", Duration::from_secs(20), || {
            ["view_u", "u", "b"].iter().all(|table| self.host_for(table) == "replica1")
        });
        self.replica().pause_replay().unwrap();
    }
}

#[test]
fn a_read_waits_for_writes_to_its_own_tables_only() {
    let mut stage = Stage::build();
    let mut writer = stage.yard.client();
    let protocols = [Protocol::Simple, Protocol::Extended, Protocol::Named];
    stage.hold_replay();
    for (number, protocol) in protocols.into_iter().enumerate() {
        writer.run(protocol, &format!("INSERT INTO a VALUES ({number})")).unwrap();
        for read_by in protocols {
            let replies = stage.reader.run(read_by, "SELECT count(*) FROM a").unwrap();
            let row = replies.iter().find(|reply| reply.tag == b'D').expect("a row");
            assert_eq!(row.body.last(), Some(&(b'1' + number as u8)), "{protocol:?} {read_by:?}");
        }
        assert_eq!((stage.host_for("a"), stage.host_for("b")), ("primary".into(), "replica1".into()));
    }
    for (writes, read, shown) in [
        ("BEGIN; INSERT INTO counted (n) VALUES (7); UPDATE counted SET n = 8; COMMIT", "SELECT n FROM counted", "8"),
        ("INSERT INTO part_1_1 VALUES (1)", "SELECT count(*) FROM parts", "1"),
        ("INSERT INTO parts VALUES (2)", "SELECT count(*) FROM part_1_1", "2"),
        ("DELETE FROM part_1", "SELECT count(*) FROM parts", "0"),
        ("INSERT INTO older VALUES (1)", "SELECT count(*) FROM old", "1"),
        ("UPDATE old SET n = 5", "SELECT n FROM older", "5"),
        ("TRUNCATE emptied", "SELECT count(*) FROM emptied", "0"),
        (
            "SELECT nextval('counted_id_seq'), pg_advisory_xact_lock(1), pg_notify('x', 'y') FROM b FOR UPDATE",
            "SELECT n FROM b",
            "0",
        ),
    ] {
        writer.column(writes).unwrap();
        assert_eq!(stage.reader.column(read).unwrap(), [shown], "{writes}");
        assert_eq!(stage.host_for("b"), "replica1", "{writes}: others go on reading there");
    }
    // COPY, whose data come later than its text.
    writer.send(&query("COPY copied FROM STDIN")).unwrap();
    writer.send(&[frame(b'd', b"1\n2\n"), frame(b'c', b"")].concat()).unwrap();
    while writer.receive().unwrap().expect("an answer").tag != b'Z' {}
    assert_eq!(stage.reader.column("SELECT count(*) FROM copied").unwrap(), ["2"]);
    // One name in two schemas.
    writer.column("SET search_path = s1").unwrap();
    writer.column("UPDATE x SET n = 1").unwrap();
    assert_eq!(stage.reader.column("SELECT n FROM s1.x").unwrap(), ["1"]);
    stage.reader.column("SET search_path = s1, public").unwrap();
    assert_eq!(stage.reader.column("SELECT n FROM x").unwrap(), ["1"]);
    // While a transaction is open its writes may be committed at any moment.
    writer.column("BEGIN").unwrap();
    writer.column("UPDATE s1.x SET n = 2").unwrap();
    assert_eq!((stage.reader.column("SELECT n FROM x").unwrap(), stage.host_for("b")), (vec!["1".into()], "replica1".into()));
    writer.column("COMMIT").unwrap();
    assert_eq!(stage.reader.column("SELECT n FROM x").unwrap(), ["2"]);
    // What is read later in a transaction on the replica shows what was written meanwhile, as it would on the primary.
    stage.hold_replay();
    stage.reader.column("BEGIN READ ONLY").unwrap();
    assert_eq!(stage.host_for("b"), "replica1");
    writer.column("UPDATE s2.x SET n = 3").unwrap();
    assert_eq!((stage.host_for("b"), stage.reader.column("SELECT n FROM s2.x").unwrap()), ("replica1".into(), vec!["3".into()]));
    stage.reader.column("COMMIT").unwrap();
    stage.hold_replay();
    let part = |table: &str, end: Vec<u8>| {
        let text = format!("SELECT n FROM {table}");
        [parse("", &text), bind("", ""), execute(""), end].concat()
    };
    stage.reader.send(&part("u", frame(b'H', b""))).unwrap();
    while stage.reader.receive().unwrap().expect("an answer").tag != b'C' {}
    writer.column("UPDATE s2.x SET n = 4").unwrap();
    stage.reader.send(&part("s2.x", sync())).unwrap();
    let replies = stage.reader.until_ready().unwrap();
    assert_eq!(replies.iter().find(|reply| reply.tag == b'D').expect("a row").body.last(), Some(&b'4'));
    // Whoever reads through a view does not know its tables, and waits for all of them.
    writer.column("UPDATE public.u SET n = n + 1").unwrap();
    let expect = stage.fleet.primary().sql("SELECT n FROM u").unwrap();
    for read in ["SELECT n FROM u", "SELECT n FROM view_u", "SELECT reads_u()", "SELECT reads_u_and_lies()", "SELECT 0 |+| 0"] {
        assert_eq!(stage.reader.column(read).unwrap(), [expect.as_str()], "{read}");
    }
    assert_eq!(stage.host_for("b"), "replica1");
}

#[test]
fn a_write_that_reaches_further_counts_for_every_table() {
    let mut stage = Stage::build();
    let mut writer = stage.yard.client();
    for writes in [
        &["INSERT INTO triggers VALUES (1)"][..],
        &["COPY triggers FROM STDIN"],
        &["INSERT INTO trigger_parts VALUES (1)"],
        &["INSERT INTO trigger_part VALUES (1)"],
        &["INSERT INTO ruled VALUES (1)"],
        &["INSERT INTO defaults (m) VALUES (1)"],
        &["INSERT INTO domained (m) VALUES (1)"],
        &["INSERT INTO checked VALUES (1)"],
        &["SELECT adds()"],
        &["SELECT lies()"],
        &["INSERT INTO a SELECT adds()"],
        &["WITH w AS (UPDATE u SET n = n + 1 RETURNING n) SELECT * FROM w"],
        &["WITH w AS (UPDATE u SET n = n + 1 RETURNING n) INSERT INTO a SELECT n FROM w"],
        &["DO 'BEGIN UPDATE u SET n = n + 1; END'"],
        &["CALL calls()"],
        &["PREPARE p AS UPDATE u SET n = n + 1", "EXECUTE p", "DEALLOCATE p"],
        &["BEGIN", "UPDATE u SET n = n + 1", "PREPARE TRANSACTION 'two'", "COMMIT PREPARED 'two'"],
        &["UPDATE view_u SET n = n + 1"],
        &["EXPLAIN ANALYZE UPDATE u SET n = n + 1"],
        &["CREATE TEMP VIEW b AS SELECT n FROM u", HOLD, "UPDATE b SET n = n + 1", "DISCARD TEMP"],
        // What has just been made is not known yet.
        &["CREATE TRIGGER late AFTER INSERT ON a FOR EACH ROW EXECUTE FUNCTION trigger_adds()", HOLD, "INSERT INTO a VALUES (1)"],
        &[
            "DROP TRIGGER late ON a",
            "CREATE TABLE part_2 PARTITION OF trigger_parts DEFAULT",
            HOLD,
            "INSERT INTO part_2 VALUES (200)",
        ],
        &["CREATE TRIGGER adds AFTER INSERT ON late FOR EACH ROW EXECUTE FUNCTION trigger_adds()", "INSERT INTO late VALUES (1)"],
        &["ALTER TABLE u RENAME TO v", "UPDATE v SET n = n + 1", "ALTER TABLE v RENAME TO u"],
        &[
            "BEGIN",
            "CREATE TABLE w AS SELECT n + 1 AS n FROM u",
            "DROP TABLE u CASCADE",
            "ALTER TABLE w RENAME TO u",
            "CREATE VIEW view_u AS SELECT n FROM u",
            "COMMIT",
        ],
    ] {
        stage.hold_replay();
        let before: u64 = stage.fleet.primary().sql("SELECT n FROM u").unwrap().parse().unwrap();
        for statement in writes {
            if *statement == HOLD {
                stage.hold_replay();
            } else if statement.starts_with("COPY") {
                writer.send(&[query(statement), frame(b'd', b"1\n"), frame(b'c', b"")].concat()).unwrap();
                while writer.receive().unwrap().expect("an answer").tag != b'Z' {}
            } else {
                writer.column(statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
            }
        }
        let shown: u64 = stage.reader.column("SELECT n FROM u").unwrap()[0].parse().unwrap();
        assert!(shown > before, "{writes:?}: {shown} after {before}");
    }
    // A cascade.
    stage.hold_replay();
    writer.column("DELETE FROM parents WHERE id = 7").unwrap();
    assert_eq!(stage.reader.column("SELECT count(*) FROM children").unwrap(), ["19"]);
}
