//! What a server will answer, in order, and what becomes of each answer: forwarded, skipped or faked.
//!
//! Spec: PostgreSQL documentation, "Message Flow"; after an error in the extended protocol the server answers nothing up to
//! the next Sync, so that what was expected before it is dropped here too.

use std::collections::VecDeque;

/// One expected answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Everything up to and with a ReadyForQuery, forwarded.
    Through,
    /// Everything up to and with a ReadyForQuery of a query of pgyard's own, skipped.
    Own,
    /// ParseComplete of the statement with this id (0: unnamed).
    Parse {
        /// Id of the prepared statement.
        id: u64,
        /// Whether the client asked for it; else it was injected.
        show: bool,
    },
    /// BindComplete.
    Bind,
    /// ParameterDescription, then RowDescription or NoData.
    DescribeStatement,
    /// The same of the statement with this id, whose rows are noted.
    DescribeNamed {
        /// Id of the prepared statement.
        id: u64,
        /// Whether the client asked for it.
        show: bool,
    },
    /// RowDescription or NoData.
    DescribePortal,
    /// Rows, then CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// CloseComplete.
    Close {
        /// Whether the client asked for it.
        show: bool,
    },
    /// Nothing from the server: the client gets this bare message in its turn.
    Fake(u8),
    /// ReadyForQuery, forwarded.
    Sync,
    /// ReadyForQuery of a Sync that pgyard added, skipped.
    QuietSync,
    /// BindComplete of a command of pgyard's own in the middle of a pipeline, skipped.
    QuietBind,
    /// The completion of such a command, skipped.
    QuietExecute,
}

impl Expected {
    /// Whether it answers something that the client did not ask for.
    pub fn is_quiet(self) -> bool {
        use Expected::{Close, DescribeNamed, Own, Parse, QuietBind, QuietExecute};
        matches!(
            self,
            Own | QuietBind
                | QuietExecute
                | Parse { show: false, .. }
                | DescribeNamed { show: false, .. }
                | Close { show: false }
        )
    }
}

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The client gets it.
    Forward,
    /// The client does not.
    Skip,
}

/// The queue of expected answers of one server connection.
#[derive(Debug, Default)]
pub struct ReplyQueue {
    queue: VecDeque<Expected>,
    /// How many were ever expected.
    pushed: u64,
    /// The number of the first answer that an error dropped.
    failed_at: Option<u64>,
    /// Messages of the client that an error has dropped, with the one that failed.
    dropped_messages: Option<usize>,
}

impl ReplyQueue {
    /// One more expected answer.
    pub fn push(&mut self, expected: Expected) {
        self.queue.push_back(expected);
        self.pushed += 1;
    }

    /// The number of the answer that is expected next to be pushed.
    pub fn next_number(&self) -> u64 {
        self.pushed
    }

    /// The number of the first answer that an error has dropped since this was asked last: it and all behind it did not happen.
    pub fn take_failure(&mut self) -> Option<u64> {
        self.failed_at.take()
    }

    /// Whether the answer under way is to something that the client did not ask for.
    pub fn is_quiet(&self) -> bool {
        self.queue.front().is_some_and(|front| front.is_quiet())
    }

    /// How many messages of the client an error has dropped since this was asked last, with the one that failed; `None` where
    /// messages were not counted.
    pub fn take_dropped_messages(&mut self) -> Option<usize> {
        self.dropped_messages.take()
    }

    /// Whether nothing is expected any more.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether the answer under way and all that follow are forwarded as they come, to the end of the queue.
    pub fn is_plain(&self) -> bool {
        self.queue.len() == 1 && self.queue[0] == Expected::Through
    }

    /// Whether rows and COPY data are expected now, and forwarded.
    pub fn is_at_rows(&self) -> bool {
        matches!(self.queue.front(), Some(Expected::Through | Expected::Execute))
    }

    /// The answer under way.
    pub fn front(&self) -> Option<Expected> {
        self.queue.front().copied()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.queue.clear();
    }

