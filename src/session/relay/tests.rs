use super::*;
use crate::server::ReportedParameters;

fn server(expected: &[Expected]) -> Incoming {
    let mut server = Incoming::new(ReportedParameters::default());
    expected.iter().for_each(|e| server.replies.push(*e));
    server
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    crate::wire::frame::put_message(&mut out, tag, |b| b.extend_from_slice(body));
    out
}

fn stream(messages: &[(u8, &[u8])]) -> Vec<u8> {
    messages.iter().flat_map(|(tag, body)| message(*tag, body)).collect()
}

/// Feeds `bytes` in pieces of `step` and returns what the client gets.
fn feed(bytes: &[u8], step: usize, server: &mut Incoming, answer: &mut Answer) -> Vec<u8> {
    let mut outbox = Buffer::new();
    let mut client = Vec::new();
    for piece in bytes.chunks(step) {
        let range = take_chunk(piece, server, answer, &mut outbox).expect("right messages");
        if answer.committed || !answer.may_retry {
            client.extend_from_slice(outbox.as_slice());
            outbox.clear();
        }
        client.extend_from_slice(&piece[range]);
    }
    client.extend_from_slice(outbox.as_slice());
    client
}

#[test]
fn the_same_bytes_come_out_however_they_are_cut() {
    let bytes = stream(&[
        (b'S', b"TimeZone\0UTC\0"),
        (b'T', b"columns"),
        (b'D', &[7; 300]),
        (b'N', b"SNOTICE\0\0"),
        (b'D', b""),
        (b'C', b"SELECT 2\0"),
        (b'Z', b"T"),
    ]);
    for step in [1, 2, 3, 5, 7, 64, 1000] {
        let mut server = server(&[Expected::Through]);
        let mut answer = Answer::default();
        assert_eq!(feed(&bytes, step, &mut server, &mut answer), bytes, "step {step}");
        assert!(server.replies.is_empty() && server.inbox.is_empty() && server.body_left == 0);
        assert_eq!(server.status, TransactionStatus::Open);
        assert_eq!(server.reported.get("TimeZone"), Some("UTC"));
        assert_eq!(answer.completed, 1);
    }
}

#[test]
fn own_queries_are_not_seen() {
    let own: [(u8, &[u8]); 5] = [(b'S', b"a\0b\0"), (b'D', b"row"), (b'D', &[1; 40]), (b'C', b"SET\0"), (b'Z', b"I")];
    let bytes = [stream(&own), stream(&[(b'C', b"SELECT 0\0"), (b'Z', b"I")])].concat();
    for step in [1, 4, 1000] {
        let mut server = server(&[Expected::Own, Expected::Through]);
        let mut answer = Answer::default();
        let seen = feed(&bytes, step, &mut server, &mut answer);
        assert_eq!(seen, stream(&[(b'C', b"SELECT 0\0"), (b'Z', b"I")]));
        assert_eq!(answer.completed, 1);
    }
}

#[test]
fn rows_pass_in_runs_and_between_other_messages() {
    let long = [7; 3000];
    let messages: [(u8, &[u8]); 12] = [
        (b'2', b""),
        (b'T', b"x"),
        (b'D', &long),
        (b'D', b""),
        (b'N', b"SNOTICE\0\0"),
        (b'D', &long),
        (b'C', b"SELECT 3\0"),
        (b'H', b"\0"),
        (b'd', &long),
        (b'd', b"x"),
        (b'c', b""),
        (b'C', b"ROLLBACK\0"),
    ];
    let expected = [Expected::Bind, Expected::DescribePortal, Expected::Execute, Expected::Execute, Expected::Sync];
    let bytes = [stream(&messages), stream(&[(b'Z', b"I")])].concat();
    for may_retry in [false, true] {
        for step in [1, 2, 5, 11, 1000, 3001, 100_000] {
            let (mut server, mut answer) = (server(&expected), Answer { may_retry, extended: true, ..Answer::default() });
            assert_eq!(feed(&bytes, step, &mut server, &mut answer), bytes, "step {step}");
            assert!(server.is_quiet() && answer.committed);
            assert_eq!((answer.bytes, answer.completed, answer.rolled_back), (bytes.len() as u64, 2, true), "step {step}");
        }
    }
}

