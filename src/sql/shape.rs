//! The shape of a text: its tokens with the values of literals taken out. Texts of one shape differ in those values only.
//!
//! Literals behind ORDER BY, GROUP BY, LIMIT, OFFSET and FETCH stay (`ORDER BY 2` is not `ORDER BY 1`), and so does the kind of
//! each literal. White space and comments go; case stays.

use crate::sql::scan::{Lexing, Scanner, StringKind, Token, TokenKind};
use std::hash::BuildHasher;
use std::ops::Range;

/// Stands before the kind of a literal that was taken out; no text from the wire has it outside of quotes.
const LITERAL_MARK: u8 = 0;
/// A seed for fingerprints that must be the same in every process.
const FINGERPRINT_SEED: u64 = 0x7067_7961_7264;

/// Writes the shape of a text over `shape`. False if texts of this shape may mean different things, or it cannot be told: a
/// routing comment, a byte that is no SQL.
pub fn shape(text: &[u8], lexing: Lexing, shape: &mut Vec<u8>) -> bool {
    shape.clear();
    shape.push(u8::from(lexing.standard_conforming_strings) | u8::from(lexing.ascii_safe_encoding) << 1);
    walk(text, lexing, |token, taken_out| {
        shape.push(b' ');
        match taken_out {
            Some(kind) => shape.extend_from_slice(&[LITERAL_MARK, kind]),
            None => shape.extend_from_slice(token.bytes(text)),
        }
        true
    })
}

/// Shows the places of the literals that the shape does not hold, until `show` says no. False if it did, or where [`shape()`] is.
pub fn taken_out(text: &[u8], lexing: Lexing, mut show: impl FnMut(Range<usize>) -> bool) -> bool {
    walk(text, lexing, |token, taken_out| taken_out.is_none() || show(token.start..token.end))
}

/// Goes through the tokens; with each comes the kind of a literal that is to be taken out.
#[inline]
fn walk(text: &[u8], lexing: Lexing, mut each: impl FnMut(Token, Option<u8>) -> bool) -> bool {
    let mut scanner = Scanner::new(text, lexing);
    let mut depth = 0usize;
    // The depth at which an ordering clause began; its literals stay.
    let mut ordering: Option<usize> = None;
    for token in scanner.by_ref() {
        match token.kind {
            TokenKind::Bad => return false,
            TokenKind::OpenParen => depth += 1,
            TokenKind::CloseParen => {
                depth = depth.saturating_sub(1);
                ordering = ordering.filter(|began| *began <= depth);
            }
            TokenKind::Word if ordering.is_none() && orders(token.bytes(text)) => ordering = Some(depth),
            _ => {}
        }
        if !each(token, literal_kind(token).filter(|_| ordering.is_none())) {
            return false;
        }
    }
    scanner.hint().is_none()
}

/// A number that is the same for texts of one shape, in every process. Different shapes may share one.
pub fn fingerprint(text: &[u8], lexing: Lexing) -> u64 {
    let mut scratch = Vec::with_capacity(text.len() + 16);
    shape(text, lexing, &mut scratch);
    foldhash::quality::FixedState::with_seed(FINGERPRINT_SEED).hash_one(scratch.as_slice())
}

fn orders(word: &[u8]) -> bool {
    let first = word.first().map_or(0, |byte| byte | 0x20);
    matches!(first, b'o' | b'g' | b'l' | b'f')
        && ["order", "group", "limit", "offset", "fetch"].iter().any(|keyword| word.eq_ignore_ascii_case(keyword.as_bytes()))
}

fn literal_kind(token: Token) -> Option<u8> {
    match token.kind {
        TokenKind::Integer => Some(b'i'),
        TokenKind::Decimal => Some(b'd'),
        TokenKind::String(StringKind::Plain) => Some(b's'),
        TokenKind::String(StringKind::Escape) => Some(b'e'),
        TokenKind::String(StringKind::Bit) => Some(b'b'),
        TokenKind::String(StringKind::Hex) => Some(b'x'),
        TokenKind::String(StringKind::National) => Some(b'n'),
        TokenKind::String(StringKind::Unicode) => Some(b'u'),
        TokenKind::String(StringKind::Dollar) => Some(b'q'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_do_not_matter_but_their_kind_does() {
        let of = |text: &str| fingerprint(text.as_bytes(), Lexing::default());
        for (a, b) in [
            ("SELECT a FROM t WHERE b = 1", "SELECT a  FROM t /* x */ WHERE b=22"),
            ("SELECT 'a'", "SELECT 'b''c'"),
            ("SELECT $$a$$", "SELECT $x$b$x$"),
            ("SELECT (SELECT a FROM t ORDER BY 1), 2", "SELECT (SELECT a FROM t ORDER BY 1), 3"),
        ] {
            assert_eq!(of(a), of(b), "{a} | {b}");
        }
        for (a, b) in [
            ("SELECT 1", "SELECT 1.0"),
            ("SELECT 1", "SELECT '1'"),
            ("SELECT '1'", "SELECT E'1'"),
            ("SELECT a FROM t ORDER BY 1", "SELECT a FROM t ORDER BY 2"),
            ("SELECT a FROM t GROUP BY 1", "SELECT a FROM t GROUP BY 2"),
            ("SELECT a FROM t LIMIT 1", "SELECT a FROM t LIMIT 2"),
            ("SELECT a", "SELECT b"),
            ("SELECT $1", "SELECT $2"),
            ("SELECT \"a\"", "SELECT a"),
            ("SELECT f (1)", "SELECT f, (1)"),
        ] {
            assert_ne!(of(a), of(b), "{a} | {b}");
        }
    }

    #[test]
    fn what_depends_on_more_than_the_shape_is_told() {
        let mut scratch = Vec::new();
        for (text, expect) in
            [("SELECT 1", true), ("SELECT /* x */ 1", true), ("/* pgyard: primary */ SELECT 1", false), ("SELECT '1", false)]
        {
            assert_eq!(shape(text.as_bytes(), Lexing::default(), &mut scratch), expect, "{text}");
        }
    }
}
