//! The fleet as a value: an event in, a new snapshot out. No clock of its own, no I/O, no logging.

use super::lag::{LagGate, LagHistory, LagLimits, MeasuredLag};
use super::roles::{Claim, Decision, Incumbent, RoleVerdict, decide};
use super::snapshot::{Fleet, Host, HostView, Role, Sample, Standing, WalReceiver};
use crate::config::HealthSettings;
use crate::types::Timeline;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Something that changes the picture of the fleet.
#[derive(Clone, Debug)]
pub enum FleetEvent {
    /// A probe answered.
    Sampled {
        /// Which host.
        host_id: u32,
        /// The answer.
        sample: Sample,
        /// The round trip.
        latency: Duration,
    },
    /// A probe failed: refused, timed out, or answered nonsense.
    Failed {
        /// Which host.
        host_id: u32,
        /// When it was found out.
        at: Instant,
        /// What was wrong, for the log.
        error: String,
    },
    /// The probe's connection ended; what it said is worth nothing from here.
    Lost {
        /// Which host.
        host_id: u32,
    },
    /// A session could not connect.
    ConnectFailed {
        /// Which host.
        host_id: u32,
        /// When it was reported.
        at: Instant,
    },
    /// DRAIN and its opposite.
    Drained {
        /// Which host.
        host_id: u32,
        /// Taken out, or put back.
        drained: bool,
    },
    /// The configuration has been read again. Hosts that stay keep what is known of them.
    Configured {
        /// All hosts, in order.
        hosts: Vec<Arc<Host>>,
        /// Limits and intervals.
        health: HealthSettings,
    },
    /// Time has passed: samples age.
    Tick,
}

/// Everything that is known of the fleet.
#[derive(Debug)]
pub struct FleetState {
    generation: u64,
    hosts: Vec<HostState>,
    health: HealthSettings,
    history: LagHistory,
    incumbent: Option<Incumbent>,
}

#[derive(Debug)]
struct HostState {
    host: Arc<Host>,
    probed: bool,
    role: Role,
    sample: Option<Sample>,
    latency: Option<Duration>,
    unreachable_since: Option<Instant>,
    drained: bool,
    was_ahead: bool,
    followed: Option<Timeline>,
    lag: MeasuredLag,
    gate: LagGate,
    lag_standing: Standing,
}

impl FleetState {
    /// A fleet of which nothing is known yet but its configuration.
    pub fn new(hosts: Vec<Arc<Host>>, health: HealthSettings) -> Self {
        let hosts = hosts.into_iter().map(HostState::new).collect();
        FleetState { generation: 0, hosts, health, history: LagHistory::default(), incumbent: None }
    }

    /// Takes one event at `now`.
    pub fn apply(&mut self, event: FleetEvent, now: Instant) {
        match event {
            FleetEvent::Sampled { host_id, sample, latency } => self.sampled(host_id, sample, latency, now),
            FleetEvent::Failed { host_id, at, .. } => self.change(host_id, |host| {
                host.probed = true;
                host.sample = None;
                host.unreachable_since = Some(at);
            }),
            FleetEvent::Lost { host_id } => self.change(host_id, |host| host.sample = None),
            FleetEvent::ConnectFailed { host_id, at } => self.change(host_id, |host| {
                // A probe that was asked after the report knows better.
                if host.sample.is_none_or(|sample| sample.asked <= at) {
                    host.unreachable_since = Some(at);
                }
            }),
            FleetEvent::Drained { host_id, drained } => self.change(host_id, |host| host.drained = drained),
            FleetEvent::Configured { hosts, health } => self.configured(hosts, health, now),
            FleetEvent::Tick => {}
        }
    }

