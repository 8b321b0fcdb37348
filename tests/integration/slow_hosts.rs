//! Hosts that do not die but stop answering: frozen, far away, or one byte at a time.

use super::harness::proxy::host_of;
use super::harness::readers::{PROBE_TIMEOUT, while_reading};
use super::harness::way::{pass, way_to};
use super::harness::{Pgyard, config, eventually, own_fleet, promised};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_frozen_replica_costs_no_error_and_no_read_much_more_than_the_probes_timeout() {
    let fleet = own_fleet(2);
    // A small pool: sessions also wait for connections of the frozen host, and must not do so until checkout_timeout.
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, None, "pool_size = 8\n"));
    let victim = &fleet.replicas()[0];
    yard.wait_for_replicas(&["replica1", "replica2"]);
    while_reading(&yard, "a replica frozen", |readers| {
        let frozen = Instant::now();
        victim.freeze().unwrap();
        readers.go_on();
        std::thread::sleep(promised(Duration::ZERO, Duration::from_secs(10).saturating_sub(frozen.elapsed())));
        victim.thaw().unwrap();
        let mut client = yard.client();
        eventually("the replica is used again", LIMIT, || host_of(&mut client) == victim.name());
    });
    assert!(yard.metric("pgyard_retries_total", &[("reason", "host_silent")]) > Some(0.0), "reads in flight were moved");
}

#[test]
fn a_frozen_primary_holds_up_no_read_beyond_the_probes_timeout() {
    let fleet = own_fleet(1);
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, None, "reads_on_primary = \"always\"\npool_size = 8\n"));
    yard.wait_for_replicas(&["primary", "replica1"]);
    while_reading(&yard, "a primary frozen", |readers| {
        fleet.primary().freeze().unwrap();
        readers.go_on();
        fleet.primary().thaw().unwrap();
    });
}

#[test]
fn new_statements_leave_a_slow_host_within_the_probes_timeout() {
    let fleet = own_fleet(2);
    let way = SlowWay::to(fleet.replicas()[0].port());
    let yard = Pgyard::start_with_config(&fleet, &config(&fleet, Some(way.port), ""));
    yard.wait_for_replicas(&["replica1", "replica2"]);
    for (name, pace) in [("silence", Pace::Silent), ("five seconds", Pace::Late), ("a byte at a time", Pace::Trickle)] {
        while_reading(&yard, name, |readers| {
            way.set(pace);
            let slowed = Instant::now();
            let mut client = yard.client();
            // The last statement that began there, and when.
            let (mut last, mut elsewhere) = (Duration::ZERO, 0);
            eventually("new statements leave it", LIMIT, || {
                let begun = slowed.elapsed();
                match host_of(&mut client) == "replica1" {
                    true => (last, elsewhere) = (begun, 0),
                    false => elsewhere += 1,
                }
                elsewhere >= 50 && slowed.elapsed() > promised(Duration::ZERO, Duration::from_millis(2500))
            });
            println!("{name}: the last statement began there after {last:?}");
            let limit = promised(LIMIT, PROBE_TIMEOUT + Duration::from_millis(100));
            assert!(last <= limit, "{name}: a statement began there after {last:?}");
            readers.go_on();
            way.set(Pace::Quick);
            eventually("the replica is used again", LIMIT, || host_of(&mut client) == "replica1");
        });
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
        let pace = Arc::new(AtomicU8::new(0));
        let shared = pace.clone();
        let port = way_to(server, move || {
            let (there, back) = (shared.clone(), shared.clone());
            (
                move |piece: &[u8], to: &mut TcpStream| pass_slowly(piece, to, &there, false),
                move |piece: &[u8], to: &mut TcpStream| pass_slowly(piece, to, &back, true),
            )
        });
        SlowWay { port, pace }
    }

    fn set(&self, pace: Pace) {
        self.pace.store(pace as u8, Ordering::Relaxed);
    }
}

fn pass_slowly(piece: &[u8], to: &mut TcpStream, pace: &AtomicU8, is_answer: bool) -> bool {
    let (came, pause) = (Instant::now(), Duration::from_millis(20));
    let is = |wanted: Pace| pace.load(Ordering::Relaxed) == wanted as u8;
    while is(Pace::Silent) || (is(Pace::Late) && came.elapsed() < Duration::from_secs(5)) {
        std::thread::sleep(pause);
    }
    let mut rest = piece;
    while is(Pace::Trickle) && is_answer && !rest.is_empty() {
        if !pass(&rest[..1], to) {
            return false;
        }
        rest = &rest[1..];
        std::thread::sleep(pause);
    }
    pass(rest, to)
}
