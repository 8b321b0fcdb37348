//! Errors that quote a statement's name: servers say pgyard's, clients must read their own.

use super::state::SessionState;
use crate::server::prepared::{SERVER_NAME_PREFIX, ServerStatementName, id_of};
use crate::wire::Cursor;
use crate::wire::error_response::ErrorFields;
use crate::wire::frame::put_string;

/// What reports errors that quote a name; never translated, as the messages are.
///
/// Spec: `src/backend/commands/prepare.c`, `src/backend/tcop/postgres.c`.
const QUOTING: [&[u8]; 3] = [b"StorePreparedStatement", b"FetchPreparedStatement", b"exec_bind_message"];

/// Stands before a client's name that could be taken for one of pgyard's, where the session has not given it: no server knows it
/// then.
const UNKNOWN_PREFIX: &[u8] = b"\x01";

/// The name of a statement in what is sent.
pub(super) enum SentName<'n> {
    /// pgyard's.
    Shared(ServerStatementName),
    /// The client's.
    AsItIs(&'n [u8]),
    /// One that no server knows.
    Made(Vec<u8>),
}

impl SentName<'_> {
    /// Without a zero behind it.
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            SentName::Shared(name) => name.as_bytes(),
            SentName::AsItIs(name) => name,
            SentName::Made(name) => name,
        }
    }
}

/// A name that no server knows, in the place of one that the session has not given; `None` if that will do.
pub(super) fn unknown_name(name: &[u8]) -> Option<Vec<u8>> {
    let bare = name.strip_prefix(UNKNOWN_PREFIX).unwrap_or(name);
    bare.starts_with(SERVER_NAME_PREFIX.as_bytes()).then(|| [UNKNOWN_PREFIX, name].concat())
}

/// The body of an error as the client is to read it; `None` if that is as it is.
pub(super) fn shown_error(body: &[u8], state: &SessionState) -> Option<Vec<u8>> {
    memchr::memmem::find(body, SERVER_NAME_PREFIX.as_bytes())?;
    if !QUOTING.contains(&ErrorFields::read(body).routine) {
        return None;
    }
    let mut shown = Vec::with_capacity(body.len());
    let mut cursor = Cursor::new(body);
    while let Ok(code) = cursor.byte() {
        shown.push(code);
        if code == 0 {
            break;
        }
        let value = cursor.string().ok()?;
        if code == b'M' {
            put_string(&mut shown, &shown_message(value, state)?);
        } else {
            put_string(&mut shown, value);
        }
    }
    Some(shown)
}

fn shown_message(message: &[u8], state: &SessionState) -> Option<Vec<u8>> {
    let start = memchr::memmem::find(message, SERVER_NAME_PREFIX.as_bytes())?;
    let digits = message[start + SERVER_NAME_PREFIX.len()..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (before, rest) = message.split_at(start);
    let (name, after) = rest.split_at(SERVER_NAME_PREFIX.len() + digits);
    if let Some(before) = before.strip_suffix(UNKNOWN_PREFIX) {
        return Some([before, name, after].concat());
    }
    let own = state.name_of(id_of(name)?)?;
    Some([before, own, after].concat())
}

/// The body of a notification as the client is to read it; `None` if that is as it is. Clients tell their own notifications by the
/// process that they were told at their log-in, which is pgyard's affair: so that one and the server's change places, and no other
/// process is taken for either.
///
/// Spec: `PGnotify.be_pid` and `PQbackendPID` of libpq.
pub(super) fn shown_notification(body: &[u8], client: i32, server: i32) -> Option<Vec<u8>> {
    let (process, rest) = body.split_first_chunk()?;
    let shown = match i32::from_be_bytes(*process) {
        _ if client == 0 => return None,
        process if process == server => client,
        process if process == client => server,
        _ => return None,
    };
    Some([&shown.to_be_bytes()[..], rest].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Consistency;
    use crate::database::Statements;
    use crate::server::ParameterSet;
    use crate::server::prepared::server_name;

    #[test]
    fn a_client_reads_its_own_process_in_its_own_notifications() {
        let body = |process: i32| [&process.to_be_bytes()[..], b"channel\0payload\0"].concat();
        let check =
            |from: i32, expect: Option<i32>| assert_eq!(shown_notification(&body(from), 7, 4000), expect.map(body), "{from}");
        check(4000, Some(7));
        check(7, Some(4000));
        check(8, None);
        assert_eq!(shown_notification(&body(4000), 0, 4000), None, "not a client of the network");
        assert_eq!(shown_notification(b"\0\0", 7, 0), None);
    }

    #[test]
    fn names_are_shown_as_the_client_gave_them() {
        let mut state = SessionState::new(ParameterSet::default(), std::sync::Arc::default(), Consistency::Session, true);
        let statement = Statements::default().intern(b"1\0\0\0", 1, "");
        state.name_statement(b"mine", statement.clone(), 0);
        let name = server_name(statement.id);
        let body = |message: &str, routine: &str| format!("SERROR\0C42P05\0M{message}\0R{routine}\0\0").into_bytes();
        let check = |message: &str, routine: &str, expect: Option<&str>| {
            let shown = shown_error(&body(message, routine), &state);
            assert_eq!(shown, expect.map(|expect| body(expect, routine)), "{message}");
        };
        let store = "StorePreparedStatement";
        check(
            &format!("prepared statement \"{name}\" already exists"),
            store,
            Some("prepared statement \"mine\" already exists"),
        );
        check(&format!("vorbereitete Anweisung »{name}« existiert"), store, Some("vorbereitete Anweisung »mine« existiert"));
        check(&format!("invalid input syntax: \"{name}\""), "pg_strtoint32", None);
        check("prepared statement \"x\" already exists", store, None);
        check(&format!("\"{name}0\""), store, None);
        let unknown = String::from_utf8(unknown_name(b"pgyard_1").expect("made")).expect("ASCII");
        check(&format!("prepared statement \"{unknown}\""), "FetchPreparedStatement", Some("prepared statement \"pgyard_1\""));
        assert_eq!((unknown_name(b"x"), unknown_name(b"?pgyard_")), (None, None));
        state.forget_statement(b"mine", 1);
        assert!(shown_error(&body(&format!("\"{name}\""), store), &state).is_some(), "taken away in the same unit");
    }
}
