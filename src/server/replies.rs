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
    /// Answers that would have given or taken a statement's name, and that an error dropped.
    dropped_names: usize,
    /// Messages of the client that an error has dropped, with the one that failed.
    dropped_messages: Option<usize>,
}

impl ReplyQueue {
    /// One more expected answer.
    pub fn push(&mut self, expected: Expected) {
        self.queue.push_back(expected);
    }

    /// How many names given or taken an error has dropped since this was asked last.
    pub fn take_dropped_names(&mut self) -> usize {
        std::mem::take(&mut self.dropped_names)
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

    /// A COPY ... FROM STDIN has begun: the Sync that was sent behind it is ignored by the server, and the answers end with the
    /// ReadyForQuery of the Sync that follows the data.
    pub fn begin_copy_in(&mut self) {
        if self.queue.front() != Some(&Expected::Through) {
            self.queue.clear();
            self.queue.push_back(Expected::Through);
        }
    }

    /// Judges a message that belongs to a request: not NoticeResponse, ParameterStatus or NotificationResponse.
    pub fn judge(&mut self, tag: u8) -> Verdict {
        let Some(front) = self.queue.front().copied() else { return Verdict::Forward };
        if tag == b'E' {
            return self.fail(front);
        }
        let (ends, verdict) = match front {
            Expected::Through => (tag == b'Z', Verdict::Forward),
            Expected::Own => (tag == b'Z', Verdict::Skip),
            Expected::Parse { show, .. } | Expected::Close { show } => {
                (true, if show { Verdict::Forward } else { Verdict::Skip })
            }
            Expected::Bind | Expected::Sync => (true, Verdict::Forward),
            Expected::DescribeStatement => (tag != b't', Verdict::Forward),
            Expected::DescribePortal => (true, Verdict::Forward),
            Expected::Execute => (matches!(tag, b'C' | b'I' | b's'), Verdict::Forward),
            Expected::QuietSync => (true, Verdict::Skip),
            Expected::Fake(_) => (false, Verdict::Forward),
        };
        if ends {
            self.queue.pop_front();
        }
        verdict
    }

    fn fail(&mut self, front: Expected) -> Verdict {
        match front {
            Expected::Through => return Verdict::Forward,
            Expected::Own => return Verdict::Skip,
            _ => {}
        }
        let mut messages = 0;
        while let Some(next) = self.queue.front() {
            if matches!(next, Expected::Sync | Expected::QuietSync) {
                break;
            }
            if matches!(next, Expected::Parse { id: 1.., show: true } | Expected::Fake(_)) {
                self.dropped_names += 1;
            }
            messages += usize::from(!matches!(next, Expected::Parse { show: false, .. } | Expected::Close { show: false }));
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
        check(&[Parse { id: 1, show: true }, DescribeStatement, QuietSync], b"1tnZ", "1tn", true);
        check(&[Bind, Execute, Fake(b'1'), Bind, Sync], b"EZ", "EZ", true);
        check(&[Bind, Execute, Sync, Bind, Execute, Sync], b"EZ2CZ", "EZ2CZ", true);
        check(&[Bind, Execute], b"E", "E", true);
        check(&[Close { show: false }, Close { show: true }, Sync], b"33", "3", false);
    }

    #[test]
    fn dropped_messages_of_the_client_are_counted() {
        use Expected::*;
        let mut queue = ReplyQueue::default();
        for expected in [Parse { id: 1, show: false }, Bind, Fake(b'3'), Parse { id: 0, show: true }, Sync, Bind] {
            queue.push(expected);
        }
        assert_eq!(queue.take_dropped_messages(), None);
        queue.judge(b'E');
        assert_eq!(queue.take_dropped_messages(), Some(3));
        assert_eq!(queue.take_dropped_messages(), None);
    }

    #[test]
    fn copy_in_waits_for_the_sync_behind_the_data() {
        let mut queue = ReplyQueue::default();
        [Expected::Bind, Expected::Execute, Expected::Sync].into_iter().for_each(|e| queue.push(e));
        assert_eq!(queue.judge(b'2'), Verdict::Forward);
        assert_eq!(queue.judge(b'G'), Verdict::Forward);
        queue.begin_copy_in();
        assert!(queue.is_plain());
        assert_eq!(queue.judge(b'C'), Verdict::Forward);
        assert!(!queue.is_empty());
        assert_eq!(queue.judge(b'Z'), Verdict::Forward);
        assert!(queue.is_empty());
    }
}
