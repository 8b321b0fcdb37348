//! A query whose rows are on several shards.

use super::collect::{Found, Whole};
use super::functions::FunctionKind;
use super::model::{BodyModel, DistinctModel, NodeId, QueryModel, SelectModel};
use super::place::{KeyTuple, Places, Spread};
use super::scope::{Level, Reader, Scope};
use super::steps::{GatherPlan, KeyCondition, Plan, Refusal};
use sqlparser::ast::{Expr, Ident, OrderByExpr, OrderByKind, Query, Select, SelectItem, SetExpr};

/// A query with all that is known of it.
pub(super) struct Question<'q> {
    pub(super) text: &'q str,
    pub(super) query: &'q Query,
    pub(super) model: &'q QueryModel,
    /// The names of its FROM, if it is one SELECT.
    pub(super) level: Option<Level>,
    pub(super) whole: &'q Whole,
    pub(super) kinds: &'q [FunctionKind],
    pub(super) reader: &'q Reader<'q>,
    /// Where its rows can be.
    pub(super) shards: KeyCondition,
}

/// Columns that every table has and no plan over several shards can show.
const SYSTEM_COLUMNS: &[&str] = &["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"];

/// What is done when it concerns several shards.
pub(super) fn gather(question: &Question<'_>) -> Plan {
    if let Some(reason) = objection(question) {
        return Plan::Refused(refusal(&reason));
    }
    match distributed(question).map_or_else(|| super::bring::bring(question), Ok) {
        Ok(plan) => Plan::Gather(plan),
        Err(reason) => Plan::Refused(refusal(&reason)),
    }
}

/// A refusal with the hint that fits most.
pub fn refusal(reason: &str) -> Refusal {
    Refusal {
        reason: reason.to_owned(),
        hint: "Name one key of the sharded tables in WHERE, run the statement on each shard after SET pgyard.shard, or take it apart."
            .to_owned(),
    }
}

/// Why several shards can't answer it, however it is taken apart.
fn objection(question: &Question<'_>) -> Option<String> {
    let Question { whole, kinds, reader, .. } = question;
    let has = |kind| kinds.contains(&kind);
    let system = |name: &&String| {
        SYSTEM_COLUMNS.contains(&name.as_str()) && !reader.instances.iter().any(|instance| instance.node(name).is_some())
    };
    if let Some(reason) = &reader.refusal {
        return Some(reason.clone());
    }
    let reason = if whole.locks {
        "a locking clause cannot be used in a query over several shards"
    } else if whole.statements > 1 || whole.into {
        "a statement that changes data inside a query over several shards is not supported"
    } else if whole.strange {
        "a query over several shards has a clause that cannot be taken apart"
    } else if whole.names.iter().any(|name| system(&name)) {
        "system columns cannot be used in a query over several shards"
    } else if has(FunctionKind::Sequence) {
        "a sequence cannot be used in a query over several shards"
    } else if has(FunctionKind::Session) {
        "a function bound to the session cannot be used in a query over several shards"
    } else if has(FunctionKind::Physical) {
        "a function that describes how a value is stored cannot be used in a query over several shards"
    } else if reader.system_tables {
        "system catalogs cannot be joined with tables of several shards"
    } else {
        return None;
    };
    Some(reason.to_owned())
}

/// By each shard for its own rows, if that is exact.
fn distributed(question: &Question<'_>) -> Option<GatherPlan> {
    let Question { query, model, reader, kinds, .. } = question;
    let repeated = |kind: &FunctionKind| matches!(kind, FunctionKind::Random | FunctionKind::Server);
    if reader.entangled || kinds.iter().any(repeated) {
        return None;
    }
    let places = Places::new(reader);
    match (&model.body, query.body.as_ref()) {
        (BodyModel::Select(select), SetExpr::Select(tree)) => {
            let Ok(Spread::Shards(tuples)) = places.tables_of(select, &[]) else { return None };
            let around = places.all_whole(&select.subqueries, &tuples);
            let behind = places.all_whole(&model.subqueries, &tuples);
            if around != Ok(false) || behind != Ok(false) {
                return None;
            }
            selected(question, (tree, select), &places, &tuples)
        }
        (BodyModel::Set { .. }, _) => {
            let unlimited = QueryModel { limited: false, ..(*model).clone() };
            match places.query(&unlimited, &[]) {
                Ok(Spread::Shards(_)) => super::order::plain(question, None),
                _ => super::order::union(question, &places),
            }
        }
        _ => None,
    }
}

