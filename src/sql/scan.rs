//! Our own token scan over bytes: PostgreSQL's lexer (src/backend/parser/scan.l) as far as boundaries matter.
//!
//! Total: any bytes give tokens, and what no PostgreSQL would accept (an unterminated quote, a stray byte) gives one
//! [`TokenKind::Bad`] and the end. Nothing is allocated and nothing is decoded: a token is a range of the text.

mod bytes;
mod quotes;

pub(crate) use bytes::is_name_byte;
use bytes::{ByteClass, class_of};
pub use quotes::StringKind;

use crate::sql::facts::RouteHint;

/// How the server will read the text. Comes from the session's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lexing {
    /// The session's `standard_conforming_strings`: false makes backslashes escapes in plain string literals.
    pub standard_conforming_strings: bool,
    /// Whether a byte under 0x80 always stands for itself in the client encoding: not so in SJIS, BIG5, GBK, UHC, GB18030,
    /// JOHAB and SHIFT_JIS_2004.
    pub ascii_safe_encoding: bool,
}

impl Default for Lexing {
    fn default() -> Self {
        Lexing { standard_conforming_strings: true, ascii_safe_encoding: true }
    }
}

/// One token: a range of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Its first byte.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// An unquoted identifier or a keyword.
    Word,
    /// `"name"`, with its quotes.
    QuotedName,
    /// `U&"name"`.
    UnicodeName,
    /// A string literal of any kind, with its prefix and quotes.
    String(StringKind),
    /// A numeric literal without fraction and exponent.
    Integer,
    /// Any other numeric literal.
    Decimal,
    /// `$1`.
    Parameter,
    /// A maximal run of operator characters.
    Operator,
    /// `::`
    Cast,
    /// `(`
    OpenParen,
    /// `)`
    CloseParen,
    /// `[`
    OpenBracket,
    /// `]`
    CloseBracket,
    /// `,`
    Comma,
    /// `.` or `..`
    Dot,
    /// `:` or `:=`
    Colon,
    /// `;`
    Semicolon,
    /// An unterminated quote or comment, or a byte that starts no token. The scan ends here and must not be trusted.
    Bad,
}

impl Token {
    /// Its bytes.
    pub fn bytes<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        text.get(self.start..self.end).unwrap_or_default()
    }

    /// Whether it is this word, whatever its case. `word` is in lower case.
    pub fn is_word(&self, text: &[u8], word: &str) -> bool {
        self.kind == TokenKind::Word && self.bytes(text).eq_ignore_ascii_case(word.as_bytes())
    }
}

/// Gives the tokens of a text one after the other; comments and white space are left out.
#[derive(Clone, Debug)]
pub struct Scanner<'a> {
    text: &'a [u8],
    position: usize,
    backslash_escapes: bool,
    hint: Option<RouteHint>,
}

impl<'a> Scanner<'a> {
    /// Starts at the first byte of the text.
    pub fn new(text: &'a [u8], lexing: Lexing) -> Self {
        Scanner { text, position: 0, backslash_escapes: !lexing.standard_conforming_strings, hint: None }
    }

    /// Starts at a byte at which a token may start.
    pub fn starting_at(text: &'a [u8], position: usize, lexing: Lexing) -> Self {
        Scanner { text, position: position.min(text.len()), backslash_escapes: !lexing.standard_conforming_strings, hint: None }
    }

    /// The routing comment met so far; `primary` wins over `replica`.
    pub fn hint(&self) -> Option<RouteHint> {
        self.hint
    }

