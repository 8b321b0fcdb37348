//! Who is the primary, and whom to refuse. Pure: claims of all hosts and the incumbent in, verdicts out.
//!
//! Rules, in the order in which they are applied:
//! 1. Nobody is made the first primary before every host has been asked once: whoever answers first would win a split brain.
//! 2. A host with another system identifier is refused.
//! 3. A host whose configured role is not what it says it is, is refused.
//! 4. Of several that claim to be primary the highest timeline wins, and nothing under the incumbent's is accepted: a returning
//!    old primary is fenced. On equal timelines the incumbent stays; without it both are refused.
//! 5. A replica counts while it receives the primary's timeline, or, not streaming, is known to be on it and was never ahead of
//!    the primary: one that passed the fork point of a dead timeline looks up to date for ever.

use super::snapshot::{Era, Sample, WalReceiver};
use crate::config::RoleSetting;
use crate::types::{SystemId, Timeline};

/// What one host says of itself, with what is remembered of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claim {
    /// The host.
    pub host_id: u32,
    /// The configured role.
    pub configured: RoleSetting,
    /// Whether a probe of it has ended yet, either way.
    pub probed: bool,
    /// Its recent sample; `None` while it is unreachable or stale.
    pub sample: Option<Sample>,
    /// Whether it has shown a position beyond the primary's, and has not streamed the primary's timeline since.
    pub was_ahead: bool,
    /// The newest timeline that it was seen to stream.
    pub followed: Option<Timeline>,
}

/// The last primary, whether or not it is reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incumbent {
    /// The host.
    pub host_id: u32,
    /// Its reign.
    pub era: Era,
    /// Whether another timeline went before in this process's life.
    pub switched: bool,
}

/// What becomes of one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleVerdict {
    /// No sample to judge.
    Absent,
    /// It is the primary.
    Primary,
    /// It is a replica of the primary's history (or no primary is known yet).
    Replica,
    /// It claims to be primary and is not accepted.
    Fenced,
    /// It belongs to another cluster.
    WrongSystem,
    /// Its history is not the primary's.
    WrongTimeline,
    /// It is not what the configuration says.
    WrongRole,
}

/// The verdict on every host.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// One for each claim, in order.
    pub verdicts: Vec<RoleVerdict>,
    /// Index of the primary.
    pub primary: Option<usize>,
    /// The incumbent from now on.
    pub incumbent: Option<Incumbent>,
}

/// Judges all hosts at once.
pub fn decide(claims: &[Claim], incumbent: Option<Incumbent>) -> Decision {
    let system = match incumbent {
        Some(incumbent) => SystemChoice::Known(incumbent.era.system),
        None => choose_system(claims),
    };
    let claimants: Vec<usize> = (0..claims.len()).filter(|index| claims_primacy(&claims[*index], system)).collect();
    let primary = match incumbent {
        Some(incumbent) => successor(claims, &claimants, incumbent),
        None if claims.iter().all(|claim| claim.probed) => sole_highest(claims, &claimants),
        None => None,
    };
    let incumbent = match primary.and_then(|index| claims[index].sample.map(|sample| (claims[index].host_id, sample))) {
        Some((host_id, sample)) => Some(reign(host_id, &sample, incumbent)),
        None => incumbent,
    };
    let verdicts = claims.iter().enumerate();
    let verdicts = verdicts.map(|(index, claim)| verdict(claim, primary == Some(index), system, incumbent)).collect();
    Decision { verdicts, primary, incumbent }
}

/// Which cluster the hosts belong to.
#[derive(Clone, Copy, PartialEq)]
enum SystemChoice {
    /// This one; 0 is not known, and matches any.
    Known(SystemId),
    /// As many hosts say one thing as another.
    Disputed,
}

impl SystemChoice {
    fn admits(self, system: SystemId) -> bool {
        match self {
            SystemChoice::Known(known) => known == system || known.0 == 0 || system.0 == 0,
            SystemChoice::Disputed => system.0 == 0,
        }
    }
}

