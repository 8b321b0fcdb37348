//! Rows that each shard finds for itself, put together: one after another, merged, or sorted and made distinct by a finishing query.

use super::limit::{Bound, Limits};
use super::place::{Places, Spread};
use super::select::Question;
use super::steps::{Combine, Finish, FinishPiece, GatherPlan, Partial, RowCount, SortKey};
use super::tree::stored;
use super::{model::BodyModel, model::OutputColumn};
use sqlparser::ast::{
    Distinct, Expr, Ident, OrderByExpr, OrderBySort, Query, Select, SelectItem, SetExpr, SetOperator, SetQuantifier, Value,
};

/// Which columns of the partial rows a query is sorted by, and those that are added for it.
struct Sorting<'q> {
    question: &'q Question<'q>,
    tree: Option<&'q Select>,
    outputs: &'q [OutputColumn],
    hidden: Vec<Expr>,
}

/// One entry of ORDER BY, as a column of the partial rows.
struct Sorted {
    column: usize,
    descending: bool,
    nulls_first: bool,
    collation: Option<String>,
}

impl<'q> Sorting<'q> {
    fn new(question: &'q Question<'q>, tree: Option<&'q Select>) -> Option<Self> {
        let outputs = question.model.outputs.as_deref()?;
        Some(Sorting { question, tree, outputs, hidden: Vec::new() })
    }

    /// The column that has an expression's value. Spec: findTargetlistEntrySQL92 in parse_clause.c: a position, else the name of a
    /// column of the result, else an expression over the input.
    fn place(&mut self, expr: &Expr) -> Option<usize> {
        match expr {
            Expr::Value(value) => {
                let Value::Number(digits, _) = &value.value else { return None };
                let place: usize = digits.parse().ok()?;
                return place.checked_sub(1).filter(|place| *place < self.outputs.len());
            }
            Expr::Identifier(name) => {
                let name = stored(name);
                if self.outputs.iter().any(|column| column.name.is_none()) {
                    return None;
                }
                let named = |column: &&OutputColumn| column.name.as_ref() == Some(&name);
                let mut same = self.outputs.iter().filter(named);
                if let Some(first) = same.next() {
                    let alike = same.all(|other| other.node.is_some() && other.node == first.node);
                    return if alike { self.outputs.iter().position(|column| named(&column)) } else { None };
                }
            }
            _ => {}
        }
        let tree = self.tree?;
        let scope = self.question.scope();
        if let Some(node) = self.question.reader.node_of(expr, &scope)
            && let Some(place) = self.outputs.iter().position(|column| column.node == Some(node))
        {
            return Some(place);
        }
        let wanted = self.question.canonical(expr, &scope);
        let is_wanted = |other: &Expr| self.question.canonical(other, &scope) == wanted;
        if tree.projection.len() == self.outputs.len() {
            let found = tree.projection.iter().position(|item| match item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => is_wanted(expr),
                _ => false,
            });
            if found.is_some() {
                return found;
            }
        }
        let hidden = self.hidden.iter().position(is_wanted);
        let place = hidden.unwrap_or_else(|| {
            self.hidden.push(expr.clone());
            self.hidden.len() - 1
        });
        Some(self.outputs.len() + place)
    }

    fn sort(&mut self, order: &[OrderByExpr]) -> Option<Vec<Sorted>> {
        let mut keys = Vec::new();
        for entry in order {
            let descending = match &entry.options.sort {
                None | Some(OrderBySort::Asc) => false,
                Some(OrderBySort::Desc) => true,
                Some(OrderBySort::Using(_)) => return None,
            };
            let column = self.place(&entry.expr)?;
            let collation = match column.checked_sub(self.outputs.len()) {
                Some(hidden) => self.question.collation(&self.hidden[hidden]),
                None => self.question.output_collations().and_then(|collations| collations.get(column).cloned()),
            };
            keys.push(Sorted { column, descending, nulls_first: entry.options.nulls_first.unwrap_or(descending), collation });
        }
        Some(keys)
    }

    /// The partial's query: the hidden columns are added.
    fn query(&self) -> Query {
        let mut query = self.question.query.clone();
        if let SetExpr::Select(select) = query.body.as_mut() {
            for (number, expr) in self.hidden.iter().enumerate() {
                let alias = Ident::with_quote('"', format!("pgyard_k{number}"));
                select.projection.push(SelectItem::ExprWithAlias { expr: expr.clone(), alias });
            }
        }
        query
    }

    /// The rows of the first partial as a subquery, columns `c0`, `c1` ...
    fn rows(&self) -> Option<FinishPiece> {
        let mut collations = self.question.output_collations()?;
        for expr in &self.hidden {
            collations.push(self.question.collation(expr)?);
        }
        Some(rows_piece(0, collations))
    }

    fn shown(&self) -> String {
        (0..self.outputs.len()).map(column_name).collect::<Vec<_>>().join(", ")
    }
}

