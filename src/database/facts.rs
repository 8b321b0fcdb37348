//! The facts of texts, cached per relay thread: no lock, no allocation on a hit.

use super::directory::Database;
use crate::sql::{Facts, FactsCache, Lexing};
use std::cell::RefCell;
use std::sync::Arc;

/// Texts cached per thread and database.
const CACHE_TEXTS: usize = 4096;
/// Memory for them. Bytes.
const CACHE_BYTES: usize = 4 * 1024 * 1024;
/// Databases with a cache, per thread.
const CACHED_DATABASES: usize = 32;

thread_local! {
    static CACHES: RefCell<Vec<(u64, FactsCache)>> = const { RefCell::new(Vec::new()) };
}

/// The facts of `text` under the database's present catalogue.
pub fn classify(database: &Database, text: &[u8], lexing: Lexing) -> Arc<Facts> {
    let catalogue = database.catalogue();
    CACHES.with(|caches| {
        let mut caches = caches.borrow_mut();
        let place = match caches.iter().position(|(id, _)| *id == database.id) {
            Some(place) => place,
            None => {
                if caches.len() == CACHED_DATABASES {
                    caches.remove(0);
                }
                caches.push((database.id, FactsCache::new(CACHE_TEXTS, CACHE_BYTES)));
                caches.len() - 1
            }
        };
        let cache = &mut caches[place].1;
        let misses = cache.misses;
        let facts = cache.get(text, &catalogue, lexing);
        let hit = cache.misses == misses;
        let metrics = &database.metrics;
        if hit { &metrics.facts_cache_hits } else { &metrics.facts_cache_misses }.increment();
        facts
    })
}
