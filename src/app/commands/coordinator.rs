//! `pgyard coordinator`: makes the coordinator of a sharded database show what its shards have.

use super::connection::CommandError;
use super::outcome;
use crate::app::arguments::CoordinatorArguments;
use crate::cluster::control::{ControlConnection, ControlTarget, describe_error};
use crate::cluster::{Host, ServerTlsLookup};
use crate::config::{self, DatabaseSettings, ShardingSettings};
use crate::coordinator::{ShardServer, SyncReport, sync};
use crate::net::tls::ServerTls;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// To connect and log in to one host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Brings the coordinator into step with the shards.
pub fn run(arguments: &CoordinatorArguments) -> ExitCode {
    outcome(synchronise(arguments))
}

fn synchronise(arguments: &CoordinatorArguments) -> Result<String, CommandError> {
    let loaded = config::load(&arguments.file, &|name| std::env::var(name).ok())?;
    let (name, sharding) = chosen(&loaded.settings.databases, arguments.database.as_deref())?;
    let Some(coordinator) = &sharding.coordinator else {
        return Err(CommandError::Refused(format!(
            "database {name} has no coordinator\nWrite [databases.{name}.coordinator], and below it primary = \"postgres://...\", with a role that may create extensions."
        )));
    };
    let servers: Vec<ShardServer> =
        sharding.map.shards.iter().zip(&sharding.shards).map(|(name, shard)| ShardServer::of(name, shard)).collect();
    let Some(first) = sharding.shards.first() else {
        return Err(CommandError::Refused(format!("database {name} has no shards")));
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let shard = connect(first).await?;
        let target = connect(coordinator).await?;
        let outcome = sync(&shard.client, &target.client, &servers, &sharding.map).await;
        outcome.map(|report| summary(name, &report)).map_err(|error| CommandError::Refused(describe_error(&error)))
    })
}

/// The sharded database that is meant.
pub(super) fn chosen<'a>(
    databases: &'a [Arc<DatabaseSettings>],
    wanted: Option<&str>,
) -> Result<(&'a str, &'a ShardingSettings), CommandError> {
    let mut sharded = databases.iter().filter_map(|database| Some((database.name.as_str(), database.sharding.as_deref()?)));
    let names = || databases.iter().filter(|database| database.sharding.is_some()).map(|database| database.name.as_str());
    let found = match wanted {
        Some(wanted) => sharded.find(|(name, _)| *name == wanted),
        None if names().count() == 1 => sharded.next(),
        None => None,
    };
    found.ok_or_else(|| match names().collect::<Vec<_>>().as_slice() {
        [] => CommandError::Refused("the file has no sharded database: see [[databases.NAME.shards]]".to_owned()),
        names => CommandError::Refused(format!("say which database is meant with --database; sharded are {}", names.join(", "))),
    })
}

/// A connection to the host of a database that takes writes.
pub(super) async fn connect(database: &DatabaseSettings) -> Result<ControlConnection, CommandError> {
    let mut reasons = Vec::new();
    for host in &database.hosts {
        let tls = ServerTls::load(&host.tls).map_err(|error| CommandError::Refused(format!("{}: {error}", host.name)))?;
        let lookup: ServerTlsLookup = Arc::new(move |_| tls.config().cloned());
        let name = database.server_name.as_deref().unwrap_or(&database.name);
        let target = ControlTarget::new(&Host::new(0, host.clone()), &lookup, CONNECT_TIMEOUT).with_database(name);
        let connected = match tokio::time::timeout(CONNECT_TIMEOUT, target.connect()).await {
            Ok(connected) => connected,
            Err(_) => {
                reasons.push(format!("{}: not within {CONNECT_TIMEOUT:?}", host.name));
                continue;
            }
        };
        match connected {
            Ok(connection) => match connection.client.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await {
                Ok(row) if !row.get::<_, bool>(0) => return Ok(connection),
                Ok(_) => reasons.push(format!("{}: it is a replica", host.name)),
                Err(error) => reasons.push(format!("{}: {}", host.name, describe_error(&error))),
            },
            Err(error) => reasons.push(format!("{}: {}", host.name, describe_error(&error))),
        }
    }
    Err(CommandError::Refused(format!("no host of {} takes writes\n{}", database.name, reasons.join("\n"))))
}

fn summary(name: &str, report: &SyncReport) -> String {
    let SyncReport { tables, views, functions, left_out } = report;
    let mut text = format!("the coordinator of {name} shows {tables} tables, {views} views and {functions} functions");
    if !left_out.is_empty() {
        text.push_str("\nleft out:");
        left_out.iter().for_each(|line| text.push_str(&format!("\n  {line}")));
    }
    text
}
