//! What `pgyard check --live` looks at: the servers themselves, compared with the settings and with each other.
//!
//! What is found is decided by pure functions over what was read ([`hosts`], [`compare`], [`map`], [`contents`]); `read` and `look` speak to
//! servers. Nothing is changed anywhere: every session is read-only.

pub mod compare;
pub mod contents;
pub mod coordinator;
pub mod finding;
pub mod hosts;
pub mod look;
pub mod map;
pub mod numbers;
pub mod read;
pub mod shape;

pub use finding::{Finding, Gravity, Inspection};
pub use look::inspect;
pub use read::definitions;
