//! What stands in an expression itself, and the subqueries in it, which are read with scopes of their own.

use super::tree::{last_part, stored};
use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Query, Statement, TableFactor, Visit, Visitor,
};
use sqlparser::tokenizer::Location;
use std::ops::ControlFlow;

/// What one expression has in it, its subqueries apart.
#[derive(Default)]
pub(super) struct Found {
    /// Its subqueries, the outermost ones.
    pub(super) queries: Vec<Query>,
    /// Its function calls.
    pub(super) functions: Vec<Function>,
    /// Its column references: one part or several.
    pub(super) columns: Vec<Vec<Ident>>,
    /// Each expression, for those who look for a kind.
    pub(super) special: bool,
    depth: usize,
}

impl Found {
    /// Looks through an expression or anything that has some.
    pub(super) fn within(node: &impl Visit) -> Self {
        let mut found = Found::default();
        let _ = node.visit(&mut found);
        found
    }
}

impl Visitor for Found {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if self.depth == 0 {
            self.queries.push(query.clone());
        }
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if self.depth > 0 {
            return ControlFlow::Continue(());
        }
        match expr {
            Expr::Function(function) => {
                self.special |= has_row_argument(function);
                self.functions.push(function.clone());
            }
            Expr::Identifier(name) => self.columns.push(vec![name.clone()]),
            Expr::CompoundIdentifier(parts) => self.columns.push(parts.clone()),
            // Fields of composites: `(t).a`, `t.a.b[1]`.
            Expr::CompoundFieldAccess { .. } | Expr::JsonAccess { .. } | Expr::Wildcard(_) | Expr::QualifiedWildcard(..) => {
                self.special = true
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Whether a function is given a whole row: `f(t.*)`.
fn has_row_argument(function: &Function) -> bool {
    let FunctionArguments::List(list) = &function.args else { return false };
    list.args.iter().any(|argument| {
        let (FunctionArg::Unnamed(value) | FunctionArg::Named { arg: value, .. } | FunctionArg::ExprNamed { arg: value, .. }) =
            argument;
        matches!(value, FunctionArgExpr::QualifiedWildcard(_))
    })
}

/// What a whole statement has in it, at every level.
#[derive(Default)]
pub(super) struct Whole {
    /// The last parts of the names of all functions that are called, as stored.
    pub(super) functions: Vec<String>,
    /// A locking clause.
    pub(super) locks: bool,
    /// SELECT INTO.
    pub(super) into: bool,
    /// TABLESAMPLE, and other parts that no plan knows.
    pub(super) strange: bool,
    /// A statement within the statement that is no query.
    pub(super) statements: usize,
    /// Column references: their last parts, and whole-row references among them.
    pub(super) names: Vec<String>,
    /// Where column references with a schema begin.
    pub(super) with_schema: Vec<Location>,
    /// An explicit COLLATE.
    pub(super) collates: bool,
    /// How many subqueries, the statement itself among them.
    pub(super) queries: usize,
}

impl Whole {
    /// Looks through a statement.
    pub(super) fn of(statement: &Statement) -> Self {
        let mut whole = Whole::default();
        let _ = statement.visit(&mut whole);
        whole
    }
}

impl Visitor for Whole {
    type Break = ();

    fn pre_visit_statement(&mut self, _: &Statement) -> ControlFlow<()> {
        self.statements += 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.queries += 1;
        self.locks |= !query.locks.is_empty();
        self.strange |= query.for_clause.is_some()
            || query.settings.is_some()
            || query.format_clause.is_some()
            || !query.pipe_operators.is_empty();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &sqlparser::ast::Select) -> ControlFlow<()> {
        self.into |= select.into.is_some();
        self.strange |= select.top.is_some()
            || select.exclude.is_some()
            || !select.lateral_views.is_empty()
            || select.prewhere.is_some()
            || select.qualify.is_some()
            || !select.connect_by.is_empty()
            || select.value_table_mode.is_some()
            || !matches!(select.flavor, sqlparser::ast::SelectFlavor::Standard);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, args, sample, version, partitions, with_hints, json_path, index_hints, .. } => {
                if args.is_some() {
                    self.functions.push(last_part(name));
                }
                let only = name.0.len() == 1 && last_part(name) == "only";
                self.strange |= sample.is_some()
                    || version.is_some()
                    || json_path.is_some()
                    || !partitions.is_empty()
                    || !with_hints.is_empty()
                    || !index_hints.is_empty()
                    || only;
            }
            TableFactor::Function { name, .. } => self.functions.push(last_part(name)),
            TableFactor::Derived { sample, .. } => self.strange |= sample.is_some(),
            TableFactor::NestedJoin { .. } | TableFactor::UNNEST { .. } => {}
            _ => self.strange = true,
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(function) => self.functions.push(last_part(&function.name)),
            Expr::Identifier(name) => self.names.push(stored(name)),
            Expr::CompoundIdentifier(parts) => {
                self.names.extend(parts.last().map(stored));
                if let [first, _, _] = parts.as_slice() {
                    self.with_schema.push(first.span.start);
                }
                self.strange |= parts.len() > 3;
            }
            Expr::Collate { .. } => self.collates = true,
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
