//! What names mean at one place of a statement, and all that is found while it is read.

use super::Planner;
use super::model::{Constant, Instance, Node, NodeId, OutputColumn, QueryModel};
use super::tree::stored;
use crate::shard::{QualifiedName, TablePlace};
use sqlparser::ast::Ident;
use sqlparser::tokenizer::Location;
use std::collections::HashSet;

/// A FROM item as names see it.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// What it is called.
    pub(super) alias: String,
    /// The table, if it is one without an alias: `schema.table.column` names it.
    pub(super) table: Option<QualifiedName>,
    /// Its columns. `None`: not known.
    pub(super) columns: Option<Vec<OutputColumn>>,
}

/// The names that can be seen at one place.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope<'p> {
    /// FROM items of this level.
    pub(super) items: Vec<Item>,
    /// Columns that joins have merged (USING, NATURAL), with what they are.
    pub(super) merged: Vec<(String, Option<NodeId>)>,
    /// WITH queries of this level: name, number.
    pub(super) withs: Vec<(String, usize)>,
    /// The level outside.
    pub(super) parent: Option<&'p Scope<'p>>,
}

/// The names of one SELECT's FROM, apart from what is around it.
#[derive(Clone, Debug, Default)]
pub(super) struct Level {
    pub(super) items: Vec<Item>,
    pub(super) merged: Vec<(String, Option<NodeId>)>,
}

impl Level {
    /// As a scope again.
    pub(super) fn scope<'p>(self, parent: Option<&'p Scope<'p>>) -> Scope<'p> {
        Scope { items: self.items, merged: self.merged, withs: Vec::new(), parent }
    }
}

impl<'p> Scope<'p> {
    /// A level inside another.
    pub(super) fn inside(parent: &'p Scope<'p>) -> Self {
        Scope { parent: Some(parent), ..Scope::default() }
    }

    pub(super) fn with_query(&self, name: &str) -> Option<usize> {
        let here = self.withs.iter().rev().find(|(with, _)| with == name).map(|(_, number)| *number);
        here.or_else(|| self.parent.and_then(|parent| parent.with_query(name)))
    }

    /// All columns of its own level that are known.
    pub(super) fn nodes(&self) -> HashSet<NodeId> {
        let columns = self.items.iter().flat_map(|item| item.columns.iter().flatten());
        columns.filter_map(|column| column.node).collect()
    }
}

/// A WITH query.
#[derive(Clone, Debug)]
pub(super) struct WithModel {
    /// Its query; `None` while it is being read, and for a recursive one's references to itself.
    pub(super) query: Option<QueryModel>,
    /// It is recursive.
    pub(super) recursive: bool,
    /// What it gives.
    pub(super) outputs: Option<Vec<OutputColumn>>,
}

/// What is found while a statement is read.
pub(super) struct Reader<'a> {
    pub(super) planner: &'a Planner<'a>,
    pub(super) nodes: Vec<Node>,
    pub(super) instances: Vec<Instance>,
    /// From a column to one that equals it, wherever the second one's row matters.
    pub(super) edges: Vec<(NodeId, NodeId)>,
    pub(super) constants: Vec<Constant>,
    pub(super) withs: Vec<WithModel>,
    /// Columns that an outer join may extend with NULLs.
    pub(super) nullable: HashSet<NodeId>,
    /// Relations that are no tables of the schema.
    pub(super) unknown_tables: bool,
    /// It has a part that was not read, in which tables may be named.
    pub(super) unread: bool,
    /// It reads views: their text is not the statement's.
    pub(super) views: bool,
    /// Views being read, one inside the other.
    pub(super) view_depth: usize,
    /// Functions that views call.
    pub(super) view_functions: Vec<String>,
    /// Tables of PostgreSQL's own.
    pub(super) system_tables: bool,
    /// Tables without a place in the map.
    pub(super) unlisted: Vec<QualifiedName>,
    /// Why several shards can't answer it, however it is taken apart.
    pub(super) refusal: Option<String>,
    /// The rows that a subquery's aggregate counts are those of a query around it, or something else that is not followed.
    pub(super) entangled: bool,
    /// A row is used as a whole.
    pub(super) whole_rows: bool,
    /// `*` other than in `count(*)`, NATURAL.
    pub(super) wildcards: bool,
    /// Tables whose primary key is grouped by, so that their other columns need no grouping, and where it stands in GROUP BY.
    pub(super) dependent: Vec<(Option<Location>, usize)>,
    /// Tables whose columns get other names in FROM, by their places.
    pub(super) renamed: HashSet<Location>,
}

