//! Everything that is not a plain query. Session and transaction commands are recognised here, word by word: what they do must be
//! known even where no parser knows their syntax.

mod copy;
mod explain;
mod session;
mod set;
mod transaction;
mod write;

pub(crate) use write::{calls_known_only, inner_change};

use crate::sql::classify::Setting;
use crate::sql::cursor::Cursor;
use crate::sql::facts::Command;
use crate::sql::outcome::Outcome;
use crate::sql::survey::Survey;

/// A statement's kind by its first word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// SELECT, WITH, VALUES, TABLE.
    Query,
    Explain,
    Copy,
    /// INSERT, UPDATE, DELETE, MERGE.
    Change,
    Truncate,
    Begin,
    Start,
    Commit,
    Rollback,
    Savepoint,
    Release,
    Prepare,
    Execute,
    Deallocate,
    Set,
    Reset,
    Show,
    Discard,
    Listen,
    Unlisten,
    Notify,
    Declare,
    Close,
    Fetch,
    Load,
    Lock,
    Create,
    /// Other DDL.
    Define,
    Do,
    Call,
    /// VACUUM, REINDEX and others that change no definition.
    Maintain,
    /// No command of PostgreSQL.
    Unknown,
}

/// The longest first word of a command.
const WORD_LENGTH_MAX: usize = 16;

/// The kind that a first word says.
pub(crate) fn kind_of(word: &[u8]) -> Kind {
    if word.eq_ignore_ascii_case(b"select") {
        return Kind::Query;
    }
    let mut folded = [0; WORD_LENGTH_MAX];
    let Some(folded) = folded.get_mut(..word.len()) else { return Kind::Unknown };
    folded.copy_from_slice(word);
    folded.make_ascii_lowercase();
    match &*folded {
        b"with" | b"values" | b"table" => Kind::Query,
        b"insert" | b"update" | b"delete" | b"merge" => Kind::Change,
        b"begin" => Kind::Begin,
        b"start" => Kind::Start,
        b"commit" | b"end" => Kind::Commit,
        b"rollback" | b"abort" => Kind::Rollback,
        b"savepoint" => Kind::Savepoint,
        b"release" => Kind::Release,
        b"prepare" => Kind::Prepare,
        b"execute" => Kind::Execute,
        b"deallocate" => Kind::Deallocate,
        b"set" => Kind::Set,
        b"reset" => Kind::Reset,
        b"show" => Kind::Show,
        b"discard" => Kind::Discard,
        b"listen" => Kind::Listen,
        b"unlisten" => Kind::Unlisten,
        b"notify" => Kind::Notify,
        b"declare" => Kind::Declare,
        b"close" => Kind::Close,
        b"fetch" | b"move" => Kind::Fetch,
        b"load" => Kind::Load,
        b"lock" => Kind::Lock,
        b"copy" => Kind::Copy,
        b"explain" => Kind::Explain,
        b"truncate" => Kind::Truncate,
        b"create" => Kind::Create,
        b"alter" | b"drop" | b"grant" | b"revoke" | b"import" | b"reassign" => Kind::Define,
        b"do" => Kind::Do,
        b"call" => Kind::Call,
        b"vacuum" | b"analyze" | b"analyse" | b"cluster" | b"reindex" | b"refresh" | b"checkpoint" | b"comment" | b"security" => {
            Kind::Maintain
        }
        _ => Kind::Unknown,
    }
}

/// Classifies a statement of this kind.
pub(crate) fn classify(setting: &Setting<'_>, survey: &Survey, kind: Kind) -> Outcome {
    let mut cursor = Cursor::new(setting.text, survey.span.clone(), setting.lexing);
    cursor.take();
    let understood = match kind {
        Kind::Begin | Kind::Start => transaction::begin(&mut cursor, kind),
        Kind::Commit => transaction::commit(&mut cursor),
        Kind::Rollback => transaction::rollback(&mut cursor),
        Kind::Savepoint | Kind::Release => transaction::savepoint(&mut cursor, kind),
        Kind::Set => set::set(&mut cursor),
        Kind::Reset => set::reset(&mut cursor),
        Kind::Show => set::show(&mut cursor),
        Kind::Prepare => session::prepare(&mut cursor),
        Kind::Execute => session::execute(setting, survey, &mut cursor),
        Kind::Deallocate => session::deallocate(&mut cursor),
        Kind::Discard => session::discard(&mut cursor),
        Kind::Listen => session::listen(&mut cursor),
        Kind::Unlisten => session::unlisten(&mut cursor),
        Kind::Declare => Some(session::declare(setting, survey, &mut cursor)),
        Kind::Close => session::close(&mut cursor),
        Kind::Fetch => Some(session::fetch()),
        Kind::Notify | Kind::Load | Kind::Lock => Some(session::bound_to_primary(kind)),
        Kind::Copy => copy::copy(setting, survey, &mut cursor),
        Kind::Explain => explain::explain(setting, survey, &mut cursor),
        Kind::Query | Kind::Unknown => None,
        _ => Some(write::write(setting, survey, &mut cursor, kind)),
    };
    understood.unwrap_or_else(|| {
        let mut outcome = Outcome::unparsed();
        if kind == Kind::Copy {
            outcome.facts.command = Command::CopyIn;
        }
        crate::sql::read::leave_behind(setting, survey, &mut outcome);
        outcome
    })
}
