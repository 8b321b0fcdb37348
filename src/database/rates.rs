//! How many statements a role and an address may run: the buckets, and what is asked of them.

use super::directory::Database;
use super::role::RolePools;
use crate::auth::network;
use crate::config::DatabaseSettings;
use crate::types::{Rate, TokenBook};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Whose rate is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateLimit {
    /// The role's.
    User(Rate),
    /// The address's.
    Address(Rate),
}

/// The statements of one database, by the address that they came from.
pub type AddressBook = TokenBook<IpAddr>;

impl RolePools {
    fn statement_rate(&self, settings: &DatabaseSettings) -> Option<Rate> {
        let own = settings.users.iter().find(|user| *user.name == *self.role);
        own.and_then(|user| user.statement_rate).unwrap_or(settings.clients.statement_rate_per_user)
    }

    /// Has `count` statements of this role from `address` counted.
    ///
    /// # Errors
    /// They are not, because so many may not run now: whose rate forbids it, and how long until it does not.
    pub fn admit_statements(
        &self,
        database: &Database,
        (address, count): (Option<IpAddr>, u32),
        now: Instant,
    ) -> Result<(), (RateLimit, Duration)> {
        let settings = database.settings();
        let of_user = self.statement_rate(&settings);
        let of_address = settings.clients.statement_rate_per_address.zip(address.map(network));
        let mut bucket = self.statements.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let wait = of_user.map_or(Duration::ZERO, |rate| bucket.wait(&rate, count, now));
        if let (Some(rate), false) = (of_user, wait.is_zero()) {
            return Err((RateLimit::User(rate), wait));
        }
        if let Some((rate, address)) = of_address {
            let wait = database.addresses.wait(&address, (&rate, count), now);
            if !wait.is_zero() {
                return Err((RateLimit::Address(rate), wait));
            }
            database.addresses.take(&address, (&rate, count), now);
        }
        if let Some(rate) = of_user {
            bucket.take(&rate, count, now);
        }
        Ok(())
    }
}
