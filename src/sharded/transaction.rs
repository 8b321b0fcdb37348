//! Transactions over several shards: begun on a leg with its first statement there, ended on all.

use super::decision::{Decision, before_decision, is_final, rolled_back_instead};
use super::leg::LegTransaction;
use super::session::ShardedSession;
use super::sets::quote_name;
use super::trouble::Trouble;
use crate::sql::{Isolation, TransactionModes};
use crate::twophase::{FaultPoint, record_commit};
use crate::types::SqlState;
use crate::wire::reply::{Report, ReportSeverity, put_command_complete};
use std::task::Poll;
use std::time::Duration;

/// Where the session's transaction block stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockState {
    /// There is none.
    #[default]
    None,
    /// The statements of one request: they end with it.
    Implicit,
    /// BEGIN was said.
    Explicit,
    /// Something in it has failed: only its end is possible.
    Failed,
}

/// The session's transaction block.
#[derive(Debug, Default)]
pub struct TransactionBlock {
    /// Where it stands.
    pub state: BlockState,
    /// How its legs begin.
    begin: String,
    /// It sees one snapshot throughout, which several shards can't have in common.
    one_snapshot: bool,
    /// The schema was changed in it.
    pub changed_schema: bool,
}

impl TransactionBlock {
    /// Whether the client is in a transaction block.
    pub fn is_open(&self) -> bool {
        matches!(self.state, BlockState::Explicit | BlockState::Failed)
    }

    /// The status of ReadyForQuery.
    pub fn status(&self) -> u8 {
        match self.state {
            BlockState::None | BlockState::Implicit => b'I',
            BlockState::Explicit => b'T',
            BlockState::Failed => b'E',
        }
    }

    /// Something in it has failed. Without a block that is nobody's business but the statement's.
    pub fn fail(&mut self) {
        if self.state == BlockState::Explicit {
            self.state = BlockState::Failed;
        }
    }

    /// SET TRANSACTION for the legs that have not begun.
    pub fn also(&mut self, sql: &str, isolation: Option<Isolation>) {
        self.begin.push_str("; ");
        self.begin.push_str(sql);
        if let Some(isolation) = isolation {
            self.one_snapshot = isolation != Isolation::ReadCommitted;
        }
    }

    fn open(&mut self, state: BlockState, begin: &str, isolation: Isolation) {
        self.state = state;
        begin.clone_into(&mut self.begin);
        self.one_snapshot = isolation != Isolation::ReadCommitted;
    }
}

impl ShardedSession {
    /// Makes the leg of a shard ready for a statement: its parameters are the session's, and it has begun if a transaction is open.
    ///
    /// # Errors
    /// The shard can't be reached, or it has refused.
    pub(super) async fn enter(&mut self, shard: usize, writes: bool) -> Result<(), Trouble> {
        let open = self.block.state != BlockState::None;
        let others =
            self.legs.iter().enumerate().any(|(other, leg)| other != shard && leg.as_ref().is_some_and(|leg| leg.has_begun()));
        let begins = open && !self.leg(shard).has_begun();
        if begins && others && self.block.one_snapshot {
            let message = "a transaction that is REPEATABLE READ or SERIALIZABLE can't touch a second shard";
            let report = Report::error(SqlState::FEATURE_NOT_SUPPORTED, message);
            return Err(report.hint("Use READ COMMITTED, or keep the transaction to one shard.").into());
        }
        let version = self.sets.version();
        if self.leg(shard).sets_seen != version && !self.leg(shard).has_begun() {
            let sql = self.sets.committed();
            if !sql.is_empty() {
                self.leg(shard).query(&sql);
                self.finish(shard, false).await?.check()?;
            }
            self.leg(shard).sets_seen = version;
        }
        if begins {
            let begin = self.block.begin.clone();
            let replay = self.sets.in_transaction();
            let leg = self.leg(shard);
            leg.query(&begin);
            if !replay.is_empty() {
                leg.query(&replay);
            }
            let answer = self.finish(shard, false).await?;
            self.leg(shard).transaction = LegTransaction::Reading;
            answer.check()?;
        }
        if writes && open {
            self.leg(shard).transaction = LegTransaction::Writing;
        }
        Ok(())
    }

