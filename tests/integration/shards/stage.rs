//! One server with the whole data in one database, and in three others what each shard has of it.

use super::super::harness::client::Protocol;
use super::super::harness::{RawClient, shared_fleet};
use pgyard::plan::{SCHEMA_QUERY, Schema};
use pgyard::shard::{QualifiedName, Scheme, ShardMap, ShardedTable, TablePlace};
use pgyard::sql::{CATALOGUE_QUERY, Catalogue};
use std::collections::HashMap;
use std::sync::Arc;

/// How many shards there are.
pub const SHARDS: usize = 3;

/// Sharded tables: schema, name, key, group, and the partitioned table whose hash is theirs.
const SHARDED: &[(&str, &str, &[&str], usize, &str)] = &[
    ("public", "orders", &["customer"], 0, "by_int"),
    ("public", "lines", &["customer"], 0, "by_int"),
    ("extra", "notes", &["customer"], 0, "by_int"),
    ("public", "events", &["tenant"], 1, "by_text"),
    ("public", "readings", &["site", "day"], 2, "by_pair"),
];

/// Rows as text.
pub type Rows = Vec<Vec<Option<String>>>;

/// An answer: its columns' types and its rows.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Type and modifier of each column.
    pub types: Vec<(u32, i32)>,
    /// The rows.
    pub rows: Rows,
}

/// The databases.
pub struct Stage {
    /// All rows.
    pub whole: RawClient,
    /// Each shard's.
    pub shards: Vec<RawClient>,
    /// What planning knows.
    pub schema: Schema,
    /// Functions.
    pub catalogue: Catalogue,
    /// Places.
    pub map: ShardMap,
}

/// Runs one statement; the error's SQLSTATE and message if there is one.
pub fn run(client: &mut RawClient, sql: &str) -> Result<Table, String> {
    let mut table = Table::default();
    let mut failure = None;
    for reply in client.run(Protocol::Simple, sql).unwrap() {
        match reply.tag {
            b'T' => table.types = types(&reply.body),
            b'D' => table.rows.push(values(&reply.body)),
            b'E' => {
                failure = Some(format!("{} {}", reply.field(b'C').unwrap_or_default(), reply.field(b'M').unwrap_or_default()));
            }
            _ => {}
        }
    }
    failure.map_or(Ok(table), Err)
}

fn number<const N: usize>(body: &[u8], at: usize) -> [u8; N] {
    body[at..at + N].try_into().unwrap()
}

fn types(body: &[u8]) -> Vec<(u32, i32)> {
    let count = u16::from_be_bytes(number(body, 0));
    let mut at = 2;
    (0..count)
        .map(|_| {
            at += body[at..].iter().position(|byte| *byte == 0).unwrap() + 1;
            let found = (u32::from_be_bytes(number(body, at + 6)), i32::from_be_bytes(number(body, at + 12)));
            at += 18;
            found
        })
        .collect()
}

fn values(body: &[u8]) -> Vec<Option<String>> {
    let count = u16::from_be_bytes(number(body, 0));
    let mut at = 2;
    (0..count)
        .map(|_| {
            let length = i32::from_be_bytes(number(body, at));
            at += 4;
            let length = usize::try_from(length).ok()?;
            at += length;
            Some(String::from_utf8(body[at - length..at].to_vec()).unwrap())
        })
        .collect()
}

impl Stage {
    /// Makes the databases anew, under names of one's own.
    pub fn new(name: &str) -> Stage {
        let fleet = shared_fleet();
        let password = fleet.superuser_password().reveal();
        let connect = |database: &str| {
            let mut client = RawClient::log_in(fleet.primary().port(), pgyard::demo::SUPERUSER, password, database).unwrap();
            client.column("SET TimeZone = 'UTC'").unwrap();
            client
        };
        let mut admin = connect("postgres");
        let mut database = |part: &str| {
            let database = format!("{name}_{part}");
            admin.column(&format!("CREATE DATABASE {database}")).unwrap();
            let mut client = connect(&database);
            client.column(include_str!("fixture.sql")).unwrap();
            client
        };
        let mut whole = database("whole");
        let shards = (0..SHARDS).map(|shard| {
            let mut client = database(&format!("s{shard}"));
            for (schema, table, key, _, hash) in SHARDED {
                let key = key.join(", ");
                let sql = format!(
                    "DELETE FROM {schema}.{table} WHERE NOT satisfies_hash_partition('{hash}'::regclass, {SHARDS}, {shard}, {key})"
                );
                client.column(&sql).unwrap();
            }
            if shard != 1 {
                client.column("DELETE FROM audit").unwrap();
            }
            client
        });
        let shards = shards.collect();
        let rows = |table: Table| table.rows;
        let schema = rows(run(&mut whole, SCHEMA_QUERY).unwrap());
        let schema = Schema::from_rows(schema.into_iter().map(|row| row.try_into().unwrap()));
        let catalogue = rows(run(&mut whole, CATALOGUE_QUERY).unwrap());
        let catalogue = Catalogue::from_rows(catalogue.into_iter().map(|row| row.try_into().unwrap()));
        Stage { whole, shards, schema, catalogue, map: map() }
    }
}

fn map() -> ShardMap {
    let name = |schema: &str, name: &str| QualifiedName { schema: schema.into(), name: name.into() };
    let mut tables =
        HashMap::from([(name("public", "countries"), TablePlace::Reference), (name("public", "audit"), TablePlace::Single(1))]);
    for (schema, table, key, group, _) in SHARDED {
        let table = name(schema, table);
        let sharded = ShardedTable {
            table: table.clone(),
            key: key.iter().map(|column| (*column).to_owned()).collect(),
            group: *group,
            types: None,
            scheme: Scheme::Hash { shards: SHARDS },
        };
        tables.insert(table, TablePlace::Sharded(Arc::new(sharded)));
    }
    ShardMap { shards: (0..SHARDS).map(|shard| format!("s{shard}")).collect(), tables, unlisted: None }
}