/// `c0`, `c1` ...
pub(super) fn column_name(number: usize) -> String {
    format!("c{number}")
}

/// The rows of a partial whose columns have these collations.
pub(super) fn rows_piece(partial: usize, collations: Vec<String>) -> FinishPiece {
    FinishPiece::Rows {
        partial,
        columns: (0..collations.len()).map(column_name).collect(),
        collations: collations.into_iter().map(|name| (name != "default").then_some(name)).collect(),
    }
}

/// ORDER BY over the columns of the partial rows.
fn order_clause(keys: &[Sorted]) -> String {
    if keys.is_empty() {
        return String::new();
    }
    let entry = |key: &Sorted| {
        let direction = if key.descending { " DESC" } else { "" };
        let nulls = if key.nulls_first { " NULLS FIRST" } else { " NULLS LAST" };
        format!("{}{direction}{nulls}", column_name(key.column))
    };
    format!(" ORDER BY {}", keys.iter().map(entry).collect::<Vec<_>>().join(", "))
}

/// Rows that need nothing but their order and LIMIT.
pub(super) fn plain(question: &Question<'_>, tree: Option<&Select>) -> Option<GatherPlan> {
    let limits = Limits::of(question.query);
    let order = question.order()?;
    if order.is_empty() && limits.is_simple() {
        let sql = if limits.is_none() { question.text.to_owned() } else { limits.pushed(question.query.clone()).to_string() };
        let combine = Combine::Concat { offset: limits.offset.count(), limit: limits.limit.count() };
        return Some(GatherPlan { partials: vec![partial(question, sql)], combine });
    }
    let mut sorting = Sorting::new(question, tree)?;
    let keys = sorting.sort(&order)?;
    let distinct = tree.is_some_and(|tree| tree.distinct.is_some());
    if distinct && !sorting.hidden.is_empty() {
        return None;
    }
    let query = sorting.query();
    let partials = vec![partial(question, limits.pushed(query).to_string())];
    let finish = sorting.rows().map(|rows| {
        let clause = format!("{}{}", order_clause(&keys), limits.clause(question.query));
        Combine::Finish(Finish {
            pieces: vec![
                FinishPiece::Sql(format!("SELECT {} FROM ", sorting.shown())),
                rows,
                FinishPiece::Sql(format!(" AS pgyard_r{clause}")),
            ],
        })
    });
    if !limits.is_counted() || keys.is_empty() || keys.iter().any(|key| key.collation.is_none()) {
        return finish.map(|combine| GatherPlan { partials, combine });
    }
    let otherwise = match finish {
        Some(combine) => Some(Box::new(GatherPlan { partials: partials.clone(), combine })),
        None => super::bring::bring(question).ok().map(Box::new),
    };
    let keys = keys.into_iter().map(|key| SortKey {
        column: key.column,
        descending: key.descending,
        nulls_first: key.nulls_first,
        collation: key.collation.as_deref().map(bare_collation),
    });
    let combine = Combine::Merge {
        keys: keys.collect(),
        hidden: sorting.hidden.len(),
        offset: limits.offset.count(),
        limit: limits.limit.count(),
        ties: limits.ties,
        otherwise,
    };
    Some(GatherPlan { partials, combine })
}

