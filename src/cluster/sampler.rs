//! Where the primary's log stood after a write: one query answers every session that waits (group commit, for reads).
//!
//! At most one query in `sampler_interval`, none while nobody waits. It has a connection of its own to the primary: the answer is
//! on the way of reads, and must not queue behind the catalogue. What a host answers counts only if it is the very server that
//! the probe knows as the primary.

use super::control::{ControlConnection, ControlTarget, describe_error};
use super::floors::{CommitMode, FloorAnswer, FloorRing, Ticket};
use super::probe::walfile_timeline;
use super::snapshot::{Era, Fleet, HostView};
use crate::types::{Floor, Lsn, Timeline};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_postgres::Statement;

/// `synchronous_commit` is asked for each time, since a reload of the server may change it.
const POSITIONS: &str = "select s.standby, \
    case when s.standby then '0/0' else pg_catalog.pg_current_wal_flush_lsn()::text end, \
    case when s.standby then '0/0' else pg_catalog.pg_current_wal_insert_lsn()::text end, \
    case when s.standby then '' else pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) end, \
    pg_catalog.current_setting('synchronous_commit') = 'off', \
    (extract(epoch from pg_catalog.current_setting('wal_writer_delay')::pg_catalog.interval) * 1000)::int4, \
    (extract(epoch from pg_catalog.pg_postmaster_start_time()) * 1000000)::int8 - 946684800000000 \
    from (select pg_catalog.pg_is_in_recovery() as standby offset 0) s";

/// Roles, databases and functions that turn `synchronous_commit` off for themselves.
const ASYNCHRONOUS_SETTINGS: &str = "select exists (select from pg_catalog.pg_db_role_setting, \
    pg_catalog.unnest(setconfig) s where s ilike 'synchronous_commit=%off%') \
    or exists (select from pg_catalog.pg_proc, pg_catalog.unnest(proconfig) s where s ilike 'synchronous_commit=%off%')";

/// Floors for everybody who wrote to one cluster's primary.
#[derive(Debug)]
pub struct Sampler {
    /// The number of the last query that has begun.
    started: AtomicU64,
    /// The highest ticket that somebody drew.
    wanted: AtomicU64,
    ring: ArcSwap<FloorRing>,
    wake: Notify,
    /// The number of the newest answer.
    answered: watch::Sender<u64>,
}

impl Default for Sampler {
    fn default() -> Self {
        Sampler {
            started: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            ring: ArcSwap::default(),
            wake: Notify::new(),
            answered: watch::Sender::new(0),
        }
    }
}

impl Sampler {
    /// To be drawn after a write was acknowledged, before the acknowledgement is forwarded. Wakes the sampler.
    pub fn ticket(&self) -> Ticket {
        // Sequentially consistent: a query that this load does not count yet is sent after it.
        let ticket = self.started.load(Ordering::SeqCst) + 1;
        if self.wanted.fetch_max(ticket, Ordering::SeqCst) < ticket {
            self.wake.notify_one();
        }
        Ticket(ticket)
    }

    /// What a read must see that follows the ticket's write; `None` until the primary has answered, which means: read there.
    /// Asked again later, `MaybeAsynchronous` may get a lower floor.
    pub fn floor_for(&self, ticket: Ticket, mode: CommitMode) -> Option<Floor> {
        self.ring.load().floor_for(ticket, mode)
    }

