//! Byte classes, numbers and operators.

/// What a byte may start.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ByteClass {
    Space,
    Letter,
    Digit,
    Punctuation,
    Operator,
    Quote,
    DoubleQuote,
    Dollar,
    Stray,
}

const NAME_BYTE: u8 = 0x80;

static CLASSES: [ByteClass; 256] = classes();
static NAME_BYTES: [u8; 256] = name_bytes();

const fn classes() -> [ByteClass; 256] {
    let mut table = [ByteClass::Stray; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => ByteClass::Space,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xff => ByteClass::Letter,
            b'0'..=b'9' => ByteClass::Digit,
            b'(' | b')' | b'[' | b']' | b',' | b';' | b'.' | b':' => ByteClass::Punctuation,
            b'\'' => ByteClass::Quote,
            b'"' => ByteClass::DoubleQuote,
            b'$' => ByteClass::Dollar,
            other if is_operator_byte(other) => ByteClass::Operator,
            _ => ByteClass::Stray,
        };
        byte += 1;
    }
    table
}

const fn name_bytes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        if matches!(byte as u8, b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'0'..=b'9' | b'$' | 0x80..=0xff) {
            table[byte] = NAME_BYTE;
        }
        byte += 1;
    }
    table
}

const fn is_operator_byte(byte: u8) -> bool {
    matches!(
        byte,
        b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'-' | b'*' | b'/' | b'%' | b'<' | b'>' | b'='
    )
}

#[inline]
pub(super) fn class_of(byte: u8) -> ByteClass {
    CLASSES[usize::from(byte)]
}

/// Whether the byte may stand inside an unquoted identifier.
#[inline]
pub(crate) fn is_name_byte(byte: u8) -> bool {
    NAME_BYTES[usize::from(byte)] != 0
}

/// Length of the operator at the start: a maximal run, cut before a comment.
pub(super) fn operator_length(rest: &[u8]) -> usize {
    let mut length = 1;
    while let Some(&byte) = rest.get(length) {
        let comment = matches!((byte, rest.get(length + 1)), (b'-', Some(b'-')) | (b'/', Some(b'*')));
        if comment || !is_operator_byte(byte) {
            break;
        }
        length += 1;
    }
    length
}

/// Length of the number at the start, and whether it is an integer. Letters behind a number are left for a word of their own, as
/// servers before version 15 read them.
pub(super) fn number_length(rest: &[u8]) -> (usize, bool) {
    if let [b'0', base, digit, ..] = rest {
        let valid: fn(&u8) -> bool = match base | 0x20 {
            b'x' => u8::is_ascii_hexdigit,
            b'o' | b'b' => u8::is_ascii_digit,
            _ => |_| false,
        };
        if valid(digit) {
            return (2 + digits(&rest[2..], valid), true);
        }
    }
    let mut length = digits(rest, u8::is_ascii_digit);
    let mut whole = true;
    if rest.get(length) == Some(&b'.') && rest.get(length + 1) != Some(&b'.') {
        whole = false;
        length += 1;
        length += digits(&rest[length..], u8::is_ascii_digit);
    }
    if rest.get(length).is_some_and(|byte| byte | 0x20 == b'e') {
        let sign = usize::from(matches!(rest.get(length + 1), Some(b'+' | b'-')));
        if rest.get(length + 1 + sign).is_some_and(u8::is_ascii_digit) {
            whole = false;
            length += 1 + sign;
            length += digits(&rest[length..], u8::is_ascii_digit);
        }
    }
    (length, whole)
}

/// Length of a run of digits; single underscores between digits belong to it (version 16).
fn digits(rest: &[u8], valid: fn(&u8) -> bool) -> usize {
    let mut length = 0;
    while let Some(byte) = rest.get(length) {
        let separator = *byte == b'_' && length > 0 && rest.get(length + 1).is_some_and(valid);
        if !valid(byte) && !separator {
            break;
        }
        length += 1;
    }
    length
}
