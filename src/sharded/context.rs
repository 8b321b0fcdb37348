//! The context of a server's error about a line of COPY data, as if it had seen all the data.

use crate::shard::CopyDataError;
use crate::types::SqlState;
use crate::wire::Cursor;
use crate::wire::frame::{HEADER_LEN, put_message, put_string};
use crate::wire::reply::Report;

/// What is told of data that can't be taken apart, without its place.
pub(super) fn bad_data(error: CopyDataError) -> Report {
    let of = |state| Report::error(state, error.to_string());
    let bad_format = SqlState(*b"22P04");
    match error {
        CopyDataError::RowTooLong { .. } => of(SqlState::PROGRAM_LIMIT_EXCEEDED).hint("gather_memory is the limit."),
        CopyDataError::MixedLineEnds(mixed) => of(bad_format).hint(mixed.hint()),
        CopyDataError::Signature | CopyDataError::BehindEnd => of(bad_format),
    }
}

/// The ErrorResponse `message` with the numbers of lines that `find` gives; what it does not know is left out.
pub(super) fn relocated(message: &[u8], relation: &str, find: impl Fn(u64) -> Option<u64>) -> Vec<u8> {
    let mut cursor = Cursor::new(message.get(HEADER_LEN..).unwrap_or_default());
    let mut out = Vec::new();
    put_message(&mut out, b'E', |body| {
        while let Ok(code) = cursor.byte() {
            if code == 0 {
                break;
            }
            let Ok(value) = cursor.string() else { break };
            body.push(code);
            match code {
                b'W' => put_string(body, &renumbered(value, relation, &find)),
                _ => put_string(body, value),
            }
        }
        body.push(0);
    });
    out
}

/// `COPY orders, line 7, column id: "x"`; the words are in the server's language.
fn renumbered(context: &[u8], relation: &str, find: &impl Fn(u64) -> Option<u64>) -> Vec<u8> {
    let head = format!("COPY {relation}, ");
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut known = false;
    for line in context.split(|byte| *byte == b'\n') {
        let rest = line.strip_prefix(head.as_bytes()).filter(|_| !known);
        let digits = rest.and_then(|rest| {
            let begin = rest.iter().position(u8::is_ascii_digit)?;
            let length = rest[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            Some((rest, begin..begin + length))
        });
        lines.push(match digits {
            None => line.to_vec(),
            Some((rest, place)) => {
                known = true;
                let number = std::str::from_utf8(&rest[place.clone()]).ok().and_then(|digits| digits.parse().ok());
                match number.and_then(find) {
                    Some(number) => {
                        [head.as_bytes(), &rest[..place.start], number.to_string().as_bytes(), &rest[place.end..]].concat()
                    }
                    None => {
                        let behind = rest[place.end..].strip_prefix(b", ").unwrap_or(&rest[place.end..]);
                        [head.as_bytes(), behind].concat()
                    }
                }
            }
        });
    }
    lines.join(&b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_get_the_numbers_of_the_whole() {
        let find = |line: u64| (line < 100).then_some(line * 10);
        let check = |context: &str, expect: &str| {
            assert_eq!(String::from_utf8(renumbered(context.as_bytes(), "t", &find)).unwrap(), expect);
        };
        check("COPY t, line 7, column id: \"5 line 6\"", "COPY t, line 70, column id: \"5 line 6\"");
        check("COPY t, Zeile 7", "COPY t, Zeile 70");
        check("COPY t, line 100, column id: \"x\"", "COPY t, column id: \"x\"");
        check("COPY u, line 7", "COPY u, line 7");
        check(
            "PL/pgSQL function f() line 3 at RAISE\nCOPY t, line 7: \"a\nCOPY t, line 8\"",
            "PL/pgSQL function f() line 3 at RAISE\nCOPY t, line 70: \"a\nCOPY t, line 8\"",
        );
        let message = b"E\0\0\0\x1fSERROR\0C22P02\0WCOPY t, line 2\0\0";
        let expect = b"E\0\0\0\x21SERROR\0C22P02\0WCOPY t, line 20\0\0";
        assert_eq!(relocated(message, "t", find)[5..], expect[5..]);
    }
}
