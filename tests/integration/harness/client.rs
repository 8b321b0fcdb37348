//! A client that speaks the protocol in bytes: it can send what no driver would send, and sees every message.

use bytes::BytesMut;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use postgres_protocol::message::frontend;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// A server that says nothing for this long is stalled.
const SILENCE: Duration = Duration::from_secs(20);

/// One message of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its type byte.
    pub tag: u8,
    /// What follows the length.
    pub body: Vec<u8>,
}

impl Reply {
    /// A field of an ErrorResponse or NoticeResponse: `C` is the SQLSTATE, `M` the message.
    pub fn field(&self, code: u8) -> Option<String> {
        let mut fields = self.body.split(|byte| *byte == 0);
        fields.find(|field| field.first() == Some(&code)).map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
    }
}

/// Which protocol a statement is sent by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Query.
    Simple,
    /// Parse, Bind, Describe, Execute, Sync with unnamed statement and portal.
    Extended,
    /// Parse, Describe, Sync; then Bind, Execute, Sync of a named statement; then Close.
    Named,
}

/// A connection.
#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
    buffer: BytesMut,
    /// Process id and secret of BackendKeyData.
    pub key: (i32, i32),
    /// The whole secret: 4 bytes under protocol 3.0, more under 3.2.
    pub secret: Vec<u8>,
    /// What ParameterStatus said last of each parameter.
    pub told: BTreeMap<String, String>,
}

impl RawClient {
    /// Connects and sends nothing.
    pub fn connect(port: u16) -> io::Result<RawClient> {
        // A stray signal may interrupt it (seen once); nothing has been sent then.
        let stream = loop {
            match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                connected => break connected?,
            }
        };
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        stream.set_nodelay(true)?;
        Ok(RawClient { stream, buffer: BytesMut::new(), key: (0, 0), secret: Vec::new(), told: BTreeMap::new() })
    }

    /// Changes how long a server may say nothing.
    pub fn set_silence(&self, limit: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(limit))
    }

    /// Connects and logs in, with SCRAM-SHA-256.
    pub fn log_in(port: u16, user: &str, password: &str, database: &str) -> io::Result<RawClient> {
        RawClient::log_in_with(port, &startup(&[("user", user), ("database", database)]), password)
    }

    /// Connects and logs in with a StartupMessage of one's own.
    pub fn log_in_with(port: u16, startup: &[u8], password: &str) -> io::Result<RawClient> {
        let mut client = RawClient::connect(port)?;
        client.send(startup)?;
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        loop {
            let reply = client.receive()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let code = reply.body.get(..4).map(|code| i32::from_be_bytes(code.try_into().unwrap()));
            let mut out = BytesMut::new();
            match (reply.tag, code) {
                (b'R', Some(10)) => frontend::sasl_initial_response("SCRAM-SHA-256", scram.message(), &mut out)?,
                (b'R', Some(11)) => {
                    scram.update(&reply.body[4..])?;
                    frontend::sasl_response(scram.message(), &mut out)?;
                }
                (b'R', Some(12)) => scram.finish(&reply.body[4..])?,
                (b'K', Some(pid)) => {
                    client.key = (pid, i32::from_be_bytes(reply.body[4..8].try_into().unwrap()));
                    client.secret = reply.body[4..].to_vec();
                }
                (b'E', _) => return Err(refusal(&reply)),
                (b'Z', _) => return Ok(client),
                _ => {}
            }
            client.send(&out)?;
        }
    }

    fn note_parameter(&mut self, body: &[u8]) {
        let mut words = body.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        if let (Some(name), Some(value)) = (words.next(), words.next()) {
            self.told.insert(name, value);
        }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&mut self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)
    }

    /// The next message; `None` when the connection was closed.
    pub fn receive(&mut self) -> io::Result<Option<Reply>> {
        loop {
            if self.buffer.len() >= 5 {
                let length = u32::from_be_bytes(self.buffer[1..5].try_into().unwrap()) as usize;
                if !(4..64 << 20).contains(&length) {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
                }
                if self.buffer.len() > length {
                    let frame = self.buffer.split_to(length + 1);
                    let reply = Reply { tag: frame[0], body: frame[5..].to_vec() };
                    if reply.tag == b'S' {
                        self.note_parameter(&reply.body);
                    }
                    return Ok(Some(reply));
                }
            }
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    /// The next message, however long, whose body is handed over as it comes and not kept: its tag, and the length of its body.
    pub fn receive_passing(&mut self, mut take: impl FnMut(&[u8])) -> io::Result<(u8, usize)> {
        while self.buffer.len() < 5 {
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let head = self.buffer.split_to(5);
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4;
        let mut left = length;
        while left > 0 {
            if self.buffer.is_empty() && self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let part = self.buffer.split_to(left.min(self.buffer.len()));
            take(&part);
            left -= part.len();
        }
        Ok((head[0], length))
    }

    /// As `receive`; what is no message (an answer to SSLRequest, a TLS alert, the text of a server that takes us for a client of
    /// protocol 2) is read to the end of the connection.
    pub fn receive_lossy(&mut self) -> io::Result<Option<Reply>> {
        match self.receive() {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                while self.fill()? > 0 {
                    self.buffer.clear();
                }
                Ok(None)
            }
            other => other,
        }
    }

    /// One byte outside any message: the answer to SSLRequest.
    pub fn receive_byte(&mut self) -> io::Result<Option<u8>> {
        if self.buffer.is_empty() && self.fill()? == 0 {
            return Ok(None);
        }
        Ok(Some(self.buffer.split_to(1)[0]))
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 8192];
        loop {
            return match self.stream.read(&mut chunk) {
                Ok(count) => {
                    self.buffer.extend_from_slice(&chunk[..count]);
                    Ok(count)
                }
                // A read with a time limit ends so when the machine was stopped and goes on (signal(7)).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The other side closed while bytes of ours were still unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(0),
                Err(error) => Err(error),
            };
        }
    }

    /// Messages up to ReadyForQuery, which is the last of them. COPY from the client is ended at once, with no data.
    pub fn until_ready(&mut self) -> io::Result<Vec<Reply>> {
        let mut replies = Vec::new();
        loop {
            let reply = self.receive()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let (tag, extended) = (reply.tag, replies.iter().any(|earlier: &Reply| earlier.tag == b'2'));
            replies.push(reply);
            match tag {
                // While data is copied in, PostgreSQL ignores the Sync that was sent before: it needs another one.
                b'G' if extended => self.send(&[frame(b'c', b""), sync()].concat())?,
                b'G' => self.send(&frame(b'c', b""))?,
                b'Z' => return Ok(replies),
                _ => {}
            }
        }
    }

    /// Runs a statement to its ReadyForQuery.
    pub fn run(&mut self, protocol: Protocol, sql: &str) -> io::Result<Vec<Reply>> {
        match protocol {
            Protocol::Simple => {
                self.send(&query(sql))?;
                self.until_ready()
            }
            Protocol::Extended => {
                let execute = [bind("", ""), describe_portal(""), execute("")].concat();
                self.send(&[parse("", sql), execute, sync()].concat())?;
                self.until_ready()
            }
            Protocol::Named => {
                self.send(&[parse("stmt", sql), frame(b'D', b"Sstmt\0"), sync()].concat())?;
                let mut replies = self.until_ready()?;
                if replies.iter().all(|reply| reply.tag != b'E') {
                    self.send(&[bind("", "stmt"), execute(""), sync()].concat())?;
                    replies.extend(self.until_ready()?);
                }
                self.send(&[frame(b'C', b"Sstmt\0"), sync()].concat())?;
                replies.extend(self.until_ready()?);
                Ok(replies)
            }
        }
    }

    /// The first column of the rows of a simple query, as text.
    pub fn column(&mut self, sql: &str) -> io::Result<Vec<String>> {
        let replies = self.run(Protocol::Simple, sql)?;
        if let Some(error) = replies.iter().find(|reply| reply.tag == b'E') {
            return Err(io::Error::other(error.field(b'M').unwrap_or_default()));
        }
        let rows = replies.iter().filter(|reply| reply.tag == b'D');
        Ok(rows
            .map(|row| {
                let length = i32::from_be_bytes(row.body[2..6].try_into().unwrap());
                let end = 6 + usize::try_from(length).unwrap_or(0);
                String::from_utf8_lossy(&row.body[6..end]).into_owned()
            })
            .collect())
    }
}

