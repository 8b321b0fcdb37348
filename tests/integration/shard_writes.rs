//! Writes that no shard can do by itself: rows whose key changes, numbers that are unique over all shards, rows that are read on some shards
//! and inserted on others. Each is compared with one PostgreSQL that has all the rows.

use super::harness::client::{Protocol, RawClient, Reply};
use super::harness::programs::psql;
use super::harness::{Pgyard, eventually};
use super::sharded::stage::{SHARDS, app_url, server, shard_url, wait_for_decisions};
use pgyard::demo::LocalFleet;
use std::collections::HashSet;
use std::sync::OnceLock;
use std::time::Duration;

const TABLES: &str = "
    CREATE TABLE moved (k bigint NOT NULL, id int NOT NULL, note varchar(5), n numeric(6,2), d date, big bigint GENERATED ALWAYS AS (k * 2) STORED, PRIMARY KEY (k, id));
    CREATE TABLE words (k text NOT NULL, other int, PRIMARY KEY (k));
    CREATE TABLE pairs (a int, b text, x int);
    CREATE TABLE parents (k int PRIMARY KEY, note text);
    CREATE TABLE children (k int NOT NULL, n int NOT NULL, PRIMARY KEY (k, n), FOREIGN KEY (k) REFERENCES parents);
    CREATE TABLE watched (k int PRIMARY KEY, note text);
    CREATE TABLE sources (k int NOT NULL, a int, b text, PRIMARY KEY (k));
    CREATE TABLE targets (k int NOT NULL, a int, b text, PRIMARY KEY (k));
    CREATE TABLE numbered (k int, id serial, first bigint GENERATED ALWAYS AS IDENTITY, note text)";

const ROWS: &[&str] = &[
    "INSERT INTO moved (k, id, note, n, d) VALUES (1, 1, 'a', 1.5, '2024-01-01'), (2, 2, NULL, NULL, NULL), (3, 3, 'c''\\', 3, '2024-03-03'), \
     (4, 4, 'd', -4, NULL), (5, 5, 'e', 5.55, '2024-05-05'), (6, 6, 'f', 6, NULL), (7, 7, '', 0, NULL), (8, 8, 'h', 8, NULL)",
    "INSERT INTO words VALUES ('a', 1), ('b', 2), ('c', 3), ('d', 4), ('e', NULL)",
    "INSERT INTO pairs VALUES (1, 'x', 1), (2, 'y', 2), (3, 'z', 3), (4, 'x', 4), (5, 'y', 5), (6, 'z', 6)",
    "INSERT INTO parents VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd'), (5, 'e')",
    "INSERT INTO children VALUES (1, 1), (1, 2), (2, 1), (3, 1)",
    "INSERT INTO watched VALUES (1, 'a'), (2, 'b')",
    "INSERT INTO sources VALUES (1, 10, 'a'), (2, 20, 'b'), (3, 30, NULL), (4, 40, 'd''d'), (5, 50, 'e'), (6, 60, 'f'), (7, NULL, 'g')",
];

struct Stage {
    fleet: LocalFleet,
    yard: Pgyard,
    config: String,
}

fn config(fleet: &LocalFleet) -> String {
    let shard = |name: &&str| format!("[[databases.app.shards]]\nname = \"{name}\"\nprimary = {:?}\n", shard_url(fleet, name));
    let tables = "\"moved\", \"words\", \"parents\", \"children\", \"watched\", \"sources\", \"targets\", \"numbered\", \"stamped\", \"late\"";
    format!(
        "listen = \"{{listen}}\"\nhttp = \"{{http}}\"\n[databases.app]\n{}\
         [[databases.app.sharded_tables]]\ntables = [{tables}]\nkey = \"k\"\n\
         [[databases.app.sharded_tables]]\ntables = \"pairs\"\nkey = [\"a\", \"b\"]\n",
        SHARDS.iter().map(shard).collect::<String>()
    )
}

fn stage() -> &'static Stage {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    STAGE.get_or_init(|| {
        let fleet = server();
        let config = config(&fleet);
        let yard = Pgyard::start_with_config(&fleet, &config);
        wait_for_decisions(&fleet);
        psql(&app_url(&fleet, "app"), TABLES);
        let mut client = yard.client();
        for sql in TABLES.split(';').chain(ROWS.iter().copied()) {
            done(&mut client, sql);
        }
        for sql in ROWS {
            psql(&app_url(&fleet, "app"), sql);
        }
        for sql in [
            "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "CREATE TRIGGER looks BEFORE UPDATE ON watched FOR EACH ROW EXECUTE FUNCTION look()",
        ] {
            done(&mut client, sql);
        }
        Stage { fleet, yard, config }
    })
}

