//! The switch: clients are held, the source takes no more writes, what is under way arrives, and from then on clients are on the target.
//!
//! The fence is what makes it safe: a trigger on each table that refuses every write, made in a transaction that waits for the writers before it
//! and keeps those after it out, whoever they are and whatever they came through. The record on the source says that it has happened; then
//! each pgyard is told, which writes it down in its own configuration. A switch that was interrupted is gone through again, or taken back.

use super::error::ReshardError;
use super::side::{ShardLink, identifier, literal};
use super::state::{self, FlowName, ReshardPhase};
use super::tables::{self, ReshardTable, sql_name};
use super::worker::ReshardFlow;
use crate::shard::QualifiedName;
use crate::types::Lsn;
use futures_util::future::try_join_all;
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks whether a mark has come through.
const LOOK_INTERVAL: Duration = Duration::from_millis(3);
/// Longest wait for a mark while clients are not held: the worker must be there, and have little to do.
const PROBE_MAX: Duration = Duration::from_secs(30);
/// The worker keeps up if a mark comes through in this time.
const PROBE_GOOD: Duration = Duration::from_millis(300);
/// Longest wait for a slot on a target: it begins behind every transaction that is under way on the server.
const SLOT_MAX: Duration = Duration::from_secs(15);
/// For connections of a worker that has been told to end.
const SLOT_FREE_MAX: Duration = Duration::from_secs(30);

/// The refusal of writes on a source that clients have left.
const FENCE_FUNCTION: &str = "
CREATE OR REPLACE FUNCTION pgyard.moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the rows of this table have moved to database \"%\"', TG_ARGV[0]
    USING ERRCODE = '55000', HINT = 'Connect through pgyard, or run \"pgyard reshard cutover\" once more.';
END $$";

/// Every pgyard whose clients use the database.
pub trait YardControl {
    /// Sees that all of them can be told something.
    fn reach(&self) -> impl Future<Output = Result<(), ReshardError>>;

    /// Holds new transactions back and waits until those under way have ended. The hold ends by itself after `limit`.
    fn hold(&self, database: &str, limit: Duration) -> impl Future<Output = Result<(), ReshardError>>;

    /// Lets clients go on where they were.
    fn resume(&self, database: &str) -> impl Future<Output = Result<(), ReshardError>>;

    /// From now on clients of `database` are served by another one, or by itself again; and nobody is held.
    fn serve_by(&self, database: &str, other: Option<&str>) -> impl Future<Output = Result<(), ReshardError>>;
}

/// What a switch came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchReport {
    /// How long clients were held.
    pub held: Duration,
}

/// Connections of a switch.
struct Switch<'a> {
    flow: &'a ReshardFlow,
    sources: Vec<ShardLink>,
    targets: Vec<ShardLink>,
    tables: Vec<ReshardTable>,
}

/// Moves clients to the target.
///
/// # Errors
/// Something is in the way: clients go on on the source, unless the error says otherwise.
pub async fn cut_over(
    flow: &ReshardFlow,
    yards: &impl YardControl,
    limit: Duration,
    say: &mut dyn FnMut(String),
) -> Result<SwitchReport, ReshardError> {
    let home = flow.home().await?;
    let Some(record) = state::record(&home, &flow.name).await? else {
        return Err(ReshardError::Refused("nothing is under way: begin with `pgyard reshard run`".to_owned()));
    };
    if record.phase == ReshardPhase::Switched {
        say(format!("the rows are on {} already: pgyard is told once more", flow.to.name));
        yards.serve_by(&flow.from.name, Some(&flow.to.name)).await?;
        return Ok(SwitchReport { held: Duration::ZERO });
    }
    if record.phase == ReshardPhase::Copying || !record.verified.starts_with("all ") {
        let message = "not everything was copied and compared yet: `pgyard reshard status` says how far it is";
        return Err(ReshardError::Refused(message.to_owned()));
    }
    yards.reach().await?;
    let switch = Switch::open(flow).await?;
    switch.prepare_way_back(&home).await?;
    switch.probe().await?;
    let began = Instant::now();
    yards.hold(&flow.from.name, limit).await?;
    match switch.fence_and_drain(&home, began + limit / 2).await {
        Ok(()) => {}
        Err(error) => {
            // What is in the way of taking it back is less than what has been.
            let lifted = lift_fence(&switch.sources, &flow.name).await;
            let resumed = yards.resume(&flow.from.name).await;
            lifted.and(resumed)?;
            return Err(error);
        }
    }
    yards.serve_by(&flow.from.name, Some(&flow.to.name)).await.map_err(|error| {
        ReshardError::Refused(format!(
            "{error}\nThe rows are on {} now, and {} takes no writes: run `pgyard reshard cutover` once more",
            flow.to.name, flow.from.name
        ))
    })?;
    Ok(SwitchReport { held: began.elapsed() })
}

