//! UPDATE and DELETE.

use super::collect::{Found, Whole};
use super::conditions::Reach;
use super::functions::FunctionKind;
use super::model::{DistinctModel, FromModel, QueryModel, SelectModel};
use super::moves::KeyChange;
use super::place::{Places, Spread};
use super::scope::{Reader, Scope};
use super::select::refusal;
use super::statement::{Planner, confined_or};
use super::steps::{KeyCondition, Plan, WritePlan};
use super::tree::last_part;
use crate::shard::{ShardedTable, TablePlace};
use sqlparser::ast::{
    Assignment, AssignmentTarget, Delete, Expr, FromTable, SelectItem, Statement, TableFactor, TableWithJoins, Update,
    UpdateTableFromKind,
};

/// What UPDATE and DELETE have in common.
struct Change<'c> {
    target: &'c TableWithJoins,
    others: Vec<&'c TableWithJoins>,
    condition: Option<&'c Expr>,
    assignments: &'c [Assignment],
    returning: Option<&'c Vec<SelectItem>>,
    whole: Whole,
}

/// The plan of an UPDATE.
pub(super) fn update(planner: &Planner<'_>, update: &Update) -> Plan {
    let others = match &update.from {
        Some(UpdateTableFromKind::AfterSet(tables)) => tables.iter().collect(),
        Some(UpdateTableFromKind::BeforeSet(_)) => return Plan::Refused(refusal("UPDATE of this form is not planned")),
        None => Vec::new(),
    };
    let strange = update.or.is_some() || update.limit.is_some() || !update.order_by.is_empty() || update.output.is_some();
    if strange {
        return Plan::Refused(refusal("UPDATE of this form is not planned"));
    }
    plan(
        planner,
        &Change {
            target: &update.table,
            others,
            condition: update.selection.as_ref(),
            assignments: &update.assignments,
            returning: update.returning.as_ref(),
            whole: Whole::of(&Statement::Update(update.clone())),
        },
    )
}

/// The plan of a DELETE.
pub(super) fn delete(planner: &Planner<'_>, delete: &Delete) -> Plan {
    let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
    let strange = !delete.tables.is_empty() || delete.limit.is_some() || !delete.order_by.is_empty() || delete.output.is_some();
    let ([target], false) = (from.as_slice(), strange) else {
        return Plan::Refused(refusal("DELETE of this form is not planned"));
    };
    plan(
        planner,
        &Change {
            target,
            others: delete.using.iter().flatten().collect(),
            condition: delete.selection.as_ref(),
            assignments: &[],
            returning: delete.returning.as_ref(),
            whole: Whole::of(&Statement::Delete(delete.clone())),
        },
    )
}

fn plan(planner: &Planner<'_>, change: &Change<'_>) -> Plan {
    let refused = |reason: &str| Plan::Refused(refusal(reason));
    if !matches!(change.target, TableWithJoins { relation: TableFactor::Table { args: None, .. }, joins } if joins.is_empty()) {
        return refused("a statement that changes something other than a table is not planned");
    }
    let mut reader = Reader::new(planner);
    let model = read(&mut reader, change);
    let kinds = planner.kinds(&change.whole, &reader);
    if let Some(plan) = planner.without_shards(&change.whole, &kinds, &reader) {
        // Reference tables only, or none: the rows that change are on every shard.
        return match (plan, model.from.first()) {
            (Plan::Anywhere | Plan::Confined { .. }, Some(FromModel::Table(_))) => copies(&reader, &model, &kinds),
            (plan, _) => plan,
        };
    }
    let Some(FromModel::Table(target)) = model.from.first() else {
        return refused("a view over sharded tables cannot be changed");
    };
    let target = &reader.instances[*target];
    match &target.place {
        TablePlace::Reference => refused("a reference table cannot be changed by rows that are not on every shard"),
        TablePlace::Single(_) => {
            let shards = reader.statement_condition();
            confined_or(planner.map.shards.len(), shards, || refused("the tables of the statement are on several shards"))
        }
        TablePlace::Sharded(table) => {
            let sets_key = change.assignments.iter().flat_map(assigned).any(|column| table.key.contains(&column));
            let shards = reader.statement_condition();
            if sets_key {
                return key_change((&reader, &model), change, &kinds, (table, shards));
            }
            confined_or(planner.map.shards.len(), shards.clone(), || match objection(&reader, &model, change, &kinds) {
                Some(reason) => refused(&reason),
                None => Plan::Write(WritePlan::Each { shards }),
            })
        }
    }
}

