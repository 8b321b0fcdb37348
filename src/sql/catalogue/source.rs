//! Whether a function's source may leave something behind in the session: SET, LISTEN, PREPARE, advisory locks, temporary
//! tables, EXECUTE of a text that nobody has seen, or a call of another such function.

use crate::sql::scan::{Lexing, Scanner, Token, TokenKind};
use crate::sql::words::{WordFlags, WordTable};

/// A source longer than this is not read. Bytes.
const SOURCE_LENGTH_MAX: usize = 65_536;

/// Behind these a statement of PL/pgSQL or SQL starts.
const OPENERS: &[&str] = &["begin", "then", "else", "loop", "atomic"];
/// As a statement's first word these change the session.
const SESSION_COMMANDS: &[&str] = &["reset", "discard", "listen", "unlisten", "prepare", "deallocate", "load"];

/// Whether the source, in SQL or PL/pgSQL, may change the session's state, as far as its text and `words` say.
pub(crate) fn is_opaque(source: &[u8], words: &WordTable) -> bool {
    if source.len() > SOURCE_LENGTH_MAX {
        return true;
    }
    let mut scanner = Scanner::new(source, Lexing::default());
    let mut previous: Option<Token> = None;
    while let Some(token) = scanner.next() {
        let found = match token.kind {
            TokenKind::Bad | TokenKind::UnicodeName => true,
            TokenKind::QuotedName => lasting(words.quoted(&source[token.start + 1..token.end - 1])),
            TokenKind::Word => word_is_opaque(source, token, previous, &scanner) || lasting(words.word(token.bytes(source))),
            _ => false,
        };
        if found && !(token.is_word(source, "set_config") && ends_with_true(source, scanner.clone())) {
            return true;
        }
        previous = Some(token);
    }
    false
}

/// Whether the source names something that may write: a function that says it is stable may call one that does not.
pub(crate) fn may_write(source: &[u8], words: &WordTable) -> bool {
    let harmful = |flags: WordFlags| flags.has(WordFlags::VOLATILE | WordFlags::SUSPECT);
    source.len() > SOURCE_LENGTH_MAX
        || Scanner::new(source, Lexing::default()).any(|token| match token.kind {
            TokenKind::Bad | TokenKind::UnicodeName => true,
            TokenKind::QuotedName => harmful(words.quoted(&source[token.start + 1..token.end - 1])),
            TokenKind::Word => harmful(words.word(token.bytes(source))),
            _ => false,
        })
}

/// Whether the source, or a function that it calls, may set a parameter to the end of the transaction. Custom parameters
/// (`app.tenant`) do not count: no text means another thing because of them.
pub(crate) fn sets_locally(source: &[u8], words: &WordTable) -> bool {
    let mut scanner = Scanner::new(source, Lexing::default());
    let mut previous: Option<Token> = None;
    while let Some(token) = scanner.next() {
        let mut rest = scanner.clone();
        let word = token.kind == TokenKind::Word;
        if word && token.is_word(source, "local") && previous.is_some_and(|token| token.is_word(source, "set")) {
            rest.next();
            if rest.next().is_none_or(|token| token.kind != TokenKind::Dot) {
                return true;
            }
        } else if word && words.word(token.bytes(source)).has(WordFlags::SET_CONFIG) {
            let name = rest.by_ref().nth(1).and_then(|token| crate::sql::cursor::literal_value(source, token));
            if name.is_none_or(|name| !name.contains('.')) {
                return true;
            }
        } else if word && words.word(token.bytes(source)).has(WordFlags::LOCAL_SETTING) {
            return true;
        }
        previous = Some(token);
    }
    false
}

fn lasting(flags: WordFlags) -> bool {
    flags.has(WordFlags::OPAQUE | WordFlags::ADVISORY | WordFlags::SET_CONFIG)
}

