//! How one of several eligible hosts is chosen. Atomics only: one [`Balancer`] may serve a worker or be shared by all.

use super::pick::HostSet;
use super::snapshot::{Fleet, Host, MAX_HOSTS};
use crate::config::Balance;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a host of weight 1 pays for a turn.
const TURN: u64 = 1 << 20;

/// Turns that a host may be behind the others and still make good. It bounds the burst on a host that comes back.
const CREDIT_TURNS: u64 = 16;

/// Turns that a host may be ahead of the others under `round_robin` while it has less to do than they.
const LEEWAY_TURNS: u64 = 4;

/// For ways of taking turns that look at bills only.
const NO_LOAD: Option<fn(usize) -> u32> = None;

/// The state of one way of balancing.
///
/// Turns are kept as a bill for each host: the cheapest candidate is next, and pays. So a host that a floor or a failure kept
/// out of some turns makes them good, and shares stay even although the candidates change from pick to pick. A bill that fell
/// far behind is raised: a host that was away for an hour does not get an hour's worth of statements at once.
///
/// Under `round_robin` the host with the fewest statements under way goes first, as long as it is less than four turns ahead. One
/// client sees strict alternation; of many, whose statements end in any order, no host gets the most at once while another idles,
/// and each keeps fewer connections warm.
#[derive(Debug)]
pub struct Balancer {
    balance: Balance,
    bills: [AtomicU64; MAX_HOSTS],
    dice: AtomicU64,
}

impl Balancer {
    /// A balancer; `seed` sets apart the workers' dice.
    pub fn new(balance: Balance, seed: u64) -> Self {
        Balancer { balance, bills: [const { AtomicU64::new(0) }; MAX_HOSTS], dice: AtomicU64::new(mix(seed)) }
    }

    /// The configured way.
    pub fn balance(&self) -> Balance {
        self.balance
    }

    /// One of `candidates`, `None` if there is none. `client_hash` counts for `ip_hash` only.
    pub(super) fn choose(&self, fleet: &Fleet, candidates: HostSet, client_hash: u64) -> Option<usize> {
        let host = |index: usize| fleet.hosts.get(index).map(|view| view.host.as_ref());
        let load = |index: usize| host(index).map_or(u32::MAX, |host| host.in_flight.load(Ordering::Relaxed));
        match self.balance {
            Balance::RoundRobin => self.next_turn(candidates, |_| TURN, Some(load)),
            Balance::Weighted => {
                let weight = |index| host(index).map_or(0, |host| u64::from(host.settings.weight));
                let wanted = candidates.filter(|index| weight(index) > 0);
                let among = if wanted.is_empty() { candidates } else { wanted };
                self.next_turn(among, |index| TURN / weight(index).clamp(1, TURN), NO_LOAD)
            }
            Balance::LeastConnections => {
                let least = candidates.iter().map(load).min()?;
                self.next_turn(candidates.filter(|index| load(index) == least), |_| TURN, NO_LOAD)
            }
            Balance::Random => candidates.nth(self.roll(candidates.len())),
            Balance::IpHash => {
                let score = |index: &usize| host(*index).map(|host| mix(client_hash ^ mix(host.placement)));
                candidates.iter().max_by_key(score)
            }
            Balance::PeakEwma => self.better_of_two(fleet, candidates),
        }
    }

    /// For a statement that would have to wait at `chosen`: the candidate with the fewest statements under way and waiting, `chosen`
    /// among equals. Weights and addresses bind: where those decide, it waits.
    #[cold]
    pub(super) fn less_crowded(&self, fleet: &Fleet, candidates: HostSet, chosen: usize) -> usize {
        if matches!(self.balance, Balance::Weighted | Balance::IpHash) {
            return chosen;
        }
        let load = |index: usize| fleet.hosts.get(index).map_or(u32::MAX, |view| view.host.in_flight.load(Ordering::Relaxed));
        candidates.iter().fold(chosen, |best, index| if load(index) < load(best) { index } else { best })
    }