    /// The picture at `now`.
    pub fn snapshot(&mut self, now: Instant) -> Fleet {
        self.generation += 1;
        let decision = self.decide(now);
        let views: Box<[HostView]> =
            self.hosts.iter().zip(&decision.verdicts).map(|(host, verdict)| self.view(host, *verdict, now)).collect();
        let in_use = |index: &usize| views[*index].standing == Standing::Eligible;
        let primary = decision.primary.filter(in_use);
        let eligible =
            (0..views.len()).filter(|index| decision.verdicts[*index] == RoleVerdict::Replica).filter(in_use).collect();
        let era = self.incumbent.map(|incumbent| incumbent.era);
        Fleet { generation: self.generation, hosts: views, primary, eligible, era }
    }

    fn change(&mut self, host_id: u32, edit: impl FnOnce(&mut HostState)) {
        if let Some(host) = self.hosts.iter_mut().find(|host| host.host.id == host_id) {
            edit(host);
        }
    }

    fn sampled(&mut self, host_id: u32, sample: Sample, latency: Duration, now: Instant) {
        let Some(index) = self.hosts.iter().position(|host| host.host.id == host_id) else { return };
        self.hosts[index].take(sample, latency);
        let decision = self.decide(now);
        if decision.primary == Some(index) {
            self.primary_sampled(&sample);
        } else if decision.verdicts[index] == RoleVerdict::Replica {
            // A primary streams only to a server whose own log is a part of its history.
            let streams = matches!(sample.receiver, WalReceiver::Streaming(_));
            self.hosts[index].was_ahead &= !streams;
            // Without a primary, lag stays what it was when that was last seen.
            let as_of = if decision.primary.is_some() { now } else { self.history.newest_asked().unwrap_or(now) };
            self.measure(index, as_of);
        }
    }

    /// The primary's position: history for the lag of all, and the proof of who was ahead of it.
    fn primary_sampled(&mut self, sample: &Sample) {
        self.history.record(sample.lsn, sample.asked);
        for host in &mut self.hosts {
            if let Some(other) = host.sample.filter(|other| other.in_recovery) {
                // Only a position that was answered before the primary was asked can prove anything.
                let before = other.asked + host.latency.unwrap_or_default() <= sample.asked;
                let streams_along = other.receiver == WalReceiver::Streaming(sample.timeline);
                host.was_ahead |= before && other.lsn > sample.lsn && !streams_along;
            }
        }
    }

    /// Judges a replica's lag by its newest sample.
    fn measure(&mut self, index: usize, as_of: Instant) {
        let limits = LagLimits { time: self.health.max_lag, bytes: self.health.max_lag_bytes };
        let host = &mut self.hosts[index];
        if let Some(sample) = host.sample.filter(|sample| sample.in_recovery) {
            host.lag = self.history.behind(sample.lsn, as_of);
            host.lag_standing = host.gate.judge(host.lag, limits);
        }
    }

    fn configured(&mut self, hosts: Vec<Arc<Host>>, health: HealthSettings, now: Instant) {
        let mut old = std::mem::take(&mut self.hosts);
        for host in hosts {
            let known = old.iter().position(|state| state.host.id == host.id);
            let state = match known {
                Some(index) => HostState { host, ..old.swap_remove(index) },
                None => HostState::new(host),
            };
            self.hosts.push(state);
        }
        self.health = health;
        // A reload is the operator's word: if nothing that answers belongs to the cluster known so far, it is forgotten.
        let decision = self.decide(now);
        let ours = |verdict: &RoleVerdict| matches!(verdict, RoleVerdict::Primary | RoleVerdict::Replica);
        let answering = decision.verdicts.iter().any(|verdict| *verdict != RoleVerdict::Absent);
        if answering && !decision.verdicts.iter().any(ours) {
            self.incumbent = None;
            self.history = LagHistory::default();
            self.hosts.iter_mut().for_each(HostState::forget_history);
        }
    }

    /// Verdicts at `now`; a change of reign is remembered.
    fn decide(&mut self, now: Instant) -> Decision {
        let max_age = max_sample_age(self.health.probe_interval);
        let claims: Vec<Claim> = self.hosts.iter().map(|host| host.claim(now, max_age)).collect();
        let decision = decide(&claims, self.incumbent);
        if decision.incumbent != self.incumbent {
            self.succeed(&decision, now);
        }
        decision
    }

