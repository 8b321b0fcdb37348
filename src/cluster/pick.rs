//! The choice of a host for one statement. On the hot path: no lock, no allocation, no clock.

use super::balance::Balancer;
use super::snapshot::{Fleet, MAX_HOSTS};
use crate::config::ReadsOnPrimary;
use crate::types::Floor;
use std::fmt::Write;
use std::time::Duration;

/// What a statement needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The primary.
    Primary,
    /// Any host that may serve reads.
    Read,
}

/// One statement's wishes.
#[derive(Clone, Copy, Debug)]
pub struct PickRequest<'a> {
    /// Primary, or any for a read.
    pub want: Want,
    /// What a read must see; `None` is anything within the lag limits.
    pub floor: Option<&'a Floor>,
    /// Replicas further behind than this are not wanted.
    pub max_lag: Option<Duration>,
    /// Hosts that were tried already, by index in this snapshot.
    pub excluded: HostSet,
    /// Whether the primary serves reads.
    pub reads_on_primary: ReadsOnPrimary,
    /// A hash of the client's address, for `ip_hash`.
    pub client_hash: u64,
    /// The host that was chosen first, by its index, if all its connections are in use: its queue is joined unless another is shorter.
    pub crowded: Option<usize>,
}

/// Why no host could be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHost {
    /// There is no primary.
    NoPrimary,
    /// No replica is in rotation (and the primary may not or cannot serve reads).
    NoReplica,
    /// Replicas are in rotation, but none has replayed what this session must see.
    BehindFloor,
    /// Every host that would do was tried already.
    AllTried,
}

/// Chooses a host: its index in `fleet.hosts`.
///
/// # Errors
/// [`NoHost`]; whether that is worth waiting for is the caller's to know.
pub fn pick(fleet: &Fleet, balancer: &Balancer, request: &PickRequest<'_>) -> Result<usize, NoHost> {
    let primary = match fleet.primary {
        Some(index) if request.excluded.contains(index) => Err(NoHost::AllTried),
        Some(index) => Ok(index),
        None => Err(NoHost::NoPrimary),
    };
    if request.want == Want::Primary {
        return primary;
    }
    let untried = fleet.eligible.iter().fold(HostSet::NONE, |set, index| set.with(*index)).without(request.excluded);
    let mut candidates = match request.floor {
        None => untried,
        Some(floor) => untried.filter(|index| shows(fleet, index, floor)),
    };
    if let Some(max_lag) = request.max_lag {
        candidates = candidates.filter(|index| fleet.hosts[index].lag.is_some_and(|lag| lag <= max_lag));
    }
    if let (ReadsOnPrimary::Always, Ok(index)) = (request.reads_on_primary, primary) {
        candidates = candidates.with(index);
    }
    if let Some(chosen) = request.crowded.filter(|chosen| candidates.contains(*chosen)) {
        return Ok(balancer.less_crowded(fleet, candidates, chosen));
    }
    if let Some(index) = balancer.choose(fleet, candidates, request.client_hash) {
        return Ok(index);
    }
    if let (ReadsOnPrimary::Fallback | ReadsOnPrimary::Always, Ok(index)) = (request.reads_on_primary, primary) {
        return Ok(index);
    }
    Err(if !untried.is_empty() {
        NoHost::BehindFloor
    } else if fleet.eligible.is_empty() && primary != Err(NoHost::AllTried) {
        NoHost::NoReplica
    } else {
        NoHost::AllTried
    })
}

/// Whether an eligible replica has replayed what `floor` names.
fn shows(fleet: &Fleet, index: usize, floor: &Floor) -> bool {
    let replayed = fleet.hosts.get(index).and_then(|view| view.sample).map(|sample| sample.lsn);
    fleet.era.zip(replayed).is_some_and(|(era, replayed)| era.shows(replayed, floor))
}

impl NoHost {
    /// The sentence for the client: what is missing, and the state of every host.
    pub fn explain(self, fleet: &Fleet) -> String {
        let mut text = String::from(match self {
            NoHost::NoPrimary => "no primary is available",
            NoHost::NoReplica => "no replica is available for reads",
            NoHost::BehindFloor => "no replica has caught up with this session's last write",
            NoHost::AllTried => "every suitable host has failed this statement",
        });
        for (index, view) in fleet.hosts.iter().enumerate() {
            let lead = if index == 0 { " (" } else { ", " };
            let role = if fleet.primary == Some(index) { "primary" } else { view.standing.meaning() };
            // Writing to a String cannot fail.
            let _ = write!(text, "{lead}{}: {role}", view.host.settings.name);
        }
        if !fleet.hosts.is_empty() {
            text.push(')');
        }
        text
    }
}

/// A set of hosts by their index in one snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostSet(u64);

impl HostSet {
    /// No host.
    pub const NONE: HostSet = HostSet(0);

    /// One host.
    pub fn only(index: usize) -> HostSet {
        HostSet::NONE.with(index)
    }

