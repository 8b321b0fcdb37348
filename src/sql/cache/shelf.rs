//! A set-associative table with second-chance eviction: fixed places, no rehashing, a look-up touches one cache line of hashes.

use crate::sql::facts::Facts;
use crate::sql::scan::Lexing;
use std::sync::Arc;

/// Places that a hash may have.
const WAYS: usize = 8;
/// About what an entry takes beside its key. Bytes.
const ENTRY_OVERHEAD: usize = 256;

struct Entry {
    key: Box<[u8]>,
    lexing: Lexing,
    facts: Arc<Facts>,
    /// Used since the hand last passed.
    used: bool,
}

/// Facts by key.
pub(super) struct Shelf {
    /// Of the entries in the same places; 0 where there is none.
    hashes: Box<[u64]>,
    entries: Box<[Option<Entry>]>,
    hand: usize,
    bytes: usize,
    bytes_max: usize,
}

impl Shelf {
    /// `places` is a power of two and at least 8.
    pub(super) fn new(places: usize, bytes_max: usize) -> Self {
        let entries = std::iter::repeat_with(|| None).take(places).collect();
        Shelf { hashes: vec![0; places].into(), entries, hand: 0, bytes: 0, bytes_max }
    }

    pub(super) fn clear(&mut self) {
        self.hashes.fill(0);
        self.entries.iter_mut().for_each(|entry| *entry = None);
        self.bytes = 0;
    }

    #[inline]
    pub(super) fn get(&mut self, hash: u64, key: &[u8], lexing: Lexing) -> Option<&Arc<Facts>> {
        let first = self.first_place(hash);
        let hash = hash | 1;
        let place = (first..first + WAYS).find(|&place| {
            self.hashes[place] == hash
                && self.entries[place].as_ref().is_some_and(|entry| entry.lexing == lexing && *entry.key == *key)
        })?;
        let entry = self.entries[place].as_mut()?;
        entry.used = true;
        Some(&entry.facts)
    }

    pub(super) fn insert(&mut self, hash: u64, key: &[u8], lexing: Lexing, facts: &Arc<Facts>) {
        let size = key.len() + ENTRY_OVERHEAD;
        if size > self.bytes_max {
            return;
        }
        while self.bytes + size > self.bytes_max {
            self.evict_next();
        }
        let first = self.first_place(hash);
        let place = self.victim(first);
        self.remove(place);
        self.hashes[place] = hash | 1;
        self.entries[place] = Some(Entry { key: key.into(), lexing, facts: Arc::clone(facts), used: false });
        self.bytes += size;
    }

    /// The first of the places of a hash. Uses other bits than those that tell hashes apart first.
    fn first_place(&self, hash: u64) -> usize {
        (hash >> 20) as usize & (self.hashes.len() - 1) & !(WAYS - 1)
    }

    /// An empty place, else the first that was not used since the last look; all lose their mark on the way.
    fn victim(&mut self, first: usize) -> usize {
        let places = first..first + WAYS;
        if let Some(empty) = places.clone().find(|&place| self.entries[place].is_none()) {
            return empty;
        }
        for place in places {
            if let Some(entry) = &mut self.entries[place] {
                if !entry.used {
                    return place;
                }
                entry.used = false;
            }
        }
        first
    }

    /// Moves the hand to the next entry: one that was used gets another round, one that was not goes.
    fn evict_next(&mut self) {
        let place = self.hand;
        self.hand = (self.hand + 1) & (self.hashes.len() - 1);
        match &mut self.entries[place] {
            Some(entry) if entry.used => entry.used = false,
            _ => self.remove(place),
        }
    }

    fn remove(&mut self, place: usize) {
        if let Some(entry) = self.entries[place].take() {
            self.bytes -= entry.key.len() + ENTRY_OVERHEAD;
            self.hashes[place] = 0;
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