#[test]
fn a_row_of_an_impossible_length_ends_the_run() {
    for length in [3, 0x4000_0003_u32] {
        let bad = [&message(b'D', b"row")[..], b"D", &length.to_be_bytes(), b"row"].concat();
        let taken = take_chunk(&bad, &mut server(&[Expected::Through]), &mut Answer::default(), &mut Buffer::new());
        assert_eq!(taken, Err(WireError::Length { tag: b'D', length }));
    }
}

#[test]
fn a_refused_unit_leaves_no_trace() {
    let error = b"SERROR\0VERROR\0C25006\0Mcannot\0\0";
    let bytes = stream(&[(b'1', b""), (b'2', b""), (b'T', b"x"), (b'E', error), (b'Z', b"I")]);
    for step in [1, 6, 1000] {
        let mut server = server(&[Expected::Through]);
        let mut answer = Answer { may_retry: true, extended: true, ..Answer::default() };
        let mut outbox = Buffer::new();
        for piece in bytes.chunks(step) {
            let range = take_chunk(piece, &mut server, &mut answer, &mut outbox).expect("right messages");
            assert!(range.is_empty());
        }
        assert_eq!(answer.refused, Some(RetryReason::ReplicaRefused));
        assert!(!answer.committed, "what was held back can be dropped");
        assert!(server.replies.is_empty());
    }
    let mut server = server(&[Expected::Through]);
    let mut answer = Answer { may_retry: true, ..Answer::default() };
    let late = stream(&[(b'T', b"x"), (b'D', b"row"), (b'E', error), (b'Z', b"I")]);
    assert_eq!(feed(&late, 5, &mut server, &mut answer), late, "after the first row the error stands");
    assert_eq!(answer.refused, None);
}

#[test]
fn parse_complete_enters_the_statement_and_an_error_does_not() {
    let expected = [Expected::Parse { id: 7, show: false }, Expected::Bind, Expected::Execute, Expected::Sync];
    let mut good = server(&expected);
    let mut answer = Answer::default();
    let bytes = stream(&[(b'1', b""), (b'2', b""), (b'C', b"X\0"), (b'Z', b"I")]);
    assert_eq!(feed(&bytes, 1000, &mut good, &mut answer), stream(&[(b'2', b""), (b'C', b"X\0"), (b'Z', b"I")]));
    assert!(good.prepared.touch(7));
    let mut bad = server(&expected);
    let mut answer = Answer::default();
    feed(&stream(&[(b'E', b"C42601\0\0"), (b'Z', b"I")]), 1000, &mut bad, &mut answer);
    assert!(!bad.prepared.touch(7));
    assert_eq!(answer.error, Some(SqlState::SYNTAX_ERROR));
}

#[test]
fn what_is_not_the_protocol_is_an_error() {
    for bytes in [&b"?\0\0\0\x04"[..], b"D\0\0\0\x03", b"R\0\0\0\x08\0\0\0\0"] {
        let mut server = server(&[Expected::Through]);
        assert!(take_chunk(bytes, &mut server, &mut Answer::default(), &mut Buffer::new()).is_err());
    }
}

#[test]
fn a_farewell_behind_an_answer_is_not_for_the_client() {
    let bytes = stream(&[(b'C', b"SELECT 0\0"), (b'Z', b"I"), (b'E', b"VFATAL\0C57P01\0Mgone\0\0")]);
    for step in [1, 9, 1000] {
        let mut server = server(&[Expected::Through]);
        let mut answer = Answer::default();
        assert_eq!(feed(&bytes, step, &mut server, &mut answer), stream(&[(b'C', b"SELECT 0\0"), (b'Z', b"I")]));
        assert!(answer.unsolicited && answer.error.is_none());
    }
}

