//! What a text is answered with: one row with the number 1, unless somebody would stumble over that.
//!
//! pgyard's control plane asks what a host is and how far it has come; it must believe that it sees a cluster. pgbench asks how
//! large its tables are. `fake_rows(N)` in a text asks for N rows of about 100 bytes.

use super::{FakeRole, put};

/// How a client wants values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// As text.
    #[default]
    Text,
    /// In PostgreSQL's binary form.
    Binary,
}

/// A value with its type.
#[derive(Clone, Copy, Debug)]
enum Value {
    Bool(bool),
    Int4(i32),
    Int8(i64),
    Text(&'static str),
    NullText,
    NullInt4,
}

use Value::{Bool, Int4, Int8, NullInt4, NullText, Text};

/// A column of a fake table's wide row.
const WIDE: &str = "....................................................................................................";
/// 2020-01-01 in microseconds since 2000-01-01: when every fake server was started.
const STARTED: Value = Int8(631_152_000_000_000);
/// The same, as `timestamptz_send` gives it, in hexadecimal.
const STARTED_SENT: Value = Text("00023e0786c26000");
const LSN: Value = Text("0/3000000");
const LOG_FILE: Value = Text("000000010000000000000003");

/// pgyard's queries to its hosts, each known by a word that nothing else has, with the answers of a primary and of a replica.
/// Where it changes those queries, this table follows.
const CONTROL: [(&str, &[Value], &[Value]); 9] = [
    // A new pooled connection asks which server it leads to.
    ("timestamptz_send", &[STARTED_SENT], &[STARTED_SENT]),
    ("has_function_privilege", &[Bool(true), Bool(true)], &[Bool(true), Bool(true)]),
    ("select system_identifier", &[Int8(7)], &[Int8(7)]),
    (
        "pg_stat_wal_receiver",
        &[Bool(false), LSN, LOG_FILE, Bool(false), NullInt4, Int4(1), STARTED, STARTED],
        &[Bool(true), LSN, NullText, Bool(true), Int4(1), Int4(1), STARTED, STARTED],
    ),
    (
        "pg_current_wal_insert_lsn",
        &[Bool(false), LSN, LSN, LOG_FILE, Bool(false), Int4(200), STARTED],
        &[Bool(true), Text("0/0"), Text("0/0"), Text(""), Bool(false), Int4(200), STARTED],
    ),
    // A hash of roles' and databases' settings; the sampler asks only whether any turns synchronous commits off.
    ("hashtextextended", &[Int8(0)], &[Int8(0)]),
    ("pg_db_role_setting", &[Bool(false)], &[Bool(false)]),
    // The look-up of a role that has no password and may do everything.
    ("pg_authid", &[Text("bench"), NullText, Bool(true), Bool(false), Bool(true)], &[]),
    // pgbench asks whether its table is partitioned.
    ("pg_partitioned_table", &[Int4(1), NullText, Int4(0)], &[Int4(1), NullText, Int4(0)]),
];

/// What one statement is answered with.
#[derive(Clone, Debug, Default)]
pub struct FakeAnswer {
    values: &'static [Value],
    rows: u32,
    completion: &'static str,
    status: Option<u8>,
    text_parameters: u16,
}

impl FakeAnswer {
    /// The answer to a text, which may end with a zero.
    pub fn to(text: &[u8], role: FakeRole) -> FakeAnswer {
        let text = text.trim_ascii_start();
        let word_end = text.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(text.len());
        let done = |completion: &'static str, status| FakeAnswer { completion, status, ..FakeAnswer::default() };
        match text[..word_end.min(8)].to_ascii_uppercase().as_slice() {
            b"SELECT" | b"WITH" | b"VALUES" | b"TABLE" | b"SHOW" => FakeAnswer::to_query(text, role),
            b"BEGIN" | b"START" => done("BEGIN\0", Some(b'T')),
            b"COMMIT" | b"END" => done("COMMIT\0", Some(b'I')),
            b"ROLLBACK" | b"ABORT" => done("ROLLBACK\0", Some(b'I')),
            b"UPDATE" => done("UPDATE 1\0", None),
            b"INSERT" => done("INSERT 0 1\0", None),
            b"DELETE" => done("DELETE 1\0", None),
            b"DISCARD" => done("DISCARD ALL\0", None),
            _ => done("SET\0", None),
        }
    }

