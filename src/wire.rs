//! PostgreSQL's messages as bytes. No I/O, no state.
//!
//! Invariant: nothing here trusts a length; a reader returns an error, never panics, and never allocates by a claimed size.
//! The relay looks only at headers ([`frame`]); the bodies of the few messages that pgyard must understand are read by the
//! modules named after them. Replies of our own are encoded in [`reply`], with pgwire's message types.

pub mod bind;
pub mod cursor;
pub mod error_response;
pub mod frame;
pub mod named;
pub mod parse;
pub mod reply;
pub mod row_description;
pub mod startup;

pub use cursor::{Cursor, WireError};
pub use frame::{Frame, Header, frame_at};
