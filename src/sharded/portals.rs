//! Pipelines message by message: for statements that several shards answer, and for those about the session.

use super::extended::{BindParts, ShardedStatement, StatementDescription, put_close};
use super::gather::LegPortal;
use super::partial_rows::with_formats;
use super::planning::{BoundParameters, ShardTarget};
use super::relay::Listening;
use super::session::ShardedSession;
use super::several::Question;
use super::simple::{not_utf8, writes};
use super::stream::RowStream;
use super::transaction::BlockState;
use super::trouble::{ShardedEnd, Trouble, no_portal, no_statement};
use crate::plan::Plan;
use crate::sql::Command;
use crate::types::SqlState;
use crate::wire::Cursor;
use crate::wire::bind::BindMessage;
use crate::wire::frame::{put_message, put_string};
use crate::wire::parse::ParseMessage;
use crate::wire::reply::{put_bare, put_command_complete};
use std::collections::HashMap;
use std::sync::Arc;

/// A portal that the client has bound.
pub struct ShardedPortal {
    statement: Arc<ShardedStatement>,
    name: Box<[u8]>,
    statement_name: Box<[u8]>,
    parts: BindParts,
    rest: Vec<u8>,
    /// The leg that has it.
    bound_on: Option<usize>,
    /// What several shards answer and the client has not asked for yet; `None`: they were not asked.
    rows: Option<PortalRows>,
}

/// Rows that wait for Execute messages with a limit.
enum PortalRows {
    /// They come when they are asked for.
    Coming(Box<RowStream>),
    /// A write has given them.
    Held(BufferedRows),
}

/// Messages that wait for Execute messages with a limit.
#[derive(Debug, Default)]
struct BufferedRows {
    rows: std::collections::VecDeque<Vec<u8>>,
    /// The command's tag with the number of all rows.
    tag: String,
    /// There was a row in it. A command without rows counts those that it changed.
    gives_rows: bool,
}

/// The client's portals by their names.
pub type ShardedPortals = HashMap<Box<[u8]>, ShardedPortal>;

impl ShardedSession {
    /// One message of a pipeline.
    pub(super) async fn pipeline_message(&mut self, tag: u8, body: &[u8]) -> Result<(), ShardedEnd> {
        if tag == b'S' {
            return self.end_pipeline().await;
        }
        if self.skipping {
            return Ok(());
        }
        let outcome = match tag {
            b'P' => self.parse(body).await,
            b'B' => self.bind(body),
            b'D' => self.describe(body).await,
            b'E' => Box::pin(self.execute(body)).await,
            b'C' => self.close(body).await,
            _ => Ok(()),
        };
        match outcome {
            Ok(()) if !std::mem::take(&mut self.failed_within) => return Ok(()),
            Ok(()) => {}
            Err(Trouble::End(end)) => return Err(end),
            Err(Trouble::Failed(message)) => self.side().outbox.push(&message),
        }
        self.skipping = true;
        self.after_error().await
    }

    async fn end_pipeline(&mut self) -> Result<(), ShardedEnd> {
        if self.block.state == BlockState::Implicit {
            match self.commit().await {
                Ok(()) => {}
                Err(Trouble::End(end)) => return Err(end),
                Err(Trouble::Failed(message)) => self.side().outbox.push(&message),
            }
        }
        self.skipping = false;
        if self.block.state == BlockState::None {
            self.end_portals();
        }
        self.put_ready();
        Ok(())
    }

    /// Portals live as long as their transaction.
    pub(super) fn end_portals(&mut self) {
        self.portals.clear();
        self.leg_portals.clear();
    }

