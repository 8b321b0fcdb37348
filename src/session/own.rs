//! Answers that pgyard gives itself, in the place of a server.

use super::known::new_statement;
use super::local::check_settings;
use super::run::Session;
use super::send::remember_unnamed;
use super::unit::{Unit, UnitKind};
use crate::sql::Command;
use crate::types::SqlState;
use crate::wire::frame::put_message;
use crate::wire::frame_at;
use crate::wire::named::NamedMessage;
use crate::wire::parse::ParseMessage;
use crate::wire::reply::{Report, put_bare, put_command_complete, put_ready};
use std::hint::cold_path;

impl Session {
    /// Answers the unit if no server is needed for it.
    pub(super) fn answers_itself(&mut self, unit: &Unit) -> bool {
        if unit.kind == UnitKind::Pipeline {
            self.state.skipping = false;
        }
        if let Some(report) = self.lost.take() {
            cold_path();
            self.state.lost_transaction = self.state.lose_transaction() && !unit.ends_transaction();
            self.state.pins = crate::sql::Pins::NONE;
            self.note_pins();
            self.refuse(unit, &report);
            return true;
        }
        if self.state.lost_transaction {
            cold_path();
            self.answer_lost_transaction(unit);
            return true;
        }
        if unit.is_bare_end() && self.link.is_none() {
            cold_path();
            if unit.kind == UnitKind::Pipeline {
                put_ready(self.client.outbox.writer(), self.state.status().byte());
            }
            return true;
        }
        if self.link.is_none() && unit.is_extended() && self.only_closes(unit) {
            cold_path();
            self.fake_end(unit, false);
            self.state.journal.clear();
            if unit.kind == UnitKind::Pipeline {
                put_ready(self.client.outbox.writer(), self.state.status().byte());
            }
            return true;
        }
        if unit.needs_care
            && self.state.transaction.is_none()
            && let Err(report) = check_settings(unit)
        {
            cold_path();
            self.refuse(unit, &report);
            return true;
        }
        !unit.binds && self.link.is_none() && unit.is_extended() && self.answers_known(unit)
    }

    /// Whether the unit does nothing but close statements and portals: names are the session's own, and without a server it has
    /// no portal.
    #[inline(never)]
    fn only_closes(&self, unit: &Unit) -> bool {
        if unit.binds || unit.statements().next().is_some() || unit.kind == UnitKind::Part {
            return false;
        }
        let mut rest = &self.client.inbox.as_slice()[..unit.len];
        while let Ok(Some(frame)) = frame_at(rest) {
            if !matches!(frame.tag, b'C' | b'S' | b'H') {
                return false;
            }
            rest = &rest[frame.total..];
        }
        true
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

    /// The session's transaction went away with its server: as in a failed transaction, only its end is accepted. What needs no
    /// transaction is done all the same: statements that end one are prepared, and any is closed.
    fn answer_lost_transaction(&mut self, unit: &Unit) {
        let ends = |command: &Command| matches!(command, Command::Commit { chain: false } | Command::Rollback { chain: false });
        let is_end = unit.statements().next().is_some();
        // A text that is prepared and run in one pipeline may count twice, once for each.
        let accepted = match is_end {
            true => unit.statements().all(|statement| ends(&statement.command)) && unit.run_statements().count() <= 1,
            false => unit.is_extended(),
        };
        let done = accepted && if unit.is_extended() { self.fake_end(unit, is_end) } else { self.end_lost_transaction() };
        // What was done stays done, whatever becomes of the next unit.
        self.state.journal.clear();
        if done {
            if !matches!(unit.kind, UnitKind::Flush | UnitKind::Part) {
                put_ready(self.client.outbox.writer(), self.state.status().byte());
            }
            return;
        }
        let report = Report::error(
            SqlState::IN_FAILED_SQL_TRANSACTION,
            "current transaction is aborted, commands ignored until end of transaction block",
        );
        self.refuse(unit, &report);
    }

    fn end_lost_transaction(&mut self) -> bool {
        put_command_complete(self.client.outbox.writer(), "ROLLBACK");
        self.state.lost_transaction = false;
        true
    }

    /// Answers the messages of a unit whose only statement, if `ends`, ends the lost transaction; false at one that it does not
    /// accept.
    fn fake_end(&mut self, unit: &Unit, ends: bool) -> bool {
        let messages = self.client.inbox.as_slice()[..unit.len].to_vec();
        let mut rest = messages.as_slice();
        while let Ok(Some(frame)) = frame_at(rest) {
            rest = &rest[frame.total..];
            match (frame.tag, ends) {
                (b'P', true) => {
                    let Ok(parse) = ParseMessage::read(frame.body) else { return false };
                    if parse.name.is_empty() {
                        remember_unnamed(&parse, &mut self.state);
                    } else {
                        let statement = new_statement(&parse, &self.state.meaning, &self.state, &self.database);
                        self.state.name_statement(parse.name, statement, 0);
                    }
                    put_bare(self.client.outbox.writer(), b'1');
                }
                (b'B', true) => put_bare(self.client.outbox.writer(), b'2'),
                (b'D', true) => {
                    if frame.body.first() == Some(&b'S') {
                        put_message(self.client.outbox.writer(), b't', |body| body.extend_from_slice(&[0, 0]));
                    }
                    put_bare(self.client.outbox.writer(), b'n');
                }
                (b'E', true) => drop(self.end_lost_transaction()),
                (b'C', _) => {
                    let Ok(close) = NamedMessage::read(frame.body) else { return false };
                    if close.statement && !close.name.is_empty() {
                        self.state.forget_statement(close.name, 0);
                    } else if close.statement {
                        self.state.unnamed.forget();
                    }
                    put_bare(self.client.outbox.writer(), b'3');
                }
                (b'S' | b'H', _) => {}
                _ => return false,
            }
        }
        true
    }
}
