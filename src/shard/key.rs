//! Values of key columns, and the types that key columns may have.

use crate::types::{Decimal, calendar};
use std::cmp::Ordering;
use std::fmt;

/// A type that a key column may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// `smallint`.
    Int2,
    /// `integer`.
    Int4,
    /// `bigint`.
    Int8,
    /// `text`.
    Text,
    /// `varchar`.
    Varchar,
    /// `char(n)`: spaces at the end do not count.
    BpChar,
    /// `uuid`.
    Uuid,
    /// `numeric`.
    Numeric,
    /// `bytea`.
    Bytea,
    /// `date`.
    Date,
    /// `timestamp without time zone`.
    Timestamp,
    /// `timestamp with time zone`.
    Timestamptz,
}

/// Every type with its oid, its name, the oid of its arrays, and the names that SQL has for it. Spec: `pg_type.dat`.
const TYPES: [(KeyType, u32, u32, &[&str]); 12] = [
    (KeyType::Int2, 21, 1005, &["int2", "smallint"]),
    (KeyType::Int4, 23, 1007, &["int4", "integer", "int"]),
    (KeyType::Int8, 20, 1016, &["int8", "bigint"]),
    (KeyType::Text, 25, 1009, &["text"]),
    (KeyType::Varchar, 1043, 1015, &["varchar", "character varying"]),
    (KeyType::BpChar, 1042, 1014, &["bpchar"]),
    (KeyType::Uuid, 2950, 2951, &["uuid"]),
    (KeyType::Numeric, 1700, 1231, &["numeric", "decimal"]),
    (KeyType::Bytea, 17, 1001, &["bytea"]),
    (KeyType::Date, 1082, 1182, &["date"]),
    (KeyType::Timestamp, 1114, 1115, &["timestamp", "timestamp without time zone"]),
    (KeyType::Timestamptz, 1184, 1185, &["timestamptz", "timestamp with time zone"]),
];

impl KeyType {
    /// The type with this oid; a domain's is that of the type it stands on.
    pub fn from_oid(oid: u32) -> Option<KeyType> {
        TYPES.iter().find(|(_, own, _, _)| *own == oid).map(|(kind, ..)| *kind)
    }

    /// The type of the elements of an array of this oid.
    pub fn from_array_oid(oid: u32) -> Option<KeyType> {
        TYPES.iter().find(|(_, _, array, _)| *array == oid).map(|(kind, ..)| *kind)
    }

    /// The type that SQL calls so, in any letter case, with or without `pg_catalog`; `None` also for names with a length or a precision.
    pub fn from_name(name: &str) -> Option<KeyType> {
        let words: Vec<String> = name.split_ascii_whitespace().map(str::to_ascii_lowercase).collect();
        let name = words.join(" ");
        let name = name.strip_prefix("pg_catalog.").unwrap_or(&name);
        TYPES.iter().find(|(.., names)| names.contains(&name)).map(|(kind, ..)| *kind)
    }

    /// PostgreSQL's short name for it.
    pub fn name(self) -> &'static str {
        TYPES.iter().find(|(kind, ..)| *kind == self).map_or("", |(.., names)| names[0])
    }

    /// Its oid.
    pub fn oid(self) -> u32 {
        TYPES.iter().find(|(kind, ..)| *kind == self).map_or(0, |(_, oid, ..)| *oid)
    }

    /// Every type that a key may have.
    pub fn all() -> impl Iterator<Item = KeyType> {
        TYPES.iter().map(|(kind, ..)| *kind)
    }

    /// Whether equal values of both types are the same [`KeyValue`], so that tables with keys of either can share a group.
    pub fn agrees_with(self, other: KeyType) -> bool {
        let class = |kind| match kind {
            KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => KeyType::Int8,
            KeyType::Varchar => KeyType::Text,
            other => other,
        };
        class(self) == class(other)
    }
}

/// A key column as the catalogue describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyColumn {
    /// Its type. The type's own collation must be deterministic: equal texts have equal bytes.
    pub kind: KeyType,
    /// `atttypmod`: its length or precision; -1 is none.
    pub typmod: i32,
}

impl From<KeyType> for KeyColumn {
    fn from(kind: KeyType) -> KeyColumn {
        KeyColumn { kind, typmod: -1 }
    }
}

/// The value of a key column. Values that PostgreSQL takes for equal are equal here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyValue {
    /// NULL.
    Null,
    /// Of a type of whole numbers; it may be out of its column's range, where no row has it.
    Integer(i64),
    /// A text in the server's encoding; of a `char(n)`, without the spaces at its end.
    Text(Box<[u8]>),
    /// A UUID.
    Uuid([u8; 16]),
    /// A number.
    Numeric(Decimal),
    /// Bytes.
    Bytes(Box<[u8]>),
    /// Days since 2000-01-01; the extremes are the infinities.
    Date(i32),
    /// Microseconds since 2000-01-01, in the zone of a timestamp without one, else in UTC; the extremes are the infinities.
    Timestamp(i64),
}

impl KeyValue {
    /// A text.
    pub fn text(text: &[u8]) -> KeyValue {
        KeyValue::Text(text.into())
    }

    /// Whether it is NULL.
    pub fn is_null(&self) -> bool {
        *self == KeyValue::Null
    }

