//! Where the lines of COPY data end.
//!
//! Spec: `CopyReadLineText` in `src/backend/commands/copyfromparse.c`.

use super::{CopyDataError, MixedLineEnd};

/// How lines end, as the first line shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineEnds {
    Newline,
    CarriageReturn,
    Both,
}

/// What was found at the front of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineScan {
    /// Not known before more data comes.
    More,
    /// A line of `length` bytes, of which the last ones are its end.
    Line { length: usize, content: usize },
    /// The data ends here by `\.`; `content` bytes before it are a last line.
    EndMarker { length: usize, content: usize },
}

/// Finds lines in data that comes in pieces.
pub(super) struct Lines {
    /// The quote and escape of CSV.
    csv: Option<(u8, u8)>,
    ends: Option<LineEnds>,
    header: bool,
    /// Bytes of the buffer's first line that were looked at.
    at: usize,
    in_quote: bool,
    after_escape: bool,
}

impl Lines {
    pub(super) fn new(header: bool, csv: Option<(u8, u8)>) -> Lines {
        Lines { csv, ends: None, header, at: 0, in_quote: false, after_escape: false }
    }

    /// Whether the last line that was found ends within quotes.
    pub(super) fn is_open(&self) -> bool {
        self.in_quote
    }

    /// The line that was found is taken out of the buffer; whether it was the header.
    pub(super) fn take_line(&mut self) -> bool {
        self.at = 0;
        self.in_quote = false;
        self.after_escape = false;
        std::mem::take(&mut self.header)
    }

    /// Looks for the end of the buffer's first line.
    pub(super) fn scan(&mut self, buffer: &[u8], finished: bool) -> Result<LineScan, CopyDataError> {
        while let Some(&byte) = buffer.get(self.at) {
            let next = buffer.get(self.at + 1).copied();
            // What these bytes mean depends on the next one.
            if next.is_none() && !finished && (byte == b'\\' || byte == b'\r') {
                return Ok(LineScan::More);
            }
            if let Some((quote, escape)) = self.csv {
                self.follow_quotes(byte, quote, escape);
            }
            match byte {
                b'\r' | b'\n' if !self.in_quote => {
                    let width = self.line_end(byte, next)?;
                    return Ok(LineScan::Line { length: self.at + width, content: self.at });
                }
                b'\\' if self.csv.is_none() || self.at == 0 => match self.end_marker(buffer, finished) {
                    Some(Some(length)) => return Ok(LineScan::EndMarker { length, content: self.at }),
                    None => return Ok(LineScan::More),
                    // In a text, the byte behind a backslash has no meaning of its own.
                    Some(None) => self.at += if self.csv.is_none() { 2 } else { 1 },
                },
                _ => self.at += 1,
            }
        }
        self.at = self.at.min(buffer.len());
        let rest = finished && !buffer.is_empty();
        Ok(if rest { LineScan::Line { length: buffer.len(), content: buffer.len() } } else { LineScan::More })
    }

    fn follow_quotes(&mut self, byte: u8, quote: u8, escape: u8) {
        // Where the escape is the quote itself, two of them close and open again.
        let is_escape = byte == escape && escape != quote;
        if self.in_quote && is_escape {
            self.after_escape = !self.after_escape;
        }
        if byte == quote && !self.after_escape {
            self.in_quote = !self.in_quote;
        }
        if !is_escape {
            self.after_escape = false;
        }
    }

    /// How many bytes the line end has that begins with `byte`.
    fn line_end(&mut self, byte: u8, next: Option<u8>) -> Result<usize, CopyDataError> {
        let found = match (byte, next) {
            (b'\n', _) => LineEnds::Newline,
            (_, Some(b'\n')) if self.ends != Some(LineEnds::CarriageReturn) => LineEnds::Both,
            _ => LineEnds::CarriageReturn,
        };
        if *self.ends.get_or_insert(found) != found {
            let carriage_return = byte == b'\r';
            return Err(CopyDataError::MixedLineEnds(MixedLineEnd { carriage_return, csv: self.csv.is_some() }));
        }
        Ok(if found == LineEnds::Both { 2 } else { 1 })
    }

    /// Whether `\.` and a line end stand here: the bytes up to its end. `None`: not known yet; `Some(None)`: something else stands here.
    fn end_marker(&self, buffer: &[u8], finished: bool) -> Option<Option<usize>> {
        let rest = &buffer[self.at + 1..];
        match rest {
            [] | [b'.'] if !finished => None,
            [b'.'] => Some(Some(buffer.len())),
            [b'.', b'\r'] if !finished && self.ends != Some(LineEnds::CarriageReturn) => None,
            [b'.', b'\r', b'\n', ..] if self.ends != Some(LineEnds::CarriageReturn) => Some(Some(self.at + 4)),
            [b'.', b'\r' | b'\n', ..] => Some(Some(self.at + 3)),
            _ => Some(None),
        }
    }
}
