//! Bytes that no client should send. Whatever comes, the other side answers with an error or closes within seconds, other clients
//! notice nothing, and memory does not grow. The inputs are tried on PostgreSQL itself too: it survives them all.

use super::harness::client::{RawClient, frame, query, ssl_request, startup, sync};
use super::harness::{Pgyard, Target, shared_fleet};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Inputs per message type.
const INPUTS: u64 = 100;
/// Every type byte that a client may send after log-in, and some that only a server sends or nobody.
const TAGS: &[u8] = b"BCDEFHPQSXpcdfZRTK\0\x01\x7f\xff";
/// Longest wait for the answer or the end of a connection.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A body that is right for a type, to be spoilt.
fn good_body(tag: u8) -> Vec<u8> {
    match tag {
        b'B' => b"\0\0\0\0\0\x01\0\0\0\x011\0\0".to_vec(),
        b'C' | b'D' => b"Sname\0".to_vec(),
        b'E' => b"\0\0\0\0\0".to_vec(),
        b'F' => b"\0\0\x05\x29\0\0\0\0\0\0".to_vec(),
        b'P' => b"\0SELECT $1::int\0\0\x01\0\0\0\x17".to_vec(),
        b'Q' => b"SELECT 1\0".to_vec(),
        b'p' => b"SCRAM-SHA-256\0\0\0\0\x05n,,n=".to_vec(),
        b'd' => b"1\tx\n".to_vec(),
        b'f' => b"failed\0".to_vec(),
        _ => Vec::new(),
    }
}

/// One malformed message: a length that lies, a body cut short or run long, counts that are far too high, noise.
fn spoilt(tag: u8, random: &mut StdRng) -> Vec<u8> {
    let mut body = good_body(tag);
    match random.random_range(0..7) {
        0 => return [&[tag], &random.random_range(0_i32..4).to_be_bytes()[..], &body].concat(),
        1 => return [&[tag], &random.random_range(i32::MIN..0).to_be_bytes()[..], &body].concat(),
        2 => return [&[tag], &random.random_range(1_i32 << 30..i32::MAX).to_be_bytes()[..], &body].concat(),
        3 => body.truncate(random.random_range(0..=body.len())),
        4 => body.extend((0..random.random_range(1..2000)).map(|_| random.random::<u8>())),
        5 => body.iter_mut().for_each(|byte| *byte = if random.random_bool(0.3) { 0xff } else { *byte }),
        _ => body = (0..random.random_range(0..300)).map(|_| random.random()).collect(),
    }
    frame(tag, &body)
}

/// Reads until the other side closes; it has to, once we have said that nothing follows.
fn must_end(mut client: RawClient, what: &str) {
    let begin = Instant::now();
    // It may be closed already.
    drop(client.finish_sending());
    loop {
        match client.receive() {
            Ok(Some(_)) => assert!(begin.elapsed() < ANSWER_LIMIT, "{what}: answers without end"),
            Ok(None) => return,
            Err(error) => panic!("{what}: neither an answer nor an end: {error}"),
        }
    }
}

fn after_log_in(target: Target) {
    for tag in TAGS {
        let mut random = StdRng::seed_from_u64(u64::from(*tag));
        for turn in 0..INPUTS {
            let bytes = spoilt(*tag, &mut random);
            let mut client = target.client();
            // In copy-in mode other messages mean something else: half of the inputs are sent there.
            if turn % 2 == 1 && b"dcf".contains(tag) {
                client.send(&query("CREATE TEMP TABLE spoilt (line text); COPY spoilt FROM STDIN")).unwrap();
            }
            // It may have been refused half-way.
            drop(client.send(&bytes).and_then(|()| client.send(&sync())));
            must_end(client, &format!("{:?}, input {turn}: {bytes:?}", char::from(*tag)));
        }
    }
}

