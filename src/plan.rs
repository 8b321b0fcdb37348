//! What is done with a statement of a sharded database: a text, the schema and the shard map in, a [`Plan`] out. Pure.
//!
//! A plan is exact, or it is a [`Refusal`]: an answer that one PostgreSQL with all the rows could not give is never planned.
//! pgyard itself computes little: what several shards answer is concatenated, merged by keys whose order it can reproduce, or handed to a
//! *finishing query*, which PostgreSQL runs over the shards' partial results, so that arithmetic, types, collations and formats are
//! PostgreSQL's own.

pub mod steps;

pub use steps::{
    Combine, Finish, FinishPiece, GatherPlan, KeyCondition, KeyTerm, Partial, Plan, Refusal, RowCount, SortKey, SplitInsert,
    WritePlan,
};
