//! Facts of texts seen before. One cache per relay thread, so that it needs no lock.
//!
//! Three levels: by the exact text; by templates, texts whose literals' values do not matter, so that a statement whose literals
//! change every time costs two comparisons; and by shape (see [`mod@crate::sql::shape`]), which costs a scan but no parse. None
//! allocates on a hit, and all compare the whole key, not its hash only.

mod shelf;
mod template;

use crate::sql::catalogue::Catalogue;
use crate::sql::classify::classify_shareable;
use crate::sql::facts::Facts;
use crate::sql::scan::Lexing;
use crate::sql::shape::shape;
use shelf::Shelf;
use std::hash::BuildHasher;
use std::hint::cold_path;
use std::sync::Arc;
use template::Templates;

/// Longer texts are neither kept nor looked up. Bytes.
const TEXT_LENGTH_MAX: usize = 16 * 1024;

/// One in so many texts found by their shape becomes a template: often enough for any text that keeps coming, and seldom enough where
/// templates crowd one another out.
const TEMPLATE_EVERY: u64 = 8;

/// Facts of recent texts.
///
/// Facts that come by shape were made from another text of that shape: then there is one statement, and its `span` is of that
/// other text. Who needs the text of a single statement takes the whole text.
pub struct FactsCache {
    /// Texts found by their bytes.
    pub hits: u64,
    /// Texts found by their shape.
    pub shape_hits: u64,
    /// Texts classified.
    pub misses: u64,
    texts: Shelf,
    shapes: Shelf,
    templates: Templates,
    /// Hashes of texts seen once: only a text that comes again is kept, so that changing literals fill no memory.
    seen_once: Box<[u64]>,
    hasher: foldhash::fast::RandomState,
    scratch: Vec<u8>,
    catalogue: u64,
}

impl FactsCache {
    /// A cache of at most `entries` texts and shapes together (rounded down to a power of two, at least 16) whose keys and facts
    /// take at most `bytes`, about.
    pub fn new(entries: usize, bytes: usize) -> Self {
        let each = (entries / 2).max(8);
        let each = 1 << each.ilog2();
        FactsCache {
            hits: 0,
            shape_hits: 0,
            misses: 0,
            texts: Shelf::new(each, bytes / 2),
            shapes: Shelf::new(each, bytes / 2),
            templates: Templates::new((each / 16).max(1)),
            seen_once: vec![0; each].into(),
            hasher: foldhash::fast::RandomState::default(),
            scratch: Vec::new(),
            catalogue: 0,
        }
    }

    /// The facts of a text: what [`classify`](crate::sql::classify()) says, except for `span` (see above).
    pub fn get(&mut self, text: &[u8], catalogue: &Arc<Catalogue>, lexing: Lexing) -> Arc<Facts> {
        if self.catalogue != catalogue.id {
            cold_path();
            self.texts.clear();
            self.shapes.clear();
            self.templates.clear();
            self.catalogue = catalogue.id;
        }
        if text.len() > TEXT_LENGTH_MAX {
            cold_path();
            self.misses += 1;
            return Arc::new(classify_shareable(text, catalogue, lexing).facts);
        }
        if let Some(facts) = self.templates.get(text, lexing) {
            self.shape_hits += 1;
            return Arc::clone(facts);
        }
        let hash = self.hasher.hash_one((lexing, text));
        if let Some(facts) = self.texts.get(hash, text, lexing) {
            self.hits += 1;
            return Arc::clone(facts);
        }
        let facts = self.by_shape(text, catalogue, lexing);
        if self.came_before(hash) {
            self.texts.insert(hash, text, lexing, &facts);
        }
        facts
    }

    #[inline(never)]
    fn by_shape(&mut self, text: &[u8], catalogue: &Catalogue, lexing: Lexing) -> Arc<Facts> {
        let told = shape(text, lexing, &mut self.scratch);
        let hash = self.hasher.hash_one(self.scratch.as_slice());
        if told && let Some(facts) = self.shapes.get(hash, &self.scratch, lexing) {
            self.shape_hits += 1;
            if self.shape_hits.is_multiple_of(TEMPLATE_EVERY) {
                self.templates.insert(text, lexing, facts);
            }
            return Arc::clone(facts);
        }
        self.misses += 1;
        let classified = classify_shareable(text, catalogue, lexing);
        let facts = Arc::new(classified.facts);
        if told && classified.shareable {
            self.shapes.insert(hash, &self.scratch, lexing, &facts);
        }
        facts
    }