#[test]
fn a_farewell_between_a_commit_and_its_sync_is_not_for_the_client() {
    let farewell: (u8, &[u8]) = (b'E', b"VFATAL\0C57P01\0Mgone\0\0");
    let parts: [&[Expected]; 2] = [&[Expected::Through], &[Expected::Bind, Expected::Execute, Expected::Sync]];
    let check = |commits_at, tags: &[&[u8]], last: (u8, &[u8]), well: bool| {
        let messages: Vec<(u8, &[u8])> =
            std::iter::once((b'2', &b""[..])).chain(tags.iter().map(|tag| (b'C', *tag))).chain([last]).collect();
        let bytes = stream(&messages);
        for (expected, step) in [(parts[0], 1), (parts[0], 9), (parts[0], 1000), (parts[1], 7), (parts[1], 1000)] {
            if tags.len() > 1 && expected.len() > 1 {
                continue;
            }
            let mut server = server(expected);
            server.status = TransactionStatus::Open;
            let mut answer = Answer { commits_at, ..Answer::default() };
            let mut wanted = messages.clone();
            if well {
                wanted.pop();
                wanted.push((b'Z', b"I"));
            }
            assert_eq!(feed(&bytes, step, &mut server, &mut answer), stream(&wanted), "{tags:?} {step}");
            assert_eq!((answer.unsolicited, answer.error.is_none(), server.is_quiet()), (well, well, well), "{tags:?}");
            assert_eq!(server.status == TransactionStatus::Idle, well, "{tags:?}");
        }
    };
    check(1, &[b"COMMIT\0"], farewell, true);
    check(2, &[b"UPDATE 1\0", b"COMMIT\0"], farewell, true);
    // Not carried out, no COMMIT, a failed transaction, another error: PostgreSQL's words stand.
    check(0, &[b"COMMIT\0"], farewell, false);
    check(2, &[b"UPDATE 1\0"], farewell, false);
    check(1, &[b"UPDATE 1\0"], farewell, false);
    check(1, &[b"ROLLBACK\0"], farewell, false);
    check(1, &[b"COMMIT\0"], (b'E', b"VERROR\0C57014\0Mcancelled\0\0"), false);
}

#[test]
fn rows_that_come_with_a_farewell_are_taken_back() {
    let notice = b"VWARNING\0C57P02\0Mcrash\0\0";
    let bytes = stream(&[(b'T', b"x"), (b'D', b"row"), (b'N', notice)]);
    let mut first = server(&[Expected::Through]);
    let mut answer = Answer { may_retry: true, ..Answer::default() };
    assert_eq!(feed(&bytes, 1000, &mut first, &mut answer), b"");
    assert_eq!(answer.refused, Some(RetryReason::ReplicaLost));
    let mut second = server(&[Expected::Through]);
    let mut answer = Answer { may_retry: true, ..Answer::default() };
    assert_eq!(feed(&bytes, 20, &mut second, &mut answer), bytes, "what was forwarded stays");
    assert_eq!(answer.refused, None);
}

#[test]
fn rows_that_come_with_a_refusal_are_taken_back() {
    let rows = stream(&[(b'T', b"columns"), (b'D', b"row")]);
    let conflict = stream(&[(b'E', b"SERROR\0C40001\0\0"), (b'Z', b"I")]);
    let check = |chunks: &[&[u8]], refused: Option<RetryReason>, forwarded: &[u8]| {
        let (mut server, mut outbox, mut client) = (server(&[Expected::Through]), Buffer::new(), Vec::new());
        let mut answer = Answer { may_retry: true, ..Answer::default() };
        for chunk in chunks {
            let range = take_chunk(chunk, &mut server, &mut answer, &mut outbox).expect("right messages");
            client.extend_from_slice(outbox.as_slice());
            outbox.clear();
            client.extend_from_slice(&chunk[range]);
        }
        assert_eq!((answer.refused, client.as_slice()), (refused, forwarded));
        assert!(server.is_quiet());
    };
    let together = [rows.clone(), conflict.clone()].concat();
    check(&[&together], Some(RetryReason::RecoveryConflict), b"");
    check(&[&rows, &conflict], None, &together);
    let wrong = [rows, stream(&[(b'E', b"SERROR\0C22012\0\0"), (b'Z', b"I")])].concat();
    check(&[&wrong], None, &wrong);
}

