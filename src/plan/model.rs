//! What reading a statement gives: its tables, the columns that matter for placing rows, and which of them are known to be equal.

use super::steps::KeyTerm;
use crate::shard::{QualifiedName, ShardedTable, TablePlace};
use sqlparser::tokenizer::Location;
use std::sync::Arc;

/// A column of one table instance, or of what a subquery gives.
pub(super) type NodeId = usize;

/// What a column is.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    /// The type of a table's column; 0 when it is not known.
    pub(super) type_oid: u32,
    /// The table instance that it belongs to.
    pub(super) instance: Option<usize>,
    /// Its collation, as in `ColumnDefinition`.
    pub(super) collation: Option<String>,
    /// Not a collation under which different texts are equal.
    pub(super) deterministic: bool,
}

/// A table where a statement names it: one for each time that it is named.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    /// Where its name stands in the text.
    pub(super) at: Location,
    /// Its name.
    pub(super) table: QualifiedName,
    /// How the statement calls it.
    pub(super) alias: String,
    /// It has an alias of its own.
    pub(super) aliased: bool,
    /// Where its rows are.
    pub(super) place: TablePlace,
    /// Its columns in the order of the table.
    pub(super) columns: Vec<(String, NodeId)>,
    /// Conditions, as SQL, that only concern this table and that each row that matters meets.
    pub(super) filters: Vec<sqlparser::ast::Expr>,
}

impl Instance {
    /// What the map says of a sharded table.
    pub(super) fn sharded(&self) -> Option<&Arc<ShardedTable>> {
        match &self.place {
            TablePlace::Sharded(table) => Some(table),
            _ => None,
        }
    }

    /// The column of this name.
    pub(super) fn node(&self, column: &str) -> Option<NodeId> {
        self.columns.iter().find(|(name, _)| name == column).map(|(_, node)| *node)
    }

    /// The columns of the key.
    pub(super) fn key(&self) -> Option<Vec<NodeId>> {
        self.sharded()?.key.iter().map(|column| self.node(column)).collect()
    }
}

/// A column that a subquery or a FROM item gives.
#[derive(Clone, Debug)]
pub(super) struct OutputColumn {
    /// `None` where PostgreSQL gives a name that is not worked out here.
    pub(super) name: Option<String>,
    /// The column that it is, if it is one.
    pub(super) node: Option<NodeId>,
}

/// Values that a column, or several columns together, are known to have: one of these.
#[derive(Clone, Debug)]
pub(super) struct Constant {
    /// The columns.
    pub(super) nodes: Vec<NodeId>,
    /// Each a value for each column.
    pub(super) rows: Vec<Vec<KeyTerm>>,
}

/// A query, in the parts that decide where it can run.
#[derive(Clone, Debug)]
pub(super) struct QueryModel {
    /// SELECT, a set operation, VALUES.
    pub(super) body: BodyModel,
    /// It has LIMIT, OFFSET or FETCH.
    pub(super) limited: bool,
    /// Subqueries of ORDER BY and LIMIT.
    pub(super) subqueries: Vec<QueryModel>,
    /// What it gives, when all is known.
    pub(super) outputs: Option<Vec<OutputColumn>>,
}

/// What a query is made of.
#[derive(Clone, Debug)]
pub(super) enum BodyModel {
    /// SELECT.
    Select(Box<SelectModel>),
    /// UNION, INTERSECT, EXCEPT.
    Set {
        /// UNION ALL.
        union_all: bool,
        /// Left and right.
        sides: Box<(QueryModel, QueryModel)>,
    },
    /// VALUES, with the subqueries in it.
    Values(Vec<QueryModel>),
}

/// DISTINCT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DistinctModel {
    /// None.
    None,
    /// DISTINCT.
    All,
    /// DISTINCT ON.
    On,
}

/// A SELECT.
#[derive(Clone, Debug)]
pub(super) struct SelectModel {
    /// FROM items.
    pub(super) from: Vec<FromModel>,
    /// Subqueries of its expressions.
    pub(super) subqueries: Vec<QueryModel>,
    /// It has aggregates or GROUP BY or HAVING.
    pub(super) aggregated: bool,
    /// What rows are grouped by, where that is a column; `None` for grouping sets and the like.
    pub(super) group: Option<Vec<NodeId>>,
    /// DISTINCT.
    pub(super) distinct: DistinctModel,
    /// Its columns, if it has DISTINCT ON: those of the ON list.
    pub(super) windows: Vec<Vec<NodeId>>,
    /// The result depends on the order in which rows come: `array_agg` without ORDER BY, `row_number()`.
    pub(super) order_sensitive: bool,
    /// What it gives.
    pub(super) outputs: Option<Vec<OutputColumn>>,
}

/// A FROM item.
#[derive(Clone, Debug)]
pub(super) enum FromModel {
    /// A table of the map.
    Table(usize),
    /// A subquery.
    Derived(Box<QueryModel>),
    /// A WITH query, by its number.
    With(usize),
    /// A function or VALUES list or a catalogue table, with the subqueries in its arguments.
    Function(Vec<QueryModel>),
    /// A join.
    Join {
        /// Which rows are kept although they have no partner.
        kind: JoinKind,
        /// Left and right.
        sides: Box<(FromModel, FromModel)>,
        /// Subqueries of ON.
        subqueries: Vec<QueryModel>,
    },
}

/// The kinds of joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JoinKind {
    /// INNER, CROSS.
    Inner,
    /// LEFT.
    Left,
    /// RIGHT.
    Right,
    /// FULL.
    Full,
}
