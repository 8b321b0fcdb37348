//! Sizes as people write them: `64KiB`, `16MB`, `1GB`, `512`.
//!
//! As in PostgreSQL's own configuration, `kB`, `MB` and `GB` are multiples of 1024, the same as `KiB`, `MiB` and `GiB`. A number
//! without a unit is bytes.

/// Units from the largest to the smallest. The first spelling is the one that is printed.
const UNITS: [(&[&str], u128); 5] = [
    (&["TiB", "TB", "T"], 1 << 40),
    (&["GiB", "GB", "G"], 1 << 30),
    (&["MiB", "MB", "M"], 1 << 20),
    (&["KiB", "kB", "k"], 1 << 10),
    (&["B", "byte", "bytes"], 1),
];

/// Why a text is not a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeParseError {
    /// Nothing but space.
    #[error("is empty")]
    Empty,
    /// A sign in front.
    #[error("is negative")]
    Negative,
    /// Not a number with a unit.
    #[error("is not a size")]
    Malformed,
    /// A word that is no unit.
    #[error("has an unknown unit")]
    UnknownUnit,
    /// Does not fit.
    #[error("is too large")]
    TooLarge,
}

/// Why a decimal number cannot be scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DecimalError {
    Malformed,
    TooLarge,
}

/// Reads a size in bytes.
///
/// # Errors
/// Says what is wrong with the text, worded to follow it in a sentence.
pub fn parse_size(text: &str) -> Result<u64, SizeParseError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(SizeParseError::Empty);
    }
    if text.starts_with('-') {
        return Err(SizeParseError::Negative);
    }
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_end);
    let unit = match unit.trim() {
        "" => "B",
        unit => unit,
    };
    let known = |names: &[&str]| names.iter().any(|name| name.eq_ignore_ascii_case(unit));
    if number.is_empty() {
        return Err(SizeParseError::Malformed);
    }
    let (_, length) = UNITS.iter().find(|(names, _)| known(names)).ok_or(SizeParseError::UnknownUnit)?;
    let bytes = scale_decimal(number, *length).map_err(|error| match error {
        DecimalError::Malformed => SizeParseError::Malformed,
        DecimalError::TooLarge => SizeParseError::TooLarge,
    })?;
    u64::try_from(bytes).map_err(|_| SizeParseError::TooLarge)
}

/// Prints a size with the largest unit that needs no fraction.
pub fn format_size(bytes: u64) -> String {
    let bytes = u128::from(bytes);
    let (names, length) = UNITS.iter().find(|(_, length)| bytes != 0 && bytes % length == 0).unwrap_or(&UNITS[4]);
    format!("{}{}", bytes / length, names[0])
}

/// `number` (digits with at most one point) times `unit`, exact, digits below one are dropped.
pub(super) fn scale_decimal(number: &str, unit: u128) -> Result<u128, DecimalError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return Err(DecimalError::Malformed);
    }
    let parse = |text: &str| if text.is_empty() { Ok(0) } else { text.parse::<u128>().map_err(|_| DecimalError::TooLarge) };
    let scaled = parse(whole)?.checked_mul(unit).ok_or(DecimalError::TooLarge)?;
    // Eighteen digits of a fraction are finer than a nanosecond of a day; the rest cannot matter.
    let fraction = &fraction[..fraction.len().min(18)];
    let part = parse(fraction)? * unit / 10u128.pow(fraction.len() as u32);
    scaled.checked_add(part).ok_or(DecimalError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expect: Result<u64, SizeParseError>) {
        assert_eq!(parse_size(text), expect, "{text}");
    }

    #[test]
    fn reads_what_people_write() {
        check("512", Ok(512));
        check("0", Ok(0));
        check("64KiB", Ok(65536));
        check("64kB", Ok(65536));
        check("64 k", Ok(65536));
        check("16MB", Ok(16 << 20));
        check("1.5MiB", Ok(3 << 19));
        check("1GB", Ok(1 << 30));
        check("2TB", Ok(2 << 40));
        check("7 bytes", Ok(7));
    }

    #[test]
    fn refuses_what_means_nothing() {
        check("", Err(SizeParseError::Empty));
        check("-1", Err(SizeParseError::Negative));
        check("big", Err(SizeParseError::Malformed));
        check("MB", Err(SizeParseError::Malformed));
        check("1.2.3MB", Err(SizeParseError::Malformed));
        check("1 MBit", Err(SizeParseError::UnknownUnit));
        check("99999999999TB", Err(SizeParseError::TooLarge));
        check("9999999999999999999999999999999999999999999999", Err(SizeParseError::TooLarge));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(bytes in any::<u64>()) {
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }

        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            let _ = parse_size(&text);
        }
    }
}