#[test]
fn half_a_message_is_noticed_whatever_it_is() {
    let columns = message(b'T', &[1; 100]);
    let rows = [message(b'T', b"columns"), message(b'D', &[7; 300])].concat();
    for (bytes, may_retry, may_resend, expect) in [
        (&columns[..50], false, false, true),
        (&columns[..50], true, false, false),
        (&columns[..50], false, true, false),
        (&columns[..], false, false, false),
        (&columns[..3], false, false, false),
        (&rows[..100], false, false, true),
        (&rows[..100], true, false, true),
        (&rows[..], true, false, false),
    ] {
        for step in [7, 1000] {
            let mut server = server(&[Expected::Through]);
            let mut answer = Answer { may_retry, may_resend, ..Answer::default() };
            feed(bytes, step, &mut server, &mut answer);
            assert_eq!(answer.leaves_half_a_message(server.body_left), expect, "{} {may_retry} {may_resend} {step}", bytes.len());
        }
    }
    // What is hidden from the client is not cut off there.
    let mut server = server(&[Expected::Own]);
    let mut answer = Answer { bytes: 5, ..Answer::default() };
    feed(&columns[..50], 7, &mut server, &mut answer);
    assert!(!answer.leaves_half_a_message(server.body_left));
}

/// What comes at once is judged another way than what comes in pieces.
#[test]
fn an_answer_means_the_same_however_it_is_cut() {
    let head: [(u8, &[u8]); 4] = [(b'1', b""), (b'2', b""), (b'T', b"columns"), (b'D', &[7; 20])];
    let tags: [&[u8]; 6] = [b"SELECT 1\0", b"SELECT\0", b"INSERT 0 1\0", b"ROLLBACK\0", b"COMMIT\0", b"SELECT 1\0SELECT 2\0"];
    let states: [&[u8]; 5] = [b"I", b"T", b"E", b"", b"II"];
    let behind: [&[u8]; 3] = [b"", b"Z\0\0\0", b"N\0\0\0\x0bSX\0C0\0\0"];
    for ((tag, state), behind) in
        tags.iter().flat_map(|tag| states.map(|state| (tag, state))).flat_map(|ends| behind.map(|behind| (ends, behind)))
    {
        for middle in [&[][..], &[(b'C', *tag), head[2], head[3]], &[(b'N', &b"SNOTICE\0C00000\0\0"[..]), head[3]]] {
            let end: [(u8, &[u8]); 2] = [(b'C', *tag), (b'Z', state)];
            let bytes = [stream(&head), stream(middle), stream(&end), behind.to_vec()].concat();
            for given in [
                || Answer::default(),
                || Answer { may_retry: true, ..Answer::default() },
                || Answer { withheld: Some(Box::default()), ..Answer::default() },
            ] {
                let outcome = |step: usize| {
                    let (mut server, mut answer) = (server(&[Expected::Through]), given());
                    let seen = feed(&bytes, step, &mut server, &mut answer);
                    answer.body_forward = false;
                    (seen, format!("{answer:?} {:?} {}", server.status, server.replies.is_empty()))
                };
                let whole = outcome(bytes.len());
                for step in [1, 3, 6, 17] {
                    assert_eq!(outcome(step), whole, "{tag:?} {state:?} {behind:?} {step}");
                }
            }
        }
    }
}
