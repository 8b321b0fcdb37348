//! Where rows live: which shard holds which key. Pure; knows neither SQL nor servers.
//!
//! A [`ShardMap`] is made once from the settings and never changes; a reload makes a new one.

pub mod map;

pub use map::{QualifiedName, ShardMap, ShardSet, ShardedTable, TablePlace};
