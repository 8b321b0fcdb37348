//! Where the front door hands sessions of sharded databases to.

use super::session::ShardedSession;
use crate::session::{ShardedClient, ShardedHandler};
use crate::twophase::InFlight;
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// Serves the sessions of all sharded databases.
pub struct ShardedSessions {
    in_flight: Arc<InFlight>,
}

impl ShardedSessions {
    /// `in_flight` is shared with recovery.
    pub fn new(in_flight: Arc<InFlight>) -> Self {
        ShardedSessions { in_flight }
    }
}

impl ShardedHandler for ShardedSessions {
    fn serve(&self, client: ShardedClient) -> BoxFuture<'static, ()> {
        let in_flight = self.in_flight.clone();
        Box::pin(async move {
            let entry = client.entry.clone();
            tracing::debug!(client = entry.process, database = &*entry.database, user = &*entry.user, peer = %entry.peer, "logged in");
            let _connected = client.database.metrics.clients.hold();
            let end = ShardedSession::new(client, in_flight).run().await;
            tracing::debug!(client = entry.process, ?end, "session ended");
        })
    }
}
