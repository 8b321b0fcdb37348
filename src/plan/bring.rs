//! Brings the rows of each table that the shards share out, and runs the statement itself over them: a WITH query stands for each.
//!
//! The text stays as it is but for the tables' names, so that PostgreSQL reads what the client wrote.

use super::model::{Instance, NodeId};
use super::scope::Reader;
use super::select::Question;
use super::steps::{Combine, Finish, FinishPiece, GatherPlan, Partial};
use super::tree::quoted;
use crate::sql::Lexing;
use crate::sql::cursor::identifier;
use crate::sql::scan::{Scanner, Token, TokenKind};
use sqlparser::tokenizer::Location;
use std::collections::HashSet;
use std::ops::Range;

/// Types whose values cannot be grouped: json, xml, point, line and their like.
const UNGROUPABLE: &[u32] = &[114, 142, 600, 601, 602, 603, 604, 628, 718];

/// A change of the text.
struct Edit {
    range: Range<usize>,
    text: String,
}

/// The plan, or why there is none.
pub(super) fn bring(question: &Question<'_>) -> Result<GatherPlan, String> {
    let reader = question.reader;
    if reader.views {
        return Err("a view over sharded tables cannot be taken apart".to_owned());
    }
    let words = identifiers(question.text);
    let mut edits = Vec::new();
    let mut partials = Vec::new();
    let mut definitions: Vec<FinishPiece> = Vec::new();
    for (number, instance) in reader.instances.iter().enumerate() {
        if !reader.is_spread(number) {
            continue;
        }
        let columns = wanted(reader, instance, &words);
        edits.push(renamed(question.text, instance, number)?);
        let separator = if partials.is_empty() { "" } else { ", " };
        definitions.push(FinishPiece::Sql(format!("{separator}{} AS ", with_name(number))));
        definitions.extend(rows(reader, partials.len(), &columns, question)?);
        partials.push(Partial {
            sql: partial_sql(instance, &columns),
            shards: reader.condition_of(instance),
            one_is_enough: false,
        });
    }
    for start in &question.whole.with_schema {
        edits.push(without_schema(question.text, *start)?);
    }
    for (place, number) in reader.dependent.iter().filter(|(_, number)| reader.is_spread(*number)) {
        edits.extend(grouped_too(question, *place, *number, &words)?);
    }
    let (head, rest) = with_clause(question.text);
    let body = edited(question.text, rest, edits);
    let (before, between) = match head {
        Some(head) => (format!("{head} "), ", "),
        None => ("WITH ".to_owned(), " "),
    };
    let mut pieces = vec![FinishPiece::Sql(before)];
    pieces.extend(definitions);
    pieces.push(FinishPiece::Sql(format!("{between}{body}")));
    Ok(GatherPlan { partials, combine: Combine::Finish(Finish { pieces }) })
}

fn with_name(number: usize) -> String {
    format!("\"pgyard_{number}\"")
}

/// The columns of a table that the statement can mean: those whose names stand in it, or all where it does not name them.
fn wanted(reader: &Reader<'_>, instance: &Instance, words: &HashSet<String>) -> Vec<(String, NodeId)> {
    // Other names for the table's columns go by their places.
    let all = reader.wildcards || reader.whole_rows || reader.renamed.contains(&instance.at);
    instance.columns.iter().filter(|(name, _)| all || words.contains(name)).cloned().collect()
}

fn partial_sql(instance: &Instance, columns: &[(String, NodeId)]) -> String {
    let list: Vec<String> = columns.iter().map(|(name, _)| quoted(name)).collect();
    let table = format!("{}.{}", quoted(&instance.table.schema), quoted(&instance.table.name));
    let filters: Vec<String> = instance.filters.iter().map(|filter| format!("({filter})")).collect();
    let condition = if filters.is_empty() { String::new() } else { format!(" WHERE {}", filters.join(" AND ")) };
    format!("SELECT {} FROM {table}{condition}", list.join(", "))
}

/// The rows as a subquery; columns of domains get their types back.
fn rows(
    reader: &Reader<'_>,
    partial: usize,
    columns: &[(String, NodeId)],
    question: &Question<'_>,
) -> Result<Vec<FinishPiece>, String> {
    let rows = FinishPiece::Rows {
        partial,
        columns: columns.iter().map(|(name, _)| quoted(name)).collect(),
        collations: columns
            .iter()
            .map(|(_, node)| Some(question.node_collation(*node)).filter(|name| name != "default"))
            .collect(),
    };
    let definition = |node: NodeId| {
        let instance = &reader.instances[reader.nodes[node].instance?];
        let name = &instance.columns.iter().find(|(_, known)| *known == node)?.0;
        reader.planner.schema.table(&instance.table)?.column(name)
    };
    if !columns.iter().any(|(_, node)| definition(*node).is_some_and(|column| column.domain)) {
        return Ok(vec![rows]);
    }
    let mut list = Vec::new();
    for (name, node) in columns {
        let column = definition(*node).ok_or("a column is not known")?;
        let name = quoted(name);
        list.push(if column.domain { format!("CAST({name} AS {}) AS {name}", column.type_name) } else { name });
    }
    Ok(vec![FinishPiece::Sql(format!("(SELECT {} FROM ", list.join(", "))), rows, FinishPiece::Sql(" AS pgyard_r)".to_owned())])
}

