//! One database as clients name it: the cluster that serves it, its catalogue, its roles with their pools, its prepared
//! statements, and the clients that are logged in.
//!
//! Sessions, the console and the status page meet here. Nothing here speaks to a client.

pub mod clients;
pub mod directory;
pub mod gate;
pub mod held;
pub mod rates;
pub mod reuse;
pub mod role;
pub mod seats;
mod served;
pub mod sharded;
pub mod statements;
pub mod upstream;
pub mod view;
pub mod writes;

pub use clients::{ClientEntry, ClientState, Clients, NewClient, StopRequest, peer_of};
pub use directory::{Database, Directory};
pub use gate::{GatePlace, TransactionGate};
pub use held::{HeldStatement, HeldStatements, HoldLimits};
pub use rates::RateLimit;
pub use reuse::reusable;
pub use role::RolePools;
pub use seats::{ClientSeat, ClientSeats, SeatLimit, SeatLimits};
pub use sharded::ShardedDatabase;
pub use statements::{PreparedStatement, StatementForm, Statements, meaning};
pub use upstream::Upstream;
pub use view::{DatabaseView, classify, classify_prepared, with_view};
pub use writes::{LastWrite, WriteBook, WriteMark};
