//! What a condition that must hold says of columns: equalities between them, and constants that they equal.

use super::collect::Found;
use super::functions::listed_immutable;
use super::model::{Constant, NodeId};
use super::scope::{Reader, Scope};
use super::steps::KeyTerm;
use super::tree::last_part;
use sqlparser::ast::{BinaryOperator, Expr, Ident, UnaryOperator, Value, visit_expressions_mut};
use std::collections::HashSet;
use std::ops::ControlFlow;

/// Combinations of values for a row of columns beyond which they are not kept apart.
const VALUES_MAX: usize = 1000;

/// Types whose values can be keys and that change nothing of a value that they can hold. (`name` cuts, `citext` compares otherwise.)
const FAITHFUL: &[&str] = &[
    "smallint",
    "int2",
    "int",
    "integer",
    "int4",
    "bigint",
    "int8",
    "text",
    "varchar",
    "character varying",
    "uuid",
    "numeric",
    "decimal",
    "bytea",
    "date",
    "timestamp",
    "timestamp without time zone",
    "timestamptz",
    "timestamp with time zone",
];

/// Where the equalities of a condition count.
pub(super) struct Reach<'r> {
    /// Columns about whose rows it says something.
    pub(super) targets: &'r HashSet<NodeId>,
    /// Filters may be handed to tables that an outer join extends with NULLs.
    pub(super) nullable_too: bool,
}

