//! Which prepared statements a server connection holds, least recently used out first.

use std::collections::HashMap;

/// Statements of one server connection, by the id that is in their server-side name.
#[derive(Debug, Default)]
pub struct PreparedSet {
    used: HashMap<u64, u64, foldhash::fast::RandomState>,
    clock: u64,
}

impl PreparedSet {
    /// Whether the server holds it; if so it is now the most recently used.
    pub fn touch(&mut self, id: u64) -> bool {
        self.clock += 1;
        match self.used.get_mut(&id) {
            Some(at) => {
                *at = self.clock;
                true
            }
            None => false,
        }
    }

    /// The server holds it now.
    pub fn insert(&mut self, id: u64) {
        self.clock += 1;
        self.used.insert(id, self.clock);
    }

    /// The server holds it no more.
    pub fn remove(&mut self, id: u64) {
        self.used.remove(&id);
    }

    /// The server holds none.
    pub fn clear(&mut self) {
        self.used.clear();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.used.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }

    /// When `limit` are held: the least recently used one that is not in `keep`, which must be closed on the server to make
    /// room. It is forgotten here.
    pub fn evict(&mut self, limit: usize, keep: impl Fn(u64) -> bool) -> Option<u64> {
        if self.used.len() < limit.max(1) {
            return None;
        }
        let oldest = self.used.iter().filter(|(id, _)| !keep(**id)).min_by_key(|(_, at)| **at).map(|(id, _)| *id)?;
        self.used.remove(&oldest);
        Some(oldest)
    }
}

/// The server-side name of a statement.
pub fn server_name(id: u64) -> String {
    format!("pgyard_{id}")
}

/// The id in a server-side name.
pub fn id_of(server_name: &str) -> Option<u64> {
    server_name.strip_prefix("pgyard_")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evicts_the_least_recently_used_that_may_go() {
        let mut set = PreparedSet::default();
        for id in 1..=3 {
            set.insert(id);
        }
        assert_eq!(set.evict(4, |_| false), None);
        assert!(set.touch(1));
        assert!(!set.touch(9));
        assert_eq!(set.evict(3, |_| false), Some(2));
        assert_eq!(set.evict(2, |id| id == 3), Some(1));
        assert_eq!(set.evict(1, |id| id == 3), None);
        assert_eq!(set.len(), 1);
    }
}
