//! One pass over one statement: what its words, calls and operators are. Allocates nothing; decides nothing.

use crate::sql::catalogue::Catalogue;
use crate::sql::scan::{Scanner, Token, TokenKind};
use crate::sql::words::{WordFlags, WordTable};
use std::ops::Range;

/// What one pass over a statement has seen.
#[derive(Clone, Debug)]
pub struct Survey {
    /// From the first to the last token, without the semicolon.
    pub span: Range<usize>,
    /// The first word behind opening parentheses.
    pub lead: Option<Token>,
    /// Union of what is known of every name and keyword.
    pub names: WordFlags,
    /// Union of what is known of every name that is called.
    pub calls: WordFlags,
    /// Union of what is known of every name that is a view.
    pub views: WordFlags,
    /// Something may be called that the catalogue does not know.
    pub unknown_calls: bool,
    /// INSERT, UPDATE, DELETE or MERGE stands where a statement inside the statement may start.
    pub data_change: bool,
    /// A locking clause.
    pub locks: bool,
    /// An explicit coercion.
    pub casts: bool,
    /// An operator over a volatile function.
    pub suspect_operator: bool,
    /// False if the text has what no server accepts: an unterminated quote, a stray byte, a parenthesis that nothing opened.
    pub trusted: bool,
    /// How deep a tree of this statement can be, at most.
    pub chain: usize,
}

/// How a name that stands before a parenthesis got there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NameContext {
    /// It may be called.
    Call,
    /// It is being defined, or is a type: `AS name (`, `::name(`, `) name (`.
    Definition,
}

struct Surveyor<'a, 'c> {
    words: &'c WordTable,
    operators: &'c [Box<[u8]>],
    text: &'a [u8],
    survey: Survey,
    previous: TokenKind,
    previous_flags: WordFlags,
    context: NameContext,
    depth: usize,
    /// Open BEGIN ATOMIC and CASE blocks of a CREATE FUNCTION, whose semicolons end no statement.
    blocks: usize,
    creates: bool,
}

/// Surveys the statement at which the scanner stands, up to and including its semicolon. `None` at the end of the text.
pub fn survey(scanner: &mut Scanner<'_>, catalogue: &Catalogue) -> Option<Survey> {
    survey_names(scanner, catalogue.words(), catalogue.operators())
}

/// As above, for a catalogue that is still being built.
pub(crate) fn survey_names(scanner: &mut Scanner<'_>, words: &WordTable, operators: &[Box<[u8]>]) -> Option<Survey> {
    let first = scanner.by_ref().find(|token| token.kind != TokenKind::Semicolon)?;
    let mut surveyor = Surveyor::new(scanner.text(), words, operators, first);
    surveyor.take(first);
    for token in scanner {
        if token.kind == TokenKind::Semicolon && surveyor.depth == 0 && surveyor.blocks == 0 {
            break;
        }
        surveyor.take(token);
    }
    Some(surveyor.survey)
}

impl<'a, 'c> Surveyor<'a, 'c> {
    fn new(text: &'a [u8], words: &'c WordTable, operators: &'c [Box<[u8]>], first: Token) -> Self {
        let survey = Survey {
            span: first.start..first.end,
            lead: None,
            names: WordFlags::NONE,
            calls: WordFlags::NONE,
            views: WordFlags::NONE,
            unknown_calls: false,
            data_change: false,
            locks: false,
            casts: false,
            suspect_operator: false,
            trusted: true,
            chain: 0,
        };
        Surveyor {
            words,
            operators,
            text,
            survey,
            previous: TokenKind::Semicolon,
            previous_flags: WordFlags::NONE,
            context: NameContext::Call,
            depth: 0,
            blocks: 0,
            creates: false,
        }
    }

