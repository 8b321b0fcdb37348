//! Pools of control connections, one per host and database: for the catalogue and the look-up of verifiers.
//!
//! deadpool runs its connections on the run-time of whoever opens them, so everything here runs on the control run-time.

use super::control::{ControlTarget, ServerTlsLookup};
use super::snapshot::{Fleet, Host};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Control connections per host and database.
const POOL_SIZE: usize = 4;

/// Pools kept; beyond this one that is not in use is dropped.
const POOLS_MAX: usize = 256;

/// A connection not used for this long is closed.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// All control pools of a cluster.
pub struct ControlPools {
    tls: ServerTlsLookup,
    pools: Mutex<HashMap<(u32, String), deadpool_postgres::Pool>>,
}

/// A query of the control plane that brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Neither a primary nor a replica in rotation.
    #[error("no host is available")]
    NoHost,
    /// Connecting failed, or waiting for one of the few control connections took too long.
    #[error("{}", super::control::describe_error(.0))]
    Pool(#[from] deadpool_postgres::PoolError),
    /// The settings cannot make a pool.
    #[error("{0}")]
    Build(#[from] deadpool_postgres::BuildError),
    /// The server said no.
    #[error("{}", super::control::describe_error(.0))]
    Server(#[from] tokio_postgres::Error),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// More than any honest answer.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

impl ControlError {
    /// What the server said, if it said something.
    pub fn database_error(&self) -> Option<&tokio_postgres::error::DbError> {
        match self {
            ControlError::Server(error) | ControlError::Pool(deadpool_postgres::PoolError::Backend(error)) => error.as_db_error(),
            _ => None,
        }
    }
}

impl ControlPools {
    /// No pool yet.
    pub fn new(tls: ServerTlsLookup) -> Self {
        ControlPools { tls, pools: Mutex::default() }
    }

    /// How to reach `host`.
    pub fn target(&self, host: &Host, timeout: Duration) -> ControlTarget {
        ControlTarget::new(host, &self.tls, timeout)
    }

    /// A connection to `database` (`None`: the control role's own) on `host`.
    ///
    /// # Errors
    /// When none can be had within `wait`.
    pub async fn connection(
        &self,
        host: &Host,
        database: Option<&str>,
        wait: Duration,
    ) -> Result<deadpool_postgres::Client, ControlError> {
        let database = database.unwrap_or(&host.settings.control.database);
        let pool = self.pool(host, database, wait)?;
        Ok(pool.get().await?)
    }

    fn pool(&self, host: &Host, database: &str, wait: Duration) -> Result<deadpool_postgres::Pool, ControlError> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (host.id, database.to_owned());
        if let Some(pool) = pools.get(&key) {
            return Ok(pool.clone());
        }
        if pools.len() >= POOLS_MAX {
            let unused = pools.iter().find(|(_, pool)| pool.status().size == pool.status().available).map(|(key, _)| key.clone());
            unused.map(|key| pools.remove(&key));
        }
        let pool = self.target(host, wait).with_database(database).pool(POOL_SIZE, wait)?;
        pools.insert(key, pool.clone());
        Ok(pool)
    }

    /// Closes connections that nobody has used for a while.
    pub fn reap(&self) {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        for pool in pools.values() {
            pool.retain(|_, metrics| metrics.last_used() < IDLE_MAX);
        }
    }

    /// Forgets the pools of a database: somebody needs it for himself.
    pub fn leave_alone(&self, database: &str) {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).retain(|(_, name), _| name != database);
    }

    /// Forgets the pools of a host: it is gone, or its credentials changed.
    pub fn forget(&self, host_id: u32) {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).retain(|(id, _), _| *id != host_id);
    }
}

/// The host that the control plane asks: the primary, else the first replica in rotation. `true` with the primary.
pub fn control_host(fleet: &Fleet) -> Option<(Arc<Host>, bool)> {
    let index = fleet.primary.or_else(|| fleet.eligible.first().copied())?;
    fleet.hosts.get(index).map(|view| (view.host.clone(), fleet.primary.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fixtures;

    #[test]
    fn asks_the_primary_else_a_replica() {
        let mut fleet = fixtures::fleet(&[1000, 1000]);
        let asked = |fleet: &Fleet| control_host(fleet).map(|(host, is_primary)| (host.id, is_primary));
        assert_eq!(asked(&fleet), Some((0, true)));
        fleet.primary = None;
        assert_eq!(asked(&fleet), Some((1, false)));
        fleet.eligible = Box::default();
        assert_eq!(asked(&fleet), None);
    }

    #[tokio::test]
    async fn keeps_a_bounded_number_of_pools() {
        let pools = ControlPools::new(Arc::new(|_| None));
        let host = Host::new(1, fixtures::host_settings("a"));
        for n in 0..POOLS_MAX + 50 {
            pools.pool(&host, &format!("db{n}"), Duration::from_secs(1)).unwrap();
        }
        assert_eq!(pools.pools.lock().unwrap().len(), POOLS_MAX);
        pools.forget(1);
        assert!(pools.pools.lock().unwrap().is_empty());
    }
}
