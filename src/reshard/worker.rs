//! The whole of a flow, from the first check to its end: what `pgyard reshard run` does. Whatever ends it, it can be run again.

use super::apply::{Applier, ApplierStart};
use super::copy;
use super::error::ReshardError;
use super::side::{ReshardSide, ShardLink, literal};
use super::state::{self, FlowName, ReshardPhase, ReshardRecord};
use super::tables::{self, ReshardTable};
use super::verify::{Comparison, ComparisonReport};
use crate::config::{Settings, format_size};
use crate::types::Lsn;
use futures_util::future::try_join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often the worker looks at what others want.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);
/// How often it says how far it is.
const SAY_INTERVAL: Duration = Duration::from_secs(5);

/// From one sharded database to another.
#[derive(Clone, Debug)]
pub struct ReshardFlow {
    /// What it is called on the servers.
    pub name: FlowName,
    /// Where rows come from.
    pub from: ReshardSide,
    /// Where they go.
    pub to: ReshardSide,
}

impl ReshardFlow {
    /// Between two databases of the configuration.
    ///
    /// # Errors
    /// One of them is none, or not sharded; or they are the same.
    pub fn new(settings: &Settings, from: &str, to: &str) -> Result<ReshardFlow, ReshardError> {
        if from == to {
            return Err(ReshardError::Refused("the source and the target are the same database".to_owned()));
        }
        let (from, to) = (ReshardSide::of(settings, from)?, ReshardSide::of(settings, to)?);
        Ok(ReshardFlow { name: FlowName::new(&from.name, &to.name), from, to })
    }

    /// The way back.
    pub fn reverse(&self) -> ReshardFlow {
        ReshardFlow { name: self.name.reverse(), from: self.to.clone(), to: self.from.clone() }
    }

    /// A connection to the server that keeps the record of the whole.
    ///
    /// # Errors
    /// It can't be reached.
    pub async fn home(&self) -> Result<ShardLink, ReshardError> {
        match self.from.shards.first() {
            Some(first) => first.connect().await,
            None => Err(ReshardError::Refused(format!("database {} has no shards", self.from.name))),
        }
    }
}

/// Carries a flow out.
pub struct ReshardWorker<'a> {
    flow: ReshardFlow,
    home: ShardLink,
    say: &'a mut dyn FnMut(String),
}

/// Appliers of all source shards, and what they apply.
struct Following {
    flow: ReshardFlow,
    tables: Vec<ReshardTable>,
    appliers: Vec<Applier>,
    sources: Vec<ShardLink>,
}

