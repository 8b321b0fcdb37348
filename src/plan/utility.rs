//! Statements that are known by their first words: definitions go to every shard, what belongs to one session to the first.

use super::select::refusal;
use super::statement::{Planner, first_shard};
use super::steps::Plan;
use crate::shard::TablePlace;
use crate::sql::Lexing;
use crate::sql::cursor::identifier;
use crate::sql::scan::{Scanner, Token};

/// Statements that every shard runs.
const EVERYWHERE: &[&str] = &[
    "create", "alter", "drop", "comment", "grant", "revoke", "reindex", "analyze", "analyse", "vacuum", "cluster", "truncate",
    "security", "import", "reassign", "refresh", "lock",
];
/// Statements of one session, for which the first shard stands.
const FIRST: &[&str] = &["listen", "unlisten", "notify", "load", "checkpoint"];
/// Statements whose effect cannot be known.
const OPAQUE: &[&str] = &["do", "call"];

/// The plan of a statement that is no query and changes no rows; `None` for others.
pub(super) fn plan(planner: &Planner<'_>, text: &str) -> Option<Plan> {
    let bytes = text.as_bytes();
    let tokens: Vec<Token> = Scanner::new(bytes, Lexing::default()).collect();
    let lead = identifier(bytes, *tokens.first()?)?;
    let is =
        |place: usize, words: &[&str]| tokens.get(place).is_some_and(|token| words.iter().any(|word| token.is_word(bytes, word)));
    if lead == "explain" {
        return Some(explain(planner, text, &tokens));
    }
    if lead == "copy" {
        return Some(super::copy::plan(planner, text));
    }
    if FIRST.contains(&lead.as_str()) {
        return Some(first_shard());
    }
    if OPAQUE.contains(&lead.as_str()) {
        return Some(Plan::Refused(refusal("what the statement reads or changes is not known")));
    }
    if !EVERYWHERE.contains(&lead.as_str()) {
        return None;
    }
    if lead == "create" {
        if is(1, &["temp", "temporary", "local"]) {
            return Some(if names_spread(planner, bytes, &tokens) {
                Plan::Refused(refusal("a temporary object cannot be made of rows of several shards"))
            } else {
                first_shard()
            });
        }
        let holds_rows = is(1, &["table", "unlogged", "materialized"]);
        // Not the one of a generated column.
        let depth = |place: usize| {
            let count = |paren: &[u8]| tokens[..place].iter().filter(|token| token.bytes(bytes) == paren).count();
            count(b"(") - count(b")").min(count(b"("))
        };
        let begins = |place: usize| {
            is(place, &["select", "with", "values", "table", "execute"])
                || tokens.get(place).is_some_and(|token| token.bytes(bytes) == b"(")
        };
        let query = (2..tokens.len()).any(|place| is(place, &["as"]) && begins(place + 1) && depth(place) == 0);
        if holds_rows && query && names_spread(planner, bytes, &tokens) {
            return Some(Plan::Refused(refusal("a table cannot be made of rows of several shards")));
        }
    }
    Some(Plan::Everywhere)
}

/// Whether a name in the text is that of a table whose rows are not whole on every shard, or of a view.
fn names_spread(planner: &Planner<'_>, text: &[u8], tokens: &[Token]) -> bool {
    let spread = |name: &str| {
        let listed = planner.map.tables.iter();
        listed.into_iter().any(|(table, place)| table.name == name && !matches!(place, TablePlace::Reference))
            || planner.schema.tables().any(|(table, definition)| {
                let unlisted = !planner.map.tables.contains_key(table);
                table.name == name
                    && unlisted
                    && (definition.view.is_some() || planner.map.unlisted != Some(TablePlace::Reference))
            })
    };
    tokens.iter().filter_map(|token| identifier(text, *token)).any(|name| spread(&name))
}

/// As above, for a whole text, with the reference tables that the settings name and the schema has not: a statement about one of them
/// would change one copy only.
pub(super) fn names_listed_tables(planner: &Planner<'_>, text: &str) -> bool {
    let tokens: Vec<Token> = Scanner::new(text.as_bytes(), Lexing::default()).collect();
    let missing = |name: &str| planner.map.tables.keys().any(|table| table.name == name && planner.schema.table(table).is_none());
    names_spread(planner, text.as_bytes(), &tokens)
        || tokens.iter().filter_map(|token| identifier(text.as_bytes(), *token)).any(|name| missing(&name))
}

/// EXPLAIN of a statement that one shard answers is that shard's.
fn explain(planner: &Planner<'_>, text: &str, tokens: &[Token]) -> Plan {
    let bytes = text.as_bytes();
    let mut place = 1;
    if tokens.get(1).is_some_and(|token| token.bytes(bytes) == b"(") {
        place = tokens.iter().position(|token| token.bytes(bytes) == b")").map_or(tokens.len(), |close| close + 1);
    }
    while tokens.get(place).is_some_and(|token| token.is_word(bytes, "analyze") || token.is_word(bytes, "verbose")) {
        place += 1;
    }
    let inner = tokens.get(place).and_then(|token| text.get(token.start..)).unwrap_or_default();
    let several = || Plan::Refused(refusal("EXPLAIN of a statement over several shards is not supported"));
    match planner.plan(inner) {
        Plan::Anywhere => Plan::Anywhere,
        Plan::Confined { shards, .. } => Plan::Confined { shards, several: Box::new(several()) },
        Plan::Refused(refusal) => Plan::Refused(refusal),
        _ => several(),
    }
}