fn before_log_in(port: u16) {
    let mut random = StdRng::seed_from_u64(7);
    let good = startup(&[("user", "app"), ("database", "app")]);
    for turn in 0..INPUTS {
        let mut bytes = good.clone();
        match turn % 8 {
            0 => bytes = (0..random.random_range(0..500)).map(|_| random.random()).collect(),
            1 => bytes.truncate(random.random_range(0..bytes.len())),
            2 => bytes[..4].copy_from_slice(&random.random::<u32>().to_be_bytes()),
            3 => bytes[4..8].copy_from_slice(&random.random::<u32>().to_be_bytes()),
            4 => bytes = [&20_000_u32.to_be_bytes()[..], &[b'x'; 19_996]].concat(),
            5 => bytes = TAGS.iter().flat_map(|tag| spoilt(*tag, &mut random)).collect(),
            6 => {
                // No terminator, or no value.
                bytes = [&20_u32.to_be_bytes()[..], &196_608_u32.to_be_bytes(), b"user\0app\0xyz"].concat();
            }
            _ => {
                // A message that is right after log-in only, behind a good start.
                let tag = TAGS[random.random_range(0..TAGS.len())];
                bytes = [good.clone(), spoilt(tag, &mut random), query("SELECT 1")].concat();
            }
        }
        let mut client = RawClient::connect(port).unwrap();
        drop(client.send(&bytes));
        must_end_before_log_in(client, &format!("before log-in, input {turn}: {bytes:?}"));
    }
}

/// As `must_end`; and nobody was let in.
fn must_end_before_log_in(mut client: RawClient, what: &str) {
    drop(client.finish_sending());
    loop {
        match client.receive_lossy() {
            Ok(Some(reply)) => assert_ne!(reply.tag, b'Z', "{what}: logged in without a password"),
            Ok(None) => return,
            Err(error) => panic!("{what}: neither an answer nor an end: {error}"),
        }
    }
}

/// What stands in the clear behind SSLRequest must not be taken for something that came through TLS, nor be carried over when TLS
/// is refused and the client speaks on.
fn smuggling(port: u16) {
    for turn in 0..INPUTS {
        let mut client = RawClient::connect(port).unwrap();
        let good = startup(&[("user", "app"), ("database", "app")]);
        let behind = match turn % 4 {
            0 => good.clone(),
            1 => ssl_request(),
            2 => query("SELECT 1"),
            _ => vec![0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0],
        };
        client.send(&[ssl_request(), behind].concat()).unwrap();
        let answer = client.receive_byte().unwrap();
        assert!(matches!(answer, Some(b'N' | b'S' | b'E') | None), "{answer:?} to SSLRequest");
        must_end_before_log_in(client, &format!("smuggled behind SSLRequest, input {turn}"));
    }
}

/// Runs `attack` while another client works; that client must see nothing of it.
fn beside_a_client(target: Target, attack: impl FnOnce()) {
    let (stop, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut client = target.client();
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(client.column("SELECT 'undisturbed'").unwrap(), ["undisturbed"]);
                answers.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(attack));
        stop.store(true, Ordering::Relaxed);
        other.join().unwrap();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    assert!(answers.into_inner() > 10);
}

#[test]
fn postgresql_survives_these_inputs() {
    beside_a_client(Target::Direct, || {
        after_log_in(Target::Direct);
        before_log_in(Target::Direct.port());
        smuggling(Target::Direct.port());
    });
}

/// One pgyard for all of it, not shared: its memory is measured.
#[test]
fn pgyard_survives_these_inputs() {
    const GROWTH_MAX: u64 = 16 << 20;
    let yard = Pgyard::start(shared_fleet(), &[]);
    let target = Target::Port(yard.port());
    // What every first use allocates is not growth.
    drop((0..20).map(|_| target.client()).collect::<Vec<_>>());
    let before = yard.resident_bytes();
    let mut peak = before;
    beside_a_client(target, || {
        after_log_in(target);
        peak = peak.max(yard.resident_bytes());
        before_log_in(yard.port());
        smuggling(yard.port());
        // Announced and never sent: lengths must not be allocated.
        let announced: Vec<RawClient> = (0..200)
            .map(|_| {
                let mut client = target.client();
                client.send(&[&b"Q"[..], &(1_i32 << 29).to_be_bytes(), b"SELECT"].concat()).unwrap();
                client
            })
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        peak = peak.max(yard.resident_bytes());
        drop(announced);
    });
    let grown = peak.saturating_sub(before);
    assert!(grown <= GROWTH_MAX, "{} KiB more than at the start", grown / 1024);
    assert!(!yard.log().contains("panicked"), "a panic:\n{}", yard.log());
}
