//! Which unnamed statement a unit leaves behind when an error has ended it.

use super::exchange::Exchange;
use super::run::Session;
use super::send::remember_unnamed;
use super::state::SessionState;
use super::unit::Unit;
use crate::server::UNKNOWN_UNNAMED;
use crate::wire::frame_at;
use crate::wire::named::NamedMessage;
use crate::wire::parse::ParseMessage;

/// Keeps the unnamed statement until it is known whether the Parse that replaces it was reached.
pub(super) fn set_aside(state: &mut SessionState) {
    if state.unnamed_before.is_none() {
        state.unnamed_before = Some(Box::new(std::mem::take(&mut state.unnamed)));
    }
}

/// What a unit's messages up to an error did to the unnamed statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached<'a> {
    /// Nothing.
    Untouched,
    /// Took it away.
    Gone,
    /// Made it this one.
    Parsed(ParseMessage<'a>),
}

impl Session {
    /// Settles the unnamed statement before the unit's bytes are let go.
    pub(super) fn settle_unnamed(&mut self, unit: &Unit, exchange: &Exchange) {
        let before = self.state.unnamed_before.take();
        let Some(link) = self.link.as_mut() else { return };
        let dropped = link.server().incoming.replies.take_dropped_messages();
        if exchange.answer.error.is_none() || !(unit.has_unnamed_parse() || before.is_some()) {
            return;
        }
        link.server().unnamed = UNKNOWN_UNNAMED;
        if exchange.unit_len == 0 {
            // A COPY has begun, and the bytes are gone.
            self.state.unnamed.forget();
            return;
        }
        let messages = &self.client.inbox.as_slice()[..unit.len];
        let failed_at = dropped.map_or(exchange.answer.answered, |dropped| unit.message_count.saturating_sub(dropped));
        match reached(messages, failed_at) {
            (Reached::Untouched, _) => self.state.unnamed = before.map(|before| *before).unwrap_or_default(),
            (Reached::Gone, _) => self.state.unnamed.forget(),
            // What was remembered when the unit was sent.
            (Reached::Parsed(_), true) => self.server_has_unnamed(),
            (Reached::Parsed(parse), false) => {
                remember_unnamed(&parse, &mut self.state);
                self.server_has_unnamed();
            }
        }
    }
}

impl Session {
    /// An error does not take away what was prepared before it.
    fn server_has_unnamed(&mut self) {
        if let (Some(link), None) = (self.link.as_mut(), &self.state.unnamed.kept) {
            link.server().unnamed = self.state.unnamed.tag;
        }
    }
}

/// What the messages before `failed_at` and the failing one did, and whether no later Parse or Close was dropped.
fn reached(mut messages: &[u8], failed_at: usize) -> (Reached<'_>, bool) {
    let (mut reached, mut is_last, mut place) = (Reached::Untouched, true, 0);
    while let Ok(Some(frame)) = frame_at(messages) {
        let touches = match frame.tag {
            // A Parse without a name first forgets the one before.
            b'P' => {
                ParseMessage::read(frame.body).ok().filter(|parse| parse.name.is_empty()).map(|parse| match place < failed_at {
                    true => Reached::Parsed(parse),
                    false => Reached::Gone,
                })
            }
            b'C' => {
                let unnamed = NamedMessage::read(frame.body).is_ok_and(|close| close.statement && close.name.is_empty());
                unnamed.then_some(Reached::Gone)
            }
            _ => None,
        };
        match touches {
            Some(now) if place < failed_at || (place == failed_at && frame.tag == b'P') => reached = now,
            Some(_) => is_last = false,
            None => {}
        }
        place += 1;
        messages = &messages[frame.total..];
    }
    (reached, is_last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::put_message;

    #[test]
    fn an_error_leaves_what_was_reached_before_it() {
        let mut messages = Vec::new();
        let bodies: [(u8, &[u8]); 5] =
            [(b'B', b"\0x\0"), (b'P', b"\0one\0\0\0"), (b'C', b"S\0"), (b'P', b"\0two\0\0\0"), (b'P', b"n\0\0\0\0")];
        for (tag, body) in bodies {
            put_message(&mut messages, tag, |out| out.extend_from_slice(body));
        }
        let check = |failed_at: usize, expect: &str, last: bool| {
            let (found, is_last) = reached(&messages, failed_at);
            let text = match found {
                Reached::Untouched => "untouched".to_owned(),
                Reached::Gone => "gone".to_owned(),
                Reached::Parsed(parse) => String::from_utf8_lossy(parse.text).into_owned(),
            };
            assert_eq!((text.as_str(), is_last), (expect, last), "{failed_at}");
        };
        check(0, "untouched", false);
        check(1, "gone", false);
        check(2, "one", false);
        check(3, "gone", true);
        check(4, "two", true);
    }
}
