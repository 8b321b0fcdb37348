//! Growing: the rows of one set of shards copied to another while clients go on, and the switch between them.
//!
//! A [`flow`](worker) leads from one sharded database (of one shard or more) to another one of the same configuration. Its rows are copied
//! under a snapshot, and what commits meanwhile follows by logical replication (`pgoutput`) and is applied exactly once: each target notes
//! in `pgyard.reshard_progress`, in the transaction that applies them, up to where it has got the changes of each source shard. So a
//! worker that was killed goes on where it was.
//!
//! Pure: [`pgoutput`] (what a stream says), [`split`] (which targets a row belongs to), [`change`] (a change as SQL), [`digest`]
//! (checksums). Effects: [`side`] (connections), [`replication`] (the stream's connection), [`tables`] (what there is), [`state`] (what is
//! noted on the servers), [`copy`], [`apply`], [`verify`], [`worker`] (all of it), [`cutover`] (the switch).
//!
//! Invariants: nothing is applied twice or left out, on any target, whenever a process ends; a change that does not find exactly its
//! row ends the work with an error; a source that clients have left takes no writes any more.

pub mod apply;
pub mod change;
pub mod copy;
pub mod cutover;
pub mod digest;
pub mod error;
pub mod pgoutput;
pub mod replication;
pub mod side;
pub mod split;
pub mod state;
pub mod tables;
pub mod verify;
pub mod worker;

pub use error::ReshardError;
pub use side::{ReshardSide, ShardEnd};
pub use worker::{ReshardFlow, ReshardWorker};
