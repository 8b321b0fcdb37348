//! The program: settings into threads, sockets and tasks; signals into reloads and an orderly end.

pub mod arguments;
pub mod commands;
pub mod coordinators;
pub mod demo;
pub mod governor;
pub mod logging;
mod names;
pub mod recovery;
pub mod reload;
pub mod scrape;
pub mod serve;
pub mod status;
pub mod watch;
pub mod workers;
pub mod yard;