impl Reader<'_> {
    /// Takes what a condition that must hold, without AND at its top, says.
    pub(super) fn learn(&mut self, condition: &Expr, scope: &Scope<'_>, reach: &Reach<'_>) {
        self.learn_equality(condition, scope, reach);
        self.learn_filter(condition, scope, reach);
    }

    /// A condition on one table only, which can be met before its rows are handed on.
    fn learn_filter(&mut self, condition: &Expr, scope: &Scope<'_>, reach: &Reach<'_>) {
        let found = Found::within(condition);
        if !found.queries.is_empty() || found.special {
            return;
        }
        let immutable = |name: &str| listed_immutable(name);
        if !found.functions.iter().all(|function| function.over.is_none() && immutable(&last_part(&function.name))) {
            return;
        }
        let mut owner = None;
        for parts in &found.columns {
            let Some((Some(node), _)) = self.resolve(parts, scope) else { return };
            let usable = reach.targets.contains(&node) && (reach.nullable_too || !self.nullable.contains(&node));
            match (self.nodes[node].instance, owner) {
                (Some(instance), None) if usable => owner = Some(instance),
                (Some(instance), Some(known)) if usable && instance == known => {}
                _ => return,
            }
        }
        let Some(owner) = owner else { return };
        let mut filter = condition.clone();
        let columns = &self.instances[owner].columns;
        let _ = visit_expressions_mut(&mut filter, |expr| {
            let parts = match expr {
                Expr::Identifier(name) => vec![name.clone()],
                Expr::CompoundIdentifier(parts) => parts.clone(),
                _ => return ControlFlow::<()>::Continue(()),
            };
            let node = self.resolve(&parts, scope).and_then(|(node, _)| node);
            if let Some((name, _)) = columns.iter().find(|(_, known)| Some(*known) == node) {
                *expr = Expr::Identifier(Ident::with_quote('"', name.replace('"', "\"\"")));
            }
            ControlFlow::Continue(())
        });
        self.instances[owner].filters.push(filter);
    }

    fn learn_equality(&mut self, condition: &Expr, scope: &Scope<'_>, reach: &Reach<'_>) {
        match condition {
            Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
                match (peel(left), peel(right)) {
                    (Expr::Tuple(left), Expr::Tuple(right)) if left.len() == right.len() => {
                        for (left, right) in left.iter().zip(right) {
                            self.learn_pair(left, right, scope, reach);
                        }
                    }
                    (left, right) => self.learn_pair(left, right, scope, reach),
                };
            }
            Expr::InList { .. } | Expr::AnyOp { .. } => {
                if let Some((nodes, rows)) = self.alternatives(condition, scope) {
                    self.learn_constant(nodes, rows, reach);
                }
            }
            Expr::BinaryOp { op: BinaryOperator::Or, .. } => {
                if let Some((nodes, rows)) = self.alternatives(condition, scope) {
                    self.learn_constant(nodes, rows, reach);
                }
            }
            _ => {}
        }
    }

    fn learn_pair(&mut self, left: &Expr, right: &Expr, scope: &Scope<'_>, reach: &Reach<'_>) {
        match (self.node_of(left, scope), self.node_of(right, scope)) {
            (Some(left), Some(right)) => self.equate(left, right, reach),
            (Some(node), None) => {
                if let Some(term) = term(right) {
                    self.learn_constant(vec![node], vec![vec![term]], reach);
                }
            }
            (None, Some(node)) => {
                if let Some(term) = term(left) {
                    self.learn_constant(vec![node], vec![vec![term]], reach);
                }
            }
            (None, None) => {}
        }
    }

    /// Two columns are equal wherever the targets' rows matter.
    pub(super) fn equate(&mut self, left: NodeId, right: NodeId, reach: &Reach<'_>) {
        if !alike(&self.nodes[left], &self.nodes[right]) {
            return;
        }
        for (from, to) in [(left, right), (right, left)] {
            if reach.targets.contains(&to) {
                self.edges.push((from, to));
            }
        }
    }

    fn learn_constant(&mut self, nodes: Vec<NodeId>, rows: Vec<Vec<KeyTerm>>, reach: &Reach<'_>) {
        if nodes.iter().all(|node| reach.targets.contains(node)) {
            self.constants.push(Constant { nodes, rows });
        }
    }

    /// The columns that a condition gives one of several values: IN lists, `= ANY`, and equalities of the same columns under OR.
    fn alternatives(&self, condition: &Expr, scope: &Scope<'_>) -> Option<(Vec<NodeId>, Vec<Vec<KeyTerm>>)> {
        match condition {
            Expr::Nested(inner) => self.alternatives(inner, scope),
            Expr::BinaryOp { left, op: BinaryOperator::Or, right } => {
                let (nodes, mut rows) = self.alternatives(left, scope)?;
                let (others, more) = self.alternatives(right, scope)?;
                rows.extend(more);
                (nodes == others && rows.len() <= VALUES_MAX).then_some((nodes, rows))
            }
            Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => match (peel(left), peel(right)) {
                (Expr::Tuple(_), _) => Some((self.nodes_of(left, scope)?, vec![terms(right)?])),
                _ => match (self.node_of(left, scope), self.node_of(right, scope)) {
                    (Some(node), None) => Some((vec![node], vec![vec![term(right)?]])),
                    (None, Some(node)) => Some((vec![node], vec![vec![term(left)?]])),
                    _ => None,
                },
            },
            Expr::InList { expr, list, negated: false } => {
                let nodes = self.nodes_of(expr, scope)?;
                let rows: Option<Vec<_>> = list.iter().map(terms).collect();
                let rows = rows?;
                (rows.len() <= VALUES_MAX && rows.iter().all(|row| row.len() == nodes.len())).then_some((nodes, rows))
            }
            Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => {
                let node = self.node_of(left, scope)?;
                let rows = match peel(right) {
                    Expr::Array(array) if array.elem.len() <= VALUES_MAX => {
                        array.elem.iter().map(|element| Some(vec![term(element)?])).collect::<Option<Vec<_>>>()?
                    }
                    other => match term(other)? {
                        KeyTerm::Parameter { number, .. } => vec![vec![KeyTerm::Parameter { number, any: true }]],
                        KeyTerm::Constant { .. } => return None,
                    },
                };
                Some((vec![node], rows))
            }
            _ => None,
        }
    }

    fn nodes_of(&self, expr: &Expr, scope: &Scope<'_>) -> Option<Vec<NodeId>> {
        match peel(expr) {
            Expr::Tuple(parts) => parts.iter().map(|part| self.node_of(part, scope)).collect(),
            other => Some(vec![self.node_of(other, scope)?]),
        }
    }

    /// The column that an expression is.
    pub(super) fn node_of(&self, expr: &Expr, scope: &Scope<'_>) -> Option<NodeId> {
        match peel(expr) {
            Expr::Identifier(name) => self.resolve(std::slice::from_ref(name), scope)?.0,
            Expr::CompoundIdentifier(parts) => self.resolve(parts, scope)?.0,
            _ => None,
        }
    }
}

