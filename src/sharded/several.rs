//! Statements that several shards carry out.

use super::planning::BoundParameters;
use super::session::ShardedSession;
use super::simple::writes;
use super::transaction::BlockState;
use super::trouble::Trouble;
use crate::plan::{Combine, CopyPlan, Plan};
use crate::sql::StatementFacts;
use crate::types::SqlState;
use crate::wire::frame::{put_message, put_string};

/// A statement on its way to several shards.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Its text.
    pub sql: &'a str,
    /// What the text says.
    pub facts: &'a StatementFacts,
    /// Its parameters.
    pub parameters: Option<BoundParameters<'a>>,
    /// The formats of its result, as Bind gives them.
    pub results: &'a [i16],
    /// The client gets a RowDescription.
    pub describes: bool,
}

impl Question<'_> {
    /// Whether it may write.
    pub fn writes(&self) -> bool {
        writes(self.facts)
    }
}

impl ShardedSession {
    /// Carries a statement out on several shards and tells the client what came of it, up to its CommandComplete.
    pub(super) async fn run_several(&mut self, question: Question<'_>, plan: &Plan) -> Result<(), Trouble> {
        match plan {
            Plan::Gather(gather) => {
                let described = question.describes && matches!(gather.combine, Combine::Finish(_));
                if described {
                    self.describe_as_written(question.sql).await?;
                }
                let question = Question { describes: question.describes && !described, ..question };
                let count = self.gather(question, gather).await?;
                self.put_tag(&format!("SELECT {count}"));
                Ok(())
            }
            Plan::Write(write) => {
                self.database.metrics.written.increment();
                let own = self.open_block();
                let tag = Box::pin(self.write(question, write)).await?;
                if own {
                    self.commit().await?;
                }
                self.put_tag(&tag);
                Ok(())
            }
            Plan::Everywhere => {
                self.database.metrics.everywhere.increment();
                self.everywhere(question).await
            }
            Plan::Copy(copy) => {
                let tag = Box::pin(self.copy(question, copy)).await?;
                self.put_tag(&tag);
                Ok(())
            }
            Plan::Anywhere | Plan::Confined { .. } | Plan::Refused(_) => {
                Err(Trouble::error(SqlState::INTERNAL_ERROR, "a statement for one shard was sent to several"))
            }
        }
    }

    /// Tells the client what the rows of a statement look like as a server describes them: the queries that answer it have other
    /// names for their columns.
    async fn describe_as_written(&mut self, sql: &str) -> Result<(), Trouble> {
        let shard = self.any_shard();
        if let Some(description) = self.description_of(shard, sql, &[]).await? {
            put_message(self.side().outbox.writer(), b'T', |body| body.extend_from_slice(&description));
        }
        Ok(())
    }

    /// The body of the RowDescription that a shard has for a text, if it returns rows. `types`: those of its parameters.
    pub(super) async fn description_of(&mut self, shard: usize, sql: &str, types: &[u32]) -> Result<Option<Vec<u8>>, Trouble> {
        self.enter(shard, false).await?;
        let mut messages = Vec::new();
        put_message(&mut messages, b'P', |body| {
            body.push(0);
            put_string(body, sql.as_bytes());
            body.extend_from_slice(&(types.len() as u16).to_be_bytes());
            types.iter().for_each(|oid| body.extend_from_slice(&oid.to_be_bytes()));
        });
        put_message(&mut messages, b'D', |body| body.extend_from_slice(b"S\0"));
        put_message(&mut messages, b'S', |_| {});
        let leg = self.leg(shard);
        leg.statements.remove(&b""[..]);
        leg.send(&messages);
        Ok(self.finish(shard, false).await?.check()?.description)
    }

    async fn copy(&mut self, question: Question<'_>, plan: &CopyPlan) -> Result<String, Trouble> {
        match plan {
            CopyPlan::Split(_) | CopyPlan::Copies { .. } => {
                self.database.metrics.written.increment();
                let own = self.open_block();
                let tag = self.copy_from(question, plan).await?;
                if own {
                    self.commit().await?;
                }
                Ok(tag)
            }
            CopyPlan::Tables { header, binary } => {
                self.database.metrics.gathered.increment();
                self.copy_tables(question, (*header, *binary)).await
            }
            CopyPlan::Rows(rows) => self.copy_rows(question, rows).await,
        }
    }

    /// Opens a transaction for one statement, unless one is open.
    fn open_block(&mut self) -> bool {
        let own = self.block.state == BlockState::None;
        self.begin_implicit();
        own
    }

    /// A statement that every shard carries out: in one transaction where PostgreSQL allows that.
    async fn everywhere(&mut self, question: Question<'_>) -> Result<(), Trouble> {
        let own = self.open_block();
        self.block.changed_schema = true;
        self.names.forget_schema();
        let tag = match self.each_in_turn(question.sql).await {
            Err(trouble) if own && trouble.state() == Some(SqlState::ACTIVE_SQL_TRANSACTION) => {
                // It can't run in a transaction block: each shard carries it out for itself.
                self.roll_back().await?;
                self.schema_changed();
                let tag = self.each_in_turn(question.sql).await;
                self.schema_changed();
                tag?
            }
            Ok(tag) if own => {
                self.commit().await?;
                tag
            }
            other => other?,
        };
        self.put_tag(&tag);
        Ok(())
    }

    /// Runs a text on every shard, in the map's order, so that two sessions that change the same wait for each other in one order.
    async fn each_in_turn(&mut self, sql: &str) -> Result<String, Trouble> {
        let mut tag = String::new();
        for shard in 0..self.map.shards.len() {
            self.enter(shard, true).await?;
            self.leg(shard).query(sql);
            tag = self.finish(shard, shard == 0).await?.check()?.tag;
        }
        Ok(tag)
    }

    /// The schema may have changed: what was planned before holds no more.
    pub(super) fn schema_changed(&mut self) {
        self.database.schema_changed();
    }

    /// DISCARD ALL: statements prepared by the protocol are gone too.
    pub(super) fn forget_statements(&mut self) {
        self.statements.clear();
        self.portals.clear();
        self.legs.iter_mut().flatten().for_each(|leg| leg.statements.clear());
    }
}
