//! The longest values that PostgreSQL takes and gives pass through in both directions, and are not held. In the suite they have 100 MB;
//! `make giants` takes the longest that there are, a gigabyte, which costs the server several times as much memory.

use super::harness::client::{RawClient, execute, frame, parse, query, sync};
use super::harness::{Pgyard, config};
use pgyard::demo::{FleetOptions, LocalFleet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What pgyard may need beside what it had before. Bytes.
const GROWTH_MAX: u64 = 4 << 20;

/// PostgreSQL takes and sends messages up to one byte below 1 GiB (`MaxAllocSize`); 64 are for what stands around the value.
const LONGEST: usize = (1 << 30) - 64;

/// What the values consist of: all printable characters but the backslash, which COPY would double. A prime, so that no buffer's length
/// fits it.
const PIECE: usize = 7919;

fn len() -> usize {
    let all = std::env::var_os("PGYARD_GIANTS").is_some_and(|value| !value.is_empty());
    if all { LONGEST } else { 100_000_000 }
}

fn piece() -> Vec<u8> {
    (0..PIECE).map(|place| b"0123456789abcdefghijklmnopqrstuvwxyz-+"[place * place % 38]).collect()
}

/// A value of this length that repeats the piece, as SQL.
fn as_sql(len: usize) -> String {
    let text = String::from_utf8(piece()).unwrap();
    // Nothing on the way may be longer than the value: there is no longer one.
    format!("repeat('{text}', {}) || left('{text}', {})", len / PIECE, len % PIECE)
}

/// Compares what comes with what is expected: the value behind `skip` bytes.
struct Checked {
    skip: usize,
    seen: usize,
    piece: Vec<u8>,
    right: bool,
}

impl Checked {
    fn new(skip: usize) -> Checked {
        Checked { skip, seen: 0, piece: piece(), right: true }
    }

    fn take(&mut self, mut part: &[u8], len: usize) {
        let before = self.skip.min(part.len());
        (self.skip, part) = (self.skip - before, &part[before..]);
        while !part.is_empty() && self.seen < len {
            let from = self.seen % PIECE;
            let count = part.len().min(PIECE - from).min(len - self.seen);
            self.right &= part[..count] == self.piece[from..from + count];
            (self.seen, part) = (self.seen + count, &part[count..]);
        }
    }
}

/// Sends a message whose body is `head`, a value of `len` bytes, and `tail`.
fn send_giant(client: &mut RawClient, tag: u8, (head, tail): (&[u8], &[u8]), len: usize) {
    let length = u32::try_from(4 + head.len() + len + tail.len()).unwrap();
    client.send(&[&[tag][..], &length.to_be_bytes(), head].concat()).unwrap();
    // Whole pieces, so that each chunk begins where the one before ended.
    let chunk = piece().repeat(128);
    let mut left = len;
    while left > 0 {
        let count = left.min(chunk.len());
        client.send(&chunk[..count]).unwrap();
        left -= count;
    }
    client.send(tail).unwrap();
}

/// Reads to the end of the answer. The message with this tag holds the value behind `skip` bytes; answers all tags.
fn read_giant(client: &mut RawClient, tag: u8, skip: usize, len: usize) -> String {
    let mut tags = String::new();
    loop {
        let mut short = Vec::new();
        let mut checked = Checked::new(skip);
        let (found, length) = client
            .receive_passing(|part| {
                checked.take(part, len);
                short.extend_from_slice(&part[..part.len().min(1000 - short.len().min(1000))]);
            })
            .unwrap();
        tags.push(found as char);
        if found == tag && length > 1000 {
            assert!(
                checked.right && checked.seen == len && length >= skip + len,
                "{length} bytes, of which {} were checked",
                checked.seen
            );
        }
        assert!(found != b'E', "{}", String::from_utf8_lossy(&short));
        if found == b'Z' {
            return tags;
        }
    }
}

/// Runs `transfer`, and looks how much memory pgyard takes meanwhile.
fn watched(yard: &Pgyard, what: &str, transfer: impl FnOnce()) {
    let (before, peak, stop, begin) = (yard.resident_bytes(), AtomicU64::new(0), AtomicBool::new(false), Instant::now());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                peak.fetch_max(yard.resident_bytes(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        // A transfer that fails must not leave the other thread behind.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(transfer));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    let grown = peak.into_inner().saturating_sub(before);
    println!("{what}: {} bytes in {:?}, {} KiB more memory", len(), begin.elapsed(), grown / 1024);
    assert!(grown <= GROWTH_MAX, "{what}: {} KiB more than before", grown / 1024);
}

#[test]
fn the_longest_values_pass_without_being_held() {
    let len = len();
    // Logging statements would write their parameters into the log.
    let fleet =
        LocalFleet::start(FleetOptions { replicas: 1, log_statements: false, ..FleetOptions::default() }, &mut |_| ()).unwrap();
    fleet.primary().sql("SET ROLE app; CREATE TABLE taken (line text)").unwrap();
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, None, ""));
    yard.wait_for_replicas(&["replica1"]);
    let mut client = yard.client();
    client.set_silence(Duration::from_secs(300)).unwrap();
    // What every first use allocates is not growth. A generic plan holds no copy of its parameter.
    client.column("SET plan_cache_mode = force_generic_plan").unwrap();
    client.column("SELECT repeat('x', 1000) FROM generate_series(1, 5000)").unwrap();
    client.column("INSERT INTO taken VALUES ('x')").unwrap();

    watched(&yard, "a row from a replica", || {
        client.send(&query(&format!("SELECT {}", as_sql(len)))).unwrap();
        assert_eq!(read_giant(&mut client, b'D', 6, len), "TDCZ");
    });
    watched(&yard, "a parameter, and back as a row", || {
        client.send(&parse("", "SELECT $1::text")).unwrap();
        let count = u32::try_from(len).unwrap().to_be_bytes();
        let head = [b"\0\0\0\0\0\x01", &count[..]].concat();
        send_giant(&mut client, b'B', (&head, b"\0\0"), len);
        client.send(&[execute(""), sync()].concat()).unwrap();
        assert_eq!(read_giant(&mut client, b'D', 6, len), "12DCZ");
    });
    watched(&yard, "COPY out, one message", || {
        client.send(&query(&format!("COPY (SELECT {}) TO STDOUT", as_sql(len)))).unwrap();
        assert_eq!(read_giant(&mut client, b'd', 0, len), "HdcCZ");
    });
    watched(&yard, "COPY in, one message", || {
        client.send(&query("COPY taken FROM STDIN WHERE length(line) < 0")).unwrap();
        assert_eq!(client.receive_passing(|_| {}).unwrap().0, b'G');
        send_giant(&mut client, b'd', (b"", b"\n"), len);
        client.send(&frame(b'c', b"")).unwrap();
        assert_eq!(read_giant(&mut client, b'Z', 0, 0), "CZ");
    });
    assert_eq!(client.column("SELECT count(*) FROM taken").unwrap(), ["1"]);
}
