//! COPY: rows that a client sends go to the shards of their keys, rows of several shards go to the client as one file.

mod options;

use super::functions::{FunctionKind, kind_of};
use super::schema::{DefaultKind, TableDefinition};
use super::select::refusal;
use super::statement::{Planner, first_shard};
use super::steps::{CopyPlan, CopyRows, CopySplit, KeyCondition, Plan};
use crate::shard::{QualifiedName, ShardSet, ShardedTable, TablePlace};
use crate::sql::Lexing;
use crate::sql::cursor::Cursor;
use crate::sql::scan::TokenKind;
use options::CopyOptions;

/// Encodings whose characters may have ASCII bytes behind their first one: such data can't be taken apart.
const UNSAFE_ENCODINGS: &[&str] = &["sjis", "shiftjis2004", "big5", "gbk", "gb18030", "uhc", "johab"];

/// Words that stand before a parenthesis without being functions.
const NO_FUNCTIONS: &[&str] =
    &["and", "or", "not", "in", "any", "all", "some", "is", "like", "ilike", "between", "case", "when", "then", "else", "where"];

/// A COPY of a table.
struct TableCopy<'t> {
    table: QualifiedName,
    definition: &'t TableDefinition,
    /// The columns that a row of the data has.
    columns: Vec<String>,
    options: CopyOptions,
    /// Functions in WHERE.
    functions: Vec<String>,
}

fn refused(reason: &str) -> Plan {
    Plan::Refused(refusal(reason))
}

/// The plan of a COPY; its first word is known.
pub(super) fn plan(planner: &Planner<'_>, text: &str) -> Plan {
    read(planner, text).unwrap_or_else(|| refused("the COPY command is not of a form that is planned for shards"))
}

fn read(planner: &Planner<'_>, text: &str) -> Option<Plan> {
    let mut cursor = Cursor::new(text.as_bytes(), 0..text.len(), Lexing::default());
    cursor.take();
    if cursor.eat_kind(TokenKind::OpenParen) {
        let begin = cursor.position();
        let close = cursor.skip_parenthesis()?;
        if !cursor.eat("to") || !cursor.eat_any(&["stdout", "stdin"]) {
            return Some(refused("COPY of a query to a file of a server is not supported"));
        }
        let options_at = cursor.position();
        let options = CopyOptions::read(&mut cursor)?;
        return Some(query(planner, (text.get(begin..close.start)?, text.get(options_at..)?), &options));
    }
    let binary = cursor.eat("binary");
    let mut names = vec![cursor.name()?];
    while cursor.eat_kind(TokenKind::Dot) {
        names.push(cursor.name()?);
    }
    let mut columns = Vec::new();
    let listed = cursor.eat_kind(TokenKind::OpenParen);
    if listed {
        columns = options::names(&mut cursor)?;
    }
    let to = cursor.eat("to");
    if !to && !cursor.eat("from") {
        return None;
    }
    let streams = cursor.eat_any(&["stdin", "stdout"]);
    let (schema, bare) = match names.as_slice() {
        [bare] => (None, bare),
        [.., schema, bare] => (Some(&**schema), bare),
        [] => return None,
    };
    let Some((table, definition)) = planner.schema.find(schema, bare, planner.search_path) else {
        return Some(first_shard());
    };
    let place = planner.map.place(&table).cloned();
    let Some(place) = place else {
        let name = format!("{}.{}", table.schema, table.name);
        return Some(refused(&format!("the place of table \"{name}\" is not known: it is not in the settings")));
    };
    if let TablePlace::Single(shard) = place {
        let shards = KeyCondition::Shards(ShardSet::one(shard));
        return Some(Plan::Confined { shards, several: Box::new(Plan::Anywhere) });
    }
    if !streams {
        return Some(refused("COPY between several shards and a file of a server is not supported"));
    }
    let mut options = CopyOptions::read(&mut cursor)?;
    options.binary |= binary;
    let functions = where_functions(&mut cursor)?;
    if !listed {
        columns = data_columns(definition);
    }
    let copy = TableCopy { table, definition, columns, options, functions };
    Some(match (place, to) {
        (TablePlace::Reference, true) => Plan::Anywhere,
        (TablePlace::Sharded(_), true) => {
            Plan::Copy(CopyPlan::Tables { header: copy.options.header, binary: copy.options.binary })
        }
        (TablePlace::Reference, false) => copy.into_reference(planner),
        (TablePlace::Sharded(sharded), false) => copy.into_sharded(planner, &sharded),
        (TablePlace::Single(_), _) => return None,
    })
}

/// The columns that the data has when none are named. Spec: CopyGetAttnums in copy.c.
fn data_columns(definition: &TableDefinition) -> Vec<String> {
    let given = definition.columns.iter().filter(|column| column.default != DefaultKind::Generated);
    given.map(|column| column.name.clone()).collect()
}

