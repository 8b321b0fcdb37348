//! Reads FROM: tables, subqueries, joins, and views as what they stand for.

use super::conditions::Reach;
use super::model::{FromModel, Instance, JoinKind, Node, NodeId, OutputColumn, QueryModel};
use super::read::rename;
use super::scope::{Item, Reader, Scope};
use super::tree::{location, stored, stored_parts};
use crate::shard::{QualifiedName, TablePlace};
use crate::sql::Lexing;
use crate::sql::scan::Scanner;
use crate::sql::survey::survey;
use sqlparser::ast::{Join, JoinConstraint, JoinOperator, ObjectName, Statement, TableAlias, TableFactor, TableWithJoins};
use sqlparser::tokenizer::Location;
use std::collections::HashSet;

/// Views inside views beyond which they are not followed.
const VIEW_DEPTH_MAX: usize = 16;

impl Reader<'_> {
    /// Reads one entry of FROM, and adds its items to the scope.
    pub(super) fn read_joined(&mut self, table: &TableWithJoins, scope: &mut Scope<'_>) -> FromModel {
        let before = scope.items.len();
        let mut model = self.read_factor(&table.relation, scope);
        for join in &table.joins {
            let right_from = scope.items.len();
            let right = self.read_factor(&join.relation, scope);
            let (kind, constraint) = self.join_kind(join);
            let (left_items, right_items) = scope.items[before..].split_at(right_from - before);
            let (left_nodes, right_nodes) = (nodes_of(left_items), nodes_of(right_items));
            let targets: HashSet<NodeId> = match kind {
                JoinKind::Inner => left_nodes.union(&right_nodes).copied().collect(),
                JoinKind::Left => right_nodes.clone(),
                JoinKind::Right => left_nodes.clone(),
                JoinKind::Full => HashSet::new(),
            };
            let reach = Reach { targets: &targets, nullable_too: false };
            let inner = Scope {
                items: scope.items[before..].to_vec(),
                merged: scope.merged.clone(),
                withs: Vec::new(),
                parent: scope.parent,
            };
            let mut subqueries = Vec::new();
            match constraint {
                JoinConstraint::On(condition) => subqueries = self.read_condition(condition, &inner, &reach),
                JoinConstraint::Using(columns) => {
                    let names: Vec<String> = columns.iter().filter_map(stored_parts).flatten().collect();
                    self.merge(&names, kind, (left_items, right_items), &mut scope.merged, &reach);
                }
                JoinConstraint::Natural => {
                    self.wildcards = true;
                    let names = common_names(left_items, right_items);
                    match names {
                        Some(names) => self.merge(&names, kind, (left_items, right_items), &mut scope.merged, &reach),
                        None => self.refuse("the columns of a NATURAL JOIN are not known"),
                    }
                }
                JoinConstraint::None => {}
            }
            if matches!(kind, JoinKind::Left | JoinKind::Full) {
                self.nullable.extend(&right_nodes);
            }
            if matches!(kind, JoinKind::Right | JoinKind::Full) {
                self.nullable.extend(&left_nodes);
            }
            model = FromModel::Join { kind, sides: Box::new((model, right)), subqueries };
        }
        model
    }

    fn join_kind<'j>(&mut self, join: &'j Join) -> (JoinKind, &'j JoinConstraint) {
        match &join.join_operator {
            JoinOperator::Join(on) | JoinOperator::Inner(on) | JoinOperator::CrossJoin(on) => (JoinKind::Inner, on),
            JoinOperator::Left(on) | JoinOperator::LeftOuter(on) => (JoinKind::Left, on),
            JoinOperator::Right(on) | JoinOperator::RightOuter(on) => (JoinKind::Right, on),
            JoinOperator::FullOuter(on) => (JoinKind::Full, on),
            _ => {
                self.refuse("a kind of join that PostgreSQL has not");
                (JoinKind::Full, &JoinConstraint::None)
            }
        }
    }

    /// USING and NATURAL: the columns of both sides are equal, and one column stands for both.
    fn merge(
        &mut self,
        names: &[String],
        kind: JoinKind,
        (left, right): (&[Item], &[Item]),
        merged: &mut Vec<(String, Option<NodeId>)>,
        reach: &Reach<'_>,
    ) {
        for name in names {
            let earlier = merged.iter().find(|(known, _)| known == name).map(|(_, node)| *node);
            let left = earlier.unwrap_or_else(|| column_of(left, name));
            let right = column_of(right, name);
            if let (Some(left), Some(right)) = (left, right) {
                self.equate(left, right, reach);
            }
            let stands_for = match kind {
                JoinKind::Inner | JoinKind::Left => left,
                JoinKind::Right => right,
                JoinKind::Full => None,
            };
            merged.retain(|(known, _)| known != name);
            merged.push((name.clone(), stands_for));
        }
    }

    fn read_factor(&mut self, factor: &TableFactor, scope: &mut Scope<'_>) -> FromModel {
        match factor {
            TableFactor::Table { name, alias, args: None, .. } => self.read_table(name, alias.as_ref(), scope),
            TableFactor::Derived { lateral, subquery, alias, .. } => {
                let model = if *lateral {
                    self.read_query(subquery, scope)
                } else {
                    let siblings = std::mem::take(&mut scope.items);
                    let model = self.read_query(subquery, scope);
                    scope.items = siblings;
                    model
                };
                self.add_item(alias.as_ref(), model.outputs.clone(), scope);
                FromModel::Derived(Box::new(model))
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                let from = scope.items.len();
                let model = self.read_joined(table_with_joins, scope);
                if let Some(alias) = alias {
                    // One name for all its columns.
                    let merged = !scope.merged.is_empty();
                    let columns: Option<Vec<OutputColumn>> = scope.items[from..]
                        .iter()
                        .map(|item| item.columns.clone())
                        .collect::<Option<Vec<_>>>()
                        .map(|all| all.concat());
                    scope.items.truncate(from);
                    self.add_item(Some(alias), columns.filter(|_| !merged), scope);
                }
                model
            }
            TableFactor::Table { name, alias, args: Some(args), .. } => {
                let subqueries = self.read_expressions(&args.args, scope).subqueries;
                self.add_function(&stored_parts(name).unwrap_or_default(), alias.as_ref(), scope);
                FromModel::Function(subqueries)
            }
            TableFactor::Function { name, args, alias, .. } => {
                let subqueries = self.read_expressions(args, scope).subqueries;
                self.add_function(&stored_parts(name).unwrap_or_default(), alias.as_ref(), scope);
                FromModel::Function(subqueries)
            }
            TableFactor::UNNEST { array_exprs, alias, .. } => {
                let subqueries = self.read_expressions(array_exprs, scope).subqueries;
                self.add_function(&["unnest".to_owned()], alias.as_ref(), scope);
                FromModel::Function(subqueries)
            }
            _ => {
                self.refuse("a FROM item that is not taken apart");
                FromModel::Function(Vec::new())
            }
        }
    }

    fn add_item(&mut self, alias: Option<&TableAlias>, mut columns: Option<Vec<OutputColumn>>, scope: &mut Scope<'_>) {
        let name = alias.map(|alias| stored(&alias.name)).unwrap_or_default();
        rename(&mut columns, &alias.map(column_names).unwrap_or_default());
        scope.items.push(Item { alias: name, table: None, columns });
    }

    fn add_function(&mut self, name: &[String], alias: Option<&TableAlias>, scope: &mut Scope<'_>) {
        let names = alias.map(column_names).unwrap_or_default();
        let columns = (!names.is_empty())
            .then(|| names.into_iter().map(|name| OutputColumn { name: Some(name), node: None }).collect::<Vec<_>>());
        let alias = alias.map(|alias| stored(&alias.name)).or_else(|| name.last().cloned());
        scope.items.push(Item { alias: alias.unwrap_or_default(), table: None, columns });
    }

    fn read_table(&mut self, name: &ObjectName, alias: Option<&TableAlias>, scope: &mut Scope<'_>) -> FromModel {
        let Some(parts) = stored_parts(name) else {
            self.refuse("a table's name is computed");
            return FromModel::Function(Vec::new());
        };
        if let ([single], Some(number)) = (parts.as_slice(), parts.last().and_then(|name| scope.with_query(name))) {
            let mut columns = self.withs[number].outputs.clone();
            self.seal(&mut columns);
            rename(&mut columns, &alias.map(column_names).unwrap_or_default());
            let alias = alias.map_or_else(|| single.clone(), |alias| stored(&alias.name));
            scope.items.push(Item { alias, table: None, columns });
            return FromModel::With(number);
        }
        let (model, item) = self.read_relation(&parts, location(name), alias);
        scope.items.push(item);
        model
    }

    /// A table or view by its name.
    pub(super) fn read_relation(
        &mut self,
        parts: &[String],
        at: Option<Location>,
        alias: Option<&TableAlias>,
    ) -> (FromModel, Item) {
        let (schema, name) = match parts {
            [name] => (None, name.as_str()),
            [.., schema, name] => (Some(schema.as_str()), name.as_str()),
            [] => (None, ""),
        };
        let called = alias.map_or_else(|| name.to_owned(), |alias| stored(&alias.name));
        let unknown = Item { alias: called.clone(), table: None, columns: None };
        let public = ["public".to_owned()];
        let path = if self.view_depth > 0 { &public[..] } else { self.planner.search_path };
        let Some((full, definition)) = self.planner.schema.find(schema, name, path) else {
            let system =
                matches!(schema, Some("pg_catalog" | "information_schema")) || schema.is_none() && name.starts_with("pg_");
            self.system_tables |= system;
            self.unknown_tables |= !system;
            return (FromModel::Function(Vec::new()), unknown);
        };
        let listed = self.planner.map.tables.get(&full);
        if let (None, 'v', Some(text)) = (listed, definition.kind, &definition.view) {
            let names: Vec<String> = definition.columns.iter().map(|column| column.name.clone()).collect();
            let text = text.clone();
            return self.read_view(&text, &names, full, (called, alias));
        }
        let Some(place) = self.planner.map.place(&full).cloned() else {
            self.unlisted.push(full);
            return (FromModel::Function(Vec::new()), unknown);
        };
        let instance = self.instances.len();
        let mut columns = Vec::new();
        for column in &definition.columns {
            columns.push((column.name.clone(), self.nodes.len()));
            self.nodes.push(Node {
                type_oid: column.type_oid,
                instance: Some(instance),
                collation: column.collation.clone(),
                deterministic: column.deterministic,
            });
        }
        let mut outputs =
            Some(columns.iter().map(|(name, node)| OutputColumn { name: Some(name.clone()), node: Some(*node) }).collect());
        rename(&mut outputs, &alias.map(column_names).unwrap_or_default());
        let nowhere = Location { line: 0, column: 0 };
        if alias.is_some_and(|alias| !alias.columns.is_empty()) {
            self.renamed.extend(at);
        }
        let item = Item { alias: called.clone(), table: alias.is_none().then(|| full.clone()), columns: outputs };
        self.instances.push(Instance {
            at: at.filter(|_| self.view_depth == 0).unwrap_or(nowhere),
            table: full,
            alias: called,
            aliased: alias.is_some(),
            place,
            columns,
            filters: Vec::new(),
        });
        (FromModel::Table(instance), item)
    }

    /// A view is what its query is.
    fn read_view(
        &mut self,
        text: &str,
        names: &[String],
        full: QualifiedName,
        (called, alias): (String, Option<&TableAlias>),
    ) -> (FromModel, Item) {
        self.views = true;
        let tree = survey(&mut Scanner::new(text.as_bytes(), Lexing::default()), self.planner.catalogue)
            .and_then(|seen| super::tree::parse(text, &seen));
        let (Some(Statement::Query(query)), true) = (&tree, self.view_depth < VIEW_DEPTH_MAX) else {
            self.unlisted.push(full);
            return (FromModel::Function(Vec::new()), Item { alias: called, table: None, columns: None });
        };
        if let Some(tree) = &tree {
            self.view_functions.extend(super::collect::Whole::of(tree).functions);
        }
        self.view_depth += 1;
        let model: QueryModel = self.read_query(query, &Scope::default());
        self.view_depth -= 1;
        let mut columns = model.outputs.clone();
        rename(&mut columns, names);
        rename(&mut columns, &alias.map(column_names).unwrap_or_default());
        (FromModel::Derived(Box::new(model)), Item { alias: called, table: alias.is_none().then_some(full), columns })
    }
}

