//! Values that every layer speaks of: log positions, identifiers, SQLSTATEs, secrets. No I/O, no dependencies on other layers.

pub mod backoff;
pub mod calendar;
pub mod decimal;
pub mod lsn;
pub mod secret;
pub mod sqlstate;

pub use backoff::Backoff;
pub use decimal::Decimal;
pub use lsn::{Floor, Lsn, SystemId, Timeline};
pub use secret::Secret;
pub use sqlstate::SqlState;
