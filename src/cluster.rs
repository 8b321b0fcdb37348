//! The hosts of one database: who is primary, who is how fresh, who is eligible.
//!
//! Probes and the sampler write; everybody else reads one immutable [`snapshot::Fleet`], swapped whole. Decisions are pure
//! ([`lag`], [`roles`], [`circuit`], [`fleet`], [`pick`](mod@pick), [`balance`], [`floors`]); effects stand at the edge ([`probe`], [`keeper`],
//! [`sampler`], [`catalogue`], [`lookup`]), all of them on the control run-time.
//!
//! Invariants:
//! - Relay threads never wait for this layer: they load a snapshot, draw a ticket, leave a report.
//! - A host without a recent sample is not used. What is not known counts as bad, never as good.
//! - Nothing here opens or holds a client's server connection, and nothing writes to a server.

pub mod balance;
pub mod catalogue;
pub mod circuit;
pub mod control;
pub mod control_pools;
pub mod control_tls;
pub mod fleet;
pub mod floors;
pub mod handle;
pub mod keeper;
pub mod lag;
pub mod lookup;
pub mod pick;
pub mod probe;
pub mod roles;
pub mod sampler;
pub mod snapshot;

#[cfg(test)]
pub(crate) mod fixtures;

pub use balance::Balancer;
pub use catalogue::{CatalogueSlot, CatalogueSource, Catalogues};
pub use control::{ServerTlsLookup, describe_error};
pub use floors::{CommitMode, Ticket};
pub use handle::{Cluster, ClusterContext, HostIds};
pub use keeper::{FleetCounters, HostReport};
pub use lookup::{FoundRole, LookupError, RoleLookup};
pub use pick::{HostSet, NoHost, PickRequest, Want, pick};
pub use sampler::Sampler;
pub use snapshot::*;
