//! One connection to a PostgreSQL server, and what pgyard knows of its state.
//!
//! Invariant: [`connection::ServerConnection::parameters`] and [`connection::Incoming::prepared`] say what the server
//! has, not what a session wants; the difference is made good when a session takes the connection.

pub mod connection;
pub mod login;
pub mod parameter_sets;
pub mod parameters;
pub mod prepared;
pub mod replies;
pub mod target;

pub use connection::{
    Incoming, NO_WRITER, SEVERAL_WRITERS, ServerCard, ServerConnection, ServerDoor, ServerKey, TransactionStatus, UNKNOWN_UNNAMED,
};
pub use login::{ConnectError, cancel, cancel_at_peer, connect, connect_with, greets};
pub use parameter_sets::ParameterSets;
pub use parameters::{ParameterSet, ReportedParameters};
pub use prepared::{OwnNames, PreparedSet};
pub use replies::{Expected, ReplyQueue, Verdict};
pub use target::ServerTarget;