/// Every identifier of a text, as stored.
fn identifiers(text: &str) -> HashSet<String> {
    let bytes = text.as_bytes();
    Scanner::new(bytes, Lexing::default()).filter_map(|token| identifier(bytes, token)).collect()
}

/// The token that begins at a place of the tree.
fn token_at(text: &str, at: Location) -> Option<Token> {
    let line = usize::try_from(at.line).ok()?.checked_sub(1)?;
    let column = usize::try_from(at.column).ok()?.checked_sub(1)?;
    let start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let offset: usize = text.get(start..)?.chars().take(column).map(char::len_utf8).sum();
    Scanner::new(text.as_bytes(), Lexing::default()).find(|token| token.start == start + offset)
}

/// The tokens behind one.
fn tokens_from(text: &str, token: Token) -> impl Iterator<Item = Token> + '_ {
    Scanner::starting_at(text.as_bytes(), token.end, Lexing::default())
}

const NOT_FOUND: &str = "a name of the statement was not found in its text";

/// A table's name gives way to that of the WITH query.
fn renamed(text: &str, instance: &Instance, number: usize) -> Result<Edit, String> {
    let first = token_at(text, instance.at).ok_or(NOT_FOUND)?;
    let mut end = first.end;
    let mut behind = tokens_from(text, first);
    while let Some(dot) = behind.next().filter(|token| token.kind == TokenKind::Dot) {
        end = behind.next().map_or(dot.end, |name| name.end);
    }
    let alias = if instance.aliased { String::new() } else { format!(" AS {}", quoted(&instance.alias)) };
    Ok(Edit { range: first.start..end, text: format!("{}{alias}", with_name(number)) })
}

/// `schema.table.column` becomes `table.column`.
fn without_schema(text: &str, start: Location) -> Result<Edit, String> {
    let first = token_at(text, start).ok_or(NOT_FOUND)?;
    let dot = tokens_from(text, first).next().filter(|token| token.kind == TokenKind::Dot).ok_or(NOT_FOUND)?;
    Ok(Edit { range: first.start..dot.end, text: String::new() })
}

/// Columns that follow from a primary key that is grouped by are grouped by too: a WITH query has no primary key.
fn grouped_too(
    question: &Question<'_>,
    place: Option<Location>,
    number: usize,
    words: &HashSet<String>,
) -> Result<Option<Edit>, String> {
    const REASON: &str = "columns that depend on the primary key in GROUP BY cannot be taken apart";
    let reader = question.reader;
    let instance = &reader.instances[number];
    let primary = reader.planner.schema.table(&instance.table).map(|table| table.primary.as_slice()).unwrap_or_default();
    let others: Vec<&(String, NodeId)> = instance
        .columns
        .iter()
        .filter(|(name, _)| !primary.contains(name) && (reader.wildcards || words.contains(name)))
        .collect();
    if others.is_empty() {
        return Ok(None);
    }
    let groupable = others.iter().all(|(_, node)| !UNGROUPABLE.contains(&reader.nodes[*node].type_oid));
    let place = place.filter(|_| groupable && !reader.renamed.contains(&instance.at)).ok_or(REASON)?;
    let token = token_at(question.text, place).ok_or(NOT_FOUND)?;
    let alias = quoted(&instance.alias);
    let list: Vec<String> = others.iter().map(|(name, _)| format!("{alias}.{}, ", quoted(name))).collect();
    Ok(Some(Edit { range: token.start..token.start, text: list.concat() }))
}

/// `WITH` or `WITH RECURSIVE` at the beginning, and where the text goes on.
fn with_clause(text: &str) -> (Option<&str>, usize) {
    let bytes = text.as_bytes();
    let mut scanner = Scanner::new(bytes, Lexing::default());
    let Some(with) = scanner.next().filter(|token| token.is_word(bytes, "with")) else { return (None, 0) };
    let end = scanner.next().filter(|token| token.is_word(bytes, "recursive")).map_or(with.end, |token| token.end);
    (text.get(..end), end)
}

fn edited(text: &str, from: usize, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| edit.range.start);
    let mut out = String::new();
    let mut at = from;
    for edit in edits {
        out.push_str(text.get(at..edit.range.start).unwrap_or_default());
        out.push_str(&edit.text);
        at = edit.range.end;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}
