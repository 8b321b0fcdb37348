//! ErrorResponse and NoticeResponse: the fields that decide what happens next.

use super::Cursor;
use super::reply::Report;
use crate::types::SqlState;

/// The fields of an ErrorResponse that pgyard acts upon.
///
/// Spec: "Error and Notice Message Fields".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    /// The severity that is never translated (`V`), or `S` before version 9.6.
    pub severity: &'a [u8],
    /// The SQLSTATE.
    pub state: SqlState,
    /// The message.
    pub message: &'a [u8],
    /// More of it; empty if there is none.
    pub detail: &'a [u8],
    /// What to do; empty if nothing is said.
    pub hint: &'a [u8],
    /// The function in the server's source that reported it; never translated.
    pub routine: &'a [u8],
}

impl<'a> ErrorFields<'a> {
    /// Reads a body; what is missing or malformed is empty, for an error must never be lost.
    pub fn read(body: &'a [u8]) -> Self {
        let mut fields =
            ErrorFields { severity: b"", state: SqlState::INTERNAL_ERROR, message: b"", detail: b"", hint: b"", routine: b"" };
        let mut cursor = Cursor::new(body);
        while let Ok(code) = cursor.byte() {
            if code == 0 {
                break;
            }
            let Ok(value) = cursor.string() else { break };
            match code {
                b'V' => fields.severity = value,
                b'S' if fields.severity.is_empty() => fields.severity = value,
                b'C' => {
                    if let Ok(state) = value.try_into() {
                        fields.state = SqlState(state);
                    }
                }
                b'M' => fields.message = value,
                b'D' => fields.detail = value,
                b'H' => fields.hint = value,
                b'R' => fields.routine = value,
                _ => {}
            }
        }
        fields
    }

    /// Whether the server ends the connection after it.
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity, b"FATAL" | b"PANIC")
    }

    /// The same as an error of pgyard's own that ends no session.
    pub fn report(&self) -> Report {
        let text = |field: &[u8]| (!field.is_empty()).then(|| String::from_utf8_lossy(field).into());
        Report { detail: text(self.detail), hint: text(self.hint), ..Report::error(self.state, self.text()) }
    }

    /// The message as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.message).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_fields_that_matter() {
        let fields = ErrorFields::read(b"SFEHLER\0VFATAL\0C57P01\0Mgone\0\0");
        assert_eq!(fields.state, SqlState::ADMIN_SHUTDOWN);
        assert!(fields.is_fatal());
        assert_eq!(fields.text(), "gone");
        assert_eq!(fields.report(), Report::error(SqlState::ADMIN_SHUTDOWN, "gone"));
        let fields = ErrorFields::read(b"VERROR\0C22023\0Minvalid\0DWhy.\0HTry.\0\0");
        assert_eq!(fields.report(), Report::error(SqlState::INVALID_PARAMETER_VALUE, "invalid").detail("Why.").hint("Try."));
        for bad in [&b""[..], b"\0", b"C57\0", b"M", b"Mno end", b"C\xff\xff\xff\xff\xff\xff\0\0"] {
            assert_eq!(ErrorFields::read(bad).state, SqlState::INTERNAL_ERROR);
        }
    }
}
