//! A server's answer on its way to the client.

use super::pool::{pool, runtime};
use super::wire::{CHUNK, rows};
use super::{BenchError, HotPath, Run};
use pgyard::database::{Clients, NewClient};
use pgyard::metrics::QueryRoute;
use pgyard::net::socket::Socket;
use pgyard::net::stream::Peer;
use pgyard::net::{Buffer, Stream};
use pgyard::server::{Expected, Incoming, ReportedParameters};
use pgyard::session::ClientSide;
use pgyard::session::exchange::{Exchange, ExchangeEnd};
use pgyard::session::link::Link;
use pgyard::session::relay::{Answer, take_chunk};
use pgyard::wire::frame::{put_message, put_string};
use std::future::poll_fn;
use std::hint::black_box;
use std::io::Read;
use std::net::TcpListener;
use std::sync::Arc;

/// Rows of the large result, of 111 bytes each on the wire.
const LARGE_ROWS: usize = 100_000;

pub const PATHS: &[HotPath] = &[
    HotPath { bytes: CHUNK, ..HotPath::new("relay_judge_rows_64k", judge_rows) },
    HotPath::new("relay_judge_query", || judge_answer(b"TDCZ", &[Expected::Through])),
    HotPath::new("relay_judge_pipeline", || judge_answer(b"12TDCZ", PIPELINE)),
    HotPath { counted: false, ..HotPath::new("exchange_one_row", || through_sockets(1)) },
    HotPath { counted: false, bytes: LARGE_ROWS * 111, ..HotPath::new("exchange_11_mb", || through_sockets(LARGE_ROWS)) },
];

const PIPELINE: &[Expected] =
    &[Expected::Parse { id: 0, show: true }, Expected::Bind, Expected::DescribePortal, Expected::Execute, Expected::Sync];

/// A chunk from the middle of a large result.
fn judge_rows() -> Run {
    let chunk = rows(CHUNK);
    let mut server = Incoming::new(ReportedParameters::default());
    server.replies.push(Expected::Through);
    let (mut answer, mut outbox) = (Answer::default(), Buffer::new());
    Ok(Box::new(move || {
        let range = take_chunk(black_box(&chunk), &mut server, &mut answer, &mut outbox);
        assert!(range.is_ok_and(|range| range.len() == chunk.len()), "all of it is forwarded without a copy");
    }))
}

/// A whole answer of one row, as pgbench gets it, in one read.
fn judge_answer(tags: &'static [u8], expected: &'static [Expected]) -> Run {
    let mut chunk = Vec::new();
    for tag in tags {
        put_message(&mut chunk, *tag, |body| match tag {
            b'T' => body.extend_from_slice(&[0; 27]),
            b'D' => body.extend_from_slice(b"\0\x01\0\0\0\x011"),
            b'C' => put_string(body, b"SELECT 1"),
            b'Z' => body.push(b'I'),
            _ => {}
        });
    }
    let mut server = Incoming::new(ReportedParameters::default());
    let mut outbox = Buffer::new();
    Ok(Box::new(move || {
        expected.iter().for_each(|one| server.replies.push(*one));
        let mut answer = Answer::default();
        let range = take_chunk(black_box(&chunk), &mut server, &mut answer, &mut outbox);
        assert!(range.is_ok_and(|range| range.len() == chunk.len()) && server.replies.is_empty(), "all of it is forwarded");
    }))
}

/// A query and its rows through a pair of sockets: a fake server at one end, at the other a thread that reads and forgets.
fn through_sockets(rows: usize) -> Run {
    let (runtime, pool) = (runtime()?, pool()?);
    let server = runtime.block_on(pool.checkout(&Arc::default(), 0))?;
    let (stream, peer) = runtime.block_on(forgetful_client())?;
    let entry = Clients::default().enter(NewClient {
        database: "bench".into(),
        user: "bench".into(),
        peer,
        tls: false,
        application_name: "bench".into(),
        key_len: 4,
        is_leg: false,
    });
    let mut client = ClientSide::new(stream);
    let mut query = Vec::new();
    put_message(&mut query, b'Q', |body| put_string(body, format!("SELECT fake_rows({rows})").as_bytes()));
    let _entered = runtime.enter();
    let mut link = Link::new(server, pool, super::cluster::host(0)?, QueryRoute::Primary, entry);
    drop(_entered);
    Ok(Box::new(move || {
        client.inbox.push(&query);
        link.server().incoming.replies.push(Expected::Through);
        let mut exchange = Exchange::new(Answer::default(), query.len(), true);
        let end = runtime.block_on(poll_fn(|cx| exchange.poll(cx, (&mut client, None), &mut link)));
        assert!(matches!(end, ExchangeEnd::Done), "{end:?}");
        client.inbox.consume(query.len());
    }))
}

async fn forgetful_client() -> Result<(Stream, Peer), BenchError> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut other, _) = listener.accept()?;
    std::thread::spawn(move || {
        let mut bytes = vec![0; CHUNK];
        while other.read(&mut bytes).is_ok_and(|count| count > 0) {}
    });
    Ok((Stream::Plain(Socket::Tcp(stream)), Peer::Tcp(address)))
}