    /// With one more. Indexes from [`MAX_HOSTS`] on do not fit and are left out.
    pub fn with(self, index: usize) -> HostSet {
        if index < MAX_HOSTS { HostSet(self.0 | 1 << index) } else { self }
    }

    /// Whether the host is in the set.
    pub fn contains(self, index: usize) -> bool {
        index < MAX_HOSTS && self.0 >> index & 1 == 1
    }

    /// Those of `self` that `other` lacks.
    pub fn without(self, other: HostSet) -> HostSet {
        HostSet(self.0 & !other.0)
    }

    /// Those for which `keep` holds.
    pub fn filter(self, mut keep: impl FnMut(usize) -> bool) -> HostSet {
        self.iter().fold(HostSet::NONE, |set, index| if keep(index) { set.with(index) } else { set })
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The indexes, ascending.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let index = rest.trailing_zeros() as usize;
            (rest != 0).then(|| {
                rest &= rest - 1;
                index
            })
        })
    }

    /// The `n`-th index, ascending from 0.
    pub fn nth(self, n: usize) -> Option<usize> {
        self.iter().nth(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fixtures;
    use crate::cluster::snapshot::Standing;
    use crate::config::Balance;
    use crate::types::{Lsn, SystemId, Timeline};

    const READ: PickRequest<'static> = PickRequest {
        want: Want::Read,
        floor: None,
        max_lag: None,
        excluded: HostSet::NONE,
        reads_on_primary: ReadsOnPrimary::Fallback,
        client_hash: 0,
        crowded: None,
    };
    const WRITE: PickRequest<'static> = PickRequest { want: Want::Primary, ..READ };

    fn picks(fleet: &Fleet, request: &PickRequest<'_>) -> Vec<Result<usize, NoHost>> {
        let balancer = Balancer::new(Balance::RoundRobin, 1);
        (0..4).map(|_| pick(fleet, &balancer, request)).collect()
    }

    fn set(indexes: &[usize]) -> HostSet {
        indexes.iter().fold(HostSet::NONE, |set, index| set.with(*index))
    }

    #[test]
    fn writes_go_to_the_primary_only() {
        let mut fleet = fixtures::fleet(&[1000, 1000]);
        assert_eq!(picks(&fleet, &WRITE), [Ok(0); 4]);
        assert_eq!(picks(&fleet, &PickRequest { excluded: set(&[0]), ..WRITE }), [Err(NoHost::AllTried); 4]);
        fleet.primary = None;
        assert_eq!(picks(&fleet, &WRITE), [Err(NoHost::NoPrimary); 4]);
    }

    #[test]
    fn reads_are_spread_over_replicas_and_fall_back() {
        let fleet = fixtures::fleet(&[1000, 1000]);
        assert_eq!(picks(&fleet, &READ), [Ok(1), Ok(2), Ok(1), Ok(2)]);
        assert_eq!(picks(&fleet, &PickRequest { excluded: set(&[1]), ..READ }), [Ok(2); 4]);
        assert_eq!(picks(&fleet, &PickRequest { excluded: set(&[1, 2]), ..READ }), [Ok(0); 4]);
        assert_eq!(picks(&fleet, &PickRequest { excluded: set(&[0, 1, 2]), ..READ }), [Err(NoHost::AllTried); 4]);
    }

    #[test]
    fn reads_on_primary_always_and_never() {
        let mut fleet = fixtures::fleet(&[1000]);
        let always = PickRequest { reads_on_primary: ReadsOnPrimary::Always, ..READ };
        let never = PickRequest { reads_on_primary: ReadsOnPrimary::Never, ..READ };
        assert_eq!(picks(&fleet, &always), [Ok(0), Ok(1), Ok(0), Ok(1)]);
        assert_eq!(picks(&fleet, &never), [Ok(1); 4]);
        assert_eq!(picks(&fleet, &PickRequest { excluded: set(&[1]), ..never }), [Err(NoHost::AllTried); 4]);
        fleet.eligible = Box::default();
        assert_eq!(picks(&fleet, &never), [Err(NoHost::NoReplica); 4]);
        fleet.primary = None;
        assert_eq!(picks(&fleet, &always), [Err(NoHost::NoReplica); 4]);
        assert_eq!(picks(&fleet, &READ), [Err(NoHost::NoReplica); 4]);
        assert_eq!(picks(&Fleet::empty(), &READ), [Err(NoHost::NoReplica); 4]);
    }

    #[test]
    fn a_floor_leaves_only_who_has_replayed_it() {
        let mut fleet = fixtures::fleet(&[900, 1000]);
        let floor = |timeline, lsn| Floor { system: SystemId(7), timeline: Timeline(timeline), lsn: Lsn(lsn) };
        let check = |fleet: &Fleet, floor: Floor, expect: &[Result<usize, NoHost>; 4]| {
            assert_eq!(picks(fleet, &PickRequest { floor: Some(&floor), ..READ }), expect, "{floor:?}");
        };
        check(&fleet, floor(1, 900), &[Ok(1), Ok(2), Ok(1), Ok(2)]);
        check(&fleet, floor(1, 901), &[Ok(2); 4]);
        check(&fleet, floor(1, 1001), &[Ok(0); 4]);
        check(&fleet, floor(2, 1), &[Ok(0); 4]);
        check(&fleet, Floor { system: SystemId(8), ..floor(1, 1) }, &[Ok(0); 4]);
        // Without a primary there is nobody who surely shows it.
        fleet.primary = None;
        check(&fleet, floor(1, 901), &[Ok(2); 4]);
        check(&fleet, floor(1, 1001), &[Err(NoHost::BehindFloor); 4]);
        fleet.hosts[2].sample = None;
        check(&fleet, floor(1, 901), &[Err(NoHost::BehindFloor); 4]);
    }

    #[test]
    fn a_bound_on_the_lag_leaves_only_who_is_within_it() {
        let mut fleet = fixtures::fleet(&[1000, 1000]);
        let check = |fleet: &Fleet, bound, expect: &[Result<usize, NoHost>; 4]| {
            let max_lag = Some(Duration::from_millis(bound));
            assert_eq!(picks(fleet, &PickRequest { max_lag, ..READ }), expect, "{bound} ms");
        };
        fleet.hosts[1].lag = Some(Duration::from_millis(100));
        fleet.hosts[2].lag = Some(Duration::ZERO);
        check(&fleet, 100, &[Ok(1), Ok(2), Ok(1), Ok(2)]);
        check(&fleet, 99, &[Ok(2); 4]);
        fleet.hosts[2].lag = None;
        check(&fleet, 99, &[Ok(0); 4]);
        fleet.primary = None;
        check(&fleet, 99, &[Err(NoHost::BehindFloor); 4]);
    }

    #[test]
    fn where_all_must_wait_the_shortest_queue_is_joined_that_will_do() {
        let fleet = fixtures::fleet(&[900, 1000, 1000]);
        let crowded = PickRequest { crowded: Some(2), ..READ };
        for (index, load) in [0, 7, 9, 8].into_iter().enumerate() {
            fleet.hosts[index].host.in_flight.store(load, std::sync::atomic::Ordering::Relaxed);
        }
        assert_eq!(picks(&fleet, &crowded), [Ok(1); 4]);
        assert_eq!(picks(&fleet, &READ), [Ok(1); 4], "it has the fewest, and four turns' leeway");
        let floor = Floor { system: SystemId(7), timeline: Timeline(1), lsn: Lsn(950) };
        assert_eq!(picks(&fleet, &PickRequest { floor: Some(&floor), ..crowded }), [Ok(3); 4]);
        assert_eq!(picks(&fleet, &PickRequest { excluded: set(&[1, 3]), ..crowded }), [Ok(2); 4]);
        // Among equals it is the one that was chosen; one that will not do any more is chosen anew.
        fleet.hosts[2].host.in_flight.store(7, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(picks(&fleet, &crowded), [Ok(2); 4]);
        assert_eq!(picks(&fleet, &PickRequest { excluded: set(&[2]), ..crowded }), [Ok(1); 4]);
    }

    #[test]
    fn shares_stay_even_while_floors_change() {
        let balancer = Balancer::new(Balance::RoundRobin, 1);
        let mut shares = [0; 3];
        for step in 0..10_000u64 {
            // Replication flows: now one replica is ahead, now the other, and every third read has a floor between them.
            let (a, b) = if step / 7 % 2 == 0 { (900, 1000) } else { (1000, 900) };
            let fleet = fixtures::fleet(&[a, b]);
            let floor = Floor { system: SystemId(7), timeline: Timeline(1), lsn: Lsn(950) };
            let request = PickRequest { floor: (step % 3 == 0).then_some(&floor), ..READ };
            shares[pick(&fleet, &balancer, &request).unwrap()] += 1;
        }
        assert_eq!(shares[0], 0);
        assert!(i32::abs(shares[1] - shares[2]) < 500, "{shares:?}");
    }

    #[test]
    fn explains_with_every_hosts_state() {
        let mut fleet = fixtures::fleet(&[1000, 1000]);
        fleet.hosts[1].standing = Standing::LagTime;
        assert_eq!(
            NoHost::BehindFloor.explain(&fleet),
            "no replica has caught up with this session's last write (host0: primary, host1: over max_lag, host2: in rotation)"
        );
        assert_eq!(NoHost::NoPrimary.explain(&Fleet::empty()), "no primary is available");
    }

    #[test]
    fn host_sets() {
        let some = set(&[0, 5, 63]);
        assert_eq!(some.iter().collect::<Vec<_>>(), [0, 5, 63]);
        assert_eq!((some.len(), some.nth(1), some.nth(3)), (3, Some(5), None));
        assert!(some.contains(63) && !some.contains(1) && !some.contains(64));
        assert_eq!(set(&[64, 1000]), HostSet::NONE);
        assert_eq!(some.without(set(&[5])), set(&[0, 63]));
        assert_eq!(some.filter(|index| index > 3), set(&[5, 63]));
        assert!(HostSet::NONE.is_empty() && HostSet::only(3) == set(&[3]));
    }
}
