//! Texts that differ from one seen before in nothing but the values of plain literals, found without a scan.
//!
//! A template is such a text with the places of its literals. Another text fits if what stands between the literals is the same,
//! byte for byte, and each literal is again a plain one of its kind: then both have one shape (see [`mod@crate::sql::shape`]), and
//! so one set of facts. Only integers of digits and quoted strings without quotes inside count as plain.

use crate::sql::facts::Facts;
use crate::sql::scan::{Lexing, is_name_byte};
use crate::sql::shape::taken_out;
use memchr::memchr;
use std::sync::Arc;

/// Bytes at the start of a text that decide its place. Shorter texts have no template.
const HEAD_LEN: usize = 24;
/// Longer texts have none.
const TEXT_LENGTH_MAX: usize = 2048;
/// Texts with more literals have none.
const LITERALS_MAX: usize = 32;
/// Templates of texts with the same head.
const WAYS: usize = 4;

/// A literal whose value does not matter: where it stands. Of a string, without its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PlainLiteral {
    start: u16,
    end: u16,
    quoted: bool,
}

struct Template {
    text: Box<[u8]>,
    literals: Box<[PlainLiteral]>,
    facts: Arc<Facts>,
}

/// Templates by the head of their text.
pub(super) struct Templates {
    places: Box<[Option<Template>]>,
    /// The way that is overwritten next.
    turn: usize,
}

/// Whether texts read this way can have templates: in others a literal's value decides where it ends.
fn is_plain(lexing: Lexing) -> bool {
    lexing.standard_conforming_strings && lexing.ascii_safe_encoding
}