/// Before the first primary: what most hosts say; in a tie, what a host configured as primary says.
fn choose_system(claims: &[Claim]) -> SystemChoice {
    let systems = || claims.iter().filter_map(|claim| claim.sample.map(|sample| sample.system)).filter(|system| system.0 != 0);
    let votes = |system: SystemId| systems().filter(|other| *other == system).count();
    let Some(most) = systems().map(votes).max() else { return SystemChoice::Known(SystemId(0)) };
    let leads = |system: &SystemId| votes(*system) == most;
    let mut leaders: Vec<SystemId> = systems().filter(leads).collect();
    leaders.sort_unstable();
    leaders.dedup();
    if let [only] = leaders[..] {
        return SystemChoice::Known(only);
    }
    let configured = claims.iter().filter(|claim| claim.configured == RoleSetting::Primary);
    let mut configured = configured.filter_map(|claim| claim.sample.map(|sample| sample.system)).filter(leads);
    match (configured.next(), configured.next()) {
        (Some(system), None) => SystemChoice::Known(system),
        _ => SystemChoice::Disputed,
    }
}

fn claims_primacy(claim: &Claim, system: SystemChoice) -> bool {
    let says_so = claim.sample.is_some_and(|sample| !sample.in_recovery && system.admits(sample.system));
    says_so && claim.configured != RoleSetting::Replica
}

fn timeline(claim: &Claim) -> Timeline {
    claim.sample.map_or(Timeline(0), |sample| sample.timeline)
}

/// The one claimant on the highest timeline; none if two share it.
fn sole_highest(claims: &[Claim], claimants: &[usize]) -> Option<usize> {
    let highest = claimants.iter().map(|index| timeline(&claims[*index])).max()?;
    let mut at_top = claimants.iter().copied().filter(|index| timeline(&claims[*index]) == highest);
    let first = at_top.next();
    if at_top.next().is_some() { None } else { first }
}

/// Who reigns after `incumbent`, which may be that host itself.
fn successor(claims: &[Claim], claimants: &[usize], incumbent: Incumbent) -> Option<usize> {
    let above: Vec<usize> =
        claimants.iter().copied().filter(|index| timeline(&claims[*index]) > incumbent.era.timeline).collect();
    if !above.is_empty() {
        return sole_highest(claims, &above);
    }
    let equal = || claimants.iter().copied().filter(|index| timeline(&claims[*index]) == incumbent.era.timeline);
    if let Some(same) = equal().find(|index| claims[*index].host_id == incumbent.host_id) {
        return Some(same);
    }
    // Another host on the incumbent's own timeline: only if the incumbent certainly is not the primary any more, because it
    // says that it is in recovery, or has been taken out of the configuration.
    let abdicated = match claims.iter().find(|claim| claim.host_id == incumbent.host_id) {
        Some(claim) => claim.sample.is_some_and(|sample| sample.in_recovery),
        None => true,
    };
    let equal: Vec<usize> = equal().collect();
    if abdicated { sole_highest(claims, &equal) } else { None }
}

/// The incumbent after `host_id` has shown `sample` as the primary.
fn reign(host_id: u32, sample: &Sample, before: Option<Incumbent>) -> Incumbent {
    let fresh = Era { system: sample.system, timeline: sample.timeline, first_lsn: sample.lsn };
    match before {
        None => Incumbent { host_id, era: fresh, switched: false },
        Some(before) if before.era.timeline == sample.timeline => Incumbent { host_id, ..before },
        Some(before) => Incumbent { host_id, era: Era { system: before.era.system, ..fresh }, switched: true },
    }
}

fn verdict(claim: &Claim, is_primary: bool, system: SystemChoice, incumbent: Option<Incumbent>) -> RoleVerdict {
    let Some(sample) = claim.sample else { return RoleVerdict::Absent };
    if is_primary {
        return RoleVerdict::Primary;
    }
    if !system.admits(sample.system) {
        return RoleVerdict::WrongSystem;
    }
    match (sample.in_recovery, claim.configured) {
        (true, RoleSetting::Primary) | (false, RoleSetting::Replica) => RoleVerdict::WrongRole,
        (false, _) => RoleVerdict::Fenced,
        (true, _) if incumbent.is_none_or(|incumbent| shares_history(claim, &sample, incumbent)) => RoleVerdict::Replica,
        (true, _) => RoleVerdict::WrongTimeline,
    }
}

