//! How many clients a database takes, and how many of their statements.

use super::settings::UserSettings;
use crate::types::Rate;

/// Clients of one database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSettings {
    /// Clients at once; 0 (default) is no limit.
    pub max_clients: usize,
    /// Clients of one user at once; 0 (default) is no limit.
    pub max_clients_per_user: usize,
    /// Statements of one user. Default: no limit.
    pub statement_rate_per_user: Option<Rate>,
    /// Statements from one address. Default: no limit.
    pub statement_rate_per_address: Option<Rate>,
    /// Whether any user's statements are limited.
    pub is_rated: bool,
}

impl ClientSettings {
    /// Notes whether the statements of anybody are limited, these users' own settings included.
    pub(super) fn note_rates(&mut self, users: &[UserSettings]) {
        let of_all = self.statement_rate_per_user.or(self.statement_rate_per_address).is_some();
        self.is_rated = of_all || users.iter().any(|user| user.statement_rate.flatten().is_some());
    }
}
