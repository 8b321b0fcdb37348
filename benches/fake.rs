//! The conversation of a fake PostgreSQL server: a thread per connection, one write for what one read brought.
//!
//! Not a server to test against: it checks nothing, knows no errors, and its only state is which answer a name stands for.

mod answers;
mod put;

use answers::{FakeAnswer, Format};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

/// What a fake server says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FakeRole {
    /// Not in recovery.
    Primary,
    /// In recovery, streaming, with no lag.
    Replica,
}

/// Bytes read at once; a longer message makes the buffer grow.
const READ_LEN: usize = 16 * 1024;
/// Answers are written before they grow beyond this, however much of them is still to come. Bytes.
const WRITE_LEN: usize = 64 * 1024;

/// Request codes of first packets. Spec: PostgreSQL documentation, "Message Formats".
const CANCEL_REQUEST: u32 = 80_877_102;
const TLS_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

/// Serves every connection until the listener fails.
pub fn serve(listener: &TcpListener, role: FakeRole) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { return };
        // A connection that breaks ends its thread and nothing else. The stack is small: there may be thousands.
        let spawned = std::thread::Builder::new().stack_size(128 * 1024).spawn(move || drop(converse(stream, role)));
        if spawned.is_err() {
            return;
        }
    }
}

fn converse(mut stream: TcpStream, role: FakeRole) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if !log_in(&mut stream)? {
        return Ok(());
    }
    let mut connection = FakeConnection { role, statements: HashMap::new(), portals: HashMap::new(), status: b'I' };
    let (mut input, mut filled) = (vec![0; READ_LEN], 0);
    let mut output = Vec::with_capacity(READ_LEN);
    loop {
        let count = stream.read(&mut input[filled..])?;
        if count == 0 {
            return Ok(());
        }
        filled += count;
        let mut used = 0;
        while let Some((tag, total)) = message_at(&input[used..filled]) {
            if tag == b'X' {
                return Ok(());
            }
            connection.take(tag, &input[used + 5..used + total], &mut output, &mut stream)?;
            used += total;
        }
        input.copy_within(used..filled, 0);
        filled -= used;
        if filled == input.len() {
            input.resize(filled * 2, 0);
        }
        if !output.is_empty() {
            stream.write_all(&output)?;
            output.clear();
        }
    }
}

/// Type and length of the whole message at the front, if it is all there.
fn message_at(bytes: &[u8]) -> Option<(u8, usize)> {
    let head = bytes.first_chunk::<5>()?;
    let total = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize + 1;
    (bytes.len() >= total).then_some((head[0], total))
}

/// Lets anybody in. False for a cancel request, which has no answer.
fn log_in(stream: &mut TcpStream) -> io::Result<bool> {
    loop {
        let mut head = [0; 8];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let mut rest = vec![0; length.clamp(8, READ_LEN) - 8];
        stream.read_exact(&mut rest)?;
        match u32::from_be_bytes([head[4], head[5], head[6], head[7]]) {
            CANCEL_REQUEST => return Ok(false),
            TLS_REQUEST | GSS_REQUEST => stream.write_all(b"N")?,
            _ => {
                let mut welcome = Vec::new();
                put::welcome(&mut welcome);
                stream.write_all(&welcome)?;
                return Ok(true);
            }
        }
    }
}

struct FakeConnection {
    role: FakeRole,
    statements: HashMap<Box<[u8]>, FakeAnswer>,
    portals: HashMap<Box<[u8]>, (FakeAnswer, Format)>,
    status: u8,
}

impl FakeConnection {
    fn take(&mut self, tag: u8, body: &[u8], output: &mut Vec<u8>, stream: &mut TcpStream) -> io::Result<()> {
        match tag {
            b'Q' => {
                let answer = FakeAnswer::to(body, self.role);
                answer.put_description(Format::Text, output);
                self.run(&answer, Format::Text, output, stream)?;
                put::message(output, b'Z', &[self.status]);
            }
            b'P' => {
                let (name, text) = split_string(body);
                keep(&mut self.statements, name, FakeAnswer::to(text, self.role));
                put::message(output, b'1', &[]);
            }
            b'B' => {
                let (portal, rest) = split_string(body);
                let (statement, rest) = split_string(rest);
                let answer = self.statements.get(statement).cloned().unwrap_or_default();
                keep(&mut self.portals, portal, (answer, put::result_format(rest)));
                put::message(output, b'2', &[]);
            }
            b'D' => self.describe(body, output),
            b'E' => {
                let (answer, format) = self.portals.get(split_string(body).0).cloned().unwrap_or_default();
                self.run(&answer, format, output, stream)?;
            }
            b'C' => {
                let (name, _) = split_string(body.get(1..).unwrap_or_default());
                match body.first() {
                    Some(b'S') => drop(self.statements.remove(name)),
                    _ => drop(self.portals.remove(name)),
                }
                put::message(output, b'3', &[]);
            }
            b'S' => put::message(output, b'Z', &[self.status]),
            // A Flush asks for what is written at the end of the input anyway.
            _ => {}
        }
        Ok(())
    }

    fn describe(&self, body: &[u8], output: &mut Vec<u8>) {
        let (name, _) = split_string(body.get(1..).unwrap_or_default());
        if body.first() == Some(&b'S') {
            let answer = self.statements.get(name).cloned().unwrap_or_default();
            answer.put_parameters(output);
            answer.put_description_or_none(Format::Text, output);
        } else {
            let (answer, format) = self.portals.get(name).cloned().unwrap_or_default();
            answer.put_description_or_none(format, output);
        }
    }

    fn run(&mut self, answer: &FakeAnswer, format: Format, output: &mut Vec<u8>, stream: &mut TcpStream) -> io::Result<()> {
        self.status = answer.status().unwrap_or(self.status);
        for _ in 0..answer.rows() {
            answer.put_row(format, output);
            if output.len() >= WRITE_LEN {
                stream.write_all(output)?;
                output.clear();
            }
        }
        put::message(output, b'C', answer.completion());
        Ok(())
    }
}

/// Splits a zero-terminated string off.
fn split_string(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    (&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
}

/// Replaces what a name stands for, without allocating for a name that is known.
fn keep<T>(book: &mut HashMap<Box<[u8]>, T>, name: &[u8], value: T) {
    match book.get_mut(name) {
        Some(place) => *place = value,
        None => drop(book.insert(name.into(), value)),
    }
}
