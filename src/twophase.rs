//! Commits over several shards that are atomic: each shard prepares, one of them records the decision with its own commit, the others
//! follow it.
//!
//! The shard that records is the *decider*. Its transaction is not prepared: it inserts the transaction's name into `pgyard.decisions` and
//! commits, and with that commit the whole is committed. Whoever finds a prepared transaction later asks the decider, and does so by
//! *writing*: it inserts the opposite decision under the same unique key. That waits for a commit that is still under way, and if it
//! succeeds nothing can commit any more. Reading alone would be unsound.
//!
//! Nothing here speaks to a client. Sessions prepare and commit over their legs; recovery uses control connections.

pub mod decisions;
pub mod faults;
pub mod identity;
pub mod recovery;

pub use decisions::{CREATE_DECISIONS, record_commit};
pub use faults::FaultPoint;
pub use identity::{GlobalId, InFlight, InFlightHold};
pub use recovery::{RecoveryOutcome, ShardConnection, prepare_shard, recover};
