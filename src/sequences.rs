//! Numbers that are unique over all shards: sequences with strides, and `pgyard.unique_id()`.
//!
//! The sequence of a sharded table's column counts on each shard by itself. With as many shards as the step, and another remainder on each, no
//! two give the same number. What is to be done is worked out by pure functions ([`stride`]); [`apply`] does it, all shards in step.

pub mod apply;
pub mod stride;
pub mod unique_id;

pub use apply::{SequenceError, SequencePlan, arrange};
pub use stride::{SequenceFacts, SequenceName, overlap};
pub use unique_id::unique_id_script;