    /// The whole text.
    pub fn text(&self) -> &'a [u8] {
        self.text
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.position + ahead).copied().unwrap_or(0)
    }

    #[inline]
    fn token(&mut self, kind: TokenKind, length: usize) -> Option<Token> {
        let start = self.position;
        self.position += length;
        Some(Token { kind, start, end: self.position })
    }

    fn token_to(&mut self, kind: TokenKind, end: Option<usize>) -> Option<Token> {
        match end {
            Some(end) => self.token(kind, end - self.position),
            None => self.bad(),
        }
    }

    fn bad(&mut self) -> Option<Token> {
        let start = self.position;
        self.position = self.text.len();
        Some(Token { kind: TokenKind::Bad, start, end: self.position })
    }

    #[inline]
    fn word(&mut self) -> Option<Token> {
        let start = self.position;
        if self.text.get(start + 1).is_some_and(|next| matches!(next, b'\'' | b'&'))
            && let Some(token) = self.prefixed()
        {
            return Some(token);
        }
        let rest = &self.text[start..];
        let length = rest.iter().position(|&byte| !is_name_byte(byte)).unwrap_or(rest.len());
        self.token(TokenKind::Word, length)
    }

    /// A literal or name with a one- or two-letter prefix, if this is one.
    fn prefixed(&mut self) -> Option<Token> {
        let kind = match (self.text[self.position] | 0x20, self.peek(1), self.peek(2)) {
            (b'e', b'\'', _) => StringKind::Escape,
            (b'b', b'\'', _) => StringKind::Bit,
            (b'x', b'\'', _) => StringKind::Hex,
            (b'n', b'\'', _) => StringKind::National,
            (b'u', b'&', b'\'') => StringKind::Unicode,
            (b'u', b'&', b'"') => {
                let end = quotes::end_of_quoted(self.text, self.position + 3, b'"');
                return self.token_to(TokenKind::UnicodeName, end);
            }
            _ => return None,
        };
        let opened = self.position + if kind == StringKind::Unicode { 3 } else { 2 };
        let end = match kind {
            StringKind::Escape => quotes::end_of_escaped(self.text, opened),
            StringKind::National if self.backslash_escapes => quotes::end_of_escaped(self.text, opened),
            _ => quotes::end_of_quoted(self.text, opened, b'\''),
        };
        self.token_to(TokenKind::String(kind), end)
    }

    fn plain_string(&mut self) -> Option<Token> {
        let opened = self.position + 1;
        if self.backslash_escapes {
            let end = quotes::end_of_escaped(self.text, opened);
            return self.token_to(TokenKind::String(StringKind::Escape), end);
        }
        let end = quotes::end_of_quoted(self.text, opened, b'\'');
        self.token_to(TokenKind::String(StringKind::Plain), end)
    }

    fn dollar(&mut self) -> Option<Token> {
        if self.peek(1).is_ascii_digit() {
            let rest = &self.text[self.position + 1..];
            let digits = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
            return self.token(TokenKind::Parameter, digits + 1);
        }
        let end = quotes::end_of_dollar_quoted(self.text, self.position);
        self.token_to(TokenKind::String(StringKind::Dollar), end)
    }

    fn number(&mut self) -> Option<Token> {
        let (length, whole) = bytes::number_length(&self.text[self.position..]);
        self.token(if whole { TokenKind::Integer } else { TokenKind::Decimal }, length)
    }

    fn punctuation(&mut self) -> Option<Token> {
        let double = self.peek(1);
        match self.text[self.position] {
            b'(' => self.token(TokenKind::OpenParen, 1),
            b')' => self.token(TokenKind::CloseParen, 1),
            b'[' => self.token(TokenKind::OpenBracket, 1),
            b']' => self.token(TokenKind::CloseBracket, 1),
            b',' => self.token(TokenKind::Comma, 1),
            b';' => self.token(TokenKind::Semicolon, 1),
            b'.' if double.is_ascii_digit() => self.number(),
            b'.' => self.token(TokenKind::Dot, if double == b'.' { 2 } else { 1 }),
            b':' if double == b':' => self.token(TokenKind::Cast, 2),
            _ => self.token(TokenKind::Colon, if double == b'=' { 2 } else { 1 }),
        }
    }

    /// An operator, or a comment, which gives no token: `None` then.
    fn operator_or_comment(&mut self) -> Option<Token> {
        match (self.text[self.position], self.peek(1)) {
            (b'-', b'-') => {
                self.position = quotes::end_of_line_comment(self.text, self.position);
                None
            }
            (b'/', b'*') => match quotes::end_of_block_comment(self.text, self.position) {
                Some(end) => {
                    self.note_hint(end);
                    self.position = end;
                    None
                }
                None => self.bad(),
            },
            _ => {
                let length = bytes::operator_length(&self.text[self.position..]);
                self.token(TokenKind::Operator, length)
            }
        }
    }

    fn note_hint(&mut self, end: usize) {
        let found = quotes::hint_of(&self.text[self.position + 2..end - 2]);
        if self.hint != Some(RouteHint::Primary) && found.is_some() {
            self.hint = found;
        }
    }
}

