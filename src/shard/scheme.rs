//! Which shard a key belongs to.

use super::hash::hash_key;
use super::key::KeyValue;
use super::ring::Ring;
use std::collections::HashMap;
use std::fmt;

/// How the rows of a table are spread.
#[derive(Clone, Debug, PartialEq)]
pub enum Scheme {
    /// As PostgreSQL's `PARTITION BY HASH` with as many partitions as there are shards: the shard's number is the remainder.
    Hash {
        /// How many shards.
        shards: usize,
    },
    /// By ranges of keys.
    Range(RangeScheme),
    /// By lists of keys.
    List(ListScheme),
    /// By consistent hashing.
    Ring(Ring),
}

impl Scheme {
    /// The shard of a key, which has a value for each key column; `None` when no shard takes such a key.
    pub fn shard_of(&self, key: &[KeyValue]) -> Option<usize> {
        match self {
            Scheme::Hash { shards } => usize::try_from(hash_key(key).checked_rem(*shards as u64)?).ok(),
            Scheme::Range(ranges) => ranges.shard_of(key),
            Scheme::List(lists) => lists.shard_of(key),
            Scheme::Ring(ring) => ring.shard_at(hash_key(key)),
        }
    }

    /// The scheme in words, with the shards' names, such as `range: s0 to 1000; s1 from 1000`.
    pub fn describe(&self, shards: &[String]) -> String {
        let name = |shard: usize| shards.get(shard).map_or("?", String::as_str);
        let with_default = |mut parts: Vec<String>, default: Option<usize>| {
            parts.extend(default.map(|shard| format!("{} has all others", name(shard))));
            parts.join("; ")
        };
        let details = match self {
            Scheme::Hash { .. } => return "hash".to_owned(),
            Scheme::Range(scheme) => {
                let bound = |word: &str, bound: &Option<Vec<KeyValue>>| {
                    bound.as_ref().map_or(String::new(), |key| format!(" {word} {}", KeyText(key)))
                };
                let part =
                    |range: &KeyRange| format!("{}{}{}", name(range.shard), bound("from", &range.from), bound("to", &range.to));
                with_default(scheme.ranges.iter().map(part).collect(), scheme.default)
            }
            Scheme::List(scheme) => {
                let mut keys: Vec<(usize, &Vec<KeyValue>)> = scheme.shards.iter().map(|(key, shard)| (*shard, key)).collect();
                keys.sort_unstable();
                let part = |group: &[(usize, &Vec<KeyValue>)]| {
                    let keys: Vec<String> = group.iter().map(|(_, key)| KeyText(key).to_string()).collect();
                    format!("{} has {}", name(group[0].0), keys.join(", "))
                };
                with_default(keys.chunk_by(|one, two| one.0 == two.0).map(part).collect(), scheme.default)
            }
            Scheme::Ring(ring) => {
                let weights: Vec<String> = ring.shards().iter().map(|(name, weight)| format!("{name} {weight}")).collect();
                format!("{} points for a weight of 1; weights {}", ring.virtual_nodes(), weights.join(", "))
            }
        };
        format!("{}: {details}", self.name())
    }

    /// Its name in the settings.
    pub fn name(&self) -> &'static str {
        match self {
            Scheme::Hash { .. } => "hash",
            Scheme::Range(_) => "range",
            Scheme::List(_) => "list",
            Scheme::Ring(_) => "ring",
        }
    }
}

/// A key for people: one value, or several in parentheses.
struct KeyText<'a>(&'a [KeyValue]);

impl fmt::Display for KeyText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<String> = self.0.iter().map(KeyValue::to_string).collect();
        if let [value] = values.as_slice() { f.write_str(value) } else { write!(f, "({})", values.join(", ")) }
    }
}

/// Keys from one bound to another. The order of texts is that of their bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyRange {
    /// The first key, one value for each key column; `None`: from the lowest.
    pub from: Option<Vec<KeyValue>>,
    /// The first key that is too high; `None`: to the highest.
    pub to: Option<Vec<KeyValue>>,
    /// Where such keys are.
    pub shard: usize,
}

impl KeyRange {
    /// Whether no key can be in it.
    pub fn is_empty(&self) -> bool {
        matches!((&self.from, &self.to), (Some(from), Some(to)) if from >= to)
    }
}

/// Ranges, in order and without overlaps.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeScheme {
    ranges: Vec<KeyRange>,
    default: Option<usize>,
}

/// What does not fit between two ranges of a scheme, by their places in the list that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeProblem {
    /// The range ends before it begins.
    Empty(usize),
    /// Some keys are in both.
    Overlap(usize, usize),
    /// Some keys are between the end of the first and the begin of the second, and there is no default.
    Gap(usize, usize),
    /// Keys below the lowest range have no shard, and there is no default.
    OpenBelow(usize),
    /// Keys above the highest range have no shard, and there is no default.
    OpenAbove(usize),
}

