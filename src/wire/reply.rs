//! Messages that pgyard itself says to a client, encoded with pgwire's message types.
//!
//! pgwire encodes; it never decodes here. These are rare messages: the relay's own path copies bytes.

use crate::types::SqlState;
use bytes::BytesMut;
use pgwire::messages::Message;
use pgwire::messages::data::{DataRow, FieldDescription, RowDescription};
use pgwire::messages::response::{CommandComplete, ErrorResponse, NoticeResponse};
use pgwire::messages::startup::{NegotiateProtocolVersion, ParameterStatus};

/// How bad an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportSeverity {
    /// The statement failed.
    Error,
    /// The session ends.
    Fatal,
    /// A notice.
    Warning,
}

impl ReportSeverity {
    fn word(self) -> &'static str {
        match self {
            ReportSeverity::Error => "ERROR",
            ReportSeverity::Fatal => "FATAL",
            ReportSeverity::Warning => "WARNING",
        }
    }
}

/// What an ErrorResponse or NoticeResponse of our own says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How bad it is.
    pub severity: ReportSeverity,
    /// SQLSTATE.
    pub state: SqlState,
    /// What happened, in PostgreSQL's manner: lower case, no full stop.
    pub message: String,
    /// More of it: whole sentences.
    pub detail: Option<Box<str>>,
    /// What to do: whole sentences, naming the setting to change.
    pub hint: Option<Box<str>>,
    /// Where it happened, as PostgreSQL's context says it.
    pub context: Option<Box<str>>,
}

impl Report {
    /// An error with neither detail nor hint.
    pub fn error(state: SqlState, message: impl Into<String>) -> Self {
        Report { severity: ReportSeverity::Error, state, message: message.into(), detail: None, hint: None, context: None }
    }

    /// An error that ends the session.
    pub fn fatal(state: SqlState, message: impl Into<String>) -> Self {
        Report { severity: ReportSeverity::Fatal, ..Report::error(state, message) }
    }

    /// The same, of a session that ends with it.
    pub fn ending_the_session(self) -> Self {
        Report { severity: ReportSeverity::Fatal, ..self }
    }

    /// With a detail.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into().into_boxed_str());
        self
    }

    /// With a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into().into_boxed_str());
        self
    }

    /// With a context.
    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.context = Some(context.into().into_boxed_str());
        self
    }

    fn fields(&self) -> Vec<(u8, String)> {
        // pgwire writes each field up to a zero byte: a zero inside would cut the message short.
        let clean = |text: &str| text.replace('\0', "\u{fffd}");
        let mut fields = vec![
            (b'S', self.severity.word().to_owned()),
            (b'V', self.severity.word().to_owned()),
            (b'C', self.state.to_string()),
            (b'M', clean(&self.message)),
        ];
        fields.extend(self.detail.as_ref().map(|text| (b'D', clean(text))));
        fields.extend(self.hint.as_ref().map(|text| (b'H', clean(text))));
        fields.extend(self.context.as_ref().map(|text| (b'W', clean(text))));
        fields
    }

    /// Appends the ErrorResponse, or the NoticeResponse of a warning.
    pub fn put(&self, out: &mut Vec<u8>) {
        match self.severity {
            ReportSeverity::Warning => put(out, &NoticeResponse::new(self.fields())),
            _ => put(out, &ErrorResponse::new(self.fields())),
        }
    }
}

fn put(out: &mut Vec<u8>, message: &impl Message) {
    let mut buffer = BytesMut::new();
    // An encoder's only error is a message over PostgreSQL's size limit, which nothing that pgyard says comes near.
    if message.encode(&mut buffer).is_ok() {
        out.extend_from_slice(&buffer);
    }
}

/// Appends a ParameterStatus.
pub fn put_parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    put(out, &ParameterStatus::new(name.to_owned(), value.to_owned()));
}

/// Appends a BackendKeyData. `key` is 4 bytes under protocol 3.0, up to 256 under 3.2.
pub fn put_backend_key(out: &mut Vec<u8>, process: i32, key: &[u8]) {
    super::frame::put_message(out, b'K', |body| {
        body.extend_from_slice(&process.to_be_bytes());
        body.extend_from_slice(key);
    });
}

/// Appends a NegotiateProtocolVersion: the newest minor version that is served, and the options that are not.
pub fn put_negotiate_version(out: &mut Vec<u8>, newest_minor: u16, unsupported: &[String]) {
    // The field is a whole protocol number, as PostgreSQL sends it.
    let version = (3 << 16) | i32::from(newest_minor);
    put(out, &NegotiateProtocolVersion::new(version, unsupported.to_vec()));
}

/// Appends a CommandComplete.
pub fn put_command_complete(out: &mut Vec<u8>, tag: &str) {
    put(out, &CommandComplete::new(tag.to_owned()));
}

/// Appends a ReadyForQuery with a status of `I`, `T` or `E`.
pub fn put_ready(out: &mut Vec<u8>, status: u8) {
    out.extend_from_slice(&[b'Z', 0, 0, 0, 5, status]);
}

/// Appends a message without a body: ParseComplete `1`, BindComplete `2`, CloseComplete `3`, NoData `n`, EmptyQueryResponse `I`.
pub fn put_bare(out: &mut Vec<u8>, tag: u8) {
    out.extend_from_slice(&[tag, 0, 0, 0, 4]);
}

/// Appends a RowDescription of text columns.
pub fn put_text_columns(out: &mut Vec<u8>, names: &[&str]) {
    const TEXT_OID: u32 = 25;
    let fields = names.iter().map(|name| FieldDescription::new((*name).to_owned(), 0, 0, TEXT_OID, -1, -1, 0)).collect();
    put(out, &RowDescription::new(fields));
}

/// Appends a DataRow of text values; `None` is NULL.
pub fn put_text_row(out: &mut Vec<u8>, values: &[Option<&str>]) {
    let mut data = BytesMut::new();
    for value in values {
        match value {
            Some(text) => {
                data.extend_from_slice(&(text.len() as i32).to_be_bytes());
                data.extend_from_slice(text.as_bytes());
            }
            None => data.extend_from_slice(&(-1i32).to_be_bytes()),
        }
    }
    put(out, &DataRow::new(data, values.len() as i16));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::error_response::ErrorFields;
    use crate::wire::frame_at;

    #[test]
    fn an_error_reads_back() {
        let mut out = Vec::new();
        Report::fatal(SqlState::TOO_MANY_CONNECTIONS, "no\0room").hint("Raise `pool.size`.").put(&mut out);
        let frame = frame_at(&out).expect("a frame").expect("whole");
        let fields = ErrorFields::read(frame.body);
        assert_eq!((frame.tag, frame.total), (b'E', out.len()));
        assert_eq!(fields.state, SqlState::TOO_MANY_CONNECTIONS);
        assert!(fields.is_fatal());
        assert_eq!(fields.text(), "no\u{fffd}room");
    }

    #[test]
    fn rows_have_the_documented_shape() {
        let mut out = Vec::new();
        put_text_row(&mut out, &[Some("ab"), None]);
        assert_eq!(out, [b'D', 0, 0, 0, 16, 0, 2, 0, 0, 0, 2, b'a', b'b', 255, 255, 255, 255]);
        let mut out = Vec::new();
        put_negotiate_version(&mut out, 2, &["_pq_.x".to_owned()]);
        assert_eq!(&out[..13], [b'v', 0, 0, 0, 19, 0, 3, 0, 2, 0, 0, 0, 1]);
        let mut out = Vec::new();
        put_text_columns(&mut out, &["a"]);
        assert_eq!(out.len(), 5 + 2 + 2 + 18);
    }
}
