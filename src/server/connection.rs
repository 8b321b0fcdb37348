//! A logged-in connection to a server.

use super::{OwnNames, ParameterSet, PreparedSet, ReplyQueue, ReportedParameters, ServerTarget};
use crate::net::{Buffer, Stream};
use crate::wire::Cursor;
use crate::wire::error_response::ErrorFields;
use crate::wire::frame::{HEADER_LEN, header, put_message, put_string};
use crate::wire::reply::Report;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Largest message in the answer to a query of pgyard's own. Bytes.
const OWN_ANSWER_MAX: usize = 1024 * 1024;

/// Spec: PostgreSQL documentation, "Message Formats", Terminate.
const TERMINATE: [u8; HEADER_LEN] = [b'X', 0, 0, 0, 4];

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

/// The server's unnamed statement may be anybody's.
pub const UNKNOWN_UNNAMED: u64 = u64::MAX;

/// Nobody has written through a server connection since it was opened or cleared.
pub const NO_WRITER: i32 = 0;
/// What a server connection remembers of sequences is not one session's.
pub const SEVERAL_WRITERS: i32 = -1;

/// What a CancelRequest to this server must carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerKey {
    /// Process id.
    pub process: i32,
    /// Secret key.
    pub key: Box<[u8]>,
}

/// Where a connection leads, and the key to what happens behind it: where a CancelRequest goes, and what it carries.
#[derive(Debug)]
pub struct ServerDoor {
    /// The server.
    pub target: Arc<ServerTarget>,
    /// What a CancelRequest carries.
    pub key: ServerKey,
}

/// The server's side of the conversation, as far as it has been read.
#[derive(Debug)]
pub struct Incoming {
    /// The head of a message whose rest has not come yet.
    pub inbox: Buffer,
    /// Bytes of a message's body that are still to come and pass without a look.
    pub body_left: usize,
    /// What it will answer.
    pub replies: ReplyQueue,
    /// The status after the last ReadyForQuery.
    pub status: TransactionStatus,
    /// The process that serves it on the server.
    pub process: i32,
    /// What it reported.
    pub reported: ReportedParameters,
    /// What the session has been told in the unit under way, as a change of the mark of what was reported.
    pub told: u32,
    /// Named statements that it holds.
    pub prepared: PreparedSet,
    /// What it has said of the rows of named statements in the unit under way: id and [`result_shape`].
    ///
    /// [`result_shape`]: crate::wire::row_description::result_shape
    pub described: Vec<(u64, u64)>,
    /// The catalogue's last change before it was asked for them.
    pub described_at: u64,
}

impl Incoming {
    /// Of a server that has just logged us in.
    pub fn new(reported: ReportedParameters) -> Self {
        Incoming {
            inbox: Buffer::new(),
            body_left: 0,
            replies: ReplyQueue::default(),
            status: TransactionStatus::Idle,
            process: 0,
            reported,
            told: 0,
            prepared: PreparedSet::default(),
            described: Vec::new(),
            described_at: 0,
        }
    }

    /// Whether nothing is under way: no answer is due, no message half read.
    pub fn is_quiet(&self) -> bool {
        self.replies.is_empty() && self.inbox.is_empty() && self.body_left == 0
    }
}

/// A logged-in connection. Owned by a pool while idle, by a session while in use.
#[derive(Debug)]
pub struct ServerConnection {
    /// Unique in this process.
    pub id: u64,
    /// The socket.
    pub stream: Stream,
    /// What comes from it.
    pub incoming: Incoming,
    /// Bytes for the server that the socket did not take yet.
    pub outbox: Buffer,
    /// Where it is connected to, and as whom.
    pub door: Arc<ServerDoor>,
    /// Parameters that were set on it.
    pub parameters: Arc<ParameterSet>,
    /// Which of its named statements it still holds is not known: it is told to forget all before it is used again.
    pub prepared_unknown: bool,
    /// Statements that it holds under the names of the client that used it last.
    pub own_names: OwnNames,
    /// Which Parse its unnamed statement came from; 0 is none, [`UNKNOWN_UNNAMED`] may be any.
    pub unnamed: u64,
    /// The session that wrote through it last, by its process id, or [`NO_WRITER`], [`SEVERAL_WRITERS`]. What the server remembers of
    /// sequences is that session's.
    pub last_writer: i32,
    /// The pool gives it to others last: that session may come back for what the server remembers.
    pub is_kept: bool,
    /// When its server was started, in microseconds since 2000; `None` where that does not tell.
    pub started_us: Option<i64>,
    /// When it was opened.
    pub opened: Instant,
    /// From when its age is counted: some time before it was opened, so that connections opened together do not all end together.
    pub aged_from: Instant,
    /// When it was last found to lead to the right server.
    pub valid: Instant,
    /// Where it leads; `None` on a Unix socket.
    pub peer: Option<IpAddr>,
    /// How often what new server sessions begin with had changed before it was opened.
    pub defaults: u32,
    /// When it was last returned.
    pub returned: Instant,
    /// Why it must not be used again.
    pub broken: bool,
    /// A message was sent to it in part, or a pipeline without its Sync: only the session that did so can go on.
    pub mid_request: bool,
    /// The relay thread whose reactor watches the socket.
    pub worker: usize,
}

