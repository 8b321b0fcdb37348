//! Spellings of PostgreSQL's that the parser does not know or does not print as they were: the same said otherwise.
//!
//! `LIMIT ALL` is no limit, `TABLE t` is `SELECT * FROM t`, and OFFSET may stand before LIMIT. All of these begin with reserved words, so that
//! the tokens alone show them.

use crate::sql::Lexing;
use crate::sql::scan::{Scanner, Token, TokenKind};

/// Words behind which a query may begin, beside the statement's begin and a parenthesis.
const BEFORE_QUERY: &[&str] = &["union", "except", "intersect", "all", "distinct"];
/// Words that end what stands behind LIMIT and OFFSET.
const AFTER_LIMIT: &[&str] = &["limit", "offset", "for", "fetch", "union", "except", "intersect", "returning", "on"];

/// The same statement in spellings that the parser knows; `None` if it has no other.
pub(super) fn known(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let tokens: Vec<Token> = Scanner::new(bytes, Lexing::default()).collect();
    let is = |place: usize, word: &str| tokens.get(place).is_some_and(|token| token.is_word(bytes, word));
    let inserts = is(0, "insert");
    let mut out = String::new();
    let mut copied = 0;
    let mut place = 0;
    while place < tokens.len() {
        let token = tokens[place];
        if is(place, "limit") && is(place + 1, "all") {
            out.push_str(text.get(copied..token.start)?);
            copied = tokens[place + 1].end;
            place += 2;
            continue;
        }
        if is(place, "table") && begins_query(&tokens, bytes, place, inserts) && !is(place + 1, "only") {
            out.push_str(text.get(copied..token.start)?);
            out.push_str("SELECT * FROM");
            copied = token.end;
        } else if is(place, "offset") {
            let limit = clause_end(&tokens, bytes, place + 1);
            if is(limit, "limit") && !is(limit + 1, "all") {
                let end = clause_end(&tokens, bytes, limit + 1);
                let (middle, last) = (tokens.get(limit - 1)?.end, tokens.get(end - 1)?.end);
                out.push_str(text.get(copied..token.start)?);
                out.push_str(text.get(tokens[limit].start..last)?);
                out.push(' ');
                out.push_str(text.get(token.start..middle)?);
                copied = last;
                place = end;
                continue;
            }
        }
        place += 1;
    }
    if copied == 0 {
        return None;
    }
    out.push_str(text.get(copied..)?);
    Some(out)
}

/// Whether the TABLE at this place begins a query.
fn begins_query(tokens: &[Token], bytes: &[u8], place: usize, inserts: bool) -> bool {
    let Some(before) = place.checked_sub(1).and_then(|place| tokens.get(place)) else { return true };
    let named = |token: &Token| matches!(token.kind, TokenKind::Word | TokenKind::QuotedName);
    match before.kind {
        TokenKind::OpenParen => true,
        TokenKind::Word if BEFORE_QUERY.iter().any(|word| before.is_word(bytes, word)) => true,
        // INSERT INTO t TABLE u, INSERT INTO t (a, b) TABLE u, WITH w AS (...) TABLE w
        TokenKind::CloseParen => true,
        _ => inserts && named(before),
    }
}

/// The place of the token that ends a clause.
fn clause_end(tokens: &[Token], bytes: &[u8], from: usize) -> usize {
    let mut depth = 0_usize;
    for (place, token) in tokens.iter().enumerate().skip(from) {
        match token.kind {
            TokenKind::OpenParen | TokenKind::OpenBracket => depth += 1,
            TokenKind::CloseParen | TokenKind::CloseBracket if depth == 0 => return place,
            TokenKind::CloseParen | TokenKind::CloseBracket => depth -= 1,
            TokenKind::Semicolon => return place,
            TokenKind::Word if depth == 0 && AFTER_LIMIT.iter().any(|word| token.is_word(bytes, word)) => return place,
            _ => {}
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::known;

    #[test]
    fn other_spellings() {
        let check = |text: &str, expect: Option<&str>| assert_eq!(known(text).as_deref(), expect, "{text}");
        check("SELECT a FROM t LIMIT ALL OFFSET 3", Some("SELECT a FROM t  OFFSET 3"));
        check("SELECT a FROM t OFFSET 3 limit all", Some("SELECT a FROM t OFFSET 3 "));
        check(
            "SELECT a FROM t OFFSET 2 + (1) ROWS LIMIT $1 FOR UPDATE",
            Some("SELECT a FROM t LIMIT $1 OFFSET 2 + (1) ROWS FOR UPDATE"),
        );
        check("SELECT (SELECT a OFFSET 1 LIMIT 2), b", Some("SELECT (SELECT a LIMIT 2 OFFSET 1), b"));
        check("SELECT a FROM t LIMIT 1 OFFSET 2", None);
        check("SELECT a FROM t OFFSET 2 ROWS FETCH FIRST ROW ONLY", None);
        check("SELECT 'limit all', \"limit\" all FROM t", None);
        check("TABLE t", Some("SELECT * FROM t"));
        check("TABLE a.t ORDER BY 1", Some("SELECT * FROM a.t ORDER BY 1"));
        check("SELECT 1 UNION ALL TABLE t", Some("SELECT 1 UNION ALL SELECT * FROM t"));
        check("WITH w AS (TABLE t) TABLE w", Some("WITH w AS (SELECT * FROM t) SELECT * FROM w"));
        check("INSERT INTO t (a) TABLE u", Some("INSERT INTO t (a) SELECT * FROM u"));
        check("INSERT INTO t TABLE u", Some("INSERT INTO t SELECT * FROM u"));
        check("TABLE ONLY t", None);
        check("LOCK TABLE t", None);
        check("CREATE TABLE t (a int)", None);
    }
}