/// Columns whose equal values are the same key: of the same type, integers of any size, or text and varchar.
fn alike(left: &super::model::Node, right: &super::model::Node) -> bool {
    let family = |oid: u32| match oid {
        20 | 21 | 23 => 20,
        25 | 1043 => 25,
        other => other,
    };
    let plain = |oid: u32| !matches!(oid, 0 | 700 | 701 | 1042);
    family(left.type_oid) == family(right.type_oid) && plain(left.type_oid) && left.deterministic && right.deterministic
}

/// An expression without the parentheses around it.
pub(super) fn peel(expr: &Expr) -> &Expr {
    match expr {
        Expr::Nested(inner) => peel(inner),
        other => other,
    }
}

fn terms(expr: &Expr) -> Option<Vec<KeyTerm>> {
    match peel(expr) {
        Expr::Tuple(parts) => parts.iter().map(term).collect(),
        other => Some(vec![term(other)?]),
    }
}

/// The constant or parameter that an expression is.
pub(super) fn term(expr: &Expr) -> Option<KeyTerm> {
    let constant = |text: String| Some(KeyTerm::Constant { text: Some(text), cast: None });
    match peel(expr) {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => constant(digits.clone()),
            Value::SingleQuotedString(text) => constant(text.replace("''", "'")),
            Value::DollarQuotedString(text) => constant(text.value.clone()),
            Value::EscapedStringLiteral(text) if !text.contains('\\') && !text.contains('\'') => constant(text.clone()),
            Value::Boolean(value) => constant(value.to_string()),
            Value::Null => Some(KeyTerm::Constant { text: None, cast: None }),
            Value::Placeholder(name) => Some(KeyTerm::Parameter { number: name.strip_prefix('$')?.parse().ok()?, any: false }),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match term(expr)? {
            KeyTerm::Constant { text: Some(digits), cast: None } if digits.starts_with(|c: char| c.is_ascii_digit()) => {
                matches!(peel(expr), Expr::Value(value) if matches!(value.value, Value::Number(..)))
                    .then(|| KeyTerm::Constant { text: Some(format!("-{digits}")), cast: None })
            }
            _ => None,
        },
        Expr::Cast { expr, data_type, format: None, .. } => cast(term(expr)?, &data_type.to_string()),
        Expr::TypedString(typed) => match &typed.value.value {
            Value::SingleQuotedString(text) => {
                cast(KeyTerm::Constant { text: Some(text.replace("''", "'")), cast: None }, &typed.data_type.to_string())
            }
            _ => None,
        },
        _ => None,
    }
}

/// A term that is cast. A type with a modifier may cut or round: what it makes of the value is not worked out.
fn cast(term: KeyTerm, name: &str) -> Option<KeyTerm> {
    let name = name.to_ascii_lowercase();
    if !FAITHFUL.contains(&name.strip_suffix("[]").unwrap_or(&name)) {
        return None;
    }
    match term {
        KeyTerm::Constant { text, cast: None } => Some(KeyTerm::Constant { text, cast: Some(name) }),
        KeyTerm::Parameter { number, any } => Some(KeyTerm::Parameter { number, any }),
        KeyTerm::Constant { .. } => None,
    }
}
