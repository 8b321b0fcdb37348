//! The hosts of one database: who is primary, who is how fresh, who is eligible.
//!
//! Probes and the sampler write; everybody else reads one immutable [`snapshot::Fleet`], swapped whole.

pub mod balance;
pub mod circuit;
pub mod fleet;
pub mod lag;
pub mod pick;
pub mod roles;
pub mod snapshot;

#[cfg(test)]
pub(crate) mod fixtures;

pub use balance::Balancer;
pub use pick::{HostSet, NoHost, PickRequest, Want, pick};
pub use snapshot::*;
