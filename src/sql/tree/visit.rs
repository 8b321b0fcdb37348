//! Collects from a tree what proofs and table lists need.

use crate::sql::facts::TableName;
use sqlparser::ast::{
    Expr, FromTable, Ident, ObjectName, Query, Select, SetExpr, Statement, TableAlias, TableFactor, TableObject, Visit, Visitor,
};
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
    /// Relations, those written included.
    pub(super) relations: Vec<TableName>,
    /// Relations that the statement writes.
    pub(super) written: Vec<TableName>,
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

    fn written(&mut self, name: Option<&ObjectName>) {
        match name.and_then(table_name) {
            Some(table) => self.written.push(table),
            None => self.tables_are_certain = false,
        }
    }
}

/// An identifier as PostgreSQL stores it.
fn stored(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_ascii_lowercase() }
}

fn table_name(name: &ObjectName) -> Option<TableName> {
    let mut parts = name.0.iter().rev().map(|part| part.as_ident().map(stored));
    let name = parts.next()??.into_boxed_str();
    let schema = match parts.next() {
        Some(part) => Some(part?.into_boxed_str()),
        None => None,
    };
    Some(TableName { schema, name })
}

fn factor_name(factor: &TableFactor) -> Option<&ObjectName> {
    match factor {
        TableFactor::Table { name, args: None, .. } => Some(name),
        _ => None,
    }
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
        match table_name(relation) {
            Some(table) => self.relations.push(table),
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
        match statement {
            Statement::Query(_) => {}
            Statement::Insert(insert) => match &insert.table {
                TableObject::TableName(name) => self.written(Some(name)),
                _ => self.written(None),
            },
            Statement::Update(update) => self.written(factor_name(&update.table.relation)),
            Statement::Delete(delete) => match &delete.from {
                FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables) if tables.len() == 1 => {
                    self.written(factor_name(&tables[0].relation));
                }
                _ => self.written(None),
            },
            Statement::Merge(merge) => self.written(factor_name(&merge.table)),
            _ => self.tables_are_certain = false,
        }
        ControlFlow::Continue(())
    }
}
