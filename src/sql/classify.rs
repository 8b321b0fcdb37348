//! Text and catalogue in, facts out: a scan first, a tree only where the scan leaves doubts, and a write where both do.

use crate::sql::catalogue::Catalogue;
use crate::sql::commands;
use crate::sql::facts::{Access, Command, Facts, Pins, RouteHint, StatementFacts, WriteReason};
use crate::sql::outcome::Outcome;
use crate::sql::read;
use crate::sql::scan::{Lexing, Scanner};
use crate::sql::survey::{Survey, survey};
use std::sync::OnceLock;

/// What every step of the classification needs to know.
#[derive(Clone, Copy)]
pub(crate) struct Setting<'a> {
    /// The whole text.
    pub(crate) text: &'a [u8],
    /// The names that matter.
    pub(crate) catalogue: &'a Catalogue,
    /// How the server reads the text.
    pub(crate) lexing: Lexing,
}

/// Facts, and whether they hold for every text that differs only in its literals.
pub(crate) struct Classified {
    pub(crate) facts: Facts,
    pub(crate) shareable: bool,
}

/// Says what a query text is: the whole of a simple query, or the text of a Parse.
pub fn classify(text: &[u8], catalogue: &Catalogue, lexing: Lexing) -> Facts {
    classify_shareable(text, catalogue, lexing).facts
}

pub(crate) fn classify_shareable(text: &[u8], catalogue: &Catalogue, lexing: Lexing) -> Classified {
    let setting = Setting { text, catalogue, lexing };
    let mut scanner = Scanner::new(text, lexing);
    let mut outcomes = Vec::with_capacity(1);
    while let Some(survey) = survey(&mut scanner, catalogue) {
        outcomes.push(classify_statement(&setting, &survey));
    }
    let safe = lexes_safely(text, lexing);
    if !safe {
        outcomes.iter_mut().for_each(|outcome| distrust(text, outcome));
    }
    assemble(outcomes, scanner.hint(), safe)
}

/// Classifies one statement. Statements inside it (EXPLAIN, COPY) come here again.
pub(crate) fn classify_statement(setting: &Setting<'_>, survey: &Survey) -> Outcome {
    let mut outcome = match survey.lead {
        _ if !survey.trusted => untrusted(setting, survey),
        Some(lead) => match commands::kind_of(lead.bytes(setting.text)) {
            commands::Kind::Query => read::query(setting, survey),
            kind => commands::classify(setting, survey, kind),
        },
        None => Outcome::unparsed(),
    };
    outcome.facts.span = survey.span.clone();
    outcome
}

/// What no server accepts is an error there and has no effect, unless this scanner is wrong about it: then all is possible.
fn untrusted(setting: &Setting<'_>, survey: &Survey) -> Outcome {
    let mut outcome = Outcome::unparsed();
    if survey.lead.is_some_and(|lead| lead.is_word(setting.text, "copy")) {
        outcome.facts.command = Command::CopyIn;
    }
    if read::may_leave_something(survey) || !setting.lexing.ascii_safe_encoding {
        outcome = outcome.pinned(Pins::OPAQUE);
    }
    outcome
}

/// Whether this scanner splits the text as the server does. Bytes under 0x80 are the same everywhere unless they can be the second
/// half of a character.
pub(crate) fn lexes_safely(text: &[u8], lexing: Lexing) -> bool {
    let escapes = !lexing.standard_conforming_strings && memchr::memchr(b'\\', text).is_some();
    let halves = !lexing.ascii_safe_encoding && !text.is_ascii();
    !escapes && !halves
}

/// Keeps what the statement does to the session, but lets it run on the primary only. Where a half character may have been taken
/// for a backslash, nothing is known of what it leaves behind.
fn distrust(text: &[u8], outcome: &mut Outcome) {
    outcome.facts.access = outcome.facts.access.max(Access::Write(WriteReason::UnsafeLexing));
    outcome.facts.plain_write = false;
    if !text.is_ascii() && memchr::memchr(b'\\', text).is_some() {
        outcome.facts.pins = outcome.facts.pins.union(Pins::OPAQUE);
    }
}

fn assemble(outcomes: Vec<Outcome>, hint: Option<RouteHint>, safe: bool) -> Classified {
    let access = whole_access(&outcomes);
    let pins = outcomes.iter().fold(Pins::NONE, |pins, outcome| pins.union(outcome.facts.pins));
    let changes_catalogue = outcomes.iter().any(|outcome| outcome.changes_catalogue);
    let defines_code = outcomes.iter().any(|outcome| outcome.defines_code);
    let needs_care = outcomes.iter().any(Outcome::needs_care);
    let shareable = safe && hint.is_none() && outcomes.len() == 1 && outcomes[0].shareable;
    let statements: Box<[StatementFacts]> = outcomes.into_iter().map(|outcome| outcome.facts).collect();
    Classified {
        facts: Facts { statements, access, hint, pins, changes_catalogue, defines_code, needs_care, tables: OnceLock::new() },
        shareable,
    }
}

/// The neediest access; a text of writes and others says that it is the company which decides.
fn whole_access(outcomes: &[Outcome]) -> Access {
    let neediest = outcomes.iter().map(|outcome| outcome.facts.access).max().unwrap_or(Access::Read);
    let writes = |outcome: &&Outcome| matches!(outcome.facts.access, Access::Write(_));
    let count = outcomes.iter().filter(writes).count();
    if count == 0 || count == outcomes.len() { neediest } else { neediest.max(Access::Write(WriteReason::SeveralStatements)) }
}

impl Setting<'_> {
    /// Classifies the statement that stands in a part of the text: the inside of an EXPLAIN or a COPY.
    pub(crate) fn inner(&self, span: std::ops::Range<usize>) -> Option<Outcome> {
        let text = self.text.get(..span.end)?;
        let mut scanner = Scanner::starting_at(text, span.start, self.lexing);
        let inner = survey(&mut scanner, self.catalogue)?;
        let kind = commands::kind_of(inner.lead?.bytes(text));
        let setting = Setting { text, ..*self };
        // Nothing that nests again may stand inside, so that the depth stays two.
        if matches!(kind, commands::Kind::Explain | commands::Kind::Copy) {
            None
        } else {
            Some(classify_statement(&setting, &inner))
        }
    }
}