impl RangeProblem {
    /// Whether a scheme can be used all the same: keys in gaps are refused.
    pub fn is_gap(self) -> bool {
        matches!(self, RangeProblem::Gap(..) | RangeProblem::OpenBelow(_) | RangeProblem::OpenAbove(_))
    }
}

impl RangeScheme {
    /// A scheme of these ranges and the shard of all other keys, and what is wrong with them. With other problems than gaps it is not to be used.
    pub fn new(given: Vec<KeyRange>, default: Option<usize>) -> (RangeScheme, Vec<RangeProblem>) {
        let mut problems: Vec<RangeProblem> =
            given.iter().enumerate().filter(|(_, range)| range.is_empty()).map(|(place, _)| RangeProblem::Empty(place)).collect();
        let mut ranges: Vec<(usize, KeyRange)> = given.into_iter().enumerate().filter(|(_, range)| !range.is_empty()).collect();
        // No lower bound is `None`, which comes first.
        ranges.sort_by(|(_, one), (_, two)| one.from.cmp(&two.from));
        let gaps_matter = default.is_none();
        let mut widest: Option<&(usize, KeyRange)> = None;
        for next in &ranges {
            match widest {
                None if next.1.from.is_some() && gaps_matter => problems.push(RangeProblem::OpenBelow(next.0)),
                None => {}
                Some((before, KeyRange { to, .. })) => match (to, &next.1.from) {
                    (Some(to), Some(from)) if to <= from => {
                        if to < from && gaps_matter {
                            problems.push(RangeProblem::Gap(*before, next.0));
                        }
                    }
                    _ => problems.push(RangeProblem::Overlap(*before, next.0)),
                },
            }
            let wider = widest.is_none_or(|(_, range)| range.to.is_some() && (next.1.to.is_none() || next.1.to > range.to));
            if wider {
                widest = Some(next);
            }
        }
        if let Some((place, KeyRange { to: Some(_), .. })) = widest
            && gaps_matter
        {
            problems.push(RangeProblem::OpenAbove(*place));
        }
        (RangeScheme { ranges: ranges.into_iter().map(|(_, range)| range).collect(), default }, problems)
    }

    /// The ranges, in ascending order.
    pub fn ranges(&self) -> &[KeyRange] {
        &self.ranges
    }

    /// Where all other keys are.
    pub fn default_shard(&self) -> Option<usize> {
        self.default
    }

    fn shard_of(&self, key: &[KeyValue]) -> Option<usize> {
        // As in PostgreSQL, a key with a NULL is in no range.
        if key.iter().any(KeyValue::is_null) {
            return self.default;
        }
        let above = self.ranges.partition_point(|range| range.from.as_deref().is_none_or(|from| from <= key));
        let found = above.checked_sub(1).map(|last| &self.ranges[last]);
        found.filter(|range| range.to.as_deref().is_none_or(|to| key < to)).map(|range| range.shard).or(self.default)
    }
}

/// Lists of keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListScheme {
    shards: HashMap<Vec<KeyValue>, usize>,
    default: Option<usize>,
}

impl ListScheme {
    /// No keys yet; all keys are on the default shard, if there is one.
    pub fn new(default: Option<usize>) -> ListScheme {
        ListScheme { shards: HashMap::new(), default }
    }

