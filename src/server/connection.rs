//! A logged-in connection to a server.

use super::{ParameterSet, PreparedSet, ReplyQueue, ReportedParameters, ServerTarget};
use crate::net::stream::Socket;
use crate::net::{Buffer, Stream};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::net::{TcpStream, UnixStream};

/// The status byte of the last ReadyForQuery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// `I`: no transaction block.
    Idle,
    /// `T`: in a transaction block.
    Open,
    /// `E`: in a failed transaction block.
    Failed,
}

impl TransactionStatus {
    /// From the byte on the wire; what is not known counts as failed, which is never reused by mistake.
    pub fn from_byte(byte: u8) -> Self {
        match byte {
            b'I' => TransactionStatus::Idle,
            b'T' => TransactionStatus::Open,
            _ => TransactionStatus::Failed,
        }
    }

    /// The byte on the wire.
    pub fn byte(self) -> u8 {
        match self {
            TransactionStatus::Idle => b'I',
            TransactionStatus::Open => b'T',
            TransactionStatus::Failed => b'E',
        }
    }
}

/// What a CancelRequest to this server must carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerKey {
    /// Process id.
    pub process: i32,
    /// Secret key.
    pub key: Box<[u8]>,
}

/// A logged-in connection. Owned by a pool while idle, by a session while in use.
#[derive(Debug)]
pub struct ServerConnection {
    /// Unique in this process.
    pub id: u64,
    /// The socket.
    pub stream: Stream,
    /// The head of a message whose rest has not come yet.
    pub inbox: Buffer,
    /// Bytes of a message's body that are still to come and pass without a look.
    pub body_left: usize,
    /// Bytes for the server that the socket did not take yet.
    pub outbox: Buffer,
    /// What it will answer.
    pub replies: ReplyQueue,
    /// The status after the last ReadyForQuery.
    pub status: TransactionStatus,
    /// For cancel requests.
    pub key: Arc<ServerKey>,
    /// Where it is connected to, for cancel requests.
    pub target: Arc<ServerTarget>,
    /// Parameters that were set on it.
    pub parameters: Arc<ParameterSet>,
    /// What it reported.
    pub reported: ReportedParameters,
    /// Named statements that it holds.
    pub prepared: PreparedSet,
    /// Which Parse its unnamed statement came from; 0 is none.
    pub unnamed: u64,
    /// The session that used a sequence last; 0 is none.
    pub sequence_user: u64,
    /// When it was opened.
    pub opened: Instant,
    /// When it was last returned.
    pub returned: Instant,
    /// Why it must not be used again.
    pub broken: bool,
    /// The relay thread whose reactor watches the socket.
    pub worker: usize,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl ServerConnection {
    /// A fresh connection around a logged-in socket.
    pub fn new(stream: Stream, target: Arc<ServerTarget>, key: ServerKey, reported: ReportedParameters, worker: usize) -> Self {
        let now = Instant::now();
        ServerConnection {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            stream,
            inbox: Buffer::new(),
            body_left: 0,
            outbox: Buffer::new(),
            replies: ReplyQueue::default(),
            status: TransactionStatus::Idle,
            key: Arc::new(key),
            target,
            parameters: Arc::default(),
            reported,
            prepared: PreparedSet::default(),
            unnamed: 0,
            sequence_user: 0,
            opened: now,
            returned: now,
            broken: false,
            worker,
        }
    }

    /// Whether the next session may have it: nothing in flight, no transaction, not broken.
    pub fn is_clean(&self) -> bool {
        !self.broken
            && self.status == TransactionStatus::Idle
            && self.inbox.is_empty()
            && self.outbox.is_empty()
            && self.body_left == 0
            && self.replies.is_empty()
    }

    /// Registers the socket with the reactor of the calling thread. A TLS stream stays where it is: it works from any
    /// thread, at the price of a wake-up across threads.
    pub fn adopt(self: Box<Self>, worker: usize) -> io::Result<Box<Self>> {
        if self.worker == worker {
            return Ok(self);
        }
        let mut this = *self;
        this.stream = match this.stream {
            Stream::Plain(Socket::Tcp(stream)) => Stream::Plain(Socket::Tcp(TcpStream::from_std(stream.into_std()?)?)),
            Stream::Plain(Socket::Unix(stream)) => Stream::Plain(Socket::Unix(UnixStream::from_std(stream.into_std()?)?)),
            tls => tls,
        };
        this.worker = worker;
        Ok(Box::new(this))
    }
}
