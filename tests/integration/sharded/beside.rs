//! Tables of every kind of column on three shards, with all rows in a database beside them.

use super::super::harness::Pgyard;
use super::super::harness::client::{RawClient, Reply};
use super::super::harness::programs::psql;
use super::stage::{app_url, shard_url, stage};
use pgyard::demo::LocalFleet;
use std::sync::OnceLock;

/// The shards' databases.
pub const PARTS: [&str; 3] = ["part0", "part1", "part2"];
/// The database with all rows.
const WHOLE: &str = "whole";

const TABLES: &str = r#"
CREATE TABLE sorted (k bigint NOT NULL, id int NOT NULL, b bool, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, n numeric,
    t text, tc text COLLATE "C", te text COLLATE "en-x-icu", v varchar(9), c char(5), d date, ts timestamp, tz timestamptz, tm time, tmz timetz,
    iv interval, u uuid, y bytea, o oid, ch "char", na name, j jsonb, PRIMARY KEY (k, id));
CREATE TABLE copied (k bigint, note text, n numeric(10,2) CHECK (n < 1000), d date, big bigint GENERATED ALWAYS AS (k * 2) STORED, UNIQUE (k, note));
CREATE TABLE pairs (place text NOT NULL, day date NOT NULL, x int);
CREATE TABLE kinds (code text PRIMARY KEY, name text);
CREATE TABLE lone (id int, note text);
CREATE TABLE by_key (key bigint) PARTITION BY HASH (key);
"#;

const ROWS: &str = r#"
INSERT INTO sorted SELECT i % 40, i, nullif(i % 3, 0) = 1, i % 7, (i * 7919) % 60 - 30, ('x' || md5(i::text))::bit(64)::int8,
    CASE i % 9 WHEN 0 THEN 'NaN' WHEN 1 THEN NULL ELSE (i * 37 % 100 - 50) * 0.1 END,
    CASE i % 9 WHEN 0 THEN '-Infinity' WHEN 1 THEN NULL ELSE (i * 53 % 1000 - 500) * 1.1 END,
    CASE i % 11 WHEN 0 THEN 'NaN' WHEN 1 THEN NULL ELSE (i * 71 % 500 - 250)::numeric / 8 END,
    nullif(substr('aAbBéÉzZ_-' || md5(i::text), i % 12 + 1, 4), 'zZ_-'), substr('aAbBéÉ' || md5(i::text), i % 9 + 1, 3),
    substr('aAbBéÉ' || md5(i::text), i % 9 + 1, 3), substr(md5(i::text), 1, i % 6), substr(md5(i::text), 1, i % 5 + 1),
    date '2020-01-01' + (i * 13 % 90 - 45) * 300, timestamp '2020-01-01' + i * interval '37 hours', timestamptz '2024-10-27 00:00+00' + (i % 50) * interval '7 minutes',
    time '00:00' + i * interval '7919 seconds', ((i % 24)::text || ':00+' || (i % 5)::text)::timetz, make_interval(days => i % 45, hours => i % 50),
    md5(i::text)::uuid, decode(substr(md5((i % 90)::text), 1, 2 * (i % 5)), 'hex'), (i % 70)::oid, chr(65 + i % 26)::"char",
    substr(md5(i::text), 1, 3)::name, jsonb_build_object('n', i % 6)
    FROM generate_series(1, 600) AS i;
INSERT INTO kinds VALUES ('a', 'one'), ('b', 'two');
ANALYZE;
"#;

/// pgyard in front of the parts, which may hold 1 MiB of rows.
pub struct Beside {
    /// It.
    pub yard: Pgyard,
}

/// The shared one.
pub fn beside() -> &'static Beside {
    static BESIDE: OnceLock<Beside> = OnceLock::new();
    BESIDE.get_or_init(|| {
        let fleet = &stage().fleet;
        make(fleet, WHOLE, "");
        for (number, part) in PARTS.iter().enumerate() {
            let others = format!("DELETE FROM sorted WHERE NOT satisfies_hash_partition('by_key'::regclass, 3, {number}, k);");
            make(fleet, part, &others);
        }
        let yard = Pgyard::start_with_config(fleet, &config(fleet, "gather_memory = \"1MiB\""));
        super::super::harness::eventually("the tables of decisions are made", std::time::Duration::from_secs(20), || {
            let there = "SELECT to_regclass('pgyard.decisions') IS NOT NULL";
            PARTS.iter().all(|part| psql(&shard_url(fleet, part), there) == "t")
        });
        Beside { yard }
    })
}

fn make(fleet: &LocalFleet, database: &str, more: &str) {
    fleet.primary().sql(&format!("CREATE DATABASE {database} OWNER app")).unwrap();
    psql(&app_url(fleet, database), &format!("{TABLES}{ROWS}{more}"));
}

fn config(fleet: &LocalFleet, more: &str) -> String {
    let shard = |name: &&str| format!("[[databases.app.shards]]\nname = \"{name}\"\nprimary = {:?}\n", shard_url(fleet, name));
    format!(
        "listen = \"{{listen}}\"\nhttp = \"{{http}}\"\n[databases.app]\nunlisted_tables = \"refuse\"\nprobe_interval = \"2s\"\nprobe_timeout = \"10s\"\n{more}\n{}\
         [[databases.app.sharded_tables]]\ntables = [\"sorted\", \"copied\"]\nkey = \"k\"\nscheme = \"hash\"\n\
         [[databases.app.sharded_tables]]\ntables = [\"pairs\"]\nkey = [\"place\", \"day\"]\nscheme = \"hash\"\n\
         [databases.app.tables]\nkinds = \"reference\"\nlone = \"part1\"\n",
        PARTS.iter().map(shard).collect::<String>()
    )
}

impl Beside {
    /// Runs a script on every part, past pgyard; what each printed.
    pub fn on_parts(&self, sql: &str) -> Vec<String> {
        PARTS.iter().map(|part| psql(&app_url(&stage().fleet, part), sql)).collect()
    }

    /// Another pgyard in front of the same parts.
    pub fn another(&self) -> Pgyard {
        let fleet = &stage().fleet;
        Pgyard::start_with_config(fleet, &config(fleet, "gather_memory = \"1MiB\""))
    }

    /// A client of the database with all rows.
    pub fn whole(&self) -> RawClient {
        let fleet = &stage().fleet;
        RawClient::log_in(fleet.primary().port(), "app", fleet.app_password().reveal(), WHOLE).unwrap()
    }

    /// A client of each part, past pgyard.
    pub fn parts(&self) -> Vec<RawClient> {
        let fleet = &stage().fleet;
        let log_in = |part: &&str| RawClient::log_in(fleet.primary().port(), "app", fleet.app_password().reveal(), part).unwrap();
        PARTS.iter().map(log_in).collect()
    }

    /// How many statements were carried out so: `gathered`, `finished` ...
    pub fn count(&self, kind: &str) -> f64 {
        self.yard.metric("pgyard_sharded_statements_total", &[("kind", kind)]).unwrap_or(0.0)
    }
}

/// The rows of an answer, its tag, and its error's code.
pub fn rows_of(replies: &[Reply]) -> Vec<Vec<u8>> {
    let part = |reply: &Reply| match reply.tag {
        b'D' | b'C' => Some([&[reply.tag][..], &reply.body].concat()),
        b'E' => Some(format!("E{}", reply.field(b'C').unwrap_or_default()).into_bytes()),
        b's' => Some(b"suspended".to_vec()),
        _ => None,
    };
    replies.iter().filter_map(part).collect()
}
