//! The coordinator: a database in which PostgreSQL itself sees all shards, for what the shards can't answer one by one.
//!
//! Its tables are foreign tables (`postgres_fdw`): a sharded table has one on each shard, under a parent of its own name; a table that is whole
//! somewhere is one foreign table. Types, views and functions are the first shard's. Nothing is stored, and nothing is written through it:
//! `postgres_fdw` would commit shard by shard.
//!
//! What is made is decided by pure functions ([`layout`]), and made in one transaction (`sync`), so that a reader sees the old state or the
//! new one.

mod definitions;
pub mod layout;
pub mod sync;

pub use layout::{CoordinatorLayout, ShardServer};
pub use sync::{SyncError, SyncReport, sync};
