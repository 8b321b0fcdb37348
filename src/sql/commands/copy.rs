//! COPY: only TO STDOUT reads. TO a file or a program succeeds on a standby, but the file would be on the wrong host.
//!
//! Spec: PostgreSQL's gram.y, CopyStmt. STDIN and STDOUT are accepted in both directions.

use crate::sql::classify::Setting;
use crate::sql::cursor::Cursor;
use crate::sql::facts::{Access, Command, WriteReason};
use crate::sql::outcome::Outcome;
use crate::sql::read;
use crate::sql::scan::TokenKind;
use crate::sql::survey::Survey;

/// What is copied.
enum Source {
    Table,
    /// A query, which stands here.
    Query(std::ops::Range<usize>),
}

pub(super) fn copy(setting: &Setting<'_>, survey: &Survey, cursor: &mut Cursor<'_>) -> Option<Outcome> {
    let source = source(cursor)?;
    let to = cursor.eat("to");
    if !to && !cursor.eat("from") {
        return None;
    }
    let stream = cursor.eat_any(&["stdin", "stdout"]);
    let mut outcome = match (to, stream) {
        (true, true) => copy_out(setting, survey, source)?,
        (true, false) => Outcome::write(WriteReason::ServerFile),
        (false, true) => Outcome::new(Command::CopyIn, Access::Write(WriteReason::Command)),
        (false, false) => Outcome::write(WriteReason::Command),
    };
    read::leave_behind(setting, survey, &mut outcome);
    if survey.names.has(crate::sql::words::WordFlags::OPAQUE_WRITE) && !to {
        outcome = outcome.pinned(crate::sql::facts::Pins::OPAQUE);
    }
    Some(outcome)
}

fn source(cursor: &mut Cursor<'_>) -> Option<Source> {
    if cursor.eat_kind(TokenKind::OpenParen) {
        let start = cursor.position();
        let close = cursor.skip_parenthesis()?;
        return Some(Source::Query(start..close.start));
    }
    cursor.eat("binary");
    cursor.name()?;
    while cursor.eat_kind(TokenKind::Dot) {
        cursor.name()?;
    }
    if cursor.eat_kind(TokenKind::OpenParen) {
        cursor.skip_parenthesis()?;
    }
    Some(Source::Table)
}

fn copy_out(setting: &Setting<'_>, survey: &Survey, source: Source) -> Option<Outcome> {
    let access = match source {
        // Nothing is called here, but a policy or a generated relation may stand behind the name.
        Source::Table => read::suspicion(survey).map_or(Access::Read, Access::Write),
        Source::Query(span) => match setting.inner(span)?.facts.access {
            Access::Write(WriteReason::Command) => Access::Write(WriteReason::Nested),
            access => access,
        },
    };
    Some(Outcome::new(Command::CopyOut, access))
}