    #[inline]
    fn take(&mut self, token: Token) {
        self.survey.span.end = token.end;
        let mut flags = WordFlags::NONE;
        match token.kind {
            TokenKind::Word => flags = self.word(token),
            TokenKind::QuotedName => {
                flags = self.words.quoted(&self.text[token.start + 1..token.end - 1]);
                self.name(flags);
            }
            TokenKind::UnicodeName => {
                flags = WordFlags::SUSPECT;
                self.name(flags);
            }
            TokenKind::OpenParen => self.open(),
            TokenKind::CloseParen => self.close(),
            TokenKind::Operator => {
                self.survey.chain += 1;
                let run = token.bytes(self.text);
                self.survey.suspect_operator |= self.operators.iter().any(|name| memchr::memmem::find(run, name).is_some());
            }
            TokenKind::Cast => {
                self.survey.chain += 1;
                self.survey.casts = true;
            }
            TokenKind::OpenBracket => self.survey.chain += 1,
            TokenKind::String(_) => self.survey.casts |= self.previous == TokenKind::Word,
            // Only the body of a rule or function has semicolons inside.
            TokenKind::Semicolon => self.survey.trusted &= self.creates,
            TokenKind::Bad => self.survey.trusted = false,
            _ => {}
        }
        self.previous = token.kind;
        self.previous_flags = flags;
    }

    #[inline]
    fn word(&mut self, token: Token) -> WordFlags {
        let bytes = token.bytes(self.text);
        let mut flags = self.words.word(bytes);
        if self.survey.lead.is_none() {
            self.survey.lead = Some(token);
            self.creates = bytes.eq_ignore_ascii_case(b"create");
        } else if self.previous == TokenKind::Dot {
            // Behind a dot a keyword is a column or a function.
            flags = flags.as_quoted();
        } else if flags.has(WordFlags::DATA_CHANGE) {
            let expression = matches!(self.previous, TokenKind::Comma | TokenKind::Operator)
                || self.previous_flags.has(WordFlags::BEFORE_EXPRESSION | WordFlags::FOR);
            self.survey.data_change |= !expression;
        }
        if self.creates {
            self.block(bytes);
        }
        self.survey.locks |= flags.has(WordFlags::LOCK_STRENGTH) && self.previous_flags.has(WordFlags::FOR);
        self.survey.casts |= flags.has(WordFlags::CAST);
        self.survey.chain += usize::from(flags.has(WordFlags::CHAINS));
        self.name(flags);
        flags
    }

    #[inline]
    fn name(&mut self, flags: WordFlags) {
        if self.previous != TokenKind::Dot {
            let alias = self.previous == TokenKind::CloseParen && !self.survey.names.has(WordFlags::JUXTAPOSES);
            let definition = alias || self.previous == TokenKind::Cast || self.previous_flags.has(WordFlags::BEFORE_DEFINITION);
            self.context = if definition { NameContext::Definition } else { NameContext::Call };
        }
        self.survey.names |= flags;
        if flags.has(WordFlags::TREE) {
            self.survey.views |= flags;
        }
    }

    /// Semicolons inside `BEGIN ATOMIC ... END` belong to the body of a CREATE FUNCTION.
    #[cold]
    fn block(&mut self, word: &[u8]) {
        if word.eq_ignore_ascii_case(b"atomic") || self.blocks > 0 && word.eq_ignore_ascii_case(b"case") {
            self.blocks += 1;
        } else if word.eq_ignore_ascii_case(b"end") {
            self.blocks = self.blocks.saturating_sub(1);
        }
    }

    #[inline]
    fn close(&mut self) {
        match self.depth.checked_sub(1) {
            Some(depth) => self.depth = depth,
            None => self.survey.trusted = false,
        }
    }

    #[inline]
    fn open(&mut self) {
        self.depth += 1;
        let named = matches!(self.previous, TokenKind::Word | TokenKind::QuotedName | TokenKind::UnicodeName);
        if !named || self.context == NameContext::Definition || self.previous_flags.has(WordFlags::RESERVED) {
            return;
        }
        self.survey.calls |= self.previous_flags;
        self.survey.unknown_calls |= !self.previous_flags.has(WordFlags::FUNCTION | WordFlags::GRAMMAR);
    }
}
