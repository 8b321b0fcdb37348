//! The plan of one statement, as values.

use crate::gather::CopyFormat;
use crate::shard::{CopyLayout, QualifiedName, ShardSet};

/// What is done with one statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// It needs no table, or tables that every shard has whole: any one shard answers, the session's last one first.
    Anywhere,
    /// All rows that it can touch are on the shards of the condition; if that is one shard when the parameters are known, the
    /// statement goes there as it is. Otherwise `several` says what is done.
    Confined {
        /// Which shards.
        shards: KeyCondition,
        /// When the parameters lead to several shards, or to none (a condition that no row can meet: any shard answers).
        several: Box<Plan>,
    },
    /// Several shards answer, and the answers are put together.
    Gather(GatherPlan),
    /// It changes rows on several shards.
    Write(WritePlan),
    /// It changes the schema, or a reference table's definition: every shard, in the map's order.
    Everywhere,
    /// Rows are copied to several shards, or from them.
    Copy(CopyPlan),
    /// It can't be answered exactly by the shards: the coordinator's if there is one.
    Refused(Refusal),
}

/// Why a statement is not answered: SQLSTATE 0A000.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One sentence in the style of PostgreSQL's messages.
    pub reason: String,
    /// What to do.
    pub hint: String,
}

/// Which shards can hold rows that a statement touches: a union of intersections of key terms, resolved when parameters are known.
#[derive(Clone, Debug, PartialEq)]
pub enum KeyCondition {
    /// Every shard of the map.
    All,
    /// These.
    Shards(ShardSet),
    /// Rows of a sharded table whose key columns equal these values, one for each key column.
    Key {
        /// The sharded table, by its name in the map.
        table: QualifiedName,
        /// One for each key column.
        values: Vec<KeyTerm>,
    },
    /// A row of a sharded table whose key columns are set to these values, which may round them or cut them to the columns' lengths.
    Stored {
        /// The sharded table, by its name in the map.
        table: QualifiedName,
        /// One for each key column.
        values: Vec<KeyTerm>,
    },
    /// Any of these.
    Union(Vec<KeyCondition>),
    /// All of these at once.
    Intersection(Vec<KeyCondition>),
}

/// A value that a key column equals.
#[derive(Clone, Debug, PartialEq)]
pub enum KeyTerm {
    /// A constant as it stands in the text without its quotes and escapes, and the type that it was cast to, if it was.
    Constant {
        /// Its text; `None` is NULL, which no key equals.
        text: Option<String>,
        /// The type's name as written.
        cast: Option<String>,
    },
    /// A parameter, counted from 1; an element of it when it is `= ANY($n)`.
    Parameter {
        /// Its number.
        number: usize,
        /// Each element of the array is a value.
        any: bool,
    },
}

/// Several shards answer.
#[derive(Clone, Debug, PartialEq)]
pub struct GatherPlan {
    /// What the shards are asked.
    pub partials: Vec<Partial>,
    /// How the answers are put together.
    pub combine: Combine,
}

/// One question to some shards.
#[derive(Clone, Debug, PartialEq)]
pub struct Partial {
    /// SQL with the statement's own parameter numbers.
    pub sql: String,
    /// Which shards.
    pub shards: KeyCondition,
    /// It reads only what every shard has whole: one of the shards is asked.
    pub one_is_enough: bool,
}

/// How the shards' answers become one.
#[derive(Clone, Debug, PartialEq)]
pub enum Combine {
    /// One after another as they come, cut by OFFSET and LIMIT. One partial.
    Concat {
        /// Rows dropped first.
        offset: RowCount,
        /// Rows shown; the partial has its own LIMIT, which is the sum of both.
        limit: RowCount,
    },
    /// Merged by sort keys; each shard's answer is sorted so. One partial.
    Merge {
        /// The order.
        keys: Vec<SortKey>,
        /// Columns at the end of each row that are for sorting only and are not shown.
        hidden: usize,
        /// Rows dropped first.
        offset: RowCount,
        /// Rows shown.
        limit: RowCount,
        /// FETCH ... WITH TIES: rows that are tied with the last one are shown too.
        ties: bool,
        /// When a key's type or collation has an order that pgyard can't reproduce, this is done instead.
        otherwise: Option<Box<GatherPlan>>,
    },
    /// A query over all the partial rows, run by one shard.
    Finish(Finish),
}

/// LIMIT or OFFSET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowCount {
    /// None is given (no limit; no offset).
    None,
    /// A number.
    Number(u64),
    /// A parameter of the statement, counted from 1; NULL is none.
    Parameter(usize),
}

/// One sort key of a merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortKey {
    /// The column of the partial's rows, counted from 0. Its type is what the server says of it.
    pub column: usize,
    /// Descending.
    pub descending: bool,
    /// NULLs come first.
    pub nulls_first: bool,
    /// The collation of a text column: `Some("C")`, `Some("default")`, another's name, with its quotes if it has a schema that is not
    /// PostgreSQL's own; `None` when it is not known.
    pub collation: Option<String>,
}

