//! How often log-ins may fail: buckets for each address and each user, which fill again with time.
//!
//! Whoever has logged in from an address before is judged by a bucket of their own, so that neither somebody who guesses at their password
//! elsewhere nor a neighbour behind the same address locks them out. The book is bounded: when it is full, what has nearly been
//! forgiven is forgotten first.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Addresses, users and pairs of both that are remembered, each.
const ENTRIES_MAX: usize = 10_000;
/// How long somebody who has logged in counts as known.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 3600);

/// How many log-ins may fail in which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureLimits {
    /// From one address; 0 is no limit.
    pub per_address: usize,
    /// For one user; 0 is no limit.
    pub per_user: usize,
    /// The time in which that many failures are forgiven.
    pub window: Duration,
}

impl FailureLimits {
    /// How many may fail of a user who is known at an address; 0 is no limit.
    fn known(&self) -> usize {
        if self.per_user > 0 { self.per_user } else { self.per_address }
    }
}

/// Why a log-in is not even tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureLimit {
    /// Too many failed from the address.
    Address,
    /// Too many failed for the user.
    User,
}

/// Failures that are not forgiven yet, at a moment.
#[derive(Clone, Copy, Debug)]
struct Failures {
    count: f64,
    at: Instant,
}

impl Failures {
    /// How many are left at `now`, when `limit` are forgiven in `window`.
    fn left(&self, now: Instant, limit: usize, window: Duration) -> f64 {
        let forgiven = now.saturating_duration_since(self.at).as_secs_f64() / window.as_secs_f64().max(0.001) * limit as f64;
        (self.count - forgiven).max(0.0)
    }
}

/// The failures of one kind.
type Tally<K> = HashMap<K, Failures>;
/// A user at an address; `None` is a Unix socket.
type Pair = (Option<IpAddr>, Arc<str>);

#[derive(Debug, Default)]
struct FailureTables {
    addresses: Tally<IpAddr>,
    users: Tally<Arc<str>>,
    /// Who has logged in from where, since when, and their failures since.
    known: HashMap<Pair, (Instant, Failures)>,
}

/// The failed log-ins of the process.
#[derive(Debug, Default)]
pub struct FailureBook {
    tables: Mutex<FailureTables>,
}

impl FailureBook {
    /// Whether a log-in of `user` from `address` may be tried.
    ///
    /// # Errors
    /// Too many have failed, and for how long it stays so.
    pub fn check(
        &self,
        (address, user): (Option<IpAddr>, &str),
        limits: &FailureLimits,
        now: Instant,
    ) -> Result<(), (FailureLimit, Duration)> {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |failures: Option<&Failures>, limit: usize| {
            let left = failures?.left(now, limit, limits.window);
            let excess = left - limit as f64 + 1.0;
            (limit > 0 && excess > 0.001).then(|| limits.window.mul_f64(excess / limit as f64))
        };
        let address = address.map(network);
        if let Some((since, failures)) = tables.known.get(&(address, user.into()))
            && now.saturating_duration_since(*since) < KNOWN_FOR
        {
            let wait = over(Some(failures), limits.known());
            return wait.map_or(Ok(()), |wait| Err((FailureLimit::User, wait)));
        }
        if let Some(wait) = address.and_then(|address| over(tables.addresses.get(&address), limits.per_address)) {
            return Err((FailureLimit::Address, wait));
        }
        let wait = over(tables.users.get(user), limits.per_user);
        wait.map_or(Ok(()), |wait| Err((FailureLimit::User, wait)))
    }

    /// A log-in failed: the password or proof was wrong, or there is no such role.
    pub fn failed(&self, (address, user): (Option<IpAddr>, &str), limits: &FailureLimits, now: Instant) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let address = address.map(network);
        if let Some((since, failures)) = tables.known.get_mut(&(address, user.into()))
            && now.saturating_duration_since(*since) < KNOWN_FOR
        {
            *failures = Failures { count: failures.left(now, limits.known(), limits.window) + 1.0, at: now };
            return;
        }
        if let (Some(address), 1..) = (address, limits.per_address) {
            count(&mut tables.addresses, address, (limits.per_address, limits.window), now);
        }
        if limits.per_user > 0 {
            count(&mut tables.users, user.into(), (limits.per_user, limits.window), now);
        }
    }

    /// A log-in succeeded: from here on the user is known at this address.
    pub fn succeeded(&self, (address, user): (Option<IpAddr>, &str), limits: &FailureLimits, now: Instant) {
        if limits.per_address == 0 && limits.per_user == 0 {
            return;
        }
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = (address.map(network), user.into());
        if let Some((since, failures)) = tables.known.get_mut(&pair) {
            (*since, *failures) = (now, Failures { count: 0.0, at: now });
            return;
        }
        if tables.known.len() >= ENTRIES_MAX {
            tables.known.retain(|_, (since, _)| now.saturating_duration_since(*since) < KNOWN_FOR);
        }
        if tables.known.len() >= ENTRIES_MAX
            && let Some(oldest) = tables.known.iter().min_by_key(|(_, (since, _))| *since).map(|(pair, _)| pair.clone())
        {
            tables.known.remove(&oldest);
        }
        tables.known.insert(pair, (now, Failures { count: 0.0, at: now }));
    }
}

/// Whoever has one IPv6 address has a whole network of them.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 => v4,
    }
}

