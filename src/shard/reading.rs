//! What a constant or a parameter means as the value of a key column: exactly what a server would make of it, or nothing.
//!
//! Nothing is not an error: the statement concerns every shard then, and the servers say what is wrong with it, if anything is.

mod arrays;
mod texts;

use super::key::{KeyColumn, KeyType, KeyValue};
use crate::types::calendar::{self, DAY};
use crate::types::decimal::{Decimal, Number};
use std::borrow::Cow;

/// What a statement does with a value: the same text can lead to different keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// A key column is equal to it. Nothing is rounded or cut.
    Compared,
    /// A key column is set to it, which may round it or cut it to the column's length.
    Stored,
}

/// Which texts are known in the server's encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyTexts {
    /// All: servers take them as they are sent.
    AsSent,
    /// Servers convert them; what is ASCII stays as it is.
    Ascii,
}

/// What of a session decides how values are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySession {
    /// `TimeZone` is one whose time is UTC at every date.
    pub utc: bool,
    /// What is known of texts.
    pub texts: KeyTexts,
}

impl KeySession {
    /// From the session's `TimeZone` and `client_encoding`, and the encoding of the shards' databases, as servers report them.
    pub fn new(time_zone: &str, client_encoding: &str, server_encoding: &str) -> KeySession {
        let same = |name: &str, other: &str| name.eq_ignore_ascii_case(other);
        let utc = ["UTC", "Etc/UTC", "Etc/UCT", "UCT", "Zulu", "Etc/Zulu", "Universal", "Etc/Universal"];
        let utc = utc.iter().any(|name| same(name, time_zone));
        let converted =
            !same(client_encoding, server_encoding) && !same(client_encoding, "SQL_ASCII") && !same(server_encoding, "SQL_ASCII");
        KeySession { utc, texts: if converted { KeyTexts::Ascii } else { KeyTexts::AsSent } }
    }
}

/// A parameter of a Bind message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentParameter<'a> {
    /// Its bytes; `None` is NULL.
    pub value: Option<&'a [u8]>,
    /// Its type as Parse or the server's ParameterDescription says; 0 when neither did, and then binary values are not read.
    pub oid: u32,
    /// Whether it is in the binary format.
    pub binary: bool,
}

/// Parse's types that leave it to the server: none, and `unknown`.
const UNKNOWN: [u32; 2] = [0, 705];

impl KeyColumn {
    /// A constant as it stands in a text without its quotes and escapes, and the type that it was cast to.
    pub fn constant(self, text: Option<&str>, cast: Option<&str>, usage: KeyUse, session: KeySession) -> Option<KeyValue> {
        let Some(text) = text else { return Some(KeyValue::Null) };
        let kind = cast.map_or(Some(self.kind), KeyType::from_name)?;
        self.adapt(read_text(kind, text.as_bytes(), session)?, kind, usage, session)
    }

    /// A parameter.
    pub fn parameter(self, parameter: SentParameter, usage: KeyUse, session: KeySession) -> Option<KeyValue> {
        let Some(value) = parameter.value else { return Some(KeyValue::Null) };
        let known = (!UNKNOWN.contains(&parameter.oid)).then_some(parameter.oid);
        let kind = match known {
            None if parameter.binary => return None,
            None => self.kind,
            Some(oid) => KeyType::from_oid(oid)?,
        };
        let value = if parameter.binary { read_binary(kind, value, session) } else { read_text(kind, value, session) };
        self.adapt(value?, kind, usage, session)
    }

    /// The elements of a parameter that is an array, each to be compared with the column; none for NULL, which nothing equals.
    pub fn elements(self, parameter: SentParameter, session: KeySession) -> Option<Vec<KeyValue>> {
        let Some(value) = parameter.value else { return Some(Vec::new()) };
        let known = (!UNKNOWN.contains(&parameter.oid)).then_some(parameter.oid);
        let kind = match known {
            None if parameter.binary => return None,
            None => self.kind,
            Some(oid) => KeyType::from_array_oid(oid)?,
        };
        let read = |element: Option<Cow<[u8]>>| {
            let Some(bytes) = element else { return Some(KeyValue::Null) };
            let value = if parameter.binary { read_binary(kind, &bytes, session) } else { read_text(kind, &bytes, session) };
            self.adapt(value?, kind, KeyUse::Compared, session)
        };
        let elements = if parameter.binary { arrays::split_binary(value)? } else { arrays::split_text(value)? };
        elements.into_iter().map(read).collect()
    }

    /// A value in the text format that is of the column's own type, as COPY has it.
    pub fn copied_text(self, value: Option<&[u8]>, session: KeySession) -> Option<KeyValue> {
        self.parameter(SentParameter { value, oid: 0, binary: false }, KeyUse::Stored, session)
    }

    /// A value in the binary format that is of the column's own type, as COPY has it.
    pub fn copied_binary(self, value: Option<&[u8]>, session: KeySession) -> Option<KeyValue> {
        self.parameter(SentParameter { value, oid: self.kind.oid(), binary: true }, KeyUse::Stored, session)
    }

