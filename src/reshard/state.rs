//! What is noted on the servers, all of it in the schema `pgyard`: how far a flow is, and marks that pass through it.

use super::error::ReshardError;
use super::side::{ReshardSide, ShardLink, identifier, literal};
use super::tables::ReshardTable;
use crate::types::Lsn;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

/// Longest name of a slot that PostgreSQL takes.
const SLOT_NAME_MAX: usize = 63;

/// On every server that a flow comes to.
const TARGET_TABLES: &str = "
SET client_min_messages = warning;
CREATE SCHEMA IF NOT EXISTS pgyard;
CREATE TABLE IF NOT EXISTS pgyard.reshard_progress (
  flow text, shard int, lsn pg_catalog.pg_lsn NOT NULL, mark text NOT NULL DEFAULT '', PRIMARY KEY (flow, shard));
CREATE TABLE IF NOT EXISTS pgyard.reshard_copied (
  flow text, shard int, relation text, lsn pg_catalog.pg_lsn NOT NULL, PRIMARY KEY (flow, shard, relation))";

/// On every server that a flow comes from.
const SOURCE_TABLES: &str = "
SET client_min_messages = warning;
CREATE SCHEMA IF NOT EXISTS pgyard;
CREATE TABLE IF NOT EXISTS pgyard.reshard_marks (flow text, mark text, PRIMARY KEY (flow, mark))";

/// On the first shard that the rows come from.
const HOME_TABLES: &str = "
SET client_min_messages = warning;
CREATE SCHEMA IF NOT EXISTS pgyard;
CREATE TABLE IF NOT EXISTS pgyard.reshard (
  flow text PRIMARY KEY, phase text NOT NULL, verified text NOT NULL DEFAULT '', verify_wanted boolean NOT NULL DEFAULT false)";

/// What a flow is called on the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowName {
    from: String,
    to: String,
}

/// How far the whole is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReshardPhase {
    /// Rows are copied.
    Copying,
    /// Everything was copied, and changes follow.
    Following,
    /// Clients are on the new shards, and changes follow the other way.
    Switched,
}

impl ReshardPhase {
    const ALL: [(ReshardPhase, &'static str); 3] =
        [(ReshardPhase::Copying, "copying"), (ReshardPhase::Following, "following"), (ReshardPhase::Switched, "switched")];
}

impl fmt::Display for ReshardPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL.iter().find(|(phase, _)| phase == self).map_or("", |(_, name)| name))
    }
}

/// What the first shard of the source says of the whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReshardRecord {
    /// How far it is.
    pub phase: ReshardPhase,
    /// What the last comparison of all rows said; empty before the first.
    pub verified: String,
    /// Somebody wants another comparison.
    pub verify_wanted: bool,
}

/// How far one target is with the changes of one source shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardProgress {
    /// The commit record of the last transaction that is there.
    pub applied: Lsn,
    /// The last mark that came by.
    pub mark: String,
}

impl FlowName {
    /// The flow from one database to another.
    pub fn new(from: &str, to: &str) -> FlowName {
        FlowName { from: from.to_owned(), to: to.to_owned() }
    }

    /// The flow that leads back.
    pub fn reverse(&self) -> FlowName {
        FlowName { from: self.to.clone(), to: self.from.clone() }
    }

    /// The publication on each source shard.
    pub fn publication(&self) -> String {
        format!("pgyard_{}_to_{}", self.from, self.to)
    }

    /// The slot on a source shard: slots share one set of names on a server, whatever their databases.
    pub fn slot(&self, shard: usize) -> String {
        let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' };
        let name: String = format!("{}_to_{}", self.from, self.to).to_ascii_lowercase().chars().map(plain).collect();
        let (head, tail) = ("pgyard_", format!("_s{shard}"));
        let room = SLOT_NAME_MAX - head.len() - tail.len();
        format!("{head}{}{tail}", &name[..name.len().min(room)])
    }

    /// The name of the trigger that keeps writers out of a source that clients have left.
    pub fn fence(&self) -> String {
        format!("pgyard_moved_to_{}", self.to)
    }

    pub(super) fn literal(&self) -> String {
        literal(&self.to_string())
    }
}

impl fmt::Display for FlowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.from, self.to)
    }
}

