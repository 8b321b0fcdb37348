//! RowDescription, as far as it says what a client must know to read rows.

use super::Cursor;
use std::hash::{DefaultHasher, Hash, Hasher};

/// What a client reads rows by: names, types, lengths and modifiers of the columns, as one number. Where a column comes from does not
/// count, so that a table that was made anew as it was has the same. `None`: the body is not all there.
///
/// Spec: "Message Formats", RowDescription; `equalTupleDescs` in `src/backend/access/common/tupdesc.c`.
pub fn result_shape(body: &[u8]) -> Option<u64> {
    let mut cursor = Cursor::new(body);
    let columns = cursor.int16().ok()?;
    let mut hasher = DefaultHasher::new();
    columns.hash(&mut hasher);
    for _ in 0..columns {
        cursor.string().ok()?.hash(&mut hasher);
        let _table_and_place = cursor.bytes(6).ok()?;
        cursor.bytes(10).ok()?.hash(&mut hasher);
        let _format = cursor.bytes(2).ok()?;
    }
    cursor.end().ok()?;
    Some(hasher.finish())
}

/// The same of a statement without rows: NoData.
pub const NO_ROWS: u64 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    fn description(columns: &[(&str, u32, i32)], table: u32) -> Vec<u8> {
        let mut body = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
        for (place, (name, kind, modifier)) in (1u16..).zip(columns) {
            body.extend_from_slice(name.as_bytes());
            body.push(0);
            body.extend_from_slice(&table.to_be_bytes());
            body.extend_from_slice(&place.to_be_bytes());
            body.extend_from_slice(&kind.to_be_bytes());
            body.extend_from_slice(&4i16.to_be_bytes());
            body.extend_from_slice(&modifier.to_be_bytes());
            body.extend_from_slice(&0i16.to_be_bytes());
        }
        body
    }

    #[test]
    fn a_shape_is_names_and_types() {
        let two = description(&[("a", 23, -1), ("b", 25, -1)], 16384);
        let same = |other: &[u8]| result_shape(other).unwrap() == result_shape(&two).unwrap();
        assert!(same(&description(&[("a", 23, -1), ("b", 25, -1)], 16390)));
        assert!(!same(&description(&[("a", 23, -1), ("c", 25, -1)], 16384)));
        assert!(!same(&description(&[("a", 23, -1), ("b", 23, -1)], 16384)));
        assert!(!same(&description(&[("a", 23, -1), ("b", 25, 8)], 16384)));
        assert!(!same(&description(&[("a", 23, -1)], 16384)));
        assert!(result_shape(&description(&[], 0)).is_some());
    }

    #[test]
    fn half_a_description_has_none() {
        let two = description(&[("a", 23, -1), ("b", 25, -1)], 16384);
        for end in 0..two.len() {
            assert_eq!(result_shape(&two[..end]), None, "{end}");
        }
        assert_eq!(result_shape(&[&two[..], b"x"].concat()), None);
    }
}