/// The functions that WHERE calls; `None` if what stands there is something else.
fn where_functions(cursor: &mut Cursor<'_>) -> Option<Vec<String>> {
    let mut functions = Vec::new();
    if cursor.at_end() {
        return Some(functions);
    }
    if !cursor.eat("where") {
        return None;
    }
    while !cursor.at_end() {
        match cursor.name() {
            Some(name) if cursor.at_kind(TokenKind::OpenParen) && !NO_FUNCTIONS.contains(&&*name) => {
                functions.push(name.to_string());
            }
            Some(_) => {}
            None => drop(cursor.take()),
        }
    }
    Some(functions)
}

impl TableCopy<'_> {
    fn has_functions_but(&self, planner: &Planner<'_>, allowed: &[FunctionKind]) -> bool {
        self.functions.iter().any(|name| !allowed.contains(&kind_of(name, planner.schema, planner.catalogue)))
    }

    fn into_reference(self, planner: &Planner<'_>) -> Plan {
        if self.definition.triggers {
            return refused("a reference table with triggers or rules cannot be written");
        }
        if self.has_functions_but(planner, &[FunctionKind::Plain]) {
            return refused("a condition of COPY into a reference table must have the same effect on every shard");
        }
        let computed = |column: &&super::schema::ColumnDefinition| {
            column.default == DefaultKind::Computed && !self.columns.contains(&column.name)
        };
        if let Some(column) = self.definition.columns.iter().find(computed) {
            let name = &column.name;
            return refused(&format!(
                "COPY into a reference table must give column \"{name}\", whose default could differ from shard to shard"
            ));
        }
        Plan::Copy(CopyPlan::Copies { table: self.table })
    }

    fn into_sharded(self, planner: &Planner<'_>, sharded: &ShardedTable) -> Plan {
        if self.definition.kind == 'v' {
            return refused("COPY into a view over several shards is not supported");
        }
        if self.has_functions_but(planner, &[FunctionKind::Plain, FunctionKind::Clock, FunctionKind::Random]) {
            return refused("what a function in the condition of COPY reads or changes is not known");
        }
        let place = |key: &String| self.columns.iter().position(|column| column == key);
        let Some(fields) = sharded.key.iter().map(place).collect::<Option<Vec<_>>>() else {
            return refused("a COPY into a sharded table must give its key");
        };
        let encoding = self.options.encoding.clone();
        let plain: Option<String> =
            encoding.as_ref().map(|name| name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase());
        if plain.is_some_and(|name| UNSAFE_ENCODINGS.contains(&name.as_str())) {
            return refused("COPY data in this encoding cannot be taken apart by rows");
        }
        let layout = self.options.layout(&self.columns);
        Plan::Copy(CopyPlan::Split(CopySplit { table: self.table, fields, layout, encoding }))
    }
}

/// COPY of a query.
fn query(planner: &Planner<'_>, (text, options_text): (&str, &str), options: &CopyOptions) -> Plan {
    let rows = |plan: super::steps::GatherPlan| {
        if options.encoding.is_some() {
            return refused("COPY of rows of several shards in another encoding is not supported");
        }
        let (text, options_text) = (text.to_owned(), options_text.to_owned());
        Plan::Copy(CopyPlan::Rows(Box::new(CopyRows { plan, text, options: options_text, format: options.output() })))
    };
    wrapped(planner.plan(text), &rows)
}

fn wrapped(plan: Plan, rows: &dyn Fn(super::steps::GatherPlan) -> Plan) -> Plan {
    match plan {
        Plan::Anywhere | Plan::Refused(_) => plan,
        Plan::Confined { shards, several } => Plan::Confined { shards, several: Box::new(wrapped(*several, rows)) },
        Plan::Gather(gather) => rows(gather),
        Plan::Write(_) | Plan::Everywhere | Plan::Copy(_) => {
            refused("COPY of what a statement changes on several shards is not supported")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_conditions() {
        let check = |text: &str, expect: Option<&[&str]>| {
            let mut cursor = Cursor::new(text.as_bytes(), 0..text.len(), Lexing::default());
            let found = where_functions(&mut cursor);
            assert_eq!(
                found.as_deref().map(|list| list.iter().map(String::as_str).collect()),
                expect.map(<[&str]>::to_vec),
                "{text}"
            );
        };
        check("", Some(&[]));
        check("WHERE a IN (1, 2) AND (lower(b) = 'x' OR NOT (c))", Some(&["lower"]));
        check("WHERE \"F\"(a)", Some(&["F"]));
        check("RETURNING a", None);
    }
}