    /// Whether a column of this type has such values; any may have NULL.
    pub fn belongs_to(&self, kind: KeyType) -> bool {
        match self {
            KeyValue::Null => true,
            KeyValue::Integer(_) => matches!(kind, KeyType::Int2 | KeyType::Int4 | KeyType::Int8),
            KeyValue::Text(_) => matches!(kind, KeyType::Text | KeyType::Varchar | KeyType::BpChar),
            KeyValue::Uuid(_) => kind == KeyType::Uuid,
            KeyValue::Numeric(_) => kind == KeyType::Numeric,
            KeyValue::Bytes(_) => kind == KeyType::Bytea,
            KeyValue::Date(_) => kind == KeyType::Date,
            KeyValue::Timestamp(_) => matches!(kind, KeyType::Timestamp | KeyType::Timestamptz),
        }
    }

    /// Whether a column of this type can hold it; the types of whole numbers differ in their range.
    pub fn in_range_of(&self, kind: KeyType) -> bool {
        match (self, kind) {
            (KeyValue::Integer(value), KeyType::Int2) => i16::try_from(*value).is_ok(),
            (KeyValue::Integer(value), KeyType::Int4) => i32::try_from(*value).is_ok(),
            _ => self.belongs_to(kind),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            KeyValue::Null => 0,
            KeyValue::Integer(_) => 1,
            KeyValue::Text(_) => 2,
            KeyValue::Uuid(_) => 3,
            KeyValue::Numeric(_) => 4,
            KeyValue::Bytes(_) => 5,
            KeyValue::Date(_) => 6,
            KeyValue::Timestamp(_) => 7,
        }
    }
}

/// For people and for comparing settings.
impl fmt::Display for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"));
        match self {
            KeyValue::Null => f.write_str("NULL"),
            KeyValue::Integer(value) => write!(f, "{value}"),
            KeyValue::Text(text) => write!(f, "{:?}", String::from_utf8_lossy(text)),
            KeyValue::Uuid(bytes) => hex(f, bytes),
            KeyValue::Numeric(number) => write!(f, "{number}"),
            KeyValue::Bytes(bytes) => {
                f.write_str("\\x")?;
                hex(f, bytes)
            }
            KeyValue::Date(days) => calendar::write_date(f, *days),
            KeyValue::Timestamp(time) => calendar::write_timestamp(f, *time),
        }
    }
}

/// The order of ranges: by value, texts by their bytes (as `COLLATE "C"`). Values of different types have an order only so that there is one.
impl Ord for KeyValue {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (KeyValue::Integer(one), KeyValue::Integer(two)) | (KeyValue::Timestamp(one), KeyValue::Timestamp(two)) => {
                one.cmp(two)
            }
            (KeyValue::Text(one), KeyValue::Text(two)) | (KeyValue::Bytes(one), KeyValue::Bytes(two)) => one.cmp(two),
            (KeyValue::Uuid(one), KeyValue::Uuid(two)) => one.cmp(two),
            (KeyValue::Numeric(one), KeyValue::Numeric(two)) => one.cmp(two),
            (KeyValue::Date(one), KeyValue::Date(two)) => one.cmp(two),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for KeyValue {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_by_oid_and_name() {
        for kind in KeyType::all() {
            assert_eq!(KeyType::from_oid(kind.oid()), Some(kind));
            assert_eq!(KeyType::from_name(kind.name()), Some(kind));
        }
        let check = |name: &str, expect: Option<KeyType>| assert_eq!(KeyType::from_name(name), expect, "{name}");
        check("INTEGER", Some(KeyType::Int4));
        check("pg_catalog.int8", Some(KeyType::Int8));
        check("Timestamp  With\nTime Zone", Some(KeyType::Timestamptz));
        check("character varying", Some(KeyType::Varchar));
        check("char", None);
        check("character", None);
        check("varchar(3)", None);
        check("public.int8", None);
        check("float8", None);
        assert_eq!(KeyType::from_oid(701), None);
        assert_eq!(KeyType::from_array_oid(1016), Some(KeyType::Int8));
    }

    #[test]
    fn values_in_words() {
        let check = |value: KeyValue, expect: &str| assert_eq!(value.to_string(), expect);
        check(KeyValue::Numeric(Decimal::from_text("-120.0500").unwrap()), "-120.05");
        check(KeyValue::Numeric(Decimal::from_text("0.00001").unwrap()), "0.00001");
        check(KeyValue::Numeric(Decimal::from_text("1e9").unwrap()), "1000000000");
        check(KeyValue::Numeric(Decimal::NaN), "NaN");
        check(KeyValue::Bytes([0, 255].into()), "\\x00ff");
        check(KeyValue::Date(59), "2000-02-29");
        check(KeyValue::Date(-730_120), "0001-12-31 BC");
        check(KeyValue::Date(i32::MAX), "infinity");
        check(KeyValue::Timestamp(-1), "1999-12-31 23:59:59.999999");
        check(KeyValue::Timestamp(3_600_000_000), "2000-01-01 01:00:00");
        check(KeyValue::Timestamp(i64::MIN), "-infinity");
        check(KeyValue::text(b"a\"b"), "\"a\\\"b\"");
    }

    #[test]
    fn types_that_share_a_group() {
        assert!(KeyType::Int2.agrees_with(KeyType::Int8));
        assert!(KeyType::Text.agrees_with(KeyType::Varchar));
        assert!(!KeyType::Text.agrees_with(KeyType::BpChar));
        assert!(!KeyType::Int8.agrees_with(KeyType::Numeric));
        assert!(!KeyType::Timestamp.agrees_with(KeyType::Timestamptz));
    }
}
