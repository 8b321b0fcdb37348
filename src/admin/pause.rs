//! PAUSE and RESUME.

use super::context::ConsoleContext;
use super::run::Progress;
use crate::config::format_duration;
use crate::database::{ClientEntry, Database, RolePools};
use crate::pool::PoolStats;
use crate::types::SqlState;
use crate::wire::reply::Report;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is looked whether all is still.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How often the operator is told what is waited for.
const TELL_INTERVAL: Duration = Duration::from_secs(2);
/// Clients that are named when time is over.
const CULPRITS_MAX: usize = 10;

/// Databases that this command paused; dropping it lets them go on, unless the command has succeeded.
struct Paused(Vec<Arc<Database>>);

impl Drop for Paused {
    fn drop(&mut self) {
        self.0.iter().for_each(|database| database.set_paused(false));
    }
}

/// Holds new requests back and waits until no server connection is in use, at most `drain_timeout`. Then idle connections are
/// closed, so that the servers can be stopped.
pub(super) async fn pause(context: &ConsoleContext, database: Option<&str>, progress: &Progress) -> Result<(), Report> {
    let databases = chosen(context, database)?;
    let limit = context.actions.settings().drain_timeout;
    let new: Vec<_> = databases.iter().filter(|database| !database.is_paused()).cloned().collect();
    new.iter().for_each(|database| database.set_paused(true));
    let mut guard = Paused(new);
    let (began, mut told) = (Instant::now(), Instant::now());
    loop {
        let busy: usize = databases.iter().map(in_use).sum();
        if busy == 0 {
            break;
        }
        if began.elapsed() >= limit {
            return Err(too_late(context, &databases, busy, limit));
        }
        if told.elapsed() >= TELL_INTERVAL {
            told = Instant::now();
            progress.say(format!("waiting for {busy} server connections that are in use"));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    guard.0.clear();
    for database in &databases {
        for role in database.roles() {
            role.pools().iter().for_each(|pool| pool.renew());
        }
    }
    Ok(())
}

/// Lets requests go on.
pub(super) fn resume(context: &ConsoleContext, database: Option<&str>) -> Result<(), Report> {
    if let Some(name) = database.filter(|name| context.directory.sharded_itself(name).is_some()) {
        return super::hold::release(context, name);
    }
    let databases = chosen(context, database)?;
    if let (Some(name), [only]) = (database, databases.as_slice())
        && !only.is_paused()
    {
        return Err(Report::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, format!("database \"{name}\" is not paused")));
    }
    databases.iter().for_each(|database| database.set_paused(false));
    Ok(())
}

fn chosen(context: &ConsoleContext, name: Option<&str>) -> Result<Vec<Arc<Database>>, Report> {
    let all = context.directory.all();
    let Some(name) = name else { return Ok(all) };
    let found: Vec<_> = all.into_iter().filter(|database| &*database.name == name).collect();
    if found.is_empty() {
        let text = format!("database \"{name}\" does not exist, or no client has used it yet");
        return Err(Report::error(SqlState::INVALID_CATALOG_NAME, text).hint("SHOW DATABASES lists them."));
    }
    Ok(found)
}

/// Connections that sessions have, and sessions that were not held back any more and will get one.
fn in_use(database: &Arc<Database>) -> usize {
    let busy = |stats: PoolStats| stats.active() + stats.waiting;
    let active = |role: &Arc<RolePools>| role.pools().iter().map(|pool| busy(pool.stats())).sum::<usize>();
    database.roles().iter().map(active).sum()
}

fn too_late(context: &ConsoleContext, databases: &[Arc<Database>], busy: usize, limit: Duration) -> Report {
    let text = format!("{busy} server connections are still in use after {}; nothing was paused", format_duration(limit));
    let holds =
        |client: &&Arc<ClientEntry>| client.host().is_some() && databases.iter().any(|database| database.name == client.database);
    let clients = context.clients.all();
    let who = clients.iter().filter(holds).take(CULPRITS_MAX).map(|client| {
        let pins = client.pins().labels().collect::<Vec<_>>().join(", ");
        let pinned = if pins.is_empty() { String::new() } else { format!(", pinned: {pins}") };
        format!("{} ({}@{}, {}{pinned})", client.process, client.user, client.database, client.state().label())
    });
    let who = who.collect::<Vec<_>>().join("; ");
    Report::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, text)
        .detail(format!("Clients that have one: {who}."))
        .hint("End them with KILL, or raise drain_timeout, and try again.")
}
