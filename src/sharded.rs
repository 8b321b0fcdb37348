//! A session of a sharded database: statements go to the shards that their keys say, and what several shards answer becomes one
//! answer.
//!
//! Each shard is an ordinary database. What this layer speaks to is an ordinary session on it, a *leg*, over a pipe within the process: so splitting,
//! freshness, pooling, failover and prepared statements are the session layer's, per shard. A leg is opened when it is first needed.
//!
//! Nothing here decides which shards a statement needs, or whether several answers can be put together exactly: that is `plan`.
//!
//! Invariants: a client sees an answer of one server, or one that a single server would have given, or an error; a transaction that wrote
//! on several shards commits on all of them or on none; the client's ReadyForQuery says what holds on every leg.

mod answers;
mod context;
mod copy_in;
mod copy_out;
mod decision;
mod extended;
mod gather;
mod handler;
mod knowledge;
mod leg;
mod merge;
mod moves;
mod moving;
mod own_types;
mod partial_rows;
mod planning;
mod portals;
mod relay;
mod session;
mod sets;
mod settings;
mod several;
mod simple;
mod stream;
mod transaction;
mod trouble;
mod write;

pub use handler::ShardedSessions;
