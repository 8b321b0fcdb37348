//! TPC-H's 22 queries on three shards, each answer beside that of one PostgreSQL with the same rows. `lineitem` and `orders` are sharded by the
//! order's key; the other tables are whole on every shard.

mod rows;

use super::harness::client::{Protocol, RawClient, frame};
use super::harness::programs::psql;
use super::harness::{Pgyard, eventually};
use super::sharded::stage::{SHARDS, server, shard_url};
use pgyard::demo::LocalFleet;
use std::path::Path;
use std::time::{Duration, Instant};

const QUERIES: usize = 22;

/// What a query answers: its rows, or the SQLSTATE and the words of its error.
type Answer = Result<Vec<Vec<u8>>, String>;

fn ask(client: &mut RawClient, sql: &str) -> Answer {
    let replies = client.run(Protocol::Extended, sql).unwrap();
    if let Some(error) = replies.iter().find(|reply| reply.tag == b'E') {
        return Err(format!("{} {}", error.field(b'C').unwrap_or_default(), error.field(b'M').unwrap_or_default()));
    }
    // With the names and types of the columns, but for the numbers of the table and the column that they come from.
    Ok(replies.into_iter().filter(|reply| reply.tag == b'D').map(|reply| reply.body).collect())
}

/// The queries in their order.
fn queries() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/tpch/queries");
    (1..=QUERIES).map(|number| std::fs::read_to_string(folder.join(format!("{number:02}.sql"))).unwrap()).collect()
}

fn config(fleet: &LocalFleet, coordinator: bool) -> String {
    let shard = |name: &&str| format!("[[databases.app.shards]]\nname = \"{name}\"\nprimary = {:?}\n", shard_url(fleet, name));
    let coordinator = match coordinator {
        true => format!("[databases.app.coordinator]\nprimary = {:?}\n", shard_url(fleet, "shown")),
        false => String::new(),
    };
    format!(
        "listen = \"{{listen}}\"\nhttp = \"{{http}}\"\n[databases.app]\nunlisted_tables = \"reference\"\n{}{coordinator}\
         [[databases.app.sharded_tables]]\ntables = \"orders\"\nkey = \"o_orderkey\"\n\
         [[databases.app.sharded_tables]]\ntables = \"lineitem\"\nkey = \"l_orderkey\"\n",
        SHARDS.iter().map(shard).collect::<String>()
    )
}

/// Sends a table's rows by COPY.
fn copy(client: &mut RawClient, table: &str, rows: &str) {
    let mut bytes = frame(b'Q', format!("COPY {table} FROM STDIN\0").as_bytes());
    for part in rows.as_bytes().chunks(60_000) {
        bytes.extend(frame(b'd', part));
    }
    bytes.extend(frame(b'c', b""));
    client.send(&bytes).unwrap();
    let replies = client.until_ready().unwrap();
    let tag = replies.iter().find(|reply| reply.tag == b'C').unwrap_or_else(|| panic!("{table}: {replies:?}"));
    assert_eq!(tag.body, format!("COPY {}\0", rows.lines().count()).as_bytes(), "{table}");
}

#[test]
fn the_queries_of_tpc_h_answer_as_one_postgresql_does() {
    let fleet = server();
    fleet.primary().sql("CREATE DATABASE shown OWNER app").unwrap();
    for shard in SHARDS {
        psql(&super::sharded::stage::app_url(&fleet, shard), include_str!("tpch/schema.sql"));
    }
    psql(&fleet.primary().app_url(), include_str!("tpch/schema.sql"));
    let with = Pgyard::start_with_config(&fleet, &config(&fleet, true));
    let without = Pgyard::start_with_config(&fleet, &config(&fleet, false));
    let mut direct = RawClient::log_in(fleet.primary().port(), "app", fleet.app_password().reveal(), "app").unwrap();
    let (mut through, mut alone) = (with.client(), without.client());
    for (table, rows) in rows::tables() {
        copy(&mut direct, table, &rows);
        copy(&mut alone, table, &rows);
    }
    direct.column("ANALYZE").unwrap();
    for shard in SHARDS {
        psql(&shard_url(&fleet, shard), "ANALYZE");
    }
    eventually("the coordinator shows the tables", Duration::from_secs(60), || {
        psql(&shard_url(&fleet, "shown"), "SELECT to_regclass('public.lineitem') IS NOT NULL") == "t"
    });
    let mut answered = Vec::new();
    for (number, sql) in queries().iter().enumerate().map(|(place, sql)| (place + 1, sql)) {
        let expected = ask(&mut direct, sql).unwrap();
        let value = expected.first().unwrap_or_else(|| panic!("query {number} finds no rows"));
        assert!(expected.len() > 1 || !value.ends_with(&[0xff; 4]), "query {number} finds only NULL");
        let began = Instant::now();
        let found = ask(&mut through, sql);
        assert_eq!(found.as_ref(), Ok(&expected), "query {number} with a coordinator");
        let taken = began.elapsed();
        match ask(&mut alone, sql) {
            Ok(found) => {
                assert_eq!(found, expected, "query {number} without a coordinator");
                answered.push(number);
                println!("query {number}: {} rows, {taken:?}", expected.len());
            }
            Err(error) => {
                assert!(error.starts_with("0A000"), "query {number}: {error}");
                println!("query {number}: {} rows, {taken:?}; without a coordinator: {error}", expected.len());
            }
        }
    }
    println!("TPC-H: {QUERIES} of {QUERIES} with a coordinator, {} without one", answered.len());
    assert!(answered.len() >= 20, "without a coordinator only {answered:?} are answered");
}
