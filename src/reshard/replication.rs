//! A replication connection: slots, their snapshots, and the stream of changes.
//!
//! Spec: PostgreSQL documentation, "Streaming Replication Protocol".

use super::error::ReshardError;
use super::pgoutput::lsn;
use super::side::{identifier, literal};
use crate::server::ServerConnection;
use crate::types::Lsn;
use crate::wire::error_response::ErrorFields;
use crate::wire::frame::{frame_at, put_message};
use crate::wire::{Cursor, WireError};
use bytes::{Buf, BytesMut};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Seconds between 1970 and 2000, where PostgreSQL's clock begins.
const EPOCH: Duration = Duration::from_secs(946_684_800);
/// Read at once, at least. Bytes.
const READ_LEN: usize = 64 * 1024;

/// A connection in replication mode.
pub struct ReplicationStream {
    shard: String,
    connection: ServerConnection,
    inbox: BytesMut,
}

/// What comes while changes are streamed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// A message of the output plugin.
    Change(Vec<u8>),
    /// All that committed before this position has been sent.
    SentTo(Lsn),
}

/// A snapshot that a slot came with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotSnapshot {
    /// The snapshot shows exactly the transactions that committed before this position.
    pub lsn: Lsn,
    /// Its name for SET TRANSACTION SNAPSHOT, as long as the connection is not used.
    pub name: String,
}

impl ReplicationStream {
    /// On a connection that has just logged in.
    pub(super) fn new(shard: String, mut connection: ServerConnection) -> Self {
        // It ends in the middle of a stream: there is nothing to say then.
        connection.broken = true;
        ReplicationStream { shard, connection, inbox: BytesMut::new() }
    }

    /// Makes a slot that goes with the connection, for its snapshot.
    ///
    /// # Errors
    /// The server refuses it.
    pub async fn snapshot(&mut self, slot: &str) -> Result<SlotSnapshot, ReshardError> {
        let command = format!("CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT", identifier(slot));
        let row = self.query(&command).await?;
        let column = |place: usize| row.get(place).cloned().flatten().unwrap_or_default();
        let lsn = column(1).parse().map_err(|_| self.failed("the slot has no position"))?;
        Ok(SlotSnapshot { lsn, name: column(2) })
    }

    /// Begins to stream what committed from `from` on, or since the slot was confirmed last.
    ///
    /// # Errors
    /// The server refuses it.
    pub async fn start(&mut self, slot: &str, from: Lsn, publication: &str) -> Result<(), ReshardError> {
        let publications = literal(&identifier(publication));
        let slot = identifier(slot);
        let command =
            format!("START_REPLICATION SLOT {slot} LOGICAL {from} (proto_version '1', publication_names {publications})");
        self.send(|out| put_query(out, &command)).await?;
        loop {
            let (tag, body) = self.next_message().await?;
            match tag {
                b'W' => return Ok(()),
                b'E' => return Err(self.refused(&body)),
                _ => {}
            }
        }
    }

    /// The next event, if it has come already.
    ///
    /// # Errors
    /// The stream has ended, or makes no sense.
    pub fn ready_event(&mut self) -> Result<Option<StreamEvent>, ReshardError> {
        while let Some((tag, body)) = self.taken()? {
            match tag {
                b'd' => {
                    if let Some(event) = event(&body).map_err(|source| self.malformed(source))? {
                        return Ok(Some(event));
                    }
                }
                b'E' => return Err(self.refused(&body)),
                b'c' | b'C' => return Err(self.failed("the server has ended the stream")),
                _ => {}
            }
        }
        Ok(None)
    }

    /// The next event.
    ///
    /// # Errors
    /// The stream has ended, or makes no sense.
    ///
    /// # Cancel safety
    /// Safe: what was read is kept.
    pub async fn event(&mut self) -> Result<StreamEvent, ReshardError> {
        loop {
            if let Some(event) = self.ready_event()? {
                return Ok(event);
            }
            self.read_more().await?;
        }
    }

