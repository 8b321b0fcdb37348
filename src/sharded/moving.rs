//! Sessions whose rows move: held between two transactions, and then on the new shards with all that the client has set and prepared.

use super::extended::ShardedStatement;
use super::session::ShardedSession;
use super::transaction::BlockState;
use super::trouble::ShardedEnd;
use crate::database::{ClientState, ShardedDatabase};
use std::sync::{Arc, OnceLock};

impl ShardedSession {
    /// Before the first statement of a transaction: waits while the gate is closed, and goes where the rows are.
    pub(super) async fn come_in(&mut self) -> Result<(), ShardedEnd> {
        if !self.place.try_pass() {
            self.client.entry.set_state(ClientState::Waiting);
            Box::pin(self.place.pass()).await;
            self.client.entry.set_state(ClientState::Active);
        }
        let changes = self.client.front.directory.sharded_changes();
        if changes == self.changes_seen {
            return Ok(());
        }
        self.changes_seen = changes;
        match self.client.front.directory.sharded(&self.client.entry.database) {
            Some(now) if !Arc::ptr_eq(&now, &self.database) => self.move_to(now),
            _ => Ok(()),
        }
    }

    /// Whether nothing of the session is under way on any shard.
    pub(super) fn is_at_rest(&self) -> bool {
        self.block.state == BlockState::None
            && !self.skipping
            && self.portals.is_empty()
            && self.leg_portals.is_empty()
            && self.legs.iter().flatten().all(|leg| !leg.has_begun() && leg.due == 0 && leg.outbox.is_empty())
    }

    fn move_to(&mut self, now: Arc<ShardedDatabase>) -> Result<(), ShardedEnd> {
        // What binds a leg to its server (a temporary table, LISTEN, an advisory lock) can't be had elsewhere.
        if self.legs.iter().flatten().any(|leg| !leg.entry.pins().is_empty()) {
            return Err(ShardedEnd::Stopped);
        }
        tracing::debug!(client = self.client.entry.process, from = &*self.database.name, to = &*now.name, "session moved");
        self.map = now.map();
        self.legs = self.map.shards.iter().map(|_| None).chain(now.coordinator.iter().map(|_| None)).collect();
        self.last = self.client.entry.process.unsigned_abs() as usize % self.map.shards.len().max(1);
        self.database = now;
        self.plans = self.plans.renewed();
        for statement in self.statements.values_mut() {
            // Types may have other numbers there.
            *statement = Arc::new(statement.undescribed());
        }
        Ok(())
    }
}

impl ShardedStatement {
    /// The same statement, of which no server has said anything.
    fn undescribed(&self) -> ShardedStatement {
        ShardedStatement {
            id: self.id,
            definition: self.definition.clone(),
            text_len: self.text_len,
            facts: self.facts.clone(),
            plan: self.plan.clone(),
            description: OnceLock::new(),
        }
    }
}