/// An UPDATE that sets the key of a sharded table.
fn key_change(
    (reader, model): (&Reader<'_>, &SelectModel),
    change: &Change<'_>,
    kinds: &[FunctionKind],
    (table, shards): (&ShardedTable, KeyCondition),
) -> Plan {
    let planner = reader.planner;
    let refused = |reason: &str| Plan::Refused(refusal(reason));
    let Some(definition) = planner.schema.table(&table.table) else { return refused("the table is not known") };
    let moving = KeyChange {
        target: change.target,
        condition: change.condition,
        assignments: change.assignments,
        returning: change.returning,
        kinds,
        table,
        definition,
        schema: planner.schema,
    };
    confined_or(planner.map.shards.len(), moving.all_shards(&shards), || {
        if let Some(reason) = objection(reader, model, change, kinds) {
            return refused(&reason);
        }
        if !change.others.is_empty() {
            return refused("the key of a sharded table cannot be changed by an UPDATE that joins other tables");
        }
        match moving.plan(shards) {
            Ok(plan) => Plan::Write(WritePlan::Move(Box::new(plan))),
            Err(reason) => refused(&reason),
        }
    })
}

fn read(reader: &mut Reader<'_>, change: &Change<'_>) -> SelectModel {
    let outside = Scope::default();
    let mut scope = Scope::inside(&outside);
    let mut from = vec![reader.read_joined(change.target, &mut scope)];
    for table in &change.others {
        from.push(reader.read_joined(table, &mut scope));
    }
    let mut subqueries: Vec<QueryModel> = Vec::new();
    if let Some(condition) = change.condition {
        let targets = scope.nodes();
        subqueries.extend(reader.read_condition(condition, &scope, &Reach { targets: &targets, nullable_too: false }));
    }
    for assignment in change.assignments {
        subqueries.extend(reader.read_expressions(&assignment.value, &scope).subqueries);
    }
    if let Some(returning) = change.returning {
        subqueries.extend(reader.read_expressions(returning, &scope).subqueries);
    }
    SelectModel {
        from,
        subqueries,
        aggregated: false,
        group: None,
        distinct: DistinctModel::None,
        windows: Vec::new(),
        order_sensitive: false,
        outputs: None,
    }
}

/// Why the shards cannot each change their own rows.
fn objection(reader: &Reader<'_>, model: &SelectModel, change: &Change<'_>, kinds: &[FunctionKind]) -> Option<String> {
    if let Some(reason) = &reader.refusal {
        return Some(reason.clone());
    }
    let bound = |kind: &FunctionKind| matches!(kind, FunctionKind::Session | FunctionKind::Physical | FunctionKind::Server);
    if change.whole.strange || change.whole.locks || reader.entangled || kinds.iter().any(bound) {
        return Some("a part of the statement has another meaning on each shard".to_owned());
    }
    if change.whole.names.iter().any(|name| name == "ctid" || name == "tableoid") {
        return Some("system columns cannot be used in a statement over several shards".to_owned());
    }
    let places = Places::new(reader);
    let tuples = match places.tables_of(model, &[]) {
        Ok(Spread::Shards(tuples)) => tuples,
        Ok(Spread::Whole { .. }) => return Some("the rows that change are on every shard".to_owned()),
        Err(reason) => return Some(reason.to_owned()),
    };
    match places.all_whole(&model.subqueries, &tuples) {
        Ok(false) => None,
        Ok(true) => Some("a subquery over reference tables may have another result on each shard".to_owned()),
        Err(reason) => Some(reason.to_owned()),
    }
}

/// A reference table is changed on every shard alike, if the statement leaves no choice.
fn copies(reader: &Reader<'_>, model: &SelectModel, kinds: &[FunctionKind]) -> Plan {
    let places = Places::new(reader);
    let fickle = |spread| matches!(spread, Ok(Spread::Whole { fickle: false }));
    let certain = fickle(places.tables_of(model, &[])) && places.all_whole(&model.subqueries, &[]) == Ok(false);
    if certain && is_determined(kinds) && !has_triggers(reader, model) {
        Plan::Write(WritePlan::Copies)
    } else {
        Plan::Refused(refusal("a change of a reference table must have the same effect on every shard"))
    }
}

/// Whether functions give the same on each shard.
pub(super) fn is_determined(kinds: &[FunctionKind]) -> bool {
    kinds.iter().all(|kind| matches!(kind, FunctionKind::Plain | FunctionKind::Aggregate))
}

fn has_triggers(reader: &Reader<'_>, model: &SelectModel) -> bool {
    let Some(FromModel::Table(target)) = model.from.first() else { return true };
    reader.planner.schema.table(&reader.instances[*target].table).is_none_or(|table| table.triggers)
}

/// The columns that an assignment sets.
pub(super) fn assigned(assignment: &Assignment) -> Vec<String> {
    match &assignment.target {
        AssignmentTarget::ColumnName(name) => {
            // A field of a composite column or an element of an array follows the column's name.
            name.0.iter().filter_map(|part| part.as_ident()).map(super::tree::stored).collect()
        }
        AssignmentTarget::Tuple(names) => names.iter().map(last_part).collect(),
    }
}

/// Whether a list has subqueries.
pub(super) fn has_queries(node: &impl sqlparser::ast::Visit) -> bool {
    !Found::within(node).queries.is_empty()
}
