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
    /// FETCH ... WITH TIES.
    ties: bool,
    shown: u64,
    full: bool,
}

impl RowWindow {
    /// A window behind `offset` rows, of at most `limit` rows; with `ties` also of those behind them that are tied with the last.
    pub fn new(offset: u64, limit: Option<u64>, ties: bool) -> RowWindow {
        RowWindow { offset, limit, ties, shown: 0, full: false }
    }

    /// What is done with the next row, which may be tied with the one before it.
    pub fn admit(&mut self, tied: bool) -> Admission {
        if self.is_full() {
            return Admission::Full;
        }
        if self.offset > 0 {
            self.offset -= 1;
            return Admission::Skip;
        }
        match &mut self.limit {
            Some(0) if !tied => {
                self.full = true;
                return Admission::Full;
            }
            Some(0) | None => {}
            Some(left) => *left -= 1,
        }
        self.shown += 1;
        Admission::Show
    }

    /// Whether it is known that no further row will be shown.
    pub fn is_full(&self) -> bool {
        self.full || self.limit == Some(0) && !(self.ties && self.shown > 0)
    }

    /// The same as SQL, with a space before it unless it is empty.
    pub fn clause(&self) -> String {
        let offset = if self.offset > 0 { format!(" OFFSET {}", self.offset) } else { String::new() };
        match self.limit {
            None => offset,
            Some(limit) if self.ties => format!("{offset} FETCH FIRST {limit} ROWS WITH TIES"),
            Some(limit) => format!("{offset} LIMIT {limit}"),
        }
    }

    /// How many rows were shown.
    pub fn shown(&self) -> u64 {
        self.shown
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
        let check = |offset: u64, limit: Option<u64>, ties: bool, expect: &str| {
            let mut window = RowWindow::new(offset, limit, ties);
            // The third and the fourth row are tied with the second.
            let shown: String = (0..5)
                .map(|row| match window.admit(row == 2 || row == 3) {
                    Admission::Skip => '-',
                    Admission::Show => '+',
                    Admission::Full => '.',
                })
                .collect();
            assert_eq!(shown, expect, "{offset} {limit:?} {ties}");
            assert_eq!(window.shown(), shown.matches('+').count() as u64);
        };
        for (offset, limit, ties, expect) in [
            (0, None, false, ""),
            (3, None, false, " OFFSET 3"),
            (0, Some(2), false, " LIMIT 2"),
            (1, Some(2), true, " OFFSET 1 FETCH FIRST 2 ROWS WITH TIES"),
        ] {
            assert_eq!(RowWindow::new(offset, limit, ties).clause(), expect);
        }
        check(0, None, false, "+++++");
        check(2, None, false, "--+++");
        check(1, Some(2), false, "-++..");
        check(0, Some(0), false, ".....");
        check(3, Some(0), false, ".....");
        check(9, Some(1), false, "-----");
        check(0, Some(1), true, "+....");
        check(0, Some(2), true, "++++.");
        check(1, Some(1), true, "-+++.");
        check(2, Some(1), true, "--++.");
        check(0, Some(0), true, ".....");
        check(0, Some(4), true, "++++.");
    }
}
