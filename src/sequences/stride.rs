//! What sequences give, and steps by which shards do not meet. Pure.

use crate::shard::QualifiedName;

/// A sequence and the columns that it numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceName {
    /// The sequence.
    pub sequence: QualifiedName,
    /// Tables and columns that take their values from it by default.
    pub columns: Vec<(QualifiedName, String)>,
}

/// What a shard's sequence is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceFacts {
    /// The last value that was given, or the first one.
    pub last: i64,
    /// Whether `last` was given.
    pub called: bool,
    /// Its step.
    pub increment: i64,
    /// Its lowest value.
    pub min: i64,
    /// Its highest value.
    pub max: i64,
    /// It begins anew at its end.
    pub cycles: bool,
}

impl SequenceFacts {
    /// The value that it gives next; `None`: it is at its end.
    pub fn next(&self) -> Option<i64> {
        if !self.called {
            return Some(self.last);
        }
        let next = self.last.checked_add(self.increment)?;
        (self.min..=self.max).contains(&next).then_some(next)
    }

    /// The lowest and the highest value that it may yet give.
    fn range(&self) -> Option<(i64, i64)> {
        if self.cycles {
            return Some((self.min, self.max));
        }
        let next = self.next()?;
        Some(if self.increment > 0 { (next, self.max) } else { (self.min, next) })
    }
}

/// Whether two sequences may yet give the same value.
pub fn overlap(one: &SequenceFacts, two: &SequenceFacts) -> bool {
    let (Some(first), Some(second)) = (one.range(), two.range()) else { return false };
    if first.1 < second.0 || second.1 < first.0 {
        return false;
    }
    // Values go by remainders: where those of the greatest common step differ, they never meet. One that cycles begins anew at its end.
    let start = |facts: &SequenceFacts| match (facts.cycles, facts.increment > 0) {
        (true, true) => vec![facts.next(), Some(facts.min)],
        (true, false) => vec![facts.next(), Some(facts.max)],
        (false, _) => vec![facts.next()],
    };
    let step = i128::from(gcd(one.increment.unsigned_abs(), two.increment.unsigned_abs()).max(1));
    let mut pairs = start(one).into_iter().flatten().flat_map(|one| start(two).into_iter().flatten().map(move |two| (one, two)));
    pairs.any(|(one, two)| i128::from(one).rem_euclid(step) == i128::from(two).rem_euclid(step))
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The first value of each shard: beyond every value there is, with the shard's number as remainder of their count. `None`: no room is left.
pub fn first_values(shards: usize, highest: i64, max: i64) -> Option<Vec<i64>> {
    let count = i64::try_from(shards).ok()?;
    let base = highest.max(0).checked_add(count)? / count * count;
    let values: Option<Vec<i64>> = (0..count).map(|shard| base.checked_add(shard)).collect();
    values.filter(|values| values.iter().all(|value| *value <= max))
}

/// A column's name as SQL writes it.
pub fn quote_column(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table's or sequence's name as SQL writes it.
pub fn quoted(name: &QualifiedName) -> String {
    format!("{}.{}", quote_column(&name.schema), quote_column(&name.name))
}

/// Gives a shard's sequence its step; nobody gets a value from it until the transaction ends.
pub fn set_step(sequence: &QualifiedName, shards: usize) -> String {
    format!("ALTER SEQUENCE {} INCREMENT BY {shards}", quoted(sequence))
}

/// Has a shard's sequence go on from a value.
pub fn restart(sequence: &QualifiedName, shards: usize, value: i64) -> String {
    format!("ALTER SEQUENCE {} INCREMENT BY {shards} RESTART WITH {value}", quoted(sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(last: i64, called: bool, increment: i64) -> SequenceFacts {
        SequenceFacts { last, called, increment, min: 1, max: i64::MAX, cycles: false }
    }

    #[test]
    fn sequences_that_meet() {
        let check = |one: SequenceFacts, two: SequenceFacts, expect: bool| {
            assert_eq!((overlap(&one, &two), overlap(&two, &one)), (expect, expect), "{one:?} {two:?}");
        };
        check(facts(1, false, 1), facts(1, false, 1), true);
        check(facts(3, true, 3), facts(4, true, 3), false);
        check(facts(3, true, 3), facts(6, true, 3), true);
        check(facts(3, true, 3), facts(4, false, 3), false);
        check(facts(3, true, 2), facts(4, true, 3), true);
        check(facts(1, true, 4), facts(2, true, 2), false);
        let upper = SequenceFacts { min: 1000, ..facts(1000, false, 1) };
        check(SequenceFacts { max: 999, ..facts(1, false, 1) }, upper, false);
        check(SequenceFacts { max: 1000, ..facts(1, false, 1) }, upper, true);
        let ended = SequenceFacts { max: 5, ..facts(5, true, 1) };
        check(ended, facts(1, false, 1), false);
        check(SequenceFacts { cycles: true, ..ended }, facts(1, false, 1), true);
        let down = SequenceFacts { min: -100, max: -1, ..facts(-1, false, -1) };
        check(down, facts(1, false, 1), false);
        check(down, SequenceFacts { min: -100, ..facts(-50, true, 1) }, true);
    }

    #[test]
    fn first_values_are_beyond_all() {
        let check = |shards: usize, highest: i64, expect: &[i64]| {
            assert_eq!(first_values(shards, highest, i64::MAX).as_deref(), Some(expect), "{shards} {highest}");
        };
        check(3, 0, &[3, 4, 5]);
        check(3, 2, &[3, 4, 5]);
        check(3, 3, &[6, 7, 8]);
        check(3, -7, &[3, 4, 5]);
        check(1, 10, &[11]);
        assert_eq!(first_values(3, i64::MAX - 1, i64::MAX), None);
        assert_eq!(first_values(3, 32_766, 32_767), None);
        let sequence = QualifiedName { schema: "public".into(), name: "t_id_seq".into() };
        assert_eq!(restart(&sequence, 3, 4), "ALTER SEQUENCE \"public\".\"t_id_seq\" INCREMENT BY 3 RESTART WITH 4");
        assert_eq!(set_step(&sequence, 3), "ALTER SEQUENCE \"public\".\"t_id_seq\" INCREMENT BY 3");
    }
}
