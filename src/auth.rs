//! Who a client is, and how pgyard proves to a server who it is: SCRAM-SHA-256 (with and without channel binding), MD5, clear text.
//!
//! Pure state machines over message bodies: no sockets, no clock, no logging. A session feeds them bytes and sends what they return.
//!
//! - [`client_login`] authenticates a client and says with which [`ServerCredential`] the servers can be logged in to as that role. With
//!   a SCRAM verifier alone that is the ClientKey out of the client's own proof: no password is stored anywhere.
//! - [`server_login`] logs in to a server.
//! - [`failures`] counts log-ins that failed, and says who has to wait.
//! - Key derivation takes milliseconds. It happens only in [`KeyRequest::derive`], never inside `receive`, so that the caller decides on
//!   which thread; a [`KeyCache`] spares most of it.
//!
//! Invariants: what a peer sends is bounds-checked and never panics; secrets are compared in constant time, hidden from `Debug` and
//! wiped on drop; whether a role exists can't be told from the messages.

pub mod client_login;
pub mod credential;
pub mod error;
pub mod failures;
pub mod keys;
pub mod md5;
pub mod message;
pub mod scram_client;
pub mod scram_message;
pub mod scram_server;
pub mod server_login;
pub mod verifier;

pub use client_login::{ClientAuthRequest, ClientLogin, ClientLoginStep};
pub use credential::{ScramKeys, ServerCredential, TransportSecurity};
pub use error::{AuthError, AuthFault, ScramError};
pub use failures::{FailureBook, FailureLimit, FailureLimits, network};
pub use keys::{DerivedKeys, KeyCache, KeyRequest, ScramKey};
pub use server_login::{ServerLogin, ServerLoginStep};
pub use verifier::{ScramVerifier, StoredSecret, VerifierError};