    /// Opens a block for the statements of one request.
    pub(super) fn begin_implicit(&mut self) {
        if self.block.state == BlockState::None {
            // The session's default may be another.
            self.block.open(BlockState::Implicit, "BEGIN", self.default_isolation());
        }
    }

    fn default_isolation(&self) -> Isolation {
        match self.parameter("default_transaction_isolation").as_deref() {
            Some("serializable") => Isolation::Serializable,
            Some("repeatable read") => Isolation::RepeatableRead,
            _ => Isolation::ReadCommitted,
        }
    }

    /// BEGIN.
    pub(super) fn begin(&mut self, sql: &str, modes: TransactionModes) {
        let isolation = modes.isolation.unwrap_or_else(|| self.default_isolation());
        match self.block.state {
            BlockState::None => self.block.open(BlockState::Explicit, sql, isolation),
            BlockState::Implicit => self.block.state = BlockState::Explicit,
            BlockState::Explicit | BlockState::Failed => {
                self.warn(SqlState::ACTIVE_SQL_TRANSACTION, "there is already a transaction in progress");
            }
        }
        let tag = if sql.trim_start().get(..5).is_some_and(|word| word.eq_ignore_ascii_case("start")) {
            "START TRANSACTION"
        } else {
            "BEGIN"
        };
        self.put_tag(tag);
    }

    pub(super) fn put_tag(&mut self, tag: &str) {
        put_command_complete(self.side().outbox.writer(), tag);
    }

    pub(super) fn warn(&mut self, state: SqlState, message: &str) {
        let report = Report { severity: ReportSeverity::Warning, ..Report::error(state, message) };
        report.put(self.side().outbox.writer());
    }

    fn shards_that(&self, want: impl Fn(LegTransaction) -> bool) -> Vec<usize> {
        let of = |leg: &Option<Box<super::leg::Leg>>| leg.as_ref().is_some_and(|leg| want(leg.transaction));
        (0..self.legs.len()).filter(|shard| of(&self.legs[*shard])).collect()
    }

    /// COMMIT of the client's.
    pub(super) async fn commit_block(&mut self, chain: bool) -> Result<(), Trouble> {
        if self.block.state == BlockState::None {
            self.warn(SqlState(*b"25P01"), "there is no transaction in progress");
            self.put_tag("COMMIT");
            return Ok(());
        }
        if self.block.state == BlockState::Failed {
            return self.roll_back_block(chain).await;
        }
        let (begin, one_snapshot) = (self.block.begin.clone(), self.block.one_snapshot);
        self.commit().await?;
        if chain {
            self.block.open(BlockState::Explicit, &begin, Isolation::ReadCommitted);
            self.block.one_snapshot = one_snapshot;
        }
        self.put_tag("COMMIT");
        Ok(())
    }

    /// ROLLBACK of the client's.
    pub(super) async fn roll_back_block(&mut self, chain: bool) -> Result<(), Trouble> {
        if self.block.state == BlockState::None {
            self.warn(SqlState(*b"25P01"), "there is no transaction in progress");
        }
        let (begin, one_snapshot) = (self.block.begin.clone(), self.block.one_snapshot);
        self.roll_back().await?;
        if chain {
            self.block.open(BlockState::Explicit, &begin, Isolation::ReadCommitted);
            self.block.one_snapshot = one_snapshot;
        }
        self.put_tag("ROLLBACK");
        Ok(())
    }

    /// Rolls back on every leg. A leg that does not answer is given up; what it had begun ends with it.
    ///
    /// # Errors
    /// The client's connection ended.
    pub(super) async fn roll_back(&mut self) -> Result<(), Trouble> {
        let begun = self.shards_that(|leg| leg != LegTransaction::Outside);
        self.portals.clear();
        self.sets.roll_back();
        self.end_portals();
        self.names.turn_back(true);
        self.block.state = BlockState::None;
        self.block.changed_schema = false;
        self.end_on(&begun, "ROLLBACK").await
    }

