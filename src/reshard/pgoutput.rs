//! What a logical replication stream says: the messages of the `pgoutput` plugin, protocol version 1. Pure.
//!
//! Spec: PostgreSQL documentation, "Logical Replication Message Formats".

use crate::shard::QualifiedName;
use crate::types::Lsn;
use crate::wire::{Cursor, WireError};

/// One message of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamMessage {
    /// A transaction begins; it has committed.
    Begin {
        /// Where its commit record stands.
        commit: Lsn,
    },
    /// The transaction's changes are complete.
    Commit {
        /// Where its commit record stands.
        commit: Lsn,
        /// Behind its commit record.
        end: Lsn,
    },
    /// What a table is called and has, before its first change and whenever that is another.
    Relation(StreamRelation),
    /// A row is new.
    Insert {
        /// The table's number in this stream.
        relation: u32,
        /// The row.
        new: Vec<StreamValue>,
    },
    /// A row is another.
    Update {
        /// The table's number in this stream.
        relation: u32,
        /// What it was, if its identity has changed or the whole row is its identity.
        old: Option<OldRow>,
        /// What it is.
        new: Vec<StreamValue>,
    },
    /// A row is gone.
    Delete {
        /// The table's number in this stream.
        relation: u32,
        /// What it was.
        old: OldRow,
    },
    /// Tables are empty.
    Truncate {
        /// The tables' numbers in this stream.
        relations: Vec<u32>,
    },
    /// What needs nothing to be done: origins, types, messages.
    Other,
}

/// A table as the stream describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRelation {
    /// Its number in this stream.
    pub id: u32,
    /// Its name.
    pub name: QualifiedName,
    /// The names of its columns, in the order of the values.
    pub columns: Vec<String>,
}

/// A column's value in the text format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamValue {
    /// NULL.
    Null,
    /// Large, and the same as before: the stream does not repeat it.
    Unchanged,
    /// The text.
    Text(Vec<u8>),
}

/// What a row was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldRow {
    /// All columns are there, not only those of the replica identity.
    pub whole: bool,
    /// A value for each column.
    pub values: Vec<StreamValue>,
}

impl StreamMessage {
    /// Reads one message.
    ///
    /// # Errors
    /// It has not the shape that its type demands.
    pub fn read(message: &[u8]) -> Result<StreamMessage, WireError> {
        let mut cursor = Cursor::new(message);
        let read = match cursor.byte()? {
            b'B' => {
                let commit = lsn(&mut cursor)?;
                // The commit's time and the transaction's number.
                cursor.bytes(8 + 4)?;
                StreamMessage::Begin { commit }
            }
            b'C' => {
                // Flags.
                cursor.byte()?;
                let (commit, end) = (lsn(&mut cursor)?, lsn(&mut cursor)?);
                cursor.bytes(8)?;
                StreamMessage::Commit { commit, end }
            }
            b'R' => StreamMessage::Relation(relation(&mut cursor)?),
            b'I' => {
                let relation = number(&mut cursor)?;
                expect(&mut cursor, b'N')?;
                StreamMessage::Insert { relation, new: row(&mut cursor)? }
            }
            b'U' => {
                let relation = number(&mut cursor)?;
                let old = match cursor.byte()? {
                    b'N' => None,
                    kind => {
                        let old = old_row(kind, &mut cursor)?;
                        expect(&mut cursor, b'N')?;
                        Some(old)
                    }
                };
                StreamMessage::Update { relation, old, new: row(&mut cursor)? }
            }
            b'D' => {
                let relation = number(&mut cursor)?;
                let kind = cursor.byte()?;
                StreamMessage::Delete { relation, old: old_row(kind, &mut cursor)? }
            }
            b'T' => {
                let count = number(&mut cursor)?;
                // CASCADE and RESTART IDENTITY: every table concerned is named.
                cursor.byte()?;
                let relations = (0..count).map(|_| number(&mut cursor)).collect::<Result<_, _>>()?;
                StreamMessage::Truncate { relations }
            }
            b'O' | b'Y' | b'M' => return Ok(StreamMessage::Other),
            other => return Err(WireError::Type(other)),
        };
        cursor.end()?;
        Ok(read)
    }
}

fn number(cursor: &mut Cursor<'_>) -> Result<u32, WireError> {
    Ok(cursor.int32()?.cast_unsigned())
}

/// A 64-bit position.
///
/// # Errors
/// There are not as many bytes.
pub fn lsn(cursor: &mut Cursor<'_>) -> Result<Lsn, WireError> {
    let (high, low) = (number(cursor)?, number(cursor)?);
    Ok(Lsn(u64::from(high) << 32 | u64::from(low)))
}

fn expect(cursor: &mut Cursor<'_>, tag: u8) -> Result<(), WireError> {
    if cursor.byte()? == tag { Ok(()) } else { Err(WireError::Field("tuple")) }
}

fn name(cursor: &mut Cursor<'_>) -> Result<String, WireError> {
    String::from_utf8(cursor.string()?.to_vec()).map_err(|_| WireError::Field("name"))
}

fn relation(cursor: &mut Cursor<'_>) -> Result<StreamRelation, WireError> {
    let id = number(cursor)?;
    let schema = name(cursor)?;
    // `pg_catalog` is written as nothing.
    let schema = if schema.is_empty() { "pg_catalog".to_owned() } else { schema };
    let table = name(cursor)?;
    // The replica identity.
    cursor.byte()?;
    let count = count(cursor)?;
    let mut columns = Vec::new();
    for _ in 0..count {
        // Whether it is of the identity.
        cursor.byte()?;
        columns.push(name(cursor)?);
        // Its type and modifier.
        cursor.bytes(4 + 4)?;
    }
    Ok(StreamRelation { id, name: QualifiedName { schema, name: table }, columns })
}

