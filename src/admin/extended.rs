//! The extended protocol: prepared commands and their portals.

use super::command::{ConsoleCommand, parse};
use super::conversation::{ConsoleEnd, Conversation, text_of};
use super::run::Answer;
use super::table::{Cell, put_columns};
use crate::server::TransactionStatus;
use crate::types::SqlState;
use crate::wire::bind::BindMessage;
use crate::wire::frame::put_message;
use crate::wire::named::NamedMessage;
use crate::wire::parse::ParseMessage;
use crate::wire::reply::{Report, put_bare};
use crate::wire::{Cursor, WireError};
use std::collections::HashMap;
use std::sync::Arc;

/// Prepared commands of one session.
const STATEMENTS_MAX: usize = 1000;
/// Portals of one session.
const PORTALS_MAX: usize = 100;

/// A bound command.
#[derive(Debug)]
pub(super) struct ConsolePortal {
    command: Arc<ConsoleCommand>,
    /// The result formats of Bind.
    binary: Vec<bool>,
    /// Whether it was carried out.
    executed: bool,
    /// Rows that were not sent yet.
    pub(super) rows: std::collections::VecDeque<Vec<Cell>>,
    /// The tag behind the last row.
    pub(super) tag: &'static str,
}

/// What a session has made by the extended protocol.
#[derive(Debug, Default)]
pub(super) struct ExtendedState {
    statements: HashMap<Vec<u8>, Arc<ConsoleCommand>>,
    portals: HashMap<Vec<u8>, ConsolePortal>,
    /// After an error messages are dropped up to Sync.
    pub(super) skipping: bool,
}

impl ExtendedState {
    /// A simple query ends the unnamed statement and portal.
    pub(super) fn forget_unnamed(&mut self) {
        self.statements.remove(&b""[..]);
        self.portals.remove(&b""[..]);
    }

    /// Forgets a prepared command, or all.
    pub(super) fn deallocate(&mut self, name: Option<&str>) {
        match name {
            Some(name) => drop(self.statements.remove(name.as_bytes())),
            None => self.statements.clear(),
        }
    }

    fn statement(&self, name: &[u8]) -> Result<Arc<ConsoleCommand>, Report> {
        self.statements.get(name).cloned().ok_or_else(|| {
            let text = format!("prepared statement \"{}\" does not exist", String::from_utf8_lossy(name));
            Report::error(SqlState::INVALID_STATEMENT_NAME, text)
        })
    }
}

fn protocol(error: WireError) -> Report {
    Report::error(SqlState::PROTOCOL_VIOLATION, error.to_string())
}

fn no_portal(name: &[u8]) -> Report {
    Report::error(SqlState(*b"34000"), format!("portal \"{}\" does not exist", String::from_utf8_lossy(name)))
}

fn too_many(what: &str, limit: usize) -> Report {
    let text = format!("a console session holds at most {limit} {what}");
    Report::error(SqlState::CONFIGURATION_LIMIT_EXCEEDED, text).hint("Close those that are not needed.")
}

impl Conversation {
    /// Answers one message. The inner error is the client's, and skips the rest up to Sync.
    pub(super) async fn extended_message(&mut self, tag: u8, body: &[u8]) -> Result<Result<(), Report>, ConsoleEnd> {
        Ok(match tag {
            b'P' => self.parse(body),
            b'B' => self.bind(body),
            b'D' => self.describe(body),
            b'C' => self.close(body),
            b'E' => return self.execute(body).await,
            b'H' => {
                self.flush().await?;
                Ok(())
            }
            _ => {
                self.extended.skipping = false;
                if self.status == TransactionStatus::Idle {
                    self.extended.portals.clear();
                }
                self.ready();
                Ok(())
            }
        })
    }

    fn parse(&mut self, body: &[u8]) -> Result<(), Report> {
        let message = ParseMessage::read(body).map_err(protocol)?;
        let mut commands = parse(&text_of(message.text)?)?;
        if commands.len() > 1 {
            let text = "cannot insert multiple commands into a prepared statement";
            return Err(Report::error(SqlState::SYNTAX_ERROR, text));
        }
        let statements = &mut self.extended.statements;
        if !message.name.is_empty() && statements.contains_key(message.name) {
            let text = format!("prepared statement \"{}\" already exists", String::from_utf8_lossy(message.name));
            return Err(Report::error(SqlState::DUPLICATE_PREPARED_STATEMENT, text));
        }
        if statements.len() >= STATEMENTS_MAX {
            return Err(too_many("prepared statements", STATEMENTS_MAX));
        }
        statements.insert(message.name.to_vec(), Arc::new(commands.pop().unwrap_or(ConsoleCommand::Empty)));
        put_bare(self.client.outbox.writer(), b'1');
        Ok(())
    }

