//! What goes wrong: with a network, with a server's process, with replication, with who is the primary.

use super::dice::Dice;
use super::network::{Flow, Weather};
use super::stage::Stage;
use crate::integration::harness::eventually;
use pgyard::demo::{FleetError, LocalHost, StopMode};
use std::time::Duration;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Bytes of a host take their time.
    Slow,
    /// They come in small pieces.
    Drip,
    /// They don't come, and come later.
    BlackHole,
    /// Connections end after some bytes.
    Cut,
    /// Connections end in one direction.
    HalfClose,
    /// Connections end, and no new one is taken.
    Refuse,
    /// A replica's processes are killed.
    KillReplica,
    /// A replica's processes are stopped, and go on later.
    FreezeReplica,
    /// A replica replays nothing.
    PauseReplay,
    /// A replica is shut down in order.
    RestartReplica,
    /// A replica is shut down as after a crash.
    CrashReplica,
    /// Vacuum removes rows that a replica's readers look at.
    Conflict,
    /// An administrator ends all sessions of a host.
    Terminate,
    /// The primary's processes are killed; it comes back.
    KillPrimary,
    /// The primary is shut down in order, and comes back.
    RestartPrimary,
    /// The primary is shut down as after a crash, and comes back.
    CrashPrimary,
    /// The primary's processes are stopped, and go on later.
    FreezePrimary,
    /// The primary is killed, and a replica takes over.
    Promote,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Fault; 18] = [
        Fault::Slow,
        Fault::Drip,
        Fault::BlackHole,
        Fault::Cut,
        Fault::HalfClose,
        Fault::Refuse,
        Fault::KillReplica,
        Fault::FreezeReplica,
        Fault::PauseReplay,
        Fault::RestartReplica,
        Fault::CrashReplica,
        Fault::Conflict,
        Fault::Terminate,
        Fault::KillPrimary,
        Fault::RestartPrimary,
        Fault::CrashPrimary,
        Fault::FreezePrimary,
        Fault::Promote,
    ];

    /// Whether commits that were acknowledged without having been flushed are lost with it.
    pub fn loses_what_is_not_flushed(self) -> bool {
        matches!(self, Fault::KillPrimary | Fault::CrashPrimary | Fault::Promote)
    }
}

/// Any direction of any host.
fn weather(fault: Fault, dice: &mut Dice) -> Weather {
    let flow = match fault {
        Fault::Slow => Flow::Delay(Duration::from_millis(dice.between(5..120))),
        Fault::Drip => Flow::Drip(usize::try_from(dice.between(1..40)).unwrap(), Duration::from_millis(dice.between(1..4))),
        Fault::BlackHole => Flow::Hold,
        Fault::Cut => Flow::CutAfter(*dice.pick(&[0, 1, 4, 30, 200, 1500, 20_000])),
        Fault::HalfClose => Flow::HalfClose,
        Fault::Refuse => return Weather { to_client: Flow::CutAfter(0), refuses: true, ..Weather::default() },
        _ => Flow::Free,
    };
    match dice.between(0..3) {
        0 => Weather { to_server: flow, ..Weather::default() },
        1 => Weather { to_client: flow, ..Weather::default() },
        _ => Weather { to_server: flow, to_client: flow, ..Weather::default() },
    }
}

impl Stage {
    /// Lets a fault happen, last for a while, and end. Answers what was done.
    pub fn strike(&mut self, fault: Fault, dice: &mut Dice, lasting: Duration) -> String {
        let replica = *dice.pick(&self.replicas());
        let victim = if dice.percent(30) { self.primary } else { replica };
        match fault {
            Fault::Slow | Fault::Drip | Fault::BlackHole | Fault::Cut | Fault::HalfClose | Fault::Refuse => {
                let weather = weather(fault, dice);
                self.networks[victim].set(weather);
                std::thread::sleep(lasting);
                self.networks[victim].clear();
                return format!("{fault:?} of {} for {lasting:?}: {weather:?}", self.fleet.hosts()[victim].name());
            }
            Fault::Terminate => {
                let all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
                self.fleet.hosts()[victim].sql(all).unwrap();
                return format!("{fault:?} on {}", self.fleet.hosts()[victim].name());
            }
            Fault::Promote => return self.promote(),
            Fault::KillPrimary | Fault::RestartPrimary | Fault::CrashPrimary | Fault::FreezePrimary => {
                hurt(fault, self.primary(), lasting);
                return format!("{fault:?} {} for {lasting:?}", self.primary().name());
            }
            Fault::Conflict => self.remove_old_rows(lasting),
            _ => hurt(fault, &self.fleet.hosts()[replica], lasting),
        }
        format!("{fault:?} {} for {lasting:?}", self.fleet.hosts()[replica].name())
    }

    fn remove_old_rows(&self, lasting: Duration) {
        let begin = std::time::Instant::now();
        while begin.elapsed() < lasting {
            for table in ["registers", "mirrors", "lists", "register_log"] {
                self.primary().sql(&format!("VACUUM {table}")).unwrap();
            }
        }
    }

    /// The primary dies; the replica that has most takes over, and the others follow it.
    fn promote(&mut self) -> String {
        let (old, replicas) = (self.primary, self.replicas());
        let hosts = self.fleet.hosts();
        hosts[old].kill().unwrap();
        // A replica that still takes in what the primary had sent would be overtaken, and then be ahead of the new one.
        for replica in &replicas {
            eventually("the replica notices that its primary is gone", Duration::from_secs(20), || {
                hosts[*replica].sql("SELECT count(*) FROM pg_stat_wal_receiver").unwrap() == "0"
            });
        }
        let received =
            |replica: &&usize| hosts[**replica].sql("SELECT pg_last_wal_receive_lsn() - '0/0'").unwrap().parse::<u64>().unwrap();
        let new = *replicas.iter().max_by_key(received).unwrap();
        hosts[new].promote().unwrap();
        for host in (0..hosts.len()).filter(|index| *index != new) {
            self.fleet.follow(&hosts[host], &hosts[new], host == old).unwrap();
        }
        self.primary = new;
        format!("Promote {} after the death of {}", self.fleet.hosts()[new].name(), self.fleet.hosts()[old].name())
    }
}

fn hurt(fault: Fault, host: &LocalHost, lasting: Duration) {
    let (begin, end): (&dyn Fn() -> _, &dyn Fn() -> _) = match fault {
        Fault::FreezeReplica | Fault::FreezePrimary => (&|| host.freeze(), &|| host.thaw()),
        Fault::PauseReplay => (&|| host.pause_replay(), &|| host.resume_replay()),
        Fault::RestartReplica | Fault::RestartPrimary => (&|| host.stop(StopMode::Fast), &|| host.start()),
        Fault::CrashReplica | Fault::CrashPrimary => (&|| host.stop(StopMode::Immediate), &|| host.start()),
        _ => (&|| host.kill(), &|| host.start()),
    };
    insist(host, begin);
    std::thread::sleep(lasting);
    insist(host, end);
}

/// On a replica our own statements may be cancelled, as those of others.
fn insist(host: &LocalHost, act: &dyn Fn() -> Result<(), FleetError>) {
    let mut last = None;
    eventually(&format!("{} does as it is told", host.name()), Duration::from_secs(20), || {
        last = act().err();
        let try_again = last.as_ref().is_some_and(|error| error.to_string().contains("conflict with recovery"));
        !try_again
    });
    assert!(last.is_none(), "{last:?}");
}
