//! Rows of several shards are merged in the order that a server would give them: its own ORDER BY is the oracle.

use super::harness::programs::psql;
use super::harness::shared_fleet;
use pgyard::gather::{SortSession, SortType};
use std::cmp::Ordering;

const SESSION: SortSession = SortSession { iso_dates: true, hex_bytea: true, exact_floats: true, stored_encoding: true };

/// For each type: its oid, its name, how value number `i` is made, and its function that sends the binary format.
const TYPES: [(u32, &str, &str, &str); 21] = [
    (16, "bool", "i % 2 = 0", "boolsend"),
    (18, "\"char\"", "chr(i % 127 + 1)::\"char\"", "charsend"),
    (21, "int2", "(random() * 65535 - 32768)::int2", "int2send"),
    (23, "int4", "(random() * 100 - 50)::int4", "int4send"),
    (20, "int8", "('x' || md5(i::text))::bit(64)::int8", "int8send"),
    (26, "oid", "(random() * 4294967295)::int8::oid", "oidsend"),
    (
        700,
        "float4",
        "CASE i % 20 WHEN 0 THEN 'NaN' WHEN 1 THEN '-0'::float4 WHEN 2 THEN 0 WHEN 3 THEN 'Infinity' WHEN 4 THEN '1e-45'
         ELSE (random() - 0.5)::float4 * 10::float4 ^ (i % 30 - 15) END",
        "float4send",
    ),
    (
        701,
        "float8",
        "CASE i % 20 WHEN 0 THEN 'NaN' WHEN 1 THEN '-0'::float8 WHEN 2 THEN 0 WHEN 3 THEN '-Infinity' WHEN 4 THEN '5e-324'
         ELSE (random() - 0.5) * 10::float8 ^ (i % 300 - 150) END",
        "float8send",
    ),
    (
        1700,
        "numeric",
        "CASE i % 50 WHEN 0 THEN 'NaN' WHEN 1 THEN 'Infinity' WHEN 2 THEN '-Infinity' WHEN 3 THEN 0.00 WHEN 4 THEN i % 7
         ELSE round((random() - 0.5)::numeric * 10::numeric ^ (i % 60 - 30), i % 40) END",
        "numeric_send",
    ),
    (
        1082,
        "date",
        "CASE i % 50 WHEN 0 THEN 'infinity'::date WHEN 1 THEN '-infinity' ELSE date '2000-01-01' + ((random() - 0.5) * 4000000)::int END",
        "date_send",
    ),
    (
        1114,
        "timestamp",
        "CASE i % 50 WHEN 0 THEN 'infinity'::timestamp WHEN 1 THEN '-infinity' WHEN 2 THEN '0044-03-15 12:00:00.5 BC'
         ELSE timestamp '2000-01-01' + (random() - 0.5) * interval '9000 years' END",
        "timestamp_send",
    ),
    // Around the end of summer time the same hour comes twice.
    (1184, "timestamptz", "timestamptz '2024-10-27 00:00:00+00' + random() * interval '4 hours'", "timestamptz_send"),
    (1083, "time", "CASE i % 50 WHEN 0 THEN time '24:00' ELSE (random() * interval '1 day')::time END", "time_send"),
    (
        1266,
        "timetz",
        "((i % 24)::text || ':00:00' || CASE WHEN i % 29 < 15 THEN '+' ELSE '-' END || (i % 15)::text)::timetz",
        "timetz_send",
    ),
    (
        1186,
        "interval",
        "make_interval(months => i % 5, days => i % 70 - 30, hours => i % 50) * CASE i % 3 WHEN 0 THEN -1 ELSE 1 END",
        "interval_send",
    ),
    (2950, "uuid", "md5(i::text)::uuid", "uuid_send"),
    (17, "bytea", "decode(substr(md5((i % 500)::text), 1, 2 * (i % 9)), 'hex')", "byteasend"),
    (25, "text", "substr('é€😀aAbB -_' || md5(i::text), i % 11 + 1, i % 5)", "textsend"),
    (1043, "varchar", "substr(md5(i::text), 1, i % 4)", "varcharsend"),
    (1042, "char(9)", "substr(' aA!é' || md5(i::text), i % 6 + 1, i % 4)", "bpcharsend"),
    (19, "name", "substr('aAbB_' || md5(i::text), i % 6 + 1, i % 5)::name", "namesend"),
];

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|place| u8::from_str_radix(&hex[2 * place..2 * place + 2], 16).unwrap()).collect()
}

#[test]
fn values_of_every_type_are_in_the_servers_order() {
    for (oid, name, value, send) in TYPES {
        let collation = if matches!(oid, 25 | 1043 | 1042 | 19) { " COLLATE \"C\"" } else { "" };
        let script = format!(
            "SET client_encoding = 'UTF8'; SET TimeZone = 'Europe/Paris'; SET extra_float_digits = 1; SELECT setseed(0.25) \\g /dev/null
             CREATE TEMP TABLE vals AS SELECT ({value})::{name} AS v FROM generate_series(1, 2000) AS i;
             SELECT encode(convert_to(textin({name_out}(v)), 'UTF8'), 'hex'), encode({send}(v), 'hex'), dense_rank() OVER (ORDER BY v{collation})
             FROM vals ORDER BY 3;",
            name_out = send.replace("_send", "_out").replace("send", "out"),
        );
        let rows = psql(&shared_fleet().primary().superuser_url(), &script);
        let mut count = 0;
        for binary in [false, true] {
            // Texts of intervals are never compared.
            let Some(kind) = SortType::of(oid, binary, true, SESSION) else {
                assert_eq!((oid, binary), (1186, false));
                continue;
            };
            let mut before = None;
            for row in rows.lines() {
                let [text, sent, rank] = row.split('|').collect::<Vec<_>>()[..] else { panic!("{row}") };
                let bytes = bytes_of(if binary { sent } else { text });
                let value = kind.read(&bytes, binary).unwrap_or_else(|error| panic!("{name} {row}: {error}"));
                let rank: usize = rank.parse().unwrap();
                if let Some((value_before, rank_before, row_before)) = &before {
                    let expect = if rank == *rank_before { Ordering::Equal } else { Ordering::Less };
                    assert_eq!(Ord::cmp(value_before, &value), expect, "{name}: {row_before} before {row}, binary: {binary}");
                }
                before = Some((value, rank, row));
                count += 1;
            }
        }
        assert_eq!(count, if oid == 1186 { 2000 } else { 4000 }, "{name}");
    }
}
