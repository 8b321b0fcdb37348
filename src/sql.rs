//! What a text says. Pure: text and catalogue in, [`facts::Facts`] out. Nothing here knows of sessions, hosts or sockets.
//!
//! Invariant: a statement is called a read only if that is proven. What is not understood is a write.
//!
//! The way of a text: [`cache`] (seen before?), [`scan`] (tokens), [`mod@survey`] (what its names are, by the [`catalogue`]),
//! `read` and `commands` (what follows from that), `tree` (sqlparser, only where doubts are left). No step allocates before the
//! facts themselves are made.

pub mod cache;
pub mod catalogue;
pub mod classify;
mod commands;
#[cfg(test)]
mod corpus;
pub(crate) mod cursor;
pub mod explain;
pub mod facts;
mod functions;
mod outcome;
mod read;
pub mod scan;
pub mod shape;
pub mod survey;
pub mod tables;
mod tree;
pub mod words;

pub use cache::FactsCache;
pub use catalogue::{CATALOGUE_QUERY, Catalogue, CatalogueRow};
pub use classify::classify;
pub use cursor::identifiers;
pub use explain::explain;
pub use facts::*;
pub use scan::Lexing;
pub use tables::{TableKey, TableSet, TableUse, tables_used};
