//! Reads a statement's tree, query by query: what each gives, groups by and needs.

use super::collect::Found;
use super::conditions::{Reach, peel};
use super::functions::{FunctionKind, is_orderless, kind_of};
use super::model::{BodyModel, DistinctModel, FromModel, Node, NodeId, OutputColumn, QueryModel, SelectModel};
use super::names::{group_target, implied_name};
use super::scope::{Level, Reader, Scope, WithModel, has_items_outside, names_an_item};
use super::tree::{last_part, stored, stored_parts};
use sqlparser::ast::{
    Distinct, DuplicateTreatment, Expr, Function, FunctionArguments, GroupByExpr, Ident, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, SetOperator, SetQuantifier, WindowType, With,
};
use std::collections::HashSet;

impl Reader<'_> {
    pub(super) fn read_query(&mut self, query: &Query, parent: &Scope<'_>) -> QueryModel {
        self.read_query_with_level(query, parent, &mut None)
    }

    /// Reads a query, and hands out the names of its FROM items if it is one SELECT.
    pub(super) fn read_query_with_level(&mut self, query: &Query, parent: &Scope<'_>, out: &mut Option<Level>) -> QueryModel {
        let mut scope = Scope::inside(parent);
        if let Some(with) = &query.with {
            self.read_with(with, &mut scope);
        }
        let mut level = None;
        let (body, outputs) = self.read_body(&query.body, &scope, &mut level);
        let inner = level.clone().unwrap_or_default().scope(Some(&scope));
        let mut subqueries = Vec::new();
        if let Some(order) = &query.order_by {
            subqueries.extend(self.read_expressions(order, &inner).subqueries);
        }
        if let Some(limit) = &query.limit_clause {
            subqueries.extend(self.read_expressions(limit, &inner).subqueries);
        }
        let limited = query.limit_clause.is_some() || query.fetch.is_some();
        *out = level;
        let mut outputs = outputs;
        if limited || distinct_on(&query.body) {
            self.seal(&mut outputs);
        }
        QueryModel { body, limited, subqueries, outputs }
    }

    fn read_with(&mut self, with: &With, scope: &mut Scope<'_>) {
        for cte in &with.cte_tables {
            let number = self.withs.len();
            self.withs.push(WithModel { query: None, recursive: with.recursive, outputs: None });
            let name = stored(&cte.alias.name);
            if with.recursive {
                scope.withs.push((name.clone(), number));
            }
            let model = self.read_query(&cte.query, scope);
            let mut outputs = model.outputs.clone();
            rename(&mut outputs, &cte.alias.columns.iter().map(|column| stored(&column.name)).collect::<Vec<_>>());
            self.withs[number].outputs = outputs;
            self.withs[number].query = Some(model);
            if !with.recursive {
                scope.withs.push((name, number));
            }
        }
    }

    fn read_body(
        &mut self,
        body: &SetExpr,
        scope: &Scope<'_>,
        level: &mut Option<Level>,
    ) -> (BodyModel, Option<Vec<OutputColumn>>) {
        match body {
            SetExpr::Select(select) => {
                let (model, own) = self.read_select(select, scope);
                *level = Some(own);
                let outputs = model.outputs.clone();
                (BodyModel::Select(Box::new(model)), outputs)
            }
            SetExpr::Query(query) => {
                let model = self.read_query(query, scope);
                let outputs = model.outputs.clone();
                if model.limited || !model.subqueries.is_empty() {
                    // Its own LIMIT counts before what follows: kept as a subquery of its own.
                    let select = derived_select(model);
                    return (BodyModel::Select(Box::new(select)), outputs);
                }
                (model.body, outputs)
            }
            SetExpr::SetOperation { left, op, set_quantifier, right } => {
                let mut sides = Vec::new();
                for side in [left, right] {
                    let (body, outputs) = self.read_body(side, scope, &mut None);
                    sides.push(QueryModel { body, limited: false, subqueries: Vec::new(), outputs });
                }
                let union_all = *op == SetOperator::Union && *set_quantifier == SetQuantifier::All;
                let outputs = self.set_outputs(&sides);
                let (Some(right), Some(left)) = (sides.pop(), sides.pop()) else {
                    return (BodyModel::Values(Vec::new()), None);
                };
                (BodyModel::Set { union_all, sides: Box::new((left, right)) }, outputs)
            }
            SetExpr::Values(values) => {
                let mut subqueries = Vec::new();
                for expr in values.rows.iter().flat_map(|row| &row.content) {
                    subqueries.extend(self.read_expressions(expr, scope).subqueries);
                }
                let columns = values.rows.first().map_or(0, |row| row.content.len());
                let outputs = (1..=columns).map(|n| OutputColumn { name: Some(format!("column{n}")), node: None }).collect();
                (BodyModel::Values(subqueries), Some(outputs))
            }
            _ => {
                self.refuse("a data-changing statement or TABLE inside a query is not taken apart");
                self.unread = true;
                (BodyModel::Values(Vec::new()), None)
            }
        }
    }

    /// The columns of a set operation: new ones, of which nothing is known but where their values come from.
    fn set_outputs(&mut self, sides: &[QueryModel]) -> Option<Vec<OutputColumn>> {
        let [left, right] = sides else { return None };
        let (left, right) = (left.outputs.as_ref()?, right.outputs.as_ref()?);
        let mut outputs = Vec::new();
        for (left, right) in left.iter().zip(right) {
            let node = match (left.node, right.node) {
                (Some(l), Some(r)) if self.nodes[l].type_oid == self.nodes[r].type_oid => {
                    let node = Node { instance: None, ..self.nodes[l].clone() };
                    self.nodes.push(node);
                    Some(self.nodes.len() - 1)
                }
                _ => None,
            };
            outputs.push(OutputColumn { name: left.name.clone(), node });
        }
        Some(outputs)
    }

    /// Makes new columns of those that a query gives, which only take values from them: conditions on them do not reach inside.
    pub(super) fn seal(&mut self, outputs: &mut Option<Vec<OutputColumn>>) {
        for column in outputs.iter_mut().flatten() {
            if let Some(from) = column.node {
                let node = Node { instance: None, ..self.nodes[from].clone() };
                self.nodes.push(node);
                column.node = Some(self.nodes.len() - 1);
                self.edges.push((from, self.nodes.len() - 1));
            }
        }
    }

    fn read_select(&mut self, select: &Select, outside: &Scope<'_>) -> (SelectModel, Level) {
        let mut scope = Scope::inside(outside);
        let mut from = Vec::new();
        for table in &select.from {
            from.push(self.read_joined(table, &mut scope));
        }
        let mut seen = Seen::default();
        if let Some(condition) = &select.selection {
            let targets = scope.nodes();
            let reach = Reach { targets: &targets, nullable_too: false };
            seen.subqueries.extend(self.read_condition(condition, &scope, &reach));
        }
        let group = self.read_group(select, &scope, &mut seen);
        for item in &select.projection {
            seen.absorb(self.read_expressions(item, &scope));
        }
        if let Some(having) = &select.having {
            seen.absorb(self.read_expressions(having, &scope));
        }
        for window in &select.named_window {
            seen.absorb(self.read_expressions(window, &scope));
            // What it partitions by is not followed.
            seen.windows.push(Vec::new());
        }
        let distinct = match &select.distinct {
            Some(Distinct::Distinct) => DistinctModel::All,
            Some(Distinct::On(list)) => {
                list.iter().for_each(|expr| seen.absorb(self.read_expressions(expr, &scope)));
                DistinctModel::On
            }
            _ => DistinctModel::None,
        };
        let grouped =
            select.having.is_some() || !matches!(&select.group_by, GroupByExpr::Expressions(list, _) if list.is_empty());
        let mut outputs = self.outputs(select, &scope);
        let aggregated = seen.aggregated || grouped;
        // Conditions on what is grouped by, and on nothing else, may be met before grouping.
        if aggregated || !seen.windows.is_empty() {
            let keys: HashSet<NodeId> =
                if seen.windows.is_empty() { group.iter().flatten().copied().collect() } else { HashSet::new() };
            let mut others = outputs.clone();
            self.seal(&mut others);
            for (column, sealed) in outputs.iter_mut().flatten().zip(others.into_iter().flatten()) {
                if column.node.is_some_and(|node| !keys.contains(&node)) {
                    *column = sealed;
                }
            }
        }
        let model = SelectModel {
            from,
            subqueries: seen.subqueries,
            aggregated,
            group,
            distinct,
            windows: seen.windows,
            order_sensitive: seen.order_sensitive,
            outputs,
        };
        (model, Level { items: scope.items, merged: scope.merged })
    }

    /// The columns that rows are grouped by.
    fn read_group(&mut self, select: &Select, scope: &Scope<'_>, seen: &mut Seen) -> Option<Vec<NodeId>> {
        let GroupByExpr::Expressions(list, modifiers) = &select.group_by else { return None };
        let mut nodes = Vec::new();
        let mut plain = modifiers.is_empty();
        for expr in list {
            seen.absorb(self.read_expressions(expr, scope));
            plain &= !matches!(expr, Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_));
            let target = group_target(select, expr, |parts| self.resolve(parts, scope).is_some());
            nodes.extend(target.and_then(|target| self.node_of(target, scope)));
        }
        self.note_dependencies(list, &nodes, scope);
        plain.then_some(nodes)
    }

    /// Notes tables all of whose primary key is among the columns grouped by.
    fn note_dependencies(&mut self, list: &[Expr], nodes: &[NodeId], scope: &Scope<'_>) {
        let mut instances: Vec<usize> = nodes.iter().filter_map(|node| self.nodes[*node].instance).collect();
        instances.sort_unstable();
        instances.dedup();
        for number in instances {
            let instance = &self.instances[number];
            let primary = self.planner.schema.table(&instance.table).map(|table| table.primary.clone()).unwrap_or_default();
            let keys: Vec<NodeId> = primary.iter().filter_map(|column| instance.node(column)).collect();
            if keys.is_empty() || !keys.iter().all(|key| nodes.contains(key)) {
                continue;
            }
            let place = list.iter().find_map(|expr| {
                let start = match expr {
                    Expr::Identifier(name) => name.span.start,
                    Expr::CompoundIdentifier(parts) => parts.first()?.span.start,
                    _ => return None,
                };
                self.node_of(expr, scope).filter(|node| keys.contains(node)).map(|_| start)
            });
            self.dependent.push((place, number));
        }
    }

    fn outputs(&mut self, select: &Select, scope: &Scope<'_>) -> Option<Vec<OutputColumn>> {
        let mut outputs = Vec::new();
        for item in &select.projection {
            match item {
                SelectItem::UnnamedExpr(expr) => {
                    outputs.push(OutputColumn { name: implied_name(expr), node: self.node_of(expr, scope) });
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    outputs.push(OutputColumn { name: Some(stored(alias)), node: self.node_of(expr, scope) });
                }
                SelectItem::Wildcard(_) => {
                    self.wildcards = true;
                    if !scope.merged.is_empty() {
                        return None;
                    }
                    for item in &scope.items {
                        outputs.extend(item.columns.clone()?);
                    }
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                    self.wildcards = true;
                    let parts = stored_parts(name)?;
                    let item = scope.items.iter().find(|item| parts.last() == Some(&item.alias))?;
                    outputs.extend(item.columns.clone()?);
                }
                _ => {
                    self.wildcards = true;
                    return None;
                }
            }
        }
        Some(outputs)
    }

    /// Reads a condition that must hold: its subqueries, what its ANDed parts say of columns, and what a positive `IN (SELECT ...)`
    /// among them says.
    pub(super) fn read_condition(&mut self, condition: &Expr, scope: &Scope<'_>, reach: &Reach<'_>) -> Vec<QueryModel> {
        match condition {
            Expr::Nested(inner) => self.read_condition(inner, scope, reach),
            Expr::BinaryOp { left, op: sqlparser::ast::BinaryOperator::And, right } => {
                let mut subqueries = self.read_condition(left, scope, reach);
                subqueries.extend(self.read_condition(right, scope, reach));
                subqueries
            }
            Expr::InSubquery { expr, subquery, negated: false } => {
                let mut subqueries = self.read_expressions(expr.as_ref(), scope).subqueries;
                let model = self.read_query(subquery, scope);
                let left = match peel(expr) {
                    Expr::Tuple(parts) => parts.iter().collect(),
                    other => vec![other],
                };
                // Only rows of the subquery that equal the left side matter.
                let mut targets = reach.targets.clone();
                targets.extend(model.outputs.iter().flatten().filter_map(|column| column.node));
                let reach = Reach { targets: &targets, nullable_too: false };
                for (expr, column) in left.into_iter().zip(model.outputs.iter().flatten()) {
                    if let (Some(node), Some(output)) = (self.node_of(expr, scope), column.node) {
                        self.equate(node, output, &reach);
                    }
                }
                subqueries.push(model);
                subqueries
            }
            other => {
                let subqueries = self.read_expressions(other, scope).subqueries;
                self.learn(other, scope, reach);
                subqueries
            }
        }
    }

    /// Reads what stands in expressions: functions, whole rows, subqueries.
    pub(super) fn read_expressions(&mut self, node: &impl sqlparser::ast::Visit, scope: &Scope<'_>) -> Seen {
        let found = Found::within(node);
        let mut seen = Seen::default();
        self.whole_rows |= found.special;
        for parts in &found.columns {
            if let [name] = parts.as_slice() {
                self.whole_rows |= self.resolve(parts, scope).is_none() && names_an_item(&stored(name), scope);
            }
        }
        for function in &found.functions {
            self.read_function(function, scope, &mut seen);
        }
        for query in &found.queries {
            seen.subqueries.push(self.read_query(query, scope));
        }
        seen
    }

    fn read_function(&mut self, function: &Function, scope: &Scope<'_>, seen: &mut Seen) {
        let name = last_part(&function.name);
        let kind = kind_of(&name, self.planner.schema, self.planner.catalogue);
        if let Some(window) = &function.over {
            let partition = match window {
                WindowType::WindowSpec(spec) if spec.window_name.is_none() => {
                    spec.partition_by.iter().filter_map(|expr| self.node_of(expr, scope)).collect()
                }
                _ => Vec::new(),
            };
            seen.windows.push(partition);
            seen.order_sensitive = true;
        } else if kind == FunctionKind::Aggregate || !function.within_group.is_empty() {
            seen.aggregated = true;
            seen.order_sensitive |= !is_orderless(&name);
            let inside = Found::within(function);
            let columns = inside.columns;
            // An aggregate over columns of the query around it belongs to that one.
            let outside = has_items_outside(scope);
            let outer = |parts: &Vec<Ident>| self.resolve(parts, scope).map_or(outside, |(_, depth)| depth > 0);
            self.entangled |= !columns.is_empty() && columns.iter().all(outer);
            if is_distinct(function) && !function.within_group.is_empty() {
                self.entangled = true;
            }
        }
    }
}

