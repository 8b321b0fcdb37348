//! Durations as people write them: `250ms`, `1.5s`, `2min`, `1h30min`.
//!
//! The units are PostgreSQL's (`us`, `ms`, `s`, `min`, `h`, `d`), with `m` for minutes. A number without a unit is refused: nobody
//! agrees on what it means.

use std::time::Duration;

/// Units from the largest to the smallest, with their length in nanoseconds. The first spelling is the one that is printed.
const UNITS: [(&[&str], u128); 7] = [
    (&["d", "day", "days"], 86_400_000_000_000),
    (&["h", "hour", "hours"], 3_600_000_000_000),
    (&["min", "m", "mins", "minute", "minutes"], 60_000_000_000),
    (&["s", "sec", "secs", "second", "seconds"], 1_000_000_000),
    (&["ms"], 1_000_000),
    (&["us", "µs"], 1_000),
    (&["ns"], 1),
];

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationParseError {
    /// Nothing but space.
    #[error("is empty")]
    Empty,
    /// A number alone.
    #[error("has no unit")]
    MissingUnit,
    /// A sign in front.
    #[error("is negative")]
    Negative,
    /// Not a number with a unit.
    #[error("is not a duration")]
    Malformed,
    /// A word that is no unit.
    #[error("has an unknown unit")]
    UnknownUnit,
    /// More than 584 years.
    #[error("is too long")]
    TooLong,
}

/// Reads a duration.
///
/// # Errors
/// Says what is wrong with the text, worded to follow it in a sentence.
pub fn parse_duration(text: &str) -> Result<Duration, DurationParseError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(DurationParseError::Empty);
    }
    if rest.starts_with('-') {
        return Err(DurationParseError::Negative);
    }
    let mut nanoseconds: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_end);
        let tail = tail.trim_start();
        let unit_end = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        nanoseconds = nanoseconds.checked_add(part(number, unit)?).ok_or(DurationParseError::TooLong)?;
        rest = next.trim_start();
    }
    u64::try_from(nanoseconds).map(Duration::from_nanos).map_err(|_| DurationParseError::TooLong)
}

/// Prints a duration with the largest unit that needs no fraction; a fraction of seconds stays one (`1.5s`).
pub fn format_duration(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    let milliseconds = nanoseconds / 1_000_000;
    if nanoseconds.is_multiple_of(1_000_000) && milliseconds > 1000 && !milliseconds.is_multiple_of(1000) {
        let fraction = format!("{:03}", milliseconds % 1000);
        return format!("{}.{}s", milliseconds / 1000, fraction.trim_end_matches('0'));
    }
    let (names, length) = UNITS.iter().find(|(_, length)| nanoseconds.is_multiple_of(*length)).unwrap_or(&UNITS[6]);
    format!("{}{}", nanoseconds / length, names[0])
}

/// The nanoseconds of one number with its unit. Exact: no floating point.
fn part(number: &str, unit: &str) -> Result<u128, DurationParseError> {
    if number.is_empty() {
        return Err(DurationParseError::Malformed);
    }
    if unit.is_empty() {
        return Err(DurationParseError::MissingUnit);
    }
    let known = |names: &[&str]| names.iter().any(|name| *name == unit.to_ascii_lowercase());
    let (_, length) = UNITS.iter().find(|(names, _)| known(names)).ok_or(DurationParseError::UnknownUnit)?;
    super::size::scale_decimal(number, *length).map_err(|error| match error {
        super::size::DecimalError::Malformed => DurationParseError::Malformed,
        super::size::DecimalError::TooLarge => DurationParseError::TooLong,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expect: Result<u64, DurationParseError>) {
        assert_eq!(parse_duration(text), expect.map(Duration::from_micros), "{text}");
    }

    #[test]
    fn reads_what_people_write() {
        check("250ms", Ok(250_000));
        check("1.5s", Ok(1_500_000));
        check("2min", Ok(120_000_000));
        check("2 min", Ok(120_000_000));
        check("5m", Ok(300_000_000));
        check("1h30min", Ok(5_400_000_000));
        check("1h 30m", Ok(5_400_000_000));
        check("10us", Ok(10));
        check("1d", Ok(86_400_000_000));
        check("0s", Ok(0));
        check(" 3S ", Ok(3_000_000));
        check(".5s", Ok(500_000));
    }

    #[test]
    fn refuses_what_means_nothing() {
        check("", Err(DurationParseError::Empty));
        check("5", Err(DurationParseError::MissingUnit));
        check("-5s", Err(DurationParseError::Negative));
        check("fast", Err(DurationParseError::Malformed));
        check("1.2.3s", Err(DurationParseError::Malformed));
        check(".s", Err(DurationParseError::Malformed));
        check("5 parsecs", Err(DurationParseError::UnknownUnit));
        check("1h30", Err(DurationParseError::MissingUnit));
        check("999999999999999999999999999999999999999999d", Err(DurationParseError::TooLong));
        check("99999999d", Err(DurationParseError::TooLong));
    }

    #[test]
    fn prints_the_shortest_form() {
        for text in ["0s", "100ms", "1s", "1.5s", "1.25s", "10min", "90s", "1h", "1d", "15us", "1us", "7ns"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(nanoseconds in any::<u64>()) {
            let duration = Duration::from_nanos(nanoseconds);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            let _ = parse_duration(&text);
        }
    }
}
