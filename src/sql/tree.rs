//! What a parsed tree proves that the token scan could not: that a name before a parenthesis is an alias, that a keyword is a
//! column. Costs fifty times a scan, so it comes last and only for texts of limited size.
//!
//! sqlparser is not PostgreSQL's parser. It may fail on good SQL (then nothing is proven) and has been seen to lose parts
//! (`SELECT INTO`, `ONLY`), so that a tree is believed only where it shows something, never because it lacks something:
//! INTO and locking clauses are vetoed by the scan already, and each unknown name before a parenthesis must be found as an alias.

mod visit;

use crate::sql::catalogue::Catalogue;
use crate::sql::cursor::{Cursor, identifier};
use crate::sql::scan::{Lexing, TokenKind};
use crate::sql::survey::Survey;
use crate::sql::words::WordFlags;
use sqlparser::ast::Statement;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::{Parser, ParserOptions};
use visit::Collector;

/// Longer texts are not parsed: a tree of this size takes about 4 ms. Bytes.
const PARSE_LENGTH_MAX: usize = 64 * 1024;
/// Deeper trees are not made. sqlparser builds chains of operators without recursion but frees them with it.
const CHAIN_MAX: usize = 1000;
/// Nesting that the parser follows.
const RECURSION_MAX: usize = 100;

/// What the tree says of a statement that the scan has doubts about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Nothing is called that the catalogue does not know, and nothing is changed.
    Read,
    /// Something inside changes data.
    DataChange,
    /// Something unknown is called.
    UnknownFunction,
    /// No tree.
    Unparsed,
}

/// Resolves the doubts of a survey.
pub(crate) fn prove(text: &[u8], survey: &Survey, catalogue: &Catalogue, lexing: Lexing) -> Proof {
    let Some(statement) = parse(text, survey) else { return Proof::Unparsed };
    if !matches!(statement, Statement::Query(_)) {
        return Proof::DataChange;
    }
    let found = Collector::collect(&statement);
    if found.changes_data {
        return Proof::DataChange;
    }
    let known = |name: &String| {
        let flags = catalogue.stored_name(name);
        flags.has(WordFlags::FUNCTION) && !flags.has(WordFlags::VOLATILE)
    };
    if found.functions.iter().all(known) && every_unknown_name_is_an_alias(text, survey, catalogue, lexing, &found) {
        Proof::Read
    } else {
        Proof::UnknownFunction
    }
}

/// The last parts of the names of all relations of a query; `None` where they are not certain. May name too many: a name from a
/// WITH clause counts too.
pub(crate) fn relations(text: &[u8], survey: &Survey) -> Option<Vec<String>> {
    let statement = parse(text, survey)?;
    let found = Collector::collect(&statement);
    let certain = found.tables_are_certain && matches!(statement, Statement::Query(_)) && !found.changes_data;
    certain.then_some(found.relations)
}

fn parse(text: &[u8], survey: &Survey) -> Option<Statement> {
    let text = text.get(survey.span.clone())?;
    if !survey.trusted || text.len() > PARSE_LENGTH_MAX || survey.chain > CHAIN_MAX {
        return None;
    }
    let mut statements = Parser::new(&PostgreSqlDialect {})
        .with_options(ParserOptions::new().with_unescape(false))
        .with_recursion_limit(RECURSION_MAX)
        .try_with_sql(std::str::from_utf8(text).ok()?)
        .and_then(|mut parser| parser.parse_statements())
        .ok()?;
    if statements.len() == 1 { statements.pop() } else { None }
}

/// Each name before a parenthesis that is neither a known function nor a keyword must stand in the tree as an alias.
fn every_unknown_name_is_an_alias(
    text: &[u8],
    survey: &Survey,
    catalogue: &Catalogue,
    lexing: Lexing,
    found: &Collector,
) -> bool {
    let mut cursor = Cursor::new(text, survey.span.clone(), lexing);
    let mut before = None;
    while let Some(token) = cursor.take() {
        let named = matches!(token.kind, TokenKind::Word | TokenKind::QuotedName | TokenKind::UnicodeName);
        if named && cursor.at_kind(TokenKind::OpenParen) {
            let Some(name) = identifier(text, token) else { return false };
            let quoted = token.kind != TokenKind::Word || before == Some(TokenKind::Dot);
            let flags = catalogue.words().quoted(name.as_bytes());
            let keyword = !quoted && catalogue.words().word(token.bytes(text)).has(WordFlags::RESERVED | WordFlags::GRAMMAR);
            let known = keyword || flags.has(WordFlags::FUNCTION) || before == Some(TokenKind::Cast);
            if !known && !found.aliases.contains(&name) {
                return false;
            }
        }
        before = Some(token.kind);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::scan::Scanner;
    use crate::sql::survey::survey;

    fn proof(text: &str) -> Proof {
        let catalogue = Catalogue::builtin();
        let seen = survey(&mut Scanner::new(text.as_bytes(), Lexing::default()), &catalogue).unwrap();
        prove(text.as_bytes(), &seen, &catalogue, Lexing::default())
    }

    #[test]
    fn aliases_are_told_from_calls() {
        for (text, expect) in [
            ("WITH a (x) AS (SELECT 1), b (y) AS (SELECT 2) SELECT * FROM a, b", Proof::Read),
            ("SELECT * FROM t u (a, b)", Proof::Read),
            ("SELECT * FROM generate_series(1, 3) g (a)", Proof::Read),
            ("SELECT * FROM t u (a, b), u(1)", Proof::UnknownFunction),
            ("SELECT * FROM t u (a, b) WHERE u(1)", Proof::UnknownFunction),
            ("SELECT my_function(1)", Proof::UnknownFunction),
            ("SELECT * FROM my_function(1) f", Proof::UnknownFunction),
            ("SELECT * FROM LATERAL my_function(1) f", Proof::UnknownFunction),
            ("SELECT try_cast(1 AS int)", Proof::UnknownFunction),
            ("SELECT struct(1)", Proof::UnknownFunction),
            ("SELECT nextval('s')", Proof::UnknownFunction),
            ("WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", Proof::DataChange),
            ("WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x", Proof::DataChange),
            ("WITH x AS (UPDATE t SET a = 1 RETURNING *) SELECT * FROM x", Proof::DataChange),
            ("SELECT 1 FROM t FROM u", Proof::Unparsed),
            ("SELECT 1; SELECT 2", Proof::Read),
        ] {
            assert_eq!(proof(text), expect, "{text}");
        }
    }

    #[test]
    fn deep_and_long_texts_are_not_parsed() {
        let chain = |links: usize| format!("SELECT unknown(1){}", " + 1".repeat(links));
        assert_eq!(proof(&chain(CHAIN_MAX - 10)), Proof::UnknownFunction);
        assert_eq!(proof(&chain(CHAIN_MAX + 10)), Proof::Unparsed);
        assert_eq!(proof(&format!("SELECT unknown({})", "1, ".repeat(40_000))), Proof::Unparsed);
        let nested = |depth: usize| format!("SELECT unknown(1), {}1{}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(proof(&nested(10)), Proof::UnknownFunction);
        assert_eq!(proof(&nested(10_000)), Proof::Unparsed);
        assert_eq!(proof(&format!("SELECT unknown(1) {}", "UNION SELECT 1 ".repeat(400))), Proof::UnknownFunction);
    }
}
