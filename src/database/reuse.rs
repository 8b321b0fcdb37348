//! Unnamed statements that clients prepare again and again, kept prepared on the servers (`reuse_unnamed`).
//!
//! Per relay thread: no lock, and no allocation for a text that is known.

use super::directory::Database;
use super::statements::PreparedStatement;
use crate::sql::{Access, Facts, WriteReason};
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

/// Statements kept per thread; the servers' own limit is `max_prepared`.
const KEPT_MAX: usize = 500;
/// Texts of which it is remembered that they came once.
const SEEN_MAX: usize = 4096;
/// Longer texts are not kept. Bytes.
const TEXT_MAX: usize = 16 * 1024;

#[derive(Default)]
struct ReuseBook {
    hasher: foldhash::fast::RandomState,
    seen: HashMap<u64, (), foldhash::fast::RandomState>,
    kept: HashMap<u64, Arc<PreparedStatement>, foldhash::fast::RandomState>,
}

thread_local! {
    static BOOK: RefCell<ReuseBook> = RefCell::default();
}

/// The statement to use in place of an unnamed one with this definition; `None` when it may not be kept, or comes for the first
/// time.
pub fn reusable(
    database: &Database,
    definition: &[u8],
    text_len: usize,
    meaning: &str,
    facts: &Facts,
) -> Option<Arc<PreparedStatement>> {
    if text_len > TEXT_MAX || !may_be_kept(facts, &definition[..text_len]) {
        return None;
    }
    BOOK.with(|book| {
        let mut book = book.borrow_mut();
        let hash = book.hasher.hash_one((database.id, definition, meaning));
        if let Some(known) = book.kept.get(&hash) {
            if known.is(definition, meaning) {
                return Some(known.clone());
            }
            // Another text with the same hash, or one whose tables have changed: it makes way.
            book.kept.remove(&hash);
            return None;
        }
        if book.seen.len() >= SEEN_MAX {
            book.seen.clear();
        }
        book.seen.insert(hash, ())?;
        if book.kept.len() >= KEPT_MAX {
            book.kept.clear();
        }
        let statement = database.statements.intern(definition, text_len, meaning);
        book.kept.insert(hash, statement.clone());
        Some(statement)
    })
}

/// Whether the text means the same each time: a constant such as `'now'::timestamptz` would stay what it was at the first Parse.
fn may_be_kept(facts: &Facts, text: &[u8]) -> bool {
    let [statement] = &*facts.statements else { return false };
    let plain = matches!(statement.access, Access::Read | Access::Write(WriteReason::Command | WriteReason::VolatileFunction));
    let quotes = |at: usize| match text[at] {
        b'\'' => true,
        // A parameter is a dollar and a digit; anything else may be a dollar quote.
        _ => !text.get(at + 1).is_some_and(u8::is_ascii_digit),
    };
    plain && !facts.needs_care && !memchr::memchr2_iter(b'\'', b'$', text).any(quotes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Catalogue, Lexing, classify};

    #[test]
    fn only_plain_statements_without_quotes_are_kept() {
        let catalogue = Catalogue::builtin();
        let check = |text: &str, kept: bool| {
            let facts = classify(text.as_bytes(), &catalogue, Lexing::default());
            assert_eq!(may_be_kept(&facts, text.as_bytes()), kept, "{text}");
        };
        check("SELECT abalance FROM pgbench_accounts WHERE aid = $1", true);
        check("UPDATE t SET a = $1 WHERE b = $2", true);
        check("SELECT 'now'::timestamptz", false);
        check("SELECT $$now$$::timestamptz", false);
        check("SELECT $a$now$a$::timestamptz", false);
        check("BEGIN", false);
        check("SET a = 1", false);
        check("SELECT 1; SELECT 2", false);
        check("CREATE TABLE t (a int)", false);
    }
}
