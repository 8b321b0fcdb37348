//! Values in PostgreSQL's text formats.

use crate::types::decimal::{Decimal, is_space};

/// A whole number, also one that is written as a fraction or with an exponent, as constants without quotes may be.
pub(super) fn read_integer(text: &str) -> Option<i64> {
    let trimmed = text.trim_matches(is_space);
    let digits = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return trimmed.parse().ok();
    }
    match Decimal::from_text(text)? {
        Decimal::Finite(number) => number.to_i64(),
        _ => None,
    }
}

/// Spec: `string_to_uuid`.
pub(super) fn read_uuid(text: &str) -> Option<[u8; 16]> {
    let braces = text.starts_with('{');
    let mut rest = text.as_bytes();
    if braces {
        rest = rest.strip_prefix(b"{")?.strip_suffix(b"}")?;
    }
    let mut uuid = [0; 16];
    for (place, byte) in uuid.iter_mut().enumerate() {
        let (pair, behind) = rest.split_first_chunk::<2>()?;
        *byte = hex(pair[0])? << 4 | hex(pair[1])?;
        rest = if place % 2 == 1 && place < 15 { behind.strip_prefix(b"-").unwrap_or(behind) } else { behind };
    }
    rest.is_empty().then_some(uuid)
}

/// Both formats of bytea. Spec: `byteain`.
pub(super) fn read_bytea(text: &[u8]) -> Option<Vec<u8>> {
    match text.strip_prefix(b"\\x") {
        Some(digits) => read_hex(digits),
        None => read_escaped(text),
    }
}

fn read_hex(mut digits: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    while let Some((first, behind)) = digits.split_first() {
        digits = behind;
        if matches!(first, b' ' | b'\n' | b'\t' | b'\r') {
            continue;
        }
        let (second, behind) = digits.split_first()?;
        digits = behind;
        bytes.push(hex(*first)? << 4 | hex(*second)?);
    }
    Some(bytes)
}

fn read_escaped(mut text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    while let Some((first, behind)) = text.split_first() {
        text = behind;
        if *first != b'\\' {
            bytes.push(*first);
        } else if let Some(behind) = text.strip_prefix(b"\\") {
            bytes.push(b'\\');
            text = behind;
        } else {
            let (digits, behind) = text.split_first_chunk::<3>()?;
            let [high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7'] = digits else { return None };
            bytes.push((high - b'0') << 6 | (middle - b'0') << 3 | (low - b'0'));
            text = behind;
        }
    }
    Some(bytes)
}

/// A `char(n)` without the spaces at its end.
pub(super) fn without_padding(text: &[u8]) -> &[u8] {
    let length = text.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
    &text[..length]
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}