    /// Whether a text of this hash was the last to be seen in its place; it is now.
    fn came_before(&mut self, hash: u64) -> bool {
        let place = (hash >> 32) as usize & (self.seen_once.len() - 1);
        std::mem::replace(&mut self.seen_once[place], hash) == hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::facts::{Access, SessionEffect, WriteReason};

    fn builtin() -> Arc<Catalogue> {
        Arc::new(Catalogue::builtin())
    }

    fn counters(cache: &FactsCache) -> (u64, u64, u64) {
        (cache.hits, cache.shape_hits, cache.misses)
    }

    #[test]
    fn texts_and_shapes_are_found() {
        let catalogue = builtin();
        let mut cache = FactsCache::new(64, 1 << 20);
        let mut get = |text: &str| {
            let facts = cache.get(text.as_bytes(), &catalogue, Lexing::default());
            (facts.access, counters(&cache))
        };
        assert_eq!(get("SELECT a FROM t WHERE b = 1"), (Access::Read, (0, 0, 1)));
        assert_eq!(get("SELECT a FROM t WHERE b = 1"), (Access::Read, (0, 1, 1)));
        assert_eq!(get("SELECT a FROM t WHERE b = 1"), (Access::Read, (1, 1, 1)));
        for index in 2..1000 {
            get(&format!("SELECT a FROM t WHERE b = {index}"));
        }
        assert_eq!(get("SELECT a FROM t WHERE b = 1.5").1, (1, 999, 2));
    }

    #[test]
    fn facts_that_depend_on_literals_are_not_shared() {
        let catalogue = builtin();
        let mut cache = FactsCache::new(64, 1 << 20);
        for _ in 0..3 {
            for value in ["a", "b"] {
                let text = format!("SELECT set_config('x.y', '{value}', false)");
                let facts = cache.get(text.as_bytes(), &catalogue, Lexing::default());
                let expect = SessionEffect::Set { name: "x.y".into(), value: Some(format!("'{value}'").into()) };
                assert_eq!(facts.statements[0].effects, [expect]);
            }
            for (name, access) in [("cluster_name", Access::Read), ("port", Access::Server)] {
                let text = format!("SELECT current_setting('{name}')");
                assert_eq!(cache.get(text.as_bytes(), &catalogue, Lexing::default()).access, access);
            }
            for (hint, expect) in [("primary", true), ("nothing", false)] {
                let text = format!("/* pgyard: {hint} */ SELECT 1");
                assert_eq!(cache.get(text.as_bytes(), &catalogue, Lexing::default()).hint.is_some(), expect);
            }
            for value in ["1", "2"] {
                let text = format!("SET work_mem = {value}");
                let facts = cache.get(text.as_bytes(), &catalogue, Lexing::default());
                assert_eq!(
                    facts.statements[0].effects,
                    [SessionEffect::Set { name: "work_mem".into(), value: Some(value.into()) }]
                );
            }
        }
    }

    #[test]
    fn another_catalogue_or_lexing_is_another_question() {
        let mut cache = FactsCache::new(64, 1 << 20);
        let row = |kind: &str, name: &str, detail: &str| {
            [Some(kind.to_owned()), None, Some(name.to_owned()), Some(detail.to_owned()), None, None, None]
        };
        let text = b"SELECT f(1), '\\'";
        let unsafe_lexing = Lexing { standard_conforming_strings: false, ascii_safe_encoding: true };
        let (bound, volatile) = (Access::Write(WriteReason::SessionBound), Access::Write(WriteReason::VolatileFunction));
        for (volatility, access) in [("s", bound), ("v", volatile), ("s", bound)] {
            let catalogue = Arc::new(Catalogue::from_rows([row("function", "f", volatility)]));
            for _ in 0..3 {
                // The language is not given, so that the function is opaque too.
                assert_eq!(cache.get(text, &catalogue, Lexing::default()).access, access);
                assert_eq!(cache.get(text, &catalogue, unsafe_lexing).access, Access::Write(WriteReason::UnsafeLexing));
            }
        }
    }

    #[test]
    fn bounds_hold() {
        let catalogue = builtin();
        let mut cache = FactsCache::new(32, 20_000);
        for round in 0..3 {
            for index in 0..500 {
                let column = "x".repeat(index % 200);
                cache.get(format!("SELECT c{column}_{index}").as_bytes(), &catalogue, Lexing::default());
                cache.get(format!("SELECT c{column}_{index}").as_bytes(), &catalogue, Lexing::default());
                assert!(cache.texts.bytes() <= 10_000 && cache.shapes.bytes() <= 10_000, "{round} {index}");
            }
        }
        let long = format!("SELECT {}1", "1 + ".repeat(10_000));
        let before = cache.misses;
        for _ in 0..3 {
            cache.get(long.as_bytes(), &catalogue, Lexing::default());
        }
        assert_eq!(cache.misses, before + 3);
    }
}