    async fn end_on(&mut self, shards: &[usize], sql: &str) -> Result<(), Trouble> {
        for &shard in shards {
            self.leg(shard).query(sql);
        }
        for &shard in shards {
            match self.finish(shard, false).await {
                Ok(_) => self.leg(shard).transaction = LegTransaction::Outside,
                Err(Trouble::Failed(_)) => drop(self.legs[shard].take()),
                Err(end) => return Err(end),
            }
        }
        Ok(())
    }

    /// Commits what the legs have begun: on all of them, or on none.
    ///
    /// # Errors
    /// It was rolled back, or (08007) what became of it is not known yet.
    pub(super) async fn commit(&mut self) -> Result<(), Trouble> {
        let writers = self.shards_that(|leg| leg == LegTransaction::Writing);
        let outcome = match writers[..] {
            [] => Ok(()),
            [writer] => self.commit_one(writer).await,
            _ => self.commit_several(&writers).await,
        };
        if std::mem::take(&mut self.block.changed_schema) {
            // Also if it failed: whether it did on every shard may not be known.
            self.schema_changed();
        }
        if let Err(trouble) = outcome {
            self.roll_back().await?;
            return Err(trouble);
        }
        let readers = self.shards_that(|leg| leg != LegTransaction::Outside);
        self.portals.clear();
        self.sets.commit();
        self.end_portals();
        self.names.turn_back(true);
        let version = self.sets.version();
        self.block.state = BlockState::None;
        for &shard in readers.iter().chain(&writers) {
            if let Some(leg) = self.legs[shard].as_mut() {
                leg.sets_seen = version;
            }
        }
        self.end_on(&readers, "COMMIT").await
    }

    async fn commit_one(&mut self, writer: usize) -> Result<(), Trouble> {
        self.leg(writer).query("COMMIT");
        let answer = self.finish(writer, false).await?;
        self.leg(writer).transaction = LegTransaction::Outside;
        match answer.check()?.tag.as_str() {
            "ROLLBACK" => Err(rolled_back_instead()),
            _ => Ok(()),
        }
    }

    /// Two-phase commit: see [`crate::twophase`].
    async fn commit_several(&mut self, writers: &[usize]) -> Result<(), Trouble> {
        let (decider, others) = (writers[0], &writers[1..]);
        let hold = self.in_flight.begin(&self.database.name, decider);
        self.database.metrics.two_phase.increment();
        self.may_die(FaultPoint::BeforePrepare, &[]).await?;
        let mut prepared = Vec::new();
        for &shard in others {
            self.leg(shard).query(&format!("PREPARE TRANSACTION '{}'", hold.id.prepared(shard)));
        }
        let mut outcome = Ok(());
        // Whether one may have prepared without a word of it.
        let mut all_ended = true;
        self.may_die(FaultPoint::Preparing, others).await?;
        for &shard in others {
            match self.finish(shard, false).await.and_then(|answer| answer.check()) {
                Ok(answer) if answer.tag == "PREPARE TRANSACTION" => prepared.push(shard),
                Ok(_) => outcome = outcome.and(Err(rolled_back_instead())),
                Err(Trouble::End(end)) => return Err(Trouble::End(end)),
                Err(trouble) => {
                    all_ended &= is_final(&trouble);
                    outcome = outcome.and(Err(before_decision(trouble)));
                }
            }
            if let Some(leg) = self.legs[shard].as_mut() {
                leg.transaction = LegTransaction::Outside;
            }
        }
        self.may_die(FaultPoint::Prepared, &[]).await?;
        if outcome.is_ok() {
            self.leg(decider).query(&record_commit(&hold.id));
            self.may_die(FaultPoint::Deciding, &[decider]).await?;
            let answer = self.finish(decider, false).await;
            outcome = match Decision::read(answer)? {
                Decision::Committed => Ok(()),
                Decision::RolledBack(trouble) => Err(trouble),
                Decision::Unknown => {
                    // It may have been committed: recovery finds out, and ends the others alike.
                    drop(hold);
                    let report = Report::error(
                        SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
                        "the connection was lost while a commit over several shards was decided",
                    );
                    return Err(report
                        .detail("It was committed on all shards, or it will be rolled back on all of them.")
                        .into());
                }
            };
        }
        let verb = if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" };
        if outcome.is_ok() {
            self.leg(decider).transaction = LegTransaction::Outside;
            self.may_die(FaultPoint::Decided, &[]).await?;
        }
        for &shard in &prepared {
            self.leg(shard).query(&format!("{verb} PREPARED '{}'", hold.id.prepared(shard)));
        }
        self.may_die(FaultPoint::Following, &prepared).await?;
        for &shard in &prepared {
            match self.finish(shard, false).await.and_then(|answer| answer.check()) {
                Ok(_) => {}
                Err(Trouble::End(end)) => return Err(Trouble::End(end)),
                // Recovery does it.
                Err(Trouble::Failed(_)) => all_ended = false,
            }
        }
        if all_ended {
            hold.finish();
        }
        outcome
    }

