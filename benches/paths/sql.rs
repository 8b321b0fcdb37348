//! What a text says: scanned, classified, remembered.

use super::{HotPath, Run};
use pgyard::sql::scan::Scanner;
use pgyard::sql::shape::fingerprint;
use pgyard::sql::{Catalogue, FactsCache, Lexing, classify};
use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;

pub const PATHS: &[HotPath] = &[
    HotPath::new("token_scan_pgbench", || token_scan(PGBENCH.into())),
    HotPath::new("token_scan_orm_2k", || token_scan(orm())),
    HotPath::new("fingerprint_pgbench", fingerprint_path),
    HotPath::new("classify_cold_pgbench", || classify_cold(PGBENCH.into())),
    HotPath::new("classify_cold_update", || classify_cold(UPDATE.into())),
    HotPath::new("classify_cold_orm_2k", || classify_cold(orm())),
    HotPath::new("classify_cached_pgbench", || classify_cached(PGBENCH.into())),
    HotPath::new("classify_cached_orm_2k", || classify_cached(orm())),
    HotPath::new("classify_changing_literal", classify_changing),
];

const PGBENCH: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = 1234567;";
const UPDATE: &str = "UPDATE pgbench_accounts SET abalance = abalance + -1234 WHERE aid = 1234567;";

/// What an object mapper writes for an order with its lines: about 2 KB, every column by name, with aliases.
fn orm() -> String {
    let mut text = String::from("SELECT ");
    for column in 0..40 {
        // Writing to a String cannot fail.
        let _ = write!(text, "\"orders\".\"column_{column}\" AS \"t0_c{column}\", ");
    }
    text.push_str("count(\"lines\".\"id\") AS \"lines\" FROM \"orders\" LEFT OUTER JOIN \"lines\" ON \"lines\".\"order_id\" = \"orders\".\"id\" ");
    text.push_str("WHERE \"orders\".\"customer_id\" = $1 AND \"orders\".\"state\" IN ($2, $3, 'it''s') ");
    text.push_str("AND \"orders\".\"created_at\" >= now() - interval '7 days' GROUP BY \"orders\".\"id\" ");
    text.push_str("HAVING count(\"lines\".\"id\") > 0 ORDER BY \"orders\".\"created_at\" DESC LIMIT 50 OFFSET 100");
    text
}

fn token_scan(text: String) -> Run {
    Ok(Box::new(move || {
        for token in Scanner::new(black_box(text.as_bytes()), Lexing::default()) {
            black_box(token);
        }
    }))
}

fn fingerprint_path() -> Run {
    Ok(Box::new(|| {
        black_box(fingerprint(black_box(PGBENCH.as_bytes()), Lexing::default()));
    }))
}

fn classify_cold(text: String) -> Run {
    let catalogue = Catalogue::builtin();
    Ok(Box::new(move || {
        black_box(classify(black_box(text.as_bytes()), &catalogue, Lexing::default()));
    }))
}

fn classify_cached(text: String) -> Run {
    let catalogue = Arc::new(Catalogue::builtin());
    let mut cache = FactsCache::new(1024, 1 << 20);
    Ok(Box::new(move || {
        black_box(cache.get(black_box(text.as_bytes()), &catalogue, Lexing::default()));
    }))
}

/// A statement of one shape whose literal never comes again: found by its fingerprint, without a parse.
fn classify_changing() -> Run {
    let catalogue = Arc::new(Catalogue::builtin());
    let mut cache = FactsCache::new(1024, 1 << 20);
    let mut text = PGBENCH.as_bytes().to_vec();
    let digits = text.len() - 8..text.len() - 1;
    Ok(Box::new(move || {
        for digit in text[digits.clone()].iter_mut().rev() {
            *digit = if *digit == b'9' { b'0' } else { *digit + 1 };
            if *digit != b'0' {
                break;
            }
        }
        black_box(cache.get(black_box(&text), &catalogue, Lexing::default()));
    }))
}
