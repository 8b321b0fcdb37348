//! How many clients a database has, in all and of each role. A place is taken before a client is let in, so that log-ins at the same
//! moment can't go over a limit together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many clients may be logged in at once; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeatLimits {
    /// To the database.
    pub database: usize,
    /// Of the role.
    pub role: usize,
}

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeatLimit {
    /// That of the database.
    Database,
    /// That of the role.
    Role,
}

/// The clients of one database.
#[derive(Debug, Default)]
pub struct ClientSeats {
    counts: Mutex<SeatCounts>,
}

#[derive(Debug, Default)]
struct SeatCounts {
    all: usize,
    roles: HashMap<Arc<str>, usize>,
}

/// One client's place; dropping it frees the place.
#[derive(Debug)]
pub struct ClientSeat {
    seats: Arc<ClientSeats>,
    role: Arc<str>,
}

impl ClientSeats {
    fn lock(&self) -> MutexGuard<'_, SeatCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.lock().all == 0
    }

    /// A place for a client of this role.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn take(self: &Arc<Self>, role: &str, limits: SeatLimits) -> Result<ClientSeat, SeatLimit> {
        let mut counts = self.lock();
        let known = counts.roles.get_key_value(role).map(|(name, count)| (name.clone(), *count));
        let (role, of_role) = known.unwrap_or_else(|| (role.into(), 0));
        let reached = |count: usize, limit: usize| limit > 0 && count >= limit;
        if reached(of_role, limits.role) {
            return Err(SeatLimit::Role);
        }
        if reached(counts.all, limits.database) {
            return Err(SeatLimit::Database);
        }
        counts.all += 1;
        counts.roles.insert(role.clone(), of_role + 1);
        Ok(ClientSeat { seats: self.clone(), role })
    }
}

impl Drop for ClientSeat {
    fn drop(&mut self) {
        let mut counts = self.seats.lock();
        counts.all -= 1;
        if let Some(count) = counts.roles.get_mut(&self.role) {
            *count -= 1;
            if *count == 0 {
                counts.roles.remove(&self.role);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_role_and_in_all() {
        let seats = Arc::new(ClientSeats::default());
        let limits = SeatLimits { database: 3, role: 2 };
        let first = seats.take("a", limits).unwrap();
        let second = seats.take("a", limits).unwrap();
        assert_eq!(seats.take("a", limits).unwrap_err(), SeatLimit::Role);
        let third = seats.take("b", limits).unwrap();
        assert_eq!(seats.take("c", limits).unwrap_err(), SeatLimit::Database);
        drop(first);
        assert!(seats.take("c", limits).is_ok());
        let none = SeatLimits { database: 0, role: 0 };
        let many: Vec<_> = (0..10).map(|_| seats.take("a", none).unwrap()).collect();
        assert!(seats.lock().all == 12 && !seats.is_empty());
        drop((second, third, many));
        assert!(seats.is_empty());
        let counts = seats.lock();
        assert_eq!((counts.all, counts.roles.len()), (0, 0));
    }

    #[test]
    fn log_ins_at_the_same_moment_do_not_go_over_a_limit_together() {
        let seats = Arc::new(ClientSeats::default());
        let limits = SeatLimits { database: 0, role: 10 };
        let took = std::thread::scope(|scope| {
            let taking: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..100).filter_map(|_| seats.take("a", limits).ok()).collect::<Vec<_>>()))
                .collect();
            taking.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(took.len(), 10);
    }
}