fn shares_history(claim: &Claim, sample: &Sample, incumbent: Incumbent) -> bool {
    let current = incumbent.era.timeline;
    match sample.receiver {
        WalReceiver::Streaming(timeline) => timeline == current,
        WalReceiver::None | WalReceiver::Hidden => {
            let known = sample.timeline == current || claim.followed == Some(current);
            // Where the control role may see no timeline at all, there is only one while nothing has been promoted.
            let only = sample.timeline.0 == 0 && !incumbent.switched;
            !claim.was_ahead && (known || only)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fixtures;
    use crate::types::Lsn;

    struct Row(Claim);

    fn row(host_id: u32, in_recovery: bool, timeline: u32) -> Row {
        let timeline = Timeline(timeline);
        let receiver = if in_recovery { WalReceiver::Streaming(timeline) } else { WalReceiver::None };
        let sample = Sample { in_recovery, timeline, receiver, ..fixtures::sample(in_recovery, 1000) };
        let configured = RoleSetting::Auto;
        Row(Claim { host_id, configured, probed: true, sample: Some(sample), was_ahead: false, followed: None })
    }

    fn primary(host_id: u32, timeline: u32) -> Row {
        row(host_id, false, timeline)
    }

    fn replica(host_id: u32, timeline: u32) -> Row {
        row(host_id, true, timeline)
    }

    impl Row {
        fn gone(mut self) -> Row {
            self.0.sample = None;
            self
        }

        fn not_probed(mut self) -> Row {
            self.0.probed = false;
            self.gone()
        }

        fn system(mut self, system: u64) -> Row {
            self.sample().system = SystemId(system);
            self
        }

        fn receiver(mut self, receiver: WalReceiver) -> Row {
            self.sample().receiver = receiver;
            self
        }

        fn configured(mut self, role: RoleSetting) -> Row {
            self.0.configured = role;
            self
        }

        fn ahead(mut self) -> Row {
            self.0.was_ahead = true;
            self
        }

        fn followed(mut self, timeline: u32) -> Row {
            self.0.followed = Some(Timeline(timeline));
            self
        }

        fn sample(&mut self) -> &mut Sample {
            self.0.sample.as_mut().unwrap()
        }
    }

    fn incumbent(host_id: u32, timeline: u32) -> Option<Incumbent> {
        let era = Era { system: SystemId(7), timeline: Timeline(timeline), first_lsn: Lsn(500) };
        Some(Incumbent { host_id, era, switched: timeline > 1 })
    }

    fn check(name: &str, rows: Vec<Row>, before: Option<Incumbent>, expect: &[RoleVerdict]) -> Decision {
        let claims: Vec<Claim> = rows.into_iter().map(|row| row.0).collect();
        let decision = decide(&claims, before);
        assert_eq!(decision.verdicts, expect, "{name}");
        let primaries = expect.iter().filter(|verdict| **verdict == RoleVerdict::Primary).count();
        assert_eq!(usize::from(decision.primary.is_some()), primaries, "{name}");
        decision
    }

    use RoleSetting as R;
    use RoleVerdict::{Absent, Fenced, Primary, Replica, WrongRole, WrongSystem, WrongTimeline};

    #[test]
    fn the_first_primary_is_found_when_all_have_been_asked() {
        check("plain", vec![primary(1, 1), replica(2, 1)], None, &[Primary, Replica]);
        check("one not asked", vec![primary(1, 1), replica(2, 1).not_probed()], None, &[Fenced, Absent]);
        check("one dead", vec![primary(1, 1), replica(2, 1).gone()], None, &[Primary, Absent]);
        check("higher timeline wins", vec![primary(1, 1), primary(2, 2), replica(3, 2)], None, &[Fenced, Primary, Replica]);
        check("two equal", vec![primary(1, 2), primary(2, 2), replica(3, 2)], None, &[Fenced, Fenced, Replica]);
        check("no primary", vec![replica(1, 1), replica(2, 1)], None, &[Replica, Replica]);
        check("none", vec![], None, &[]);
    }

    #[test]
    fn another_cluster_is_refused() {
        let stranger = || primary(3, 9).system(8);
        check("majority", vec![primary(1, 1), replica(2, 1), stranger()], None, &[Primary, Replica, WrongSystem]);
        check(
            "known",
            vec![primary(1, 1).gone(), stranger(), primary(4, 9).system(8)],
            incumbent(1, 1),
            &[Absent, WrongSystem, WrongSystem],
        );
        check("tie", vec![primary(1, 1), stranger()], None, &[WrongSystem, WrongSystem]);
        check("tie, configured", vec![primary(1, 1).configured(R::Primary), stranger()], None, &[Primary, WrongSystem]);
        check("unreadable identifier", vec![primary(1, 1).system(0), replica(2, 1)], None, &[Primary, Replica]);
        check(
            "replica of another",
            vec![primary(1, 1), replica(2, 1), replica(3, 1).system(8)],
            incumbent(1, 1),
            &[Primary, Replica, WrongSystem],
        );
    }

    #[test]
    fn a_promotion_takes_over_and_the_old_primary_is_fenced() {
        let taken = check(
            "promoted",
            vec![primary(1, 1).gone(), primary(2, 2), replica(3, 1)],
            incumbent(1, 1),
            &[Absent, Primary, WrongTimeline],
        );
        let new = taken.incumbent.unwrap();
        assert_eq!((new.host_id, new.era.timeline, new.era.first_lsn, new.switched), (2, Timeline(2), Lsn(1000), true));
        check("old returns", vec![primary(1, 1), primary(2, 2), replica(3, 2)], taken.incumbent, &[Fenced, Primary, Replica]);
        let held = check(
            "old returns, new gone",
            vec![primary(1, 1), primary(2, 2).gone(), replica(3, 2)],
            taken.incumbent,
            &[Fenced, Absent, Replica],
        );
        assert_eq!(held.incumbent, taken.incumbent);
        check("promoted while the old one lives", vec![primary(1, 1), primary(2, 2)], incumbent(1, 1), &[Fenced, Primary]);
        check(
            "two promotions",
            vec![primary(1, 1).gone(), primary(2, 2), primary(3, 2)],
            incumbent(1, 1),
            &[Absent, Fenced, Fenced],
        );
        check("two promotions, one reigns", vec![primary(2, 2), primary(3, 2)], incumbent(2, 2), &[Primary, Fenced]);
        check("two promotions, the other", vec![primary(2, 2), primary(3, 2)], incumbent(3, 2), &[Fenced, Primary]);
        check("third timeline", vec![primary(2, 2), primary(3, 3)], incumbent(2, 2), &[Fenced, Primary]);
    }

    #[test]
    fn the_same_timeline_passes_only_from_one_that_abdicated() {
        check("unreachable", vec![primary(1, 1).gone(), primary(2, 1)], incumbent(1, 1), &[Absent, Fenced]);
        check("in recovery", vec![replica(1, 1), primary(2, 1)], incumbent(1, 1), &[Replica, Primary]);
        check("removed", vec![primary(2, 1), replica(3, 1)], incumbent(1, 1), &[Primary, Replica]);
        check("removed, two claim", vec![primary(2, 1), primary(3, 1)], incumbent(1, 1), &[Fenced, Fenced]);
        let back = check("restart", vec![primary(1, 1), replica(2, 1)], incumbent(1, 1), &[Primary, Replica]);
        assert_eq!(back.incumbent, incumbent(1, 1), "a restart is no new reign");
    }

    #[test]
    fn configured_roles_are_checked() {
        check("never written", vec![primary(1, 2).configured(R::Replica), replica(2, 2)], None, &[WrongRole, Replica]);
        check("never read", vec![replica(1, 1).configured(R::Primary)], incumbent(9, 1), &[WrongRole]);
        check(
            "as configured",
            vec![primary(1, 1).configured(R::Primary), replica(2, 1).configured(R::Replica)],
            None,
            &[Primary, Replica],
        );
        check(
            "a configured primary has no right to reign",
            vec![primary(1, 1).configured(R::Primary), primary(2, 2)],
            None,
            &[Fenced, Primary],
        );
    }

    #[test]
    fn a_replica_must_share_the_primarys_history() {
        let silent = |timeline| replica(2, timeline).receiver(WalReceiver::None);
        let one = |name: &str, row: Row, reign: u32, expect| {
            check(name, vec![primary(1, reign), row], incumbent(1, reign), &[Primary, expect]);
        };
        one("streams", replica(2, 2), 2, Replica);
        one("streams the old one", replica(2, 1), 2, WrongTimeline);
        one("streams another promotion", replica(2, 3), 2, WrongTimeline);
        one("not streaming, same", silent(1), 1, Replica);
        one("not streaming, old", silent(1), 2, WrongTimeline);
        one("not streaming, followed before", silent(1).followed(2), 2, Replica);
        one("followed an older one", silent(1).followed(1), 2, WrongTimeline);
        one("not streaming, was ahead", silent(2).ahead(), 2, WrongTimeline);
        one("streaming clears it", replica(2, 2).ahead(), 2, Replica);
        one("unknown, nothing switched", silent(0).receiver(WalReceiver::Hidden), 1, Replica);
        one("unknown, switched", silent(0).receiver(WalReceiver::Hidden), 2, WrongTimeline);
        // While there is no primary its timeline still counts.
        check(
            "primary gone",
            vec![primary(1, 2).gone(), replica(2, 2), silent(1)],
            incumbent(1, 2),
            &[Absent, Replica, WrongTimeline],
        );
    }
}
