//! Aggregates over rows of several shards: the shards ship partial results, or the aggregates' arguments where there are none, and a
//! finishing query makes the aggregates of them.

use super::functions::FunctionKind;
use super::infer::{NumberKind, number_kind};
use super::limit::Limits;
use super::names::{group_target, implied_name};
use super::order::{column_name, partial, rows_piece, without_limit};
use super::read::is_distinct;
use super::select::Question;
use super::steps::{Combine, Finish, FinishPiece, GatherPlan};
use super::tree::{last_part, stored};
use sqlparser::ast::{
    Distinct, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments, GroupByExpr, Ident,
    OrderByExpr, Query, Select, SelectItem, SetExpr, Value, VisitMut, VisitorMut,
};
use std::ops::ControlFlow;

/// Stands around the number of a column in SQL that is still to get its type: no SQL has this character.
const TYPE_MARK: char = '\u{1}';

/// What the shards ship.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shipping {
    /// Partial aggregates for each group.
    Partials,
    /// Each row's group and arguments.
    Rows,
}

/// Takes a SELECT apart.
struct Splitter<'q> {
    question: &'q Question<'q>,
    shipping: Shipping,
    /// What is grouped by, each as [`Question::canonical`] has it.
    groups: Vec<String>,
    /// SQL of the partial's columns: the groups first.
    columns: Vec<Expr>,
    collations: Vec<String>,
    failed: bool,
}

/// The plan, if each part of the statement is known.
pub(super) fn aggregates(question: &Question<'_>, tree: &Select) -> Option<GatherPlan> {
    if question.reader.whole_rows {
        return None;
    }
    split(question, tree, Shipping::Partials).or_else(|| split(question, tree, Shipping::Rows))
}

fn split(question: &Question<'_>, tree: &Select, shipping: Shipping) -> Option<GatherPlan> {
    let mut splitter =
        Splitter { question, shipping, groups: Vec::new(), columns: Vec::new(), collations: Vec::new(), failed: false };
    splitter.take_groups(tree)?;
    let groups = splitter.groups.len();
    let mut list = Vec::new();
    for item in &tree.projection {
        list.push(match item {
            SelectItem::UnnamedExpr(expr) => splitter.rewritten(expr)?,
            SelectItem::ExprWithAlias { expr, alias } => format!("{} AS {alias}", splitter.rewritten(expr)?),
            _ => return None,
        });
    }
    let having = match &tree.having {
        Some(having) => format!(" HAVING {}", splitter.rewritten(having)?),
        None => String::new(),
    };
    let order = splitter.order(tree)?;
    let distinct = match tree.distinct {
        Some(Distinct::Distinct) => "DISTINCT ",
        Some(Distinct::On(_)) => return None,
        _ => "",
    };
    let group: Vec<String> = (0..groups).map(column_name).collect();
    let group = if group.is_empty() { String::new() } else { format!(" GROUP BY {}", group.join(", ")) };
    let limit = Limits::of(question.query).clause(question.query);
    let sql = splitter.partial_query(tree, groups).to_string();
    let mut pieces = pieces_of(&format!("SELECT {distinct}{} FROM ", list.join(", ")));
    pieces.push(rows_piece(0, splitter.collations));
    pieces.extend(pieces_of(&format!(" AS pgyard_r{group}{having}{order}{limit}")));
    Some(GatherPlan { partials: vec![partial(question, sql)], combine: Combine::Finish(Finish { pieces }) })
}

