use super::*;
use proptest::prelude::*;

const UTC: KeySession = KeySession { utc: true, texts: KeyTexts::AsSent };
const PARIS: KeySession = KeySession { utc: false, texts: KeyTexts::AsSent };

fn integer(value: i64) -> Option<KeyValue> {
    Some(KeyValue::Integer(value))
}

fn text(value: &str) -> Option<KeyValue> {
    Some(KeyValue::text(value.as_bytes()))
}

fn numeric(value: &str) -> Option<KeyValue> {
    Decimal::from_text(value).map(KeyValue::Numeric)
}

fn constant(kind: KeyType, value: &str, cast: Option<&str>) -> Option<KeyValue> {
    KeyColumn::from(kind).constant(Some(value), cast, KeyUse::Compared, PARIS)
}

#[test]
fn constants() {
    let check = |kind: KeyType, value: &str, cast: &str, expect: Option<KeyValue>| {
        let cast = (!cast.is_empty()).then_some(cast);
        assert_eq!(constant(kind, value, cast), expect, "{value} as {cast:?} for {kind:?}");
    };
    check(KeyType::Int8, "5", "", integer(5));
    check(KeyType::Int8, " -5\n", "", integer(-5));
    check(KeyType::Int8, "5.0", "", integer(5));
    check(KeyType::Int8, "1e3", "", integer(1000));
    check(KeyType::Int8, "5.5", "", None);
    check(KeyType::Int8, "0x10", "", None);
    check(KeyType::Int8, "9223372036854775808", "", None);
    check(KeyType::Int8, "7", "pg_catalog.int4", integer(7));
    check(KeyType::Int8, "7", "NUMERIC", integer(7));
    check(KeyType::Int8, "7", "float8", None);
    check(KeyType::Int8, "7", "text", None);
    check(KeyType::Int4, "5000000000", "", integer(5_000_000_000));
    check(KeyType::Numeric, "1.50", "", numeric("1.5"));
    check(KeyType::Numeric, "7", "int4", numeric("7"));
    check(KeyType::Text, "abc ", "", text("abc "));
    check(KeyType::Text, "abc ", "varchar", text("abc "));
    check(KeyType::Text, "abc ", "bpchar", text("abc"));
    check(KeyType::Text, "abc", "varchar(2)", None);
    check(KeyType::BpChar, "abc  ", "", text("abc"));
    check(KeyType::BpChar, "  ", "", text(""));
    check(KeyType::Date, "2000-01-02", "", Some(KeyValue::Date(1)));
    check(KeyType::Date, "01/02/2000", "", None);
    check(KeyType::Date, "2000-01-02 00:00:00", "timestamp", None);
    check(KeyType::Timestamp, "2000-01-02", "date", Some(KeyValue::Timestamp(DAY)));
    check(KeyType::Timestamp, "infinity", "date", Some(KeyValue::Timestamp(i64::MAX)));
    check(KeyType::Timestamp, "2000-01-01 00:00:01+05", "", Some(KeyValue::Timestamp(1_000_000)));
    check(KeyType::Timestamptz, "2000-01-01 01:00:00+01", "", Some(KeyValue::Timestamp(0)));
    check(KeyType::Timestamptz, "2000-01-01 01:00:00", "", None);
    check(KeyType::Timestamptz, "2000-01-01 01:00:00+01", "timestamp", None);
    check(KeyType::Timestamp, "2000-01-01 01:00:00+01", "timestamptz", None);
    check(KeyType::Bytea, "\\x00fF", "", Some(KeyValue::Bytes([0, 255].into())));
    check(KeyType::Bytea, "a\\\\b\\001", "", Some(KeyValue::Bytes(b"a\\b\x01".as_slice().into())));
    check(KeyType::Bytea, "\\x0", "", None);
    check(KeyType::Bytea, "\\9", "", None);
    let uuid = Some(KeyValue::Uuid(*b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef"));
    check(KeyType::Uuid, "01234567-89ab-cdef-0123-456789ABCDEF", "", uuid.clone());
    check(KeyType::Uuid, "{0123456789abcdef-0123456789abcdef}", "", uuid);
    check(KeyType::Uuid, "01234567-89ab-cdef-0123-456789ABCDE", "", None);
    check(KeyType::Uuid, "012-34567-89ab-cdef-0123-456789ABCDEF", "", None);
    assert_eq!(KeyColumn::from(KeyType::Int4).constant(None, Some("float8"), KeyUse::Stored, PARIS), Some(KeyValue::Null));
}

#[test]
fn the_time_zone_matters_where_a_text_has_none() {
    let column = KeyColumn::from(KeyType::Timestamptz);
    let read = |value: &str, cast: Option<&str>| column.constant(Some(value), cast, KeyUse::Compared, UTC);
    assert_eq!(read("2000-01-01", None), Some(KeyValue::Timestamp(0)));
    assert_eq!(read("2000-01-01", Some("date")), Some(KeyValue::Timestamp(0)));
    assert_eq!(read("2000-01-01 01:00:00", Some("timestamp")), Some(KeyValue::Timestamp(3_600_000_000)));
    assert!(KeySession::new("etc/utc", "UTF8", "UTF8").utc);
    assert!(!KeySession::new("Europe/London", "UTF8", "UTF8").utc);
}

#[test]
fn texts_are_known_in_the_servers_encoding_only() {
    let check = |client: &str, server: &str, value: &str, expect: Option<KeyValue>| {
        let session = KeySession::new("UTC", client, server);
        assert_eq!(KeyColumn::from(KeyType::Text).constant(Some(value), None, KeyUse::Compared, session), expect, "{client}");
    };
    check("UTF8", "UTF8", "é", text("é"));
    check("LATIN1", "UTF8", "é", None);
    check("LATIN1", "UTF8", "e", text("e"));
    check("SQL_ASCII", "UTF8", "é", text("é"));
}

#[test]
fn what_is_stored_may_be_rounded_or_cut() {
    let check = |kind: KeyType, typmod: i32, value: &str, known: bool| {
        let column = KeyColumn { kind, typmod };
        let stored = column.constant(Some(value), None, KeyUse::Stored, UTC);
        assert_eq!(stored.is_some(), known, "{value} in {column:?}");
        assert!(column.constant(Some(value), None, KeyUse::Compared, UTC).is_some());
    };
    let numeric_10_2 = (10 << 16 | 2) + 4;
    check(KeyType::Numeric, numeric_10_2, "1.25", true);
    check(KeyType::Numeric, numeric_10_2, "1.250", true);
    check(KeyType::Numeric, numeric_10_2, "1.255", false);
    check(KeyType::Numeric, numeric_10_2, "NaN", true);
    check(KeyType::Numeric, (10 << 16 | (-2 & 0x7ff)) + 4, "100", false);
    check(KeyType::Varchar, 3 + 4, "abc", true);
    check(KeyType::Varchar, 3 + 4, "ab ", true);
    check(KeyType::Varchar, 3 + 4, "abc ", false);
    check(KeyType::BpChar, 3 + 4, "abc  ", true);
    check(KeyType::Timestamp, 0, "2000-01-01 00:00:01", true);
    check(KeyType::Timestamp, 0, "2000-01-01 00:00:01.5", false);
    check(KeyType::Timestamptz, 3, "2000-01-01 00:00:01.123", true);
    check(KeyType::Timestamptz, 3, "2000-01-01 00:00:01.1234", false);
    check(KeyType::Timestamp, 0, "infinity", true);
}

fn sent(value: &[u8], oid: u32, binary: bool) -> SentParameter<'_> {
    SentParameter { value: Some(value), oid, binary }
}

#[test]
fn parameters() {
    let check = |kind: KeyType, parameter: SentParameter, expect: Option<KeyValue>| {
        assert_eq!(KeyColumn::from(kind).parameter(parameter, KeyUse::Compared, PARIS), expect, "{parameter:?} for {kind:?}");
    };
    check(KeyType::Int8, sent(&[0, 0, 0, 5], 23, true), integer(5));
    check(KeyType::Int8, sent(&[0xff, 0xfe], 21, true), integer(-2));
    check(KeyType::Int2, sent(&[0, 0, 0, 0, 0, 0, 0, 5], 20, true), integer(5));
    check(KeyType::Int8, sent(&[0, 0, 5], 23, true), None);
    check(KeyType::Int8, sent(&[0, 0, 0, 5], 0, true), None);
    check(KeyType::Int8, sent(b"5", 0, false), integer(5));
    check(KeyType::Int8, sent(b"5", 705, false), integer(5));
    check(KeyType::Int8, sent(b"5", 701, false), None);
    check(KeyType::Int8, sent(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 5], 1700, true), integer(5));
    check(KeyType::Numeric, sent(&[0, 0, 0, 5], 23, true), numeric("5"));
    check(KeyType::Text, sent(b"ab ", 1043, true), text("ab "));
    check(KeyType::Timestamp, sent(&[0, 0, 0, 1], 1082, true), Some(KeyValue::Timestamp(DAY)));
    check(KeyType::Timestamp, sent(&[0; 8], 1184, true), None);
    check(KeyType::Int8, SentParameter { value: None, oid: 0, binary: true }, Some(KeyValue::Null));
}

