//! Server connections of one (host, database, role), shared by all relay threads.
//!
//! Why our own and not deadpool: a returned connection goes straight to the session that waits longest, clean-up happens on
//! return rather than at the next checkout, a connection stays on the relay thread whose reactor watches its socket, and a
//! checkout allocates nothing.
//!
//! Invariants: `open` counts every connection that exists or is being made, and never exceeds the pool's size or the host's
//! cap; a connection that is not clean is closed, never handed on.

pub mod connector;
mod expiry;
pub mod figures;
mod opening;
pub mod permits;
pub mod queue;
mod share;
pub mod slot;
#[cfg(test)]
mod tests;
mod upkeep;
pub mod wait;
mod waiters;

pub use connector::{Connector, IdentityCheck};
pub use figures::{CheckoutError, PoolKey, PoolLimits, PoolStats};
pub use permits::{HostPermits, HostPlace};
pub use queue::Pool;
pub use slot::WaitSlot;
pub use wait::{PoolWait, Turn};
