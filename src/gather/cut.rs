//! OFFSET and LIMIT over the rows of all shards, and columns that were asked for sorting only.

use super::row::{GatherError, RowValues};
use crate::wire::frame::HEADER_LEN;
use bytes::BytesMut;

/// What is done with the next row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is dropped; others may be shown.
    Skip,
    /// It is shown.
    Show,
    /// It is dropped, and so is every row behind it.
    Full,
}

/// OFFSET and LIMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowWindow {
    offset: u64,
    limit: Option<u64>,
}

impl RowWindow {
    /// A window behind `offset` rows, of at most `limit` rows.
    pub fn new(offset: u64, limit: Option<u64>) -> RowWindow {
        RowWindow { offset, limit }
    }

    /// What is done with the next row.
    pub fn admit(&mut self) -> Admission {
        if self.is_full() {
            return Admission::Full;
        }
        if self.offset > 0 {
            self.offset -= 1;
            return Admission::Skip;
        }
        if let Some(limit) = &mut self.limit {
            *limit -= 1;
        }
        Admission::Show
    }

    /// Whether no further row will be shown.
    pub fn is_full(&self) -> bool {
        self.limit == Some(0)
    }
}

/// Drops a row's last columns; it stays a whole DataRow message.
///
/// # Errors
/// The row is malformed, or has fewer columns.
pub fn cut_row(row: &mut BytesMut, hidden: usize) -> Result<(), GatherError> {
    if hidden == 0 {
        return Ok(());
    }
    let mut values = RowValues::new(row)?;
    let kept = values.count_left().checked_sub(hidden).ok_or(GatherError::MalformedRow)?;
    for _ in 0..kept {
        values.next_value()?;
    }
    let end = row.len() - values.rest().len();
    shorten(row, end, kept);
    Ok(())
}

/// Drops the last columns of a whole RowDescription message.
///
/// # Errors
/// It is malformed, or has fewer columns.
pub fn cut_description(description: &mut BytesMut, hidden: usize) -> Result<(), GatherError> {
    /// Bytes of a field behind its name.
    const FIELD: usize = 18;
    if hidden == 0 {
        return Ok(());
    }
    let body = description.get(HEADER_LEN..).filter(|_| description[0] == b'T').ok_or(GatherError::MalformedRow)?;
    let (count, mut rest) = body.split_first_chunk::<2>().ok_or(GatherError::MalformedRow)?;
    let kept = usize::from(u16::from_be_bytes(*count)).checked_sub(hidden).ok_or(GatherError::MalformedRow)?;
    for _ in 0..kept {
        let name = memchr::memchr(0, rest).ok_or(GatherError::MalformedRow)?;
        rest = rest.get(name + 1 + FIELD..).ok_or(GatherError::MalformedRow)?;
    }
    let end = description.len() - rest.len();
    shorten(description, end, kept);
    Ok(())
}

/// Ends a message after its first columns.
fn shorten(message: &mut BytesMut, end: usize, columns: usize) {
    message.truncate(end);
    // A message is at most 1 GiB, and has at most 65,535 columns.
    message[1..HEADER_LEN].copy_from_slice(&(end as u32 - 1).to_be_bytes());
    message[HEADER_LEN..HEADER_LEN + 2].copy_from_slice(&(columns as u16).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::row::row_of;
    use super::*;

    #[test]
    fn rows_lose_their_last_columns() {
        let values: [Option<&[u8]>; 4] = [Some(b"a"), None, Some(b""), Some(b"xyz")];
        for hidden in 0..=4 {
            let mut row = row_of(&values);
            cut_row(&mut row, hidden).unwrap();
            assert_eq!(row, row_of(&values[..4 - hidden]), "{hidden}");
        }
        assert_eq!(cut_row(&mut row_of(&values), 5), Err(GatherError::MalformedRow));
        assert_eq!(cut_row(&mut BytesMut::from(&b"D\0\0"[..]), 1), Err(GatherError::MalformedRow));
    }

    #[test]
    fn descriptions_lose_their_last_columns() {
        let describe = |names: &[&str]| {
            let mut body = (names.len() as u16).to_be_bytes().to_vec();
            for name in names {
                body.extend(name.as_bytes());
                body.push(0);
                body.extend([7; 18]);
            }
            let mut message = BytesMut::from(&b"T"[..]);
            message.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
            message.extend_from_slice(&body);
            message
        };
        let mut description = describe(&["a", "long name", ""]);
        cut_description(&mut description, 2).unwrap();
        assert_eq!(description, describe(&["a"]));
        cut_description(&mut description, 1).unwrap();
        assert_eq!(description, describe(&[]));
        assert_eq!(cut_description(&mut description, 1), Err(GatherError::MalformedRow));
        let mut short = describe(&["a", "b"]);
        short.truncate(12);
        assert_eq!(cut_description(&mut short, 1), Err(GatherError::MalformedRow));
    }

    #[test]
    fn offset_and_limit() {
        let check = |offset: u64, limit: Option<u64>, expect: &str| {
            let mut window = RowWindow::new(offset, limit);
            let shown: String = (0..5)
                .map(|_| match window.admit() {
                    Admission::Skip => '-',
                    Admission::Show => '+',
                    Admission::Full => '.',
                })
                .collect();
            assert_eq!(shown, expect, "{offset} {limit:?}");
        };
        check(0, None, "+++++");
        check(2, None, "--+++");
        check(1, Some(2), "-++..");
        check(0, Some(0), ".....");
        check(3, Some(0), ".....");
        check(9, Some(1), "-----");
    }
}