fn count<K: Hash + Eq + Clone>(tally: &mut Tally<K>, key: K, (limit, window): (usize, Duration), now: Instant) {
    let left = |failures: &Failures| failures.left(now, limit, window);
    if !tally.contains_key(&key) && tally.len() >= ENTRIES_MAX {
        tally.retain(|_, failures| left(failures) > 0.0);
        if tally.len() >= ENTRIES_MAX {
            let least = tally.iter().min_by(|(_, one), (_, two)| left(one).total_cmp(&left(two))).map(|(key, _)| key.clone());
            least.map(|key| tally.remove(&key));
        }
    }
    let failures = tally.entry(key).or_insert(Failures { count: 0.0, at: now });
    *failures = Failures { count: failures.left(now, limit, window) + 1.0, at: now };
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FailureLimits = FailureLimits { per_address: 3, per_user: 5, window: Duration::from_secs(60) };

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn an_address_is_refused_until_a_failure_is_forgiven() {
        let (book, start) = (FailureBook::default(), Instant::now());
        let who = |user| (ip("192.0.2.1"), user);
        for user in ["a", "b", "c"] {
            assert_eq!(book.check(who(user), &LIMITS, start), Ok(()));
            book.failed(who(user), &LIMITS, start);
        }
        let Err((FailureLimit::Address, wait)) = book.check(who("d"), &LIMITS, start) else { panic!("let in") };
        assert_eq!(wait, Duration::from_secs(20));
        assert_eq!(book.check((ip("192.0.2.2"), "d"), &LIMITS, start), Ok(()));
        assert!(book.check(who("d"), &LIMITS, start + Duration::from_secs(19)).is_err());
        assert_eq!(book.check(who("d"), &LIMITS, start + Duration::from_secs(20)), Ok(()));
    }

    #[test]
    fn a_user_is_refused_from_everywhere_but_where_it_has_been() {
        let (book, start) = (FailureBook::default(), Instant::now());
        book.succeeded((ip("10.0.0.1"), "alice"), &LIMITS, start);
        for last in 1..=5 {
            book.failed((ip(&format!("192.0.2.{last}")), "alice"), &LIMITS, start);
        }
        assert_eq!(book.check((ip("192.0.2.99"), "alice"), &LIMITS, start).unwrap_err().0, FailureLimit::User);
        assert_eq!(book.check((ip("192.0.2.99"), "bob"), &LIMITS, start), Ok(()));
        assert_eq!(book.check((ip("10.0.0.1"), "alice"), &LIMITS, start), Ok(()));
        // Being known is no licence to guess, with either limit.
        let by_address = FailureLimits { per_user: 0, ..LIMITS };
        (0..3).for_each(|_| book.failed((ip("10.0.0.1"), "alice"), &by_address, start));
        assert!(book.check((ip("10.0.0.1"), "alice"), &by_address, start).is_err());
        book.succeeded((ip("10.0.0.1"), "alice"), &LIMITS, start);
        (0..5).for_each(|_| book.failed((ip("10.0.0.1"), "alice"), &LIMITS, start));
        assert_eq!(book.check((ip("10.0.0.1"), "alice"), &LIMITS, start).unwrap_err().0, FailureLimit::User);
        assert_eq!(book.check((ip("10.0.0.1"), "bob"), &LIMITS, start), Ok(()));
    }

    #[test]
    fn a_neighbour_does_not_lock_out_who_is_known() {
        let (book, start) = (FailureBook::default(), Instant::now());
        book.succeeded((ip("192.0.2.1"), "app"), &LIMITS, start);
        (0..3).for_each(|_| book.failed((ip("192.0.2.1"), "mallory"), &LIMITS, start));
        assert!(book.check((ip("192.0.2.1"), "other"), &LIMITS, start).is_err());
        assert_eq!(book.check((ip("192.0.2.1"), "app"), &LIMITS, start), Ok(()));
    }

    #[test]
    fn limits_of_nothing_refuse_nobody_and_networks_count_as_one() {
        let (book, start) = (FailureBook::default(), Instant::now());
        let off = FailureLimits { per_address: 0, per_user: 0, window: Duration::from_secs(60) };
        (0..100).for_each(|_| book.failed((ip("192.0.2.1"), "a"), &off, start));
        assert_eq!(book.check((ip("192.0.2.1"), "a"), &off, start), Ok(()));
        (0..3).for_each(|last| book.failed((ip(&format!("2001:db8::{last}")), "x"), &LIMITS, start));
        assert!(book.check((ip("2001:db8::ffff"), "y"), &LIMITS, start).is_err());
        assert_eq!(book.check((ip("2001:db8:1::1"), "y"), &LIMITS, start), Ok(()));
        (0..5).for_each(|_| book.failed((None, "z"), &LIMITS, start));
        assert_eq!(book.check((None, "z"), &LIMITS, start).unwrap_err().0, FailureLimit::User);
    }

    #[test]
    fn the_book_is_bounded_and_keeps_the_worst() {
        let (book, start) = (FailureBook::default(), Instant::now());
        (0..3).for_each(|_| book.failed((ip("192.0.2.1"), "a"), &LIMITS, start));
        for number in 0..ENTRIES_MAX as u32 + 100 {
            book.failed((Some(IpAddr::V4((0x0A00_0000 + number).into())), &format!("user{number}")), &LIMITS, start);
        }
        let tables = book.tables.lock().unwrap();
        assert_eq!((tables.addresses.len(), tables.users.len()), (ENTRIES_MAX, ENTRIES_MAX));
        drop(tables);
        assert!(book.check((ip("192.0.2.1"), "b"), &LIMITS, start).is_err());
    }
}
