//! Simple queries: one statement, or several as the one transaction that PostgreSQL makes of them.

use super::planning::ShardTarget;
use super::relay::Listening;
use super::session::ShardedSession;
use super::several::Question;
use super::transaction::{BlockState, SavepointStep};
use super::trouble::{ShardedEnd, Trouble};
use crate::database::classify;
use crate::sql::{Command, Facts, StatementFacts};
use crate::types::SqlState;
use crate::wire::reply::put_bare;
use std::sync::Arc;

/// Whether the client has got its ReadyForQuery.
type ReadySaid = bool;

impl ShardedSession {
    /// Serves one Query message.
    pub(super) async fn simple(&mut self, body: &[u8]) -> Result<(), ShardedEnd> {
        let text = body.strip_suffix(b"\0").unwrap_or(body);
        match self.run_simple(text).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(Trouble::End(end)) => return Err(end),
            Err(Trouble::Failed(message)) => {
                self.side().outbox.push(&message);
                self.after_error().await?;
            }
        }
        self.put_ready();
        Ok(())
    }

    /// A statement has failed: so has the block that it was in.
    pub(super) async fn after_error(&mut self) -> Result<(), ShardedEnd> {
        match self.block.state {
            BlockState::Implicit => match self.roll_back().await {
                Err(Trouble::End(end)) => Err(end),
                _ => Ok(()),
            },
            _ => {
                self.block.fail();
                Ok(())
            }
        }
    }

    /// The facts of a text, under the first shard's catalogue.
    pub(super) fn facts(&self, text: &[u8]) -> Arc<Facts> {
        classify(self.database.first(), text, self.lexing())
    }

    async fn run_simple(&mut self, text: &[u8]) -> Result<ReadySaid, Trouble> {
        let facts = self.facts(text);
        match &*facts.statements {
            [] => {
                put_bare(self.side().outbox.writer(), b'I');
                Ok(false)
            }
            [statement] => self.simple_statement(text, statement, true).await,
            several => self.several_statements(text, several).await,
        }
    }

    /// Several statements: one transaction, but for what BEGIN and COMMIT among them make of it.
    async fn several_statements(&mut self, text: &[u8], statements: &[StatementFacts]) -> Result<ReadySaid, Trouble> {
        self.prepare_to_plan(Some(text)).await?;
        if let Some(shard) = self.only_shard(text, statements)? {
            self.enter(shard, statements.iter().any(writes)).await?;
            return self.ask_one(shard, text, true).await;
        }
        let was_open = self.block.is_open();
        for statement in statements {
            if !was_open {
                self.begin_implicit();
            }
            let part = text.get(statement.span.clone()).unwrap_or_default();
            self.simple_statement(part, statement, false).await?;
            if self.failed_within {
                // The client has the server's error already.
                self.failed_within = false;
                if self.block.state == BlockState::Implicit {
                    self.roll_back().await?;
                }
                return Ok(false);
            }
        }
        if self.block.state == BlockState::Implicit {
            self.commit().await?;
        }
        Ok(false)
    }

    /// The shard that all of the statements are confined to, if they can go there as one text.
    fn only_shard(&mut self, text: &[u8], statements: &[StatementFacts]) -> Result<Option<usize>, Trouble> {
        if self.block.state == BlockState::Failed {
            return Ok(None);
        }
        let mut only = None;
        for statement in statements {
            let plain = matches!(statement.command, Command::Query | Command::Other) && statement.effects.is_empty();
            let part = text.get(statement.span.clone()).unwrap_or_default();
            if !plain {
                return Ok(None);
            }
            match self.plan(part)?.target(self, Some(statement), None)? {
                ShardTarget::Any(_) => {}
                ShardTarget::One(shard) if only.is_none_or(|known| known == shard) => only = Some(shard),
                _ => return Ok(None),
            }
        }
        Ok(only)
    }

    /// One statement of a simple query. `alone`: it is the whole query, so its ReadyForQuery can be passed on.
    async fn simple_statement(&mut self, text: &[u8], statement: &StatementFacts, alone: bool) -> Result<ReadySaid, Trouble> {
        self.failed_within = false;
        let sql = std::str::from_utf8(text).map_err(|_| not_utf8())?;
        if self.control(sql, statement).await? {
            return Ok(false);
        }
        if !statement.effects.is_empty() && self.session_statement(sql, statement).await? {
            return Ok(false);
        }
        self.prepare_to_plan(Some(text)).await?;
        let plan = self.plan(text)?;
        match plan.target(self, Some(statement), None)? {
            ShardTarget::Any(shard) | ShardTarget::One(shard) => {
                self.database.metrics.confined.increment();
                self.enter(shard, writes(statement)).await?;
                self.ask_one(shard, text, alone).await
            }
            ShardTarget::Several(several) => {
                let question = Question { sql, facts: statement, parameters: None, results: &[], describes: true };
                Box::pin(self.run_several(question, several)).await.map(|()| false)
            }
        }
    }

    /// Transaction control. Answers whether the statement was that, and has been answered.
    ///
    /// # Errors
    /// It failed; or the block that the statement is in has failed before.
    pub(super) async fn control(&mut self, sql: &str, statement: &StatementFacts) -> Result<bool, Trouble> {
        match &statement.command {
            Command::Begin(modes) => {
                if self.block.state == BlockState::Failed {
                    return Err(self.in_failed_block());
                }
                self.begin(sql, *modes);
            }
            Command::Commit { chain } => self.commit_block(*chain).await?,
            Command::Rollback { chain } => self.roll_back_block(*chain).await?,
            Command::Savepoint(name) => self.savepoint(sql, SavepointStep::Make(name)).await?,
            Command::Release(name) => self.savepoint(sql, SavepointStep::Release(name)).await?,
            Command::RollbackTo(name) => self.savepoint(sql, SavepointStep::RollBackTo(name)).await?,
            _ if self.block.state == BlockState::Failed => return Err(self.in_failed_block()),
            Command::SetTransaction(modes) => self.set_transaction(sql, *modes).await?,
            Command::TwoPhase => {
                let message =
                    "PREPARE TRANSACTION, COMMIT PREPARED and ROLLBACK PREPARED are not supported in a sharded database";
                return Err(Trouble::error(SqlState::FEATURE_NOT_SUPPORTED, message));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Sends a text to one shard and passes the answer on.
    async fn ask_one(&mut self, shard: usize, text: &[u8], alone: bool) -> Result<ReadySaid, Trouble> {
        self.last = shard;
        let leg = self.leg(shard);
        crate::wire::frame::put_message(leg.outbox.writer(), b'Q', |body| {
            body.extend_from_slice(text);
            body.push(0);
        });
        leg.due += 1;
        let relayed = self.relay(shard, Listening { ready: alone, ..Listening::default() }).await?;
        self.failed_within = !alone && relayed.error.is_some();
        if self.failed_within {
            self.block.fail();
        }
        Ok(alone)
    }
}

/// Whether a statement may change something that its transaction must not lose: then its shard takes part in the commit. A row lock
/// ends with the transaction anyway.
pub(super) fn writes(statement: &StatementFacts) -> bool {
    use crate::sql::{Access, WriteReason};
    matches!(statement.access, Access::Write(reason) if reason != WriteReason::Lock)
}

pub(super) fn not_utf8() -> Trouble {
    Trouble::error(SqlState::FEATURE_NOT_SUPPORTED, "a sharded database takes statements in UTF-8 only")
}