    /// The candidate with the least bill, which then pays; with `load`, the one with the least load if its bill is little more.
    fn next_turn(&self, candidates: HostSet, price: impl Fn(usize) -> u64, load: Option<impl Fn(usize) -> u32>) -> Option<usize> {
        let (mut cheapest, mut emptiest, mut dearest) = (None, None, 0);
        for index in candidates.iter() {
            let owed = self.bills[index].load(Ordering::Relaxed);
            dearest = dearest.max(owed);
            if cheapest.is_none_or(|(_, least)| owed < least) {
                cheapest = Some((index, owed));
            }
            if let Some(load) = &load {
                let rank = (load(index), owed);
                if emptiest.is_none_or(|(_, lowest)| rank < lowest) {
                    emptiest = Some((index, rank));
                }
            }
        }
        let (mut chosen, mut owed) = cheapest?;
        if let Some((index, (_, its))) = emptiest
            && its < owed + LEEWAY_TURNS * TURN
        {
            (chosen, owed) = (index, its);
        }
        let floor = dearest.saturating_sub(CREDIT_TURNS * TURN);
        if owed < floor {
            self.bills[chosen].fetch_max(floor, Ordering::Relaxed);
        }
        self.bills[chosen].fetch_add(price(chosen), Ordering::Relaxed);
        Some(chosen)
    }

    /// The cheaper of two picked by chance: near the best choice without everyone choosing the same.
    fn better_of_two(&self, fleet: &Fleet, candidates: HostSet) -> Option<usize> {
        let first = candidates.nth(self.roll(candidates.len()))?;
        let others = candidates.without(HostSet::only(first));
        let Some(second) = others.nth(self.roll(others.len())) else { return Some(first) };
        let cost = |index: usize| fleet.hosts.get(index).map_or(u64::MAX, |view| peak_cost(&view.host));
        Some(if cost(second) < cost(first) { second } else { first })
    }

    /// A number under `sides`; 0 for none.
    fn roll(&self, sides: usize) -> usize {
        let state = self.dice.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        let wide = u128::from(mix(state)) * sides as u128;
        (wide >> 64) as usize
    }
}

fn peak_cost(host: &Host) -> u64 {
    let in_flight = u64::from(host.in_flight.load(Ordering::Relaxed)) + 1;
    host.latency_us.load(Ordering::Relaxed).saturating_add(1).saturating_mul(in_flight)
}

