//! The options of COPY. Whether they go together is for a server to say: the command is sent to one before any data.
//!
//! Spec: `copy_options` in gram.y, and `ProcessCopyOptions` in copy.c.

use crate::gather::{CopyFormat, CopyMarks};
use crate::shard::{CopyLayout, CsvLayout, TextLayout};
use crate::sql::cursor::{Cursor, literal_value};
use crate::sql::scan::TokenKind;

/// Columns that an option names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum ColumnChoice {
    #[default]
    None,
    All,
    Named(Vec<String>),
}

/// What the options say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CopyOptions {
    pub(super) binary: bool,
    csv: bool,
    pub(super) header: bool,
    delimiter: Option<String>,
    null: Option<String>,
    quote: Option<String>,
    escape: Option<String>,
    force_quote: ColumnChoice,
    force_null: ColumnChoice,
    force_not_null: ColumnChoice,
    pub(super) encoding: Option<String>,
}

impl CopyOptions {
    /// Reads them, up to WHERE or the end. `None`: there is one that is not known.
    pub(super) fn read(cursor: &mut Cursor<'_>) -> Option<CopyOptions> {
        let mut options = CopyOptions::default();
        if cursor.eat("using") {
            cursor.at("delimiters").then_some(())?;
        }
        if cursor.eat("delimiters") {
            options.delimiter = Some(string(cursor)?);
        }
        cursor.eat("with");
        if cursor.eat_kind(TokenKind::OpenParen) {
            loop {
                options.generic(cursor)?;
                if cursor.eat_kind(TokenKind::CloseParen) {
                    return Some(options);
                }
                cursor.eat_kind(TokenKind::Comma).then_some(())?;
            }
        }
        while !cursor.at_end() && !cursor.at("where") && !cursor.at_kind(TokenKind::Semicolon) {
            options.legacy(cursor)?;
        }
        cursor.eat_kind(TokenKind::Semicolon);
        Some(options)
    }

    /// `name [value]`.
    fn generic(&mut self, cursor: &mut Cursor<'_>) -> Option<()> {
        let name = cursor.name()?;
        match &*name {
            "format" => {
                let format = word(cursor)?;
                (self.binary, self.csv) = (format == "binary", format == "csv");
                (self.binary || self.csv || format == "text").then_some(())?;
            }
            "header" => self.header = flag(cursor, true)?,
            "freeze" => drop(flag(cursor, false)?),
            "delimiter" => self.delimiter = Some(word(cursor)?),
            "null" => self.null = Some(word(cursor)?),
            "quote" => self.quote = Some(word(cursor)?),
            "escape" => self.escape = Some(word(cursor)?),
            "encoding" => self.encoding = Some(word(cursor)?),
            "force_quote" => self.force_quote = choice(cursor)?,
            "force_null" => self.force_null = choice(cursor)?,
            "force_not_null" => self.force_not_null = choice(cursor)?,
            _ => return None,
        }
        Some(())
    }