impl Splitter<'_> {
    fn take_groups(&mut self, tree: &Select) -> Option<()> {
        let GroupByExpr::Expressions(list, modifiers) = &tree.group_by else { return None };
        if !modifiers.is_empty() {
            return None;
        }
        let scope = self.question.scope();
        for expr in list {
            let target = group_target(tree, expr, |parts| self.question.reader.resolve(parts, &scope).is_some())?;
            let peeled = super::conditions::peel(target);
            if matches!(peeled, Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_) | Expr::Tuple(_) | Expr::Value(_)) {
                return None;
            }
            let canonical = self.question.canonical(peeled, &scope);
            if !self.groups.contains(&canonical) {
                self.add_column(target)?;
                self.groups.push(canonical);
            }
        }
        Some(())
    }

    /// The number of the partial's column with this value.
    fn add_column(&mut self, expr: &Expr) -> Option<usize> {
        let text = expr.to_string();
        if let Some(known) = self.columns.iter().position(|column| column.to_string() == text) {
            return Some(known);
        }
        self.collations.push(self.question.collation(expr)?);
        self.columns.push(expr.clone());
        Some(self.columns.len() - 1)
    }

    /// A partial aggregate, whose collation is that of its argument.
    fn add_partial(&mut self, sql: String, argument: Option<&Expr>) -> Option<usize> {
        let collation = match argument {
            Some(argument) => self.question.collation(argument)?,
            None => "default".to_owned(),
        };
        if let Some(known) = self.columns.iter().position(|column| column.to_string() == sql) {
            return Some(known);
        }
        self.columns.push(Expr::Identifier(Ident::new(sql)));
        self.collations.push(collation);
        Some(self.columns.len() - 1)
    }

    /// An expression over groups and aggregates as one over the partial's columns.
    fn rewritten(&mut self, expr: &Expr) -> Option<String> {
        let mut expr = expr.clone();
        if let Some(group) = self.group_of(&expr) {
            return Some(column_name(group));
        }
        self.failed = false;
        let _ = VisitMut::visit(&mut expr, self);
        (!self.failed).then(|| expr.to_string())
    }

    fn group_of(&self, expr: &Expr) -> Option<usize> {
        let canonical = self.question.canonical(expr, &self.question.scope());
        self.groups.iter().position(|group| *group == canonical)
    }

    fn order(&mut self, tree: &Select) -> Option<String> {
        let mut entries = Vec::new();
        for OrderByExpr { expr, options, .. } in self.question.order()? {
            let place = match &expr {
                Expr::Value(value) if matches!(value.value, Value::Number(..)) => Some(expr.to_string()),
                Expr::Identifier(name) => output_place(tree, &stored(name))?,
                _ => None,
            };
            let sql = match place {
                Some(place) => place,
                None => self.rewritten(&expr)?,
            };
            entries.push(format!("{sql}{options}"));
        }
        Some(if entries.is_empty() { String::new() } else { format!(" ORDER BY {}", entries.join(", ")) })
    }

    fn partial_query(&self, tree: &Select, groups: usize) -> Query {
        let mut select = tree.clone();
        let named = |(number, expr): (usize, &Expr)| SelectItem::ExprWithAlias {
            expr: expr.clone(),
            alias: Ident::new(column_name(number)),
        };
        select.projection = self.columns.iter().enumerate().map(named).collect();
        select.distinct = None;
        select.having = None;
        let grouped = if self.shipping == Shipping::Partials { groups } else { 0 };
        let places = (1..=grouped).map(|place| Expr::Identifier(Ident::new(place.to_string()))).collect();
        select.group_by = GroupByExpr::Expressions(places, Vec::new());
        let mut query = without_limit(self.question.query.clone());
        query.order_by = None;
        query.body = Box::new(SetExpr::Select(Box::new(select)));
        query
    }

    /// What the finishing query has in an aggregate's place.
    fn aggregate(&mut self, function: &Function) -> Option<Expr> {
        let FunctionArguments::List(list) = &function.args else { return None };
        if self.shipping == Shipping::Rows {
            return self.aggregate_of_rows(function);
        }
        if is_distinct(function) || !list.clauses.is_empty() || !function.within_group.is_empty() || function.name.0.len() > 1 {
            return None;
        }
        let name = last_part(&function.name);
        let argument = match list.args.as_slice() {
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))] => Some(expr),
            [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)] if name == "count" => None,
            _ => return None,
        };
        if argument.is_some_and(|argument| !super::collect::Found::within(argument).queries.is_empty()) {
            return None;
        }
        let whole = function.to_string();
        let sql = match name.as_str() {
            "count" => format!("CAST(coalesce(sum({}), 0) AS bigint)", column_name(self.add_partial(whole, None)?)),
            "sum" => {
                let number = self.add_partial(whole, None)?;
                format!("CAST(sum({}) AS {TYPE_MARK}{number}{TYPE_MARK})", column_name(number))
            }
            "min" | "max" | "bool_and" | "bool_or" | "every" | "bit_and" | "bit_or" | "bit_xor" => {
                format!("{name}({})", column_name(self.add_partial(whole, argument)?))
            }
            "avg" => self.average(function, argument?)?,
            _ => return None,
        };
        Some(Expr::Identifier(Ident::new(sql)))
    }

    /// As PostgreSQL does: the sum divided by the count, both exact for numbers that are.
    /// Spec: int8_avg, numeric_avg, float8_avg.
    fn average(&mut self, function: &Function, argument: &Expr) -> Option<String> {
        let kind = number_kind(argument, &|expr| {
            let node = self.question.reader.node_of(expr, &self.question.scope())?;
            Some(self.question.reader.nodes[node].type_oid)
        })?;
        let filter = function.filter.as_ref().map(|filter| format!(" FILTER (WHERE {filter})")).unwrap_or_default();
        let count = self.add_partial(format!("count({argument}){filter}"), None)?;
        let type_name = if kind == NumberKind::Float { "double precision" } else { "numeric" };
        let sum = self.add_partial(format!("sum(CAST({argument} AS {type_name})){filter}"), None)?;
        Some(format!("(sum({}) / CAST(nullif(sum({}), 0) AS {type_name}))", column_name(sum), column_name(count)))
    }

    /// The aggregate itself, over shipped arguments.
    fn aggregate_of_rows(&mut self, function: &Function) -> Option<Expr> {
        let mut function = function.clone();
        if let Some(filter) = function.filter.as_mut() {
            self.ship(filter)?;
        }
        for entry in &mut function.within_group {
            self.ship(&mut entry.expr)?;
        }
        let direct = !function.within_group.is_empty();
        let FunctionArguments::List(list) = &mut function.args else { return None };
        for argument in &mut list.args {
            match argument {
                // The direct arguments of ordered-set aggregates are constants.
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) if direct => {
                    super::conditions::term(expr)?;
                }
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => self.ship(expr)?,
                FunctionArg::Unnamed(FunctionArgExpr::Wildcard) => {}
                _ => return None,
            }
        }
        for clause in &mut list.clauses {
            match clause {
                FunctionArgumentClause::OrderBy(entries) => {
                    for entry in entries {
                        self.ship(&mut entry.expr)?;
                    }
                }
                _ => return None,
            }
        }
        Some(Expr::Function(function))
    }

    /// Puts a column of the partial in an expression's place. Constants stay, for their types follow from where they stand.
    fn ship(&mut self, expr: &mut Expr) -> Option<()> {
        if super::conditions::term(expr).is_some() {
            return Some(());
        }
        if !super::collect::Found::within(expr).queries.is_empty() {
            return None;
        }
        let number = self.add_column(expr)?;
        *expr = Expr::Identifier(Ident::new(column_name(number)));
        Some(())
    }
}

