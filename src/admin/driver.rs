//! What drivers and psql send by themselves: answered as a server would, where that takes no server.

use super::command::ConsoleCommand;
use super::table::ResultTable;
use super::words::Word;
use crate::types::SqlState;
use crate::wire::reply::Report;
use std::borrow::Cow;

/// A step of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransactionStep {
    /// BEGIN, START TRANSACTION.
    Begin,
    /// COMMIT, END.
    Commit,
    /// ROLLBACK, ABORT.
    Rollback,
    /// SAVEPOINT.
    Savepoint,
    /// RELEASE.
    Release,
    /// ROLLBACK TO.
    RollbackTo,
}

impl TransactionStep {
    /// The tag of its CommandComplete.
    pub(super) fn tag(self) -> &'static str {
        match self {
            TransactionStep::Begin => "BEGIN",
            TransactionStep::Commit => "COMMIT",
            TransactionStep::Rollback | TransactionStep::RollbackTo => "ROLLBACK",
            TransactionStep::Savepoint => "SAVEPOINT",
            TransactionStep::Release => "RELEASE",
        }
    }
}

/// Run-time parameters that drivers ask for.
const PARAMETERS: [(&str, &str); 15] = [
    ("server_version", "15.0"),
    ("server_version_num", "150000"),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("datestyle", "ISO, MDY"),
    ("timezone", "UTC"),
    ("time zone", "UTC"),
    ("standard_conforming_strings", "on"),
    ("integer_datetimes", "on"),
    ("transaction isolation level", "read committed"),
    ("transaction_isolation", "read committed"),
    ("transaction_read_only", "off"),
    ("default_transaction_read_only", "off"),
    ("in_hot_standby", "off"),
    ("search_path", "\"$user\", public"),
];

/// The command that begins with `lead`, if it is one that drivers send.
///
/// # Errors
/// It is a query that only a server could answer.
pub(super) fn command(lead: &str, rest: &[Word]) -> Result<Option<ConsoleCommand>, Report> {
    use ConsoleCommand::{Accepted, Transaction};
    let first = rest.first().and_then(Word::keyword).unwrap_or_default();
    let second = rest.get(1).and_then(Word::keyword).unwrap_or_default();
    Ok(Some(match lead {
        "begin" => Transaction(TransactionStep::Begin),
        "start" if first == "transaction" => Transaction(TransactionStep::Begin),
        "commit" | "end" => Transaction(TransactionStep::Commit),
        "rollback" if first == "to" || second == "to" => Transaction(TransactionStep::RollbackTo),
        "rollback" | "abort" => Transaction(TransactionStep::Rollback),
        "savepoint" if rest.len() == 1 => Transaction(TransactionStep::Savepoint),
        "release" if !rest.is_empty() => Transaction(TransactionStep::Release),
        "set" if rest.len() > 1 => Accepted("SET"),
        "reset" if rest.len() == 1 => Accepted("RESET"),
        "discard" if first == "all" => ConsoleCommand::Deallocate(None),
        "unlisten" if rest.len() == 1 => Accepted("UNLISTEN"),
        "close" if first == "all" => Accepted("CLOSE CURSOR ALL"),
        "deallocate" => match rest {
            [.., last] if last.is("all") => ConsoleCommand::Deallocate(None),
            [.., last] => ConsoleCommand::Deallocate(last.name().map(str::to_owned)),
            [] => return Ok(None),
        },
        "select" => ConsoleCommand::Constant(select(rest)?, "SELECT 1"),
        "insert" | "update" | "delete" | "with" | "table" | "values" | "copy" | "create" | "explain" => return Err(no_queries()),
        _ => return Ok(None),
    }))
}

/// SHOW of a run-time parameter.
pub(super) fn shown_parameter(name: &str) -> Option<ConsoleCommand> {
    let (name, value) = PARAMETERS.into_iter().find(|(known, _)| *known == name)?;
    let column = if name.contains(' ') { name.replace("time zone", "TimeZone").replace(' ', "_") } else { name.to_owned() };
    let table = ResultTable { columns: vec![Cow::Owned(column)], rows: vec![vec![Some(value.to_owned())]] };
    Some(ConsoleCommand::Constant(table, "SHOW"))
}

fn no_queries() -> Report {
    Report::error(SqlState::FEATURE_NOT_SUPPORTED, "the console answers no queries: it is no database")
        .hint("SHOW HELP lists its commands. To run SQL, connect to another database than \"pgyard\".")
}