fn word_is_opaque(source: &[u8], token: Token, previous: Option<Token>, rest: &Scanner<'_>) -> bool {
    let is = |word: &str| token.is_word(source, word);
    let behind = |words: &[&str]| previous.is_some_and(|token| words.iter().any(|word| token.is_word(source, word)));
    let before = |words: &[&str]| rest.clone().next().is_some_and(|next| words.iter().any(|word| next.is_word(source, word)));
    if is("execute") {
        return !before(&["on", "function", "procedure"]);
    }
    if is("temp") || is("temporary") {
        return behind(&["create", "local", "global", "replace", "into"]);
    }
    if is("pg_temp") {
        return true;
    }
    let starts = previous.is_none_or(|token| {
        token.kind == TokenKind::Semicolon || token.kind == TokenKind::Operator && token.bytes(source) == b">>"
    }) || behind(OPENERS);
    if starts && is("set") {
        return !before(&["local", "constraints", "transaction"]);
    }
    starts && SESSION_COMMANDS.iter().any(|word| is(word))
}

/// Whether the call whose name was just read has the literal `true` as its last of several arguments.
fn ends_with_true(source: &[u8], mut rest: Scanner<'_>) -> bool {
    let mut depth = 0usize;
    let mut last_two: [Option<Token>; 2] = [None, None];
    for token in rest.by_ref() {
        match token.kind {
            TokenKind::OpenParen => depth += 1,
            TokenKind::CloseParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            break;
        }
        last_two = [last_two[1], Some(token)];
    }
    let is_true = last_two[1].is_some_and(|token| token.is_word(source, "true"));
    is_true && last_two[0].is_some_and(|token| token.kind == TokenKind::Comma)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, expect: bool) {
        let mut words = WordTable::with_keywords();
        words.add("set_config", WordFlags::SET_CONFIG);
        words.add("pg_advisory_lock", WordFlags::ADVISORY);
        words.add("other_opaque", WordFlags::OPAQUE);
        assert_eq!(is_opaque(source.as_bytes(), &words), expect, "{source}");
    }

    #[test]
    fn sources_that_reach_the_session() {
        for source in [
            "BEGIN SET search_path = a; END",
            "SET work_mem = 1; SELECT 1",
            "BEGIN IF x THEN RESET ALL; END IF; END",
            "<<l>> SET a = 1;",
            "BEGIN EXECUTE 'select 1'; END",
            "BEGIN RETURN QUERY EXECUTE format('%s', a); END",
            "BEGIN CREATE TEMP TABLE t (a int); END",
            "BEGIN CREATE TABLE pg_temp.t (a int); END",
            "BEGIN SELECT 1 INTO TEMP x; END",
            "SELECT set_config('a.b', $1, false)",
            "SELECT set_config('a.b', $1, $2)",
            "SELECT set_config('a.b', $1, (SELECT true))",
            "BEGIN PERFORM pg_advisory_lock(1); END",
            "SELECT \"pg_advisory_lock\"(1)",
            "SELECT s.other_opaque(1)",
            "BEGIN LISTEN x; END",
            "BEGIN 'unterminated; END",
        ] {
            check(source, true);
        }
        check(&"x ".repeat(40_000), true);
    }

    #[test]
    fn sources_that_may_write() {
        let mut words = WordTable::with_keywords();
        words.add("writes", WordFlags::VOLATILE);
        words.add("v_writes", WordFlags::SUSPECT);
        for (source, expect) in [
            ("BEGIN RETURN s.writes(1); END", true),
            ("SELECT n FROM \"v_writes\"", true),
            ("BEGIN 'unterminated; END", true),
            ("SELECT a FROM t WHERE b = 'writes' -- writes()", false),
        ] {
            assert_eq!(may_write(source.as_bytes(), &words), expect, "{source}");
        }
    }

    #[test]
    fn sources_that_do_not() {
        for source in [
            "BEGIN UPDATE t SET a = 1; RETURN new; END",
            "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET b = 1",
            "BEGIN SET LOCAL work_mem = 1; END",
            "SELECT set_config('a.b', $1, true)",
            "BEGIN GRANT EXECUTE ON FUNCTION f TO x; END",
            "SELECT 'EXECUTE', temp FROM weather -- SET a = 1\n",
            "BEGIN LOCK TABLE t; END",
            "SELECT nextval('s')",
        ] {
            check(source, false);
        }
    }
}