/// What expressions have in them.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) subqueries: Vec<QueryModel>,
    pub(super) aggregated: bool,
    pub(super) order_sensitive: bool,
    pub(super) windows: Vec<Vec<NodeId>>,
}

impl Seen {
    pub(super) fn absorb(&mut self, other: Seen) {
        self.subqueries.extend(other.subqueries);
        self.aggregated |= other.aggregated;
        self.order_sensitive |= other.order_sensitive;
        self.windows.extend(other.windows);
    }
}

/// Gives columns other names, from the first on.
pub(super) fn rename(columns: &mut Option<Vec<OutputColumn>>, names: &[String]) {
    for (column, name) in columns.iter_mut().flatten().zip(names) {
        column.name = Some(name.clone());
    }
}

pub(super) fn is_distinct(function: &Function) -> bool {
    matches!(&function.args, FunctionArguments::List(list) if list.duplicate_treatment == Some(DuplicateTreatment::Distinct))
}

fn distinct_on(body: &SetExpr) -> bool {
    matches!(body, SetExpr::Select(select) if matches!(select.distinct, Some(Distinct::On(_))))
}

/// `SELECT * FROM (query)`.
fn derived_select(model: QueryModel) -> SelectModel {
    SelectModel {
        outputs: model.outputs.clone(),
        from: vec![FromModel::Derived(Box::new(model))],
        subqueries: Vec::new(),
        aggregated: false,
        group: Some(Vec::new()),
        distinct: DistinctModel::None,
        windows: Vec::new(),
        order_sensitive: false,
    }
}
