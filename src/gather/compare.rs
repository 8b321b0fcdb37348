//! The order of values, exactly as PostgreSQL's `ORDER BY` has it, for the types where that is possible without a server.

use super::row::GatherError;
use crate::types::calendar;
use crate::types::decimal::Decimal;
use std::cmp::Ordering;

/// A type whose order is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortType {
    /// `boolean`.
    Bool,
    /// `smallint`.
    Int2,
    /// `integer`.
    Int4,
    /// `bigint`.
    Int8,
    /// `oid`.
    Oid,
    /// `real`.
    Float4,
    /// `double precision`.
    Float8,
    /// `numeric`.
    Numeric,
    /// `date`.
    Date,
    /// `timestamp without time zone`.
    Timestamp,
    /// `timestamp with time zone`.
    Timestamptz,
    /// `time without time zone`.
    Time,
    /// `time with time zone`.
    TimeTz,
    /// `interval`, in the binary format only: its texts depend on too many settings.
    Interval,
    /// `uuid`.
    Uuid,
    /// `bytea`.
    Bytea,
    /// `"char"`, one byte.
    Byte,
    /// `text`, `varchar` and `name` by their bytes.
    Text,
    /// `char(n)` by its bytes, without the spaces at its end.
    BpChar,
}

/// What of a session and its database decides whether values can be compared as they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortSession {
    /// `DateStyle` begins with ISO.
    pub iso_dates: bool,
    /// `bytea_output` is `hex`.
    pub hex_bytea: bool,
    /// `extra_float_digits` is at least 1, so that texts of floats are exact.
    pub exact_floats: bool,
    /// Texts come in the encoding in which the servers have them.
    pub stored_encoding: bool,
}

/// A value as it is compared. Values of one type only are comparable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SortValue {
    /// Whole numbers, dates, times; floats by their bits in order.
    Number(i64),
    /// Floats by their bits in order.
    Bits(u64),
    /// Two numbers, the first one first.
    Pair(i64, i64),
    /// A number of more than 64 bits.
    Wide(i128),
    /// `numeric`.
    Decimal(Decimal),
    /// Texts and bytes.
    Bytes(Box<[u8]>),
}

impl SortType {
    /// The type with this oid, if values in this format can be compared: in the binary format (`binary`) or as text. `bytewise` says that the
    /// value's collation, if it has one, orders by bytes (`C`, `POSIX`, and `C.UTF-8` in a database in UTF-8).
    pub fn of(oid: u32, binary: bool, bytewise: bool, session: SortSession) -> Option<SortType> {
        let (kind, possible) = match oid {
            16 => (SortType::Bool, true),
            17 => (SortType::Bytea, binary || session.hex_bytea),
            18 => (SortType::Byte, true),
            19 | 25 | 1043 => (SortType::Text, bytewise && session.stored_encoding),
            1042 => (SortType::BpChar, bytewise && session.stored_encoding),
            20 => (SortType::Int8, true),
            21 => (SortType::Int2, true),
            23 => (SortType::Int4, true),
            26 => (SortType::Oid, true),
            700 => (SortType::Float4, binary || session.exact_floats),
            701 => (SortType::Float8, binary || session.exact_floats),
            1082 => (SortType::Date, binary || session.iso_dates),
            1083 => (SortType::Time, true),
            1114 => (SortType::Timestamp, binary || session.iso_dates),
            1184 => (SortType::Timestamptz, binary || session.iso_dates),
            1186 => (SortType::Interval, binary),
            1266 => (SortType::TimeTz, true),
            1700 => (SortType::Numeric, true),
            2950 => (SortType::Uuid, true),
            _ => return None,
        };
        possible.then_some(kind)
    }

    /// A value that is not NULL.
    ///
    /// # Errors
    /// It is not of this type and format.
    pub fn read(self, value: &[u8], binary: bool) -> Result<SortValue, GatherError> {
        let read = if binary { self.read_binary(value) } else { self.read_text(value) };
        read.ok_or(GatherError::UnreadableValue(self.name()))
    }

