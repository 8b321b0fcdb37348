//! INSERT.

use super::change::{assigned, has_queries, is_determined};
use super::collect::Whole;
use super::conditions::term;
use super::functions::FunctionKind;
use super::model::QueryModel;
use super::moves::is_untyped;
use super::place::{Places, Spread};
use super::schema::{DefaultKind, TableDefinition};
use super::scope::{Reader, Scope};
use super::select::refusal;
use super::statement::{Planner, confined_or, first_shard};
use super::steps::{KeyCondition, KeyTerm, Plan, SplitInsert, WritePlan};
use super::tree::{quoted, stored, stored_parts};
use crate::shard::{QualifiedName, ShardSet, ShardedTable, TablePlace};
use crate::sql::Lexing;
use crate::sql::scan::{Scanner, Token, TokenKind};
use sqlparser::ast::{
    ConflictTarget, Expr, Ident, Insert, OnConflictAction, OnInsert, Query, SelectItem, SetExpr, Statement, TableObject,
};

/// An INSERT with what is known of its table.
struct Insertion<'i> {
    planner: &'i Planner<'i>,
    text: &'i str,
    insert: &'i Insert,
    table: QualifiedName,
    definition: &'i TableDefinition,
    columns: Vec<String>,
    whole: Whole,
    kinds: Vec<FunctionKind>,
    /// Its SELECT or VALUES.
    source: Option<QueryModel>,
    reader: Reader<'i>,
}

fn refused(reason: &str) -> Plan {
    Plan::Refused(refusal(reason))
}

/// The plan of an INSERT.
pub(super) fn plan<'i>(planner: &'i Planner<'i>, text: &'i str, insert: &'i Insert) -> Plan {
    let TableObject::TableName(name) = &insert.table else { return refused("INSERT of this form is not planned") };
    let strange =
        insert.or.is_some() || !insert.assignments.is_empty() || insert.partitioned.is_some() || insert.output.is_some();
    let parts = stored_parts(name).unwrap_or_default();
    let (schema, bare) = match parts.as_slice() {
        [bare] => (None, bare.as_str()),
        [.., schema, bare] => (Some(schema.as_str()), bare.as_str()),
        [] => (None, ""),
    };
    if strange || !insert.into {
        return refused("INSERT of this form is not planned");
    }
    let whole = Whole::of(&Statement::Insert(insert.clone()));
    let mut reader = Reader::new(planner);
    let source = insert.source.as_ref().map(|query| reader.read_query(query, &Scope::default()));
    let kinds = planner.kinds(&whole, &reader);
    let about_source = planner.without_shards(&whole, &kinds, &reader);
    if let Some(Plan::Refused(refusal)) = about_source {
        return Plan::Refused(refusal);
    }
    let Some((table, definition)) = planner.schema.find(schema, bare, planner.search_path) else {
        let spread = (0..reader.instances.len()).any(|number| reader.is_spread(number));
        return if spread { refused("a relation of the statement is not known") } else { first_shard() };
    };
    if reader.unknown_tables || reader.system_tables || definition.kind == 'v' {
        return refused("INSERT between tables and other relations is not planned");
    }
    let columns = match insert.columns.as_slice() {
        [] => definition.columns.iter().map(|column| column.name.clone()).collect(),
        list => list.iter().map(super::tree::last_part).collect(),
    };
    let insertion = Insertion { planner, text, insert, table, definition, columns, whole, kinds, source, reader };
    match planner.map.place(&insertion.table) {
        None => {
            let name = format!("{}.{}", insertion.table.schema, insertion.table.name);
            refused(&format!("the place of table \"{name}\" is not known: it is not in the settings"))
        }
        Some(TablePlace::Reference) => insertion.to_reference(),
        Some(TablePlace::Single(shard)) => insertion.to_single(*shard),
        Some(TablePlace::Sharded(sharded)) => insertion.to_sharded(&sharded.clone()),
    }
}

