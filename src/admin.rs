//! The console: the database `pgyard`, which answers operators and the command line instead of a server.
//!
//! It speaks the simple and the extended protocol to any client; each command has a file of its own. It reads live state and
//! changes as little as it can: what only the process as a whole can do (reload, shutdown) is asked of [`ConsoleActions`]. It
//! refuses parameters, and everything that is not a command of its own or what drivers send by themselves.
//!
//! Invariants: no byte of a client makes it panic or hold more than a message's limit; nothing that it shows holds a password;
//! columns are text, so that their binary form is the same; no command holds up the relay.

mod command;
pub mod context;
mod conversation;
mod drain;
mod driver;
mod extended;
mod hold;
mod kill;
mod pause;
mod reload;
mod run;
mod show_clients;
mod show_config;
mod show_databases;
mod show_help;
mod show_hosts;
mod show_lag;
mod show_pools;
mod show_route;
mod show_servers;
mod show_stats;
mod show_users;
mod show_version;
mod shutdown;
mod table;
mod words;

pub use context::{ConsoleActions, ConsoleContext, ShutdownMode};
pub use show_route::{decide_text, plan_lines};

use crate::session::{ConsoleClient, ConsoleHandler};
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// The console of a process.
pub struct Console {
    context: Arc<ConsoleContext>,
}

impl Console {
    /// A console that shows and changes what is in `context`.
    pub fn new(context: ConsoleContext) -> Self {
        Console { context: Arc::new(context) }
    }
}

impl ConsoleHandler for Console {
    fn serve(&self, console: ConsoleClient) -> BoxFuture<'static, ()> {
        Box::pin(conversation::Conversation::new(console, self.context.clone()).run())
    }
}

#[cfg(test)]
mod tests;
