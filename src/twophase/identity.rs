//! Names of transactions over several shards.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// What all names begin with.
const PREFIX: &str = "pgyard";
/// Longest name of a database that is kept in a name. Bytes.
///
/// Spec: `GIDSIZE` in `src/include/access/xact.h` is 200 with its zero.
const NAME_MAX: usize = 63;

/// The name of one transaction over several shards. The shards' prepared transactions have names made of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GlobalId {
    /// The sharded database.
    pub database: String,
    /// The number of the shard whose commit decides.
    pub decider: usize,
    /// Which pgyard process.
    pub instance: u64,
    /// Which of its transactions.
    pub serial: u64,
}

impl GlobalId {
    /// The key of its decision.
    pub fn key(&self) -> String {
        let GlobalId { database, decider, instance, serial } = self;
        format!("{PREFIX}:{}:{decider}:{instance:016x}:{serial:x}", database_part(database))
    }

    /// The name of a shard's prepared transaction.
    pub fn prepared(&self, shard: usize) -> String {
        format!("{}:{shard}", self.key())
    }

    /// Reads the name of a prepared transaction of this database: whose it is, and the shard that prepared it.
    pub fn read(gid: &str, database: &str) -> Option<(GlobalId, usize)> {
        let rest = gid.strip_prefix(PREFIX)?.strip_prefix(':')?.strip_prefix(&database_part(database))?.strip_prefix(':')?;
        let mut parts = rest.split(':');
        let decider = parts.next()?.parse().ok()?;
        let instance = u64::from_str_radix(parts.next()?, 16).ok()?;
        let serial = u64::from_str_radix(parts.next()?, 16).ok()?;
        let shard = parts.next()?.parse().ok()?;
        let id = GlobalId { database: database.to_owned(), decider, instance, serial };
        (parts.next().is_none() && id.prepared(shard) == gid).then_some((id, shard))
    }
}

/// A database's name without the characters that separate parts.
fn database_part(name: &str) -> String {
    let clean: String = name.chars().map(|c| if c.is_alphanumeric() || c == '_' || c == '-' { c } else { '.' }).collect();
    clean[..clean.floor_char_boundary(NAME_MAX)].to_owned()
}

/// The transactions of this process that are being committed now: recovery leaves them alone.
#[derive(Debug)]
pub struct InFlight {
    instance: u64,
    left: Notify,
    state: Mutex<(u64, HashSet<u64>)>,
}

impl Default for InFlight {
    fn default() -> Self {
        InFlight { instance: rand::random(), left: Notify::new(), state: Mutex::default() }
    }
}

impl InFlight {
    /// Begins a commit.
    pub fn begin(self: &Arc<Self>, database: &str, decider: usize) -> InFlightHold {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        let serial = state.0;
        state.1.insert(serial);
        let id = GlobalId { database: database.to_owned(), decider, instance: self.instance, serial };
        InFlightHold { id, in_flight: self.clone(), finished: false }
    }

    /// Whether a session of this process is committing it now.
    pub fn contains(&self, id: &GlobalId) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        id.instance == self.instance && state.1.contains(&id.serial)
    }

    /// Waits until a session leaves a commit in the middle.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn something_left(&self) {
        self.left.notified().await;
    }

    /// Whether it is a transaction of this process.
    pub fn is_own(&self, id: &GlobalId) -> bool {
        id.instance == self.instance
    }
}

/// One commit under way; dropping it leaves the transaction to recovery.
#[derive(Debug)]
pub struct InFlightHold {
    /// The transaction.
    pub id: GlobalId,
    in_flight: Arc<InFlight>,
    finished: bool,
}

impl InFlightHold {
    /// Nothing is left for recovery.
    pub fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for InFlightHold {
    fn drop(&mut self) {
        self.in_flight.state.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&self.id.serial);
        if !self.finished {
            self.in_flight.left.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_others_are_left_alone() {
        for name in ["shop", "a:b", "ü'\"", &"x".repeat(200)] {
            let in_flight = Arc::new(InFlight::default());
            let hold = in_flight.begin(name, 3);
            let gid = hold.id.prepared(12);
            assert!(gid.len() < 200 && !gid.contains('\''), "{gid}");
            assert_eq!(GlobalId::read(&gid, name), Some((hold.id.clone(), 12)));
            assert!(in_flight.contains(&hold.id));
            let id = hold.id.clone();
            drop(hold);
            assert!(!in_flight.contains(&id) && in_flight.is_own(&id));
        }
        for foreign in ["", "pgyard:shop", "pgyard:shop:0:x:1:1", "pgyard:other:0:00:1:1", "pgyard:shop:0:0:1:1:1", "tx1"] {
            assert_eq!(GlobalId::read(foreign, "shop"), None, "{foreign}");
        }
    }
}
