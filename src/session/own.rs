//! Answers that pgyard gives itself, in the place of a server.

use super::local::check_settings;
use super::run::Session;
use super::unit::{Unit, UnitKind};
use crate::sql::Command;
use crate::types::SqlState;
use crate::wire::frame_at;
use crate::wire::reply::{Report, put_bare, put_command_complete, put_ready};

/// A pipeline that is nothing but its Sync or Flush. Bytes.
const BARE_END_LEN: usize = 5;

impl Session {
    /// Answers the unit if no server is needed for it.
    pub(super) fn answers_itself(&mut self, unit: &Unit) -> bool {
        if let Some(report) = self.lost.take() {
            self.state.lost_transaction = self.state.end_transaction().is_some();
            self.state.pipeline_open = false;
            self.state.pins = crate::sql::Pins::NONE;
            self.note_pins();
            self.refuse(unit, &report);
            return true;
        }
        if self.state.lost_transaction {
            self.answer_lost_transaction(unit);
            return true;
        }
        if unit.kind == UnitKind::Pipeline {
            self.state.skipping = false;
        }
        let bare = unit.is_extended() && unit.len == BARE_END_LEN;
        if bare && self.link.is_none() {
            if unit.kind == UnitKind::Pipeline {
                put_ready(self.client.outbox.writer(), self.state.status().byte());
            }
            return true;
        }
        if unit.needs_care
            && self.state.transaction.is_none()
            && let Err(report) = check_settings(unit)
        {
            self.refuse(unit, &report);
            return true;
        }
        false
    }

    /// Tells the client why the unit was not done.
    pub(super) fn refuse(&mut self, unit: &Unit, report: &Report) {
        report.put(self.client.outbox.writer());
        self.end_answer(unit);
    }

    /// Ends the answer to a unit after an error.
    pub(super) fn end_answer(&mut self, unit: &Unit) {
        match unit.kind {
            UnitKind::Flush | UnitKind::Part => self.state.skipping = true,
            _ => put_ready(self.client.outbox.writer(), self.state.status().byte()),
        }
    }

    /// The session's transaction went away with its server: as in a failed transaction, only its end is accepted.
    fn answer_lost_transaction(&mut self, unit: &Unit) {
        let mut statements = unit.statements();
        let ends = |command: &Command| matches!(command, Command::Commit { chain: false } | Command::Rollback { chain: false });
        let ended = statements.next().is_some_and(|first| ends(&first.command)) && statements.next().is_none();
        drop(statements);
        if !ended {
            if unit.is_extended() && unit.len == BARE_END_LEN {
                return self.end_answer(unit);
            }
            let report = Report::error(
                SqlState::IN_FAILED_SQL_TRANSACTION,
                "current transaction is aborted, commands ignored until end of transaction block",
            );
            return self.refuse(unit, &report);
        }
        let out = self.client.outbox.writer();
        if unit.kind == UnitKind::Query {
            put_command_complete(out, "ROLLBACK");
        } else {
            let mut messages = &self.client.inbox.as_slice()[..unit.len];
            while let Ok(Some(frame)) = frame_at(messages) {
                match frame.tag {
                    b'P' => put_bare(out, b'1'),
                    b'B' => put_bare(out, b'2'),
                    b'C' => put_bare(out, b'3'),
                    b'D' => {
                        if frame.body.first() == Some(&b'S') {
                            crate::wire::frame::put_message(out, b't', |body| body.extend_from_slice(&[0, 0]));
                        }
                        put_bare(out, b'n');
                    }
                    b'E' => put_command_complete(out, "ROLLBACK"),
                    _ => {}
                }
                messages = &messages[frame.total..];
            }
        }
        self.state.lost_transaction = false;
        self.end_answer(unit);
    }
}