    fn succeed(&mut self, decision: &Decision, now: Instant) {
        let before = self.incumbent.map(|incumbent| incumbent.era);
        self.incumbent = decision.incumbent;
        let sample = decision.primary.and_then(|index| self.hosts[index].sample);
        if let (Some(sample), Some(after)) = (sample, decision.incumbent)
            && before.map(|era| era.timeline) != Some(after.era.timeline)
        {
            self.history.fork(sample.lsn, sample.asked.min(now));
            // Measured against another history: nothing of it holds.
            for index in 0..self.hosts.len() {
                let host = &mut self.hosts[index];
                (host.lag, host.gate, host.lag_standing) = (MeasuredLag::Unknown, LagGate::default(), Standing::LagUnknown);
                self.measure(index, now);
            }
        }
    }

    fn is_starting(&self) -> bool {
        self.incumbent.is_none() && self.hosts.iter().any(|host| !host.probed)
    }

    fn view(&self, host: &HostState, verdict: RoleVerdict, now: Instant) -> HostView {
        let sample = host.recent(now, max_sample_age(self.health.probe_interval));
        let standing = match verdict {
            _ if host.drained => Standing::Drained,
            _ if !host.probed => Standing::NotProbed,
            _ if host.unreachable_since.is_some() => Standing::Unreachable,
            RoleVerdict::Absent => Standing::StaleSample,
            // Who is right can't be said before all have been asked: a stranger may have answered first.
            RoleVerdict::Fenced | RoleVerdict::WrongSystem if self.is_starting() => Standing::NotProbed,
            RoleVerdict::Fenced => Standing::Fenced,
            RoleVerdict::WrongSystem => Standing::WrongSystem,
            RoleVerdict::WrongTimeline => Standing::WrongTimeline,
            RoleVerdict::WrongRole => Standing::WrongRole,
            RoleVerdict::Primary => Standing::Eligible,
            RoleVerdict::Replica if self.incumbent.is_none() => Standing::LagUnknown,
            RoleVerdict::Replica => host.lag_standing,
        };
        let is_primary = verdict == RoleVerdict::Primary;
        let (lag, lag_bytes) = if is_primary { (Some(Duration::ZERO), Some(0)) } else { (host.lag.time(), host.lag.bytes()) };
        HostView { host: host.host.clone(), role: host.role, standing, sample, lag_bytes, lag, probe_latency: host.latency }
    }
}

/// A sample older than three intervals, and than 1 s, is no sample.
fn max_sample_age(probe_interval: Duration) -> Duration {
    (probe_interval * 3).max(Duration::from_secs(1))
}

impl HostState {
    fn new(host: Arc<Host>) -> Self {
        HostState {
            host,
            probed: false,
            role: Role::Unknown,
            sample: None,
            latency: None,
            unreachable_since: None,
            drained: false,
            was_ahead: false,
            followed: None,
            lag: MeasuredLag::Unknown,
            gate: LagGate::default(),
            lag_standing: Standing::LagUnknown,
        }
    }

    fn take(&mut self, sample: Sample, latency: Duration) {
        self.probed = true;
        self.latency = Some(latency);
        self.role = if sample.in_recovery { Role::Replica } else { Role::Primary };
        if let WalReceiver::Streaming(timeline) = sample.receiver {
            self.followed = Some(timeline);
        }
        if self.unreachable_since.is_some_and(|since| sample.asked > since) {
            self.unreachable_since = None;
        }
        self.sample = Some(sample);
    }

    fn forget_history(&mut self) {
        *self = HostState {
            probed: self.probed,
            role: self.role,
            sample: self.sample,
            latency: self.latency,
            unreachable_since: self.unreachable_since,
            drained: self.drained,
            ..HostState::new(self.host.clone())
        };
    }

