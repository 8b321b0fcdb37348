//! The coordinator: what it shows is what the shards have together.

use super::harness::own_fleet;
use pgyard::coordinator::{ShardServer, sync};
use pgyard::demo::LocalFleet;
use pgyard::shard::{QualifiedName, Scheme, ShardMap, ShardedTable, TablePlace};
use std::collections::HashMap;
use std::sync::Arc;

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

fn map() -> ShardMap {
    let name = |schema: &str, name: &str| QualifiedName { schema: schema.into(), name: name.into() };
    let sharded = |table: QualifiedName, key: &str| {
        let place = ShardedTable {
            table: table.clone(),
            key: vec![key.into()],
            group: 0,
            types: None,
            scheme: Scheme::Hash { shards: 3 },
        };
        (table, TablePlace::Sharded(Arc::new(place)))
    };
    let tables = HashMap::from([
        sharded(name("public", "orders"), "id"),
        sharded(name("extra", "lines"), "order_id"),
        (name("public", "countries"), TablePlace::Reference),
        (name("public", "hidden"), TablePlace::Single(0)),
    ]);
    ShardMap { shards: (0..3).map(|place| format!("s{place}")).collect(), tables, unlisted: None }
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

fn synchronise(fleet: &LocalFleet, map: &ShardMap) -> pgyard::coordinator::SyncReport {
    let servers: Vec<ShardServer> = map
        .shards
        .iter()
        .map(|shard| ShardServer {
            name: shard.clone(),
            hosts: vec![("127.0.0.1".into(), fleet.primary().port())],
            database: shard.clone(),
            ssl_mode: "prefer",
            user: "postgres".into(),
            password: Some(fleet.superuser_password().reveal().to_owned()),
        })
        .collect();
    let (runtime, shard) = connect(fleet, "s0");
    let (_runtime, coordinator) = connect(fleet, "coordinator");
    runtime.block_on(sync(&shard, &coordinator, &servers, map)).unwrap()
}

#[test]
fn the_coordinator_shows_what_all_shards_have() {
    let fleet = own_fleet(0);
    for database in ["whole", "s0", "s1", "s2", "coordinator"] {
        run(&fleet, "postgres", &format!("CREATE DATABASE {database}"));
    }
    fill(&fleet);
    let map = map();
    let report = synchronise(&fleet, &map);
    assert_eq!((report.tables, report.views, report.functions), (3, 2, 1), "{report:?}");
    assert_eq!(report.left_out.len(), 1, "{report:?}");
    assert!(report.left_out[0].contains("hidden"), "{report:?}");
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
    let report = synchronise(&fleet, &map);
    assert_eq!((report.tables, report.views), (3, 1), "{report:?}");
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
