//! Lag: a replica that falls behind loses its reads in time, and gets them back in time; an idle fleet has none.

use super::harness::proxy::host_of;
use super::harness::{Pgyard, eventually, own_fleet};
use pgyard::demo::LocalHost;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const MAX_LAG: Duration = Duration::from_secs(1);
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// What two busy cores may add to any measured time.
const SLACK: Duration = Duration::from_millis(400);

fn lag_of(yard: &Pgyard, host: &LocalHost) -> Option<f64> {
    yard.metric("pgyard_replica_lag_seconds", &[("host", &format!("127.0.0.1:{}", host.port()))])
}

#[test]
fn a_lagging_replica_leaves_and_comes_back() {
    let fleet = own_fleet(2);
    fleet.primary().sql("SET ROLE app; CREATE TABLE ticks (n int)").unwrap();
    let yard = Pgyard::start(&fleet, &[]);
    let (stop, lagging) = (AtomicBool::new(false), &fleet.replicas()[0]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = yard.client();
            while !stop.load(Ordering::Relaxed) {
                writer.column("INSERT INTO ticks VALUES (1)").unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let mut reader = yard.client();
        lagging.pause_replay().unwrap();
        let paused = Instant::now();
        let mut last_seen = paused;
        while paused.elapsed() < Duration::from_secs(4) {
            if host_of(&mut reader) == lagging.name() {
                last_seen = Instant::now();
            }
        }
        let served_for = last_seen - paused;
        assert!(served_for <= MAX_LAG + 3 * PROBE_INTERVAL + SLACK, "still read after {served_for:?}");
        let lag = lag_of(&yard, lagging).expect("the lag is a metric");
        assert!(lag > 2.0, "{lag} s after 4 s of pause");
        std::thread::sleep(Duration::from_millis(500));
        let later = lag_of(&yard, lagging).unwrap();
        assert!(later > lag, "it grows: {lag}, then {later}");
        let (_, metrics) = yard.get("/metrics").unwrap();
        assert!(metrics.contains("lag_time"), "the reason is a label");

        lagging.resume_replay().unwrap();
        let resumed = Instant::now();
        eventually("the replica serves again", Duration::from_secs(5), || host_of(&mut reader) == lagging.name());
        assert!(resumed.elapsed() <= Duration::from_secs(1) + SLACK, "back after {:?}", resumed.elapsed());
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn an_idle_fleet_has_no_lag_even_after_a_wal_switch() {
    let fleet = own_fleet(1);
    let yard = Pgyard::start(&fleet, &[]);
    let replica = &fleet.replicas()[0];
    eventually("no lag", Duration::from_secs(5), || lag_of(&yard, replica) == Some(0.0));
    fleet.primary().sql("SELECT pg_switch_wal()").unwrap();
    // The server writes a snapshot of running transactions after 15 s at most; a lag that grows shows well before.
    let mut reader = yard.client();
    let begin = Instant::now();
    let mut worst = 0.0_f64;
    while begin.elapsed() < Duration::from_secs(20) {
        worst = worst.max(lag_of(&yard, replica).unwrap());
        assert_eq!(host_of(&mut reader), replica.name());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(worst < 0.5, "{worst} s of lag on an idle fleet");
}