impl Iterator for Scanner<'_> {
    type Item = Token;

    #[inline]
    fn next(&mut self) -> Option<Token> {
        loop {
            let &byte = self.text.get(self.position)?;
            match class_of(byte) {
                ByteClass::Space => self.position += 1,
                ByteClass::Letter => return self.word(),
                ByteClass::Digit => return self.number(),
                ByteClass::Punctuation => return self.punctuation(),
                ByteClass::Operator => {
                    if let Some(token) = self.operator_or_comment() {
                        return Some(token);
                    }
                }
                ByteClass::Quote => return self.plain_string(),
                ByteClass::DoubleQuote => {
                    let end = quotes::end_of_quoted(self.text, self.position + 1, b'"');
                    return self.token_to(TokenKind::QuotedName, end);
                }
                ByteClass::Dollar => return self.dollar(),
                ByteClass::Stray => return self.bad(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TokenKind::*;
    use super::*;

    fn scanned(text: &str) -> Vec<(TokenKind, &str)> {
        scanned_with(text, Lexing::default())
    }

    fn scanned_with(text: &str, lexing: Lexing) -> Vec<(TokenKind, &str)> {
        Scanner::new(text.as_bytes(), lexing).map(|token| (token.kind, &text[token.start..token.end])).collect()
    }

    fn check(text: &str, expect: &[(TokenKind, &str)]) {
        assert_eq!(scanned(text), expect, "{text}");
    }

    #[test]
    fn literals_end_where_postgresql_ends_them() {
        let plain = String(StringKind::Plain);
        let escape = String(StringKind::Escape);
        let dollar = String(StringKind::Dollar);
        check("'a''b' x", &[(plain, "'a''b'"), (Word, "x")]);
        check(r"'a\' x", &[(plain, r"'a\'"), (Word, "x")]);
        check(r"E'a\'b' x", &[(escape, r"E'a\'b'"), (Word, "x")]);
        check(r"e'a\\' x", &[(escape, r"e'a\\'"), (Word, "x")]);
        check("E'a'\n 'b\\'c' x", &[(escape, "E'a'\n 'b\\'c'"), (Word, "x")]);
        check("E'a' -- c\n -- d\n 'b\\'c' x", &[(escape, "E'a' -- c\n -- d\n 'b\\'c'"), (Word, "x")]);
        check("E'a' 'b'", &[(escape, "E'a'"), (plain, "'b'")]);
        check("fooE'a'", &[(Word, "fooE"), (plain, "'a'")]);
        check("U&'d\\0061' x", &[(String(StringKind::Unicode), "U&'d\\0061'"), (Word, "x")]);
        check("u&\"d\"\"a\" x", &[(UnicodeName, "u&\"d\"\"a\""), (Word, "x")]);
        check("u & b", &[(Word, "u"), (Operator, "&"), (Word, "b")]);
        check(
            "b'01' X'1F' n'x'",
            &[(String(StringKind::Bit), "b'01'"), (String(StringKind::Hex), "X'1F'"), (String(StringKind::National), "n'x'")],
        );
        check("$$a'b$$ x", &[(dollar, "$$a'b$$"), (Word, "x")]);
        check("$t$ $$ $x$t$", &[(dollar, "$t$ $$ $x$t$")]);
        check("$t$a$t$b", &[(dollar, "$t$a$t$"), (Word, "b")]);
        check("a$b$c", &[(Word, "a$b$c")]);
        check("1$a$;$a$", &[(Integer, "1"), (dollar, "$a$;$a$")]);
        check("$1$a$;$a$", &[(Parameter, "$1"), (dollar, "$a$;$a$")]);
        check("\"a\"\"b\".c", &[(QuotedName, "\"a\"\"b\""), (Dot, "."), (Word, "c")]);
    }

    #[test]
    fn comments_numbers_and_operators() {
        check("a /* x /* y */ ; */ b -- c\n;d", &[(Word, "a"), (Word, "b"), (Semicolon, ";"), (Word, "d")]);
        check("a--b\rc", &[(Word, "a"), (Word, "c")]);
        check("a<--x\nb", &[(Word, "a"), (Operator, "<"), (Word, "b")]);
        check("a*/*x*/b", &[(Word, "a"), (Operator, "*"), (Word, "b")]);
        check("1into", &[(Integer, "1"), (Word, "into")]);
        check(
            "1.5e-3 .5 1e 1..2",
            &[(Decimal, "1.5e-3"), (Decimal, ".5"), (Integer, "1"), (Word, "e"), (Integer, "1"), (Dot, ".."), (Integer, "2")],
        );
        check("0xFF 1_000 0b1", &[(Integer, "0xFF"), (Integer, "1_000"), (Integer, "0b1")]);
        check("a::int[1]", &[(Word, "a"), (Cast, "::"), (Word, "int"), (OpenBracket, "["), (Integer, "1"), (CloseBracket, "]")]);
        check("a@>b->>'c'", &[(Word, "a"), (Operator, "@>"), (Word, "b"), (Operator, "->>"), (String(StringKind::Plain), "'c'")]);
        check(
            "f(a:=1,b=>2)",
            &[
                (Word, "f"),
                (OpenParen, "("),
                (Word, "a"),
                (Colon, ":="),
                (Integer, "1"),
                (Comma, ","),
                (Word, "b"),
                (Operator, "=>"),
                (Integer, "2"),
                (CloseParen, ")"),
            ],
        );
    }

    #[test]
    fn what_no_server_accepts_ends_the_scan() {
        for (text, at) in [
            ("a 'b", 2),
            ("a \"b", 2),
            ("a /* b /* */", 2),
            ("a $x$ b", 2),
            ("a $x b", 2),
            ("a E'b\\'", 2),
            ("a { b", 2),
            ("a \\; b", 2),
            ("a \0 b", 2),
            ("U&'x", 0),
            ("U&\"x", 0),
        ] {
            let last = Scanner::new(text.as_bytes(), Lexing::default()).last().unwrap();
            assert_eq!((last.kind, last.start, last.end), (Bad, at, text.len()), "{text}");
        }
    }

    #[test]
    fn without_standard_conforming_strings_backslashes_escape() {
        let lexing = Lexing { standard_conforming_strings: false, ascii_safe_encoding: true };
        assert_eq!(scanned_with(r"'a\'b' x", lexing).len(), 2);
        assert_eq!(scanned_with(r"n'a\'b' x", lexing).len(), 2);
    }

    #[test]
    fn routing_comments() {
        for (text, hint) in [
            ("/* pgyard: primary */ select 1", Some(RouteHint::Primary)),
            ("select /*pgyard:replica*/ 1", Some(RouteHint::Replica)),
            ("select 1 /* PGYARD: Replica */", Some(RouteHint::Replica)),
            ("/* pgyard: replica */ select 1 /* pgyard: primary */", Some(RouteHint::Primary)),
            ("/* pgyard: primary */ select 1 /* pgyard: replica */", Some(RouteHint::Primary)),
            ("/* pgyard: somewhere */ select 1", None),
            ("/* pgyard primary */ select 1", None),
            ("select '/* pgyard: primary */'", None),
            ("-- pgyard: primary\nselect 1", None),
        ] {
            let mut scanner = Scanner::new(text.as_bytes(), Lexing::default());
            while scanner.next().is_some() {}
            assert_eq!(scanner.hint(), hint, "{text}");
        }
    }
}