    fn bind(&mut self, body: &[u8]) -> Result<(), Report> {
        let message = BindMessage::read(body).map_err(protocol)?;
        let command = self.extended.statement(message.statement)?;
        let binary = read_formats(message.rest)?;
        let columns = command.table().map_or(0, |table| table.columns.len());
        if binary.len() > 1 && binary.len() != columns {
            let text = format!("bind message has {} result formats but query has {columns} columns", binary.len());
            return Err(Report::error(SqlState::PROTOCOL_VIOLATION, text));
        }
        let portals = &mut self.extended.portals;
        if !message.portal.is_empty() && portals.contains_key(message.portal) {
            let text = format!("portal \"{}\" already exists", String::from_utf8_lossy(message.portal));
            return Err(Report::error(SqlState(*b"42P03"), text));
        }
        if portals.len() >= PORTALS_MAX {
            return Err(too_many("portals", PORTALS_MAX));
        }
        let portal = ConsolePortal { command, binary, executed: false, rows: Default::default(), tag: "" };
        portals.insert(message.portal.to_vec(), portal);
        put_bare(self.client.outbox.writer(), b'2');
        Ok(())
    }

    fn describe(&mut self, body: &[u8]) -> Result<(), Report> {
        let message = NamedMessage::read(body).map_err(protocol)?;
        let (command, binary) = if message.statement {
            (self.extended.statement(message.name)?, Vec::new())
        } else {
            let portal = self.extended.portals.get(message.name).ok_or_else(|| no_portal(message.name))?;
            (portal.command.clone(), portal.binary.clone())
        };
        let out = self.client.outbox.writer();
        if message.statement {
            put_message(out, b't', |body| body.extend_from_slice(&0_i16.to_be_bytes()));
        }
        match command.table() {
            Some(table) => put_columns(out, &table.columns, |index| is_binary(&binary, index)),
            None => put_bare(out, b'n'),
        }
        Ok(())
    }

    fn close(&mut self, body: &[u8]) -> Result<(), Report> {
        let message = NamedMessage::read(body).map_err(protocol)?;
        if message.statement {
            self.extended.statements.remove(message.name);
        } else {
            self.extended.portals.remove(message.name);
        }
        put_bare(self.client.outbox.writer(), b'3');
        Ok(())
    }

    async fn execute(&mut self, body: &[u8]) -> Result<Result<(), Report>, ConsoleEnd> {
        let (name, limit) = match read_execute(body) {
            Ok(read) => read,
            Err(error) => return Ok(Err(protocol(error))),
        };
        let Some(portal) = self.extended.portals.get_mut(name) else { return Ok(Err(no_portal(name))) };
        if *portal.command == ConsoleCommand::Empty {
            put_bare(self.client.outbox.writer(), b'I');
            return Ok(Ok(()));
        }
        if !portal.executed {
            portal.executed = true;
            let command = portal.command.clone();
            let answer = match self.answer(&command).await? {
                Ok(answer) => answer,
                Err(report) => return Ok(Err(report)),
            };
            let Some(portal) = self.extended.portals.get_mut(name) else { return Ok(Err(no_portal(name))) };
            match answer {
                Answer::Table(table, tag) => (portal.rows, portal.tag) = (table.rows.into(), tag),
                Answer::Done(tag) => portal.tag = tag,
            }
        } else if portal.command.table().is_none() {
            let text = format!("portal \"{}\" cannot be run anymore", String::from_utf8_lossy(name));
            return Ok(Err(Report::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, text)));
        }
        let Some(portal) = self.extended.portals.get_mut(name) else { return Ok(Err(no_portal(name))) };
        // What gives no rows has no limit of them.
        let limit = if portal.command.table().is_some() { limit } else { 0 };
        Conversation::send_rows(&mut self.client, portal, limit);
        Ok(Ok(()))
    }
}

fn is_binary(formats: &[bool], index: usize) -> bool {
    match formats {
        [all] => *all,
        each => each.get(index).copied().unwrap_or(false),
    }
}

/// The result formats of a Bind, behind its parameters, of which there must be none.
///
/// Spec: "Message Formats", Bind (F).
fn read_formats(rest: &[u8]) -> Result<Vec<bool>, Report> {
    let mut cursor = Cursor::new(rest);
    let count = |cursor: &mut Cursor<'_>| cursor.int16().map(|count| usize::from(count.cast_unsigned()));
    let parameter_formats = count(&mut cursor).map_err(protocol)?;
    cursor.bytes(parameter_formats * 2).map_err(protocol)?;
    let parameters = count(&mut cursor).map_err(protocol)?;
    if parameters > 0 {
        let text = format!("bind message supplies {parameters} parameters, but the console takes none");
        return Err(Report::error(SqlState::PROTOCOL_VIOLATION, text).hint("Write the values into the command itself."));
    }
    let results = count(&mut cursor).map_err(protocol)?;
    let mut formats = Vec::new();
    for _ in 0..results {
        formats.push(match cursor.int16().map_err(protocol)? {
            0 => false,
            1 => true,
            other => {
                let text = format!("unsupported format code: {other}");
                return Err(Report::error(SqlState::INVALID_PARAMETER_VALUE, text));
            }
        });
    }
    cursor.end().map_err(protocol)?;
    Ok(formats)
}

/// Spec: "Message Formats", Execute (F).
fn read_execute(body: &[u8]) -> Result<(&[u8], usize), WireError> {
    let mut cursor = Cursor::new(body);
    let name = cursor.string()?;
    let limit = usize::try_from(cursor.int32()?).unwrap_or(0);
    cursor.end()?;
    Ok((name, limit))
}