    /// Waits for the floor of a ticket: for reads that may not use the primary. The caller bounds the time.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn wait_for(&self, ticket: Ticket, mode: CommitMode) -> Option<Floor> {
        let mut answered = self.answered.subscribe();
        answered.wait_for(|newest| *newest >= ticket.0).await.ok()?;
        self.floor_for(ticket, mode)
    }

    /// Queries that have begun.
    pub fn queries(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// Takes what the probe saw: it lowers floors that stand on an insert position.
    pub(super) fn observe(&self, fleet: &Fleet) {
        let (Some(era), Some(sample)) = (fleet.era, fleet.primary_view().and_then(|view| view.sample)) else { return };
        if self.ring.load().can_lower(era, sample.asked) {
            self.ring.rcu(|current| {
                let mut next = FloorRing::clone(current);
                next.lower(era, sample.lsn, sample.asked);
                next
            });
        }
    }

    fn has_waiting(&self) -> bool {
        self.wanted.load(Ordering::SeqCst) > self.ring.load().newest()
    }

    /// Begins a query: its number.
    fn begin(&self) -> u64 {
        self.started.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn publish(&self, answer: FloorAnswer) {
        self.ring.rcu(|current| {
            let mut next = FloorRing::clone(current);
            next.add(answer);
            next
        });
        self.answered.send_replace(answer.sequence);
    }
}

/// What the sampler's task needs beside the [`Sampler`] itself.
pub struct SamplerTask {
    /// Where tickets are drawn.
    pub sampler: Arc<Sampler>,
    /// Who is the primary.
    pub fleet: Arc<ArcSwap<Fleet>>,
    /// How to reach it.
    pub target: Box<dyn Fn(&HostView) -> ControlTarget + Send + Sync>,
    /// Changes of the fleet, by generation.
    pub changes: watch::Receiver<u64>,
    /// Shortest time between two queries, read anew for each.
    pub interval: Box<dyn Fn() -> Duration + Send + Sync>,
    /// Longest wait for an answer.
    pub timeout: Duration,
}

/// A sampler's query that brought no floor.
#[derive(Debug, thiserror::Error)]
pub enum SamplerError {
    /// The server said no, or the connection broke.
    #[error("{}", describe_error(.0))]
    Server(#[from] tokio_postgres::Error),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// Somebody answered who is not the primary that the probe knows.
    #[error("not the primary that the probe knows")]
    NotThePrimary,
}

/// The open connection and whose it is.
struct SamplerLine {
    connection: ControlConnection,
    positions: Statement,
    host_id: u32,
    asynchronous_settings: bool,
    settings_read: Instant,
}

/// Roles' and functions' settings are read again after this.
const SETTINGS_AGE_MAX: Duration = Duration::from_secs(10);

impl SamplerTask {
    /// Serves tickets until the fleet is gone.
    pub async fn run(mut self) {
        let mut line: Option<SamplerLine> = None;
        let mut last_start: Option<Instant> = None;
        loop {
            while !self.sampler.has_waiting() {
                self.sampler.wake.notified().await;
            }
            while self.fleet.load().primary.is_none() {
                line = None;
                if self.changes.changed().await.is_err() {
                    return;
                }
            }
            if let Some(last) = last_start {
                sleep_until((last + (self.interval)()).into()).await;
            }
            last_start = Some(Instant::now());
            let limit = self.timeout;
            let outcome = timeout(limit, self.sample(&mut line)).await.unwrap_or(Err(SamplerError::Timeout));
            match outcome {
                Ok(Some(answer)) => self.sampler.publish(answer),
                Ok(None) => line = None,
                Err(error) => {
                    tracing::debug!(%error, "sampler query failed");
                    line = None;
                    // The probe finds out what is wrong; until then there is nothing to hurry for.
                    sleep((self.interval)().max(Duration::from_millis(20))).await;
                }
            }
        }
    }

    /// One query; `None` if there is no primary.
    async fn sample(&self, line: &mut Option<SamplerLine>) -> Result<Option<FloorAnswer>, SamplerError> {
        let sequence = self.sampler.begin();
        // Loaded after the query has got its number: a ticket of a later number cannot belong to a primary that came after.
        let fleet = self.fleet.load_full();
        let (Some(view), Some(era)) = (fleet.primary_view(), fleet.era) else { return Ok(None) };
        if line.as_ref().is_none_or(|line| line.host_id != view.host.id || line.connection.client.is_closed()) {
            *line = Some(SamplerLine::open(&(self.target)(view), view.host.id).await?);
        }
        let Some(line) = line.as_mut() else { return Ok(None) };
        line.refresh_settings().await?;
        view.host.counters.sampler_queries.fetch_add(1, Ordering::Relaxed);
        line.ask(sequence, view, era).await.map(Some)
    }
}

impl SamplerLine {
    async fn open(target: &ControlTarget, host_id: u32) -> Result<SamplerLine, SamplerError> {
        let connection = target.connect().await?;
        let positions = connection.client.prepare(POSITIONS).await?;
        let asynchronous_settings = connection.client.query_one(ASYNCHRONOUS_SETTINGS, &[]).await?.try_get(0)?;
        Ok(SamplerLine { connection, positions, host_id, asynchronous_settings, settings_read: Instant::now() })
    }

    async fn refresh_settings(&mut self) -> Result<(), SamplerError> {
        if self.settings_read.elapsed() > SETTINGS_AGE_MAX {
            self.asynchronous_settings = self.connection.client.query_one(ASYNCHRONOUS_SETTINGS, &[]).await?.try_get(0)?;
            self.settings_read = Instant::now();
        }
        Ok(())
    }

    async fn ask(&self, sequence: u64, view: &HostView, era: Era) -> Result<FloorAnswer, SamplerError> {
        let asked = Instant::now();
        let row = self.connection.client.query_one(&self.positions, &[]).await?;
        let position = |column| -> Result<Lsn, SamplerError> {
            row.try_get::<_, &str>(column)?.parse().map_err(|_| SamplerError::NotThePrimary)
        };
        let timeline = walfile_timeline(row.try_get(3)?).unwrap_or(Timeline(0));
        let same_server = view.sample.is_some_and(|sample| row.try_get(6).is_ok_and(|started: i64| started == sample.started_us));
        if row.try_get::<_, bool>(0)? || timeline != era.timeline || !same_server {
            return Err(SamplerError::NotThePrimary);
        }
        let writer_delay = Duration::from_millis(u64::try_from(row.try_get::<_, i32>(5)?).unwrap_or(0));
        Ok(FloorAnswer {
            sequence,
            asked,
            era,
            flushed: position(1)?,
            inserted: position(2)?,
            lowered: None,
            flush_delay: writer_delay * 3,
            server_may_be_asynchronous: self.asynchronous_settings || row.try_get(4)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SystemId;

    fn answer(sequence: u64, lsn: u64) -> FloorAnswer {
        FloorAnswer {
            sequence,
            asked: Instant::now(),
            era: Era { system: SystemId(7), timeline: Timeline(1), first_lsn: Lsn(1) },
            flushed: Lsn(lsn),
            inserted: Lsn(lsn),
            lowered: None,
            flush_delay: Duration::from_millis(600),
            server_may_be_asynchronous: false,
        }
    }

    #[test]
    fn a_query_under_way_does_not_answer_a_later_ticket() {
        let sampler = Sampler::default();
        assert!(!sampler.has_waiting());
        let before = sampler.ticket();
        assert!(sampler.has_waiting());
        let under_way = sampler.begin();
        let after = sampler.ticket();
        sampler.publish(answer(under_way, 100));
        let lsn = |ticket| sampler.floor_for(ticket, CommitMode::ServerDefault).map(|floor| floor.lsn.0);
        assert_eq!((lsn(before), lsn(after)), (Some(100), None));
        assert!(sampler.has_waiting());
        let next = sampler.begin();
        sampler.publish(answer(next, 200));
        assert_eq!((lsn(before), lsn(after)), (Some(100), Some(200)));
        assert!(!sampler.has_waiting(), "none is asked while nobody waits");
        assert_eq!(sampler.queries(), 2);
    }

    #[test]
    fn a_failed_query_leaves_its_tickets_to_the_next() {
        let sampler = Sampler::default();
        let ticket = sampler.ticket();
        sampler.begin();
        assert!(sampler.has_waiting());
        let second = sampler.begin();
        sampler.publish(answer(second, 300));
        assert_eq!(sampler.floor_for(ticket, CommitMode::ServerDefault).map(|floor| floor.lsn.0), Some(300));
        assert!(!sampler.has_waiting());
    }

    #[tokio::test]
    async fn waiting_ends_with_the_answer() {
        let sampler = Arc::new(Sampler::default());
        let ticket = sampler.ticket();
        let waiter = tokio::spawn({
            let sampler = sampler.clone();
            async move { sampler.wait_for(ticket, CommitMode::ServerDefault).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        let sequence = sampler.begin();
        sampler.publish(answer(sequence, 5));
        assert_eq!(waiter.await.unwrap().map(|floor| floor.lsn), Some(Lsn(5)));
    }
}