    async fn parse(&mut self, body: &[u8]) -> Result<(), Trouble> {
        let message = ParseMessage::read(body)?;
        if !message.name.is_empty() && self.statements.contains_key(message.name) {
            let name = String::from_utf8_lossy(message.name);
            return Err(Trouble::error(
                SqlState::DUPLICATE_PREPARED_STATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        self.prepare_to_plan(Some(message.text)).await?;
        let statement = self.parsed(&message)?;
        if statement.facts.statements.len() > 1 {
            return Err(Trouble::error(SqlState::SYNTAX_ERROR, "cannot insert multiple commands into a prepared statement"));
        }
        if is_control(&statement) {
            let nothing = StatementDescription::default();
            // It is new.
            let _ = statement.description.set(nothing);
        } else {
            self.describe_on_leg(message.name, &statement).await?;
        }
        self.statements.insert(message.name.into(), statement);
        put_bare(self.side().outbox.writer(), b'1');
        Ok(())
    }

    /// Asks a server for a statement's description; it is prepared on its leg from then on.
    async fn describe_on_leg(&mut self, name: &[u8], statement: &ShardedStatement) -> Result<(), Trouble> {
        if self.block.state == BlockState::Failed {
            return Err(self.in_failed_block());
        }
        let shard = self.any_shard();
        self.enter(shard, false).await?;
        let leg = self.leg(shard);
        let mut messages = Vec::new();
        if leg.statements.contains_key(name) && !name.is_empty() {
            put_close(&mut messages, name);
        }
        ParseMessage::put(&mut messages, name, &statement.definition);
        put_message(&mut messages, b'D', |body| {
            body.push(b'S');
            put_string(body, name);
        });
        put_message(&mut messages, b'S', |_| {});
        leg.send(&messages);
        let answer = self.finish(shard, false).await?.check()?;
        self.leg(shard).statements.insert(name.into(), statement.id);
        let mut cursor = Cursor::new(&answer.parameters);
        let count = cursor.int16().unwrap_or_default() as u16;
        let types = (0..count).map_while(|_| cursor.int32().ok()).map(|oid| oid as u32).collect();
        // Whoever was first is as right.
        let _ = statement.description.set(StatementDescription { types, rows: answer.description });
        Ok(())
    }

    fn bind(&mut self, body: &[u8]) -> Result<(), Trouble> {
        let message = BindMessage::read(body)?;
        let Some(statement) = self.statements.get(message.statement).cloned() else {
            return Err(no_statement(message.statement));
        };
        if self.block.state == BlockState::Failed && !is_control(&statement) {
            return Err(self.in_failed_block());
        }
        if !message.portal.is_empty() && self.portals.contains_key(message.portal) {
            let name = String::from_utf8_lossy(message.portal);
            return Err(Trouble::error(SqlState(*b"42P03"), format!("cursor \"{name}\" already exists")));
        }
        let parts = BindParts::read(message.rest)?;
        let portal = ShardedPortal {
            statement,
            name: message.portal.into(),
            statement_name: message.statement.into(),
            parts,
            rest: message.rest.to_vec(),
            bound_on: None,
            rows: None,
        };
        self.portals.insert(message.portal.into(), portal);
        put_bare(self.side().outbox.writer(), b'2');
        Ok(())
    }

    async fn describe(&mut self, body: &[u8]) -> Result<(), Trouble> {
        let (kind, name) = body.split_first().unwrap_or((&b'S', &b"\0"[..]));
        let name = name.strip_suffix(b"\0").unwrap_or(name);
        let (statement, statement_name, formats): (_, Box<[u8]>, _) = match kind {
            b'S' => (self.statements.get(name).cloned().ok_or_else(|| no_statement(name))?, name.into(), None),
            _ => {
                let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
                (portal.statement.clone(), portal.statement_name.clone(), Some(portal.parts.results.clone()))
            }
        };
        if statement.description.get().is_none() {
            self.describe_on_leg(&statement_name, &statement).await?;
        }
        let Some(description) = statement.description.get() else { return Ok(()) };
        let out = self.client.client.outbox.writer();
        if *kind == b'S' {
            put_message(out, b't', |body| {
                body.extend_from_slice(&(description.types.len() as i16).to_be_bytes());
                description.types.iter().for_each(|oid| body.extend_from_slice(&oid.to_be_bytes()));
            });
        }
        match &description.rows {
            Some(rows) => {
                let rows = with_formats(rows, formats.as_deref().unwrap_or_default());
                put_message(out, b'T', |body| body.extend_from_slice(&rows));
            }
            None => put_bare(out, b'n'),
        }
        Ok(())
    }

    async fn close(&mut self, body: &[u8]) -> Result<(), Trouble> {
        let (kind, name) = body.split_first().unwrap_or((&b'S', &b"\0"[..]));
        let name = name.strip_suffix(b"\0").unwrap_or(name);
        if *kind == b'S' {
            self.statements.remove(name);
            for shard in 0..self.legs.len() {
                if self.legs[shard].as_mut().is_some_and(|leg| leg.statements.remove(name).is_some()) && !name.is_empty() {
                    let mut messages = Vec::new();
                    put_close(&mut messages, name);
                    put_message(&mut messages, b'S', |_| {});
                    self.leg(shard).send(&messages);
                    self.finish(shard, false).await?;
                }
            }
        } else if let Some(portal) = self.portals.remove(name) {
            self.close_on_legs(portal).await?;
        }
        put_bare(self.side().outbox.writer(), b'3');
        Ok(())
    }

    /// Closes what legs have of a portal.
    async fn close_on_legs(&mut self, portal: ShardedPortal) -> Result<(), Trouble> {
        let (shards, name): (Vec<usize>, &[u8]) = match (&portal.rows, portal.bound_on) {
            (Some(PortalRows::Coming(stream)), _) => match stream.portal() {
                Some(name) => (stream.shards().to_vec(), name.as_bytes()),
                None => return Ok(()),
            },
            (_, Some(shard)) => (vec![shard], &portal.name),
            _ => return Ok(()),
        };
        let mut messages = Vec::new();
        put_message(&mut messages, b'C', |body| {
            body.push(b'P');
            put_string(body, name);
        });
        put_message(&mut messages, b'S', |_| {});
        for &shard in &shards {
            self.leg(shard).send(&messages);
        }
        for &shard in &shards {
            self.finish(shard, false).await?;
        }
        Ok(())
    }

    async fn execute(&mut self, body: &[u8]) -> Result<(), Trouble> {
        let mut cursor = Cursor::new(body);
        let (name, limit) = (cursor.string()?, cursor.int32()?);
        let limit = usize::try_from(limit).unwrap_or(0);
        let Some(portal) = self.portals.get(name) else { return Err(no_portal(name)) };
        let statement = portal.statement.clone();
        let Some(facts) = statement.statement() else {
            put_bare(self.side().outbox.writer(), b'I');
            return Ok(());
        };
        let sql = std::str::from_utf8(statement.text()).map_err(|_| not_utf8())?;
        if self.control(sql, facts).await? {
            return Ok(());
        }
        if (self.several_executes || limit > 0) && self.block.state == BlockState::None {
            self.begin_implicit();
        }
        if !facts.effects.is_empty() && self.session_statement(sql, facts).await? {
            return Ok(());
        }
        let Some(mut portal) = self.portals.remove(name) else { return Err(no_portal(name)) };
        let outcome = self.execute_portal(&mut portal, sql, limit).await;
        if self.block.state != BlockState::None {
            self.portals.insert(name.into(), portal);
        }
        outcome
    }

    async fn execute_portal(&mut self, portal: &mut ShardedPortal, sql: &str, limit: usize) -> Result<(), Trouble> {
        if portal.rows.is_some() {
            return self.next_rows(portal, limit).await;
        }
        if let Some(shard) = portal.bound_on {
            return self.execute_on(shard, portal, limit, false).await;
        }
        let statement = portal.statement.clone();
        let Some(facts) = statement.statement() else { return Ok(()) };
        let types = statement.types();
        let parameters = BoundParameters { types: &types, values: &portal.parts.values };
        // In a pipeline, the statements before it may have changed what it means.
        self.prepare_to_plan(Some(statement.text())).await?;
        match self.plan_of(&statement)?.target(self, Some(facts), Some(parameters))? {
            ShardTarget::Any(shard) | ShardTarget::One(shard) => {
                self.database.metrics.confined.increment();
                self.enter(shard, writes(facts)).await?;
                self.prepare_on(shard, &portal.statement_name, &statement).await?;
                self.execute_on(shard, portal, limit, true).await
            }
            ShardTarget::Several(plan) => {
                // Not every query that answers it names every parameter: their types must be known.
                if statement.description.get().is_none() && !portal.parts.values.is_empty() {
                    self.describe_on_leg(&portal.statement_name, &statement).await?;
                }
                let types = statement.types();
                let parameters = BoundParameters { types: &types, values: &portal.parts.values };
                let question =
                    Question { sql, facts, parameters: Some(parameters), results: &portal.parts.results, describes: false };
                // A command that is no query knows no limit.
                if limit == 0 || matches!(plan, Plan::Copy(_)) {
                    self.run_several(question, plan).await?;
                    if let Plan::Gather(_) = plan {
                        // Executed again, it has nothing more to give.
                        portal.rows = Some(PortalRows::Coming(Box::new(RowStream::nothing())));
                    }
                    return Ok(());
                }
                if let Plan::Gather(gather) = plan {
                    self.last_statement += 1;
                    let name = format!("pgyard_rows_{}", self.last_statement);
                    let leg_portal = LegPortal { name: &name, rows: u32::try_from(limit).unwrap_or(u32::MAX) };
                    let stream = self.start(question, gather, leg_portal).await?;
                    portal.rows = Some(PortalRows::Coming(Box::new(stream)));
                    return self.next_rows(portal, limit).await;
                }
                let begin = self.side().outbox.len();
                self.holding = true;
                let outcome = self.run_several(question, plan).await;
                self.holding = false;
                outcome?;
                portal.rows = Some(PortalRows::Held(self.take_back(begin)));
                self.next_rows(portal, limit).await
            }
        }
    }

    /// Takes the messages behind `begin` out of the outbox again: rows that are to be shown later.
    fn take_back(&mut self, begin: usize) -> BufferedRows {
        let outbox = &mut self.client.client.outbox;
        let all = outbox.as_slice().to_vec();
        outbox.clear();
        let (before, mut rest) = all.split_at(begin.min(all.len()));
        outbox.push(before);
        let mut buffered = BufferedRows::default();
        while let Ok(Some(frame)) = crate::wire::frame_at(rest) {
            let (message, behind) = rest.split_at(frame.total);
            match frame.tag {
                b'D' => buffered.rows.push_back(message.to_vec()),
                b'C' => buffered.tag = String::from_utf8_lossy(frame.body).trim_end_matches('\0').to_owned(),
                _ => outbox.push(message),
            }
            rest = behind;
        }
        buffered.gives_rows = !buffered.rows.is_empty();
        buffered
    }

    async fn next_rows(&mut self, portal: &mut ShardedPortal, limit: usize) -> Result<(), Trouble> {
        let (count, more, end) = match &mut portal.rows {
            None => return Ok(()),
            Some(PortalRows::Coming(stream)) => {
                let (count, more) = self.show_some(stream, limit).await?;
                (count, more, "SELECT")
            }
            Some(PortalRows::Held(held)) => {
                let count = if limit == 0 { held.rows.len() } else { limit.min(held.rows.len()) };
                let out = self.client.client.outbox.writer();
                held.rows.drain(..count).for_each(|row| out.extend_from_slice(&row));
                // As PostgreSQL, which finds the end only when it looks for one row more.
                let more = limit > 0 && count == limit;
                if !more && !held.gives_rows {
                    // A command without rows counts those that it changed.
                    put_command_complete(self.client.client.outbox.writer(), &held.tag);
                    return Ok(());
                }
                (count, more, held.tag.rsplit_once(' ').map_or("", |(words, _)| words))
            }
        };
        match more {
            true => put_bare(self.client.client.outbox.writer(), b's'),
            // The count is that of this Execute.
            false => put_command_complete(self.client.client.outbox.writer(), &format!("{end} {count}")),
        }
        Ok(())
    }

    async fn execute_on(&mut self, shard: usize, portal: &mut ShardedPortal, limit: usize, binds: bool) -> Result<(), Trouble> {
        let mut messages = Vec::new();
        if binds {
            let bind = BindMessage { portal: &portal.name, statement: &portal.statement_name, rest: &portal.rest };
            bind.put_head(&mut messages, &portal.statement_name, portal.rest.len());
        }
        put_message(&mut messages, b'E', |body| {
            put_string(body, &portal.name);
            body.extend_from_slice(&(limit as u32).to_be_bytes());
        });
        put_message(&mut messages, b'S', |_| {});
        self.last = shard;
        self.leg(shard).send(&messages);
        let how = Listening { extended: true, hides_binds: true, ..Listening::default() };
        let relayed = self.relay(shard, how).await?;
        self.failed_within = relayed.error.is_some();
        if self.leg(shard).has_begun() {
            portal.bound_on = Some(shard);
        }
        Ok(())
    }
}

/// Whether it is transaction control, which no server is asked about.
fn is_control(statement: &ShardedStatement) -> bool {
    statement.statement().is_some_and(|statement| {
        matches!(
            statement.command,
            Command::Begin(_)
                | Command::Commit { .. }
                | Command::Rollback { .. }
                | Command::Savepoint(_)
                | Command::Release(_)
                | Command::RollbackTo(_)
        )
    })
}