fn count(cursor: &mut Cursor<'_>) -> Result<u16, WireError> {
    u16::try_from(cursor.int16()?).map_err(|_| WireError::Field("number of columns"))
}

fn old_row(kind: u8, cursor: &mut Cursor<'_>) -> Result<OldRow, WireError> {
    match kind {
        b'K' | b'O' => Ok(OldRow { whole: kind == b'O', values: row(cursor)? }),
        _ => Err(WireError::Field("tuple")),
    }
}

fn row(cursor: &mut Cursor<'_>) -> Result<Vec<StreamValue>, WireError> {
    let count = count(cursor)?;
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(match cursor.byte()? {
            b'n' => StreamValue::Null,
            b'u' => StreamValue::Unchanged,
            b't' => {
                let length = usize::try_from(cursor.int32()?).map_err(|_| WireError::Short)?;
                StreamValue::Text(cursor.bytes(length)?.to_vec())
            }
            _ => return Err(WireError::Field("value")),
        });
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> StreamValue {
        StreamValue::Text(value.as_bytes().to_vec())
    }

    /// One message of each kind, as a server writes it.
    fn samples() -> Vec<(Vec<u8>, StreamMessage)> {
        let relation =
            b"R\0\0\x40\x01public\0orders\0d\0\x02\x01id\0\0\0\0\x17\xff\xff\xff\xff\0note\0\0\0\0\x19\xff\xff\xff\xff";
        let name = QualifiedName { schema: "public".into(), name: "orders".into() };
        let columns = vec!["id".to_owned(), "note".to_owned()];
        let row = b"\0\x02t\0\0\0\x027\xc3u";
        let values = vec![StreamValue::Text(b"7\xc3".to_vec()), StreamValue::Unchanged];
        vec![
            (
                [&b"B\0\0\0\x01\0\0\0\x10"[..], &[0; 8], b"\0\0\x02\xf1"].concat(),
                StreamMessage::Begin { commit: Lsn(0x1_0000_0010) },
            ),
            (
                [&b"C\0\0\0\0\x01\0\0\0\x10\0\0\0\x01\0\0\0\x40"[..], &[0; 8]].concat(),
                StreamMessage::Commit { commit: Lsn(0x1_0000_0010), end: Lsn(0x1_0000_0040) },
            ),
            (relation.to_vec(), StreamMessage::Relation(StreamRelation { id: 0x4001, name, columns })),
            (
                b"I\0\0\x40\x01N\0\x03t\0\0\0\x017nt\0\0\0\0".to_vec(),
                StreamMessage::Insert { relation: 0x4001, new: vec![text("7"), StreamValue::Null, text("")] },
            ),
            ([&b"U\0\0\x40\x01N"[..], row].concat(), StreamMessage::Update { relation: 0x4001, old: None, new: values.clone() }),
            (
                [&b"U\0\0\x40\x01K\0\x02t\0\0\0\x016nN"[..], row].concat(),
                StreamMessage::Update {
                    relation: 0x4001,
                    old: Some(OldRow { whole: false, values: vec![text("6"), StreamValue::Null] }),
                    new: values.clone(),
                },
            ),
            (
                [&b"D\0\0\x40\x01O"[..], row].concat(),
                StreamMessage::Delete { relation: 0x4001, old: OldRow { whole: true, values } },
            ),
            (b"T\0\0\0\x02\x01\0\0\x40\x01\0\0\x40\x02".to_vec(), StreamMessage::Truncate { relations: vec![0x4001, 0x4002] }),
        ]
    }

    #[test]
    fn messages_are_read() {
        for (bytes, expect) in samples() {
            assert_eq!(StreamMessage::read(&bytes), Ok(expect), "{bytes:?}");
        }
        for other in [&b"O\0\0\0\0\0\0\0\0name\0"[..], b"Y\0\0\0\x01public\0t\0", b"M"] {
            assert_eq!(StreamMessage::read(other), Ok(StreamMessage::Other));
        }
    }

    #[test]
    fn what_is_cut_or_too_long_is_refused() {
        for (bytes, _) in samples() {
            for cut in 0..bytes.len() {
                assert!(StreamMessage::read(&bytes[..cut]).is_err(), "{bytes:?} cut at {cut}");
            }
            assert!(StreamMessage::read(&[&bytes[..], b"\0"].concat()).is_err(), "{bytes:?} and more");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let check = |bytes: &[u8], expect: WireError| assert_eq!(StreamMessage::read(bytes), Err(expect), "{bytes:?}");
        check(b"X", WireError::Type(b'X'));
        check(b"I\0\0\0\x01K\0\0", WireError::Field("tuple"));
        check(b"D\0\0\0\x01N\0\0", WireError::Field("tuple"));
        check(b"U\0\0\0\x01K\0\0K\0\0", WireError::Field("tuple"));
        check(b"I\0\0\0\x01N\0\x01x", WireError::Field("value"));
        check(b"I\0\0\0\x01N\xff\xff", WireError::Field("number of columns"));
        check(b"I\0\0\0\x01N\0\x01t\xff\xff\xff\xff", WireError::Short);
        check(b"I\0\0\0\x01N\0\x01t\x7f\xff\xff\xffabc", WireError::Short);
        check(b"T\xff\xff\xff\xff\0\0\0\0\x01", WireError::Short);
        check(b"R\0\0\0\x01public\0\xff\0d\0\0", WireError::Field("name"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64), tag in 0_usize..12) {
            let _ = StreamMessage::read(&bytes);
            let _ = StreamMessage::read(&[&b"BCRIUDTOYMNK"[tag..=tag], &bytes].concat());
        }
    }
}
