//! Keys are read as a server reads them, and are on the shard that PostgreSQL's own hash partitioning would take.

use super::harness::programs::psql;
use super::harness::shared_fleet;
use pgyard::shard::{KeyColumn, KeySession, KeyType, KeyUse, KeyValue, Scheme, SentParameter};

const SHARDS: usize = 7;
const VALUES: usize = 10_000;

/// For each type: how the server makes value number `i`, and its function that sends the binary format.
const TYPES: [(KeyType, &str, &str); 12] = [
    (KeyType::Int2, "(random() * 65535 - 32768)::int2", "int2send"),
    (KeyType::Int4, "(random() * 4294967295 - 2147483648)::int4", "int4send"),
    (KeyType::Int8, "(CASE i % 3 WHEN 0 THEN i - 5000 ELSE ('x' || md5(i::text))::bit(64)::int8 END)", "int8send"),
    (KeyType::Text, "substr(repeat(md5(i::text) || 'é€😀 ', 2), i % 9, (random() * 40)::int)", "textsend"),
    (KeyType::Varchar, "substr(md5(i::text), 1, i % 30)::varchar", "varcharsend"),
    (KeyType::BpChar, "substr(repeat(md5(i::text), 2), 1, i % 50)::char(50)", "bpcharsend"),
    (KeyType::Uuid, "md5(i::text)::uuid", "uuid_send"),
    (
        KeyType::Numeric,
        "(CASE i % 50 WHEN 0 THEN 'NaN' WHEN 1 THEN 'Infinity' WHEN 2 THEN '-Infinity' WHEN 3 THEN 0 WHEN 4 THEN 10000 ^ (i % 9)
          ELSE (random() - 0.5)::numeric * 10::numeric ^ (i % 60 - 30) END)",
        "numeric_send",
    ),
    (KeyType::Bytea, "decode(substr(md5(i::text) || md5('x' || i::text), 1, 2 * (i % 32)), 'hex')", "byteasend"),
    (
        KeyType::Date,
        "(CASE i % 50 WHEN 0 THEN 'infinity'::date WHEN 1 THEN '-infinity' ELSE date '2000-01-01' + ((random() - 0.5) * 4000000)::int END)",
        "date_send",
    ),
    (
        KeyType::Timestamp,
        "(CASE i % 50 WHEN 0 THEN 'infinity'::timestamp WHEN 1 THEN '-infinity'
          ELSE timestamp '2000-01-01' + (random() - 0.5) * interval '9000 years' END)",
        "timestamp_send",
    ),
    (
        KeyType::Timestamptz,
        "(CASE i % 50 WHEN 0 THEN 'infinity'::timestamptz ELSE timestamptz '1950-01-01' + (random() - 0.5) * interval '900 years' END)",
        "timestamptz_send",
    ),
];

fn session() -> KeySession {
    KeySession::new("Asia/Kolkata", "UTF8", "UTF8")
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|place| u8::from_str_radix(&hex[2 * place..2 * place + 2], 16).unwrap()).collect()
}

#[test]
fn keys_of_every_type_are_on_postgresqls_own_partition() {
    let scheme = Scheme::Hash { shards: SHARDS };
    for (kind, value, send) in TYPES {
        let (column, name) = (KeyColumn::from(kind), kind.name());
        let script = format!(
            "SET client_encoding = 'UTF8'; SET TimeZone = 'Asia/Kolkata'; SET extra_float_digits = 1; SELECT setseed(0.5) \\g /dev/null
             CREATE TEMP TABLE k (v {name}) PARTITION BY HASH (v);
             CREATE TEMP TABLE vals AS SELECT {value} AS v FROM generate_series(1, {VALUES}) AS i;
             SELECT encode(convert_to(v::text, 'UTF8'), 'hex'), encode({send}(v), 'hex'), r FROM vals, generate_series(0, {SHARDS} - 1) AS r
             WHERE satisfies_hash_partition('k'::regclass, {SHARDS}, r, v);"
        );
        let rows = psql(&shared_fleet().primary().superuser_url(), &script);
        let mut count = 0;
        let mut used = [false; SHARDS];
        for row in rows.lines() {
            let [text, binary, shard] = row.split('|').collect::<Vec<_>>()[..] else { panic!("{row}") };
            let (text, binary, shard) = (bytes_of(text), bytes_of(binary), shard.parse().unwrap());
            let shown = String::from_utf8_lossy(&text);
            let sent = |value, binary| {
                let parameter = SentParameter { value: Some(value), oid: kind.oid(), binary };
                column.parameter(parameter, KeyUse::Stored, session()).unwrap_or_else(|| panic!("{name} {shown:?} is not read"))
            };
            let (one, two) = (sent(&text, false), sent(&binary, true));
            assert_eq!(one, two, "{name} {shown:?} in both formats");
            assert_eq!(
                column.constant(Some(&shown), Some(name), KeyUse::Compared, session()),
                Some(one.clone()),
                "{name} {shown:?}"
            );
            assert_eq!(scheme.shard_of(&[one]), Some(shard), "{name} {shown:?}");
            used[shard] = true;
            count += 1;
        }
        assert_eq!((count, used), (VALUES, [true; SHARDS]), "{name}");
    }
}

