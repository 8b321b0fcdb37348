//! Positions in PostgreSQL's write-ahead log.

use std::fmt;
use std::str::FromStr;

/// A byte position in the write-ahead log, printed as PostgreSQL prints `pg_lsn`: `16/B374D848`.
///
/// Spec: PostgreSQL documentation, "pg_lsn Type".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// A timeline of the write-ahead log; a promotion starts a new, higher one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeline(pub u32);

/// What `pg_control_system()` calls `system_identifier`: the same on a primary and all its replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemId(pub u64);

/// The oldest state that a read may see: everything up to `lsn` of `timeline` must be visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// The cluster the position belongs to.
    pub system: SystemId,
    /// The timeline the position was sampled on.
    pub timeline: Timeline,
    /// The position that a replica must have replayed.
    pub lsn: Lsn,
}

/// A text that is not a `pg_lsn`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a log position: \"{0}\" (expected two hexadecimal numbers, such as 16/B374D848)")]
pub struct LsnParseError(pub String);

impl Lsn {
    /// Bytes from `earlier` to `self`, 0 when `earlier` is not earlier.
    pub fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = LsnParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || LsnParseError(text.to_owned());
        let (high, low) = text.split_once('/').ok_or_else(error)?;
        let half = |part: &str| {
            let plain = !part.is_empty() && part.len() <= 8 && part.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(part, 16).ok()).flatten().ok_or_else(error)
        };
        Ok(Lsn(half(high)? << 32 | half(low)?))
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_reads_as_postgresql_does() {
        for (text, value) in [("0/0", 0), ("16/B374D848", 0x16_B374_D848), ("FFFFFFFF/FFFFFFFF", u64::MAX)] {
            assert_eq!(text.parse(), Ok(Lsn(value)));
            assert_eq!(Lsn(value).to_string(), text);
        }
        for bad in ["", "/", "1/", "/1", "1", "1/1/1", "x/1", "123456789/0", "+1/0", " 1/0"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad}");
        }
    }
}