/// The place of a resolved column: `None` when it is no column of a table, and how many levels outside it is.
pub(super) type Resolved = (Option<NodeId>, usize);

impl<'a> Reader<'a> {
    pub(super) fn new(planner: &'a Planner<'a>) -> Self {
        Reader {
            planner,
            nodes: Vec::new(),
            instances: Vec::new(),
            edges: Vec::new(),
            constants: Vec::new(),
            withs: Vec::new(),
            nullable: HashSet::new(),
            unknown_tables: false,
            unread: false,
            views: false,
            view_depth: 0,
            view_functions: Vec::new(),
            system_tables: false,
            unlisted: Vec::new(),
            refusal: None,
            entangled: false,
            whole_rows: false,
            wildcards: false,
            dependent: Vec::new(),
            renamed: HashSet::new(),
        }
    }

    /// Several shards can't answer it.
    pub(super) fn refuse(&mut self, reason: &str) {
        self.refusal.get_or_insert_with(|| reason.to_owned());
    }

    /// Whether all rows of an instance are on some of the shards only.
    pub(super) fn is_spread(&self, instance: usize) -> bool {
        !matches!(self.instances[instance].place, TablePlace::Reference)
    }

    /// What a column reference means. `None`: nothing that is known.
    pub(super) fn resolve(&self, parts: &[Ident], scope: &Scope<'_>) -> Option<Resolved> {
        let mut level = Some(scope);
        let mut depth = 0;
        while let Some(scope) = level {
            match resolve_here(parts, scope) {
                Look::Found(node) => return Some((node, depth)),
                Look::Unknown => return None,
                Look::Absent => {}
            }
            level = scope.parent;
            depth += usize::from(!scope.items.is_empty());
        }
        None
    }
}

enum Look {
    Found(Option<NodeId>),
    Unknown,
    Absent,
}

fn resolve_here(parts: &[Ident], scope: &Scope<'_>) -> Look {
    let names: Vec<String> = parts.iter().map(stored).collect();
    match names.as_slice() {
        [column] => {
            if let Some((_, node)) = scope.merged.iter().find(|(name, _)| name == column) {
                return Look::Found(*node);
            }
            let mut found = None;
            let mut unknown = false;
            for item in &scope.items {
                match &item.columns {
                    None => unknown = true,
                    Some(columns) => {
                        unknown |= columns.iter().any(|column| column.name.is_none());
                        let mut same = columns.iter().filter(|known| known.name.as_ref() == Some(column));
                        match (same.next(), same.next(), found) {
                            (None, ..) => {}
                            (Some(known), None, None) => found = Some(known.node),
                            _ => return Look::Unknown,
                        }
                    }
                }
            }
            match found {
                Some(node) => Look::Found(node),
                None if unknown => Look::Unknown,
                None => Look::Absent,
            }
        }
        [.., table, column] => {
            let wanted = |item: &&Item| match names.as_slice() {
                [_, _] => item.alias == *table,
                [.., schema, _, _] => item.table.as_ref().is_some_and(|full| full.name == *table && full.schema == *schema),
                _ => false,
            };
            let mut items = scope.items.iter().filter(wanted);
            let Some(item) = items.next() else { return Look::Absent };
            if items.next().is_some() {
                return Look::Unknown;
            }
            let Some(columns) = &item.columns else { return Look::Unknown };
            let mut same = columns.iter().filter(|known| known.name.as_ref() == Some(column));
            match (same.next(), same.next()) {
                (Some(known), None) => Look::Found(known.node),
                _ => Look::Unknown,
            }
        }
        [] => Look::Unknown,
    }
}

pub(super) fn names_an_item(name: &str, scope: &Scope<'_>) -> bool {
    scope.items.iter().any(|item| item.alias == name) || scope.parent.is_some_and(|parent| names_an_item(name, parent))
}

pub(super) fn has_items_outside(scope: &Scope<'_>) -> bool {
    scope.parent.is_some_and(|parent| !parent.items.is_empty() || has_items_outside(parent))
}
