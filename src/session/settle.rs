//! After an answer: what the unit did to the session, and whether its server connection is free again.

use super::follow::follow;
use super::relay::Answer;
use super::run::Session;
use super::state::Freshness;
use super::unit::{Unit, UnitKind};
use crate::config::{Consistency, PoolMode};
use crate::database::ClientState;
use crate::metrics::{PinCause, QueryRoute};
use crate::server::TransactionStatus;
use crate::sql::Pins;
use std::time::{Duration, Instant};

impl Session {
    /// Takes in what the unit did, once all its answers have come, which took `elapsed`. `text` is that of a simple query in a transaction that may move.
    pub(super) fn settle(&mut self, unit: &Unit, text: Option<&str>, answer: &Answer, elapsed: Duration) {
        let Some(link) = self.link.as_mut() else { return };
        let (route, host_id) = (link.route, link.host.id);
        let server = link.server();
        self.state.last_server = server.id;
        server.broken |= answer.unsolicited;
        let dropped = server.incoming.replies.take_dropped_names();
        if dropped > 0 {
            self.state.undo_names(self.state.journal.len().saturating_sub(dropped));
        }
        let status = server.incoming.status;
        let open = self.state.transaction.is_some();
        let plain = !unit.needs_care && !open && status == TransactionStatus::Idle && self.state.pins.is_empty();
        if !plain {
            follow(unit, text, answer, &mut self.state, server);
        }
        if !self.state.view.catalogue_is_current
            && unit.may_write()
            && let Some(link) = &mut self.link
        {
            // A function or trigger that is not known yet may set, lock or create what the text does not show.
            link.must_forget = true;
        }
        self.state.journal.clear();
        self.note_writes(unit, answer, (route, host_id), (status, elapsed));
        self.state.pipeline_open = match unit.kind {
            _ if answer.ready => false,
            UnitKind::Pipeline | UnitKind::Query | UnitKind::Function | UnitKind::Terminate => false,
            UnitKind::Part => true,
            UnitKind::Flush => unit.binds || self.state.pipeline_open,
        };
        if let Some(link) = &mut self.link {
            link.server().mid_request = self.state.pipeline_open;
        }
        if !answer.ready && (self.state.pipeline_open || unit.kind == UnitKind::Flush) {
            self.state.skipping |= answer.error.is_some();
        }
        if !plain {
            self.note_pins();
            if let Some(link) = &mut self.link {
                link.needs_reset = !self.state.pins.is_empty() || self.mode == PoolMode::Session;
            }
        }
        if status == TransactionStatus::Idle && answer.withheld.is_none() {
            self.release_if_free();
        }
        self.state_is(if status == TransactionStatus::Idle { ClientState::Idle } else { ClientState::InTransaction });
    }

    /// Gives the server connection back if nothing binds the session to it. The server is idle.
    pub(super) fn release_if_free(&mut self) {
        if !self.state.pipeline_open && self.state.pins.is_empty() && self.mode == PoolMode::Transaction {
            if let Some(link) = &mut self.link {
                link.needs_reset = false;
            }
            self.link = None;
        }
    }

    /// After anything but a plain read on the primary, later reads must see what it wrote.
    fn note_writes(
        &mut self,
        unit: &Unit,
        answer: &Answer,
        (route, host_id): (QueryRoute, u32),
        (status, mut elapsed): (TransactionStatus, Duration),
    ) {
        let mut changed_catalogue = unit.changes_catalogue;
        if let Some(transaction) = &mut self.state.transaction {
            transaction.changed_catalogue |= unit.changes_catalogue;
            transaction.statements += answer.completed as u64;
            if status != TransactionStatus::Idle {
                return;
            }
        }
        if status == TransactionStatus::Idle {
            if let Some(ended) = self.state.transaction.take() {
                changed_catalogue |= ended.changed_catalogue;
                elapsed = ended.since.elapsed();
            }
            self.database.metrics.record_transaction(route, elapsed);
            if let Some(mark) = self.state.write_mark.take() {
                self.state.freshness = Freshness::Pending(mark.acknowledged());
                self.state.last_read = None;
            } else if self.state.consistency == Consistency::Monotonic {
                self.note_read(route, host_id);
            }
        }
        if changed_catalogue {
            self.database.catalogue_changed();
        }
    }

    /// `monotonic`: what a read has shown must be shown by the next one too.
    fn note_read(&mut self, route: QueryRoute, host_id: u32) {
        match route {
            QueryRoute::Replica => self.state.last_read = Some((host_id, Instant::now())),
            QueryRoute::Primary => {
                self.state.freshness = Freshness::Pending(self.database.upstream().cluster.sampler().ticket());
                self.state.last_read = None;
            }
        }
    }

    /// Shows the session's pins to the console and counts them.
    pub(super) fn note_pins(&mut self) {
        let (before, now) = (self.entry.pins(), self.state.pins);
        if before == now {
            return;
        }
        for (index, (pin, _)) in Pins::ALL.iter().enumerate() {
            let gauge = self.database.metrics.pinned(PinCause::ALL[index]);
            match (before.intersects(*pin), now.intersects(*pin)) {
                (false, true) => gauge.add(1),
                (true, false) => gauge.add(-1),
                _ => {}
            }
        }
        self.entry.set_pins(now);
    }
}