/// What people are shown of a server connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerCard {
    /// Its number in this process.
    pub id: u64,
    /// The process that serves it on the server.
    pub process: i32,
    /// When it was opened.
    pub opened: Instant,
    /// Whether it is encrypted.
    pub tls: bool,
    /// Named statements that it holds.
    pub prepared: usize,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl ServerConnection {
    /// A fresh connection around a logged-in socket.
    pub fn new(stream: Stream, target: Arc<ServerTarget>, key: ServerKey, reported: ReportedParameters, worker: usize) -> Self {
        let now = Instant::now();
        let peer = stream.peer_ip();
        ServerConnection {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            stream,
            incoming: Incoming { process: key.process, ..Incoming::new(reported) },
            outbox: Buffer::new(),
            door: Arc::new(ServerDoor { target, key }),
            parameters: Arc::default(),
            prepared_unknown: false,
            own_names: OwnNames::default(),
            unnamed: 0,
            last_writer: NO_WRITER,
            is_kept: false,
            started_us: None,
            opened: now,
            aged_from: now,
            valid: now,
            peer,
            defaults: 0,
            returned: now,
            broken: false,
            mid_request: false,
            worker,
        }
    }

    /// Ends its life up to a fifth of `max_age` earlier, by `chance` (any number).
    pub fn age_from(&mut self, max_age: Duration, chance: u32) {
        let earlier = (max_age / 5).mul_f64(f64::from(chance) / f64::from(u32::MAX));
        self.aged_from = self.opened.checked_sub(earlier).unwrap_or(self.opened);
    }

    /// What people are shown of it.
    pub fn card(&self) -> ServerCard {
        ServerCard {
            id: self.id,
            process: self.door.key.process,
            opened: self.opened,
            tls: self.stream.is_tls(),
            prepared: self.incoming.prepared.len(),
        }
    }

    /// Whether the next session may have it: nothing in flight, no transaction, not broken.
    pub fn is_clean(&self) -> bool {
        !(self.broken || self.mid_request)
            && self.incoming.status == TransactionStatus::Idle
            && self.incoming.is_quiet()
            && self.outbox.is_empty()
    }

    /// Whether the server has closed the connection or said anything while nobody asked it: either way it is not used. The socket
    /// is not read: the reactor knows.
    pub fn has_spoken(&mut self) -> bool {
        self.stream.has_something()
    }

    /// Registers the socket with the reactor of the calling thread.
    ///
    /// # Errors
    /// It can't be registered; the connection is unusable.
    pub fn adopt(&mut self, worker: usize) -> io::Result<()> {
        if self.worker != worker {
            self.stream.rehome()?;
            self.worker = worker;
        }
        Ok(())
    }

    /// Runs SQL of pgyard's own; answers the first column of the first row. The inner error is the server's.
    ///
    /// # Errors
    /// The connection ended or the server broke the protocol; it must not be used again.
    ///
    /// # Cancel safety
    /// Not safe: after a drop the connection must be closed.
    pub async fn run(&mut self, sql: &str) -> io::Result<Result<Option<String>, Report>> {
        let mut query = Vec::new();
        put_message(&mut query, b'Q', |body| put_string(body, sql.as_bytes()));
        self.stream.write_all(&query).await?;
        self.stream.flush().await?;
        self.unnamed = 0;
        let mut outcome = Ok(None);
        loop {
            let mut head = [0; HEADER_LEN];
            self.stream.read_exact(&mut head).await?;
            let total = match header(&head) {
                Ok(Some(head)) if head.total <= OWN_ANSWER_MAX => head.total,
                _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "not a message of PostgreSQL's protocol")),
            };
            let mut body = vec![0; total - HEADER_LEN];
            self.stream.read_exact(&mut body).await?;
            match head[0] {
                b'E' => {
                    outcome = Err(ErrorFields::read(&body).report());
                }
                b'D' if matches!(outcome, Ok(None)) => outcome = Ok(first_column(&body)),
                b'S' => _ = super::login::note_parameter(&body, &mut self.incoming.reported),
                b'Z' => {
                    self.incoming.status = TransactionStatus::from_byte(body.first().copied().unwrap_or(b'E'));
                    return Ok(outcome);
                }
                _ => {}
            }
        }
    }
}

/// Says Terminate, as far as the server can still hear it: it takes an end without a word for a client that was lost, and logs that.
impl Drop for ServerConnection {
    fn drop(&mut self) {
        if !self.broken && !self.mid_request && self.outbox.is_empty() {
            self.stream.say_last(&TERMINATE);
        }
    }
}

/// The first column of a DataRow, as text; `None` for NULL.
fn first_column(body: &[u8]) -> Option<String> {
    let mut cursor = Cursor::new(body);
    cursor.int16().ok()?;
    let length = usize::try_from(cursor.int32().ok()?).ok()?;
    cursor.bytes(length).ok().map(|text| String::from_utf8_lossy(text).into_owned())
}
