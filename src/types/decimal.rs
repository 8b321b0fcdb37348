//! PostgreSQL's `numeric` as a value: read from text and from binary without loss, and ordered as PostgreSQL orders it.

use std::cmp::Ordering;
use std::fmt;

/// The base of a digit: PostgreSQL stores four decimal digits in one.
const BASE: u16 = 10_000;
/// Digits behind the point that PostgreSQL keeps. Spec: `NUMERIC_MAX_DISPLAY_SCALE` and the type's documentation.
const FRACTION_MAX: i64 = 16_383;
/// Digits before the point that it keeps.
const WHOLE_MAX: i64 = 131_072;

/// A `numeric` value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Decimal {
    /// `-Infinity`.
    NegativeInfinity,
    /// A number.
    Finite(Number),
    /// `Infinity`.
    Infinity,
    /// `NaN`, which PostgreSQL takes to be equal to itself and greater than anything else.
    NaN,
}

/// A number without leading and trailing zeros, so that equal numbers are the same value. Zero has no digits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Number {
    /// Below zero.
    pub negative: bool,
    /// The first digit's power of 10,000.
    pub weight: i32,
    /// Digits to the base of 10,000, the most significant first.
    pub digits: Vec<u16>,
}

impl Number {
    fn new(negative: bool, mut weight: i32, digits: &[u16]) -> Number {
        let leading = digits.iter().take_while(|digit| **digit == 0).count();
        let mut digits = &digits[leading..];
        while let [rest @ .., 0] = digits {
            digits = rest;
        }
        if digits.is_empty() {
            return Number::default();
        }
        weight = weight.saturating_sub(i32::try_from(leading).unwrap_or(i32::MAX));
        Number { negative, weight, digits: digits.to_vec() }
    }

    /// How many decimal digits it needs behind the point.
    pub fn fraction_digits(&self) -> usize {
        let Some(last) = self.digits.last() else { return 0 };
        let behind = self.digits.len() as i64 - 1 - i64::from(self.weight);
        let trailing = (1..4).take_while(|power| last % 10u16.pow(*power) == 0).count() as i64;
        usize::try_from(behind * 4 - trailing).unwrap_or(0)
    }

    /// Its value, if it is a whole number that fits.
    pub fn to_i64(&self) -> Option<i64> {
        if self.digits.is_empty() {
            return Some(0);
        }
        let weight = usize::try_from(self.weight).ok()?;
        if self.digits.len() > weight + 1 || weight > 5 {
            return None;
        }
        let mut value: i128 = 0;
        for place in 0..=weight {
            value = value * i128::from(BASE) + i128::from(self.digits.get(place).copied().unwrap_or(0));
        }
        i64::try_from(if self.negative { -value } else { value }).ok()
    }