/// Reads what is noted of the whole.
///
/// # Errors
/// The server can't be asked.
pub async fn record(home: &ShardLink, flow: &FlowName) -> Result<Option<ReshardRecord>, ReshardError> {
    if home.value("SELECT pg_catalog.to_regclass('pgyard.reshard')").await?.is_none() {
        return Ok(None);
    }
    let rows =
        home.rows(&format!("SELECT phase, verified, verify_wanted FROM pgyard.reshard WHERE flow = {}", flow.literal())).await?;
    let Some(row) = rows.into_iter().next() else { return Ok(None) };
    let text = |place: usize| row.get(place).cloned().flatten().unwrap_or_default();
    let phase = ReshardPhase::ALL.iter().find(|(_, name)| *name == text(0)).map(|(phase, _)| *phase);
    let phase = phase.ok_or_else(|| ReshardError::Refused(format!("{}: pgyard.reshard says \"{}\"", home.shard, text(0))))?;
    Ok(Some(ReshardRecord { phase, verified: text(1), verify_wanted: text(2) == "t" }))
}

/// Makes the tables that a flow needs on both sides.
///
/// # Errors
/// A server refuses it.
pub async fn prepare(sources: &[ShardLink], targets: &[ShardLink], home: &ShardLink) -> Result<(), ReshardError> {
    for source in sources {
        source.execute(SOURCE_TABLES).await?;
    }
    for target in targets {
        target.execute(TARGET_TABLES).await?;
    }
    home.execute(HOME_TABLES).await
}

/// Notes the phase.
///
/// # Errors
/// The server refuses it.
pub async fn set_phase(home: &ShardLink, flow: &FlowName, phase: ReshardPhase) -> Result<(), ReshardError> {
    home.execute(&phase_statement(flow, phase)).await
}

/// The statement that notes the phase, durably.
pub fn phase_statement(flow: &FlowName, phase: ReshardPhase) -> String {
    let (flow, phase) = (flow.literal(), literal(&phase.to_string()));
    format!("INSERT INTO pgyard.reshard (flow, phase) VALUES ({flow}, {phase}) ON CONFLICT (flow) DO UPDATE SET phase = {phase}")
}

/// Makes the publication and the slot of a source shard, unless they are there. Answers up to where the slot was confirmed.
///
/// A slot begins behind every transaction that is under way on its server, in whatever database, and waits for them: for `limit` at most.
///
/// # Errors
/// The server refuses it, or a transaction does not end.
pub async fn open_slot(
    source: &ShardLink,
    flow: &FlowName,
    (shard, limit): (usize, Option<Duration>),
    tables: &[ReshardTable],
) -> Result<Lsn, ReshardError> {
    let (publication, slot) = (flow.publication(), flow.slot(shard));
    if let Some(lsn) = slot_position(source, &slot).await? {
        return Ok(lsn);
    }
    // The publication has to be there before the slot: the stream is read as of then.
    let own = tables.iter().filter(|table| table.from.contains(shard)).map(ReshardTable::sql_name);
    let tables: Vec<String> = own.chain(["pgyard.reshard_marks".to_owned()]).collect();
    source
        .execute(&format!(
            "DROP PUBLICATION IF EXISTS {name}; CREATE PUBLICATION {name} FOR TABLE {} WITH (publish_via_partition_root = true)",
            tables.join(", "),
            name = identifier(&publication)
        ))
        .await?;
    source.execute(&format!("SET statement_timeout = {}", limit.map_or(0, |limit| limit.as_millis()))).await?;
    let make = format!("SELECT pg_catalog.pg_create_logical_replication_slot({}, 'pgoutput')", literal(&slot));
    let made = source.rows(&make).await;
    source.execute("SET statement_timeout = 0").await?;
    if let (Err(error), Some(limit)) = (&made, limit) {
        return Err(ReshardError::Refused(format!(
            "{error}\nA slot waits for all transactions that write on its server; one of them did not end within {limit:?}, or the server has no room for another slot"
        )));
    }
    made?;
    let position = slot_position(source, &slot).await?;
    position.ok_or_else(|| ReshardError::Refused(format!("{}: the slot {slot} is gone", source.shard)))
}

/// Up to where a slot was confirmed; `None`: there is none.
///
/// # Errors
/// The server can't be asked.
pub async fn slot_position(source: &ShardLink, slot: &str) -> Result<Option<Lsn>, ReshardError> {
    let found = source
        .value(&format!("SELECT confirmed_flush_lsn FROM pg_catalog.pg_replication_slots WHERE slot_name = {}", literal(slot)))
        .await?;
    Ok(found.and_then(|lsn| lsn.parse().ok()))
}

/// Takes the slots and publications of a flow away.
///
/// # Errors
/// A server refuses it, such as when the slot is in use.
pub async fn close_slots(sources: &[ShardLink], flow: &FlowName) -> Result<(), ReshardError> {
    for (shard, source) in sources.iter().enumerate() {
        let slot = literal(&flow.slot(shard));
        source
            .rows(&format!(
                "SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots WHERE slot_name = {slot}"
            ))
            .await?;
        source.execute(&format!("DROP PUBLICATION IF EXISTS {}", identifier(&flow.publication()))).await?;
    }
    Ok(())
}

