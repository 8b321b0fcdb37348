//! One client's session, from its log-in to its end.
//!
//! A session takes requests in *units*: a simple query, or an extended pipeline up to its Sync or Flush. A unit is looked at
//! ([`mod@unit`]), given a server connection ([`attach`]), translated and sent ([`send`]), its answers relayed ([`relay`],
//! [`exchange`]), and its effects on the session noted ([`settle`]). What goes wrong on the way is decided in [`recover`].
//!
//! Invariants: the client gets the server's bytes in the server's order; a unit is sent again only while nothing of its answer
//! was forwarded and it cannot have taken effect; a server connection that is not clean never reaches another session.

pub mod access;
mod aside;
pub mod asked;
pub mod attach;
pub mod begin;
pub mod candidate;
pub mod choose;
pub mod console_login;
pub mod exchange;
pub mod follow;
pub mod front;
pub mod known;
pub mod link;
pub mod local;
pub mod login;
pub mod lost;
pub mod meaning;
pub mod names;
pub mod own;
pub mod own_queries;
pub mod pass;
pub mod peers;
pub mod placement;
pub mod recover;
pub mod relay;
pub mod relocate;
pub mod replication;
pub mod reset;
pub mod results;
pub mod run;
pub mod send;
pub mod serve;
pub mod settle;
pub mod shown;
pub mod startup;
pub mod state;
pub mod tables;
pub mod throttle;
pub mod translate;
pub mod unit;
pub mod unnamed;
pub mod welcome;

pub use exchange::ClientSide;
pub use front::{
    ConsoleClient, ConsoleHandler, EntryPlace, Front, FrontParts, Resident, ShardedClient, ShardedHandler, serve_client,
};
pub use placement::{Placement, ThreadSign};
pub use run::{Session, SessionEnd, SessionLimits};
