//! From a text to a tree that is known to say what the text says.
//!
//! sqlparser is not PostgreSQL's parser: it has been seen to lose parts of a statement (`SELECT INTO`) and to misread others
//! (`FROM ONLY t`). So a tree is printed again, and used only if the print has the tokens of the text.

use crate::sql::Lexing;
use crate::sql::scan::{Scanner, Token, TokenKind};
use crate::sql::survey::Survey;
use sqlparser::ast::{Ident, ObjectName, Statement};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::{Parser, ParserOptions};
use sqlparser::tokenizer::Location;

/// Longer texts are not planned. Bytes.
const PLAN_LENGTH_MAX: usize = 64 * 1024;
/// Deeper trees are not made: they are freed by recursion.
const CHAIN_MAX: usize = 1000;
/// Nesting that the parser follows.
const RECURSION_MAX: usize = 100;

/// Words that the print may have where the text has not, and the other way round: they change nothing.
const OPTIONAL: &[&str] = &["as", "inner", "outer", "asc"];
/// Words that mean the same.
const ALIKE: &[(&str, &str)] = &[("row", "rows"), ("next", "first"), ("some", "any"), ("!=", "<>")];

/// The tree of a statement, if it can be trusted.
pub(super) fn parse(text: &str, survey: &Survey) -> Option<Statement> {
    if !survey.trusted || text.len() > PLAN_LENGTH_MAX || survey.chain > CHAIN_MAX {
        return None;
    }
    let mut statements = Parser::new(&PostgreSqlDialect {})
        .with_options(ParserOptions::new().with_unescape(false))
        .with_recursion_limit(RECURSION_MAX)
        .try_with_sql(text)
        .and_then(|mut parser| parser.parse_statements())
        .ok()?;
    let statement = if statements.len() == 1 { statements.pop()? } else { return None };
    same_tokens(text, &statement.to_string()).then_some(statement)
}

/// Whether two texts have the same tokens, but for words that change nothing.
fn same_tokens(text: &str, print: &str) -> bool {
    let mut left = meaningful(text);
    let mut right = meaningful(print);
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

fn meaningful(text: &str) -> impl Iterator<Item = (TokenKind, String)> + '_ {
    let bytes = text.as_bytes();
    Scanner::new(bytes, Lexing::default()).filter_map(move |token| {
        let word = canonical(bytes, token);
        let dropped = token.kind == TokenKind::Semicolon || token.kind == TokenKind::Word && OPTIONAL.contains(&word.as_str());
        (!dropped).then_some((token.kind, word))
    })
}

fn canonical(text: &[u8], token: Token) -> String {
    let written = String::from_utf8_lossy(token.bytes(text));
    let word = if token.kind == TokenKind::Word { written.to_ascii_lowercase() } else { written.into_owned() };
    match ALIKE.iter().find(|(from, _)| *from == word) {
        Some((_, to)) => (*to).to_owned(),
        None => word,
    }
}

/// An identifier as PostgreSQL stores it.
pub(super) fn stored(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.replace("\"\"", "\""),
        None => ident.value.to_ascii_lowercase(),
    }
}

/// The parts of a name as PostgreSQL stores them. `None` if one of them is computed.
pub(super) fn stored_parts(name: &ObjectName) -> Option<Vec<String>> {
    name.0.iter().map(|part| part.as_ident().map(stored)).collect()
}

/// The last part of a name as PostgreSQL stores it; empty if it is computed.
pub(super) fn last_part(name: &ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map_or_else(String::new, stored)
}

/// Where a name begins in the text: no two names of a statement begin at the same place, and copies of a tree keep it.
pub(super) fn location(name: &ObjectName) -> Option<Location> {
    name.0.first().and_then(|part| part.as_ident()).map(|ident| ident.span.start).filter(|start| start.line > 0)
}

/// A name in quotes.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Catalogue;
    use crate::sql::survey::survey;

    fn trusted(text: &str) -> bool {
        let catalogue = Catalogue::builtin();
        let seen = survey(&mut Scanner::new(text.as_bytes(), Lexing::default()), &catalogue).unwrap();
        parse(text, &seen).is_some()
    }

    #[test]
    fn trees_that_say_what_the_text_says() {
        for text in [
            "SELECT 1",
            "select a, b as c, d e from t x inner join u as y on x.a = y.a left outer join v using (a)",
            "SELECT 'it''s', E'a\\'b', $$x$$, U&'d', 1e5, .5, -3 FROM t -- what\n",
            "SELECT count(*) FILTER (WHERE a > 1), sum(DISTINCT b), array_agg(x ORDER BY y DESC NULLS LAST) FROM t",
            "SELECT x::int, CAST(y AS numeric(10, 2)), date '2020-01-01', interval '1 day' FROM t WHERE a != 1 AND b <> 2",
            "SELECT DISTINCT ON (a) a, b FROM t ORDER BY a, b DESC LIMIT 5 OFFSET 2;",
            "SELECT * FROM t ORDER BY a FETCH FIRST 3 ROWS WITH TIES",
            "SELECT row_number() OVER (PARTITION BY a ORDER BY b ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t",
            "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT n FROM r",
            "SELECT a FROM t UNION SELECT b FROM u EXCEPT ALL SELECT 1",
            "SELECT extract(year FROM a), substring(b from 1 for 2), position('x' in b), trim(both ' ' from b) FROM t",
            "SELECT a FROM t WHERE k = ANY ($1) AND (b, c) IN ((1, 2), (3, 4)) AND d BETWEEN 1 AND 2",
            "INSERT INTO t (a, b) VALUES (1, 'x'), (2, DEFAULT) ON CONFLICT (a) DO UPDATE SET b = excluded.b RETURNING *",
            "UPDATE t SET a = 1, b = b + 1 FROM u WHERE t.k = u.k RETURNING t.*",
            "DELETE FROM t USING u WHERE t.k = u.k",
            "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY x) FROM t GROUP BY ROLLUP (a)",
            "SELECT * FROM t, LATERAL (SELECT * FROM u WHERE u.a = t.a) x",
        ] {
            assert!(trusted(text), "{text}");
        }
    }

    #[test]
    fn trees_that_do_not() {
        for text in ["SELECT a FROM t LIMIT 5 + ", "SELECT 1; SELECT 2", "SELECT 1 FROM", "SELECT a FROM t LIMIT ALL"] {
            assert!(!trusted(text), "{text}");
        }
    }
}
