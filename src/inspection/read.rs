//! Reading of servers.

use crate::cluster::control::{ControlConnection, ControlTarget, describe_error};
use crate::cluster::{Host, ServerTlsLookup};
use crate::config::{DatabaseSettings, HostSettings};
use crate::net::tls::ServerTls;
use crate::plan::{SCHEMA_QUERY, Schema, SchemaRow};
use crate::sql::{CATALOGUE_QUERY, Catalogue, CatalogueRow};
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::{Client, SimpleQueryMessage};

/// To connect and log in to one host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What every session of an inspection begins with. Names and values have one spelling everywhere, and no statement waits for ever.
const BEGIN: &str = "SET default_transaction_read_only = on; SET search_path = pg_catalog; SET statement_timeout = '60s'; \
    SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET bytea_output = 'hex'; SET extra_float_digits = 1; \
    SET row_security = off";

/// A row's values as text.
pub type ReadRow = Vec<Option<String>>;

/// Opens a connection to a host, in the database as the servers call it, and makes its session read-only.
///
/// # Errors
/// What stood in the way, for people.
pub async fn open(database: &DatabaseSettings, host: &HostSettings) -> Result<ControlConnection, String> {
    let tls = ServerTls::load(&host.tls).map_err(|error| error.to_string())?;
    let lookup: ServerTlsLookup = Arc::new(move |_| tls.config().cloned());
    let target = ControlTarget::new(&Host::new(0, host.clone()), &lookup, CONNECT_TIMEOUT);
    // Any database of the servers (`*`) is looked at through the one that is probed.
    let name = database.server_name.as_deref().or_else(|| (database.name != "*").then_some(database.name.as_str()));
    let target = name.map_or(target.clone(), |name| target.with_database(name));
    let connection = match tokio::time::timeout(CONNECT_TIMEOUT, target.connect()).await {
        Ok(connected) => connected.map_err(|error| describe_error(&error))?,
        Err(_) => return Err(format!("no answer within {CONNECT_TIMEOUT:?}")),
    };
    connection.client.batch_execute(BEGIN).await.map_err(|error| describe_error(&error))?;
    Ok(connection)
}

/// What planning knows of a sharded database, from the first host of a shard that answers.
///
/// # Errors
/// What stood in the way, host by host.
pub async fn definitions(shard: &DatabaseSettings) -> Result<(Schema, Catalogue), String> {
    let mut reasons = Vec::new();
    for host in &shard.hosts {
        let read = async {
            let connection = open(shard, host).await?;
            let ask = async |query: &str| rows(&connection.client, query).await.map_err(|error| describe_error(&error));
            let schema = ask(SCHEMA_QUERY).await?;
            // Of views, names are looked for as their owners see them.
            ask("RESET search_path").await?;
            let catalogue = ask(CATALOGUE_QUERY).await?;
            let schema = Schema::from_rows(schema.into_iter().filter_map(|row| SchemaRow::try_from(row).ok()));
            Ok((schema, Catalogue::from_rows(catalogue.into_iter().filter_map(|row| CatalogueRow::try_from(row).ok()))))
        };
        match read.await {
            Ok(found) => return Ok(found),
            Err::<_, String>(reason) => reasons.push(format!("{}: {reason}", host.name)),
        }
    }
    Err(reasons.join("\n"))
}

/// The rows of a query.
///
/// # Errors
/// Those of tokio-postgres.
pub async fn rows(client: &Client, query: &str) -> Result<Vec<ReadRow>, tokio_postgres::Error> {
    let messages = client.simple_query(query).await?;
    let text = |message: SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|place| row.get(place).map(str::to_owned)).collect()),
        _ => None,
    };
    Ok(messages.into_iter().filter_map(text).collect())
}

/// A value of a row; empty for NULL.
pub fn column(row: &ReadRow, place: usize) -> &str {
    row.get(place).and_then(Option::as_deref).unwrap_or_default()
}