fn direct(stage: &Stage) -> RawClient {
    RawClient::log_in(stage.fleet.primary().port(), "app", stage.fleet.app_password().reveal(), "app").unwrap()
}

/// Runs a statement that must succeed.
fn done(client: &mut RawClient, sql: &str) {
    let replies = client.run(Protocol::Simple, sql).unwrap();
    let error = replies.iter().find(|reply| reply.tag == b'E').map(|error| error.field(b'C').zip(error.field(b'M')));
    assert_eq!(error, None, "{sql}");
}

/// Rows in an order of their own, the tag, and errors by their code.
fn answer(replies: &[Reply]) -> Vec<String> {
    let text = |reply: &Reply| match reply.tag {
        b'C' | b'D' => Some(format!("{} {}", reply.tag as char, String::from_utf8_lossy(&reply.body))),
        b'E' => Some(format!("E {}", reply.field(b'C').unwrap_or_default())),
        _ => None,
    };
    let mut all: Vec<String> = replies.iter().filter_map(text).collect();
    all.sort_by_key(|line| (line.starts_with('C'), line.clone()));
    all
}

/// Runs a statement on both, and compares what it answers and what a query shows afterwards; whether it succeeded.
fn same(through: &mut RawClient, direct: &mut RawClient, (protocol, sql): (Protocol, &str), shows: &str) -> bool {
    let (mine, theirs) = (answer(&through.run(protocol, sql).unwrap()), answer(&direct.run(protocol, sql).unwrap()));
    assert_eq!(mine, theirs, "{sql}");
    let (mine, theirs) =
        (answer(&through.run(Protocol::Simple, shows).unwrap()), answer(&direct.run(Protocol::Simple, shows).unwrap()));
    assert_eq!(mine, theirs, "after {sql}: {shows}");
    !mine.is_empty()
}

/// Whether every row of a table is on the shard of its key.
fn all_at_home(fleet: &LocalFleet, table: &str, key: &str, kind: &str) {
    for (place, shard) in SHARDS.iter().enumerate() {
        let sql = format!(
            "CREATE TEMP TABLE by_key (key {kind}) PARTITION BY HASH (key);
             SELECT count(*) FROM {table} WHERE NOT satisfies_hash_partition('by_key'::regclass, 3, {place}, {key})"
        );
        assert_eq!(psql(&shard_url(fleet, shard), &sql), "0", "{table} on {shard}");
    }
}

#[test]
fn rows_move_with_their_keys() {
    let stage = stage();
    let (mut through, mut direct) = (stage.yard.client(), direct(stage));
    let statements = [
        "UPDATE moved SET k = k + 10",
        "UPDATE moved SET k = k - 9, note = upper(note), n = n / 3 WHERE id < 6 RETURNING k, id, note, n, big",
        "UPDATE moved AS m SET k = m.id, d = '2025-02-03' WHERE m.k IN (2, 3, 4) RETURNING *",
        "UPDATE moved SET (k, note) = (100 + id, 'new')  WHERE id BETWEEN 3 AND 7",
        "UPDATE moved SET k = 7 WHERE id = 1 RETURNING k",
        "UPDATE moved SET k = 8 WHERE k = 7",
        "UPDATE moved SET k = 9 WHERE k = 12345 RETURNING *",
        // Errors of the statement, and of what it makes.
        "UPDATE moved SET k = k + 1, note = 'much too long'",
        "UPDATE moved SET k = NULL WHERE id = 2",
        "UPDATE moved SET k = k + 1, big = 3",
        "UPDATE moved SET k = k + 1, missing = 3",
        "UPDATE moved SET k = k + 1, n = 123456",
        "UPDATE moved SET k = 50, id = 1 WHERE id < 4",
        "UPDATE moved SET k = k + 1 WHERE 1 / (id - 4) > 5",
        "UPDATE words SET k = k || 'x' WHERE other > 1 RETURNING k, other",
        "UPDATE words SET k = 'fresh' WHERE k = 'a'",
        "UPDATE words SET k = 'dx' WHERE k = 'fresh'",
        "UPDATE pairs SET b = 'w' WHERE a > 2 RETURNING a, b, x",
        "UPDATE pairs SET a = a + 1, x = x * 2",
        // A child moves to a parent on another shard; without one it is refused.
        "UPDATE children SET k = 4 WHERE k = 1 AND n = 2 RETURNING *",
        "UPDATE children SET k = 77 WHERE k = 2",
        "UPDATE children SET k = k + 2 WHERE k = 3",
    ];
    let shows = "SELECT 'm', k, id, note || '/' || coalesce(d::text, '-'), n, big FROM moved";
    for (number, sql) in statements.iter().enumerate() {
        let protocol = [Protocol::Simple, Protocol::Extended, Protocol::Named][number % 3];
        let table = sql.split(' ').nth(1).unwrap();
        let shows = if table == "moved" { shows.to_owned() } else { format!("TABLE {table}") };
        same(&mut through, &mut direct, (protocol, sql), &shows);
        through.run(Protocol::Simple, "ROLLBACK").unwrap();
    }
    for (table, key, kind) in [("moved", "k", "bigint"), ("words", "k", "text"), ("children", "k", "int")] {
        all_at_home(&stage.fleet, table, key, kind);
    }
    // In a transaction, rolled back and committed.
    for end in ["ROLLBACK", "COMMIT"] {
        for sql in ["BEGIN", "UPDATE moved SET k = k + 1000 RETURNING k", "UPDATE moved SET k = k - 500 WHERE id > 3", end] {
            same(&mut through, &mut direct, (Protocol::Simple, sql), shows);
        }
    }
    // Other tests commit meanwhile.
    eventually("nothing is left prepared", Duration::from_secs(60), || {
        psql(&app_url(&stage.fleet, "s0"), "SELECT count(*) FROM pg_prepared_xacts") == "0"
    });
}