    fn recent(&self, now: Instant, max_age: Duration) -> Option<Sample> {
        self.sample.filter(|sample| now.saturating_duration_since(sample.asked) <= max_age)
    }

    fn claim(&self, now: Instant, max_age: Duration) -> Claim {
        // Who cannot be reached cannot claim, whatever its probe's connection still says.
        let sample = self.recent(now, max_age).filter(|_| self.unreachable_since.is_none());
        Claim {
            host_id: self.host.id,
            configured: self.host.settings.role,
            probed: self.probed,
            sample,
            was_ahead: self.was_ahead,
            followed: self.followed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fixtures;
    use crate::types::{Lsn, SystemId};

    /// A fleet under a simulated clock: time passes only by `wait`.
    struct Yard {
        state: FleetState,
        now: Instant,
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn hosts(names: &[&str]) -> Vec<Arc<Host>> {
        (1..).zip(names).map(|(id, name)| Arc::new(Host::new(id, fixtures::host_settings(name)))).collect()
    }

    impl Yard {
        fn new(names: &[&str]) -> Yard {
            Yard { state: FleetState::new(hosts(names), fixtures::health()), now: Instant::now() }
        }

        fn wait(&mut self, time: Duration) -> &mut Self {
            self.now += time;
            self
        }

        fn event(&mut self, event: FleetEvent) -> &mut Self {
            self.state.apply(event, self.now);
            self
        }

        fn sample(&mut self, host_id: u32, sample: Sample) -> &mut Self {
            let sample = Sample { asked: self.now, ..sample };
            self.event(FleetEvent::Sampled { host_id, sample, latency: Duration::ZERO })
        }

        fn primary(&mut self, host_id: u32, timeline: u32, lsn: u64) -> &mut Self {
            self.sample(host_id, said(false, timeline, lsn, WalReceiver::None))
        }

        fn replica(&mut self, host_id: u32, timeline: u32, lsn: u64) -> &mut Self {
            self.sample(host_id, said(true, timeline, lsn, WalReceiver::Streaming(Timeline(timeline))))
        }

        fn silent(&mut self, host_id: u32, timeline: u32, lsn: u64) -> &mut Self {
            self.sample(host_id, said(true, timeline, lsn, WalReceiver::None))
        }

        fn fail(&mut self, host_id: u32) -> &mut Self {
            let at = self.now;
            self.event(FleetEvent::Failed { host_id, at, error: String::new() })
        }

        fn check(&mut self, what: &str, primary: Option<usize>, expect: &[Standing]) -> Fleet {
            let fleet = self.state.snapshot(self.now);
            let standings: Vec<Standing> = fleet.hosts.iter().map(|view| view.standing).collect();
            assert_eq!((fleet.primary, &standings[..]), (primary, expect), "{what}");
            for index in fleet.eligible.iter() {
                assert_eq!(standings[*index], Standing::Eligible, "{what}");
                assert_ne!(fleet.primary, Some(*index), "{what}");
            }
            fleet
        }

        /// A primary on timeline 1 at 1000 and two replicas that have it all.
        fn settled() -> Yard {
            let mut yard = Yard::new(&["a", "b", "c"]);
            yard.primary(1, 1, 1000).replica(2, 1, 1000).replica(3, 1, 1000);
            yard
        }
    }

    fn said(in_recovery: bool, timeline: u32, lsn: u64, receiver: WalReceiver) -> Sample {
        Sample { timeline: Timeline(timeline), receiver, ..fixtures::sample(in_recovery, lsn) }
    }

    use Standing::*;

    #[test]
    fn nothing_is_used_before_every_host_has_been_asked() {
        let mut yard = Yard::new(&["a", "b", "c"]);
        yard.check("at first", None, &[NotProbed, NotProbed, NotProbed]);
        yard.primary(1, 1, 1000).replica(2, 1, 1000);
        yard.check("one is missing", None, &[NotProbed, LagUnknown, NotProbed]);
        let fleet = yard.fail(3).check("it is dead", Some(0), &[Eligible, Eligible, Unreachable]);
        assert_eq!(&fleet.eligible[..], &[1]);
        assert_eq!(fleet.era.map(|era| (era.timeline, era.first_lsn)), Some((Timeline(1), Lsn(1000))));
    }

    #[test]
    fn nobody_is_called_a_stranger_before_every_host_has_been_asked() {
        let stranger = Sample { system: SystemId(8), ..said(false, 1, 10, WalReceiver::None) };
        let mut yard = Yard::new(&["a", "stranger", "c"]);
        yard.sample(2, stranger).check("it answers first", None, &[NotProbed; 3]);
        yard.primary(1, 1, 1000).check("a tie", None, &[NotProbed; 3]);
        yard.replica(3, 1, 1000).check("two against one", Some(0), &[Eligible, WrongSystem, Eligible]);
    }

    #[test]
    fn a_replica_counts_from_when_it_has_passed_what_the_primary_first_showed() {
        let mut yard = Yard::new(&["a", "b"]);
        yard.replica(2, 1, 900).primary(1, 1, 1000).check("maybe hours behind", Some(0), &[Eligible, LagUnknown]);
        yard.wait(ms(100)).replica(2, 1, 990).check("still before", Some(0), &[Eligible, LagUnknown]);
        yard.wait(ms(100)).replica(2, 1, 1000).check("there", Some(0), &[Eligible, Eligible]);
    }

    #[test]
    fn a_paused_replica_leaves_and_returns() {
        let mut yard = Yard::settled();
        let mut left = None;
        for tick in 1..=30u64 {
            yard.wait(ms(100)).primary(1, 1, 1000 + tick).replica(2, 1, 1000 + tick).replica(3, 1, 1000);
            let fleet = yard.state.snapshot(yard.now);
            assert_eq!(fleet.hosts[2].lag, Some(ms(tick * 100 - 100)));
            assert_eq!(fleet.hosts[2].lag_bytes, Some(tick));
            if fleet.hosts[2].standing == LagTime && left.is_none() {
                left = Some(tick);
            }
        }
        assert_eq!(left, Some(12), "over 1 s at the sample 1.1 s after the primary had moved on");
        yard.wait(ms(100)).replica(3, 1, 1021).check("900 ms behind", Some(0), &[Eligible, Eligible, LagTime]);
        yard.wait(ms(100)).replica(3, 1, 1030).check("has it all", Some(0), &[Eligible, Eligible, Eligible]);
    }

    #[test]
    fn an_idle_hour_and_one_write_eject_nobody() {
        let mut yard = Yard::settled();
        for _ in 0..36_000 {
            yard.wait(ms(100)).primary(1, 1, 1000).replica(2, 1, 1000).replica(3, 1, 1000);
        }
        yard.check("idle", Some(0), &[Eligible, Eligible, Eligible]);
        yard.wait(ms(100)).primary(1, 1, 1100).replica(2, 1, 1000).replica(3, 1, 1000);
        yard.check("written", Some(0), &[Eligible, Eligible, Eligible]);
        let fleet = yard.wait(ms(500)).primary(1, 1, 1100).replica(2, 1, 1000).check("half a second", Some(0), &[Eligible; 3]);
        assert_eq!(fleet.hosts[1].lag, Some(ms(500)));
    }

    #[test]
    fn samples_age_die_and_come_back() {
        let mut yard = Yard::settled();
        yard.wait(ms(900)).primary(1, 1, 1000).replica(2, 1, 1000);
        yard.check("900 ms", Some(0), &[Eligible, Eligible, Eligible]);
        yard.wait(ms(101)).check("1001 ms", Some(0), &[Eligible, Eligible, StaleSample]);
        yard.event(FleetEvent::Lost { host_id: 2 }).check("lost", Some(0), &[Eligible, StaleSample, StaleSample]);
        yard.fail(2).check("refused", Some(0), &[Eligible, Unreachable, StaleSample]);
        yard.wait(ms(1)).replica(2, 1, 1000).check("back", Some(0), &[Eligible, Eligible, StaleSample]);
        yard.wait(ms(1001)).check("all stale", None, &[StaleSample; 3]);
    }

    #[test]
    fn a_reported_connect_failure_counts_until_a_later_probe() {
        let mut yard = Yard::settled();
        let at = yard.now + ms(5);
        yard.wait(ms(5)).event(FleetEvent::ConnectFailed { host_id: 2, at });
        yard.check("reported", Some(0), &[Eligible, Unreachable, Eligible]);
        let early = Sample { asked: at - ms(1), ..said(true, 1, 1000, WalReceiver::Streaming(Timeline(1))) };
        yard.event(FleetEvent::Sampled { host_id: 2, sample: early, latency: ms(3) });
        yard.check("asked before the report", Some(0), &[Eligible, Unreachable, Eligible]);
        yard.wait(ms(10)).replica(2, 1, 1000).check("asked after it", Some(0), &[Eligible; 3]);
        yard.event(FleetEvent::ConnectFailed { host_id: 2, at }).check("a late report", Some(0), &[Eligible; 3]);
        yard.event(FleetEvent::ConnectFailed { host_id: 99, at }).check("an unknown host", Some(0), &[Eligible; 3]);
    }

    #[test]
    fn without_a_primary_replicas_serve_on() {
        let mut yard = Yard::settled();
        yard.wait(ms(100)).primary(1, 1, 1500).replica(2, 1, 1500).replica(3, 1, 1400).fail(1);
        for _ in 0..600 {
            yard.wait(ms(100)).silent(2, 1, 1500).silent(3, 1, 1400);
        }
        let fleet = yard.check("a minute later", None, &[Unreachable, Eligible, Eligible]);
        assert_eq!(fleet.hosts[2].lag, Some(Duration::ZERO), "frozen at the primary's last word");
        assert_eq!(fleet.era.map(|era| era.timeline), Some(Timeline(1)));
        yard.wait(ms(100)).primary(1, 1, 1600).silent(2, 1, 1500).silent(3, 1, 1400);
        yard.check("the primary restarted: what c lacks is a minute old", Some(0), &[Eligible, Eligible, LagTime]);
        yard.wait(ms(100)).silent(3, 1, 1600).check("it caught up", Some(0), &[Eligible; 3]);
    }

    #[test]
    fn fail_over_fences_the_old_primary_and_the_dead_timeline() {
        let mut yard = Yard::settled();
        yard.wait(ms(100)).primary(1, 1, 2000).replica(2, 1, 1800).replica(3, 1, 2000).fail(1);
        yard.wait(ms(100)).primary(2, 2, 1850).silent(3, 1, 2000);
        let fleet = yard.check("promoted", Some(1), &[Unreachable, Eligible, WrongTimeline]);
        assert_eq!(fleet.era.map(|era| (era.timeline, era.first_lsn)), Some((Timeline(2), Lsn(1850))));
        // The new primary overtakes the position at which the dead timeline ended: still wrong.
        yard.wait(ms(100)).primary(2, 2, 9000).silent(3, 1, 2000).check(
            "overtaken",
            Some(1),
            &[Unreachable, Eligible, WrongTimeline],
        );
        // Even if its control file should come to name the new timeline, it was ahead.
        yard.wait(ms(100)).silent(3, 2, 2000).check("was ahead", Some(1), &[Unreachable, Eligible, WrongTimeline]);
        yard.wait(ms(100)).primary(1, 1, 2100).check("old one returns", Some(1), &[Fenced, Eligible, WrongTimeline]);
        // Rewound and attached.
        yard.wait(ms(100)).primary(2, 2, 9000).replica(3, 2, 9000).replica(1, 2, 9000);
        yard.check("rejoined", Some(1), &[Eligible; 3]);
        yard.wait(ms(100)).silent(3, 1, 9000).check("its receiver stops for a moment", Some(1), &[Eligible; 3]);
    }

    #[test]
    fn split_brain_on_equal_timelines_stays_with_the_incumbent_or_nobody() {
        let mut yard = Yard::settled();
        yard.fail(1).primary(2, 2, 1100).check("first promotion", Some(1), &[Unreachable, Eligible, WrongTimeline]);
        yard.primary(3, 2, 1200).check("second promotion", Some(1), &[Unreachable, Eligible, Fenced]);
        yard.primary(3, 3, 1200).check("a higher timeline", Some(2), &[Unreachable, Fenced, Eligible]);
        let mut both = Yard::new(&["a", "b"]);
        both.primary(1, 2, 1000).primary(2, 2, 1000).check("nobody", None, &[Fenced, Fenced]);
    }

    #[test]
    fn switch_wal_on_an_idle_primary_costs_nothing() {
        // The flush LSN jumps to the next segment and the replicas follow; nothing stays behind.
        let mut yard = Yard::settled();
        yard.wait(ms(100)).primary(1, 1, 0x0200_0000).replica(2, 1, 1000).replica(3, 1, 0x0200_0000);
        yard.wait(ms(100)).replica(2, 1, 0x0200_0000);
        for _ in 0..600 {
            yard.wait(ms(100)).primary(1, 1, 0x0200_0000).replica(2, 1, 0x0200_0000).replica(3, 1, 0x0200_0000);
        }
        let fleet = yard.check("a minute", Some(0), &[Eligible; 3]);
        assert!(fleet.hosts.iter().all(|view| view.lag == Some(Duration::ZERO)));
    }

    #[test]
    fn drained_hosts_serve_nothing_until_put_back() {
        let mut yard = Yard::settled();
        yard.event(FleetEvent::Drained { host_id: 2, drained: true }).check("replica", Some(0), &[Eligible, Drained, Eligible]);
        yard.event(FleetEvent::Drained { host_id: 1, drained: true }).check("primary", None, &[Drained, Drained, Eligible]);
        yard.event(FleetEvent::Drained { host_id: 1, drained: false });
        yard.event(FleetEvent::Drained { host_id: 2, drained: false }).check("back", Some(0), &[Eligible; 3]);
    }

    #[test]
    fn a_reload_keeps_what_is_known_of_the_hosts_that_stay() {
        let mut yard = Yard::settled();
        let mut new = hosts(&["a", "b", "c", "d"]);
        new.remove(1);
        new.rotate_right(1);
        let health = fixtures::health();
        yard.event(FleetEvent::Configured { hosts: new, health });
        let fleet = yard.check("d, a, c", Some(1), &[NotProbed, Eligible, Eligible]);
        assert_eq!(fleet.hosts.iter().map(|view| view.host.id).collect::<Vec<_>>(), [4, 1, 3]);
        yard.event(FleetEvent::Lost { host_id: 2 }).check(
            "an event of a removed host",
            Some(1),
            &[NotProbed, Eligible, Eligible],
        );
    }

    #[test]
    fn a_reload_forgets_a_cluster_of_which_nothing_is_left() {
        let mut yard = Yard::settled();
        for (host_id, in_recovery) in [(1, false), (2, true), (3, true)] {
            let receiver = if in_recovery { WalReceiver::Streaming(Timeline(1)) } else { WalReceiver::None };
            yard.sample(host_id, Sample { system: SystemId(8), ..said(in_recovery, 1, 10, receiver) });
        }
        yard.check("made anew behind our back", None, &[WrongSystem; 3]);
        let health = fixtures::health();
        yard.event(FleetEvent::Configured { hosts: hosts(&["a", "b", "c"]), health });
        yard.primary_again().check("after the reload", Some(0), &[Eligible; 3]);
    }

    impl Yard {
        fn primary_again(&mut self) -> &mut Self {
            self.sample(1, Sample { system: SystemId(8), ..said(false, 1, 10, WalReceiver::None) })
        }
    }
}
