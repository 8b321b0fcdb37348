//! TLS on both sides: certificates, keys and trust, loaded from files into rustls configurations.
//!
//! - [`ClientTls`] is shown to clients; [`ServerTls`] is used towards servers, after libpq's `sslmode`.
//! - [`endpoint_hash`] gives the data that SCRAM-SHA-256-PLUS binds to, [`certificate_names`] the names in a client's certificate.
//!
//! TLS 1.2 and 1.3 with ring, no other provider and no process-wide default. A loaded configuration never changes: a reload loads new
//! ones and swaps them in, and what fails to load leaves the old in place. No revocation lists are looked at.

mod certificate;
mod client;
mod error;
mod pem;
mod server;
mod trust;

pub use certificate::{certificate_names, endpoint_hash, peer_common_name};
pub use client::{ALPN_POSTGRESQL, ClientTls};
pub use error::TlsError;
pub use server::ServerTls;

#[cfg(test)]
mod handshake_tests;
