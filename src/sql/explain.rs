//! Facts in words, for people.

use crate::sql::facts::{Access, Command, Facts, RouteHint, StatementFacts, WriteReason};

/// Characters of a statement that are shown.
const EXCERPT_LENGTH: usize = 60;

/// Where a text goes and why: one line for each statement, then what concerns the whole. `facts` are those of `text`.
pub fn explain(facts: &Facts, text: &str) -> Vec<String> {
    if facts.statements.is_empty() {
        return vec!["empty query: answered by any server".to_owned()];
    }
    let mut lines = Vec::new();
    for statement in &facts.statements {
        let part = if facts.statements.len() == 1 { text } else { text.get(statement.span.clone()).unwrap_or(text) };
        lines.push(format!("{}: {}", excerpt(part), why(statement)));
        lines.extend(details(statement));
    }
    if facts.statements.len() > 1 {
        lines.push(format!("the statements are one unit, which goes to {}", place(facts.access)));
    }
    match facts.hint {
        Some(RouteHint::Primary) => lines.push("a routing comment sends it to the primary".to_owned()),
        Some(RouteHint::Replica) => lines.push("a routing comment sends it to a replica, whatever else was found".to_owned()),
        None => {}
    }
    if facts.changes_catalogue {
        lines.push("the catalogue is read again afterwards".to_owned());
    }
    lines
}

fn excerpt(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(EXCERPT_LENGTH) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

fn place(access: Access) -> &'static str {
    match access {
        Access::Read => "any replica that is fresh enough",
        Access::Session | Access::Server => "the server that the session has, else the primary",
        Access::Write(_) => "the primary",
    }
}

fn why(statement: &StatementFacts) -> String {
    let reason = match statement.access {
        Access::Read => "proven to be a read",
        Access::Session => "concerns the session or its transaction",
        Access::Server => "describes a server or a session",
        Access::Write(reason) => reason.explanation(),
    };
    format!("{} ({reason})", place(statement.access))
}

fn details(statement: &StatementFacts) -> Vec<String> {
    let mut lines = Vec::new();
    if let Command::Begin(modes) = &statement.command
        && modes.read_only == Some(true)
    {
        lines.push("  begins on a replica, and moves to the primary when a statement needs it there".to_owned());
    }
    let pins: Vec<&str> = statement.pins.labels().collect();
    if !pins.is_empty() {
        lines.push(format!("  pins the session to its server: {}", pins.join(", ")));
    }
    if !statement.effects.is_empty() {
        lines.push(format!("  changes what the session keeps: {:?}", statement.effects));
    }
    lines
}

impl WriteReason {
    /// The reason in words.
    pub fn explanation(self) -> &'static str {
        match self {
            WriteReason::Command => "a command that writes",
            WriteReason::Utility => "DDL or another utility command",
            WriteReason::Nested => "writes inside: a data-changing WITH, SELECT INTO, EXPLAIN or COPY of a write",
            WriteReason::Lock => "locks rows or tables",
            WriteReason::VolatileFunction => "names a function that may write",
            WriteReason::UnknownFunction => "calls a function that is not known",
            WriteReason::SuspectObject => {
                "names a view, type, operator or policy over something that may write, a sequence, or an unlogged or foreign table"
            }
            WriteReason::SessionBound => "bound to a session on the primary",
            WriteReason::SeveralStatements => "several statements that are not all reads",
            WriteReason::Unparsed => "could not be understood, so nothing proves it a read",
            WriteReason::UnsafeLexing => "backslash escapes or the client encoding make the text uncertain",
            WriteReason::ServerFile => "writes a file or runs a program on the server",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Catalogue, Lexing, classify};

    fn check(text: &str, expect: &[&str]) {
        let facts = classify(text.as_bytes(), &Catalogue::builtin(), Lexing::default());
        let lines = explain(&facts, text);
        for part in expect {
            assert!(lines.iter().any(|line| line.contains(part)), "{part:?} is not in {lines:?}");
        }
    }

    #[test]
    fn says_where_and_why() {
        check("SELECT 1", &["SELECT 1: any replica that is fresh enough (proven to be a read)"]);
        check(
            "SELECT\n  lastval()",
            &["SELECT lastval(): the primary (names a function", "pins the session to its server: sequence"],
        );
        check(
            "SELECT 1; DELETE FROM t",
            &["SELECT 1: any replica", "DELETE FROM t: the primary", "one unit, which goes to the primary"],
        );
        check("BEGIN READ ONLY", &["begins on a replica"]);
        check("/* pgyard: replica */ SELECT 1", &["a routing comment sends it to a replica"]);
        check("CREATE TABLE t ()", &["catalogue is read again"]);
        check("SET a.b = 1", &["changes what the session keeps"]);
        check("", &["empty query"]);
        check(&format!("SELECT {}", "ä".repeat(200)), &["..."]);
    }
}
