//! The console: the database `pgyard`, which answers operators and the command line instead of a server.
//!
//! It speaks the simple and the extended protocol to any client ([`Console`]); each command has a file of its own. It reads
//! live state and changes as little as it can: what only the process as a whole can do (reload, shutdown) is asked of
//! [`ConsoleActions`]. It refuses parameters, and everything that is not a command of its own.
//!
//! Invariants: no byte of a client makes it panic or allocate more than `MESSAGE_MAX`; nothing that it shows
//! holds a password; columns are text, so that their binary form is the same.

pub mod context;

pub use context::{ConsoleActions, ConsoleContext, ShutdownMode};
