//! What ends a statement, or the session.

use crate::types::SqlState;
use crate::wire::WireError;
use crate::wire::error_response::ErrorFields;
use crate::wire::frame::HEADER_LEN;
use crate::wire::reply::Report;

/// Why a statement was not carried out.
#[derive(Debug)]
pub enum Trouble {
    /// It failed: the ErrorResponse that the client gets, whole.
    Failed(Vec<u8>),
    /// The session ends.
    End(ShardedEnd),
}

/// Why a session ended.
#[derive(Debug)]
pub enum ShardedEnd {
    /// The client said goodbye, or its connection ended.
    ClientGone,
    /// pgyard stops, or the console said so.
    Stopped,
    /// The client broke the protocol.
    Protocol(WireError),
    /// A transaction waited for its client for too long.
    TimedOut(std::time::Duration),
}

impl From<Report> for Trouble {
    fn from(report: Report) -> Self {
        let mut message = Vec::new();
        report.put(&mut message);
        Trouble::Failed(message)
    }
}

impl From<WireError> for Trouble {
    fn from(error: WireError) -> Self {
        Trouble::End(ShardedEnd::Protocol(error))
    }
}

impl Trouble {
    /// An error of pgyard's own.
    pub fn error(state: SqlState, message: impl Into<String>) -> Self {
        Report::error(state, message).into()
    }

    /// The SQLSTATE of a statement that failed.
    pub fn state(&self) -> Option<SqlState> {
        match self {
            Trouble::Failed(message) => Some(ErrorFields::read(message.get(HEADER_LEN..).unwrap_or_default()).state),
            Trouble::End(_) => None,
        }
    }
}

/// There is no prepared statement of this name.
pub(super) fn no_statement(name: &[u8]) -> Trouble {
    let text = match name {
        b"" => "unnamed prepared statement does not exist".to_owned(),
        name => format!("prepared statement \"{}\" does not exist", String::from_utf8_lossy(name)),
    };
    Trouble::error(SqlState::INVALID_STATEMENT_NAME, text)
}

/// There is no portal of this name.
pub(super) fn no_portal(name: &[u8]) -> Trouble {
    Trouble::error(SqlState(*b"34000"), format!("portal \"{}\" does not exist", String::from_utf8_lossy(name)))
}
