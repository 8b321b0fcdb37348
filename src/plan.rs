//! What is done with a statement of a sharded database: a text, the schema and the shard map in, a [`Plan`] out. Pure.
//!
//! A plan is exact, or it is a [`Refusal`]: an answer that one PostgreSQL with all the rows could not give is never planned.
//! pgyard itself computes little: what several shards answer is concatenated, merged by keys whose order it can reproduce, or handed to a
//! *finishing query*, which PostgreSQL runs over the shards' partial results, so that arithmetic, types, collations and formats are
//! PostgreSQL's own.
//!
//! The way of a text: `tree` (a tree that can be trusted), `scope`, `read` and `from` (what its names mean), `conditions` (what must hold),
//! `keys` (which shards that means), `place` (where each query inside can be answered). A query over several shards is then
//! concatenated or merged (`order`), made of partial aggregates (`partial`), or run over rows that were brought (`bring`).

mod bring;
mod change;
mod collect;
mod conditions;
mod copy;
mod explain;
mod from;
mod functions;
mod infer;
mod insert;
mod keys;
mod limit;
mod model;
mod moves;
mod names;
mod order;
mod partial;
mod place;
mod read;
mod resolve;
pub mod schema;
mod scope;
mod select;
mod spelling;
mod statement;
pub mod steps;
#[cfg(test)]
mod tests;
mod tree;
mod utility;

pub use explain::PlanWords;
pub use resolve::{Binding, key_columns};
pub use schema::{SCHEMA_QUERY, SCHEMA_SCRIPT, Schema, SchemaRow};
pub use select::refusal;
pub use statement::{Planner, first_shard as first_shard_plan};
pub use steps::{
    Combine, CopyPlan, CopyRows, CopySplit, Finish, FinishPiece, GatherPlan, KeyCondition, KeyTerm, MovePlan, Partial, Plan,
    Refusal, RowCount, SortKey, SplitInsert, WritePlan,
};