impl<'a> ReshardWorker<'a> {
    /// Becomes the one worker of a flow.
    ///
    /// # Errors
    /// There is another one, or the source can't be reached.
    pub async fn new(flow: ReshardFlow, say: &'a mut dyn FnMut(String)) -> Result<ReshardWorker<'a>, ReshardError> {
        let home = flow.home().await?;
        let lock = format!("SELECT pg_catalog.pg_try_advisory_lock({})", lock_key(&flow.name));
        if home.value(&lock).await?.as_deref() != Some("t") {
            return Err(ReshardError::Refused("another `pgyard reshard run` is at work on these databases".to_owned()));
        }
        Ok(ReshardWorker { flow, home, say })
    }

    /// Works until the flow is finished or taken back.
    ///
    /// # Errors
    /// Something is in the way. What was done until then stays, and the work can be taken up again.
    pub async fn run(mut self) -> Result<(), ReshardError> {
        let record = state::record(&self.home, &self.flow.name).await?;
        if record.as_ref().is_none_or(|record| record.phase != ReshardPhase::Switched) {
            let mut following = self.copy(record.as_ref()).await?;
            self.catch_up(&mut following).await?;
            state::set_phase(&self.home, &self.flow.name, ReshardPhase::Following).await?;
            if record.is_none_or(|record| record.verified.is_empty()) {
                self.verify(&mut following).await?;
            }
            if !self.follow(following, ReshardPhase::Following).await? {
                return Ok(());
            }
        }
        let back = self.flow.reverse();
        (self.say)(format!("clients are on {}; changes follow to {}", self.flow.to.name, self.flow.from.name));
        let (sources, targets) = (back.from.connect().await?, back.to.connect().await?);
        let tables = tables::plan((&back.from, &sources), (&back.to, &targets)).await?;
        let following = open(&back, tables, sources, &targets, false).await?;
        self.follow(following, ReshardPhase::Switched).await.map(drop)
    }

    /// Copies what is missing, and opens the streams behind it.
    async fn copy(&mut self, record: Option<&ReshardRecord>) -> Result<Following, ReshardError> {
        let flow = self.flow.clone();
        let (sources, targets) = (flow.from.connect().await?, flow.to.connect().await?);
        check_servers(&sources, &targets).await?;
        let tables = tables::plan((&flow.from, &sources), (&flow.to, &targets)).await?;
        if tables.is_empty() {
            return Err(ReshardError::Refused(format!("{} has no tables", flow.from.name)));
        }
        state::prepare(&sources, &targets, &self.home).await?;
        for (shard, source) in sources.iter().enumerate() {
            let lost = record.is_some() && state::slot_position(source, &flow.name.slot(shard)).await?.is_none();
            if lost {
                return Err(ReshardError::Refused(format!(
                    "{}: the slot {} is gone, and with it changes: `pgyard reshard rollback`, then begin again",
                    source.shard,
                    flow.name.slot(shard)
                )));
            }
        }
        if record.is_none() {
            must_be_empty(&targets, &tables).await?;
            // What is left of a beginning that was not noted yet.
            state::close_slots(&sources, &flow.name).await?;
            (self.say)(format!("{} tables from {} to {}", tables.len(), state::shown(&flow.from), state::shown(&flow.to)));
        } else {
            (self.say)(format!("taking up the work from {} to {}", state::shown(&flow.from), state::shown(&flow.to)));
        }
        for target in &targets {
            super::apply::quieten(target).await?;
        }
        for (shard, source) in sources.iter().enumerate() {
            (self.say)(format!("{}: beginning behind the transactions that are under way", source.shard));
            state::open_slot(source, &flow.name, (shard, None), &tables).await?;
        }
        if record.is_none() {
            state::set_phase(&self.home, &flow.name, ReshardPhase::Copying).await?;
        }
        for shard in 0..sources.len() {
            self.copy_shard(shard, &tables, &targets).await?;
        }
        open(&flow, tables, sources, &targets, true).await
    }

    async fn copy_shard(&mut self, shard: usize, tables: &[ReshardTable], targets: &[ShardLink]) -> Result<(), ReshardError> {
        let missing = copy::missing(targets, &self.flow.name, shard, tables).await?;
        let Some(end) = self.flow.from.shards.get(shard).filter(|_| !missing.is_empty()) else { return Ok(()) };
        let mut stream = end.replicate().await?;
        let slot: String = self.flow.name.slot(shard).chars().take(50).collect();
        let snapshot = stream.snapshot(&format!("{slot}c{shard}")).await?;
        let source = end.connect().await?;
        copy::enter_snapshot(&source, &snapshot).await?;
        let all = missing.len();
        for (number, (place, lacking)) in missing.into_iter().enumerate() {
            let (table, began) = (&tables[place], Instant::now());
            let of = (&self.flow.name, &snapshot);
            let count = copy::copy_table((&source, shard), (targets, lacking), table, of).await?;
            (self.say)(format!(
                "copied {} from {} ({} of {all}): {} rows, {} in {:.1} s",
                table.sql_name(),
                source.shard,
                number + 1,
                count.rows,
                format_size(count.bytes),
                began.elapsed().as_secs_f64()
            ));
        }
        Ok(())
    }

    /// Applies all that has come about while rows were copied.
    async fn catch_up(&mut self, following: &mut Following) -> Result<(), ReshardError> {
        let barriers = following.source_positions().await?;
        let mut said = Instant::now();
        while !following.pump(Some(&barriers), Instant::now() + LOOK_INTERVAL).await? {
            if said.elapsed() >= SAY_INTERVAL {
                said = Instant::now();
                (self.say)(format!("catching up: {} behind", format_size(following.lag(&barriers))));
            }
        }
        Ok(())
    }

    async fn verify(&mut self, following: &mut Following) -> Result<(), ReshardError> {
        (self.say)("comparing all rows of both sides".to_owned());
        let mut comparison = Comparison::begin(&self.flow.name, &self.flow.from).await?;
        let barriers: Vec<Lsn> =
            (0..following.appliers.len()).map(|shard| comparison.barrier(shard).unwrap_or_default()).collect();
        while !following.pump(Some(&barriers), Instant::now() + LOOK_INTERVAL).await? {}
        comparison.enter_targets(&self.flow.to).await?;
        let report = following.compare(&comparison).await?;
        (self.say)(report.to_string());
        let (verified, name) = (literal(&report.to_string()), self.flow.name.literal());
        self.home
            .execute(&format!("UPDATE pgyard.reshard SET verified = {verified}, verify_wanted = false WHERE flow = {name}"))
            .await
    }

    /// Applies changes as they come, as long as the flow is in this phase. Answers whether there is another one.
    async fn follow(&mut self, mut following: Following, phase: ReshardPhase) -> Result<bool, ReshardError> {
        (self.say)(format!("following {}", following.flow.from.name));
        let mut said = Instant::now();
        loop {
            following.pump(None, Instant::now() + LOOK_INTERVAL).await?;
            let Some(record) = state::record(&self.home, &self.flow.name).await? else {
                (self.say)("the work is done".to_owned());
                return Ok(false);
            };
            if record.phase != phase {
                return Ok(true);
            }
            if record.verify_wanted && phase == ReshardPhase::Following {
                self.verify(&mut following).await?;
            }
            if said.elapsed() >= SAY_INTERVAL {
                said = Instant::now();
                let lag = following.lag(&following.source_positions().await?);
                let changes: u64 = following.appliers.iter().map(|applier| applier.changes).sum();
                (self.say)(format!("following: {} behind, {changes} changes applied", format_size(lag)));
            }
        }
    }
}

impl Following {
    /// Pumps all source shards, each up to its barrier if there are any. Answers whether all of them are there.
    async fn pump(&mut self, barriers: Option<&[Lsn]>, deadline: Instant) -> Result<bool, ReshardError> {
        let all = self.appliers.iter_mut().enumerate().map(|(shard, applier)| {
            let barrier = barriers.and_then(|barriers| barriers.get(shard)).copied();
            applier.pump(barrier, deadline)
        });
        Ok(try_join_all(all).await?.into_iter().all(|reached| reached))
    }

