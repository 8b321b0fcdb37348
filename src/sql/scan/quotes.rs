//! Where string literals, quoted names and comments end.

use crate::sql::facts::RouteHint;

/// The kinds of string literals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StringKind {
    /// `'...'` with `standard_conforming_strings` on.
    Plain,
    /// `E'...'`, and `'...'` with `standard_conforming_strings` off.
    Escape,
    /// `B'...'`.
    Bit,
    /// `X'...'`.
    Hex,
    /// `N'...'`.
    National,
    /// `U&'...'`.
    Unicode,
    /// `$tag$...$tag$`.
    Dollar,
}

/// One past the closing quote; a doubled quote does not close. `from` is behind the opening quote.
pub(super) fn end_of_quoted(text: &[u8], mut from: usize, quote: u8) -> Option<usize> {
    loop {
        let at = from + memchr::memchr(quote, text.get(from..)?)?;
        if text.get(at + 1) != Some(&quote) {
            return Some(at + 1);
        }
        from = at + 2;
    }
}

/// As above for literals in which a backslash hides the byte behind it. Such a literal goes on behind a line break.
pub(super) fn end_of_escaped(text: &[u8], mut from: usize) -> Option<usize> {
    loop {
        let at = from + memchr::memchr2(b'\'', b'\\', text.get(from..)?)?;
        if text[at] == b'\\' || text.get(at + 1) == Some(&b'\'') {
            from = at + 2;
        } else if let Some(opened) = continuation(text, at + 1) {
            from = opened;
        } else {
            return Some(at + 1);
        }
    }
}

/// Where a literal goes on: white space with at least one line break (comments count as white space), then a quote.
/// Spec: `quotecontinue` in scan.l.
fn continuation(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    let mut broken = false;
    loop {
        match text.get(at)? {
            b'\n' | b'\r' => {
                broken = true;
                at += 1;
            }
            b' ' | b'\t' | 0x0b | 0x0c => at += 1,
            b'-' if text.get(at + 1) == Some(&b'-') => at = end_of_line_comment(text, at),
            b'\'' if broken => return Some(at + 1),
            _ => return None,
        }
    }
}

/// One past the closing tag of the dollar-quoted literal at `start`; `None` also where none starts.
pub(super) fn end_of_dollar_quoted(text: &[u8], start: usize) -> Option<usize> {
    let rest = &text[start + 1..];
    let tag_length = rest.iter().position(|&byte| byte == b'$' || !super::is_name_byte(byte))?;
    if rest[tag_length] != b'$' || rest[0].is_ascii_digit() {
        return None;
    }
    let tag = &text[start..start + tag_length + 2];
    let opened = start + tag.len();
    memchr::memmem::find(&text[opened..], tag).map(|at| opened + at + tag.len())
}

/// Where the line ends; the line break itself is not part of the comment.
pub(super) fn end_of_line_comment(text: &[u8], start: usize) -> usize {
    memchr::memchr2(b'\n', b'\r', &text[start..]).map_or(text.len(), |at| start + at)
}

/// One past the end of the block comment at `start`; they nest.
pub(super) fn end_of_block_comment(text: &[u8], start: usize) -> Option<usize> {
    let mut depth = 1usize;
    let mut from = start + 2;
    loop {
        let at = from + memchr::memchr2(b'*', b'/', text.get(from..)?)?;
        match (text[at], text.get(at + 1)) {
            (b'/', Some(b'*')) => {
                depth += 1;
                from = at + 2;
            }
            (b'*', Some(b'/')) => {
                depth -= 1;
                from = at + 2;
                if depth == 0 {
                    return Some(from);
                }
            }
            _ => from = at + 1,
        }
    }
}

/// The routing comment that this comment's inside is, if it is one.
pub(super) fn hint_of(inside: &[u8]) -> Option<RouteHint> {
    let inside = inside.trim_ascii();
    let (name, rest) = inside.split_at_checked(b"pgyard:".len())?;
    if !name.eq_ignore_ascii_case(b"pgyard:") {
        return None;
    }
    match rest.trim_ascii().to_ascii_lowercase().as_slice() {
        b"primary" => Some(RouteHint::Primary),
        b"replica" => Some(RouteHint::Replica),
        _ => None,
    }
}
