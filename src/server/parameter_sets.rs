//! Equal parameter sets made one, so that "the server has what the session wants" is a comparison of two addresses.

use super::ParameterSet;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Sets that are looked through for unused ones at the earliest.
const SWEEP_MIN: usize = 64;

/// The parameter sets that sessions of one database have at present.
#[derive(Debug, Default)]
pub struct ParameterSets {
    known: Mutex<KnownSets>,
}

#[derive(Debug, Default)]
struct KnownSets {
    sets: HashSet<Arc<ParameterSet>>,
    /// When there are more than these, those that nobody has any more are dropped.
    sweep_at: usize,
}

impl ParameterSets {
    /// The one set that is equal to `set`.
    pub fn intern(&self, set: &Arc<ParameterSet>) -> Arc<ParameterSet> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.sets.get(&**set) {
            return found.clone();
        }
        if known.sets.len() >= known.sweep_at.max(SWEEP_MIN) {
            known.sets.retain(|set| Arc::strong_count(set) > 1);
            known.sweep_at = known.sets.len() * 2;
        }
        known.sets.insert(set.clone());
        set.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str) -> Arc<ParameterSet> {
        let mut set = ParameterSet::default();
        set.set_text("application_name", name);
        Arc::new(set)
    }

    #[test]
    fn equal_sets_become_one() {
        let sets = ParameterSets::default();
        let one = sets.intern(&set("a"));
        assert!(Arc::ptr_eq(&one, &sets.intern(&set("a"))));
        assert!(!Arc::ptr_eq(&one, &sets.intern(&set("b"))));
    }

    #[test]
    fn sets_that_nobody_has_are_dropped() {
        let sets = ParameterSets::default();
        let kept = sets.intern(&set("kept"));
        for index in 0..10_000 {
            sets.intern(&set(&index.to_string()));
            assert!(sets.known.lock().unwrap().sets.len() <= SWEEP_MIN, "{index}");
        }
        assert!(Arc::ptr_eq(&kept, &sets.intern(&set("kept"))));
    }
}
