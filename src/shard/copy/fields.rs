//! The values of key columns in a line.

use super::{CopyField, CsvLayout, TextLayout};

/// Key fields of a line of `FORMAT text`. Spec: `CopyReadAttributesText`.
pub(super) fn text_fields(line: &[u8], layout: &TextLayout, key: &[usize]) -> Option<Vec<CopyField>> {
    let mut fields = Vec::new();
    let (mut begin, mut at) = (0, 0);
    let last = *key.iter().max()?;
    while fields.len() <= last {
        match line.get(at) {
            Some(b'\\') => at += 2,
            Some(byte) if *byte != layout.delimiter => at += 1,
            other => {
                let end = at.min(line.len());
                fields.push(begin..end);
                if other.is_none() {
                    break;
                }
                at += 1;
                begin = at;
            }
        }
    }
    let value = |field: &usize| {
        let raw = &line[fields.get(*field)?.clone()];
        Some((raw != layout.null).then(|| unescape(raw)))
    };
    key.iter().map(value).collect()
}

fn unescape(mut raw: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(raw.len());
    while let Some((byte, rest)) = raw.split_first() {
        raw = rest;
        let Some((escaped, rest)) = rest.split_first().filter(|_| *byte == b'\\') else {
            value.push(*byte);
            continue;
        };
        raw = rest;
        value.push(match escaped {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            b'0'..=b'7' => {
                let (code, rest) = digits(*escaped, raw, 8, 2);
                raw = rest;
                code
            }
            b'x' if raw.first().is_some_and(u8::is_ascii_hexdigit) => {
                let (code, rest) = digits(raw[0], &raw[1..], 16, 1);
                raw = rest;
                code
            }
            other => *other,
        });
    }
    value
}

/// A code of a first digit and at most `more` others; only its low eight bits count.
fn digits(first: u8, mut rest: &[u8], base: u32, more: usize) -> (u8, &[u8]) {
    let digit = |byte: u8| char::from(byte).to_digit(base);
    let mut code = digit(first).unwrap_or(0);
    for _ in 0..more {
        let Some(next) = rest.first().and_then(|byte| digit(*byte)) else { break };
        code = code * base + next;
        rest = &rest[1..];
    }
    (code as u8, rest)
}

/// Key fields of a line of `FORMAT csv`. Spec: `CopyReadAttributesCSV`.
pub(super) fn csv_fields(line: &[u8], layout: &CsvLayout, key: &[usize]) -> Option<Vec<CopyField>> {
    let mut fields: Vec<CopyField> = Vec::new();
    let last = *key.iter().max()?;
    let mut rest = line;
    while fields.len() <= last {
        let field = fields.len();
        let (value, behind) = csv_field(rest, layout, key.contains(&field))?;
        let null = match &value {
            (text, true) => layout.force_null.contains(&field) && *text == layout.null,
            (text, false) => *text == layout.null && !layout.force_not_null.contains(&field),
        };
        fields.push((!null).then_some(value.0));
        match behind {
            Some(behind) => rest = behind,
            None => break,
        }
    }
    key.iter().map(|field| fields.get(*field).cloned()).collect()
}

/// A value with whether it was quoted, and the rest of its line.
type CsvField<'a> = ((Vec<u8>, bool), Option<&'a [u8]>);

/// A field's value, whether a part of it stood in quotes, and what follows its delimiter. The value of a field that is not `wanted` is empty.
fn csv_field<'a>(line: &'a [u8], layout: &CsvLayout, wanted: bool) -> Option<CsvField<'a>> {
    let (mut value, mut quoted, mut in_quote) = (Vec::new(), false, false);
    let mut at = 0;
    while let Some(byte) = line.get(at) {
        at += 1;
        let mut byte = *byte;
        if in_quote {
            let escaped =
                line.get(at).filter(|next| byte == layout.escape && (**next == layout.escape || **next == layout.quote));
            if let Some(next) = escaped {
                byte = *next;
                at += 1;
            } else if byte == layout.quote {
                in_quote = false;
                continue;
            }
        } else if byte == layout.delimiter {
            return Some(((value, quoted), Some(&line[at..])));
        } else if byte == layout.quote {
            (quoted, in_quote) = (true, true);
            continue;
        }
        if wanted {
            value.push(byte);
        }
    }
    (!in_quote).then_some(((value, quoted), None))
}
