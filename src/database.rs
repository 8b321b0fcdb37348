//! One database as clients name it: the cluster that serves it, its catalogue, its roles with their pools, its prepared
//! statements, and the clients that are logged in.
//!
//! Sessions, the console and the status page meet here. Nothing here speaks to a client.

pub mod clients;
pub mod directory;
pub mod facts;
pub mod reuse;
pub mod role;
pub mod statements;
pub mod upstream;
pub mod writes;

pub use clients::{ClientEntry, ClientState, Clients, NewClient, StopRequest};
pub use directory::{Database, Directory};
pub use facts::classify;
pub use reuse::reusable;
pub use role::RolePools;
pub use statements::{PreparedStatement, StatementForm, Statements, meaning};
pub use upstream::Upstream;
pub use writes::{LastWrite, WriteBook, WriteMark};
