//! The two ends of a flow: sharded databases of the configuration, and connections to their shards' primaries.

use super::error::ReshardError;
use super::replication::ReplicationStream;
use crate::auth::{KeyCache, ServerCredential};
use crate::cluster::control::{ControlConnection, ControlTarget, describe_error};
use crate::cluster::{Host, ServerTlsLookup};
use crate::config::{DatabaseSettings, HostSettings, Settings};
use crate::net::tls::ServerTls;
use crate::server::{ServerTarget, connect_with};
use crate::shard::ShardMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::SimpleQueryMessage;

/// To connect and log in to one host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Whether the server takes writes.
const IS_REPLICA: &str = "SELECT pg_catalog.pg_is_in_recovery()";
/// What values are written like, on both ends alike: as texts they say all, and the same value has the same text.
const WRITING: [(&str, &str); 7] = [
    ("datestyle", "ISO"),
    ("intervalstyle", "postgres"),
    ("timezone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("statement_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
];

/// A sharded database at one end of a flow.
#[derive(Clone, Debug)]
pub struct ReshardSide {
    /// Its name in the configuration.
    pub name: String,
    /// Where rows are.
    pub map: Arc<ShardMap>,
    /// Its shards in the map's order.
    pub shards: Vec<ShardEnd>,
}

/// One shard.
#[derive(Clone, Debug)]
pub struct ShardEnd {
    /// Its name, with the database's.
    pub name: String,
    settings: Arc<DatabaseSettings>,
}

/// A connection to one shard.
pub struct ShardLink {
    /// The shard's name.
    pub shard: String,
    connection: ControlConnection,
}

impl ReshardSide {
    /// The sharded database of this name.
    ///
    /// # Errors
    /// There is none, or it is not sharded.
    pub fn of(settings: &Settings, name: &str) -> Result<ReshardSide, ReshardError> {
        let Some(database) = settings.databases.iter().find(|database| database.name == name) else {
            return Err(ReshardError::Refused(format!("the configuration has no database {name}")));
        };
        let Some(sharding) = &database.sharding else {
            return Err(ReshardError::Refused(format!(
                "database {name} is not sharded\nWrite its hosts as one shard first, below a line [[databases.{name}.shards]], with the places of its tables."
            )));
        };
        let shard = |settings: &Arc<DatabaseSettings>| ShardEnd { name: settings.name.clone(), settings: settings.clone() };
        let shards = sharding.shards.iter().map(shard).collect();
        Ok(ReshardSide { name: name.to_owned(), map: sharding.map.clone(), shards })
    }

    /// A connection to each shard.
    ///
    /// # Errors
    /// One has no primary that can be reached.
    pub async fn connect(&self) -> Result<Vec<ShardLink>, ReshardError> {
        futures_util::future::try_join_all(self.shards.iter().map(ShardEnd::connect)).await
    }
}

impl ShardEnd {
    fn database(&self) -> &str {
        self.settings.server_name.as_deref().unwrap_or(&self.settings.name)
    }

    /// A connection to the primary, on which values are written in the flow's way.
    ///
    /// # Errors
    /// No host takes writes.
    pub async fn connect(&self) -> Result<ShardLink, ReshardError> {
        self.primary().await.map(|(link, _)| link)
    }

    async fn primary(&self) -> Result<(ShardLink, &HostSettings), ReshardError> {
        let mut reasons = Vec::new();
        for host in &self.settings.hosts {
            match self.try_host(host).await {
                Ok(Some(link)) => return Ok((link, host)),
                Ok(None) => reasons.push(format!("{}: it is a replica", host.name)),
                Err(reason) => reasons.push(format!("{}: {reason}", host.name)),
            }
        }
        Err(ReshardError::NoPrimary { shard: self.name.clone(), reasons: reasons.join("\n") })
    }

    async fn try_host(&self, host: &HostSettings) -> Result<Option<ShardLink>, String> {
        let tls = ServerTls::load(&host.tls).map_err(|error| error.to_string())?;
        let lookup: ServerTlsLookup = Arc::new(move |_| tls.config().cloned());
        let target = ControlTarget::new(&Host::new(0, host.clone()), &lookup, CONNECT_TIMEOUT).with_database(self.database());
        let attempt = async {
            let connection = target.connect().await?;
            let link = ShardLink { shard: self.name.clone(), connection };
            let settings: Vec<String> = WRITING.iter().map(|(name, value)| format!("SET {name} = '{value}'")).collect();
            link.connection.client.batch_execute(&settings.join("; ")).await?;
            let replica: bool = link.connection.client.query_one(IS_REPLICA, &[]).await?.get(0);
            Ok((!replica).then_some(link))
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, attempt).await {
            Ok(outcome) => outcome.map_err(|error: tokio_postgres::Error| describe_error(&error)),
            Err(_) => Err(format!("not within {CONNECT_TIMEOUT:?}")),
        }
    }

    /// A replication connection to the primary.
    ///
    /// # Errors
    /// No host takes writes, or it takes no replication connection of the role.
    pub async fn replicate(&self) -> Result<ReplicationStream, ReshardError> {
        let (_, host) = self.primary().await?;
        let tls = ServerTls::load(&host.tls).map_err(|error| ReshardError::Refused(format!("{}: {error}", host.name)))?;
        let target = Arc::new(ServerTarget {
            address: host.address.clone(),
            port: host.port,
            tls,
            keepalive: Duration::from_secs(60),
            options: String::new(),
            connect_timeout: CONNECT_TIMEOUT,
        });
        let options: Vec<String> = WRITING.iter().map(|(name, value)| format!("-c {name}={value}")).collect();
        let options = options.join(" ");
        let parameters = [
            ("user", host.control.user.as_str()),
            ("database", self.database()),
            ("replication", "database"),
            ("application_name", "pgyard reshard"),
            ("client_encoding", "UTF8"),
            ("options", options.as_str()),
        ];
        let credential = host.control.password.clone().map_or(ServerCredential::None, ServerCredential::Password);
        let connected = connect_with(&target, &parameters, &credential, &Arc::new(KeyCache::new(1))).await;
        let connection = connected.map_err(|source| ReshardError::Connect { shard: self.name.clone(), source })?;
        Ok(ReplicationStream::new(self.name.clone(), connection))
    }
}

impl ShardLink {
    /// The client half.
    pub fn client(&self) -> &tokio_postgres::Client {
        &self.connection.client
    }

    /// Carries statements out.
    ///
    /// # Errors
    /// The server refuses one.
    pub async fn execute(&self, sql: &str) -> Result<(), ReshardError> {
        self.client().batch_execute(sql).await.map_err(|error| self.error(error))
    }

    /// The rows of a query, as texts; NULL is `None`.
    ///
    /// # Errors
    /// The server refuses it.
    pub async fn rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, ReshardError> {
        let messages = self.client().simple_query(sql).await.map_err(|error| self.error(error))?;
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|place| row.get(place).map(str::to_owned)).collect()),
            _ => None,
        };
        Ok(messages.into_iter().filter_map(row).collect())
    }

    /// The first column of a query's first row.
    ///
    /// # Errors
    /// The server refuses it.
    pub async fn value(&self, sql: &str) -> Result<Option<String>, ReshardError> {
        Ok(self.rows(sql).await?.into_iter().next().and_then(|row| row.into_iter().next()).flatten())
    }

    /// An error of this connection's.
    pub fn error(&self, error: tokio_postgres::Error) -> ReshardError {
        ReshardError::server(&self.shard, error)
    }
}

/// A text as a literal.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name as an identifier.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