/// The columns that have this name on one side of a join; `None` unless there is one.
fn column_of(items: &[Item], name: &str) -> Option<NodeId> {
    let mut same =
        items.iter().flat_map(|item| item.columns.iter().flatten()).filter(|column| column.name.as_deref() == Some(name));
    match (same.next(), same.next()) {
        (Some(column), None) => column.node,
        _ => None,
    }
}

fn nodes_of(items: &[Item]) -> HashSet<NodeId> {
    items.iter().flat_map(|item| item.columns.iter().flatten()).filter_map(|column| column.node).collect()
}

fn common_names(left: &[Item], right: &[Item]) -> Option<Vec<String>> {
    let names = |items: &[Item]| -> Option<Vec<String>> {
        let columns = items.iter().map(|item| item.columns.as_ref()).collect::<Option<Vec<_>>>()?;
        columns.into_iter().flatten().map(|column| column.name.clone()).collect()
    };
    let right = names(right)?;
    Some(names(left)?.into_iter().filter(|name| right.contains(name)).collect())
}

fn column_names(alias: &TableAlias) -> Vec<String> {
    alias.columns.iter().map(|column| stored(&column.name)).collect()
}

/// Whether the rows of a place are whole on every shard.
pub(super) fn is_whole(place: &TablePlace) -> bool {
    matches!(place, TablePlace::Reference)
}
