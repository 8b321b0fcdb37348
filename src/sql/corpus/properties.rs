#![cfg(test)]
use super::catalogue;
use crate::sql::scan::Scanner;
use crate::sql::{Access, Catalogue, FactsCache, Lexing, classify, explain, tables_used};
use proptest::prelude::*;
use std::sync::{Arc, LazyLock};

static CATALOGUE: LazyLock<Arc<Catalogue>> = LazyLock::new(|| Arc::new(catalogue()));

/// Pieces that meet at interesting borders.
const PIECES: &[&str] = &[
    "SELECT",
    "WITH",
    "x",
    "AS",
    "(",
    ")",
    ",",
    ".",
    ";",
    "1",
    "1.5",
    "$1",
    "'a'",
    "E'a\\'b'",
    "$$b$$",
    "$t$",
    "\"q\"",
    "U&\"q\"",
    "*",
    "=",
    "::",
    "int",
    "FROM",
    "t",
    "WHERE",
    "FOR",
    "UPDATE",
    "DELETE",
    "INSERT",
    "INTO",
    "MERGE",
    "nextval",
    "lower",
    "set_config",
    "true",
    "SET",
    "LOCAL",
    "TO",
    "TIME",
    "ZONE",
    "BEGIN",
    "READ",
    "ONLY",
    "COMMIT",
    "COPY",
    "STDOUT",
    "EXPLAIN",
    "ANALYZE",
    "PREPARE",
    "DECLARE",
    "CURSOR",
    "HOLD",
    "CREATE",
    "TEMP",
    "ATOMIC",
    "CASE",
    "END",
    "DO",
    "LANGUAGE",
    "CALL",
    "v_sequence",
    "unknown_function",
    "<~~>",
    "-- c\n",
    "/* c */",
    "/* pgyard: primary */",
    "'",
    "\"",
    "\\",
    "[",
    "]",
    "ORDER",
    "BY",
    "LIMIT",
    "UNION",
    "TABLE",
    "VALUES",
    "ä",
    "RESET",
    "SHOW",
    "DISCARD",
    "ALL",
    "LISTEN",
    "CLOSE",
    "SAVEPOINT",
    "ROLLBACK",
    "SESSION",
    "AUTHORIZATION",
    "CHARACTERISTICS",
    "TRANSACTION",
    "DISTINCT",
    "ON",
    "OPERATOR",
    "SEARCH",
    "USING",
];

fn pieces() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(PIECES), 0..24).prop_map(|pieces| pieces.join(" "))
}

/// Pieces without an open quote or comment, inside which a comment would be something else; nor a literal that goes on behind a
/// line break.
fn closed_pieces() -> impl Strategy<Value = String> {
    let closed = |piece: &&'static str| !matches!(*piece, "'" | "\"" | "\\" | "$t$" | "-- c\n" | "E'a\\'b'");
    let pieces: Vec<&str> = PIECES.iter().copied().filter(closed).collect();
    proptest::collection::vec(proptest::sample::select(pieces), 0..24).prop_map(|pieces| pieces.join(" "))
}

fn lexing() -> impl Strategy<Value = Lexing> {
    (any::<bool>(), any::<bool>()).prop_map(|(standard_conforming_strings, ascii_safe_encoding)| Lexing {
        standard_conforming_strings,
        ascii_safe_encoding,
    })
}

/// Runs everything, and checks what holds for any text.
fn exercise(text: &[u8], lexing: Lexing) -> Result<(), TestCaseError> {
    let facts = classify(text, &CATALOGUE, lexing);
    for statement in &facts.statements {
        prop_assert!(statement.span.start < statement.span.end && statement.span.end <= text.len());
        prop_assert!(statement.access <= facts.access);
    }
    let mut end = 0;
    for token in Scanner::new(text, lexing) {
        prop_assert!(token.start >= end && token.end > token.start && token.end <= text.len());
        end = token.end;
    }
    let _ = explain(&facts, &String::from_utf8_lossy(text));
    let _ = tables_used(text, &CATALOGUE, lexing);
    let mut cache = FactsCache::new(16, 1 << 16);
    for _ in 0..3 {
        let cached = cache.get(text, &CATALOGUE, lexing);
        prop_assert_eq!(&*cached, &facts);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_classified(text in proptest::collection::vec(any::<u8>(), 0..200), lexing in lexing()) {
        exercise(&text, lexing)?;
    }

    #[test]
    fn any_pieces_are_classified(text in pieces(), lexing in lexing()) {
        exercise(text.as_bytes(), lexing)?;
    }

    #[test]
    fn cut_texts_are_classified(text in pieces(), at in any::<prop::sample::Index>()) {
        let bytes = text.as_bytes();
        exercise(&bytes[..at.index(bytes.len() + 1)], Lexing::default())?;
    }

    #[test]
    fn white_space_and_comments_change_nothing(text in closed_pieces()) {
        let spaced = text.replace(' ', " /* x; /* y */ ' */ \n -- z ' \" ;\n ");
        let of = |text: &str| classify(text.as_bytes(), &CATALOGUE, Lexing::default()).access;
        prop_assert_eq!(of(&text), of(&spaced), "{}", spaced);
    }

    #[test]
    fn a_write_behind_it_is_never_a_read(text in pieces()) {
        let joined = format!("{text} ; DELETE FROM t");
        let facts = classify(joined.as_bytes(), &CATALOGUE, Lexing::default());
        let swallowed = Scanner::new(joined.as_bytes(), Lexing::default()).any(|token| joined[token.start..token.end].contains("; DELETE"));
        prop_assert!(matches!(facts.access, Access::Write(_)) || swallowed, "{}", joined);
    }
}