/// `SELECT 1`, `SELECT version()`, `SELECT 'a' AS b, current_user`: constants and what drivers ask at their start.
fn select(rest: &[Word]) -> Result<ResultTable, Report> {
    let mut table = ResultTable::default();
    let mut row = Vec::new();
    for item in rest.split(|word| *word == Word::Symbol(',')) {
        let (column, value) = selected(item).ok_or_else(no_queries)?;
        table.columns.push(column);
        row.push(value);
    }
    table.rows.push(row);
    Ok(table)
}

fn selected(item: &[Word]) -> Option<(Cow<'static, str>, Option<String>)> {
    let (expression, alias) = match item {
        [expression @ .., keyword, alias] if keyword.is("as") => (expression, Some(alias.name()?.to_owned())),
        other => (other, None),
    };
    let (column, value) = match expression {
        [Word::Text(text)] => ("?column?".to_owned(), Some(text.clone())),
        [Word::Bare(word)] if word.bytes().all(|byte| byte.is_ascii_digit()) => ("?column?".to_owned(), Some(word.clone())),
        [Word::Bare(word)] if word.eq_ignore_ascii_case("null") => ("?column?".to_owned(), None),
        [Word::Bare(word)] | [Word::Bare(word), Word::Symbol('('), Word::Symbol(')')] => {
            let name = word.to_ascii_lowercase();
            let name = name.strip_prefix("pg_catalog.").unwrap_or(&name);
            (name.to_owned(), Some(function(name)?))
        }
        _ => return None,
    };
    Some((Cow::Owned(alias.unwrap_or(column)), value))
}

fn function(name: &str) -> Option<String> {
    let value = match name {
        "version" => format!("PostgreSQL 15.0 (pgyard {})", env!("CARGO_PKG_VERSION")),
        "current_database" | "current_catalog" | "current_user" | "session_user" | "user" => "pgyard".to_owned(),
        "current_schema" => "public".to_owned(),
        "pg_backend_pid" => "0".to_owned(),
        // asyncpg's pool lets go of what a connection may have left.
        "pg_advisory_unlock_all" => String::new(),
        "pg_is_in_recovery" => "f".to_owned(),
        "true" => "t".to_owned(),
        "false" => "f".to_owned(),
        _ => return None,
    };
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::super::command::parse;
    use super::*;

    fn row(text: &str) -> Vec<(String, String)> {
        match parse(text).as_deref() {
            Ok([ConsoleCommand::Constant(table, _)]) => {
                let values = table.rows[0].iter().map(|value| value.clone().unwrap_or_else(|| "NULL".to_owned()));
                table.columns.iter().map(ToString::to_string).zip(values).collect()
            }
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn constants_are_answered() {
        let check = |text: &str, expect: &[(&str, &str)]| {
            let expect: Vec<_> = expect.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            assert_eq!(row(text), expect, "{text}");
        };
        check("SELECT 1", &[("?column?", "1")]);
        check("select 1 as one, 'x', null", &[("one", "1"), ("?column?", "x"), ("?column?", "NULL")]);
        check("select pg_catalog.pg_is_in_recovery()", &[("pg_is_in_recovery", "f")]);
        check("SELECT current_user", &[("current_user", "pgyard")]);
        check("SHOW TimeZone", &[("timezone", "UTC")]);
        check("SHOW TRANSACTION ISOLATION LEVEL", &[("transaction_isolation_level", "read committed")]);
        assert!(row("select version()")[0].1.contains("pgyard"));
    }

    #[test]
    fn what_drivers_send_is_taken() {
        use ConsoleCommand::{Accepted, Deallocate, Transaction};
        let check = |text: &str, expect| assert_eq!(parse(text), Ok(vec![expect]), "{text}");
        check("BEGIN ISOLATION LEVEL SERIALIZABLE", Transaction(TransactionStep::Begin));
        check("START TRANSACTION", Transaction(TransactionStep::Begin));
        check("END", Transaction(TransactionStep::Commit));
        check("ROLLBACK TO SAVEPOINT \"_pg3_1\"", Transaction(TransactionStep::RollbackTo));
        check("ROLLBACK", Transaction(TransactionStep::Rollback));
        check("SET extra_float_digits = 3", Accepted("SET"));
        check("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", Accepted("SET"));
        check("RESET ALL", Accepted("RESET"));
        check("UNLISTEN *", Accepted("UNLISTEN"));
        check("DEALLOCATE PREPARE a", Deallocate(Some("a".into())));
        check("DISCARD ALL", Deallocate(None));
        let reset = parse("SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;").unwrap();
        assert_eq!(reset.len(), 4, "asyncpg's pool sends this");
        for query in ["select", "select 1 from t", "select 1 +", "select f(1)", "select ,", "select (", "update t set a = 1"] {
            assert_eq!(parse(query).map_err(|report| report.state), Err(SqlState::FEATURE_NOT_SUPPORTED), "{query}");
        }
    }
}
