//! Many clients on few threads: each sends one statement after the other and notes how long it took.

use super::super::harness::client::{query, startup};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;

/// Clients that log in at the same time.
const LOGGING_IN: usize = 64;

/// What the crowd saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// For each client, how long each of its statements took; the first of each stands in no full queue and is left out.
    pub clients: Vec<Vec<Duration>>,
    /// Errors: SQLSTATE and message.
    pub errors: Vec<String>,
}

impl Seen {
    /// The time that this part of all statements stayed below.
    pub fn percentile(&self, part: f64) -> Duration {
        let mut all: Vec<Duration> = self.clients.iter().flatten().copied().collect();
        all.sort_unstable();
        let place = (all.len() as f64 * part) as usize;
        all.get(place.min(all.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// Has `count` clients of the role run the statement again and again. They all begin when the last one is logged in; `begun` is called
/// then.
pub fn run(port: u16, (user, count): (&str, usize), sql: &str, time: Duration, begun: impl FnOnce() + Send + 'static) -> Seen {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (doors, start) = (Arc::new(tokio::sync::Semaphore::new(LOGGING_IN)), Arc::new(Barrier::new(count + 1)));
        let (hello, question): (Arc<[u8]>, Arc<[u8]>) =
            (startup(&[("user", user), ("database", "app")]).into(), query(sql).into());
        let clients: Vec<_> = (0..count)
            .map(|_| {
                let (doors, start, hello, question) = (doors.clone(), start.clone(), hello.clone(), question.clone());
                tokio::spawn(async move {
                    let door = doors.acquire().await.unwrap();
                    let logged_in = Visitor::log_in(port, &hello).await;
                    drop(door);
                    start.wait().await;
                    match logged_in {
                        Ok(visitor) => visitor.stay(&question, time).await,
                        Err(error) => (Vec::new(), vec![error.to_string()]),
                    }
                })
            })
            .collect();
        start.wait().await;
        begun();
        let mut seen = Seen::default();
        for client in clients {
            let (times, errors) = client.await.unwrap();
            seen.clients.push(times);
            seen.errors.extend(errors);
        }
        seen
    })
}

struct Visitor {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Visitor {
    async fn log_in(port: u16, hello: &[u8]) -> io::Result<Visitor> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let mut visitor = Visitor { stream, bytes: Vec::new() };
        match visitor.ask(hello).await? {
            None => Ok(visitor),
            Some(error) => Err(io::Error::other(error)),
        }
    }

    async fn stay(mut self, question: &[u8], time: Duration) -> (Vec<Duration>, Vec<String>) {
        let (begun, mut times, mut errors) = (Instant::now(), Vec::new(), Vec::new());
        let mut first = true;
        while begun.elapsed() < time {
            let asked = Instant::now();
            match self.ask(question).await {
                Ok(None) if first => {}
                Ok(None) => times.push(asked.elapsed()),
                Ok(Some(error)) => errors.push(error),
                Err(error) => {
                    errors.push(error.to_string());
                    break;
                }
            }
            first = false;
        }
        (times, errors)
    }

    /// Sends a message and reads up to ReadyForQuery; answers the error that came, if one did.
    async fn ask(&mut self, message: &[u8]) -> io::Result<Option<String>> {
        self.stream.write_all(message).await?;
        let mut error = None;
        loop {
            while self.bytes.len() >= 5 {
                let length = u32::from_be_bytes(self.bytes[1..5].try_into().unwrap()) as usize + 1;
                if self.bytes.len() < length {
                    break;
                }
                let (tag, body) = (self.bytes[0], self.bytes[5..length].to_vec());
                self.bytes.drain(..length);
                match tag {
                    b'E' => error = Some(String::from_utf8_lossy(&body).replace('\0', " ")),
                    b'Z' => return Ok(error),
                    _ => {}
                }
            }
            let mut chunk = [0; 2048];
            let count = self.stream.read(&mut chunk).await?;
            if count == 0 {
                return Err(io::Error::other(error.unwrap_or_else(|| "the connection ended".to_owned())));
            }
            self.bytes.extend_from_slice(&chunk[..count]);
        }
    }
}
