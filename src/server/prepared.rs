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

/// What the server-side name of a statement begins with; its id follows.
const NAME_START: &[u8] = b"pgyard_";
/// The longest name: 20 digits follow.
const NAME_MAX: usize = NAME_START.len() + 20;

/// A server-side name, made without an allocation: each Bind of a prepared statement has one.
#[derive(Clone, Copy)]
pub struct ServerStatementName {
    bytes: [u8; NAME_MAX],
    start: usize,
}

impl ServerStatementName {
    /// The name, without a zero behind it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl std::fmt::Display for ServerStatementName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| std::fmt::Write::write_char(f, char::from(*byte)))
    }
}

/// The server-side name of a statement.
pub fn server_name(id: u64) -> ServerStatementName {
    let mut name = ServerStatementName { bytes: [0; NAME_MAX], start: NAME_MAX };
    let mut left = id;
    loop {
        name.start -= 1;
        name.bytes[name.start] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    let end = name.start;
    name.start -= NAME_START.len();
    name.bytes[name.start..end].copy_from_slice(NAME_START);
    name
}

/// The id in a server-side name.
pub fn id_of(server_name: &str) -> Option<u64> {
    server_name.strip_prefix("pgyard_")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_any_id() {
        for id in [0, 7, 10, 4711, u64::MAX] {
            let name = server_name(id);
            assert_eq!(name.as_bytes(), format!("pgyard_{id}").as_bytes());
            assert_eq!(id_of(&name.to_string()), Some(id));
        }
    }

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