/// What a target has noted of each source shard.
///
/// # Errors
/// The server can't be asked.
pub async fn progress(target: &ShardLink, flow: &FlowName) -> Result<HashMap<usize, ShardProgress>, ReshardError> {
    let query = format!("SELECT shard, lsn, mark FROM pgyard.reshard_progress WHERE flow = {}", flow.literal());
    let mut found = HashMap::new();
    for row in target.rows(&query).await? {
        let text = |place: usize| row.get(place).cloned().flatten().unwrap_or_default();
        if let (Ok(shard), Ok(applied)) = (text(0).parse(), text(1).parse()) {
            found.insert(shard, ShardProgress { applied, mark: text(2) });
        }
    }
    Ok(found)
}

/// The statement by which a target notes how far it is; without a mark the last one stays.
pub fn progress_statement(flow: &FlowName, shard: usize, applied: Lsn, mark: Option<&str>) -> String {
    let and_mark = mark.map_or(String::new(), |mark| format!(", mark = {}", literal(mark)));
    let mark = literal(mark.unwrap_or_default());
    format!(
        "INSERT INTO pgyard.reshard_progress (flow, shard, lsn, mark) VALUES ({}, {shard}, '{applied}', {mark}) \
         ON CONFLICT (flow, shard) DO UPDATE SET lsn = '{applied}'{and_mark}",
        flow.literal()
    )
}

/// The tables that a target has got from a source shard, each with the position that its copy shows.
///
/// # Errors
/// The server can't be asked.
pub async fn copied(target: &ShardLink, flow: &FlowName, shard: usize) -> Result<HashMap<String, Lsn>, ReshardError> {
    let query = format!("SELECT relation, lsn FROM pgyard.reshard_copied WHERE flow = {} AND shard = {shard}", flow.literal());
    let pair = |row: Vec<Option<String>>| {
        let mut row = row.into_iter();
        Some((row.next()??, row.next()??.parse().ok()?))
    };
    Ok(target.rows(&query).await?.into_iter().filter_map(pair).collect())
}

/// The statement by which a target notes that it has got a table.
pub fn copied_statement(flow: &FlowName, shard: usize, table: &ReshardTable, shown: Lsn) -> String {
    format!(
        "INSERT INTO pgyard.reshard_copied (flow, shard, relation, lsn) VALUES ({}, {shard}, {}, '{shown}')",
        flow.literal(),
        literal(&table.sql_name())
    )
}

/// Forgets a flow on all servers.
///
/// # Errors
/// A server refuses it.
pub async fn forget(sources: &[ShardLink], targets: &[ShardLink], flow: &FlowName) -> Result<(), ReshardError> {
    let name = flow.literal();
    for target in targets {
        target
            .execute(&format!(
                "DELETE FROM pgyard.reshard_progress WHERE flow = {name}; DELETE FROM pgyard.reshard_copied WHERE flow = {name}"
            ))
            .await?;
    }
    for source in sources {
        source.execute(&format!("DELETE FROM pgyard.reshard_marks WHERE flow = {name}")).await?;
    }
    Ok(())
}

/// The side's name in a message.
pub fn shown(side: &ReshardSide) -> String {
    match side.shards.len() {
        1 => format!("{} (1 shard)", side.name),
        shards => format!("{} ({shards} shards)", side.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_have_names_that_servers_take() {
        let check = |from: &str, to: &str, expect: &str| assert_eq!(FlowName::new(from, to).slot(2), expect);
        check("shop", "shop_new", "pgyard_shop_to_shop_new_s2");
        check("My Shop", "über", "pgyard_my_shop_to__ber_s2");
        let long = FlowName::new(&"a".repeat(100), "b").slot(63);
        assert!(long.len() == SLOT_NAME_MAX && long.ends_with("_s63"), "{long}");
        assert_eq!(FlowName::new("a", "b").reverse(), FlowName::new("b", "a"));
    }

    #[test]
    fn phases_are_named() {
        for (phase, name) in ReshardPhase::ALL {
            assert_eq!(phase.to_string(), name);
        }
        let statement = phase_statement(&FlowName::new("a'b", "c"), ReshardPhase::Following);
        assert!(statement.contains("VALUES ('a''b to c', 'following')"), "{statement}");
    }

    #[test]
    fn a_mark_is_kept_until_the_next() {
        let flow = FlowName::new("a", "b");
        let with = progress_statement(&flow, 1, Lsn(0x10), Some("m'1"));
        assert!(with.ends_with("SET lsn = '0/10', mark = 'm''1'"), "{with}");
        let without = progress_statement(&flow, 1, Lsn(0x10), None);
        assert!(without.ends_with("SET lsn = '0/10'"), "{without}");
    }
}