#[test]
fn keys_of_several_columns_and_nulls_are_on_postgresqls_own_partition() {
    let script = format!(
        "CREATE TEMP TABLE k (a int8, b text, c date) PARTITION BY HASH (a, b, c);
         CREATE TEMP TABLE vals AS SELECT nullif(i % 100, 3)::int8 AS a, nullif(md5(i::text), md5('7')) AS b,
           CASE WHEN i % 5 > 0 THEN date '1999-12-31' + i % 77 END AS c FROM generate_series(1, {VALUES}) AS i;
         SELECT coalesce(a::text, '-'), coalesce(b, '-'), coalesce(c::text, '-'), r FROM vals, generate_series(0, {SHARDS} - 1) AS r
         WHERE satisfies_hash_partition('k'::regclass, {SHARDS}, r, a, b, c);"
    );
    let rows = psql(&shared_fleet().primary().superuser_url(), &script);
    let mut count = 0;
    for row in rows.lines() {
        let fields: Vec<&str> = row.split('|').collect();
        let key: Vec<KeyValue> = [KeyType::Int8, KeyType::Text, KeyType::Date]
            .into_iter()
            .zip(&fields)
            .map(|(kind, text)| {
                let text = (*text != "-").then_some(*text);
                KeyColumn::from(kind).constant(text, None, KeyUse::Stored, session()).unwrap()
            })
            .collect();
        let shard = Scheme::Hash { shards: SHARDS }.shard_of(&key).unwrap();
        assert_eq!(shard.to_string(), fields[3], "{row}");
        count += 1;
    }
    assert_eq!(count, VALUES);
}

/// Constants that are read must mean to the server what they mean here; those that are not read are left to it.
#[test]
fn what_is_read_of_odd_spellings_is_what_the_server_reads() {
    let spellings: [(KeyType, &[&str]); 8] = [
        (KeyType::Int8, &["5", " 5", "5\t", "+5", "-0", "005", "1e3", "5.0"]),
        (KeyType::Numeric, &[" 1.50 ", "1e3", "1.5E-3", ".5", "5.", "+0", "nan", "inf", "-Infinity", "00.10"]),
        (KeyType::Text, &["", " a", "a "]),
        (KeyType::BpChar, &["", "a ", " a"]),
        (KeyType::Uuid, &["{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}", "A0EEBC999C0B4EF8BB6D6BB9BD380A11"]),
        (KeyType::Bytea, &["\\x", "\\x00 FF", "a\\\\b\\000\\377", ""]),
        (KeyType::Date, &["0099-03-01 BC", " 2024-02-29 ", "infinity", "10000-01-01"]),
        (
            KeyType::Timestamp,
            &["2024-01-01T10:00:00Z", "2024-01-01 10:00:00.5+02", "2024-01-01", "2024-01-01 10:00", "0044-03-15 12:00:00 BC"],
        ),
    ];
    for (kind, texts) in spellings {
        let send = TYPES.iter().find(|(other, ..)| *other == kind).unwrap().2;
        for text in texts {
            // Numbers may stand without quotes, where they are of another type until they are compared.
            let unquoted = kind == KeyType::Int8 && text.contains(['e', '.']);
            let quoted = if unquoted { (*text).to_owned() } else { format!("'{text}'") };
            let script = format!("SELECT encode({send}({quoted}::{}), 'hex')", kind.name());
            let binary = bytes_of(&psql(&shared_fleet().primary().superuser_url(), &script));
            let column = KeyColumn::from(kind);
            let sent = SentParameter { value: Some(&binary), oid: kind.oid(), binary: true };
            let theirs = column.parameter(sent, KeyUse::Compared, session());
            let ours = column.constant(Some(text), None, KeyUse::Compared, session());
            assert!(ours.is_some() && ours == theirs, "{kind:?} {text:?}: {ours:?}, the server has {theirs:?}");
        }
    }
}