#[test]
fn rows_that_cannot_move_exactly_are_refused() {
    let stage = stage();
    let mut client = stage.yard.client();
    for (sql, reason) in [
        ("UPDATE watched SET k = k + 1", "a table with triggers or rules"),
        ("UPDATE parents SET k = k + 10", "to which foreign keys refer"),
        ("UPDATE sources SET k = (random() * 5)::int", "the same whenever it is computed"),
        ("UPDATE sources SET k = t.a FROM targets t WHERE t.k = sources.k", "joins other tables"),
        ("UPDATE sources SET k = DEFAULT", "DEFAULT cannot be given"),
    ] {
        let replies = client.run(Protocol::Simple, sql).unwrap();
        let error = replies.iter().find(|reply| reply.tag == b'E').unwrap_or_else(|| panic!("{sql}: {replies:?}"));
        assert_eq!(error.field(b'C').as_deref(), Some("0A000"), "{sql}");
        let said = error.field(b'M').unwrap_or_default() + &error.field(b'D').unwrap_or_default();
        assert!(said.contains(reason), "{sql}: {said}");
    }
}

#[test]
fn rows_are_read_on_some_shards_and_inserted_on_others() {
    let stage = stage();
    let (mut through, mut direct) = (stage.yard.client(), direct(stage));
    for (number, sql) in [
        "INSERT INTO targets SELECT k + 1, a, b FROM sources RETURNING k, a, b",
        "INSERT INTO targets (k, b) SELECT s.k * 100, s.b FROM sources s WHERE a > 20 LIMIT ALL",
        "INSERT INTO targets TABLE sources ON CONFLICT (k) DO NOTHING",
        "INSERT INTO targets SELECT a, count(*)::int, min(b) FROM sources GROUP BY a HAVING a IS NOT NULL",
        "INSERT INTO targets SELECT 1000 + row_number() OVER (ORDER BY k DESC), k, 'w' FROM sources",
        "INSERT INTO targets SELECT k + 1, a, b FROM sources",
        "INSERT INTO targets SELECT k + 5000, s.a + t.a, s.b FROM sources s JOIN targets t ON t.k = s.a",
        "INSERT INTO targets SELECT generate_series(2000, 2010), 1, 'g' RETURNING k",
        "INSERT INTO targets SELECT NULL, a, b FROM sources WHERE k < 3",
        "INSERT INTO targets (b, k, a) SELECT DISTINCT b, k + 7000, 5 FROM sources",
        "INSERT INTO targets (k, a, b) SELECT k + 8000, '7', NULL FROM sources RETURNING *",
        "INSERT INTO targets (k, a, b) SELECT k + 9000, 'x', NULL FROM sources",
    ]
    .into_iter()
    .enumerate()
    {
        let protocol = [Protocol::Simple, Protocol::Extended, Protocol::Named][number % 3];
        same(&mut through, &mut direct, (protocol, sql), "SELECT k, a, b FROM targets");
    }
    all_at_home(&stage.fleet, "targets", "k", "int");
    for sql in [
        "TABLE targets ORDER BY k OFFSET 3 LIMIT 4",
        "SELECT k FROM targets ORDER BY k LIMIT ALL OFFSET 2",
        "SELECT count(*) FROM (TABLE targets) AS t",
    ] {
        same(&mut through, &mut direct, (Protocol::Extended, sql), "SELECT 1");
    }
}

