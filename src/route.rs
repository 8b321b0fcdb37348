//! Facts and session in, a need out. Pure: no fleet, no pool, no I/O.

pub mod need;

pub use need::{Need, SessionView, Target, decide};
