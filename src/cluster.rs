//! The hosts of one database: who is primary, who is how fresh, who is eligible.
//!
//! Probes and the sampler write; everybody else reads one immutable [`snapshot::Fleet`], swapped whole.

pub mod snapshot;

pub use snapshot::*;