    fn to_query(text: &[u8], role: FakeRole) -> FakeAnswer {
        let row = FakeAnswer { values: &[Int4(1)], rows: 1, completion: "SELECT 1\0", ..FakeAnswer::default() };
        // The catalogue of a database that has nothing but what PostgreSQL brings.
        if contains(text, "pg_rewrite") {
            return FakeAnswer { completion: "SELECT 0\0", ..FakeAnswer::default() };
        }
        if let Some(count) = fake_rows(text) {
            return FakeAnswer { values: &[Text(WIDE)], rows: count, ..row };
        }
        // Statements of benchmarks name no table of the catalogue, so that this is all that they pay.
        if !contains(text, "pg_") && !contains(text, "system_identifier") {
            return row;
        }
        match CONTROL.iter().find(|(word, ..)| contains(text, word)) {
            Some((word, primary, replica)) => {
                let values = if role == FakeRole::Replica && !replica.is_empty() { replica } else { primary };
                FakeAnswer { values, text_parameters: if *word == "pg_authid" { 2 } else { 0 }, ..row }
            }
            None => row,
        }
    }

    /// How many rows there are.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// The CommandComplete's body.
    pub fn completion(&self) -> &'static [u8] {
        if self.completion.is_empty() { b"SELECT 0\0" } else { self.completion.as_bytes() }
    }

    /// The transaction status from here on, if it changes.
    pub fn status(&self) -> Option<u8> {
        self.status
    }

    /// Appends a ParameterDescription.
    pub fn put_parameters(&self, out: &mut Vec<u8>) {
        let mut body = self.text_parameters.to_be_bytes().to_vec();
        (0..self.text_parameters).for_each(|_| body.extend_from_slice(&25_u32.to_be_bytes()));
        put::message(out, b't', &body);
    }

    /// Appends a RowDescription where there are columns, else nothing.
    pub fn put_description(&self, format: Format, out: &mut Vec<u8>) {
        if self.values.is_empty() {
            return;
        }
        let mut body = (self.values.len() as u16).to_be_bytes().to_vec();
        for value in self.values {
            let (oid, length) = value.kind();
            body.extend_from_slice(b"column\0\0\0\0\0\0\0");
            body.extend_from_slice(&oid.to_be_bytes());
            body.extend_from_slice(&length.to_be_bytes());
            body.extend_from_slice(&(-1_i32).to_be_bytes());
            body.extend_from_slice(&u16::from(format == Format::Binary).to_be_bytes());
        }
        put::message(out, b'T', &body);
    }

    /// Appends a RowDescription, or NoData where there are no columns.
    pub fn put_description_or_none(&self, format: Format, out: &mut Vec<u8>) {
        if self.values.is_empty() {
            put::message(out, b'n', &[]);
        } else {
            self.put_description(format, out);
        }
    }

    /// Appends a DataRow.
    pub fn put_row(&self, format: Format, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(b"D\0\0\0\0");
        out.extend_from_slice(&(self.values.len() as u16).to_be_bytes());
        self.values.iter().for_each(|value| value.put(format, out));
        let length = (out.len() - start - 1) as u32;
        out[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
    }
}

impl Value {
    /// Its type's OID and length.
    fn kind(self) -> (u32, i16) {
        match self {
            Bool(_) => (16, 1),
            Int8(_) => (20, 8),
            Int4(_) | NullInt4 => (23, 4),
            Text(_) | NullText => (25, -1),
        }
    }

    fn put(self, format: Format, out: &mut Vec<u8>) {
        let mut sized = |bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            out.extend_from_slice(bytes);
        };
        match (self, format) {
            (NullText | NullInt4, _) => out.extend_from_slice(&(-1_i32).to_be_bytes()),
            (Text(text), _) => sized(text.as_bytes()),
            (Bool(value), Format::Binary) => sized(&[u8::from(value)]),
            (Int4(value), Format::Binary) => sized(&value.to_be_bytes()),
            (Int8(value), Format::Binary) => sized(&value.to_be_bytes()),
            (Bool(value), Format::Text) => sized(if value { b"t" } else { b"f" }),
            (Int4(value), Format::Text) => sized(value.to_string().as_bytes()),
            (Int8(value), Format::Text) => sized(value.to_string().as_bytes()),
        }
    }
}

/// N of `fake_rows(N)`.
fn fake_rows(text: &[u8]) -> Option<u32> {
    let at = find(text, b"fake_rows(")? + b"fake_rows(".len();
    let digits = text[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0_u32, |sum, digit| sum.saturating_mul(10).saturating_add(u32::from(digit - b'0'))))
}

fn contains(text: &[u8], word: &str) -> bool {
    find(text, word.as_bytes()).is_some()
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window == word)
}