    /// A value of one type as the column's.
    fn adapt(self, value: KeyValue, from: KeyType, usage: KeyUse, session: KeySession) -> Option<KeyValue> {
        let same_clock = from == self.kind || session.utc;
        let value = match (self.kind, value) {
            (KeyType::Int2 | KeyType::Int4 | KeyType::Int8, KeyValue::Numeric(Decimal::Finite(number))) => {
                KeyValue::Integer(number.to_i64()?)
            }
            (KeyType::Numeric, KeyValue::Integer(value)) => KeyValue::Numeric(Decimal::from_i64(value)),
            (KeyType::BpChar, KeyValue::Text(text)) => KeyValue::text(texts::without_padding(&text)),
            (KeyType::Timestamp, KeyValue::Date(days)) => midnight(days)?,
            (KeyType::Timestamptz, KeyValue::Date(days)) if session.utc => midnight(days)?,
            (KeyType::Timestamp | KeyType::Timestamptz, KeyValue::Timestamp(time)) if same_clock => KeyValue::Timestamp(time),
            (KeyType::Timestamp | KeyType::Timestamptz, _) => return None,
            (kind, value) if value.belongs_to(kind) => value,
            _ => return None,
        };
        (usage == KeyUse::Compared || self.keeps(&value)).then_some(value)
    }

    /// Whether the column's length or precision leaves the value as it is.
    fn keeps(self, value: &KeyValue) -> bool {
        // Spec: the header's length of four is part of a typmod, but for times.
        let length = usize::try_from(self.typmod - 4);
        match (value, self.kind) {
            _ if self.typmod < 0 => true,
            (KeyValue::Text(text), KeyType::Varchar) => {
                length.is_ok_and(|length| text.len() <= length) || text.last() != Some(&b' ')
            }
            (KeyValue::Numeric(Decimal::Finite(number)), _) => fits_scale(number, self.typmod),
            (KeyValue::Timestamp(time), _) if *time != i64::MAX && *time != i64::MIN => {
                time % 10_i64.pow(u32::try_from(6 - self.typmod.min(6)).unwrap_or(0)) == 0
            }
            _ => true,
        }
    }
}

/// Spec: `numeric_typmod_scale`, eleven bits with a sign.
fn fits_scale(number: &Number, typmod: i32) -> bool {
    let scale = (((typmod - 4) & 0x7ff) ^ 1024) - 1024;
    usize::try_from(scale).is_ok_and(|scale| number.fraction_digits() <= scale)
}

fn midnight(days: i32) -> Option<KeyValue> {
    Some(KeyValue::Timestamp(match days {
        i32::MAX => i64::MAX,
        i32::MIN => i64::MIN,
        days => i64::from(days).checked_mul(DAY)?,
    }))
}

fn read_text(kind: KeyType, bytes: &[u8], session: KeySession) -> Option<KeyValue> {
    if session.texts == KeyTexts::Ascii && !bytes.is_ascii() {
        return None;
    }
    match kind {
        KeyType::Text | KeyType::Varchar => return Some(KeyValue::text(bytes)),
        KeyType::BpChar => return Some(KeyValue::text(texts::without_padding(bytes))),
        KeyType::Bytea => return Some(KeyValue::Bytes(texts::read_bytea(bytes)?.into())),
        _ => {}
    }
    let text = std::str::from_utf8(bytes).ok()?;
    Some(match kind {
        KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => KeyValue::Integer(texts::read_integer(text)?),
        KeyType::Uuid => KeyValue::Uuid(texts::read_uuid(text)?),
        KeyType::Numeric => KeyValue::Numeric(Decimal::from_text(text)?),
        KeyType::Date => KeyValue::Date(calendar::read_date(text)?),
        // PostgreSQL takes no notice of an offset here.
        KeyType::Timestamp => KeyValue::Timestamp(calendar::read_timestamp(text)?.local),
        KeyType::Timestamptz => {
            let time = calendar::read_timestamp(text)?;
            KeyValue::Timestamp(time.instant().or(session.utc.then_some(time.local))?)
        }
        KeyType::Text | KeyType::Varchar | KeyType::BpChar | KeyType::Bytea => return None,
    })
}

fn read_binary(kind: KeyType, bytes: &[u8], session: KeySession) -> Option<KeyValue> {
    Some(match kind {
        KeyType::Int2 => KeyValue::Integer(i16::from_be_bytes(bytes.try_into().ok()?).into()),
        KeyType::Int4 => KeyValue::Integer(i32::from_be_bytes(bytes.try_into().ok()?).into()),
        KeyType::Int8 => KeyValue::Integer(i64::from_be_bytes(bytes.try_into().ok()?)),
        KeyType::Uuid => KeyValue::Uuid(bytes.try_into().ok()?),
        KeyType::Numeric => KeyValue::Numeric(Decimal::from_binary(bytes)?),
        KeyType::Bytea => KeyValue::Bytes(bytes.into()),
        KeyType::Date => KeyValue::Date(i32::from_be_bytes(bytes.try_into().ok()?)),
        KeyType::Timestamp | KeyType::Timestamptz => KeyValue::Timestamp(i64::from_be_bytes(bytes.try_into().ok()?)),
        KeyType::Text | KeyType::Varchar | KeyType::BpChar => return read_text(kind, bytes, session),
    })
}

#[cfg(test)]
mod tests;
