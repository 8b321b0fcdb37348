//! A step-by-step reader of one statement's tokens, for commands that are recognised word by word.

use crate::sql::scan::{Lexing, Scanner, StringKind, Token, TokenKind};
use std::sync::Arc;

/// PostgreSQL cuts longer identifiers.
const NAME_LENGTH_MAX: usize = 63;

/// Reads the tokens of a range of the text, one ahead.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    scanner: Scanner<'a>,
    current: Option<Token>,
    /// One past the token read last.
    consumed: usize,
}

impl<'a> Cursor<'a> {
    /// Stands before the first token of `text[span]`.
    pub(crate) fn new(text: &'a [u8], span: std::ops::Range<usize>, lexing: Lexing) -> Self {
        let text = &text[..span.end.min(text.len())];
        let mut scanner = Scanner::starting_at(text, span.start, lexing);
        let current = scanner.next();
        Cursor { scanner, current, consumed: span.start }
    }

    /// The bytes of the text up to the end of the range.
    pub(crate) fn text(&self) -> &'a [u8] {
        self.scanner.text()
    }

    /// The token that comes next.
    pub(crate) fn peek(&self) -> Option<Token> {
        self.current
    }

    /// The token behind the one that comes next.
    pub(crate) fn peek_second(&self) -> Option<Token> {
        self.scanner.clone().next()
    }

    /// Takes one token.
    pub(crate) fn take(&mut self) -> Option<Token> {
        let token = self.current?;
        self.consumed = token.end;
        self.current = self.scanner.next();
        Some(token)
    }

    /// Whether nothing is left.
    pub(crate) fn at_end(&self) -> bool {
        self.current.is_none()
    }

    /// Where the next token starts; the end of the range if there is none.
    pub(crate) fn position(&self) -> usize {
        self.current.map_or(self.text().len(), |token| token.start)
    }

    /// One past the token taken last.
    pub(crate) fn consumed(&self) -> usize {
        self.consumed
    }

    /// Whether the next token is this word.
    pub(crate) fn at(&self, word: &str) -> bool {
        self.current.is_some_and(|token| token.is_word(self.text(), word))
    }

    /// Whether the next token is of this kind.
    pub(crate) fn at_kind(&self, kind: TokenKind) -> bool {
        self.current.is_some_and(|token| token.kind == kind)
    }

    /// Whether the token behind the next one is this word.
    pub(crate) fn second_is(&self, word: &str) -> bool {
        self.peek_second().is_some_and(|token| token.is_word(self.text(), word))
    }

    /// Takes the word if it is next.
    pub(crate) fn eat(&mut self, word: &str) -> bool {
        let found = self.at(word);
        if found {
            self.take();
        }
        found
    }

    /// Takes one of the words if one is next.
    pub(crate) fn eat_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.eat(word))
    }

    /// Takes all the words if they are next, in this order; else none.
    pub(crate) fn eat_all(&mut self, words: &[&str]) -> bool {
        let before = self.clone();
        let found = words.iter().all(|word| self.eat(word));
        if !found {
            *self = before;
        }
        found
    }

    /// Takes a token of this kind if it is next.
    pub(crate) fn eat_kind(&mut self, kind: TokenKind) -> bool {
        let found = self.at_kind(kind);
        if found {
            self.take();
        }
        found
    }

    /// Takes the equals sign or TO of a SET.
    pub(crate) fn eat_assignment(&mut self) -> bool {
        let equals = self.current.is_some_and(|token| token.kind == TokenKind::Operator && token.bytes(self.text()) == b"=");
        if equals {
            self.take();
        }
        equals || self.eat("to")
    }

    /// Takes everything up to the closing parenthesis of one that has been taken; `None` if it does not close.
    pub(crate) fn skip_parenthesis(&mut self) -> Option<Token> {
        let mut depth = 1usize;
        while let Some(token) = self.take() {
            match token.kind {
                TokenKind::OpenParen => depth += 1,
                TokenKind::CloseParen => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(token);
            }
        }
        None
    }

    /// Takes an identifier and gives it as PostgreSQL stores it.
    pub(crate) fn name(&mut self) -> Option<Arc<str>> {
        let name = identifier(self.text(), self.current?)?;
        self.take();
        Some(name.into())
    }

    /// Takes a string literal and gives its value.
    pub(crate) fn string(&mut self) -> Option<String> {
        let value = literal_value(self.text(), self.current?)?;
        self.take();
        Some(value)
    }
}

/// An identifier as PostgreSQL stores it: folded unless quoted, cut at 63 bytes. `None` for `U&"..."` and what is none.
pub(crate) fn identifier(text: &[u8], token: Token) -> Option<String> {
    let bytes = token.bytes(text);
    let mut name = match token.kind {
        TokenKind::Word => String::from_utf8_lossy(bytes).to_ascii_lowercase(),
        TokenKind::QuotedName => String::from_utf8_lossy(bytes.get(1..bytes.len() - 1)?).replace("\"\"", "\""),
        _ => return None,
    };
    name.truncate(name.floor_char_boundary(NAME_LENGTH_MAX));
    Some(name)
}

/// All identifiers and keywords of a text, as PostgreSQL stores them.
pub fn identifiers(text: &[u8]) -> impl Iterator<Item = String> {
    Scanner::new(text, Lexing::default()).filter_map(|token| identifier(text, token))
}

/// The value of a string literal; `None` if it has escapes or is no plain string.
pub(crate) fn literal_value(text: &[u8], token: Token) -> Option<String> {
    let bytes = token.bytes(text);
    let inside = match token.kind {
        TokenKind::String(StringKind::Plain) => bytes.get(1..bytes.len() - 1)?,
        TokenKind::String(StringKind::Escape)
            if !bytes.contains(&b'\\') && !bytes.contains(&b'\n') && !bytes.contains(&b'\r') =>
        {
            let prefix = usize::from(bytes.first() != Some(&b'\''));
            bytes.get(prefix + 1..bytes.len() - 1)?
        }
        TokenKind::String(StringKind::Dollar) => {
            let tag = memchr::memchr(b'$', bytes.get(1..)?)? + 2;
            return Some(String::from_utf8_lossy(bytes.get(tag..bytes.len() - tag)?).into_owned());
        }
        _ => return None,
    };
    Some(String::from_utf8_lossy(inside).replace("''", "'"))
}