    fn read_binary(self, value: &[u8]) -> Option<SortValue> {
        let long = || value.try_into().ok().map(i64::from_be_bytes);
        Some(match self {
            SortType::Bool => SortValue::Number(i64::from(u8::from_be_bytes(value.try_into().ok()?))),
            SortType::Byte => SortValue::Number(i64::from(u8::from_be_bytes(value.try_into().ok()?))),
            SortType::Int2 => SortValue::Number(i64::from(i16::from_be_bytes(value.try_into().ok()?))),
            SortType::Int4 | SortType::Date => SortValue::Number(i64::from(i32::from_be_bytes(value.try_into().ok()?))),
            SortType::Oid => SortValue::Number(i64::from(u32::from_be_bytes(value.try_into().ok()?))),
            SortType::Int8 | SortType::Timestamp | SortType::Timestamptz | SortType::Time => SortValue::Number(long()?),
            SortType::Float4 => float_bits(f32::from_be_bytes(value.try_into().ok()?).into()),
            SortType::Float8 => float_bits(f64::from_be_bytes(value.try_into().ok()?)),
            SortType::Numeric => SortValue::Decimal(Decimal::from_binary(value)?),
            SortType::TimeTz => {
                let (time, west) = value.split_first_chunk::<8>()?;
                time_with_zone(i64::from_be_bytes(*time), i32::from_be_bytes(west.try_into().ok()?))
            }
            SortType::Interval => {
                let (time, rest) = value.split_first_chunk::<8>()?;
                let (days, months) = rest.split_first_chunk::<4>()?;
                let days = i128::from(i32::from_be_bytes(*days)) + 30 * i128::from(i32::from_be_bytes(months.try_into().ok()?));
                // Spec: `interval_cmp_value`; a month has 30 days and a day 24 hours there.
                SortValue::Wide(i128::from(i64::from_be_bytes(*time)) + days * i128::from(calendar::DAY))
            }
            SortType::Uuid => SortValue::Bytes(value.try_into().ok().map(|uuid: [u8; 16]| uuid.into())?),
            SortType::Bytea | SortType::Text => SortValue::Bytes(value.into()),
            SortType::BpChar => SortValue::Bytes(without_padding(value).into()),
        })
    }

    fn read_text(self, value: &[u8]) -> Option<SortValue> {
        match self {
            SortType::Text => return Some(SortValue::Bytes(value.into())),
            SortType::BpChar => return Some(SortValue::Bytes(without_padding(value).into())),
            SortType::Byte => return read_byte(value).map(|byte| SortValue::Number(byte.into())),
            _ => {}
        }
        let text = std::str::from_utf8(value).ok()?;
        Some(match self {
            SortType::Bool => SortValue::Number(match text {
                "t" => 1,
                "f" => 0,
                _ => return None,
            }),
            SortType::Int2 | SortType::Int4 | SortType::Int8 => SortValue::Number(text.parse().ok()?),
            SortType::Oid => SortValue::Number(text.parse::<u32>().ok()?.into()),
            SortType::Float4 => float_bits(text.parse::<f32>().ok()?.into()),
            SortType::Float8 => float_bits(text.parse().ok()?),
            SortType::Numeric => SortValue::Decimal(Decimal::from_text(text)?),
            SortType::Date => SortValue::Number(calendar::read_date(text)?.into()),
            SortType::Timestamp => SortValue::Number(calendar::read_timestamp(text)?.local),
            SortType::Timestamptz => SortValue::Number(calendar::read_timestamp(text)?.instant()?),
            SortType::Time => SortValue::Number(calendar::read_time_of_day(text)?),
            SortType::TimeTz => {
                let (time, east) = calendar::read_zoned_time(text)?;
                time_with_zone(time, -east)
            }
            // Digits in lower case are in the order of what they stand for, and the texts of UUIDs are all of one shape.
            SortType::Uuid => SortValue::Bytes(value.into()),
            SortType::Bytea => SortValue::Bytes(value.strip_prefix(b"\\x")?.into()),
            SortType::Interval | SortType::Text | SortType::BpChar | SortType::Byte => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            SortType::Bool => "boolean",
            SortType::Int2 => "smallint",
            SortType::Int4 => "integer",
            SortType::Int8 => "bigint",
            SortType::Oid => "oid",
            SortType::Float4 => "real",
            SortType::Float8 => "double precision",
            SortType::Numeric => "numeric",
            SortType::Date => "date",
            SortType::Timestamp => "timestamp without time zone",
            SortType::Timestamptz => "timestamp with time zone",
            SortType::Time => "time without time zone",
            SortType::TimeTz => "time with time zone",
            SortType::Interval => "interval",
            SortType::Uuid => "uuid",
            SortType::Bytea => "bytea",
            SortType::Byte => "\"char\"",
            SortType::Text => "text",
            SortType::BpChar => "character",
        }
    }
}

/// The order of two values of which either may be NULL, as `ORDER BY ... [DESC] [NULLS FIRST]` has it.
pub fn compare_sorted(one: Option<&SortValue>, two: Option<&SortValue>, descending: bool, nulls_first: bool) -> Ordering {
    let null_side = if nulls_first { Ordering::Less } else { Ordering::Greater };
    match (one, two) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => null_side,
        (Some(_), None) => null_side.reverse(),
        (Some(one), Some(two)) if descending => two.cmp(one),
        (Some(one), Some(two)) => one.cmp(two),
    }
}

