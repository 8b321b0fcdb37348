//! Rows as COPY data.
//!
//! Spec: `CopyOneRowTo`, `CopyAttributeOutText` and `CopyAttributeOutCSV` in `src/backend/commands/copyto.c`.

use super::row::{GatherError, RowValues};
use crate::wire::frame::HEADER_LEN;

/// What stands before the rows of the binary format: signature, flags, length of the extension.
pub const BINARY_HEADER: [u8; 19] = *b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What stands behind them.
pub const BINARY_TRAILER: [u8; 2] = [0xff, 0xff];

/// The characters that rows are written with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyMarks {
    /// `DELIMITER`.
    pub delimiter: u8,
    /// `QUOTE`, in CSV.
    pub quote: u8,
    /// `ESCAPE`, in CSV.
    pub escape: u8,
    /// `NULL`.
    pub null: Vec<u8>,
}

/// How rows are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    /// `FORMAT text`.
    Text(CopyMarks),
    /// `FORMAT csv`.
    Csv {
        /// The characters.
        marks: CopyMarks,
        /// `FORCE_QUOTE`: the names of the columns; `None` is all of them.
        quoted: Option<Vec<String>>,
    },
    /// `FORMAT binary`.
    Binary,
}

/// Writes rows as COPY data, without header and trailer.
#[derive(Debug)]
pub struct CopyWriter {
    format: CopyFormat,
    /// Which columns are quoted in any case.
    quoted: Vec<bool>,
}

impl CopyWriter {
    /// A writer of rows with these columns.
    pub fn new(format: CopyFormat, columns: &[String]) -> CopyWriter {
        let quoted = match &format {
            CopyFormat::Csv { quoted: None, .. } => vec![true; columns.len()],
            CopyFormat::Csv { quoted: Some(names), .. } => columns.iter().map(|column| names.contains(column)).collect(),
            _ => Vec::new(),
        };
        CopyWriter { format, quoted }
    }

    /// Appends a row, a whole DataRow message whose values are in the format's own: binary values for binary, else texts.
    ///
    /// # Errors
    /// The row is malformed.
    pub fn put(&self, out: &mut Vec<u8>, row: &[u8]) -> Result<(), GatherError> {
        let mut values = RowValues::new(row)?;
        let count = values.count_left();
        let marks = match &self.format {
            CopyFormat::Text(marks) | CopyFormat::Csv { marks, .. } => marks,
            CopyFormat::Binary => {
                // A tuple has the shape of a row.
                out.extend_from_slice(&row[HEADER_LEN..]);
                return Ok(());
            }
        };
        for column in 0..count {
            if column > 0 {
                out.push(marks.delimiter);
            }
            match (values.next_value()?, &self.format) {
                (None, _) => out.extend_from_slice(&marks.null),
                (Some(value), CopyFormat::Csv { .. }) => {
                    let forced = self.quoted.get(column).copied().unwrap_or(false);
                    put_csv(out, value, marks, (forced, count == 1));
                }
                (Some(value), _) => put_text(out, value, marks.delimiter),
            }
        }
        out.push(b'\n');
        Ok(())
    }
}

fn put_text(out: &mut Vec<u8>, value: &[u8], delimiter: u8) {
    for &byte in value {
        let letter = match byte {
            8 => b'b',
            12 => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            11 => b'v',
            _ if byte == b'\\' || byte == delimiter => byte,
            _ => {
                out.push(byte);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', letter]);
    }
}

fn put_csv(out: &mut Vec<u8>, value: &[u8], marks: &CopyMarks, (forced, alone): (bool, bool)) {
    let special = |byte: &u8| *byte == marks.delimiter || *byte == marks.quote || *byte == b'\n' || *byte == b'\r';
    // What would be read as NULL, or as the end of the data.
    let mistaken = value == marks.null || alone && value == b"\\.";
    if !(forced || mistaken || value.iter().any(special)) {
        out.extend_from_slice(value);
        return;
    }
    out.push(marks.quote);
    for &byte in value {
        if byte == marks.quote || byte == marks.escape {
            out.push(marks.escape);
        }
        out.push(byte);
    }
    out.push(marks.quote);
}

#[cfg(test)]
mod tests {
    use super::super::row::row_of;
    use super::*;

    fn marks(delimiter: u8, null: &str) -> CopyMarks {
        CopyMarks { delimiter, quote: b'"', escape: b'"', null: null.as_bytes().to_vec() }
    }

    fn check(format: CopyFormat, values: &[Option<&str>], expect: &str) {
        let values: Vec<Option<&[u8]>> = values.iter().map(|value| value.map(str::as_bytes)).collect();
        let columns: Vec<String> = (0..values.len()).map(|place| format!("c{place}")).collect();
        let mut out = Vec::new();
        CopyWriter::new(format, &columns).put(&mut out, &row_of(&values)).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    #[test]
    fn texts() {
        let text = || CopyFormat::Text(marks(b'\t', "\\N"));
        check(text(), &[Some("a"), None, Some(""), Some("\\N")], "a\t\\N\t\t\\\\N\n");
        check(text(), &[Some("a\tb\nc\rd\u{8}\u{b}\u{c}\u{1}é|")], "a\\tb\\nc\\rd\\b\\v\\f\u{1}é|\n");
        check(CopyFormat::Text(marks(b'|', "")), &[Some("a|b\t"), None], "a\\|b\\t|\n");
        check(CopyFormat::Text(marks(1, "")), &[Some("a\u{1}b")], "a\\\u{1}b\n");
        check(text(), &[], "\n");
    }

    #[test]
    fn comma_separated() {
        let csv = |quoted: Option<&[&str]>, null: &str| CopyFormat::Csv {
            marks: marks(b',', null),
            quoted: quoted.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
        };
        check(
            csv(Some(&[]), ""),
            &[Some("a"), None, Some(""), Some("b,c"), Some("d\"e"), Some("f\ng")],
            "a,,\"\",\"b,c\",\"d\"\"e\",\"f\ng\"\n",
        );
        check(csv(Some(&["c1"]), "x"), &[Some("x"), Some("a"), None, Some("b")], "\"x\",\"a\",x,b\n");
        check(csv(None, ""), &[Some("a"), None, Some("1")], "\"a\",,\"1\"\n");
        check(csv(Some(&[]), ""), &[Some("\\.")], "\"\\.\"\n");
        check(csv(Some(&[]), ""), &[Some("\\."), Some("a")], "\\.,a\n");
        let other =
            CopyFormat::Csv { marks: CopyMarks { quote: b'\'', escape: b'\\', ..marks(b';', "") }, quoted: Some(Vec::new()) };
        check(other, &[Some("it's; a\\b"), Some("\\")], "'it\\'s; a\\\\b';\\\n");
    }

    #[test]
    fn tuples() {
        let row = row_of(&[Some(b"\0\0\0\x05"), None]);
        let mut out = Vec::new();
        CopyWriter::new(CopyFormat::Binary, &[]).put(&mut out, &row).unwrap();
        assert_eq!(out, b"\0\x02\0\0\0\x04\0\0\0\x05\xff\xff\xff\xff");
        assert_eq!(CopyWriter::new(CopyFormat::Binary, &[]).put(&mut out, b"D"), Err(GatherError::MalformedRow));
    }
}
