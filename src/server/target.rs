//! Where a server is and how it is spoken to.

use crate::net::tls::ServerTls;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// An address with its TLS settings; shared by all connections of a pool.
#[derive(Clone)]
pub struct ServerTarget {
    /// A DNS name, an IP address or the directory of a Unix socket.
    pub address: String,
    /// The port.
    pub port: u16,
    /// TLS settings, with libpq's `sslmode`; not used on Unix sockets.
    pub tls: Arc<ServerTls>,
    /// TCP keep-alive idle time.
    pub keepalive: Duration,
    /// Run-time parameters that every session on it starts with, as `options` of the start-up packet; may be empty.
    pub options: String,
    /// Time to connect and log in.
    pub connect_timeout: Duration,
}

impl ServerTarget {
    /// Whether the server is reached by a Unix socket.
    pub fn is_unix(&self) -> bool {
        self.address.starts_with('/')
    }
}

impl fmt::Display for ServerTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.address, self.port)
    }
}

impl fmt::Debug for ServerTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTarget").field("address", &self.address).field("port", &self.port).finish_non_exhaustive()
    }
}
