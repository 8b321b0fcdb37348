//! The data of `COPY ... FROM STDIN` taken apart by rows, so that each row can go to the shard of its key.
//!
//! The bytes of a row are passed on as they came. What a server would refuse within a row (too few fields, an open quote) is left to
//! the server that gets the row; only what it could not notice, because it sees a part of the rows, is told here.
//!
//! Only for encodings whose characters have no ASCII bytes behind their first one.

mod fields;
mod lines;
mod numbers;
mod tuples;

use bytes::{Buf, BytesMut};
use fields::{csv_fields, text_fields};
use lines::{LineScan, Lines};
pub use numbers::LineNumbers;
use tuples::Tuples;

/// How many lines a row of the data is, as a server counts them: those within quotes too. `first`: the server has got no line before it;
/// `open`: it ends within quotes.
///
/// Spec: `cur_lineno` in `src/backend/commands/copyfromparse.c`.
pub fn lines_of(row: &[u8], layout: &CopyLayout, (first, open): (bool, bool)) -> u64 {
    if !matches!(layout, CopyLayout::Csv(_)) {
        return 1;
    }
    let (end, terminated) = match row {
        _ if open => (b'\n', false),
        [.., b'\r', b'\n'] | [.., b'\r'] => (b'\r', true),
        [.., b'\n'] => (b'\n', !first),
        _ => (b'\n', false),
    };
    // Before the first line has ended, only carriage returns within quotes are counted.
    let end = if first { b'\r' } else { end };
    row.iter().filter(|byte| **byte == end).count() as u64 + u64::from(!terminated)
}

/// How the data is written: the options of the COPY command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyLayout {
    /// `FORMAT text`.
    Text(TextLayout),
    /// `FORMAT csv`.
    Csv(CsvLayout),
    /// `FORMAT binary`.
    Binary,
}

/// The options of `FORMAT text`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextLayout {
    /// `DELIMITER`.
    pub delimiter: u8,
    /// `NULL`.
    pub null: Vec<u8>,
    /// `HEADER`: the first line names the columns.
    pub header: bool,
}

impl Default for TextLayout {
    fn default() -> Self {
        TextLayout { delimiter: b'\t', null: b"\\N".to_vec(), header: false }
    }
}

/// The options of `FORMAT csv`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvLayout {
    /// `DELIMITER`.
    pub delimiter: u8,
    /// `QUOTE`.
    pub quote: u8,
    /// `ESCAPE`; the quote unless another is given.
    pub escape: u8,
    /// `NULL`.
    pub null: Vec<u8>,
    /// `HEADER`: the first line names the columns.
    pub header: bool,
    /// `FORCE_NULL`: fields, counted from 0, that are NULL also when the null text stands in quotes.
    pub force_null: Vec<usize>,
    /// `FORCE_NOT_NULL`: fields that are never NULL.
    pub force_not_null: Vec<usize>,
}

impl Default for CsvLayout {
    fn default() -> Self {
        CsvLayout {
            delimiter: b',',
            quote: b'"',
            escape: b'"',
            null: Vec::new(),
            header: false,
            force_null: Vec::new(),
            force_not_null: Vec::new(),
        }
    }
}

/// A part of the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyPart {
    /// What every shard needs before its first row.
    Header(BytesMut),
    /// A row.
    Row {
        /// Its bytes, with its line end.
        bytes: BytesMut,
        /// It ends within quotes.
        open: bool,
        /// Its key columns' values in the order of the key, `None` for NULL: as texts without quotes and escapes, or in the binary format.
        /// `None` when the row lacks one of them, or is not whole: any shard's server will say what is wrong with it.
        key: Option<Vec<CopyField>>,
    },
    /// What every shard gets behind its last row.
    Trailer(BytesMut),
}

/// A field's value; `None` is NULL.
pub type CopyField = Option<Vec<u8>>;

/// What is wrong with the data as a whole. SQLSTATE 22P04.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyDataError {
    /// A line end of another kind than the first one's.
    #[error("{}", .0.message())]
    MixedLineEnds(MixedLineEnd),
    /// A file that is not PostgreSQL's binary format.
    #[error("COPY file signature not recognized")]
    Signature,
    /// Data behind the end marker of the binary format.
    #[error("received copy data after EOF marker")]
    BehindEnd,
    /// A row that is larger than may be held.
    #[error("a row of COPY data is larger than {limit} bytes")]
    RowTooLong {
        /// The limit. Bytes.
        limit: usize,
    },
}

/// Which line end stands where it does not belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MixedLineEnd {
    /// A carriage return, else a newline.
    pub carriage_return: bool,
    /// In CSV.
    pub csv: bool,
}