    fn compare_size(&self, other: &Number) -> Ordering {
        match (self.digits.is_empty(), other.digits.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.weight.cmp(&other.weight).then_with(|| self.digits.cmp(&other.digits)),
        }
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => self.compare_size(other),
            (true, true) => other.compare_size(self),
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Decimal {
    /// Reads what PostgreSQL prints, and what it takes in every version: a number with or without point and exponent, `NaN`,
    /// `Infinity`. `None` for anything else, and for numbers at the type's limits.
    pub fn from_text(text: &str) -> Option<Decimal> {
        let text = text.trim_matches(is_space);
        let (negative, unsigned) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        if unsigned.eq_ignore_ascii_case("infinity") || unsigned.eq_ignore_ascii_case("inf") {
            return Some(if negative { Decimal::NegativeInfinity } else { Decimal::Infinity });
        }
        if text.eq_ignore_ascii_case("nan") {
            return Some(Decimal::NaN);
        }
        let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
            Some(at) => (&unsigned[..at], read_exponent(&unsigned[at + 1..])?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if (whole.is_empty() && fraction.is_empty()) || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
            return None;
        }
        let point = whole.len() as i64 + exponent;
        let behind = fraction.len() as i64 - exponent;
        if point > WHOLE_MAX || behind > FRACTION_MAX {
            return None;
        }
        Some(Decimal::Finite(number_of(negative, point, whole.bytes().chain(fraction.bytes()))))
    }

    /// Reads the binary format. Spec: `numeric_recv`.
    pub fn from_binary(bytes: &[u8]) -> Option<Decimal> {
        let (head, digits) = bytes.split_at_checked(8)?;
        let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let (count, weight, sign) = (usize::from(word(0)), i32::from(word(2).cast_signed()), word(4));
        if digits.len() != count * 2 {
            return None;
        }
        match sign {
            0xC000 => return Some(Decimal::NaN),
            0xD000 => return Some(Decimal::Infinity),
            0xF000 => return Some(Decimal::NegativeInfinity),
            0x0000 | 0x4000 => {}
            _ => return None,
        }
        let digits: Vec<u16> = digits.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        if digits.iter().any(|digit| *digit >= BASE) {
            return None;
        }
        Some(Decimal::Finite(Number::new(sign == 0x4000, weight, &digits)))
    }

    /// A whole number.
    pub fn from_i64(value: i64) -> Decimal {
        let mut digits = Vec::new();
        let mut rest = value.unsigned_abs();
        while rest > 0 {
            digits.push((rest % u64::from(BASE)) as u16);
            rest /= u64::from(BASE);
        }
        digits.reverse();
        Decimal::Finite(Number::new(value < 0, digits.len() as i32 - 1, &digits))
    }

    fn rank(&self) -> u8 {
        match self {
            Decimal::NegativeInfinity => 0,
            Decimal::Finite(_) => 1,
            Decimal::Infinity => 2,
            Decimal::NaN => 3,
        }
    }
}

/// As PostgreSQL prints it, without zeros at the end.
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = match self {
            Decimal::NegativeInfinity => return f.write_str("-Infinity"),
            Decimal::Infinity => return f.write_str("Infinity"),
            Decimal::NaN => return f.write_str("NaN"),
            Decimal::Finite(number) => number,
        };
        let digit = |power: i32| {
            usize::try_from(number.weight - power).ok().and_then(|place| number.digits.get(place)).copied().unwrap_or(0)
        };
        let whole: String = (0..=number.weight.max(0)).rev().map(|power| format!("{:04}", digit(power))).collect();
        let whole = whole.trim_start_matches('0');
        let mut fraction = String::new();
        let mut power = -1;
        while fraction.len() < number.fraction_digits() {
            fraction.push_str(&format!("{:04}", digit(power)));
            power -= 1;
        }
        fraction.truncate(number.fraction_digits());
        let (sign, point) = (if number.negative { "-" } else { "" }, if fraction.is_empty() { "" } else { "." });
        write!(f, "{sign}{}{point}{fraction}", if whole.is_empty() { "0" } else { whole })
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Decimal::Finite(one), Decimal::Finite(two)) => one.cmp(two),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// C's `isspace`, which PostgreSQL's input functions skip around a value.
pub fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

fn read_exponent(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || digits.len() > 6 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: i64 = digits.parse().ok()?;
    Some(if text.starts_with('-') { -value } else { value })
}

/// The number with these decimal digits, of which `point` stand before the point.
fn number_of(negative: bool, point: i64, decimals: impl Iterator<Item = u8>) -> Number {
    // Zeros in front, so that the point falls between two digits of four.
    let padding = (4 - point.rem_euclid(4)) % 4;
    let weight = (point + padding) / 4 - 1;
    let mut digits = Vec::new();
    let (mut digit, mut filled) = (0u16, padding);
    for decimal in decimals {
        digit = digit * 10 + u16::from(decimal - b'0');
        filled += 1;
        if filled == 4 {
            digits.push(digit);
            (digit, filled) = (0, 0);
        }
    }
    if filled > 0 {
        digits.push(digit * 10u16.pow(4 - filled as u32));
    }
    Number::new(negative, weight as i32, &digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &str) -> Number {
        match Decimal::from_text(text) {
            Some(Decimal::Finite(number)) => number,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn texts() {
        let check = |text: &str, negative: bool, weight: i32, digits: &[u16]| {
            assert_eq!(number(text), Number { negative, weight, digits: digits.to_vec() }, "{text}");
        };
        check("0", false, 0, &[]);
        check("-0.000", false, 0, &[]);
        check("1", false, 0, &[1]);
        check(" -12345.6789\n", true, 1, &[1, 2345, 6789]);
        check("0.00001", false, -2, &[1000]);
        check("10000", false, 1, &[1]);
        check("1e4", false, 1, &[1]);
        check("12.5E-3", false, -1, &[125]);
        check("1e-4", false, -1, &[1]);
        check("1e-5", false, -2, &[1000]);
        check(".5", false, -1, &[5000]);
        check("5.", false, 0, &[5]);
        check("00012", false, 0, &[12]);
        for bad in ["", "-", ".", "e5", "1e", "1e+", "0x1F", "1_000", "1 2", "1e9999999", "1e200000", "1e-20000", "½"] {
            assert_eq!(Decimal::from_text(bad), None, "{bad}");
        }
        assert_eq!(Decimal::from_text("-inf"), Some(Decimal::NegativeInfinity));
        assert_eq!(Decimal::from_text("NAN"), Some(Decimal::NaN));
        assert_eq!(Decimal::from_text("-NaN"), None);
    }

    #[test]
    fn whole_numbers_and_fractions() {
        for (text, whole, fraction) in [
            ("0", Some(0), 0),
            ("5.0", Some(5), 0),
            ("9223372036854775807", Some(i64::MAX), 0),
            ("-9223372036854775808", Some(i64::MIN), 0),
            ("9223372036854775808", None, 0),
            ("5.5", None, 1),
            ("0.0010", None, 3),
            ("12.3400001", None, 7),
            ("1e20", None, 0),
            ("120000", Some(120_000), 0),
        ] {
            assert_eq!(number(text).to_i64(), whole, "{text}");
            assert_eq!(number(text).fraction_digits(), fraction, "{text}");
        }
    }

    #[test]
    fn binary() {
        assert_eq!(Decimal::from_binary(&[0, 2, 0, 1, 0x40, 0, 0, 1, 0, 12, 0, 5]), Decimal::from_text("-120005"));
        assert_eq!(Decimal::from_binary(&[0, 1, 0xff, 0xff, 0, 0, 0, 4, 0, 12]), Decimal::from_text("0.0012"));
        assert_eq!(Decimal::from_binary(&[0, 0, 0, 0, 0xc0, 0, 0, 0]), Some(Decimal::NaN));
        assert_eq!(Decimal::from_binary(&[0, 1, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(Decimal::from_binary(&[0, 1, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), None);
        assert_eq!(Decimal::from_binary(&[0, 0, 0]), None);
    }

    proptest! {
        #[test]
        fn integers_keep_their_value_and_order(one: i64, two: i64) {
            let (a, b) = (Decimal::from_i64(one), Decimal::from_i64(two));
            prop_assert_eq!(&Decimal::from_text(&one.to_string()).unwrap(), &a);
            prop_assert_eq!(a.cmp(&b), one.cmp(&two));
            let Decimal::Finite(number) = a else { panic!() };
            prop_assert_eq!(number.to_i64(), Some(one));
        }

        #[test]
        fn zeros_and_exponents_change_nothing(whole in 0u64..1_000_000_000, fraction in 0u32..1_000_000, shift in 0usize..9) {
            let plain = number(&format!("{whole}.{fraction:06}"));
            prop_assert_eq!(&plain, &number(&format!("00{whole}.{fraction:06}000")));
            prop_assert_eq!(&plain, &number(&Decimal::Finite(plain.clone()).to_string()));
            let digits = format!("{whole:09}{fraction:06}");
            let (left, right) = digits.split_at(shift);
            prop_assert_eq!(&plain, &number(&format!("0{left}.{right}e{}", 9 - shift)));
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes: Vec<u8>) {
            let _ = Decimal::from_binary(&bytes);
            let _ = Decimal::from_text(&String::from_utf8_lossy(&bytes));
        }
    }
}
