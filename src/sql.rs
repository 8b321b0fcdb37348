//! What a text says. Pure: text and catalogue in, [`facts::Facts`] out. Nothing here knows of sessions, hosts or sockets.
//!
//! Invariant: a statement is called a read only if that is proven. What is not understood is a write.

pub mod facts;

pub use facts::*;