    /// Goes on while both sides are compared as they were.
    async fn compare(&mut self, comparison: &Comparison) -> Result<ComparisonReport, ReshardError> {
        let tables = self.tables.clone();
        let mut comparing = std::pin::pin!(comparison.compare(&tables));
        loop {
            // A batch is never left half sent: the pumping is not dropped, it ends by itself.
            let pumping = self.pump(None, Instant::now() + LOOK_INTERVAL);
            let (pumped, compared) = futures_util::join!(pumping, tokio::time::timeout(LOOK_INTERVAL, &mut comparing));
            pumped?;
            if let Ok(report) = compared {
                return report;
            }
        }
    }

    /// Where each source shard's log ends now.
    async fn source_positions(&self) -> Result<Vec<Lsn>, ReshardError> {
        try_join_all(self.sources.iter().map(position)).await
    }

    /// How far the targets are behind these positions. Bytes.
    fn lag(&self, positions: &[Lsn]) -> u64 {
        let behind = |(applier, now): (&Applier, &Lsn)| now.bytes_since(applier.position());
        self.appliers.iter().zip(positions).map(behind).sum()
    }
}

/// Opens the streams of all source shards, where the targets are.
async fn open(
    flow: &ReshardFlow,
    tables: Vec<ReshardTable>,
    sources: Vec<ShardLink>,
    targets: &[ShardLink],
    was_copied: bool,
) -> Result<Following, ReshardError> {
    let mut appliers = Vec::new();
    for (shard, end) in flow.from.shards.iter().enumerate() {
        let (mut progress, mut known) = (Vec::new(), Vec::new());
        for target in targets {
            progress.push(state::progress(target, &flow.name).await?.remove(&shard).unwrap_or_default());
            known.push(state::copied(target, &flow.name, shard).await?);
        }
        let from = |table: &ReshardTable| -> Vec<Lsn> {
            let position = |known: &std::collections::HashMap<String, Lsn>| match known.get(&table.sql_name()) {
                Some(position) => *position,
                // What a target has not got from this shard does not go there; without a copy everything does.
                None if was_copied => Lsn(u64::MAX),
                None => Lsn::default(),
            };
            known.iter().map(position).collect()
        };
        let own = tables.iter().filter(|table| table.from.contains(shard));
        let own = own.map(|table| (Arc::new(table.clone()), from(table))).collect();
        let mut stream = end.replicate().await?;
        let slot = flow.name.slot(shard);
        let confirmed = state::slot_position(&sources[shard], &slot).await?.unwrap_or_default();
        stream.start(&slot, confirmed, &flow.name.publication()).await?;
        appliers.push(
            Applier::new(ApplierStart {
                flow: flow.name.clone(),
                shard,
                stream,
                position: confirmed,
                targets: flow.to.connect().await?,
                progress,
                tables: own,
            })
            .await?,
        );
    }
    Ok(Following { flow: flow.clone(), tables, appliers, sources })
}

/// Where a server's log ends now.
///
/// # Errors
/// It can't be asked.
pub async fn position(link: &ShardLink) -> Result<Lsn, ReshardError> {
    let found = link.value("SELECT pg_catalog.pg_current_wal_flush_lsn()").await?;
    let parsed = found.and_then(|lsn| lsn.parse().ok());
    parsed.ok_or_else(|| ReshardError::Refused(format!("{}: the server does not say where its log ends", link.shard)))
}

/// The key of the advisory lock that a worker has.
pub(super) fn lock_key(flow: &FlowName) -> String {
    format!("pg_catalog.hashtextextended({}, 8098724219)", literal(&format!("pgyard reshard {flow}")))
}

/// Settings of the servers that nothing can go without.
async fn check_servers(sources: &[ShardLink], targets: &[ShardLink]) -> Result<(), ReshardError> {
    let mut problems = Vec::new();
    // On the targets for the way back.
    for link in sources.iter().chain(targets) {
        if link.value("SHOW wal_level").await?.as_deref() != Some("logical") {
            problems.push(format!("{}: wal_level must be logical: set it and restart the server", link.shard));
        }
        let encoding = link.value("SHOW server_encoding").await?.unwrap_or_default();
        if encoding != "UTF8" {
            problems.push(format!("{}: the database is in {encoding}; it must be in UTF8", link.shard));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(ReshardError::Refused(problems.join("\n"))) }
}

/// Rows that are there already would not be told from those that come.
async fn must_be_empty(targets: &[ShardLink], tables: &[ReshardTable]) -> Result<(), ReshardError> {
    let mut problems = Vec::new();
    for target in targets {
        for table in tables {
            let query = format!("SELECT EXISTS (SELECT FROM {})", table.sql_name());
            if target.value(&query).await?.as_deref() == Some("t") {
                problems.push(format!("{}: table {} has rows", target.shard, table.sql_name()));
            }
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(ReshardError::Refused(format!("the tables of the target must be empty at the beginning\n{}", problems.join("\n"))))
}
