//! Queries: SELECT, WITH, VALUES, TABLE. And what any statement leaves behind through the functions it calls.

use crate::sql::catalogue::Catalogue;
use crate::sql::classify::Setting;
use crate::sql::cursor::{Cursor, literal_value};
use crate::sql::facts::{Access, Command, Pins, SessionEffect, WriteReason};
use crate::sql::outcome::Outcome;
use crate::sql::scan::{Scanner, Token, TokenKind};
use crate::sql::survey::Survey;
use crate::sql::tree::{self, Proof};
use crate::sql::words::WordFlags;

/// A query: a read if that is proven.
pub(crate) fn query(setting: &Setting<'_>, survey: &Survey) -> Outcome {
    let mut outcome = Outcome::new(Command::Query, access(setting, survey));
    leave_behind(setting, survey, &mut outcome);
    if survey.names.has(WordFlags::INTO) && !survey.data_change {
        outcome.changes_catalogue = true;
        if into_temporary(setting, survey) {
            outcome.facts.pins = outcome.facts.pins.union(Pins::TEMPORARY);
        }
    }
    outcome.shareable = !survey.calls.has(WordFlags::SET_CONFIG | WordFlags::CURRENT_SETTING);
    outcome
}

/// Where a query may run.
pub(crate) fn access(setting: &Setting<'_>, survey: &Survey) -> Access {
    if survey.names.has(WordFlags::INTO) {
        return Access::Write(WriteReason::Nested);
    }
    if survey.locks {
        return Access::Write(WriteReason::Lock);
    }
    if let Some(reason) = suspicion(survey) {
        return Access::Write(reason);
    }
    if survey.unknown_calls || survey.data_change {
        match tree::prove(setting.text, survey, setting.catalogue, setting.lexing) {
            Proof::Read => {}
            Proof::DataChange => return Access::Write(WriteReason::Nested),
            Proof::UnknownFunction => return Access::Write(WriteReason::UnknownFunction),
            Proof::Unparsed => return Access::Write(WriteReason::Unparsed),
        }
    }
    if describes_server(setting, survey) { Access::Server } else { Access::Read }
}

/// What no tree can clear: a name that may be called without parentheses, or that hides more than it says.
pub(crate) fn suspicion(survey: &Survey) -> Option<WriteReason> {
    let all = survey.names | survey.calls;
    if all.has(WordFlags::VOLATILE) {
        let bound = all.has(WordFlags::SESSION_BOUND);
        return Some(if bound { WriteReason::SessionBound } else { WriteReason::VolatileFunction });
    }
    let suspect = all.has(WordFlags::SUSPECT) || survey.casts && all.has(WordFlags::SUSPECT_IF_CAST) || survey.suspect_operator;
    suspect.then_some(WriteReason::SuspectObject)
}

fn describes_server(setting: &Setting<'_>, survey: &Survey) -> bool {
    survey.names.has(WordFlags::SERVER_NAME)
        || survey.calls.has(WordFlags::SERVER_CALL)
        || survey.calls.has(WordFlags::CURRENT_SETTING) && !asks_for_the_cluster_only(setting, survey)
}

/// Whether every `current_setting` is `current_setting('cluster_name')`: people use it to see the routing.
fn asks_for_the_cluster_only(setting: &Setting<'_>, survey: &Survey) -> bool {
    let mut cursor = Cursor::new(setting.text, survey.span.clone(), setting.lexing);
    while let Some(token) = cursor.take() {
        let asked = called(setting.catalogue, setting.text, token).has(WordFlags::CURRENT_SETTING);
        if !asked || !cursor.eat_kind(TokenKind::OpenParen) {
            continue;
        }
        let cluster = cursor.string().is_some_and(|name| name.eq_ignore_ascii_case("cluster_name"));
        if !cluster || !cursor.at_kind(TokenKind::CloseParen) && !cursor.at_kind(TokenKind::Comma) {
            return false;
        }
    }
    true
}

fn called(catalogue: &Catalogue, text: &[u8], token: Token) -> WordFlags {
    match token.kind {
        TokenKind::Word => catalogue.words().word(token.bytes(text)),
        TokenKind::QuotedName => catalogue.words().quoted(&text[token.start + 1..token.end - 1]),
        _ => WordFlags::NONE,
    }
}

/// Whether a statement may change the session through what it calls.
pub(crate) fn may_leave_something(survey: &Survey) -> bool {
    let lasting = WordFlags::OPAQUE | WordFlags::ADVISORY | WordFlags::SET_CONFIG | WordFlags::SEQUENCE | WordFlags::TEMPORARY;
    (survey.names | survey.calls).has(lasting)
}