impl<'a> Switch<'a> {
    async fn open(flow: &'a ReshardFlow) -> Result<Switch<'a>, ReshardError> {
        let (sources, targets) = (flow.from.connect().await?, flow.to.connect().await?);
        let tables = tables::plan((&flow.from, &sources), (&flow.to, &targets)).await?;
        Ok(Switch { flow, sources, targets, tables })
    }

    /// Slots on the targets, so that no change after the switch is lost on the way back.
    async fn prepare_way_back(&self, home: &ShardLink) -> Result<(), ReshardError> {
        let back = self.flow.reverse();
        let tables = tables::plan((&back.from, &self.targets), (&back.to, &self.sources)).await?;
        state::prepare(&self.targets, &self.sources, home).await?;
        for source in &self.sources {
            source.execute(FENCE_FUNCTION).await?;
        }
        for (shard, target) in self.targets.iter().enumerate() {
            state::open_slot(target, &back.name, (shard, Some(SLOT_MAX)), &tables).await?;
        }
        Ok(())
    }

    /// Waits until a mark comes through quickly.
    async fn probe(&self) -> Result<(), ReshardError> {
        let end = Instant::now() + PROBE_MAX;
        loop {
            let (mark, began) = (new_mark(), Instant::now());
            let statement = mark_statement(&self.flow.name, &mark);
            try_join_all(self.sources.iter().map(|source| source.execute(&statement))).await?;
            if !self.arrived(&mark, end).await? {
                let message = "changes do not come through: is `pgyard reshard run` at work?";
                return Err(ReshardError::Refused(format!("{message} ({} waits for it)", self.flow.to.name)));
            }
            if began.elapsed() <= PROBE_GOOD || Instant::now() >= end {
                return Ok(());
            }
        }
    }

    /// Whether a mark has come from every source shard to every target before `end`.
    async fn arrived(&self, mark: &str, end: Instant) -> Result<bool, ReshardError> {
        loop {
            let all = try_join_all(self.targets.iter().map(|target| state::progress(target, &self.flow.name))).await?;
            let there = |shard: usize| all.iter().all(|known| known.get(&shard).is_some_and(|known| known.mark == mark));
            if (0..self.sources.len()).all(there) {
                return Ok(true);
            }
            if Instant::now() >= end {
                return Ok(false);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Keeps writers out of the source, waits until the targets have everything, and notes that they are the ones from now on.
    async fn fence_and_drain(&self, home: &ShardLink, end: Instant) -> Result<(), ReshardError> {
        self.fence_all(end).await?;
        self.note_way_back().await?;
        if Instant::now() >= end {
            return Err(ReshardError::Refused("it took too long; clients go on as before".to_owned()));
        }
        state::set_phase(home, &self.flow.name, ReshardPhase::Switched).await
    }

    /// Keeps writers out of the source and waits until the targets have everything.
    async fn fence_all(&self, end: Instant) -> Result<(), ReshardError> {
        let mark = new_mark();
        let fences = self.sources.iter().enumerate().map(|(shard, source)| self.fence(source, shard, &mark));
        try_join_all(fences).await?;
        if !self.arrived(&mark, end).await? {
            return Err(ReshardError::Refused("the last changes did not arrive in time; clients go on as before".to_owned()));
        }
        set_sequences(&self.sources, &self.targets).await
    }

    async fn fence(&self, source: &ShardLink, shard: usize, mark: &str) -> Result<(), ReshardError> {
        let mut sql = "BEGIN; SET LOCAL lock_timeout = '500ms'; SET LOCAL synchronous_commit = on".to_owned();
        for table in self.tables.iter().filter(|table| on_shard(table, shard, self.flow)) {
            let (trigger, table) = (identifier(&self.flow.name.fence()), table.sql_name());
            let to = literal(&self.flow.to.name);
            sql.push_str(&format!(
                "; CREATE OR REPLACE TRIGGER {trigger} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table} \
                 FOR EACH STATEMENT EXECUTE FUNCTION pgyard.moved({to})"
            ));
        }
        sql.push_str(&format!("; {}; COMMIT", mark_statement(&self.flow.name, mark)));
        if let Err(error) = source.execute(&sql).await {
            source.execute("ROLLBACK").await?;
            return Err(error);
        }
        Ok(())
    }

    /// What the targets have written so far came from the source: the way back begins behind it.
    async fn note_way_back(&self) -> Result<(), ReshardError> {
        let back = self.flow.name.reverse();
        let query = "SELECT pg_catalog.pg_current_wal_insert_lsn()";
        let ends = try_join_all(self.targets.iter().map(|target| target.value(query))).await?;
        let mut sql = Vec::new();
        for (shard, end) in ends.into_iter().enumerate() {
            let end: Option<Lsn> = end.and_then(|end| end.parse().ok());
            let end = end.ok_or_else(|| ReshardError::Refused("a target does not say where its log ends".to_owned()))?;
            sql.push(state::progress_statement(&back, shard, end, None));
        }
        let sql = sql.join("; ");
        try_join_all(self.sources.iter().map(|source| source.execute(&sql))).await.map(drop)
    }
}

/// Whether a shard of the source has the table's rows; a reference table is on all of them.
fn on_shard(table: &ReshardTable, shard: usize, flow: &ReshardFlow) -> bool {
    use crate::shard::TablePlace;
    match flow.from.map.place(&table.name) {
        Some(TablePlace::Single(only)) => *only == shard,
        _ => true,
    }
}

fn new_mark() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn mark_statement(flow: &FlowName, mark: &str) -> String {
    format!("INSERT INTO pgyard.reshard_marks (flow, mark) VALUES ({}, {})", flow.literal(), literal(mark))
}

/// Lets writers into the source again. Only what is there is dropped, since that keeps everybody out for a moment.
async fn lift_fence(sources: &[ShardLink], flow: &FlowName) -> Result<(), ReshardError> {
    let query = format!(
        "SELECT pg_catalog.format('DROP TRIGGER %I ON %I.%I', t.tgname, n.nspname, c.relname) FROM pg_catalog.pg_trigger t \
         JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE t.tgname = {} AND t.tgparentid = 0",
        literal(&flow.fence())
    );
    let lift = async |source: &ShardLink| {
        let statements: Vec<String> = source.rows(&query).await?.into_iter().flatten().flatten().collect();
        source.execute(&statements.join("; ")).await
    };
    try_join_all(sources.iter().map(lift)).await.map(drop)
}

/// Sequences of the targets go on behind every value that the source has given.
async fn set_sequences(sources: &[ShardLink], targets: &[ShardLink]) -> Result<(), ReshardError> {
    const SEQUENCES: &str =
        "SELECT schemaname, sequencename, coalesce(last_value, start_value - increment_by), start_value, increment_by
        FROM pg_catalog.pg_sequences WHERE schemaname <> 'pgyard'";
    let read = async |link: &ShardLink| -> Result<Vec<(QualifiedName, [i64; 3])>, ReshardError> {
        let row = |row: Vec<Option<String>>| {
            let text = |place: usize| row.get(place).cloned().flatten().unwrap_or_default();
            let number = |place: usize| text(place).parse().ok();
            Some((QualifiedName { schema: text(0), name: text(1) }, [number(2)?, number(3)?, number(4)?]))
        };
        Ok(link.rows(SEQUENCES).await?.into_iter().filter_map(row).collect())
    };
    let given: Vec<_> = try_join_all(sources.iter().map(read)).await?.into_iter().flatten().collect();
    let set = async |target: &ShardLink| -> Result<(), ReshardError> {
        let mut statements = Vec::new();
        for (name, [own, start, increment]) in read(target).await? {
            let last = given.iter().filter(|(other, _)| *other == name).map(|(_, [last, ..])| *last);
            let last = if increment < 0 { last.min() } else { last.max() };
            if let Some(next) = last.and_then(|last| next_value(last, own, (start, increment))) {
                let name = literal(&sql_name(&name));
                statements.push(format!("SELECT pg_catalog.setval({name}, {next}, false)"));
            }
        }
        target.execute(&statements.join("; ")).await
    };
    try_join_all(targets.iter().map(set)).await.map(drop)
}

/// The first value of a target's sequence behind `last`; `None`: it is behind it already. Shards may give every n-th value, each its own.
fn next_value(last: i64, own: i64, (start, increment): (i64, i64)) -> Option<i64> {
    if increment == 0 || (increment > 0 && own >= last) || (increment < 0 && own <= last) {
        return None;
    }
    let steps = last.checked_sub(start)?.div_euclid(increment);
    let next = start.checked_add(increment.checked_mul(steps)?)?;
    if (increment > 0 && next > last) || (increment < 0 && next < last) { Some(next) } else { next.checked_add(increment) }
}

/// Takes the whole back: before the switch what was copied is dropped; after it clients return to the source first, with all that they have
/// written since.
///
/// # Errors
/// Something is in the way; it can be tried again.
pub async fn roll_back(
    flow: &ReshardFlow,
    yards: &impl YardControl,
    limit: Duration,
    say: &mut dyn FnMut(String),
) -> Result<(), ReshardError> {
    let home = flow.home().await?;
    let record = state::record(&home, &flow.name).await?;
    let (sources, targets) = (flow.from.connect().await?, flow.to.connect().await?);
    state::prepare(&sources, &targets, &home).await?;
    state::prepare(&targets, &sources, &home).await?;
    let tables = tables::plan((&flow.from, &sources), (&flow.to, &targets)).await?;
    if record.is_some_and(|record| record.phase == ReshardPhase::Switched) {
        let back = flow.reverse();
        yards.reach().await?;
        let switch = Switch::open(&back).await?;
        for target in &targets {
            target.execute(FENCE_FUNCTION).await?;
        }
        switch.probe().await?;
        let began = Instant::now();
        yards.hold(&flow.from.name, limit).await?;
        let returned = switch.fence_back(&sources, &flow.name, began + limit / 2).await;
        if let Err(error) = returned {
            let lifted = lift_fence(&targets, &back.name).await;
            let resumed = yards.resume(&flow.from.name).await;
            lifted.and(resumed)?;
            return Err(error);
        }
        yards.serve_by(&flow.from.name, None).await?;
        say(format!("clients are on {} again; they were held for {} ms", flow.from.name, began.elapsed().as_millis()));
    } else {
        lift_fence(&sources, &flow.name).await?;
    }
    forget(flow, (&sources, &targets), &home).await?;
    lift_fence(&targets, &flow.name.reverse()).await?;
    let names: Vec<String> = tables.iter().map(ReshardTable::sql_name).collect();
    for target in targets.iter().filter(|_| !names.is_empty()) {
        let ours = format!("SELECT EXISTS (SELECT FROM pgyard.reshard_copied WHERE flow = {})", flow.name.literal());
        if target.value(&ours).await?.as_deref() == Some("t") {
            target.execute(&format!("TRUNCATE {}", names.join(", "))).await?;
        }
    }
    state::forget(&sources, &targets, &flow.name).await?;
    state::forget(&targets, &sources, &flow.name.reverse()).await?;
    say(format!("{} is as if nothing had been begun; the tables of {} are empty", flow.from.name, flow.to.name));
    Ok(())
}

impl Switch<'_> {
    /// On the way back: the new shards take no more writes, the old ones have everything, and take writes again.
    async fn fence_back(&self, old: &[ShardLink], flow: &FlowName, end: Instant) -> Result<(), ReshardError> {
        self.fence_all(end).await?;
        lift_fence(old, flow).await
    }
}

/// Ends the work for good: the new shards stay, and there is no way back any more.
///
/// # Errors
/// Clients have not been switched, or a server refuses something.
pub async fn finish(flow: &ReshardFlow, say: &mut dyn FnMut(String)) -> Result<(), ReshardError> {
    let home = flow.home().await?;
    let record = state::record(&home, &flow.name).await?;
    if record.is_none_or(|record| record.phase != ReshardPhase::Switched) {
        let message = "clients are not on the new shards: `pgyard reshard cutover` comes first";
        return Err(ReshardError::Refused(message.to_owned()));
    }
    let (sources, targets) = (flow.from.connect().await?, flow.to.connect().await?);
    forget(flow, (&sources, &targets), &home).await?;
    state::forget(&sources, &targets, &flow.name).await?;
    state::forget(&targets, &sources, &flow.name.reverse()).await?;
    say(format!(
        "{} has all rows for good; what is left of them on {} takes no writes and can be removed",
        flow.to.name, flow.from.name
    ));
    Ok(())
}

/// Whether a worker is at work.
///
/// # Errors
/// The server can't be asked.
pub async fn has_worker(home: &ShardLink, flow: &FlowName) -> Result<bool, ReshardError> {
    let key = super::worker::lock_key(flow);
    let query = format!(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 \
         AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
         AND ((classid::pg_catalog.int8 << 32) | objid::pg_catalog.int8) = {key})"
    );
    Ok(home.value(&query).await?.as_deref() == Some("t"))
}

/// Tells the worker that it is over, and takes slots and publications of both ways.
async fn forget(
    flow: &ReshardFlow,
    (sources, targets): (&[ShardLink], &[ShardLink]),
    home: &ShardLink,
) -> Result<(), ReshardError> {
    home.execute(&format!("DELETE FROM pgyard.reshard WHERE flow = {}", flow.name.literal())).await?;
    for (links, name) in [(sources, &flow.name), (targets, &flow.name.reverse())] {
        wait_for_slots(links, name).await?;
        state::close_slots(links, name).await?;
    }
    Ok(())
}

/// Waits until no worker reads from the slots any more.
async fn wait_for_slots(links: &[ShardLink], flow: &FlowName) -> Result<(), ReshardError> {
    let end = Instant::now() + SLOT_FREE_MAX;
    for (shard, link) in links.iter().enumerate() {
        let slot = literal(&flow.slot(shard));
        let query = format!("SELECT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = {slot} AND active)");
        while link.value(&query).await?.as_deref() == Some("t") {
            if Instant::now() >= end {
                return Err(ReshardError::Refused(format!("{}: the slot {slot} is in use: end what reads it", link.shard)));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_go_on_behind_what_was_given() {
        let check = |last, own, progression, expect| {
            assert_eq!(next_value(last, own, progression), expect, "{last} {own} {progression:?}");
        };
        check(10, 0, (1, 1), Some(11));
        check(10, 10, (1, 1), None);
        check(10, 40, (1, 1), None);
        check(0, 0, (1, 1), None);
        // Three shards, each with every third value.
        check(10, -2, (1, 3), Some(13));
        check(10, -1, (2, 3), Some(11));
        check(10, 0, (3, 3), Some(12));
        check(-10, 0, (-1, -1), Some(-11));
        check(-10, 0, (-1, -3), Some(-13));
        check(i64::MAX, 0, (1, 1), None);
    }
}