impl Insertion<'_> {
    fn has_values(&self) -> bool {
        self.insert.source.as_ref().is_some_and(|query| {
            matches!(query.body.as_ref(), SetExpr::Values(_))
                && query.with.is_none()
                && query.order_by.is_none()
                && query.limit_clause.is_none()
        })
    }

    fn reads_spread(&self) -> bool {
        (0..self.reader.instances.len()).any(|number| self.reader.is_spread(number))
    }

    fn to_single(&self, shard: usize) -> Plan {
        let place = KeyCondition::Shards(ShardSet::one(shard));
        if !self.reads_spread() {
            return Plan::Confined { shards: place, several: Box::new(Plan::Anywhere) };
        }
        let shards = KeyCondition::Union(vec![place, self.reader.statement_condition()]);
        confined_or(self.planner.map.shards.len(), shards, || {
            refused("rows of other shards cannot be inserted into a table of one shard")
        })
    }

    fn to_reference(&self) -> Plan {
        if self.reads_spread() {
            return refused("rows of several shards cannot be inserted into a reference table");
        }
        if self.definition.triggers {
            return refused("a reference table with triggers or rules cannot be written");
        }
        let fickle = match &self.source {
            Some(model) => Places::new(&self.reader).query(model, &[]) != Ok(Spread::Whole { fickle: false }),
            None => false,
        };
        // DEFAULT may stand for anything that is computed.
        let computed = self.definition.columns.iter().any(|column| {
            let given = self.columns.contains(&column.name) && !self.insert.columns.is_empty() && !self.says_default();
            let all_given = self.insert.columns.is_empty() && !self.says_default() && self.insert.source.is_some();
            column.default == DefaultKind::Computed && !given && !all_given
        });
        if !fickle && !computed && is_determined(&self.kinds) {
            return Plan::Write(WritePlan::Copies);
        }
        if self.insert.on.is_some() {
            return refused("ON CONFLICT on a reference table must have the same effect on every shard");
        }
        self.first_then_copy()
    }

    fn says_default(&self) -> bool {
        let bytes = self.text.as_bytes();
        Scanner::new(bytes, Lexing::default()).any(|token| token.is_word(bytes, "default"))
    }

    fn first_then_copy(&self) -> Plan {
        let columns: Vec<String> = self
            .definition
            .columns
            .iter()
            .filter(|column| column.default != DefaultKind::Generated)
            .map(|column| quoted(&column.name))
            .collect();
        let mut insert = self.insert.clone();
        let shown = insert.returning.take();
        let shown: String = shown.iter().flatten().map(|item| format!("{item}, ")).collect();
        Plan::Write(WritePlan::FirstThenCopy {
            returning: format!("{insert} RETURNING {shown}{}", columns.join(", ")),
            table: format!("{}.{}", quoted(&self.table.schema), quoted(&self.table.name)),
            columns,
        })
    }

    fn to_sharded(&self, sharded: &ShardedTable) -> Plan {
        let place = |key: &String| self.columns.iter().position(|column| column == key);
        let Some(key_columns) = sharded.key.iter().map(place).collect::<Option<Vec<_>>>() else {
            return refused("an INSERT into a sharded table must give its key");
        };
        if let Some(reason) = self.conflict_objection(sharded) {
            return refused(reason);
        }
        if self.insert.returning.as_ref().is_some_and(has_queries) {
            return refused("a subquery in RETURNING is not supported");
        }
        if self.has_values() { self.values(sharded, key_columns) } else { self.rows_of_select(sharded, key_columns) }
    }

    /// ON CONFLICT only sees rows of its own shard: every key that it watches must hold the sharding key.
    fn conflict_objection(&self, sharded: &ShardedTable) -> Option<&'static str> {
        let OnInsert::OnConflict(conflict) = self.insert.on.as_ref()? else { return Some("INSERT of this form is not planned") };
        let holds = |columns: &Vec<String>| sharded.key.iter().all(|key| columns.contains(key));
        let watched = match &conflict.conflict_target {
            Some(ConflictTarget::Columns(columns)) => holds(&columns.iter().map(stored).collect()),
            Some(ConflictTarget::OnConstraint(_)) | None => self.definition.unique.iter().all(holds),
        };
        if !watched {
            return Some("ON CONFLICT on a key that does not hold the sharding key cannot see the rows of other shards");
        }
        if let OnConflictAction::DoUpdate(update) = &conflict.action {
            if update.assignments.iter().flat_map(assigned).any(|column| sharded.key.contains(&column)) {
                return Some("the key of a sharded table cannot be changed");
            }
            if has_queries(&update.assignments) || update.selection.as_ref().is_some_and(has_queries) {
                return Some("a subquery in ON CONFLICT DO UPDATE is not supported");
            }
        }
        None
    }

    fn values(&self, sharded: &ShardedTable, key_columns: Vec<usize>) -> Plan {
        let Some(SetExpr::Values(values)) = self.insert.source.as_ref().map(|query| query.body.as_ref()) else {
            return refused("INSERT of this form is not planned");
        };
        if self.reads_spread() {
            return refused("rows of sharded tables cannot be read in VALUES");
        }
        let mut keys: Vec<Vec<KeyTerm>> = Vec::new();
        for row in &values.rows {
            let key = key_columns.iter().map(|place| row.content.get(*place).and_then(term));
            let Some(key) = key.collect::<Option<Vec<_>>>() else {
                return refused("the key of a row of a sharded table must be a constant or a parameter");
            };
            keys.push(key);
        }
        let Some((head, rows, tail)) = parts_of(self.text) else { return refused("INSERT of this form is not planned") };
        if rows.len() != keys.len() {
            return refused("INSERT of this form is not planned");
        }
        let stored = |values: &Vec<KeyTerm>| KeyCondition::Stored { table: sharded.table.clone(), values: values.clone() };
        let mut conditions: Vec<KeyCondition> = keys.iter().map(stored).collect();
        let shards = if conditions.len() == 1 { conditions.remove(0) } else { KeyCondition::Union(conditions) };
        let split = SplitInsert {
            table: sharded.table.clone(),
            head,
            rows,
            keys,
            key_columns,
            tail,
            returns: self.insert.returning.is_some(),
        };
        Plan::Confined { shards, several: Box::new(Plan::Write(WritePlan::Split(split))) }
    }

    fn rows_of_select(&self, sharded: &ShardedTable, key_columns: Vec<usize>) -> Plan {
        let (Some(query), Some(model)) = (&self.insert.source, &self.source) else {
            return refused("an INSERT into a sharded table must give its key");
        };
        if self.stays_on_its_shard(model, sharded, &key_columns) {
            let shards = self.reader.statement_condition();
            let each = Plan::Write(WritePlan::Each { shards: shards.clone() });
            return confined_or(self.planner.map.shards.len(), shards, || each);
        }
        let select_sql = self.with_types(query).to_string();
        let select = self.planner.plan(&select_sql);
        if let Plan::Refused(_) = select {
            return select;
        }
        let columns: Vec<String> = self.columns.iter().map(|column| quoted(column)).collect();
        let table = format!("{}.{}", quoted(&self.table.schema), quoted(&self.table.name));
        let mut rest = self.insert.clone();
        let on = rest.on.take().map(|on| format!(" {on}")).unwrap_or_default();
        let returning = rest.returning.take().unwrap_or_default();
        let shown: Vec<String> = returning.iter().map(ToString::to_string).collect();
        let returning = if shown.is_empty() { String::new() } else { format!(" RETURNING {}", shown.join(", ")) };
        let alias = rest.table_alias.map(|alias| format!(" AS {}", alias.alias)).unwrap_or_default();
        let insert = SplitInsert {
            table: sharded.table.clone(),
            head: format!("INSERT INTO {table}{alias} ({}) VALUES ", columns.join(", ")),
            rows: Vec::new(),
            keys: Vec::new(),
            key_columns,
            tail: format!("{on}{returning}"),
            returns: !shown.is_empty(),
        };
        Plan::Write(WritePlan::InsertRows { select: Box::new(select), select_sql, insert })
    }

    /// What a SELECT shows without a type of its own has that of the column it is inserted into.
    fn with_types(&self, query: &Query) -> Query {
        let mut query = query.clone();
        let SetExpr::Select(select) = query.body.as_mut() else { return query };
        if select.distinct.is_some() {
            return query;
        }
        for (item, column) in select.projection.iter_mut().zip(&self.columns) {
            let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { break };
            let definition = self.definition.column(column).filter(|_| is_untyped(expr));
            if let Some(name) = definition.and_then(|column| self.planner.schema.type_name(column.type_oid, -1)) {
                *expr = Expr::Identifier(Ident::new(format!("CAST({expr} AS {name})")));
            }
        }
        query
    }

    /// Whether each row of the SELECT has, as its new key, the key by which it is on its shard.
    fn stays_on_its_shard(&self, model: &QueryModel, sharded: &ShardedTable, key_columns: &[usize]) -> bool {
        let harmless = |kind: &FunctionKind| {
            matches!(kind, FunctionKind::Plain | FunctionKind::Aggregate | FunctionKind::Clock | FunctionKind::Sequence)
        };
        if self.reader.refusal.is_some() || self.reader.entangled || self.whole.strange || !self.kinds.iter().all(harmless) {
            return false;
        }
        let Ok(Spread::Shards(tuples)) = Places::new(&self.reader).query(model, &[]) else { return false };
        let Some(outputs) = &model.outputs else { return false };
        let new: Option<Vec<_>> = key_columns.iter().map(|place| outputs.get(*place)?.node).collect();
        tuples.iter().any(|tuple| tuple.strict && tuple.group == sharded.group && Some(&tuple.nodes) == new.as_ref())
    }
}

