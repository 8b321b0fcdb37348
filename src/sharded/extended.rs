//! Pipelines of the extended protocol. One whose statements are all confined to one shard goes there as it came, answers and all;
//! any other is carried out message by message (`portals`).

use super::planning::{BoundParameters, PlannedStatement, ShardTarget};
use super::relay::Listening;
use super::session::ShardedSession;
use super::simple::writes;
use super::transaction::BlockState;
use super::trouble::{ShardedEnd, Trouble};
use crate::sql::{Command, Facts, StatementFacts};
use crate::wire::bind::BindMessage;
use crate::wire::frame::{HEADER_LEN, client_header, frame_at, put_message};
use crate::wire::parse::ParseMessage;
use crate::wire::{Cursor, WireError};
use std::collections::HashMap;
use std::sync::Arc;

/// A pipeline without a Sync is carried out in parts beyond this. Bytes.
const PIPELINE_MAX: usize = 1024 * 1024;

/// A statement that the client has prepared.
#[derive(Debug)]
pub struct ShardedStatement {
    /// Unique in the session.
    pub id: u64,
    /// What follows the name in its Parse message.
    pub definition: Vec<u8>,
    pub(super) text_len: usize,
    /// What its text says.
    pub facts: Arc<Facts>,
    /// What is done with it.
    pub plan: PlannedStatement,
    /// The bodies of its ParameterDescription and RowDescription, if a server was asked.
    pub description: std::sync::OnceLock<StatementDescription>,
}

/// What a server says of a statement.
#[derive(Debug, Default)]
pub struct StatementDescription {
    /// The types of its parameters.
    pub types: Vec<u32>,
    /// The body of its RowDescription; `None`: it returns no rows.
    pub rows: Option<Vec<u8>>,
}

impl ShardedStatement {
    /// Its text.
    pub fn text(&self) -> &[u8] {
        &self.definition[..self.text_len]
    }

    /// Its statement; none for an empty text.
    pub fn statement(&self) -> Option<&StatementFacts> {
        self.facts.statements.first()
    }

    /// The types that its Parse named, and where it named none, those that the server found.
    pub fn types(&self) -> Vec<u32> {
        if let Some(description) = self.description.get() {
            return description.types.clone();
        }
        let mut cursor = Cursor::new(self.definition.get(self.text_len + 1..).unwrap_or_default());
        let count = cursor.int16().unwrap_or_default() as u16;
        (0..count).map_while(|_| cursor.int32().ok()).map(|oid| oid as u32).collect()
    }

    /// Whether a shard that has all it touches can carry it out with nothing else to be done.
    fn is_plain(&self) -> bool {
        self.facts.statements.len() <= 1
            && self.statement().is_none_or(|statement| {
                matches!(statement.command, Command::Query | Command::Other | Command::CopyIn | Command::CopyOut)
                    && statement.effects.is_empty()
            })
    }
}

/// The parts of a Bind message behind its names.
#[derive(Clone, Debug, Default)]
pub struct BindParts {
    /// The values, and whether each is binary.
    pub values: Vec<(Option<Vec<u8>>, bool)>,
    /// The formats of the result, as they were given.
    pub results: Vec<i16>,
}

impl BindParts {
    /// Reads them.
    ///
    /// # Errors
    /// The message is not well formed.
    pub fn read(rest: &[u8]) -> Result<BindParts, WireError> {
        let mut cursor = Cursor::new(rest);
        let formats = (0..cursor.int16()? as u16).map(|_| cursor.int16()).collect::<Result<Vec<_>, _>>()?;
        let count = cursor.int16()? as u16 as usize;
        if formats.len() > 1 && formats.len() != count {
            return Err(WireError::Field("number of parameter formats"));
        }
        let mut values = Vec::with_capacity(count.min(64));
        for index in 0..count {
            let binary = formats.get(index).or(formats.first()).copied().unwrap_or(0) == 1;
            let value = match cursor.int32()? {
                -1 => None,
                length => Some(cursor.bytes(usize::try_from(length).map_err(|_| WireError::Short)?)?.to_vec()),
            };
            values.push((value, binary));
        }
        let results = (0..cursor.int16()? as u16).map(|_| cursor.int16()).collect::<Result<Vec<_>, _>>()?;
        cursor.end()?;
        Ok(BindParts { values, results })
    }
}

