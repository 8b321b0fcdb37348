//! The coordinator: what it shows is what the shards have together.

use super::harness::own_fleet;
use pgyard::demo::LocalFleet;

const SCHEMA: &str = "
CREATE SCHEMA extra;
CREATE TYPE mood AS ENUM ('bad', 'good');
CREATE DOMAIN extra.positive AS int CHECK (value > 0);
CREATE FUNCTION double(n bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT n * 2';
CREATE TABLE orders (id bigint PRIMARY KEY, customer text, amount numeric(10,2), mood mood, doubled bigint GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE extra.lines (order_id bigint, n extra.positive, PRIMARY KEY (order_id, n));
CREATE TABLE countries (code text PRIMARY KEY, name text);
CREATE TABLE hidden (id bigint);
ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
CREATE VIEW per_customer AS SELECT customer, double(sum(id)::bigint) AS total FROM orders GROUP BY customer;
CREATE VIEW above AS SELECT * FROM per_customer WHERE total > 0;
GRANT SELECT ON orders, per_customer TO app;
";

fn connect(fleet: &LocalFleet, database: &str) -> (tokio::runtime::Runtime, tokio_postgres::Client) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let url = fleet.primary().superuser_url();
    let mut config: tokio_postgres::Config = url.parse().unwrap();
    config.dbname(database);
    let (client, connection) = runtime.block_on(config.connect(tokio_postgres::NoTls)).unwrap();
    runtime.spawn(connection);
    (runtime, client)
}

fn run(fleet: &LocalFleet, database: &str, sql: &str) -> Vec<Vec<String>> {
    let (runtime, client) = connect(fleet, database);
    let messages = runtime.block_on(client.simple_query(sql)).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let row = |message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|place| row.get(place).unwrap_or("NULL").to_owned()).collect())
        }
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

fn fill(fleet: &LocalFleet) {
    run(fleet, "whole", SCHEMA);
    run(fleet, "whole", "CREATE TABLE by_hash (LIKE orders) PARTITION BY HASH (id)");
    run(
        fleet,
        "whole",
        "INSERT INTO orders SELECT n, 'c' || n % 7, n / 3.0, CASE n % 2 WHEN 0 THEN 'bad' ELSE 'good' END::mood FROM generate_series(1, 300) n;
         INSERT INTO extra.lines SELECT id, m FROM orders, generate_series(1, 2) m;
         INSERT INTO countries VALUES ('de', 'Germany'), ('fr', 'France')",
    );
    for shard in 0..3 {
        let database = format!("s{shard}");
        run(fleet, &database, SCHEMA);
        let belongs = format!("satisfies_hash_partition('by_hash'::regclass, 3, {shard}, id)");
        for (table, key) in [("orders (id, customer, amount, mood)", "id"), ("extra.lines", "order_id"), ("countries", "")] {
            let bare = table.split(' ').next().unwrap();
            let columns = if bare == "orders" { "id, customer, amount, mood" } else { "*" };
            let condition = if key.is_empty() { "true".to_owned() } else { belongs.replace(", id)", &format!(", {key})")) };
            let rows = run(fleet, "whole", &format!("SELECT {columns} FROM {bare} WHERE {condition}"));
            let values = |row: &Vec<String>| row.iter().map(|value| format!("'{value}'")).collect::<Vec<_>>().join(", ");
            let rows: Vec<String> = rows.iter().map(|row| format!("({})", values(row))).collect();
            run(fleet, &database, &format!("INSERT INTO {table} VALUES {}", rows.join(", ")));
        }
    }
}

/// A configuration of the three shards and their coordinator.
fn write_config(fleet: &LocalFleet) -> tempfile::NamedTempFile {
    let url = |database: &str| {
        format!("postgres://postgres:{}@127.0.0.1:{}/{database}", fleet.superuser_password().reveal(), fleet.primary().port())
    };
    let shard =
        |place: usize| format!("[[databases.shop.shards]]\nname = 's{place}'\nprimary = '{}'\n", url(&format!("s{place}")));
    let shards: String = (0..3).map(shard).collect();
    let text = format!(
        "{shards}[databases.shop.coordinator]\nprimary = '{}'
         [[databases.shop.sharded_tables]]\ntables = 'orders'\nkey = 'id'
         [[databases.shop.sharded_tables]]\ntables = 'extra.lines'\nkey = 'order_id'
         [databases.shop.tables]\ncountries = 'reference'\nhidden = 's0'\n",
        url("coordinator")
    );
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

/// What `pgyard coordinator` prints.
fn synchronise(config: &std::path::Path) -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_pgyard")).arg("coordinator").arg(config).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn the_coordinator_shows_what_all_shards_have() {
    let fleet = own_fleet(0);
    for database in ["whole", "s0", "s1", "s2", "coordinator"] {
        run(&fleet, "postgres", &format!("CREATE DATABASE {database}"));
    }
    fill(&fleet);
    let config = write_config(&fleet);
    let report = synchronise(config.path());
    assert!(report.contains("shows 3 tables, 2 views and 1 functions"), "{report}");
    assert!(report.contains("left out:\n  table public.hidden: row security"), "{report}");
    let same = |sql: &str| {
        assert_eq!(run(&fleet, "coordinator", sql), run(&fleet, "whole", sql), "{sql}");
    };
    for sql in [
        "SELECT count(*), sum(amount), max(doubled) FROM orders",
        "SELECT o.customer, count(*), array_agg(l.n ORDER BY l.n, o.id) FROM orders o JOIN extra.lines l ON l.order_id = o.id + 1 GROUP BY 1 ORDER BY 1",
        "SELECT id, mood, rank() OVER (PARTITION BY mood ORDER BY amount DESC) FROM orders ORDER BY id",
        "SELECT * FROM above ORDER BY customer",
        "SELECT c.name, o.id FROM countries c, orders o WHERE o.id < 5 ORDER BY 1, 2",
        "WITH RECURSIVE r AS (SELECT 1::bigint AS id UNION ALL SELECT o.id FROM r JOIN orders o ON o.id = r.id * 2) SELECT * FROM r ORDER BY 1",
    ] {
        same(sql);
    }
    // It follows what changes: a value of a type, a column, a view that goes.
    for database in ["whole", "s0", "s1", "s2"] {
        run(&fleet, database, "ALTER TYPE mood ADD VALUE 'fine' BEFORE 'good'");
        run(&fleet, database, "ALTER TABLE orders ADD COLUMN note text DEFAULT 'none'; DROP VIEW above");
    }
    let report = synchronise(config.path());
    assert!(report.contains("shows 3 tables, 1 views and 1 functions"), "{report}");
    same("SELECT id, note, mood FROM orders WHERE mood < 'fine' ORDER BY id");
    assert_eq!(run(&fleet, "coordinator", "SELECT to_regclass('above')")[0][0], "NULL");
    // Nothing is written through it, and who may read the tables may read them here.
    let (runtime, client) = connect(&fleet, "coordinator");
    let refused = runtime.block_on(client.batch_execute("DELETE FROM orders")).unwrap_err();
    assert_eq!(refused.code().map(|code| code.code()), Some("55000"), "{refused:?}");
    runtime.block_on(client.batch_execute("SET ROLE app; SELECT count(*) FROM orders")).unwrap();
    let refused = runtime.block_on(client.batch_execute("SELECT count(*) FROM countries")).unwrap_err();
    assert_eq!(refused.code().map(|code| code.code()), Some("42501"));
}