/// Adds the pins and effects of the functions and views that a statement uses.
pub(crate) fn leave_behind(setting: &Setting<'_>, survey: &Survey, outcome: &mut Outcome) {
    let used = survey.calls | survey.views;
    let mut pins = Pins::NONE;
    for (flag, pin) in
        [(WordFlags::ADVISORY, Pins::ADVISORY), (WordFlags::SEQUENCE, Pins::SEQUENCE), (WordFlags::OPAQUE, Pins::OPAQUE)]
    {
        if used.has(flag) {
            pins = pins.union(pin);
        }
    }
    // `(row).f` calls f, too.
    if survey.names.has(WordFlags::OPAQUE) {
        pins = pins.union(Pins::OPAQUE);
    }
    if used.has(WordFlags::SET_CONFIG) {
        pins = pins.union(follow_set_config(setting, survey, &mut outcome.facts.effects));
    }
    if used.has(WordFlags::LOCAL_SETTING) {
        outcome.facts.effects.push(SessionEffect::SetLocal { name: "".into(), value: None });
    }
    if (survey.names.has(WordFlags::SERVER_NAME) || survey.calls.has(WordFlags::SERVER_CALL))
        && memmem_folded(setting.text, b"pg_prepared_statement")
    {
        outcome.facts.effects.push(SessionEffect::ListStatements);
    }
    outcome.facts.pins = outcome.facts.pins.union(pins);
    if !pins.is_empty() && matches!(outcome.facts.access, Access::Read | Access::Server) {
        // It reads, but its session stays with the server then, and may write next.
        outcome.facts.access = Access::Write(WriteReason::SessionBound);
    }
}

/// Whether `text` holds `word`, which is in lower case, in any case.
pub(crate) fn memmem_folded(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}

/// The effects of each `set_config`, and PARAMETER where one cannot be followed.
fn follow_set_config(setting: &Setting<'_>, survey: &Survey, effects: &mut Vec<SessionEffect>) -> Pins {
    let certain = !survey.names.has(WordFlags::CLAUSE) && survey.lead.is_some_and(|lead| lead.is_word(setting.text, "select"));
    let mut pins = Pins::NONE;
    let mut cursor = Cursor::new(setting.text, survey.span.clone(), setting.lexing);
    while let Some(token) = cursor.take() {
        let call =
            called(setting.catalogue, setting.text, token).has(WordFlags::SET_CONFIG) && cursor.at_kind(TokenKind::OpenParen);
        if !call {
            continue;
        }
        match SetConfig::read(&mut cursor.clone()) {
            Some(SetConfig { name, local: true, value }) => {
                let value = if certain { value.flatten().map(Into::into) } else { None };
                effects.push(SessionEffect::SetLocal { name: name.unwrap_or_default().to_ascii_lowercase().into(), value });
            }
            Some(SetConfig { name: Some(name), value: Some(value), .. }) if certain => {
                effects.push(SessionEffect::Set { name: name.to_ascii_lowercase().into(), value: value.map(Into::into) });
            }
            _ => pins = Pins::PARAMETER,
        }
    }
    pins
}

/// The arguments of a `set_config` as far as they are literals.
struct SetConfig {
    name: Option<String>,
    /// `Some(None)` is NULL, which resets.
    value: Option<Option<String>>,
    local: bool,
}

impl SetConfig {
    /// Reads `(name, value, local)`. `None` if the last is no literal.
    fn read(cursor: &mut Cursor<'_>) -> Option<SetConfig> {
        cursor.eat_kind(TokenKind::OpenParen);
        let mut arguments = [Argument::default(), Argument::default(), Argument::default()];
        let mut index = 0;
        let mut depth = 0usize;
        loop {
            let token = cursor.take()?;
            match token.kind {
                TokenKind::CloseParen if depth == 0 => break,
                TokenKind::CloseParen | TokenKind::CloseBracket => depth = depth.saturating_sub(1),
                TokenKind::OpenParen | TokenKind::OpenBracket => depth += 1,
                TokenKind::Comma if depth == 0 => {
                    index += 1;
                    continue;
                }
                _ => {}
            }
            let argument = arguments.get_mut(index)?;
            argument.tokens += 1;
            argument.token = Some(token);
        }
        let text = cursor.text();
        let [name, value, local] = arguments.map(Argument::only);
        let local = local?;
        let local = if local.is_word(text, "true") {
            true
        } else if local.is_word(text, "false") {
            false
        } else {
            return None;
        };
        let value = value.and_then(|token| {
            let quoted = literal_value(text, token).map(|value| format!("'{}'", value.replace('\'', "''")));
            if token.is_word(text, "null") { Some(None) } else { quoted.map(Some) }
        });
        Some(SetConfig { name: name.and_then(|token| literal_value(text, token)), value, local })
    }
}

#[derive(Clone, Copy, Default)]
struct Argument {
    tokens: usize,
    token: Option<Token>,
}

impl Argument {
    fn only(self) -> Option<Token> {
        if self.tokens == 1 { self.token } else { None }
    }
}

/// Whether SELECT INTO makes a temporary table.
fn into_temporary(setting: &Setting<'_>, survey: &Survey) -> bool {
    let mut cursor = Cursor::new(setting.text, survey.span.clone(), setting.lexing);
    while let Some(token) = cursor.take() {
        if token.is_word(setting.text, "into") {
            cursor.eat_any(&["local", "global"]);
            if ["temp", "temporary", "pg_temp"].iter().any(|word| cursor.at(word)) {
                return true;
            }
        }
    }
    false
}

/// Whether the scanner finds the word anywhere in the statement.
pub(crate) fn mentions(setting: &Setting<'_>, survey: &Survey, word: &str) -> bool {
    let text = setting.text.get(..survey.span.end).unwrap_or_default();
    Scanner::starting_at(text, survey.span.start, setting.lexing).any(|token| token.is_word(text, word))
}