impl VisitorMut for Splitter<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.failed = true;
        ControlFlow::Break(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let replacement = match expr {
            Expr::Function(function) => {
                let planner = self.question.reader.planner;
                let kind = super::functions::kind_of(&last_part(&function.name), planner.schema, planner.catalogue);
                if kind == FunctionKind::Aggregate || !function.within_group.is_empty() {
                    self.aggregate(&function.clone())
                } else {
                    match self.group_of(expr) {
                        Some(group) => Some(Expr::Identifier(Ident::new(column_name(group)))),
                        None => return ControlFlow::Continue(()),
                    }
                }
            }
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Nested(_) | Expr::Case { .. } | Expr::Extract { .. } => {
                match self.group_of(expr) {
                    Some(group) => Some(Expr::Identifier(Ident::new(column_name(group)))),
                    None if matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) => None,
                    None => return ControlFlow::Continue(()),
                }
            }
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => None,
            _ => return ControlFlow::Continue(()),
        };
        match replacement {
            Some(new) => {
                // What stands in its place is not looked at again.
                *expr = Expr::Identifier(Ident::new(new.to_string()));
                ControlFlow::Continue(())
            }
            None => {
                self.failed = true;
                ControlFlow::Break(())
            }
        }
    }
}

/// The place of the output column that a name in ORDER BY means: `Some(None)` if there is none, `None` if that is not certain.
fn output_place(tree: &Select, name: &str) -> Option<Option<String>> {
    let mut found = None;
    for (number, item) in tree.projection.iter().enumerate() {
        let implied = match item {
            SelectItem::ExprWithAlias { alias, .. } => stored(alias),
            SelectItem::UnnamedExpr(expr) => implied_name(expr)?,
            _ => return None,
        };
        if implied == name {
            if found.is_some() {
                return None;
            }
            found = Some((number + 1).to_string());
        }
    }
    Some(found)
}

/// SQL with marks for types as pieces.
fn pieces_of(sql: &str) -> Vec<FinishPiece> {
    let parts = sql.split(TYPE_MARK).enumerate();
    parts
        .map(|(number, part)| match part.parse() {
            Ok(column) if number % 2 == 1 => FinishPiece::Type { partial: 0, column },
            _ => FinishPiece::Sql(part.to_owned()),
        })
        .collect()
}
