//! Rows held as `text[]` values, one for each column: so they are handed to the query that finishes an answer.

use super::row::{GatherError, RowValues};

/// Bytes that an element takes at least, beside its text: a comma.
const SEPARATOR: u8 = b',';

/// The columns of the rows so far. All values are in the text format.
#[derive(Debug)]
pub struct RowArrays {
    columns: Vec<Vec<u8>>,
    rows: usize,
    held: usize,
    limit: usize,
}

impl RowArrays {
    /// No rows yet, of this many columns; at most `limit` bytes may be held.
    pub fn new(columns: usize, limit: usize) -> RowArrays {
        RowArrays { columns: vec![vec![b'{']; columns], rows: 0, held: columns, limit }
    }

    /// Takes a row, a whole DataRow message.
    ///
    /// # Errors
    /// It is malformed, has another number of columns, or there is no room for it.
    pub fn push(&mut self, row: &[u8]) -> Result<(), GatherError> {
        let mut values = RowValues::new(row)?;
        if values.count_left() != self.columns.len() {
            return Err(GatherError::MalformedRow);
        }
        for column in &mut self.columns {
            let before = column.len();
            if self.rows > 0 {
                column.push(SEPARATOR);
            }
            match values.next_value()? {
                None => column.extend_from_slice(b"NULL"),
                Some(value) => push_quoted(column, value),
            }
            self.held += column.len() - before;
        }
        // A row without columns takes room in the count only.
        self.rows += 1;
        if self.held > self.limit { Err(GatherError::OverMemory { limit: self.limit }) } else { Ok(()) }
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes that are held.
    pub fn held_bytes(&self) -> usize {
        self.held
    }

    /// Each column as the text of a `text[]`.
    pub fn finish(self) -> Vec<Vec<u8>> {
        let mut columns = self.columns;
        columns.iter_mut().for_each(|column| column.push(b'}'));
        columns
    }
}

/// A value in quotes, which say that it is no NULL and has no meaning of its own.
fn push_quoted(column: &mut Vec<u8>, mut value: &[u8]) {
    column.push(b'"');
    while let Some(at) = memchr::memchr2(b'"', b'\\', value) {
        column.extend_from_slice(&value[..at]);
        column.extend_from_slice(&[b'\\', value[at]]);
        value = &value[at + 1..];
    }
    column.extend_from_slice(value);
    column.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::super::row::row_of;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn columns_become_arrays() {
        let mut arrays = RowArrays::new(2, 1000);
        arrays.push(&row_of(&[Some(b"a"), None])).unwrap();
        arrays.push(&row_of(&[Some(b""), Some(b"NULL")])).unwrap();
        arrays.push(&row_of(&[Some(b"{\"x\", \\y}"), Some("é\n'".as_bytes())])).unwrap();
        assert_eq!(arrays.rows(), 3);
        let columns: Vec<String> = arrays.finish().into_iter().map(|column| String::from_utf8(column).unwrap()).collect();
        assert_eq!(columns, [r#"{"a","","{\"x\", \\y}"}"#, "{NULL,\"NULL\",\"é\n'\"}"]);
        assert_eq!(RowArrays::new(1, 10).finish(), [b"{}"]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut arrays = RowArrays::new(1, 10);
        arrays.push(&row_of(&[Some(b"1234567")])).unwrap();
        assert_eq!(arrays.held_bytes(), 10);
        assert_eq!(arrays.push(&row_of(&[None])), Err(GatherError::OverMemory { limit: 10 }));
        assert_eq!(RowArrays::new(2, 10).push(&row_of(&[None])), Err(GatherError::MalformedRow));
    }

    proptest! {
        #[test]
        fn what_went_in_comes_out(rows in prop::collection::vec((".{0,9}", prop::option::of(".{0,9}")), 0..9)) {
            let mut arrays = RowArrays::new(2, usize::MAX);
            for (one, two) in &rows {
                arrays.push(&row_of(&[Some(one.as_bytes()), two.as_ref().map(String::as_bytes)])).unwrap();
            }
            let columns = arrays.finish();
            let expect: Vec<Vec<Option<String>>> =
                vec![rows.iter().map(|(one, _)| Some(one.clone())).collect(), rows.iter().map(|(_, two)| two.clone()).collect()];
            for (column, expect) in columns.iter().zip(expect) {
                prop_assert_eq!(take_apart(column), expect);
            }
        }
    }

    fn take_apart(array: &[u8]) -> Vec<Option<String>> {
        let inner = std::str::from_utf8(array).unwrap().strip_prefix('{').unwrap().strip_suffix('}').unwrap();
        let (mut found, mut chars) = (Vec::new(), inner.chars().peekable());
        while chars.peek().is_some() {
            if chars.next_if_eq(&'"').is_some() {
                let mut value = String::new();
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    value.push(if c == '\\' { chars.next().unwrap() } else { c });
                }
                found.push(Some(value));
            } else {
                let word: String = std::iter::from_fn(|| chars.next_if(|c| *c != ',')).collect();
                assert_eq!(word, "NULL");
                found.push(None);
            }
            chars.next_if_eq(&',');
        }
        found
    }
}