    /// An option of the syntax before PostgreSQL 9.0.
    fn legacy(&mut self, cursor: &mut Cursor<'_>) -> Option<()> {
        let value = |cursor: &mut Cursor<'_>| {
            cursor.eat("as");
            string(cursor)
        };
        let name = cursor.name()?;
        match &*name {
            "binary" => self.binary = true,
            "csv" => self.csv = true,
            "header" => self.header = true,
            "freeze" => {}
            "delimiter" => self.delimiter = Some(value(cursor)?),
            "null" => self.null = Some(value(cursor)?),
            "quote" => self.quote = Some(value(cursor)?),
            "escape" => self.escape = Some(value(cursor)?),
            "encoding" => self.encoding = Some(string(cursor)?),
            "force" if cursor.eat("quote") => self.force_quote = list(cursor)?,
            "force" if cursor.eat("null") => self.force_null = list(cursor)?,
            "force" if cursor.eat_all(&["not", "null"]) => self.force_not_null = list(cursor)?,
            _ => return None,
        }
        Some(())
    }

    /// How data of these columns is read.
    pub(super) fn layout(&self, columns: &[String]) -> CopyLayout {
        let fields = |choice: &ColumnChoice| match choice {
            ColumnChoice::None => Vec::new(),
            ColumnChoice::All => (0..columns.len()).collect(),
            ColumnChoice::Named(names) => (0..columns.len()).filter(|place| names.contains(&columns[*place])).collect(),
        };
        let CopyMarks { delimiter, quote, escape, null } = self.marks();
        if self.binary {
            CopyLayout::Binary
        } else if self.csv {
            let (force_null, force_not_null) = (fields(&self.force_null), fields(&self.force_not_null));
            CopyLayout::Csv(CsvLayout { delimiter, quote, escape, null, header: self.header, force_null, force_not_null })
        } else {
            CopyLayout::Text(TextLayout { delimiter, null, header: self.header })
        }
    }

    /// How rows are written.
    pub(super) fn output(&self) -> CopyFormat {
        match (self.binary, self.csv) {
            (true, _) => CopyFormat::Binary,
            (_, true) => CopyFormat::Csv {
                marks: self.marks(),
                quoted: match &self.force_quote {
                    ColumnChoice::None => Some(Vec::new()),
                    ColumnChoice::All => None,
                    ColumnChoice::Named(names) => Some(names.clone()),
                },
            },
            _ => CopyFormat::Text(self.marks()),
        }
    }

    fn marks(&self) -> CopyMarks {
        // What is no single byte is refused by the server.
        let byte = |text: &Option<String>, default: u8| text.as_ref().and_then(|text| text.bytes().next()).unwrap_or(default);
        let quote = byte(&self.quote, b'"');
        CopyMarks {
            delimiter: byte(&self.delimiter, if self.csv { b',' } else { b'\t' }),
            quote,
            escape: byte(&self.escape, quote),
            null: self.null.clone().map_or_else(|| if self.csv { Vec::new() } else { b"\\N".to_vec() }, String::into_bytes),
        }
    }
}

/// Names up to a closing parenthesis; the opening one was taken.
pub(super) fn names(cursor: &mut Cursor<'_>) -> Option<Vec<String>> {
    let mut names = Vec::new();
    loop {
        names.push(cursor.name()?.to_string());
        if cursor.eat_kind(TokenKind::CloseParen) {
            return Some(names);
        }
        cursor.eat_kind(TokenKind::Comma).then_some(())?;
    }
}

fn is_star(cursor: &Cursor<'_>) -> bool {
    cursor.peek().is_some_and(|token| token.bytes(cursor.text()) == b"*")
}

fn choice(cursor: &mut Cursor<'_>) -> Option<ColumnChoice> {
    if is_star(cursor) {
        cursor.take();
        return Some(ColumnChoice::All);
    }
    cursor.eat_kind(TokenKind::OpenParen).then_some(())?;
    names(cursor).map(ColumnChoice::Named)
}

/// Columns as the old syntax lists them.
fn list(cursor: &mut Cursor<'_>) -> Option<ColumnChoice> {
    if is_star(cursor) {
        cursor.take();
        return Some(ColumnChoice::All);
    }
    let mut names = vec![cursor.name()?.to_string()];
    while cursor.eat_kind(TokenKind::Comma) {
        names.push(cursor.name()?.to_string());
    }
    Some(ColumnChoice::Named(names))
}

/// The value of an option that is true when none is given; MATCH is a header too.
fn flag(cursor: &mut Cursor<'_>, matches: bool) -> Option<bool> {
    if cursor.at_kind(TokenKind::Comma) || cursor.at_kind(TokenKind::CloseParen) {
        return Some(true);
    }
    if cursor.at_kind(TokenKind::Integer) {
        let token = cursor.take()?;
        return match token.bytes(cursor.text()) {
            b"0" => Some(false),
            b"1" => Some(true),
            _ => None,
        };
    }
    match word(cursor)?.to_ascii_lowercase().as_str() {
        "true" | "on" => Some(true),
        "false" | "off" => Some(false),
        "match" if matches => Some(true),
        _ => None,
    }
}

/// A word or a string.
fn word(cursor: &mut Cursor<'_>) -> Option<String> {
    match cursor.name() {
        Some(name) => Some(name.to_string()),
        None => string(cursor),
    }
}

/// A string literal, with the escapes of `E''`.
fn string(cursor: &mut Cursor<'_>) -> Option<String> {
    let token = cursor.peek()?;
    let value = literal_value(cursor.text(), token).or_else(|| escaped(token.bytes(cursor.text())))?;
    cursor.take();
    Some(value)
}