    /// For tests: ends the process here if it was told to, once the requests to these shards have had time to go out.
    async fn may_die(&mut self, point: FaultPoint, shards: &[usize]) -> Result<(), Trouble> {
        if !point.is_chosen() {
            return Ok(());
        }
        for &shard in shards {
            let leg = self.leg(shard);
            std::future::poll_fn(|cx| {
                let _ = leg.poll_move(cx);
                if leg.outbox.is_empty() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
        if !shards.is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        std::process::abort()
    }

    /// SAVEPOINT, RELEASE and ROLLBACK TO, on every leg that has begun.
    pub(super) async fn savepoint(&mut self, sql: &str, step: SavepointStep<'_>) -> Result<(), Trouble> {
        if self.block.state != BlockState::Explicit
            && !matches!((step, self.block.state), (SavepointStep::RollBackTo(_), BlockState::Failed))
        {
            let word = match step {
                SavepointStep::Make(_) => "SAVEPOINT",
                SavepointStep::Release(_) => "RELEASE SAVEPOINT",
                SavepointStep::RollBackTo(_) => "ROLLBACK TO SAVEPOINT",
            };
            return Err(match self.block.state {
                BlockState::Failed => self.in_failed_block(),
                _ => Trouble::error(SqlState(*b"25P01"), format!("{word} can only be used in transaction blocks")),
            });
        }
        let (name, makes, tag) = match step {
            SavepointStep::Make(name) => (name, true, "SAVEPOINT"),
            SavepointStep::Release(name) => (name, false, "RELEASE"),
            SavepointStep::RollBackTo(name) => (name, false, "ROLLBACK"),
        };
        if !makes && !self.sets.has_savepoint(name) {
            return Err(Trouble::error(SqlState(*b"3B001"), format!("savepoint {} does not exist", quote_name(name))));
        }
        self.tell_begun(sql).await?;
        match step {
            SavepointStep::Make(name) => self.sets.savepoint(name),
            SavepointStep::Release(name) => self.sets.release(name),
            SavepointStep::RollBackTo(name) => {
                self.sets.roll_back_to(name);
                self.names.turn_back(false);
                self.block.state = BlockState::Explicit;
            }
        }
        self.put_tag(tag);
        Ok(())
    }

    /// Sends a statement to every leg that has begun, and waits for all the answers, also behind one that failed.
    pub(super) async fn tell_begun(&mut self, sql: &str) -> Result<(), Trouble> {
        let begun = self.shards_that(|leg| leg != LegTransaction::Outside);
        for &shard in &begun {
            self.leg(shard).query(sql);
        }
        let mut outcome = Ok(());
        for &shard in &begun {
            let answer = self.finish(shard, false).await.and_then(|answer| answer.check());
            outcome = outcome.and(answer.map(drop));
        }
        outcome
    }

    pub(super) fn in_failed_block(&self) -> Trouble {
        let message = "current transaction is aborted, commands ignored until end of transaction block";
        Trouble::error(SqlState::IN_FAILED_SQL_TRANSACTION, message)
    }
}

/// What is done with a savepoint.
#[derive(Clone, Copy, Debug)]
pub enum SavepointStep<'a> {
    /// SAVEPOINT.
    Make(&'a str),
    /// RELEASE.
    Release(&'a str),
    /// ROLLBACK TO.
    RollBackTo(&'a str),
}