    /// A fake that is due now; the client gets a bare message with this tag.
    pub fn take_fake(&mut self) -> Option<u8> {
        match self.queue.front() {
            Some(Expected::Fake(tag)) => {
                let tag = *tag;
                self.queue.pop_front();
                Some(tag)
            }
            _ => None,
        }
    }

    /// A COPY ... FROM STDIN has begun in a pipeline that was sent as it is: the Sync behind it is ignored by the server. True if
    /// that is so; the answers end with that of the COPY.
    pub fn begin_copy_in(&mut self) -> bool {
        let ignored = self.is_plain();
        if ignored {
            self.queue[0] = Expected::Execute;
        }
        ignored
    }

    /// Judges a message that belongs to a request: not NoticeResponse, ParameterStatus or NotificationResponse.
    pub fn judge(&mut self, tag: u8) -> Verdict {
        let Some(front) = self.queue.front().copied() else { return Verdict::Forward };
        if tag == b'E' {
            return self.fail(front);
        }
        let front = if tag == b'Z' { self.ready(front) } else { front };
        let (ends, verdict) = match front {
            Expected::Through => (tag == b'Z', Verdict::Forward),
            Expected::Own => (tag == b'Z', Verdict::Skip),
            Expected::Parse { show, .. } | Expected::Close { show } => {
                (true, if show { Verdict::Forward } else { Verdict::Skip })
            }
            Expected::Bind | Expected::Sync => (true, Verdict::Forward),
            Expected::DescribeStatement | Expected::DescribeNamed { show: true, .. } => (tag != b't', Verdict::Forward),
            Expected::DescribeNamed { .. } => (tag != b't', Verdict::Skip),
            Expected::DescribePortal => (true, Verdict::Forward),
            Expected::Execute => (matches!(tag, b'C' | b'I' | b's'), Verdict::Forward),
            Expected::QuietSync | Expected::QuietBind => (true, Verdict::Skip),
            Expected::QuietExecute => (matches!(tag, b'C' | b'I' | b's'), Verdict::Skip),
            Expected::Fake(_) => (false, Verdict::Forward),
        };
        if ends {
            self.queue.pop_front();
        }
        verdict
    }

    /// A ReadyForQuery answers a Sync: the server has dropped what was expected before it. Answers the one that it ends.
    fn ready(&mut self, front: Expected) -> Expected {
        use Expected::{Own, QuietSync, Sync, Through};
        let mut front = front;
        while !matches!(front, Through | Own | Sync | QuietSync)
            && let Some(next) = self.queue.get(1).copied()
        {
            self.failed_at.get_or_insert(self.pushed - self.queue.len() as u64);
            self.queue.pop_front();
            front = next;
        }
        front
    }

