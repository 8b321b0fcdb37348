//! Lag: a replica that falls behind loses its reads in time, and gets them back in time; an idle fleet has none.

use super::harness::proxy::host_of;
use super::harness::{Pgyard, eventually, own_fleet, promised};
use pgyard::demo::LocalHost;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);
const MAX_LAG: Duration = Duration::from_secs(1);
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

fn lag_of(yard: &Pgyard, host: &LocalHost) -> Option<f64> {
    yard.metric("pgyard_replica_lag_seconds", &[("host", &format!("127.0.0.1:{}", host.port()))])
}

/// Ends the writer also when something fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_lagging_replica_leaves_and_comes_back() {
    let fleet = own_fleet(2);
    fleet.primary().sql("SET ROLE app; CREATE TABLE ticks (n int)").unwrap();
    let yard = Pgyard::start(&fleet, &[]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = yard.client();
            while !stop.load(Ordering::Relaxed) {
                writer.column("INSERT INTO ticks VALUES (1)").unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let end = End(&stop);
        (0..promised(1, 5)).for_each(|round| pause_and_resume(&yard, &fleet.replicas()[round % 2]));
        drop(end);
    });
}

fn pause_and_resume(yard: &Pgyard, lagging: &LocalHost) {
    let mut reader = yard.client();
    lagging.pause_replay().unwrap();
    let paused = Instant::now();
    let (mut last, mut elsewhere) = (Duration::ZERO, 0);
    eventually("the replica is left", LIMIT, || {
        let begun = paused.elapsed();
        match host_of(&mut reader) == lagging.name() {
            true => (last, elsewhere) = (begun, 0),
            false => elsewhere += 1,
        }
        elsewhere >= 50 && paused.elapsed() > promised(Duration::ZERO, 4 * MAX_LAG)
    });
    assert!(last <= promised(LIMIT, MAX_LAG + 2 * PROBE_INTERVAL), "a read began there {last:?} after it had stalled");
    let lag = lag_of(yard, lagging).expect("the lag is a metric");
    assert!(lag >= MAX_LAG.as_secs_f64(), "{lag} s");
    eventually("its lag grows", LIMIT, || lag_of(yard, lagging).unwrap() > lag + 0.3);
    let (_, metrics) = yard.get("/metrics").unwrap();
    assert!(metrics.contains("lag_time"), "the reason is a label");

    lagging.resume_replay().unwrap();
    let resumed = Instant::now();
    eventually("the replica serves again", LIMIT, || host_of(&mut reader) == lagging.name());
    let back = resumed.elapsed();
    println!("a stalled replica: the last read began there after {last:?}, the first again {back:?} after it went on");
    assert!(back <= promised(LIMIT, Duration::from_secs(1)), "back after {back:?}");
}

#[test]
fn an_idle_fleet_has_no_lag_even_after_a_wal_switch() {
    let fleet = own_fleet(1);
    let yard = Pgyard::start(&fleet, &[]);
    let replica = &fleet.replicas()[0];
    let bytes = || yard.metric("pgyard_replica_lag_bytes", &[("host", &format!("127.0.0.1:{}", replica.port()))]);
    let mut reader = yard.client();
    for _ in 0..3 {
        // The insert position stands in the next segment now, where nothing is until somebody writes. The server does so by itself, a
        // snapshot of the running transactions, within 15 s: that the lag is gone well before shows that it was not measured from there.
        fleet.primary().sql("SELECT pg_logical_emit_message(true, 'switch', 'wal'); SELECT pg_switch_wal()").unwrap();
        eventually("no lag", Duration::from_secs(5), || lag_of(&yard, replica) == Some(0.0) && bytes() == Some(0.0));
        eventually("reads go to it", LIMIT, || host_of(&mut reader) == replica.name());
    }
}
