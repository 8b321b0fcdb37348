//! Choosing the host for a unit: what the session's reads must see, and which host shows it.

use super::attach::Attempt;
use super::state::{Freshness, SessionState};
use crate::cluster::{Balancer, CommitMode, Fleet, HostSet, NoHost, PickRequest, Want, pick};
use crate::config::{Consistency, ReadsOnPrimary};
use crate::database::{Database, LastWrite};
use crate::metrics::QueryReason;
use crate::route::Target;
use crate::sql::TableSet;
use crate::types::Floor;

/// What a read may be given.
enum Sight {
    /// The primary only: the session's last write has no known position yet.
    PrimaryOnly,
    /// No host yet: the session asks for a timeline that this process has not seen.
    Nobody,
    /// A replica that shows this.
    AtLeast(Option<Floor>),
    /// This replica, which the session has read from.
    Only(usize),
}

/// The floor that covers both; of two timelines the newer one does.
fn later(a: Floor, b: Floor) -> Floor {
    if (a.timeline, a.lsn) >= (b.timeline, b.lsn) { a } else { b }
}

/// One choice.
pub struct Choice<'a> {
    /// The session's database.
    pub database: &'a Database,
    /// What the session has written and read.
    pub state: &'a mut SessionState,
    /// For `ip_hash`.
    pub client_hash: u64,
    /// Whether the primary serves reads.
    pub reads_on_primary: ReadsOnPrimary,
}

impl Choice<'_> {
    /// The host for the unit, by its index in the fleet, and the reason.
    ///
    /// # Errors
    /// Why there is none.
    pub fn choose(&mut self, (fleet, balancer): (&Fleet, &Balancer), attempt: &Attempt) -> Result<(usize, QueryReason), NoHost> {
        let excluded = if attempt.failed.is_empty() { HostSet::NONE } else { excluded(fleet, &attempt.failed) };
        let (want, floor) = match attempt.need.target {
            Target::Primary => (Want::Primary, None),
            Target::Replica => match self.sight(fleet, &attempt.reads) {
                Sight::AtLeast(floor) => (Want::Read, floor),
                Sight::Only(index) if !excluded.contains(index) => return Ok((index, attempt.need.reason)),
                Sight::PrimaryOnly | Sight::Only(_) => (Want::Primary, None),
                Sight::Nobody => return Err(NoHost::BehindFloor),
            },
        };
        let (reads_on_primary, client_hash) = (self.reads_on_primary, self.client_hash);
        let max_lag = self.state.asked.as_ref().and_then(|asked| asked.max_lag);
        let crowded = attempt.crowded.and_then(|id| fleet.index_of(id));
        let request = PickRequest { want, floor: floor.as_ref(), max_lag, excluded, reads_on_primary, client_hash, crowded };
        let index = pick(fleet, balancer, &request)?;
        let reason = if attempt.need.target == Target::Primary || fleet.primary != Some(index) {
            attempt.need.reason
        } else if !attempt.failed.is_empty() {
            QueryReason::Retry
        } else if reads_on_primary == ReadsOnPrimary::Always {
            QueryReason::Rotation
        } else if want == Want::Primary || !fleet.eligible.is_empty() {
            QueryReason::Freshness
        } else {
            QueryReason::NoReplica
        };
        Ok((index, reason))
    }

    /// Whether a read of these tables may be served by this host.
    pub fn is_shown_by(&mut self, host_id: u32, fleet: &Fleet, reads: &TableSet) -> bool {
        let sample = fleet.index_of(host_id).and_then(|index| fleet.hosts[index].sample);
        match self.sight(fleet, reads) {
            Sight::AtLeast(None) => true,
            Sight::AtLeast(Some(floor)) => {
                sample.zip(fleet.era.as_ref()).is_some_and(|(sample, era)| era.shows(sample.lsn, &floor))
            }
            Sight::PrimaryOnly | Sight::Nobody | Sight::Only(_) => false,
        }
    }

    /// What a read of this session must see.
    fn sight(&mut self, fleet: &Fleet, reads: &TableSet) -> Sight {
        let sight = self.own_sight(fleet, reads);
        let Some((timeline, lsn)) = self.state.asked.as_ref().and_then(|asked| asked.min_lsn) else { return sight };
        let Some(era) = fleet.era else { return Sight::PrimaryOnly };
        if timeline > era.timeline {
            return Sight::Nobody;
        }
        let asked = Floor { system: era.system, timeline, lsn };
        match sight {
            Sight::AtLeast(own) => Sight::AtLeast(Some(own.map_or(asked, |own| later(own, asked)))),
            Sight::Only(index) if fleet.hosts[index].sample.is_some_and(|sample| era.shows(sample.lsn, &asked)) => sight,
            _ => Sight::PrimaryOnly,
        }
    }

    fn own_sight(&mut self, fleet: &Fleet, reads: &TableSet) -> Sight {
        if self.state.consistency == Consistency::Eventual {
            return Sight::AtLeast(None);
        }
        let everybody = match self.state.consistency {
            Consistency::Global => match self.database.writes.last(reads) {
                LastWrite::UnderWay => return Sight::PrimaryOnly,
                LastWrite::Acknowledged(ticket) => match self.position(ticket) {
                    Some(floor) => Some(floor),
                    None => return Sight::PrimaryOnly,
                },
                LastWrite::None => None,
            },
            _ => None,
        };
        if let Freshness::Pending(ticket) = self.state.freshness {
            match self.position(ticket) {
                Some(floor) => self.state.freshness = Freshness::Floor(floor),
                None => return Sight::PrimaryOnly,
            }
        }
        if self.state.consistency == Consistency::Monotonic
            && let Some(stays) = self.after_last_read(fleet)
        {
            return stays;
        }
        match (self.state.freshness, everybody) {
            (Freshness::Floor(own), Some(everybody)) => Sight::AtLeast(Some(later(own, everybody))),
            (Freshness::Floor(own), None) => Sight::AtLeast(Some(own)),
            (_, everybody) => Sight::AtLeast(everybody),
        }
    }

    fn position(&self, ticket: crate::cluster::Ticket) -> Option<Floor> {
        self.database.upstream().cluster.sampler().floor_for(ticket, CommitMode::MaybeAsynchronous)
    }

    /// Raises the floor by what the last read may have shown; until that is known the session stays on its replica.
    #[inline(never)]
    fn after_last_read(&mut self, fleet: &Fleet) -> Option<Sight> {
        let (host_id, at) = self.state.last_read?;
        let index = fleet.index_of(host_id);
        let sample = index.and_then(|index| fleet.hosts[index].sample).filter(|sample| sample.asked > at);
        if let (Some(sample), Some(era)) = (sample, fleet.era) {
            let seen = Floor { system: era.system, timeline: era.timeline, lsn: sample.lsn };
            let floor = match self.state.freshness {
                Freshness::Floor(own) => later(own, seen),
                _ => seen,
            };
            self.state.freshness = Freshness::Floor(floor);
            self.state.last_read = None;
            return None;
        }
        // Gone or not eligible any more: only the primary surely shows as much.
        Some(index.filter(|index| fleet.eligible.contains(index)).map_or(Sight::PrimaryOnly, Sight::Only))
    }
}

#[cold]
fn excluded(fleet: &Fleet, failed: &[u32]) -> HostSet {
    let failed = |index: &usize| failed.contains(&fleet.hosts[*index].host.id);
    (0..fleet.hosts.len()).filter(failed).fold(HostSet::NONE, HostSet::with)
}