    /// Puts a key on a shard. Returns the shard that has it already, if one has.
    pub fn insert(&mut self, key: Vec<KeyValue>, shard: usize) -> Option<usize> {
        match self.shards.entry(key) {
            std::collections::hash_map::Entry::Occupied(other) => Some(*other.get()),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(shard);
                None
            }
        }
    }

    /// Where keys are that no list has.
    pub fn default_shard(&self) -> Option<usize> {
        self.default
    }

    fn shard_of(&self, key: &[KeyValue]) -> Option<usize> {
        self.shards.get(key).copied().or(self.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(from: Option<i64>, to: Option<i64>, shard: usize) -> KeyRange {
        let bound = |value: Option<i64>| value.map(|value| vec![KeyValue::Integer(value)]);
        KeyRange { from: bound(from), to: bound(to), shard }
    }

    #[test]
    fn ranges() {
        let (scheme, problems) =
            RangeScheme::new(vec![range(Some(10), Some(20), 1), range(None, Some(10), 0), range(Some(20), None, 2)], None);
        assert_eq!(problems, []);
        for (key, shard) in [(i64::MIN, 0), (9, 0), (10, 1), (19, 1), (20, 2), (i64::MAX, 2)] {
            assert_eq!(scheme.shard_of(&[KeyValue::Integer(key)]), Some(shard), "{key}");
        }
        assert_eq!(scheme.shard_of(&[KeyValue::Null]), None);
    }

    #[test]
    fn what_is_wrong_with_ranges() {
        let check = |given: Vec<KeyRange>, default: Option<usize>, expect: &[RangeProblem]| {
            assert_eq!(RangeScheme::new(given.clone(), default).1, expect, "{given:?}");
        };
        check(vec![range(Some(1), Some(1), 0)], Some(0), &[RangeProblem::Empty(0)]);
        check(
            vec![range(Some(5), Some(9), 0), range(Some(1), Some(3), 1)],
            None,
            &[RangeProblem::OpenBelow(1), RangeProblem::Gap(1, 0), RangeProblem::OpenAbove(0)],
        );
        check(vec![range(Some(5), Some(9), 0), range(Some(1), Some(3), 1)], Some(1), &[]);
        check(vec![range(None, Some(5), 0), range(Some(4), None, 1)], None, &[RangeProblem::Overlap(0, 1)]);
        check(vec![range(None, None, 0), range(Some(4), Some(5), 1)], None, &[RangeProblem::Overlap(0, 1)]);
        check(vec![range(None, None, 0), range(None, Some(5), 1)], None, &[RangeProblem::Overlap(0, 1)]);
        check(
            vec![range(None, Some(9), 0), range(Some(1), Some(2), 1), range(Some(9), None, 2)],
            None,
            &[RangeProblem::Overlap(0, 1)],
        );
        check(vec![], None, &[]);
    }

    #[test]
    fn ranges_of_several_columns() {
        let bound = |text: &str, number: i64| Some(vec![KeyValue::text(text.as_bytes()), KeyValue::Integer(number)]);
        let given =
            vec![KeyRange { from: None, to: bound("b", 5), shard: 0 }, KeyRange { from: bound("b", 5), to: None, shard: 1 }];
        let (scheme, problems) = RangeScheme::new(given, None);
        assert_eq!(problems, []);
        for (text, number, shard) in [("a", 9, 0), ("b", 4, 0), ("b", 5, 1), ("ba", 0, 1)] {
            assert_eq!(scheme.shard_of(&bound(text, number).unwrap()), Some(shard), "{text} {number}");
        }
    }

    #[test]
    fn lists() {
        let text = |text: &str| vec![KeyValue::text(text.as_bytes())];
        let mut lists = ListScheme::new(None);
        assert_eq!(lists.insert(text("eu"), 0), None);
        assert_eq!(lists.insert(text("us"), 1), None);
        assert_eq!(lists.insert(text("eu"), 1), Some(0));
        assert_eq!(lists.shard_of(&text("eu")), Some(0));
        assert_eq!(lists.shard_of(&text("asia")), None);
        assert_eq!(lists.shard_of(&[KeyValue::Null]), None);
        let lists = ListScheme { default: Some(3), ..lists };
        assert_eq!(lists.shard_of(&text("asia")), Some(3));
    }

    #[test]
    fn schemes_in_words() {
        let shards = ["a".to_owned(), "b".to_owned()];
        let (ranges, _) = RangeScheme::new(vec![range(None, Some(10), 0), range(Some(10), Some(20), 1)], Some(0));
        assert_eq!(Scheme::Range(ranges).describe(&shards), "range: a to 10; b from 10 to 20; a has all others");
        let mut lists = ListScheme::new(Some(1));
        lists.insert(vec![KeyValue::text(b"eu"), KeyValue::Integer(2)], 0);
        lists.insert(vec![KeyValue::text(b"eu"), KeyValue::Integer(1)], 0);
        assert_eq!(Scheme::List(lists).describe(&shards), "list: a has (\"eu\", 1), (\"eu\", 2); b has all others");
        let ring = Ring::new(&[("a", 1), ("b", 2)], 8);
        assert_eq!(Scheme::Ring(ring).describe(&shards), "ring: 8 points for a weight of 1; weights a 1, b 2");
    }

    #[test]
    fn a_hash_without_shards_takes_no_key() {
        assert_eq!(Scheme::Hash { shards: 0 }.shard_of(&[KeyValue::Integer(1)]), None);
    }

    proptest! {
        #[test]
        fn every_key_is_where_its_range_says(mut bounds: Vec<i64>, keys: Vec<i64>) {
            bounds.sort_unstable();
            bounds.dedup();
            let edges: Vec<Option<i64>> = std::iter::once(None).chain(bounds.iter().copied().map(Some)).chain([None]).collect();
            let mut given: Vec<KeyRange> = edges.windows(2).enumerate().map(|(shard, pair)| range(pair[0], pair[1], shard)).collect();
            given.reverse();
            let (scheme, problems) = RangeScheme::new(given, None);
            prop_assert_eq!(problems, vec![]);
            for key in keys {
                let expect = bounds.iter().filter(|bound| **bound <= key).count();
                prop_assert_eq!(scheme.shard_of(&[KeyValue::Integer(key)]), Some(expect));
            }
        }
    }
}
