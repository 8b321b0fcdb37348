//! How a host's places are shared by its pools when there are fewer than they want. Pure.
//!
//! Each pool gets what it wants up to an even share; what the modest ones leave is shared evenly by the others (max-min fairness). So
//! a role with a thousand waiting sessions can't keep another role's only session waiting. With fewer places than pools they take turns.

use std::time::{Duration, Instant};

/// With fewer places than pools, each keeps its place for this long: a turn costs two log-ins.
const TURN: Duration = Duration::from_millis(100);

/// What a pool has and wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PlaceDemand {
    /// Its connections, those that are being made too.
    pub(super) open: usize,
    /// How many it could use: those in use and those that are waited for, at most its size.
    pub(super) needed: usize,
    /// Idle ones that were in use a moment ago and will be again, most likely.
    pub(super) recent: usize,
    /// When it was last given a place.
    pub(super) granted: Option<Instant>,
}

impl PlaceDemand {
    /// The places that it wants.
    pub(super) fn wanted(&self) -> usize {
        self.needed + self.recent
    }

    /// Whether it could use more than it has.
    pub(super) fn is_short(&self) -> bool {
        self.wanted() > self.open
    }
}

/// How many of `places` each pool may have.
pub(super) fn shares(places: usize, demands: &[PlaceDemand], now: Instant) -> Vec<usize> {
    let mut order: Vec<usize> = (0..demands.len()).filter(|index| demands[*index].wanted() > 0).collect();
    order.sort_by_key(|index| demands[*index].wanted());
    let (mut shares, mut left) = (vec![0; demands.len()], places);
    let mut modest = 0;
    while let Some(index) = order.get(modest) {
        let wanted = demands[*index].wanted();
        if wanted > left / (order.len() - modest) {
            break;
        }
        (shares[*index], left, modest) = (wanted, left - wanted, modest + 1);
    }
    let rest = &mut order[modest..];
    if rest.is_empty() {
        return shares;
    }
    let (even, more) = (left / rest.len(), left % rest.len());
    rest.sort_by_key(|index| precedence(&demands[*index], even, now));
    for (place, index) in rest.iter().enumerate() {
        shares[*index] = even + usize::from(place < more);
    }
    shares
}

/// Who gets one of the places that an even division leaves, the lowest first: who has one, so that connections are not closed for nothing;
/// but where not everybody can have a place, whose turn is over stands behind those who have waited longer for theirs.
fn precedence(demand: &PlaceDemand, even: usize, now: Instant) -> (bool, Option<Instant>) {
    let on_turn = demand.needed > 0 && demand.granted.is_some_and(|at| now.saturating_duration_since(at) < TURN);
    let keeps = demand.open > even && (even > 0 || on_turn);
    (!keeps, demand.granted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(open: usize, needed: usize) -> PlaceDemand {
        PlaceDemand { open, needed, ..PlaceDemand::default() }
    }

    #[test]
    fn places_are_shared_evenly_and_what_one_leaves_is_the_others() {
        let check = |places: usize, wanted: &[(usize, usize)], expect: &[usize]| {
            let demands: Vec<PlaceDemand> = wanted.iter().map(|(open, needed)| pool(*open, *needed)).collect();
            assert_eq!(shares(places, &demands, Instant::now()), expect, "{places} {wanted:?}");
        };
        check(100, &[(0, 5), (0, 7)], &[5, 7]);
        // A single session beside a thousand.
        check(20, &[(20, 1020), (0, 1)], &[19, 1]);
        check(20, &[(20, 1020), (0, 1000)], &[10, 10]);
        check(20, &[(20, 1020), (0, 3), (0, 400)], &[9, 3, 8]);
        // Who has the odd one keeps it.
        check(3, &[(1, 9), (2, 9)], &[1, 2]);
        check(3, &[(2, 9), (1, 9)], &[2, 1]);
        check(2, &[(0, 0), (2, 9), (0, 0)], &[0, 2, 0]);
        check(0, &[(1, 9)], &[0]);
        check(9, &[], &[]);
    }

    #[test]
    fn with_fewer_places_than_pools_they_take_turns() {
        let now = Instant::now();
        let ago = |ms: u64| now.checked_sub(Duration::from_millis(ms));
        let held = |granted| PlaceDemand { granted, ..pool(1, 9) };
        let waits = |granted| PlaceDemand { granted, ..pool(0, 1) };
        assert_eq!(shares(1, &[held(ago(50)), waits(None)], now), [1, 0], "its turn has just begun");
        assert_eq!(shares(1, &[held(ago(150)), waits(None)], now), [0, 1]);
        assert_eq!(shares(1, &[waits(ago(400)), held(ago(150)), waits(ago(300))], now), [1, 0, 0], "who has waited longest");
        // An idle connection is no turn.
        let idle = PlaceDemand { granted: ago(50), recent: 1, ..pool(1, 0) };
        assert_eq!(shares(1, &[idle, waits(ago(400))], now), [0, 1]);
    }

    #[test]
    fn an_idle_connection_of_a_moment_ago_is_not_taken_by_who_has_more() {
        let idle = PlaceDemand { open: 1, recent: 1, ..PlaceDemand::default() };
        assert_eq!(shares(20, &[pool(19, 1000), idle], Instant::now()), [19, 1]);
        assert_eq!(shares(20, &[pool(19, 1000), pool(1, 0)], Instant::now()), [20, 0]);
    }

    proptest! {
        #[test]
        fn nothing_is_given_twice_or_left_lying(places in 0..40usize, wanted in proptest::collection::vec((0..10usize, 0..30usize), 0..8)) {
            let demands: Vec<PlaceDemand> = wanted.iter().map(|(open, needed)| pool(*open, *needed)).collect();
            let shares = shares(places, &demands, Instant::now());
            let total: usize = demands.iter().map(PlaceDemand::wanted).sum();
            prop_assert_eq!(shares.iter().sum::<usize>(), total.min(places));
            for (share, demand) in shares.iter().zip(&demands) {
                prop_assert!(*share <= demand.wanted());
                // Nobody who lacks something has two fewer than another.
                prop_assert!(*share == demand.wanted() || shares.iter().all(|other| *other <= share + 1));
            }
        }
    }
}
