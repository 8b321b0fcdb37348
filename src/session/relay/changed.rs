//! Messages that the client gets in other words than the server's or in its place, and what it must be told before its ReadyForQuery.

use super::{Answer, Ranges};
use crate::server::Incoming;
use crate::session::recover::timed_out;
use crate::session::shown::{shown_error, shown_notification};
use crate::session::state::SessionState;
use crate::types::SqlState;
use crate::wire::error_response::ErrorFields;
use crate::wire::frame::{HEADER_LEN, put_message};
use crate::wire::reply::put_parameter_status;
use std::hint::cold_path;

/// Forwards a message in other words: an error that quotes a name of pgyard's with the client's name, one of pgyard's own cancelling with its
/// reason, a notification with the process that its client knows. False if it can go as it is, as ReadyForQuery does behind what the client must be told first.
pub(super) fn put_changed(tag: u8, body: &[u8], ranges: &mut Ranges<'_>, (server, answer): (&mut Incoming, &mut Answer)) -> bool {
    let Some(session) = ranges.session else { return false };
    let shown = match tag {
        b'Z' => {
            if must_be_told(Some(session), server) {
                tell_parameters(session, ranges, server);
            }
            return false;
        }
        b'A' => {
            cold_path();
            shown_notification(body, session.process, server.process)
        }
        _ if answer.timed_out && ErrorFields::read(body).state == SqlState::QUERY_CANCELED => {
            cold_path();
            ranges.flush();
            let out = ranges.outbox.writer();
            let before = out.len();
            timed_out().put(out);
            answer.bytes += (out.len() - before) as u64;
            return true;
        }
        _ => {
            cold_path();
            shown_error(body, session)
        }
    };
    let Some(shown) = shown else { return false };
    ranges.flush();
    put_message(ranges.outbox.writer(), tag, |out| out.extend_from_slice(&shown));
    answer.bytes += (HEADER_LEN + shown.len()) as u64;
    true
}

/// Whether the session's client was told other parameters than the server has.
pub(super) fn must_be_told(session: Option<&SessionState>, server: &Incoming) -> bool {
    session.is_some_and(|session| session.told_mark ^ server.told != server.reported.mark())
}

/// The server's parameters are others than the client was told: its configuration files were read again while it served others, or those
/// of another server say something else. A server of the client's own would have reported that too.
#[cold]
fn tell_parameters(session: &SessionState, ranges: &mut Ranges<'_>, server: &mut Incoming) {
    server.told = session.told_mark ^ server.reported.mark();
    // A leg's client knows its parameters by itself.
    if session.process != 0 {
        ranges.flush();
        let out = ranges.outbox.writer();
        server.reported.of_session().for_each(|(name, value)| put_parameter_status(out, name, value));
    }
}

/// Answers of pgyard's own whose turn it is.
pub(super) fn put_fakes(ranges: &mut Ranges<'_>, server: &mut Incoming, answer: &Answer) {
    while let Some(tag) = server.replies.take_fake() {
        if answer.refused.is_none() {
            ranges.flush();
            crate::wire::reply::put_bare(ranges.outbox.writer(), tag);
        }
    }
}
