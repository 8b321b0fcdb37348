//! Arrays of one dimension, taken apart.

use std::borrow::Cow;

/// An element; `None` is NULL.
type Element<'a> = Option<Cow<'a, [u8]>>;

/// The elements of an array in the text format, such as `{1,NULL,"a \"b\""}`. Other dimensions and lower bounds are not read.
pub(super) fn split_text(text: &[u8]) -> Option<Vec<Element<'_>>> {
    let text = text.trim_ascii();
    let mut rest = text.strip_prefix(b"{")?.strip_suffix(b"}")?;
    let mut elements = Vec::new();
    if rest.trim_ascii().is_empty() {
        return Some(elements);
    }
    loop {
        let (element, behind) = next_element(rest.trim_ascii_start())?;
        elements.push(element);
        match behind.trim_ascii_start() {
            [] => return Some(elements),
            [b',', behind @ ..] => rest = behind,
            _ => return None,
        }
    }
}

fn next_element(text: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let Some(mut quoted) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|byte| *byte == b',').unwrap_or(text.len());
        let element = text[..end].trim_ascii_end();
        // What has a meaning of its own is left to a server.
        if element.is_empty() || element.iter().any(|byte| matches!(byte, b'\\' | b'"' | b'{' | b'}')) {
            return None;
        }
        let value = (!element.eq_ignore_ascii_case(b"null")).then_some(Cow::Borrowed(element));
        return Some((value, &text[end..]));
    };
    let mut value = Vec::new();
    loop {
        match quoted {
            [b'"', behind @ ..] => return Some((Some(Cow::Owned(value)), behind)),
            [b'\\', byte, behind @ ..] | [byte, behind @ ..] => {
                value.push(*byte);
                quoted = behind;
            }
            [] => return None,
        }
    }
}

/// The elements of an array in the binary format. Spec: `array_recv`.
pub(super) fn split_binary(bytes: &[u8]) -> Option<Vec<Element<'_>>> {
    let (dimensions, rest) = take_number(bytes)?;
    let (_has_nulls, rest) = take_number(rest)?;
    let (_element_type, rest) = take_number(rest)?;
    if dimensions == 0 {
        return rest.is_empty().then(Vec::new);
    }
    let (count, rest) = take_number(rest)?;
    let (_lower_bound, mut rest) = take_number(rest)?;
    if dimensions != 1 || count < 0 {
        return None;
    }
    let mut elements = Vec::new();
    for _ in 0..count {
        let (length, behind) = take_number(rest)?;
        rest = behind;
        if length == -1 {
            elements.push(None);
            continue;
        }
        let (element, behind) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        elements.push(Some(Cow::Borrowed(element)));
        rest = behind;
    }
    rest.is_empty().then_some(elements)
}

fn take_number(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((i32::from_be_bytes(*number), rest))
}