/// DISTINCT over rows of several shards.
pub(super) fn distinct(question: &Question<'_>) -> Option<GatherPlan> {
    let SetExpr::Select(tree) = question.query.body.as_ref() else { return None };
    let mut sorting = Sorting::new(question, Some(tree))?;
    let keys = sorting.sort(&question.order()?)?;
    if !sorting.hidden.is_empty() {
        return None;
    }
    made_distinct(question, &sorting, &keys, "DISTINCT")
}

/// UNION over rows of several shards.
pub(super) fn union(question: &Question<'_>, places: &Places<'_>) -> Option<GatherPlan> {
    let SetExpr::SetOperation { op: SetOperator::Union, set_quantifier, .. } = question.query.body.as_ref() else { return None };
    let BodyModel::Set { sides, .. } = &question.model.body else { return None };
    if !matches!(set_quantifier, SetQuantifier::None | SetQuantifier::Distinct) || !question.plain_collations() {
        return None;
    }
    for side in [&sides.0, &sides.1] {
        match places.query(side, &[]) {
            Ok(Spread::Shards(_) | Spread::Whole { fickle: false }) => {}
            _ => return None,
        }
    }
    if places.all_whole(&question.model.subqueries, &[]) != Ok(false) {
        return None;
    }
    let mut sorting = Sorting::new(question, None)?;
    let keys = sorting.sort(&question.order()?)?;
    made_distinct(question, &sorting, &keys, "DISTINCT")
}

/// DISTINCT ON over rows of several shards.
pub(super) fn distinct_on(question: &Question<'_>, tree: &Select) -> Option<GatherPlan> {
    let Some(Distinct::On(list)) = &tree.distinct else { return None };
    let mut sorting = Sorting::new(question, Some(tree))?;
    let on: Vec<String> = list.iter().map(|expr| sorting.place(expr).map(column_name)).collect::<Option<_>>()?;
    let keys = sorting.sort(&question.order()?)?;
    let query = without_limit(sorting.query());
    finished(question, &sorting, &keys, (query, &format!("DISTINCT ON ({})", on.join(", "))))
}

fn made_distinct(question: &Question<'_>, sorting: &Sorting<'_>, keys: &[Sorted], distinct: &str) -> Option<GatherPlan> {
    let mut query = without_limit(sorting.query());
    query.order_by = None;
    finished(question, sorting, keys, (query, distinct))
}

fn finished(
    question: &Question<'_>,
    sorting: &Sorting<'_>,
    keys: &[Sorted],
    (query, distinct): (Query, &str),
) -> Option<GatherPlan> {
    let limits = Limits::of(question.query);
    let pieces = vec![
        FinishPiece::Sql(format!("SELECT {distinct} {} FROM ", sorting.shown())),
        sorting.rows()?,
        FinishPiece::Sql(format!(" AS pgyard_r{}{}", order_clause(keys), limits.clause(question.query))),
    ];
    Some(GatherPlan { partials: vec![partial(question, query.to_string())], combine: Combine::Finish(Finish { pieces }) })
}

/// A query without LIMIT, OFFSET and FETCH.
pub(super) fn without_limit(mut query: Query) -> Query {
    query.limit_clause = None;
    query.fetch = None;
    query
}

/// What the shards of the statement are asked.
pub(super) fn partial(question: &Question<'_>, sql: String) -> Partial {
    Partial { sql, shards: question.shards.clone(), one_is_enough: false }
}

/// The bare name of a collation of PostgreSQL's own; another's as SQL has it.
fn bare_collation(name: &str) -> String {
    let own = name.strip_prefix("pg_catalog.").or_else(|| name.strip_prefix("\"pg_catalog\"."));
    let Some(bare) = own.or_else(|| (!name.contains('.')).then_some(name)) else { return name.to_owned() };
    match bare.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => bare.to_ascii_lowercase(),
    }
}

impl Bound {
    /// As a step of a plan has it.
    fn count(&self) -> RowCount {
        match self {
            Bound::Number(number) => RowCount::Number(*number),
            Bound::Parameter(number) => RowCount::Parameter(*number),
            Bound::None | Bound::Other => RowCount::None,
        }
    }
}