#[test]
fn arrays() {
    let check = |kind: KeyType, parameter: SentParameter, expect: Option<Vec<KeyValue>>| {
        assert_eq!(KeyColumn::from(kind).elements(parameter, PARIS), expect, "{parameter:?} for {kind:?}");
    };
    let texts = |list: &[&str]| Some(list.iter().map(|text| KeyValue::text(text.as_bytes())).collect::<Vec<_>>());
    check(
        KeyType::Int8,
        sent(b"{1, 2,NULL}", 1007, false),
        Some(vec![KeyValue::Integer(1), KeyValue::Integer(2), KeyValue::Null]),
    );
    check(KeyType::Int8, sent(b"{}", 0, false), Some(vec![]));
    check(KeyType::Int8, sent(b" { } ", 0, false), Some(vec![]));
    check(KeyType::Int8, sent(b"{1,x}", 0, false), None);
    check(KeyType::Int8, sent(b"{1,}", 0, false), None);
    check(KeyType::Int8, sent(b"{{1}}", 0, false), None);
    check(KeyType::Int8, sent(b"[2:3]={1,2}", 0, false), None);
    check(KeyType::Int8, sent(b"{1}", 1022, false), None);
    check(KeyType::Text, sent(br#"{a b , "c,\"d\\", "", "null"}"#, 1009, false), texts(&["a b", "c,\"d\\", "", "null"]));
    check(KeyType::Text, sent(br#"{a"b"}"#, 1009, false), None);
    check(KeyType::Text, sent(br#"{"a"b}"#, 1009, false), None);
    check(KeyType::Text, sent(br#"{"a}"#, 1009, false), None);
    let binary =
        [&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 23, 0, 0, 0, 2, 0, 0, 0, 1][..], &[0, 0, 0, 4, 0, 0, 0, 7, 255, 255, 255, 255]]
            .concat();
    check(KeyType::Int8, sent(&binary, 1007, true), Some(vec![KeyValue::Integer(7), KeyValue::Null]));
    check(KeyType::Int8, sent(&binary[..binary.len() - 1], 1007, true), None);
    check(KeyType::Int8, sent(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 23], 1007, true), Some(vec![]));
    check(KeyType::Int8, SentParameter { value: None, oid: 0, binary: false }, Some(vec![]));
}

proptest! {
    #[test]
    fn no_bytes_cause_a_panic(bytes: Vec<u8>, kind in 0usize..12, binary: bool, typmod in -1i32..2000) {
        let column = KeyColumn { kind: KeyType::all().nth(kind).unwrap(), typmod };
        for oid in KeyType::all().map(KeyType::oid).chain([0, 1007, 1009]) {
            let parameter = SentParameter { value: Some(&bytes), oid, binary };
            let _ = (column.parameter(parameter, KeyUse::Stored, UTC), column.elements(parameter, UTC));
        }
    }
}