/// What a pipeline that goes to one shard as it is does to the session's statements.
#[derive(Default)]
struct Course {
    shard: Option<usize>,
    writes: bool,
    /// In the order of its Parse messages.
    parsed: Vec<(Box<[u8]>, Arc<ShardedStatement>)>,
    closed: Vec<Box<[u8]>>,
    /// Statements of earlier pipelines that it uses.
    uses: Vec<(Box<[u8]>, Arc<ShardedStatement>)>,
    portals: Vec<Box<[u8]>>,
}

impl Course {
    fn statement(&self, session: &ShardedSession, name: &[u8]) -> Option<Arc<ShardedStatement>> {
        if let Some((_, own)) = self.parsed.iter().rev().find(|(known, _)| **known == *name) {
            return Some(own.clone());
        }
        if self.closed.iter().any(|closed| **closed == *name) {
            return None;
        }
        session.statements.get(name).cloned()
    }

    /// Whether the portal is one of this pipeline, or of an earlier one on the same shard.
    fn has_portal(&mut self, session: &ShardedSession, name: &[u8]) -> bool {
        if self.portals.iter().any(|portal| **portal == *name) {
            return true;
        }
        match session.leg_portals.get(name) {
            Some(shard) if self.shard.is_none_or(|known| known == *shard) => {
                self.shard = Some(*shard);
                true
            }
            _ => false,
        }
    }

    fn uses(&mut self, session: &ShardedSession, name: &[u8]) -> Option<Arc<ShardedStatement>> {
        let statement = self.statement(session, name)?;
        if !self.parsed.iter().any(|(_, own)| own.id == statement.id)
            && !self.uses.iter().any(|(_, used)| used.id == statement.id)
        {
            self.uses.push((name.into(), statement.clone()));
        }
        Some(statement)
    }
}

impl ShardedSession {
    /// Serves a pipeline up to its Sync or Flush. Its first message is there.
    pub(super) async fn extended(&mut self) -> Result<(), ShardedEnd> {
        let length = std::future::poll_fn(|cx| self.poll_pipeline(cx)).await?;
        let unit = self.side().inbox.as_slice()[..length].to_vec();
        self.side().inbox.consume(length);
        let ends_in_sync = last_tag(&unit) == Some(b'S');
        if !self.skipping {
            self.prepare_pipeline().await?;
        }
        if ends_in_sync
            && !self.skipping
            && matches!(self.block.state, BlockState::None | BlockState::Explicit)
            && self.portals.is_empty()
        {
            match self.course(&unit) {
                Ok(Some(course)) => return self.follow(&unit, course).await,
                Ok(None) => {}
                Err(Trouble::End(end)) => return Err(end),
                // Told in its turn, message by message.
                Err(Trouble::Failed(_)) => {}
            }
        }
        let mut executes = 0;
        let mut at = 0;
        while let Ok(Some(frame)) = frame_at(&unit[at..]) {
            executes += usize::from(frame.tag == b'E');
            at += frame.total;
        }
        self.several_executes = executes > 1 || !ends_in_sync;
        self.copied_in = false;
        let mut at = 0;
        while let Ok(Some(frame)) = frame_at(&unit[at..]) {
            // Behind a COPY from the client stand the messages that PostgreSQL ignored while it copied.
            if !(self.copied_in && matches!(frame.tag, b'S' | b'H')) {
                self.pipeline_message(frame.tag, frame.body).await?;
            }
            at += frame.total;
        }
        Ok(())
    }

