//! Cancel requests: to the client of this process that has the key, or to the pgyard behind the same address whose client has it.
//!
//! A request that was passed on comes as another packet than a client's and is never passed on again, so that it can't go round in
//! circles whatever the settings say. The key alone says that it is right.

use super::front::Front;
use crate::config::{ServerTlsMode, ServerTlsSettings};
use crate::database::{ClientState, peer_of};
use crate::metrics::CancelOutcome;
use crate::net::tls::ServerTls;
use crate::server::{ConnectError, ServerTarget, cancel_at_peer};
use std::time::Duration;

/// Requests that are on their way to peers at once: anybody can send one.
pub(super) const PASSING_ON_MAX: usize = 64;
/// A peer that takes longer is given up.
const PEER_TIMEOUT: Duration = Duration::from_secs(5);

/// Carries out a cancel request; one that a peer has passed on is for this process or for nobody.
pub async fn cancel(front: &Front, process: i32, key: &[u8], from_peer: bool) {
    let outcome = match front.clients.find(process, key) {
        None if from_peer => CancelOutcome::UnknownKey,
        None => pass_on(front, process, key).await,
        Some(entry) if entry.state() == ClientState::Idle => CancelOutcome::Idle,
        Some(entry) => match entry.cancel().await {
            Ok(()) => CancelOutcome::Forwarded,
            Err(error) => {
                tracing::warn!(%error, "a cancel request could not be passed on");
                CancelOutcome::Failed
            }
        },
    };
    front.metrics.cancels(outcome).increment();
}

async fn pass_on(front: &Front, process: i32, key: &[u8]) -> CancelOutcome {
    let settings = front.settings.load_full();
    let id = peer_of(process);
    let Some(peer) = settings.peers.others.iter().find(|peer| peer.id == id) else { return CancelOutcome::UnknownKey };
    let Ok(_place) = front.passing_on.try_acquire() else { return CancelOutcome::Failed };
    let outcome = async {
        // The key is the only secret in it; where the peer has TLS it is hidden from whoever listens.
        let tls = ServerTlsSettings { mode: ServerTlsMode::Prefer, ..ServerTlsSettings::default() };
        let target = ServerTarget {
            address: peer.address.clone(),
            port: peer.port,
            tls: ServerTls::load(&tls).map_err(|source| ConnectError::Tls { target: peer.address.clone(), source })?,
            keepalive: Duration::ZERO,
            options: String::new(),
            connect_timeout: PEER_TIMEOUT,
        };
        cancel_at_peer(&target, process, key).await
    };
    match outcome.await {
        Ok(()) => CancelOutcome::Peer,
        Err(error) => {
            tracing::warn!(peer = id, %error, "a cancel request could not be passed on to a peer");
            CancelOutcome::Failed
        }
    }
}
