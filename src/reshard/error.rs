//! Why rows can't be moved to other shards.

use crate::server::ConnectError;
use crate::wire::WireError;

/// Why resharding does not go on. What was applied until then stays, and the work can be taken up again.
#[derive(Debug, thiserror::Error)]
pub enum ReshardError {
    /// A shard has no host that takes writes.
    #[error("no host of {shard} takes writes\n{reasons}")]
    NoPrimary {
        /// Which shard.
        shard: String,
        /// What each host said, a line each.
        reasons: String,
    },
    /// A server refused a statement, or went away.
    #[error("{shard}: {message}")]
    Server {
        /// Which shard.
        shard: String,
        /// What it said.
        message: String,
        /// All of it.
        #[source]
        source: Box<tokio_postgres::Error>,
    },
    /// The replication connection could not be made.
    #[error("{shard}: {source}")]
    Connect {
        /// Which shard.
        shard: String,
        /// What happened.
        #[source]
        source: ConnectError,
    },
    /// The replication stream ended, or a server refused a replication command.
    #[error("{shard}: replication: {message}")]
    Stream {
        /// Which shard.
        shard: String,
        /// What happened.
        message: String,
    },
    /// A server sent something that is not the protocol.
    #[error("{shard}: replication: {source}")]
    Malformed {
        /// Which shard.
        shard: String,
        /// What is wrong with it.
        #[source]
        source: WireError,
    },
    /// It can't be begun, or not go on: the reason and what to do about it.
    #[error("{0}")]
    Refused(String),
}

impl ReshardError {
    /// What a server said to a statement, without the words around it.
    pub fn server(shard: &str, source: tokio_postgres::Error) -> Self {
        let message = match source.as_db_error() {
            Some(told) => {
                let more = [told.detail(), told.hint()].into_iter().flatten();
                more.fold(told.message().to_owned(), |text, line| format!("{text}\n{line}"))
            }
            None => crate::cluster::describe_error(&source),
        };
        ReshardError::Server { shard: shard.to_owned(), message, source: Box::new(source) }
    }
}
