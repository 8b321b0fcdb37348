//! Clients that read while hosts break: nobody may see an error, and nobody may wait for a host that does not answer.

use super::{Pgyard, eventually, promised};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How many there are.
pub const READERS: usize = 32;
/// What the default of `probe_timeout` is.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The readers, for whoever disturbs them.
#[derive(Debug)]
pub struct Readers {
    counts: Vec<AtomicU64>,
    stop: AtomicBool,
    longest: Mutex<Duration>,
}

impl Readers {
    /// Waits until each of them has begun and ended a read from here on.
    pub fn go_on(&self) {
        let before: Vec<u64> = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        // Their silence limit is 20 s: a read that lasts so long fails by itself.
        eventually("every reader goes on", Duration::from_secs(30), || {
            self.counts.iter().zip(&before).all(|(count, before)| count.load(Ordering::Relaxed) >= before + 2)
        });
    }
}

/// Ends the readers also when something fails.
struct End<'a>(&'a Readers);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// Runs `disturb` while they read; any error fails the test. No read may take longer than `probe_timeout` and a second; in the suite, where
/// the machine may stand still, none that long that it can only have waited for the disturbance to end.
pub fn while_reading(yard: &Pgyard, what: &str, disturb: impl FnOnce(&Readers)) {
    let readers = Readers {
        counts: (0..READERS).map(|_| AtomicU64::new(0)).collect(),
        stop: AtomicBool::new(false),
        longest: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for count in &readers.counts {
            let readers = &readers;
            scope.spawn(move || {
                let _end = End(readers);
                let mut client = yard.client();
                while !readers.stop.load(Ordering::Relaxed) {
                    let begin = Instant::now();
                    let answer = client.column("SELECT count(*) FROM generate_series(1, 2000)");
                    assert_eq!(answer.expect("a read must not fail because of a host"), ["2000"]);
                    let mut longest = readers.longest.lock().unwrap();
                    *longest = (*longest).max(begin.elapsed());
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let end = End(&readers);
        readers.go_on();
        disturb(&readers);
        readers.go_on();
        drop(end);
    });
    let reads: u64 = readers.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    let longest = readers.longest.into_inner().unwrap();
    println!("{what}: no error in {reads} reads, the longest {longest:?}");
    let limit = promised(15 * PROBE_TIMEOUT, PROBE_TIMEOUT + Duration::from_secs(1));
    assert!(longest < limit, "{what}: a read took {longest:?}");
}