    fn fail(&mut self, front: Expected) -> Verdict {
        match front {
            Expected::Through => return Verdict::Forward,
            Expected::Own => return Verdict::Skip,
            _ => {}
        }
        self.failed_at.get_or_insert(self.pushed - self.queue.len() as u64);
        let mut messages = 0;
        while let Some(next) = self.queue.front().filter(|next| !matches!(next, Expected::Sync | Expected::QuietSync)) {
            messages += usize::from(!next.is_quiet());
            self.queue.pop_front();
        }
        self.dropped_messages = Some(messages);
        Verdict::Forward
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(expected: &[Expected], tags: &[u8]) -> (String, bool) {
        let mut queue = ReplyQueue::default();
        expected.iter().for_each(|e| queue.push(*e));
        let mut out = String::new();
        let fakes = |queue: &mut ReplyQueue, out: &mut String| {
            while let Some(tag) = queue.take_fake() {
                out.push('(');
                out.push(tag as char);
                out.push(')');
            }
        };
        fakes(&mut queue, &mut out);
        for tag in tags {
            if queue.judge(*tag) == Verdict::Forward {
                out.push(*tag as char);
            }
            fakes(&mut queue, &mut out);
        }
        (out, queue.is_empty())
    }

    #[test]
    fn answers_are_forwarded_skipped_and_faked_in_their_turn() {
        use Expected::*;
        let check = |expected: &[Expected], tags: &[u8], out: &str, empty: bool| {
            assert_eq!(run(expected, tags), (out.to_owned(), empty), "{expected:?}");
        };
        check(&[Through], b"TDDCZ", "TDDCZ", true);
        check(&[Own, Through], b"CCZTDCZ", "TDCZ", true);
        check(&[Own, Through], b"EZTDCZ", "TDCZ", true);
        check(&[Parse { id: 1, show: false }, Bind, Execute, Sync], b"12DDCZ", "2DDCZ", true);
        check(&[Fake(b'1'), Bind, DescribePortal, Execute, Sync], b"2TDsZ", "(1)2TDsZ", true);
        check(&[Bind, Execute, Fake(b'3'), Fake(b'1'), Bind, Execute, Sync], b"2C2CZ", "2C(3)(1)2CZ", true);
        check(&[DescribeStatement, Sync], b"tTZ", "tTZ", true);
        check(&[DescribeNamed { id: 1, show: true }, DescribeNamed { id: 2, show: false }, Sync], b"tTtnZ", "tTZ", true);
        check(&[Parse { id: 1, show: true }, DescribeStatement, QuietSync], b"1tnZ", "1tn", true);
        check(&[Bind, Execute, Fake(b'1'), Bind, Sync], b"EZ", "EZ", true);
        check(&[Bind, Execute, Sync, Bind, Execute, Sync], b"EZ2CZ", "EZ2CZ", true);
        check(&[Bind, Execute], b"E", "E", true);
        check(&[Close { show: false }, Sync], b"Z", "Z", true);
        check(&[Close { show: false }, Fake(b'1'), Bind, QuietSync, Sync], b"ZZ", "Z", true);
        check(&[Close { show: false }, Close { show: true }, Sync], b"33", "3", false);
    }

    #[test]
    fn dropped_messages_of_the_client_are_counted() {
        use Expected::*;
        let mut queue = ReplyQueue::default();
        let pushed = [Parse { id: 1, show: false }, QuietBind, Bind, Fake(b'3'), Parse { id: 0, show: true }, Sync, Bind];
        for expected in pushed {
            queue.push(expected);
        }
        assert_eq!(queue.take_dropped_messages(), None);
        queue.judge(b'E');
        assert_eq!(queue.take_dropped_messages(), Some(3));
        assert_eq!(queue.take_dropped_messages(), None);
    }

    #[test]
    fn what_a_copy_in_ignores_is_not_waited_for() {
        let begin = |expected: &[Expected]| {
            let mut queue = ReplyQueue::default();
            expected.iter().for_each(|e| queue.push(*e));
            assert_eq!(queue.judge(b'G'), Verdict::Forward);
            let ignored = queue.begin_copy_in();
            assert_eq!(queue.judge(b'C'), Verdict::Forward);
            (ignored, queue.is_empty(), queue.next_number())
        };
        assert_eq!(begin(&[Expected::Through]), (true, true, 1));
        assert_eq!(begin(&[Expected::Execute]), (false, true, 1));
        assert_eq!(begin(&[Expected::Execute, Expected::Bind, Expected::Sync]), (false, false, 3));
    }

    #[test]
    fn an_error_says_from_where_on_nothing_happened() {
        let mut queue = ReplyQueue::default();
        for _ in 0..2 {
            let first = queue.next_number();
            [Expected::Fake(b'1'), Expected::Bind, Expected::Execute, Expected::Bind, Expected::Sync]
                .into_iter()
                .for_each(|e| queue.push(e));
            queue.take_fake();
            for tag in [b'2', b'E'] {
                queue.judge(tag);
            }
            assert_eq!(queue.take_failure(), Some(first + 2));
            assert_eq!(queue.take_failure(), None);
            queue.judge(b'Z');
            assert!(queue.is_empty());
        }
    }
}