    /// Tells the server up to where all is on the targets for good; `ask` has it say at once how far it has sent.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn confirm(&mut self, done: Lsn, ask: bool) -> Result<(), ReshardError> {
        let epoch = SystemTime::UNIX_EPOCH + EPOCH;
        let clock = SystemTime::now().duration_since(epoch).map_or(0, |since| since.as_micros() as u64);
        self.send(|out| {
            put_message(out, b'd', |body| {
                body.push(b'r');
                for field in [done.0, done.0, done.0, clock] {
                    body.extend_from_slice(&field.to_be_bytes());
                }
                body.push(u8::from(ask));
            });
        })
        .await
    }

    async fn query(&mut self, command: &str) -> Result<Vec<Option<String>>, ReshardError> {
        self.send(|out| put_query(out, command)).await?;
        let (mut row, mut error) = (Vec::new(), None);
        loop {
            let (tag, body) = self.next_message().await?;
            match tag {
                b'D' => row = columns(&body).map_err(|source| self.malformed(source))?,
                b'E' => error = Some(self.refused(&body)),
                b'Z' => return error.map_or(Ok(row), Err),
                _ => {}
            }
        }
    }

    async fn send(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Result<(), ReshardError> {
        let mut out = Vec::new();
        fill(&mut out);
        let sent = async {
            self.connection.stream.write_all(&out).await?;
            self.connection.stream.flush().await
        };
        sent.await.map_err(|error| self.failed(&error.to_string()))
    }

    async fn next_message(&mut self) -> Result<(u8, Vec<u8>), ReshardError> {
        loop {
            if let Some(message) = self.taken()? {
                return Ok(message);
            }
            self.read_more().await?;
        }
    }

    fn taken(&mut self) -> Result<Option<(u8, Vec<u8>)>, ReshardError> {
        let found = frame_at(&self.inbox).map_err(|source| self.malformed(source))?;
        let Some((tag, body, total)) = found.map(|frame| (frame.tag, frame.body.to_vec(), frame.total)) else { return Ok(None) };
        self.inbox.advance(total);
        Ok(Some((tag, body)))
    }

    async fn read_more(&mut self) -> Result<(), ReshardError> {
        self.inbox.reserve(READ_LEN);
        match self.connection.stream.read_buf(&mut self.inbox).await {
            Ok(0) => Err(self.failed("the server has closed the connection")),
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(&error.to_string())),
        }
    }

    fn refused(&self, body: &[u8]) -> ReshardError {
        self.failed(&ErrorFields::read(body).text())
    }

    fn failed(&self, message: &str) -> ReshardError {
        ReshardError::Stream { shard: self.shard.clone(), message: message.to_owned() }
    }

    /// An error about bytes that make no sense.
    pub(super) fn malformed(&self, source: WireError) -> ReshardError {
        ReshardError::Malformed { shard: self.shard.clone(), source }
    }
}

fn put_query(out: &mut Vec<u8>, command: &str) {
    put_message(out, b'Q', |body| {
        body.extend_from_slice(command.as_bytes());
        body.push(0);
    });
}

/// The columns of a DataRow.
fn columns(body: &[u8]) -> Result<Vec<Option<String>>, WireError> {
    let mut cursor = Cursor::new(body);
    let count = cursor.int16()?;
    let mut row = Vec::new();
    for _ in 0..count {
        row.push(match cursor.int32()? {
            -1 => None,
            length => {
                let length = usize::try_from(length).map_err(|_| WireError::Short)?;
                Some(String::from_utf8_lossy(cursor.bytes(length)?).into_owned())
            }
        });
    }
    cursor.end()?;
    Ok(row)
}

/// What the data of one CopyData message says.
fn event(body: &[u8]) -> Result<Option<StreamEvent>, WireError> {
    let mut cursor = Cursor::new(body);
    match cursor.byte()? {
        b'w' => {
            // Where it begins, how far the server has written, and its clock.
            cursor.bytes(8 + 8 + 8)?;
            Ok(Some(StreamEvent::Change(cursor.rest().to_vec())))
        }
        b'k' => {
            let sent = lsn(&mut cursor)?;
            // Its clock, and whether it wants an answer: it gets one every moment.
            cursor.bytes(8 + 1)?;
            cursor.end()?;
            Ok(Some(StreamEvent::SentTo(sent)))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_and_what_is_cut_is_refused() {
        let change = [&b"w"[..], &[0; 24], b"B..."].concat();
        assert_eq!(event(&change), Ok(Some(StreamEvent::Change(b"B...".to_vec()))));
        let keepalive = [&b"k\0\0\0\x01\0\0\0\x02"[..], &[0; 8], b"\x01"].concat();
        assert_eq!(event(&keepalive), Ok(Some(StreamEvent::SentTo(Lsn(0x1_0000_0002)))));
        for cut in 0..keepalive.len() {
            assert!(event(&keepalive[..cut]).is_err(), "cut at {cut}");
        }
        assert!(event(&change[..24]).is_err());
        assert!(event(&[&keepalive[..], b"x"].concat()).is_err());
        assert_eq!(event(b"z"), Ok(None), "what later versions may send");
    }

    #[test]
    fn rows_of_commands_are_read() {
        let row = b"\0\x02\0\0\0\x03slo\xff\xff\xff\xff";
        assert_eq!(columns(row), Ok(vec![Some("slo".to_owned()), None]));
        for cut in 0..row.len() {
            assert!(columns(&row[..cut]).is_err(), "cut at {cut}");
        }
        assert!(columns(b"\0\x01\x80\0\0\0").is_err());
    }
}
