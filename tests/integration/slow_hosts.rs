//! Hosts that do not die but stop answering: frozen, far away, or one byte at a time.

use super::harness::proxy::host_of;
use super::harness::{Pgyard, config, eventually, own_fleet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const READERS: usize = 32;
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads with many clients while `disturb` runs; answers the longest statement. Any error fails the test.
fn longest_read(yard: &Pgyard, disturb: impl FnOnce()) -> Duration {
    let (stop, longest) = (AtomicBool::new(false), Mutex::new(Duration::ZERO));
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                let mut client = yard.client();
                while !stop.load(Ordering::Relaxed) {
                    let begin = Instant::now();
                    let answer = client.column("SELECT count(*) FROM generate_series(1, 2000)");
                    assert_eq!(answer.expect("a read must not fail because a host is slow"), ["2000"]);
                    let mut longest = longest.lock().unwrap();
                    *longest = (*longest).max(begin.elapsed());
                }
            });
        }
        std::thread::sleep(Duration::from_millis(300));
        disturb();
        stop.store(true, Ordering::Relaxed);
    });
    longest.into_inner().unwrap()
}

#[test]
fn a_frozen_replica_costs_no_error_and_no_read_much_more_than_the_probes_timeout() {
    let fleet = own_fleet(2);
    // A small pool: sessions also wait for connections of the frozen host, and must not do so until checkout_timeout.
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, None, "pool_size = 8\n"));
    let victim = &fleet.replicas()[0];
    yard.wait_for_replicas(&["replica1", "replica2"]);
    let longest = longest_read(&yard, || {
        victim.freeze().unwrap();
        std::thread::sleep(Duration::from_secs(10));
        victim.thaw().unwrap();
        let mut client = yard.client();
        eventually("the replica is used again", Duration::from_secs(10), || host_of(&mut client) == victim.name());
    });
    assert!(longest < PROBE_TIMEOUT + Duration::from_secs(1), "a read took {longest:?}");
    assert!(yard.metric("pgyard_retries_total", &[("reason", "host_silent")]) > Some(0.0), "reads in flight were moved");
}

#[test]
fn a_frozen_primary_holds_up_no_read_beyond_the_probes_timeout() {
    let fleet = own_fleet(1);
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, None, "reads_on_primary = \"always\"\npool_size = 8\n"));
    yard.wait_for_replicas(&["primary", "replica1"]);
    let longest = longest_read(&yard, || {
        fleet.primary().freeze().unwrap();
        std::thread::sleep(Duration::from_secs(3));
        fleet.primary().thaw().unwrap();
    });
    assert!(longest < PROBE_TIMEOUT + Duration::from_secs(1), "a read took {longest:?}");
}

#[test]
fn new_statements_leave_a_slow_host_within_the_probes_timeout() {
    let fleet = own_fleet(2);
    let way = SlowWay::to(fleet.replicas()[0].port());
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, Some(way.port), ""));
    yard.wait_for_replicas(&["replica1", "replica2"]);
    for (name, pace) in [("silence", Pace::Silent), ("five seconds", Pace::Late), ("a byte at a time", Pace::Trickle)] {
        let longest = longest_read(&yard, || {
            way.set(pace);
            let slowed = Instant::now();
            let mut client = yard.client();
            let mut last = Duration::ZERO;
            while slowed.elapsed() < Duration::from_millis(2500) {
                let begun = slowed.elapsed();
                if host_of(&mut client) == "replica1" {
                    last = begun;
                }
            }
            assert!(last < PROBE_TIMEOUT + Duration::from_millis(400), "{name}: a statement began there after {last:?}");
            way.set(Pace::Quick);
            eventually("the replica is used again", Duration::from_secs(15), || host_of(&mut client) == "replica1");
        });
        assert!(longest < PROBE_TIMEOUT + Duration::from_secs(1), "{name}: a read took {longest:?}");
    }
}

/// How a way behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Pace {
    /// Bytes pass at once.
    Quick,
    /// Connections are taken; nothing passes.
    Silent,
    /// Every chunk passes five seconds late.
    Late,
    /// What the server says passes a byte every 20 ms.
    Trickle,
}

/// A TCP way to a server whose pace can be changed under running connections.
struct SlowWay {
    port: u16,
    pace: Arc<AtomicU8>,
}

impl SlowWay {
    fn to(server: u16) -> SlowWay {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (port, pace) = (listener.local_addr().unwrap().port(), Arc::new(AtomicU8::new(0)));
        let shared = pace.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else { continue };
                let (from, to, pace) = (client.try_clone().unwrap(), server.try_clone().unwrap(), shared.clone());
                std::thread::spawn(move || pass(from, to, &pace, false));
                let pace = shared.clone();
                std::thread::spawn(move || pass(server, client, &pace, true));
            }
        });
        SlowWay { port, pace }
    }

    fn set(&self, pace: Pace) {
        self.pace.store(pace as u8, Ordering::Relaxed);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, pace: &AtomicU8, is_answer: bool) {
    let (mut chunk, pause) = ([0; 16384], Duration::from_millis(20));
    let is = |wanted: Pace| pace.load(Ordering::Relaxed) == wanted as u8;
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        let came = Instant::now();
        while is(Pace::Silent) || (is(Pace::Late) && came.elapsed() < Duration::from_secs(5)) {
            std::thread::sleep(pause);
        }
        let mut rest = &chunk[..count];
        while is(Pace::Trickle) && is_answer && !rest.is_empty() {
            if to.write_all(&rest[..1]).is_err() {
                return;
            }
            rest = &rest[1..];
            std::thread::sleep(pause);
        }
        if to.write_all(rest).is_err() {
            break;
        }
    }
    // Either may be closed already.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
