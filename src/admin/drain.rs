//! DRAIN and UNDRAIN: takes a host out of use for new statements, and puts it back.

use super::context::ConsoleContext;
use super::run::Progress;
use super::show_hosts::{address, upstreams};
use super::table::{Cell, cell};
use crate::database::Upstream;
use crate::types::SqlState;
use crate::wire::reply::Report;
use std::sync::Arc;

pub(super) const COLUMNS: [&str; 3] = ["database", "host", "standing"];

/// A host of an upstream.
struct Found {
    database: String,
    upstream: Arc<Upstream>,
    id: u32,
    name: String,
    is_primary: bool,
}

pub(super) async fn run(
    context: &ConsoleContext,
    host: &str,
    database: Option<&str>,
    drained: bool,
    progress: &Progress,
) -> Result<Vec<Vec<Cell>>, Report> {
    let all = hosts(context, database)?;
    let known: Vec<String> = all.iter().map(|(found, _)| found.name.clone()).collect();
    let chosen: Vec<Found> =
        all.into_iter().filter(|(found, address)| found.name == host || address == host).map(|(found, _)| found).collect();
    if chosen.is_empty() {
        return Err(Report::error(SqlState::UNDEFINED_OBJECT, format!("there is no host \"{host}\""))
            .hint(format!("Hosts: {}.", known.join(", "))));
    }
    let mut rows = Vec::new();
    for Found { database, upstream, id, name, is_primary } in chosen {
        let cluster = &upstream.cluster;
        let done = if drained { cluster.drain(id).await } else { cluster.undrain(id).await };
        if !done {
            let text = format!("host \"{name}\" left the configuration in this moment");
            return Err(Report::error(SqlState::UNDEFINED_OBJECT, text));
        }
        if drained && is_primary {
            progress
                .say(format!("{name} is the primary of {database}: writes wait until it is back or another host is promoted"));
        }
        let fleet = cluster.fleet();
        let standing = fleet.index_of(id).and_then(|index| fleet.hosts.get(index)).map_or("gone", |view| view.standing.label());
        rows.push(vec![cell(database), cell(name), cell(standing)]);
    }
    Ok(rows)
}

/// The hosts that serve `database`, or all, with their addresses.
fn hosts(context: &ConsoleContext, database: Option<&str>) -> Result<Vec<(Found, String)>, Report> {
    let mut all = upstreams(context);
    if let Some(name) = database {
        let entry = if all.iter().any(|(known, _)| known == name) { name } else { "*" };
        all.retain(|(known, _)| known == entry);
        if all.is_empty() {
            return Err(Report::error(SqlState::INVALID_CATALOG_NAME, format!("database \"{name}\" does not exist"))
                .hint("SHOW DATABASES lists them."));
        }
    }
    let mut found = Vec::new();
    for (database, upstream) in all {
        let fleet = upstream.cluster.fleet().clone();
        for (index, view) in fleet.hosts.iter().enumerate() {
            let host = Found {
                database: database.clone(),
                upstream: upstream.clone(),
                id: view.host.id,
                name: view.host.settings.name.clone(),
                is_primary: fleet.primary == Some(index),
            };
            found.push((host, address(view)));
        }
    }
    Ok(found)
}