/// A message: type, length, body.
pub fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

/// A log-in that was refused: SQLSTATE and message.
fn refusal(reply: &Reply) -> io::Error {
    let (state, message) = (reply.field(b'C').unwrap_or_default(), reply.field(b'M').unwrap_or_default());
    io::Error::other(format!("{state}: {message}"))
}

/// CancelRequest with a key of any length.
pub fn cancel_request_with(pid: i32, secret: &[u8]) -> Vec<u8> {
    let length = u32::try_from(12 + secret.len()).unwrap();
    [&length.to_be_bytes()[..], &80_877_102_i32.to_be_bytes(), &pid.to_be_bytes(), secret].concat()
}

/// A StartupMessage of protocol 3.2.
pub fn startup_3_2(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut packet = startup(parameters);
    packet[4..8].copy_from_slice(&196_610_u32.to_be_bytes());
    packet
}

/// A StartupMessage of protocol 3.0.
pub fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
    }
    body.push(0);
    [&u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], &body].concat()
}

/// SSLRequest.
pub fn ssl_request() -> Vec<u8> {
    [8_u32.to_be_bytes(), 80_877_103_u32.to_be_bytes()].concat()
}

/// CancelRequest.
pub fn cancel_request((pid, secret): (i32, i32)) -> Vec<u8> {
    [16_i32.to_be_bytes(), 80_877_102_i32.to_be_bytes(), pid.to_be_bytes(), secret.to_be_bytes()].concat()
}

/// Query.
pub fn query(sql: &str) -> Vec<u8> {
    frame(b'Q', format!("{sql}\0").as_bytes())
}

/// Parse without parameter types.
pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    frame(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

/// Bind without parameters.
pub fn bind(portal: &str, statement: &str) -> Vec<u8> {
    frame(b'B', format!("{portal}\0{statement}\0\0\0\0\0\0\0").as_bytes())
}

/// Describe of a portal.
pub fn describe_portal(portal: &str) -> Vec<u8> {
    frame(b'D', format!("P{portal}\0").as_bytes())
}

/// Execute without a row limit.
pub fn execute(portal: &str) -> Vec<u8> {
    frame(b'E', format!("{portal}\0\0\0\0\0").as_bytes())
}

/// Sync.
pub fn sync() -> Vec<u8> {
    frame(b'S', b"")
}