/// `pgyard` with arguments; what it prints.
fn pgyard(arguments: &[&str], config: &str) -> (String, bool) {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), config.replace("{listen}", "127.0.0.1:1").replace("{http}", "off")).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pgyard"));
    let output = command.arg(arguments[0]).arg(file.path()).args(&arguments[1..]).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (said, output.status.success())
}

#[test]
fn sequences_give_every_value_on_one_shard_only() {
    let stage = stage();
    let mut client = stage.yard.client();
    let insert = |client: &mut RawClient, k: usize| {
        let mut row =
            client.column(&format!("INSERT INTO numbered (k, note) VALUES ({k}, 'n') RETURNING id || ',' || first")).unwrap();
        let row = row.remove(0);
        let (id, first) = row.split_once(',').unwrap();
        (id.parse::<i64>().unwrap(), first.parse::<i64>().unwrap())
    };
    let before: Vec<(i64, i64)> = (1..=30).map(|k| insert(&mut client, k)).collect();
    let meeting: HashSet<i64> = before.iter().map(|row| row.0).collect();
    assert!(meeting.len() < before.len(), "each shard counts by itself at first");
    let (said, _) = pgyard(&["check", "--live"], &stage.config);
    let expected = "warning: sequence public.numbered_id_seq of public.numbered.id may give the same values on s0, s1, s2";
    assert!(said.contains(expected) && said.contains("pgyard sequences FILE"), "{said}");
    // Shown first, and nothing done.
    let (said, well) = pgyard(&["sequences"], &stage.config);
    assert!(well && said.contains("ALTER SEQUENCE \"public\".\"numbered_id_seq\" INCREMENT BY 3 RESTART WITH "), "{said}");
    assert!(said.contains("-- on shard s2") && said.contains("2 sequences would go by steps of 3"), "{said}");
    let (again, _) = pgyard(&["sequences"], &stage.config);
    assert_eq!(said, again, "a look changes nothing");
    let (said, well) = pgyard(&["sequences", "--apply"], &stage.config);
    assert!(well && said.contains("2 sequences now go by steps of 3, 0 could not meet before"), "{said}");
    let after: Vec<(i64, i64)> = (1..=60).map(|k| insert(&mut client, k)).collect();
    for values in [after.iter().map(|row| row.0).collect::<HashSet<_>>(), after.iter().map(|row| row.1).collect::<HashSet<_>>()] {
        assert_eq!(values.len(), after.len(), "no value twice");
    }
    let highest = before.iter().map(|row| row.0.max(row.1)).max().unwrap();
    assert!(after.iter().all(|row| row.0 > highest && row.1 > highest), "beyond what was there");
    let (said, _) = pgyard(&["check", "--live"], &stage.config);
    assert!(!said.contains("may give the same values"), "{said}");
    let (said, well) = pgyard(&["sequences", "--apply"], &stage.config);
    assert!(well && said.contains("0 sequences now go by steps of 3, 2 could not meet before"), "{said}");

    // pgyard.unique_id(), by several sessions at once.
    let table = "CREATE TABLE stamped (k int, id bigint DEFAULT pgyard.unique_id() PRIMARY KEY, note text)";
    done(&mut client, table);
    let ids: Vec<Vec<i64>> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|number: usize| {
                scope.spawn(move || {
                    let mut client = stage.yard.client();
                    let one = |turn: usize| {
                        let k = if number == 3 { turn } else { number };
                        let sql = format!("INSERT INTO stamped (k) SELECT {k} FROM generate_series(1, 20) RETURNING id");
                        client.column(&sql).unwrap().iter().map(|id| id.parse::<i64>().unwrap()).collect::<Vec<_>>()
                    };
                    (0..25).flat_map(one).collect::<Vec<_>>()
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let all: HashSet<i64> = ids.iter().flatten().copied().collect();
    assert_eq!(all.len(), 4 * 25 * 20, "no number twice");
    // One session's numbers of one shard come in their order, and all say when they were made.
    assert!(ids[0].windows(2).all(|pair| pair[0] < pair[1]), "in the order of time");
    let made = "SELECT count(*) FROM stamped WHERE abs((id >> 22) + 1704067200000 - date_part('epoch', now()) * 1000) > 600000";
    assert_eq!(client.column(made).unwrap(), ["0"]);
    let shards: HashSet<i64> = all.iter().map(|id| id >> 16 & 63).collect();
    assert_eq!(shards, HashSet::from([0, 1, 2]));
}