/// `E'...'` with escapes of single characters.
fn escaped(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let inside = text.strip_prefix(['E', 'e'])?.strip_prefix('\'')?.strip_suffix('\'')?;
    let mut value = String::new();
    let mut chars = inside.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                chars.next_if_eq(&'\'')?;
                value.push('\'');
            }
            '\\' => value.push(match chars.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                // A number of a character; it is rare, and the other spellings are there.
                'x' | 'u' | 'U' | '0'..='7' => return hexadecimal(inside),
                other => other,
            }),
            '\n' | '\r' => return None,
            other => value.push(other),
        }
    }
    Some(value)
}

/// `\x01` alone, as delimiters are given.
fn hexadecimal(inside: &str) -> Option<String> {
    let digits = inside.strip_prefix("\\x").filter(|digits| matches!(digits.len(), 1 | 2))?;
    let code = u8::from_str_radix(digits, 16).ok().filter(u8::is_ascii)?;
    Some(char::from(code).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Lexing;

    fn read(text: &str) -> Option<CopyOptions> {
        let mut cursor = Cursor::new(text.as_bytes(), 0..text.len(), Lexing::default());
        let options = CopyOptions::read(&mut cursor)?;
        (cursor.at_end() || cursor.at("where")).then_some(options)
    }

    fn layout(text: &str) -> CopyLayout {
        read(text).unwrap_or_else(|| panic!("{text}")).layout(&["a".to_owned(), "B".to_owned()])
    }

    #[test]
    fn both_syntaxes() {
        let text = |delimiter: u8, null: &str, header: bool| {
            CopyLayout::Text(TextLayout { delimiter, null: null.as_bytes().to_vec(), header })
        };
        assert_eq!(layout(""), text(b'\t', "\\N", false));
        assert_eq!(layout("WITH (FORMAT text, DELIMITER '|', NULL '', HEADER)"), text(b'|', "", true));
        assert_eq!(layout("(delimiter E'\\x01', null E'\\t', header match)"), text(1, "\t", true));
        assert_eq!(layout("WITH DELIMITER AS ';' NULL 'none' WHERE a > 1"), text(b';', "none", false));
        assert_eq!(layout("USING DELIMITERS ','"), text(b',', "\\N", false));
        assert_eq!(layout("(header 0, freeze, encoding 'latin1')"), text(b'\t', "\\N", false));
        assert_eq!(layout("BINARY"), CopyLayout::Binary);
        assert_eq!(layout("(FORMAT 'binary')"), CopyLayout::Binary);
        assert_eq!(layout("CSV"), CopyLayout::Csv(CsvLayout::default()));
        let csv = CsvLayout {
            delimiter: b';',
            quote: b'\'',
            escape: b'\\',
            null: b"-".to_vec(),
            header: true,
            force_null: vec![0],
            force_not_null: vec![1],
        };
        let new =
            "(FORMAT csv, DELIMITER ';', QUOTE '''', ESCAPE '\\', NULL '-', HEADER on, FORCE_NULL (a), FORCE_NOT_NULL (\"B\"))";
        assert_eq!(layout(new), CopyLayout::Csv(csv.clone()));
        let old = "CSV HEADER DELIMITER ';' NULL '-' QUOTE E'\\'' ESCAPE AS '\\' FORCE NOT NULL \"B\" FORCE NULL a";
        assert_eq!(layout(old), CopyLayout::Csv(csv));
    }

    #[test]
    fn what_is_written() {
        let quoted = |text: &str| match read(text).unwrap().output() {
            CopyFormat::Csv { quoted, marks } => (quoted, marks.delimiter),
            other => panic!("{other:?}"),
        };
        assert_eq!(quoted("CSV"), (Some(Vec::new()), b','));
        assert_eq!(quoted("(format csv, force_quote *)"), (None, b','));
        assert_eq!(quoted("CSV FORCE QUOTE a, b DELIMITER '|'"), (Some(vec!["a".to_owned(), "b".to_owned()]), b'|'));
        assert_eq!(read("(format binary)").unwrap().output(), CopyFormat::Binary);
    }

    #[test]
    fn what_is_not_known() {
        for text in [
            "(default '\\D')",
            "(on_error ignore)",
            "(format json)",
            "(header maybe)",
            "nonsense",
            "(",
            "(null)",
            "WITH DELIMITER 5",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
