//! What goes wrong: with a network, with a server's process, with replication, with who is the primary.

use super::dice::Dice;
use super::network::{Flow, Weather};
use super::stage::{Stage, ask, insist};
use crate::integration::harness::eventually;
use pgyard::demo::{LocalHost, StopMode};
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
    /// The primary's processes are stopped, a replica takes over, and the old primary comes back to life for a while.
    Split,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Fault; 19] = [
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
        Fault::Split,
    ];

    /// Whether commits that were acknowledged without having been flushed are lost with it.
    pub fn loses_what_is_not_flushed(self) -> bool {
        matches!(self, Fault::KillPrimary | Fault::CrashPrimary) || self.changes_primary()
    }

    /// Whether another host is the primary afterwards.
    pub fn changes_primary(self) -> bool {
        matches!(self, Fault::Promote | Fault::Split)
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
                ask(&self.fleet.hosts()[victim], all);
                return format!("{fault:?} on {}", self.fleet.hosts()[victim].name());
            }
            Fault::Promote => return self.promote(),
            Fault::Split => return self.split(lasting),
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
        let old = self.primary;
        self.primary().kill().unwrap();
        for replica in self.replicas() {
            let host = &self.fleet.hosts()[replica];
            eventually("the replica notices that its primary is gone", Duration::from_secs(20), || {
                ask(host, "SELECT count(*) FROM pg_stat_wal_receiver") == "0"
            });
        }
        self.take_over();
        self.follow(old);
        format!("Promote {} after the death of {}", self.primary().name(), self.fleet.hosts()[old].name())
    }

    /// The primary is taken for dead, and is not. What it was asked for it does when it wakes up, on its own timeline.
    fn split(&mut self, lasting: Duration) -> String {
        let old = self.primary;
        self.primary().freeze().unwrap();
        let mut before = Vec::new();
        eventually("the replicas have received what the primary had sent", Duration::from_secs(20), || {
            let now: Vec<u64> = self.replicas().iter().map(|replica| self.received(*replica)).collect();
            std::thread::sleep(Duration::from_millis(100));
            std::mem::replace(&mut before, now.clone()) == now
        });
        self.take_over();
        self.fleet.hosts()[old].thaw().unwrap();
        std::thread::sleep(lasting);
        self.follow(old);
        let (new, old) = (self.primary().name(), self.fleet.hosts()[old].name());
        format!("Split: {new} promoted, {old} alive beside it for {lasting:?}")
    }

    fn received(&self, replica: usize) -> u64 {
        ask(&self.fleet.hosts()[replica], "SELECT pg_last_wal_receive_lsn() - '0/0'").parse().unwrap()
    }

    /// The replica that has most is promoted, and the other follows: one that had more than its new primary could not.
    fn take_over(&mut self) {
        let (replicas, hosts) = (self.replicas(), self.fleet.hosts());
        let new = *replicas.iter().max_by_key(|replica| self.received(**replica)).unwrap();
        hosts[new].promote().unwrap();
        for replica in replicas.into_iter().filter(|replica| *replica != new) {
            self.fleet.follow(&hosts[replica], &hosts[new], false).unwrap();
        }
        self.primary = new;
    }

    /// Makes the old primary a replica, from a new copy.
    fn follow(&self, old: usize) {
        self.fleet.follow(&self.fleet.hosts()[old], self.primary(), true).unwrap();
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
