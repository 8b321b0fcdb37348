//! Collects from a tree what proofs and table lists need.

use sqlparser::ast::{Expr, Ident, ObjectName, Query, Select, SetExpr, Statement, TableAlias, TableFactor, Visit, Visitor};
use std::collections::HashSet;
use std::ops::ControlFlow;

/// What a tree has in it.
#[derive(Debug, Default)]
pub(super) struct Collector {
    /// Last parts of the names of called functions, as PostgreSQL stores them.
    pub(super) functions: Vec<String>,
    /// Names of aliases and WITH queries.
    pub(super) aliases: HashSet<String>,
    /// A data-changing statement, a locking clause or an INTO anywhere.
    pub(super) changes_data: bool,
    /// Last parts of the names of relations.
    pub(super) relations: Vec<String>,
    /// The relation that is visited next is a function in FROM.
    calls_next: bool,
    /// False where the tree has tables that are not in the lists.
    pub(super) tables_are_certain: bool,
}

impl Collector {
    pub(super) fn collect(statement: &Statement) -> Self {
        let mut collector = Collector { tables_are_certain: true, ..Collector::default() };
        let _ = statement.visit(&mut collector);
        collector
    }

    fn alias(&mut self, alias: Option<&TableAlias>) {
        self.aliases.extend(alias.map(|alias| stored(&alias.name)));
    }

    fn call(&mut self, name: &ObjectName) {
        let last = name.0.last().and_then(|part| part.as_ident());
        // A name that is not an identifier is a call that nothing can know.
        self.functions.push(last.map_or_else(String::new, stored));
    }
}

/// An identifier as PostgreSQL stores it.
fn stored(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_ascii_lowercase() }
}

fn has_table_command(body: &SetExpr) -> bool {
    match body {
        SetExpr::Table(_) => true,
        SetExpr::SetOperation { left, right, .. } => has_table_command(left) || has_table_command(right),
        _ => false,
    }
}

impl Visitor for Collector {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.changes_data |= !query.locks.is_empty();
        self.tables_are_certain &= !has_table_command(&query.body);
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.alias(Some(&cte.alias));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        self.changes_data |= select.into.is_some();
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        if std::mem::take(&mut self.calls_next) {
            return ControlFlow::Continue(());
        }
        match relation.0.last().and_then(|part| part.as_ident()) {
            Some(name) => self.relations.push(stored(name)),
            None => self.tables_are_certain = false,
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, args, alias, .. } => {
                if args.is_some() {
                    self.call(name);
                    self.calls_next = true;
                }
                self.alias(alias.as_ref());
            }
            TableFactor::Function { name, alias, .. } => {
                self.call(name);
                self.alias(alias.as_ref());
            }
            TableFactor::Derived { alias, .. }
            | TableFactor::TableFunction { alias, .. }
            | TableFactor::UNNEST { alias, .. }
            | TableFactor::NestedJoin { alias, .. } => self.alias(alias.as_ref()),
            _ => self.tables_are_certain = false,
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr {
            self.call(&function.name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
        self.changes_data |= !matches!(statement, Statement::Query(_));
        ControlFlow::Continue(())
    }
}