/// An INSERT ... VALUES in three parts: before the rows, each row, behind the rows.
fn parts_of(text: &str) -> Option<(String, Vec<String>, String)> {
    let bytes = text.as_bytes();
    let tokens: Vec<Token> = Scanner::new(bytes, Lexing::default()).collect();
    let mut depth = 0_usize;
    let mut values = None;
    for (number, token) in tokens.iter().enumerate() {
        match token.kind {
            TokenKind::OpenParen => depth += 1,
            TokenKind::CloseParen => depth = depth.checked_sub(1)?,
            _ if depth == 0 && token.is_word(bytes, "values") => {
                values = Some(number);
                break;
            }
            _ => {}
        }
    }
    let values = values?;
    let head = text.get(..tokens[values].end)?;
    let mut rows = Vec::new();
    let mut start = None;
    let mut end = values + 1;
    for (number, token) in tokens.iter().enumerate().skip(values + 1) {
        match token.kind {
            TokenKind::OpenParen => {
                if depth == 0 {
                    start = Some(token.start);
                }
                depth += 1;
            }
            TokenKind::CloseParen => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    rows.push(text.get(start.take()?..token.end)?.to_owned());
                    end = number + 1;
                }
            }
            TokenKind::Comma => {}
            _ if depth == 0 => break,
            _ => {}
        }
    }
    let tail = tokens.get(end).and_then(|token| text.get(token.start..)).unwrap_or_default();
    let tail = if tail.is_empty() { String::new() } else { format!(" {tail}") };
    Some((format!("{head} "), rows, tail))
}