impl MixedLineEnd {
    fn message(self) -> &'static str {
        match (self.carriage_return, self.csv) {
            (true, false) => "literal carriage return found in data",
            (true, true) => "unquoted carriage return found in data",
            (false, false) => "literal newline found in data",
            (false, true) => "unquoted newline found in data",
        }
    }

    /// PostgreSQL's hint.
    pub fn hint(self) -> &'static str {
        match (self.carriage_return, self.csv) {
            (true, false) => "Use \"\\r\" to represent carriage return.",
            (true, true) => "Use quoted CSV field to represent carriage return.",
            (false, false) => "Use \"\\n\" to represent newline.",
            (false, true) => "Use quoted CSV field to represent newline.",
        }
    }
}

enum Reading {
    Lines(Lines),
    Tuples(Tuples),
}

/// Takes COPY data apart that comes in chunks cut anywhere.
pub struct CopySplitter {
    layout: CopyLayout,
    key: Vec<usize>,
    row_max: usize,
    /// What has come and was not given yet.
    buffer: BytesMut,
    reading: Reading,
    /// No more chunks will come.
    finished: bool,
    /// The end marker was read: what follows is dropped.
    ended: bool,
}

impl CopySplitter {
    /// A splitter for data in which the key columns are these fields, counted from 0, in the order of the key. A row may have at most `row_max` bytes.
    pub fn new(layout: CopyLayout, key: Vec<usize>, row_max: usize) -> CopySplitter {
        let reading = match &layout {
            CopyLayout::Text(text) => Reading::Lines(Lines::new(text.header, None)),
            CopyLayout::Csv(csv) => Reading::Lines(Lines::new(csv.header, Some((csv.quote, csv.escape)))),
            CopyLayout::Binary => Reading::Tuples(Tuples::default()),
        };
        CopySplitter { layout, key, row_max, buffer: BytesMut::new(), reading, finished: false, ended: false }
    }

    /// Takes the next chunk.
    pub fn push(&mut self, chunk: &[u8]) {
        if !(self.ended && matches!(self.reading, Reading::Lines(_))) {
            self.buffer.extend_from_slice(chunk);
        }
    }

    /// No more chunks will come.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// The next part; `None`: more chunks are needed, or, behind [`CopySplitter::finish`], this was all.
    ///
    /// # Errors
    /// The data can't be taken apart.
    pub fn next_part(&mut self) -> Result<Option<CopyPart>, CopyDataError> {
        let part = match self.reading {
            Reading::Lines(_) => self.next_line(),
            Reading::Tuples(_) => self.next_tuple(),
        }?;
        if part.is_none() && self.buffer.len() > self.row_max {
            return Err(CopyDataError::RowTooLong { limit: self.row_max });
        }
        Ok(part)
    }

    fn next_line(&mut self) -> Result<Option<CopyPart>, CopyDataError> {
        let Reading::Lines(lines) = &mut self.reading else { return Ok(None) };
        if self.ended {
            self.buffer.clear();
            return Ok(None);
        }
        let scan = lines.scan(&self.buffer, self.finished)?;
        let (length, content, end_marker) = match scan {
            LineScan::More => return Ok(None),
            LineScan::Line { length, content } => (length, content, false),
            LineScan::EndMarker { length, content } => (length, content, true),
        };
        let whole = !lines.is_open();
        let header = lines.take_line();
        self.ended = end_marker;
        let bytes = self.buffer.split_to(length);
        if end_marker && content == 0 {
            return Ok(None);
        }
        if header {
            return Ok(Some(CopyPart::Header(bytes)));
        }
        let line = &bytes[..content];
        let key = match &self.layout {
            CopyLayout::Text(text) => text_fields(line, text, &self.key),
            CopyLayout::Csv(csv) if whole => csv_fields(line, csv, &self.key),
            CopyLayout::Csv(_) | CopyLayout::Binary => None,
        };
        Ok(Some(CopyPart::Row { bytes, open: !whole, key }))
    }

    fn next_tuple(&mut self) -> Result<Option<CopyPart>, CopyDataError> {
        let Reading::Tuples(tuples) = &mut self.reading else { return Ok(None) };
        if self.ended {
            return if self.buffer.has_remaining() { Err(CopyDataError::BehindEnd) } else { Ok(None) };
        }
        let header = tuples.header_is_due();
        match tuples.scan(&self.buffer)? {
            Some(length) if header => Ok(Some(CopyPart::Header(self.buffer.split_to(length)))),
            Some(length) if tuples.is_trailer(&self.buffer) => {
                self.ended = true;
                Ok(Some(CopyPart::Trailer(self.buffer.split_to(length))))
            }
            Some(length) => {
                let bytes = self.buffer.split_to(length);
                let key = tuples.key_of(&bytes, &self.key);
                Ok(Some(CopyPart::Row { bytes, open: false, key }))
            }
            None if self.finished && self.buffer.has_remaining() => {
                // A server says what is wrong with a part of a row, or of the header.
                let bytes = self.buffer.split();
                self.ended = true;
                Ok(Some(if header { CopyPart::Header(bytes) } else { CopyPart::Row { bytes, open: false, key: None } }))
            }
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