fn selected(
    question: &Question<'_>,
    (tree, select): (&Select, &SelectModel),
    places: &Places<'_>,
    tuples: &[KeyTuple],
) -> Option<GatherPlan> {
    if shows_clock(question, tree) {
        return None;
    }
    if places.local(select, tuples).is_ok() {
        return super::order::plain(question, Some(tree));
    }
    if !select.windows.is_empty() {
        return None;
    }
    match (select.aggregated, select.distinct) {
        (true, DistinctModel::On) => None,
        (true, _) => super::partial::aggregates(question, tree),
        (false, DistinctModel::On) => super::order::distinct_on(question, tree),
        (false, _) => super::order::distinct(question),
    }
}

/// Whether the time of the transaction is shown: it would be another one on each shard. (In conditions it is as if the shards'
/// clocks were one.)
fn shows_clock(question: &Question<'_>, tree: &Select) -> bool {
    let reader = question.reader;
    let clock = |found: Found| {
        found.functions.iter().any(|function| {
            let name = super::tree::last_part(&function.name);
            super::functions::kind_of(&name, reader.planner.schema, reader.planner.catalogue) == FunctionKind::Clock
        })
    };
    question.kinds.contains(&FunctionKind::Clock)
        && (clock(Found::within(&tree.projection)) || clock(Found::within(&tree.group_by)) || clock(Found::within(&tree.having)))
}

impl Question<'_> {
    /// The names that can be used beside SELECT.
    pub(super) fn scope(&self) -> Scope<'_> {
        self.level.clone().unwrap_or_default().scope(None)
    }

    /// The entries of ORDER BY; `None` if they are of a kind that is not taken apart.
    pub(super) fn order(&self) -> Option<Vec<OrderByExpr>> {
        match &self.query.order_by {
            None => Some(Vec::new()),
            Some(order) => match &order.kind {
                OrderByKind::Expressions(list) if order.interpolate.is_none() => Some(list.clone()),
                _ => None,
            },
        }
    }

    /// Whether every text of the statement has the database's own collation.
    pub(super) fn plain_collations(&self) -> bool {
        let usual = |collation: &Option<String>| collation.as_deref().is_none_or(|name| name == "default");
        !self.whole.collates && !self.reader.views && self.reader.nodes.iter().all(|node| usual(&node.collation))
    }

    /// The collation of an expression: `default` for those without one; `None` if it is not worked out.
    pub(super) fn collation(&self, expr: &Expr) -> Option<String> {
        if self.plain_collations() {
            return Some("default".to_owned());
        }
        if let Expr::Collate { expr, collation } = super::conditions::peel(expr) {
            return Found::within(expr.as_ref()).queries.is_empty().then(|| collation.to_string());
        }
        let scope = self.scope();
        if let Some(node) = self.reader.node_of(expr, &scope) {
            return Some(self.node_collation(node));
        }
        // An expression over columns of the database's own collation, or of none, has it too.
        let found = Found::within(expr);
        let usual = |parts: &Vec<Ident>| {
            let node = self.reader.resolve(parts, &scope).and_then(|(node, _)| node);
            node.is_some_and(|node| self.node_collation(node) == "default")
        };
        let plain = found.queries.is_empty() && !found.special && found.columns.iter().all(usual);
        (plain && !expr.to_string().contains("COLLATE")).then(|| "default".to_owned())
    }

    pub(super) fn node_collation(&self, node: NodeId) -> String {
        self.reader.nodes[node].collation.clone().unwrap_or_else(|| "default".to_owned())
    }

    /// The collations of the columns that the query gives.
    pub(super) fn output_collations(&self) -> Option<Vec<String>> {
        let outputs = self.model.outputs.as_ref()?;
        if self.plain_collations() {
            return Some(vec!["default".to_owned(); outputs.len()]);
        }
        let SetExpr::Select(select) = self.query.body.as_ref() else { return None };
        let explicit = select.projection.len() == outputs.len();
        let mut collations = Vec::new();
        for (place, column) in outputs.iter().enumerate() {
            let item = select.projection.get(place).filter(|_| explicit);
            collations.push(match (column.node, item) {
                (Some(node), _) => self.node_collation(node),
                (None, Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. })) => self.collation(expr)?,
                _ => return None,
            });
        }
        Some(collations)
    }

    /// Two expressions that say the same have the same text here.
    pub(super) fn canonical(&self, expr: &Expr, scope: &Scope<'_>) -> String {
        let mut expr = super::conditions::peel(expr).clone();
        let _ = sqlparser::ast::visit_expressions_mut(&mut expr, |part| {
            let node = match part {
                Expr::Identifier(_) | Expr::CompoundIdentifier(_) => self.reader.node_of(part, scope),
                _ => None,
            };
            if let Some(node) = node {
                *part = Expr::Identifier(Ident::new(format!("#{node}")));
            }
            std::ops::ControlFlow::<()>::Continue(())
        });
        expr.to_string()
    }
}