/// A bijection of 64 bits in which every bit depends on every other (the finalizer of SplitMix64).
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fixtures;
    use crate::cluster::snapshot::HostView;
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::time::Duration;

    fn set(indexes: &[usize]) -> HostSet {
        indexes.iter().fold(HostSet::NONE, |set, index| set.with(*index))
    }

    fn weights(fleet: &mut Fleet, weights: &[u32]) {
        for (view, weight) in fleet.hosts.iter_mut().skip(1).zip(weights) {
            let settings = crate::config::HostSettings { weight: *weight, ..view.host.settings.clone() };
            *view = HostView { host: Arc::new(view.host.with_settings(settings)), ..view.clone() };
        }
    }

    fn counts(balancer: &Balancer, fleet: &Fleet, candidates: HostSet, picks: usize) -> Vec<usize> {
        let mut counts = vec![0; fleet.hosts.len()];
        for pick in 0..picks {
            counts[balancer.choose(fleet, candidates, pick as u64).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn nobody_to_choose_from() {
        let fleet = fixtures::fleet(&[1000]);
        use Balance::*;
        for balance in [RoundRobin, LeastConnections, Weighted, Random, IpHash, PeakEwma] {
            assert_eq!(Balancer::new(balance, 1).choose(&fleet, HostSet::NONE, 5), None);
            assert_eq!(Balancer::new(balance, 1).choose(&fleet, HostSet::only(1), 5), Some(1), "{balance:?}");
        }
    }

    #[test]
    fn round_robin_alternates() {
        let (fleet, balancer) = (fixtures::fleet(&[1000, 1000, 1000]), Balancer::new(Balance::RoundRobin, 1));
        let picks: Vec<_> = (0..6).map(|_| balancer.choose(&fleet, set(&[1, 2, 3]), 0).unwrap()).collect();
        assert_eq!(picks, [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn round_robin_takes_the_idle_first_within_its_leeway() {
        let (fleet, balancer) = (fixtures::fleet(&[1000, 1000]), Balancer::new(Balance::RoundRobin, 1));
        fleet.hosts[1].host.in_flight.store(1, Ordering::Relaxed);
        let picks: Vec<_> = (0..8).map(|_| balancer.choose(&fleet, set(&[1, 2]), 0).unwrap()).collect();
        assert_eq!(picks, [2, 2, 2, 2, 1, 2, 1, 2], "however slow the other is, it keeps its share");
        fleet.hosts[1].host.in_flight.store(0, Ordering::Relaxed);
        let even = counts(&balancer, &fleet, set(&[1, 2]), 100);
        assert!(even[1].abs_diff(even[2]) <= LEEWAY_TURNS as usize, "{even:?}");
    }

    #[test]
    fn a_host_that_was_away_is_not_flooded() {
        let (fleet, balancer) = (fixtures::fleet(&[1000, 1000]), Balancer::new(Balance::RoundRobin, 1));
        counts(&balancer, &fleet, set(&[1]), 1_000_000);
        let back = counts(&balancer, &fleet, set(&[1, 2]), 1000);
        assert_eq!(back[2] - back[1], CREDIT_TURNS as usize);
    }

    #[test]
    fn weighted_shares_smoothly() {
        let mut fleet = fixtures::fleet(&[1000, 1000, 1000]);
        weights(&mut fleet, &[5, 1, 0]);
        let balancer = Balancer::new(Balance::Weighted, 1);
        assert_eq!(counts(&balancer, &fleet, set(&[1, 2, 3]), 6000)[1..], [5000, 1000, 0]);
        let run: Vec<_> = (0..12).map(|_| balancer.choose(&fleet, set(&[1, 2]), 0).unwrap()).collect();
        assert!(run.windows(7).all(|seven| seven.contains(&2)), "{run:?}");
        assert_eq!(balancer.choose(&fleet, HostSet::only(3), 0), Some(3), "weight 0 serves when nobody else can");
    }

    #[test]
    fn least_connections_takes_the_emptiest_and_shares_ties() {
        let (fleet, balancer) = (fixtures::fleet(&[1000, 1000, 1000]), Balancer::new(Balance::LeastConnections, 1));
        for (index, load) in [(1, 5), (2, 2), (3, 9)] {
            fleet.hosts[index].host.in_flight.store(load, Ordering::Relaxed);
        }
        assert_eq!(balancer.choose(&fleet, set(&[1, 2, 3]), 0), Some(2));
        assert_eq!(balancer.choose(&fleet, set(&[1, 3]), 0), Some(1));
        fleet.hosts[3].host.in_flight.store(2, Ordering::Relaxed);
        let shared = counts(&balancer, &fleet, set(&[1, 2, 3]), 100);
        assert!(shared[1] == 0 && shared[2].abs_diff(shared[3]) <= 1, "{shared:?}");
    }

    #[test]
    fn random_is_even_enough() {
        let (fleet, balancer) = (fixtures::fleet(&[1000, 1000, 1000]), Balancer::new(Balance::Random, 42));
        let shares = counts(&balancer, &fleet, set(&[1, 2, 3]), 9000);
        assert!(shares[1..].iter().all(|share| share.abs_diff(3000) < 300), "{shares:?}");
    }

    #[test]
    fn ip_hash_moves_only_the_clients_of_a_host_that_leaves() {
        let (fleet, balancer) = (fixtures::fleet(&[1000, 1000, 1000, 1000]), Balancer::new(Balance::IpHash, 1));
        let all = set(&[1, 2, 3, 4]);
        for client in 0..2000u64 {
            let home = balancer.choose(&fleet, all, client).unwrap();
            let without_three = balancer.choose(&fleet, set(&[1, 2, 4]), client).unwrap();
            assert!(home == 3 || without_three == home, "client {client}");
            assert_eq!(balancer.choose(&fleet, all, client), Some(home));
        }
        let shares = counts(&balancer, &fleet, all, 8000);
        assert!(shares[1..].iter().all(|share| share.abs_diff(2000) < 300), "{shares:?}");
    }

    #[test]
    fn peak_ewma_avoids_the_slow_and_the_busy() {
        let (fleet, balancer) = (fixtures::fleet(&[1000, 1000, 1000]), Balancer::new(Balance::PeakEwma, 7));
        fleet.hosts[1].host.record_latency(Duration::from_millis(50));
        fleet.hosts[2].host.record_latency(Duration::from_millis(1));
        fleet.hosts[3].host.record_latency(Duration::from_millis(1));
        fleet.hosts[3].host.in_flight.store(1, Ordering::Relaxed);
        assert_eq!(counts(&balancer, &fleet, set(&[1, 2]), 100)[1], 0);
        assert_eq!(counts(&balancer, &fleet, set(&[2, 3]), 100)[3], 0);
        assert_eq!(counts(&balancer, &fleet, set(&[1, 2, 3]), 300)[1], 0, "the slowest of three never wins a pair");
        for _ in 0..60 {
            fleet.hosts[1].host.decay_latency();
        }
        assert_eq!(counts(&balancer, &fleet, set(&[1, 2]), 100)[1], 100, "after a while it is tried again");
    }

    #[test]
    fn weights_and_addresses_bind_also_where_a_statement_must_wait() {
        let fleet = fixtures::fleet(&[1000, 1000]);
        fleet.hosts[1].host.in_flight.store(5, Ordering::Relaxed);
        use Balance::*;
        for (balance, expect) in [(RoundRobin, 2), (Random, 2), (LeastConnections, 2), (PeakEwma, 2), (Weighted, 1), (IpHash, 1)]
        {
            let found = Balancer::new(balance, 1).less_crowded(&fleet, set(&[1, 2]), 1);
            assert_eq!(found, expect, "{balance:?}");
        }
    }

    #[test]
    fn shared_by_threads_shares_stay_even() {
        let (fleet, balancer) = (fixtures::fleet(&[1000, 1000]), Balancer::new(Balance::RoundRobin, 1));
        let total = std::sync::Mutex::new([0usize; 3]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mine = counts(&balancer, &fleet, set(&[1, 2]), 20_000);
                    let mut total = total.lock().unwrap();
                    (0..3).for_each(|index| total[index] += mine[index]);
                });
            }
        });
        let total = total.into_inner().unwrap();
        assert!(total[1].abs_diff(total[2]) < 8000, "{total:?}");
    }

    proptest! {
        /// Each pick may leave some hosts out by chance (floors, excluded hosts): the shares of hosts with the same chances
        /// stay within 10 % of even.
        #[test]
        fn round_robin_stays_even_under_changing_candidates(
            hosts in 2usize..6,
            exclusions in prop::collection::vec(0u64..64, 4000..5000),
        ) {
            let (fleet, balancer) = (fixtures::fleet(&vec![1000; hosts]), Balancer::new(Balance::RoundRobin, 1));
            let mut shares = vec![0usize; hosts + 1];
            let mut picks = 0;
            for excluded in exclusions {
                let candidates = set(&(1..=hosts).collect::<Vec<_>>()).filter(|index| excluded >> index & 1 == 0);
                if let Some(index) = balancer.choose(&fleet, candidates, 0) {
                    shares[index] += 1;
                    picks += 1;
                }
            }
            let even = picks / hosts;
            // Host 6 and above are never excluded by a number under 64; with at most five hosts all are alike.
            prop_assert!(shares[1..].iter().all(|share| share.abs_diff(even) <= even / 10 + 1), "{shares:?} of {picks}");
        }
    }
}