/// A query over partial results. Each column of a partial's rows becomes a parameter of type `text[]`; the statement's own parameters
/// keep their numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Finish {
    /// The query's text in pieces.
    pub pieces: Vec<FinishPiece>,
}

/// A piece of a finishing query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishPiece {
    /// SQL.
    Sql(String),
    /// The type that the shards reported for a column of a partial's rows, as SQL: `bigint`, `numeric(10,2)`.
    Type {
        /// Which partial.
        partial: usize,
        /// Which of its columns, counted from 0.
        column: usize,
    },
    /// `(SELECT CAST(c0 AS type) AS n0, ... FROM unnest($k::text[], ...) AS u(c0, ...))`: the rows of a partial as a subquery in
    /// parentheses, whose columns have these names and the types that the shards reported. (For no columns: as many empty rows.)
    Rows {
        /// Which partial.
        partial: usize,
        /// Its columns' names, quoted where they need it.
        columns: Vec<String>,
        /// COLLATE clauses for columns that need one (as SQL, quoted).
        collations: Vec<Option<String>>,
    },
}

/// Rows are changed on several shards: all of them or none.
#[derive(Clone, Debug, PartialEq)]
pub enum WritePlan {
    /// The same statement on each of these shards; counts are added, rows of RETURNING are concatenated.
    Each {
        /// Which shards.
        shards: KeyCondition,
    },
    /// The same statement on every shard; one of them speaks for all (a reference table, and nothing in the statement that could
    /// differ between shards).
    Copies,
    /// The statement runs on the first shard, and the rows that it made are copied to the others (a reference table, and defaults
    /// or functions that could differ).
    FirstThenCopy {
        /// `INSERT INTO t (columns) ...` up to RETURNING; the rows come back by `RETURNING` of all columns.
        returning: String,
        /// The table, quoted.
        table: String,
        /// Its columns, quoted, in the order of `returning`.
        columns: Vec<String>,
    },
    /// An INSERT of several rows whose keys lead to several shards.
    Split(SplitInsert),
    /// `INSERT ... SELECT` whose rows may belong to other shards than they come from: the rows are read, then inserted by key.
    InsertRows {
        /// How the rows are read.
        select: Box<Plan>,
        /// The SELECT's text.
        select_sql: String,
        /// What they become: the rows of the insertion are those of the SELECT.
        insert: SplitInsert,
    },
    /// An UPDATE that sets the key: rows may move to other shards.
    Move(Box<MovePlan>),
}

/// Rows whose key is changed.
#[derive(Clone, Debug, PartialEq)]
pub struct MovePlan {
    /// Where the rows can be as they are.
    pub shards: KeyCondition,
    /// Locks the rows and reads: the table's number and the row's place in it, the new key, then the new values of the columns.
    pub select: String,
    /// The UPDATE of rows that stay, before and behind the condition that names them.
    pub update: (String, String),
    /// The DELETE of rows that leave, up to the condition that names them.
    pub delete: String,
    /// What the table is called in these.
    pub called: String,
    /// How rows that have left are inserted; its key columns are places in the rows of `select`.
    pub insert: SplitInsert,
}

/// An INSERT that is taken apart by rows.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitInsert {
    /// The table in the map.
    pub table: QualifiedName,
    /// `INSERT INTO t (columns) VALUES `, the part before the rows.
    pub head: String,
    /// Each row's text with its parentheses; empty when the rows come from a SELECT.
    pub rows: Vec<String>,
    /// Each row's key values, in the order of the table's key.
    pub keys: Vec<Vec<KeyTerm>>,
    /// Places of the key columns among the inserted columns, counted from 0.
    pub key_columns: Vec<usize>,
    /// ` ON CONFLICT ... RETURNING ...`, the part behind the rows.
    pub tail: String,
    /// Whether it has RETURNING.
    pub returns: bool,
}

/// A COPY over several shards.
#[derive(Clone, Debug, PartialEq)]
pub enum CopyPlan {
    /// From the client: each row to the shard of its key.
    Split(CopySplit),
    /// From the client into a reference table: all of it to every shard.
    Copies {
        /// The table.
        table: QualifiedName,
    },
    /// To the client: what the same command gives on each shard, one after another.
    Tables {
        /// The first line names the columns.
        header: bool,
        /// In the binary format, whose header and trailer come once.
        binary: bool,
    },
    /// To the client: the rows of a query.
    Rows(Box<CopyRows>),
}

/// Data that is taken apart by rows.
#[derive(Clone, Debug, PartialEq)]
pub struct CopySplit {
    /// The sharded table, by its name in the map.
    pub table: QualifiedName,
    /// The fields of a row that are the key, counted from 0, in the order of the key.
    pub fields: Vec<usize>,
    /// How rows are written.
    pub layout: CopyLayout,
    /// ENCODING; otherwise the data is in the session's.
    pub encoding: Option<String>,
}

/// Rows of a query over several shards that are written as COPY data.
#[derive(Clone, Debug, PartialEq)]
pub struct CopyRows {
    /// How they are had.
    pub plan: GatherPlan,
    /// The query.
    pub text: String,
    /// The command's text behind STDOUT.
    pub options: String,
    /// How they are written.
    pub format: CopyFormat,
}