/// Bits in the order of floats: -0 equals 0, and all NaN are equal and above infinity.
fn float_bits(value: f64) -> SortValue {
    SortValue::Bits(match value {
        _ if value.is_nan() => u64::MAX,
        _ if value == 0.0 => 1 << 63,
        _ if value.is_sign_negative() => !value.to_bits(),
        _ => value.to_bits() | 1 << 63,
    })
}

/// By the point in time first, then by the zone. Spec: `timetz_cmp_internal`.
fn time_with_zone(time: i64, seconds_west: i32) -> SortValue {
    SortValue::Pair(time.wrapping_add(i64::from(seconds_west) * 1_000_000), seconds_west.into())
}

/// `"char"` as text: nothing is the byte 0; newer servers print bytes beyond ASCII in octal, older ones as they are.
fn read_byte(value: &[u8]) -> Option<u8> {
    match value {
        [] => Some(0),
        [byte] => Some(*byte),
        [b'\\', digits @ ..] if digits.len() == 3 => {
            let value = digits.iter().try_fold(0u32, |sum, digit| char::from(*digit).to_digit(8).map(|digit| sum * 8 + digit))?;
            u8::try_from(value).ok()
        }
        _ => None,
    }
}

fn without_padding(text: &[u8]) -> &[u8] {
    let length = text.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
    &text[..length]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SESSION: SortSession = SortSession { iso_dates: true, hex_bytea: true, exact_floats: true, stored_encoding: true };

    /// Texts in ascending order; equal ones in one group.
    fn check(kind: SortType, groups: &[&[&str]]) {
        let read = |text: &str| kind.read(text.as_bytes(), false).unwrap_or_else(|error| panic!("{text}: {error}"));
        for (place, group) in groups.iter().enumerate() {
            for text in *group {
                for (other_place, other_group) in groups.iter().enumerate() {
                    for other in *other_group {
                        assert_eq!(read(text).cmp(&read(other)), place.cmp(&other_place), "{kind:?} {text} {other}");
                    }
                }
            }
        }
    }

    #[test]
    fn texts_in_order() {
        check(SortType::Bool, &[&["f"], &["t"]]);
        check(SortType::Int8, &[&["-9223372036854775808"], &["-10"], &["-9"], &["0"], &["9"], &["10"]]);
        check(SortType::Oid, &[&["0"], &["4294967295"]]);
        check(
            SortType::Float8,
            &[&["-Infinity"], &["-1e+300"], &["-5e-324"], &["0", "-0"], &["5e-324"], &["1"], &["1.5"], &["Infinity"], &["NaN"]],
        );
        check(SortType::Float4, &[&["-1e+20"], &["-0", "0"], &["1e-45"], &["0.1"], &["3.4028235e+38"], &["NaN"]]);
        check(
            SortType::Numeric,
            &[&["-Infinity"], &["-10.5"], &["0", "0.00"], &["1.5", "1.500"], &["1e3", "1000"], &["Infinity"], &["NaN"]],
        );
        check(SortType::Date, &[&["-infinity"], &["0044-03-15 BC"], &["0001-01-01"], &["10000-01-01"], &["infinity"]]);
        check(
            SortType::Timestamptz,
            &[&["2000-01-01 00:00:00+02"], &["2000-01-01 00:00:00+01", "1999-12-31 23:00:00+00"], &["infinity"]],
        );
        check(SortType::Time, &[&["00:00:00"], &["00:00:00.000001"], &["23:59:59.999999"], &["24:00:00"]]);
        check(SortType::TimeTz, &[&["10:00:00+03"], &["10:00:00+02"], &["09:00:00+01"], &["24:00:00-15"]]);
        check(SortType::Byte, &[&["", "\\000"], &["a"], &["b"], &["\\200"], &["\\377"]]);
        check(SortType::Bytea, &[&["\\x"], &["\\x00"], &["\\x0000"], &["\\x09"], &["\\x0a"], &["\\xff"]]);
        check(SortType::Text, &[&[""], &["A"], &["B"], &["a"], &["a "], &["é"]]);
        check(SortType::BpChar, &[&["", "  "], &["A"], &["a", "a   "], &["a\t"]]);
    }

    #[test]
    fn intervals_and_zones_in_binary() {
        let interval = |time: i64, days: i32, months: i32| {
            let bytes = [&time.to_be_bytes()[..], &days.to_be_bytes(), &months.to_be_bytes()].concat();
            SortType::Interval.read(&bytes, true).unwrap()
        };
        assert_eq!(interval(0, 30, 0), interval(0, 0, 1));
        assert_eq!(interval(calendar::DAY, 0, 0), interval(0, 1, 0));
        assert!(interval(i64::MAX, i32::MAX, i32::MAX) > interval(i64::MAX, i32::MAX, i32::MAX - 1));
        let bytes = [&36_000_000_000_i64.to_be_bytes()[..], &(-7200_i32).to_be_bytes()].concat();
        assert_eq!(SortType::TimeTz.read(&bytes, true), SortType::TimeTz.read(b"10:00:00+02", false));
    }

    #[test]
    fn what_cannot_be_compared() {
        let off = SortSession { iso_dates: false, hex_bytea: false, exact_floats: false, stored_encoding: false };
        let check = |oid: u32, binary: bool, bytewise: bool, session: SortSession, expect: Option<SortType>| {
            assert_eq!(SortType::of(oid, binary, bytewise, session), expect, "{oid} {binary} {bytewise} {session:?}");
        };
        check(25, false, true, SESSION, Some(SortType::Text));
        check(25, false, false, SESSION, None);
        check(25, true, true, off, None);
        check(1082, false, false, off, None);
        check(1082, true, false, off, Some(SortType::Date));
        check(701, false, false, off, None);
        check(17, false, false, off, None);
        check(1186, false, false, SESSION, None);
        check(1186, true, false, SESSION, Some(SortType::Interval));
        check(3802, true, true, SESSION, None);
        for (kind, bad) in
            [(SortType::Int4, "x"), (SortType::Bool, "true"), (SortType::Date, "01/02/2000"), (SortType::Byte, "ab")]
        {
            assert_eq!(kind.read(bad.as_bytes(), false), Err(GatherError::UnreadableValue(kind.name())));
        }
    }

    #[test]
    fn nulls_and_descending() {
        let (one, two) = (SortValue::Number(1), SortValue::Number(2));
        assert_eq!(compare_sorted(Some(&one), Some(&two), false, false), Ordering::Less);
        assert_eq!(compare_sorted(Some(&one), Some(&two), true, false), Ordering::Greater);
        assert_eq!(compare_sorted(None, Some(&two), true, false), Ordering::Greater);
        assert_eq!(compare_sorted(None, Some(&two), false, true), Ordering::Less);
        assert_eq!(compare_sorted(Some(&one), None, true, true), Ordering::Greater);
        assert_eq!(compare_sorted(None, None, true, true), Ordering::Equal);
    }

    proptest! {
        #[test]
        fn floats_are_in_the_order_of_numbers(one: f64, two: f64) {
            let expect = one.partial_cmp(&two).unwrap_or_else(|| one.is_nan().cmp(&two.is_nan()));
            prop_assert_eq!(float_bits(one).cmp(&float_bits(two)), expect);
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>, binary: bool) {
            for oid in [16, 17, 18, 19, 20, 21, 23, 25, 26, 700, 701, 1042, 1043, 1082, 1083, 1114, 1184, 1186, 1266, 1700, 2950] {
                if let Some(kind) = SortType::of(oid, binary, true, SESSION) {
                    let _ = kind.read(&bytes, binary);
                }
            }
        }
    }
}