    fn poll_pipeline(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<usize, ShardedEnd>> {
        use std::task::Poll;
        loop {
            if let Some(length) = cut(self.side().inbox.as_slice()).map_err(ShardedEnd::Protocol)? {
                return Poll::Ready(Ok(length));
            }
            if self.side().ended {
                return Poll::Ready(Err(ShardedEnd::ClientGone));
            }
            self.poll_flush(cx)?;
            match self.poll_client(cx) {
                Poll::Ready(outcome) => outcome?,
                Poll::Pending => return self.poll_stop(cx),
            }
        }
    }

    /// A statement as a Parse message names it, with its plan.
    pub(super) fn parsed(&mut self, message: &ParseMessage<'_>) -> Result<Arc<ShardedStatement>, Trouble> {
        let facts = self.facts(message.text);
        let plan = self.plan(message.text)?;
        self.last_statement += 1;
        Ok(Arc::new(ShardedStatement {
            id: self.last_statement,
            definition: message.definition.to_vec(),
            text_len: message.text.len(),
            facts,
            plan,
            description: std::sync::OnceLock::new(),
        }))
    }

    /// How a pipeline can go to one shard as it is; `None` if it can't.
    fn course(&mut self, unit: &[u8]) -> Result<Option<Course>, Trouble> {
        let mut course = Course::default();
        let mut at = 0;
        while let Some(frame) = frame_at(&unit[at..])? {
            at += frame.total;
            let fits = match frame.tag {
                b'P' => self.course_parse(&mut course, frame.body)?,
                b'B' => self.course_bind(&mut course, frame.body)?,
                b'D' | b'C' => {
                    let (kind, name) = frame.body.split_first().unwrap_or((&b'S', &b"\0"[..]));
                    let name = name.strip_suffix(b"\0").unwrap_or(name);
                    match (frame.tag, kind) {
                        (b'D', b'S') => course.uses(self, name).is_some(),
                        (b'D', _) => course.has_portal(self, name),
                        (_, b'S') => {
                            course.closed.push(name.into());
                            // A name that is given again in the same pipeline is rare.
                            course.parsed.iter().all(|(own, _)| **own != *name)
                                && course.uses.iter().all(|(own, _)| **own != *name)
                        }
                        _ => true,
                    }
                }
                b'E' => {
                    let portal = Cursor::new(frame.body).string()?;
                    course.has_portal(self, portal)
                }
                b'S' => true,
                _ => false,
            };
            if !fits {
                return Ok(None);
            }
        }
        Ok(Some(course))
    }

    fn course_parse(&mut self, course: &mut Course, body: &[u8]) -> Result<bool, Trouble> {
        let message = ParseMessage::read(body)?;
        if !message.name.is_empty() && course.statement(self, message.name).is_some() {
            return Ok(false);
        }
        let statement = self.parsed(&message)?;
        let plain = statement.is_plain();
        course.parsed.push((message.name.into(), statement));
        Ok(plain)
    }

    fn course_bind(&mut self, course: &mut Course, body: &[u8]) -> Result<bool, Trouble> {
        let message = BindMessage::read(body)?;
        let Some(statement) = course.uses(self, message.statement) else { return Ok(false) };
        let parts = BindParts::read(message.rest)?;
        let types = statement.types();
        let parameters = BoundParameters { types: &types, values: &parts.values };
        if !statement.is_plain() {
            return Ok(false);
        }
        match self.plan_of(&statement)?.target(self, statement.statement(), Some(parameters))? {
            ShardTarget::Any(_) => {}
            ShardTarget::One(shard) if course.shard.is_none_or(|known| known == shard) => course.shard = Some(shard),
            ShardTarget::One(_) | ShardTarget::Several(_) => return Ok(false),
        }
        course.writes |= statement.statement().is_some_and(writes);
        course.portals.push(message.portal.into());
        Ok(true)
    }

    /// Sends a pipeline to its shard.
    async fn follow(&mut self, unit: &[u8], course: Course) -> Result<(), ShardedEnd> {
        let shard = course.shard.unwrap_or_else(|| self.any_shard());
        match self.follow_to(shard, unit, &course).await {
            Ok(()) => Ok(()),
            Err(Trouble::End(end)) => Err(end),
            Err(Trouble::Failed(message)) => {
                self.side().outbox.push(&message);
                self.after_error().await?;
                self.put_ready();
                Ok(())
            }
        }
    }

    async fn follow_to(&mut self, shard: usize, unit: &[u8], course: &Course) -> Result<(), Trouble> {
        self.enter(shard, course.writes).await?;
        for (name, _) in course.parsed.iter().filter(|(name, _)| !name.is_empty()) {
            // The client has closed it; this leg has not been told.
            if self.leg(shard).statements.remove(name).is_some() {
                let mut messages = Vec::new();
                put_close(&mut messages, name);
                put_message(&mut messages, b'S', |_| {});
                self.leg(shard).send(&messages);
                self.finish(shard, false).await?;
            }
        }
        for (name, statement) in &course.uses {
            self.prepare_on(shard, name, statement).await?;
        }
        self.last = shard;
        self.database.metrics.confined.increment();
        self.leg(shard).send(unit);
        let relayed = self.relay(shard, Listening { ready: true, extended: true, ..Listening::default() }).await?;
        for (name, statement) in course.parsed.iter().take(relayed.parses) {
            self.statements.insert(name.clone(), statement.clone());
            if let Some(leg) = self.legs[shard].as_mut() {
                leg.statements.insert(name.clone(), statement.id);
            }
        }
        if relayed.error.is_none() {
            for name in &course.closed {
                self.statements.remove(name);
                // Other legs keep it until its name is given again.
                if let Some(leg) = self.legs[shard].as_mut() {
                    leg.statements.remove(name);
                }
            }
        }
        match self.block.is_open() {
            true => self.leg_portals.extend(course.portals.iter().map(|portal| (portal.clone(), shard))),
            false => self.leg_portals.clear(),
        }
        Ok(())
    }

    /// Prepares a statement on a leg that lacks it, under the client's name.
    pub(super) async fn prepare_on(&mut self, shard: usize, name: &[u8], statement: &ShardedStatement) -> Result<(), Trouble> {
        let leg = self.leg(shard);
        let known = leg.statements.get(name).copied();
        if known == Some(statement.id) {
            return Ok(());
        }
        let mut messages = Vec::new();
        if known.is_some() && !name.is_empty() {
            put_close(&mut messages, name);
        }
        ParseMessage::put(&mut messages, name, &statement.definition);
        put_message(&mut messages, b'S', |_| {});
        leg.send(&messages);
        self.finish(shard, false).await?.check()?;
        self.leg(shard).statements.insert(name.into(), statement.id);
        Ok(())
    }
}

/// Appends a Close of a statement.
pub(super) fn put_close(out: &mut Vec<u8>, name: &[u8]) {
    put_message(out, b'C', |body| {
        body.push(b'S');
        body.extend_from_slice(name);
        body.push(0);
    });
}

/// The length of the pipeline at the front: up to its Sync or Flush, to a message that is not of a pipeline, or as much as is held at once.
fn cut(bytes: &[u8]) -> Result<Option<usize>, WireError> {
    let mut at = 0;
    loop {
        let Some(found) = client_header(&bytes[at..])? else { return Ok((at > PIPELINE_MAX).then_some(at)) };
        if at > 0 && !matches!(found.tag, b'P' | b'B' | b'D' | b'E' | b'C' | b'S' | b'H') {
            return Ok(Some(at));
        }
        if bytes.len() - at < found.total {
            return Ok((at > PIPELINE_MAX).then_some(at));
        }
        at += found.total;
        if matches!(found.tag, b'S' | b'H') {
            return Ok(Some(at));
        }
    }
}

fn last_tag(unit: &[u8]) -> Option<u8> {
    let mut at = 0;
    let mut last = None;
    while let Some(&tag) = unit.get(at) {
        last = Some(tag);
        let length = unit.get(at + 1..at + HEADER_LEN)?;
        at += u32::from_be_bytes(length.try_into().ok()?) as usize + 1;
    }
    last
}

/// The client's statements by their names.
pub type ShardedStatements = HashMap<Box<[u8]>, Arc<ShardedStatement>>;
