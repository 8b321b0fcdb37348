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

    /// Whether the server holds it.
    pub fn holds(&self, id: u64) -> bool {
        self.used.contains_key(&id)
    }

    /// The server holds it now.
    pub fn insert(&mut self, id: u64) {
        self.clock += 1;
        self.used.insert(id, self.clock);
    }

    /// The server holds it no more; whether it did.
    pub fn remove(&mut self, id: u64) -> bool {
        self.used.remove(&id).is_some()
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

    /// The ids of all of them.
    pub fn ids(&self) -> impl Iterator<Item = u64> {
        self.used.keys().copied()
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
const NAME_START: &[u8] = SERVER_NAME_PREFIX.as_bytes();
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

/// Statements that a server connection holds under their clients' own names, by the id of what was prepared. They are those of
/// the session that used the connection last.
#[derive(Debug, Default)]
pub struct OwnNames {
    held: HashMap<Box<[u8]>, u64, foldhash::fast::RandomState>,
    /// Names that the unit under way gives or takes.
    changes: Vec<NameChange>,
    /// The number of the answer that says that nothing is prepared any more.
    all_gone_at: Option<u64>,
}

/// A name that is given or taken.
#[derive(Debug)]
struct NameChange {
    /// The number of the answer that says so.
    at: u64,
    name: Box<[u8]>,
    /// What was prepared under it before, if it was held.
    before: Option<u64>,
}

impl OwnNames {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether the name is held, with whatever is prepared under it.
    pub fn holds(&self, name: &[u8]) -> bool {
        self.held.contains_key(name)
    }

    /// Names and ids.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.held.iter().map(|(name, id)| (&**name, *id))
    }

    /// The server holds the name when the answer with this number has come.
    pub fn add(&mut self, name: &[u8], id: u64, at: u64) {
        let before = self.held.insert(name.into(), id);
        self.changes.push(NameChange { at, name: name.into(), before });
    }

    /// The server does not hold the name any more when the answer with this number has come.
    pub fn remove(&mut self, name: &[u8], at: u64) {
        let before = self.held.remove(name);
        self.changes.push(NameChange { at, name: name.into(), before });
    }

    /// The server holds none, and nothing that was prepared for any session, when the answer with this number has come.
    pub fn remove_all(&mut self, at: u64) {
        self.changes.extend(self.held.drain().map(|(name, id)| NameChange { at, name, before: Some(id) }));
        self.all_gone_at = Some(at);
    }

    /// Whether the unit under way gives or takes names.
    pub fn is_changing(&self) -> bool {
        !self.changes.is_empty() || self.all_gone_at.is_some()
    }

    /// The answers have come, but for those from this number on: what these would have given or taken is as it was.
    /// Answers whether the server has forgotten everything that was prepared.
    pub fn settle(&mut self, failed_at: Option<u64>) -> bool {
        let failed = |at: u64| failed_at.is_some_and(|failed| at >= failed);
        for change in self.changes.drain(..).rev().filter(|change| failed(change.at)) {
            match change.before {
                Some(id) => self.held.insert(change.name, id),
                None => self.held.remove(&change.name),
            };
        }
        self.all_gone_at.take().is_some_and(|at| !failed(at))
    }

    /// The server holds none.
    pub fn clear(&mut self) {
        self.held.clear();
        self.changes.clear();
        self.all_gone_at = None;
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

/// What server-side names begin with.
pub const SERVER_NAME_PREFIX: &str = "pgyard_";

/// The id in a server-side name.
pub fn id_of(server_name: &[u8]) -> Option<u64> {
    let digits = server_name.strip_prefix(SERVER_NAME_PREFIX.as_bytes())?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_any_id() {
        for id in [0, 7, 10, 4711, u64::MAX] {
            let name = server_name(id);
            assert_eq!(name.as_bytes(), format!("pgyard_{id}").as_bytes());
            assert_eq!(id_of(name.as_bytes()), Some(id));
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

    #[test]
    fn what_dropped_answers_would_have_done_is_not_done() {
        let mut own = OwnNames::default();
        own.add(b"a", 1, 10);
        own.settle(None);
        own.remove(b"a", 11);
        own.add(b"b", 2, 12);
        own.add(b"c", 3, 13);
        assert!(own.is_changing());
        assert!(!own.settle(Some(13)));
        assert!(!own.holds(b"a") && !own.holds(b"c") && !own.is_changing());
        own.remove(b"b", 14);
        own.add(b"b", 4, 15);
        own.remove(b"b", 16);
        assert!(!own.settle(Some(15)));
        assert!(!own.holds(b"b"));
        own.add(b"b", 2, 17);
        own.settle(None);
        own.remove(b"b", 18);
        own.add(b"b", 5, 19);
        own.settle(Some(18));
        assert_eq!(own.iter().collect::<Vec<_>>(), [(&b"b"[..], 2)]);
        assert_eq!(id_of(server_name(7).as_bytes()), Some(7));
        assert_eq!(id_of(b"pgyard_x"), None);
        own.remove_all(20);
        assert!(!own.settle(Some(20)));
        assert!(own.holds(b"b"));
        own.remove_all(21);
        assert!(own.is_changing() && own.settle(Some(22)));
        assert!(own.is_empty() && !own.settle(None));
    }
}