impl Templates {
    /// Places for `heads` heads, a power of two.
    pub(super) fn new(heads: usize) -> Self {
        Templates { places: std::iter::repeat_with(|| None).take(heads * WAYS).collect(), turn: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.places.iter_mut().for_each(|place| *place = None);
    }

    /// The facts of a text that fits a template.
    #[inline]
    pub(super) fn get(&self, text: &[u8], lexing: Lexing) -> Option<&Arc<Facts>> {
        if !is_plain(lexing) {
            return None;
        }
        let first = self.first_place(text)?;
        let fitting = self.places[first..first + WAYS].iter().flatten().find(|template| template.fits(text))?;
        Some(&fitting.facts)
    }

    /// Keeps a text whose facts hold for every text of its shape.
    pub(super) fn insert(&mut self, text: &[u8], lexing: Lexing, facts: &Arc<Facts>) {
        let Some(first) = self.first_place(text) else { return };
        let Some(literals) = plain_literals(text, lexing) else { return };
        let ways = first..first + WAYS;
        let empty = ways.clone().find(|place| self.places[*place].is_none());
        let place = empty.unwrap_or(first + self.turn % WAYS);
        self.turn = self.turn.wrapping_add(1);
        self.places[place] = Some(Template { text: text.into(), literals, facts: facts.clone() });
    }

    fn first_place(&self, text: &[u8]) -> Option<usize> {
        let (head, _) = text.split_first_chunk::<HEAD_LEN>()?;
        let word = |at: usize| head[at..].first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let mixed = (word(0) ^ word(8).rotate_left(21) ^ word(16).rotate_left(42)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Some((mixed >> 32) as usize * WAYS & (self.places.len() - 1))
    }
}

impl Template {
    fn fits(&self, text: &[u8]) -> bool {
        let (mut ours, mut theirs) = (0, 0);
        for literal in &self.literals {
            let between = &self.text[ours..usize::from(literal.start)];
            let Some(rest) = text[theirs..].strip_prefix(between) else { return false };
            theirs += between.len();
            let length = match literal.quoted {
                true => memchr(b'\'', rest),
                false => Some(digits(rest)).filter(|length| *length > 0),
            };
            let Some(length) = length else { return false };
            theirs += length;
            ours = usize::from(literal.end);
        }
        text[theirs..] == self.text[ours..]
    }
}

fn digits(rest: &[u8]) -> usize {
    rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// The literals of a text that its shape does not hold; `None` where one of them is not plain or the text has no template.
fn plain_literals(text: &[u8], lexing: Lexing) -> Option<Box<[PlainLiteral]>> {
    if text.len() > TEXT_LENGTH_MAX || !is_plain(lexing) {
        return None;
    }
    let mut literals = Vec::new();
    let told = taken_out(text, lexing, |range| {
        let (inner, quoted) = match text[range.clone()] {
            [b'\'', ref inside @ .., b'\''] if memchr(b'\'', inside).is_none() => (range.start + 1..range.end - 1, true),
            ref other if digits(other) == other.len() && !joins(text, range.end) => (range, false),
            _ => return false,
        };
        // A text is at most 2 KiB long.
        literals.push(PlainLiteral { start: inner.start as u16, end: inner.end as u16, quoted });
        literals.len() <= LITERALS_MAX
    });
    told.then(|| literals.into())
}

/// Whether what stands at `end` could belong to a number before it.
fn joins(text: &[u8], end: usize) -> bool {
    text.get(end).is_some_and(|byte| is_name_byte(*byte) || *byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::shape::shape;
    use crate::sql::{Catalogue, classify};
    use proptest::prelude::*;

    fn template(text: &str) -> Option<Template> {
        let literals = plain_literals(text.as_bytes(), Lexing::default())?;
        let facts = Arc::new(classify(b"SELECT 1", &Catalogue::builtin(), Lexing::default()));
        Some(Template { text: text.as_bytes().into(), literals, facts })
    }

    fn fits(text: &str, other: &str) -> bool {
        template(text).expect("a template").fits(other.as_bytes())
    }

    #[test]
    fn only_values_may_differ() {
        let check = |template: &str, text: &str, expect: bool| assert_eq!(fits(template, text), expect, "{template} | {text}");
        check("SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b = 234", true);
        check("SELECT a FROM t WHERE b = 1;", "SELECT a FROM t WHERE b = 0;", true);
        check("SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b = 2.5", false);
        check("SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b = 0x1f", false);
        check("SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b = 1e5", false);
        check("SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b = ", false);
        check("SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b = -1", false);
        check("SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b = 1 ", false);
        check("SELECT a FROM t WHERE b = 'x'", "SELECT a FROM t WHERE b = ''", true);
        check("SELECT a FROM t WHERE b = 'x'", "SELECT a FROM t WHERE b = 'it''s'", false);
        check("SELECT a FROM t WHERE b = 'x' ", "SELECT a FROM t WHERE b = '' || f('x' ", false);
        check("SELECT 'x', 1, 'y'", "SELECT 'back\\', 22, 'ü /* pgyard: primary */'", true);
        check("SELECT a1 FROM t2 WHERE $1 = 3", "SELECT a1 FROM t2 WHERE $1 = 4", true);
        check("SELECT a1 FROM t2 WHERE $1 = 3", "SELECT a1 FROM t2 WHERE $2 = 3", false);
        check("SELECT a FROM t LIMIT 1", "SELECT a FROM t LIMIT 2", false);
    }

    #[test]
    fn what_is_not_plain_has_no_template() {
        for text in ["SELECT 1.5", "SELECT 'it''s'", "SELECT E'a'", "SELECT $$a$$", "/* pgyard: primary */ SELECT 1", "SELECT 'a"]
        {
            assert_eq!(plain_literals(text.as_bytes(), Lexing::default()), None, "{text}");
        }
        let lexing = Lexing { standard_conforming_strings: false, ascii_safe_encoding: true };
        assert_eq!(plain_literals(b"SELECT 1", lexing), None);
    }

    proptest! {
        /// The promise: what fits has the shape of the template.
        #[test]
        fn what_fits_has_one_shape(
            pieces in proptest::collection::vec(
                prop_oneof![
                    Just("1"), Just("22"), Just("'a'"), Just("''"), Just("'b c'"), Just(" "), Just("\n"), Just("."), Just("x"), Just("e5"),
                    Just("-"), Just("--"), Just("'"), Just("/*"), Just("*/"), Just("$1"), Just("$"), Just("("), Just("LIMIT "), Just("\\"),
                    Just("E"), Just("0x"), Just("_"), Just(";"), Just("\""), Just("::"), Just("ü"),
                ],
                0..12,
            ),
            numbers in proptest::collection::vec(0u32..1000, 12),
            swap in any::<bool>(),
        ) {
            let template: String = pieces.concat();
            let other: String = pieces
                .iter()
                .zip(&numbers)
                .map(|(piece, number)| match *piece {
                    "1" | "22" => number.to_string(),
                    "'a'" | "''" | "'b c'" => format!("'{number}'"),
                    "x" if swap => "'".to_owned(),
                    piece => piece.to_owned(),
                })
                .collect();
            if let Some(made) = super::tests::template(&template) {
                prop_assert!(made.fits(template.as_bytes()));
                if made.fits(other.as_bytes()) {
                    let (mut a, mut b) = (Vec::new(), Vec::new());
                    prop_assert!(shape(template.as_bytes(), Lexing::default(), &mut a));
                    prop_assert!(shape(other.as_bytes(), Lexing::default(), &mut b));
                    prop_assert_eq!(a, b, "{} | {}", template, other);
                }
            }
        }
    }
}
