//! One task per host that asks, every `probe_interval`, what the host is and how far it has come.
//!
//! It keeps one connection of its own rather than borrowing from a pool: a sample must not wait for somebody else's query, its
//! round trip is the host's and not the pool's, and the end of this connection is itself news, known at once, not at the next tick.

use super::circuit::Circuit;
use super::control::{ControlConnection, ControlTarget, describe_error};
use super::fleet::FleetEvent;
use super::snapshot::{Sample, ServerDefaults, WalReceiver};
use crate::config::HealthSettings;
use crate::types::{SystemId, Timeline};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep_until, timeout};
use tokio_postgres::{Row, Statement};

/// What the control role may see; the same for the whole life of a connection.
const RIGHTS: &str = "select pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE'), \
     pg_catalog.has_function_privilege('pg_catalog.pg_control_checkpoint()', 'EXECUTE')";

const SYSTEM: &str = "select system_identifier from pg_catalog.pg_control_system()";

/// The control file's timeline, where the role may read it.
const CONTROL_TIMELINE: &str = "(select timeline_id from pg_catalog.pg_control_checkpoint())";

/// `pg_is_in_recovery()` is asked once: a promotion in the middle must not mix two roles in one row. A primary's timeline comes
/// from a file name, since its control file lags a promotion by seconds.
fn position_query(control_timeline: &str) -> String {
    format!(
        "select s.standby, \
         (case when s.standby then pg_catalog.pg_last_wal_replay_lsn() else pg_catalog.pg_current_wal_flush_lsn() end)::text, \
         case when s.standby then null else pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) end, \
         r.pid is not null, r.received_tli, {control_timeline}, \
         (extract(epoch from pg_catalog.pg_postmaster_start_time()) * 1000000)::int8 - 946684800000000, \
         (extract(epoch from pg_catalog.pg_conf_load_time()) * 1000000)::int8 - 946684800000000 \
         from (select pg_catalog.pg_is_in_recovery() as standby offset 0) s \
         left join pg_catalog.pg_stat_wal_receiver r on s.standby"
    )
}

/// What ALTER ROLE ... SET and ALTER DATABASE ... SET have left, as one number.
const ROLE_SETTINGS: &str = "select (coalesce(pg_catalog.sum(pg_catalog.hashtextextended(s::text, 0)), 0) \
     % 4611686018427387904)::int8 from pg_catalog.pg_db_role_setting s";

/// That is asked for this often at most: there may be thousands of rows.
const ROLE_SETTINGS_INTERVAL: Duration = Duration::from_secs(1);

/// Somebody who locks a catalogue must not make the host look slow.
const LOCKS_ARE_NOT_WAITED_FOR: &str = "SET lock_timeout = '100ms'";

/// How somebody else asks for a probe now.
#[derive(Debug, Default)]
pub struct ProbeBell {
    rung: Notify,
    suspected: AtomicBool,
    refused: AtomicBool,
    moved: AtomicBool,
}

impl ProbeBell {
    /// Probe now, over the connection at hand.
    pub fn ring(&self) {
        self.rung.notify_one();
    }

    /// Probe now, over a new connection: somebody's connection broke.
    pub fn suspect(&self) {
        self.suspected.store(true, Ordering::Release);
        self.rung.notify_one();
    }

    /// Somebody could not connect. Probe over a new connection: the old one may work although nobody can connect any more.
    pub fn refuse(&self) {
        self.refused.store(true, Ordering::Release);
        self.rung.notify_one();
    }

    /// The host's name leads elsewhere. Probe over a new connection, even if the one at hand is new.
    pub fn lead_elsewhere(&self) {
        self.moved.store(true, Ordering::Release);
        self.rung.notify_one();
    }

    fn clear(&self) {
        self.moved.store(false, Ordering::Release);
        self.suspected.store(false, Ordering::Release);
        self.refused.store(false, Ordering::Release);
    }
}

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Nothing within `probe_timeout`.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// Refused, reset, not let in, or an error as the answer.
    #[error("{}", describe_error(.0))]
    Server(#[from] tokio_postgres::Error),
    /// An answer that makes no sense.
    #[error("an answer that cannot be a PostgreSQL server's: {0}")]
    Nonsense(&'static str),
}

/// Everything that one probe task needs.
pub struct Probe {
    /// The host's id.
    pub host_id: u32,
    /// Its name, for the log.
    pub name: String,
    /// The control role, for the log.
    pub role: String,
    /// How to get there.
    pub target: ControlTarget,
    /// Interval, time-out, back-off.
    pub health: HealthSettings,
    /// Where samples go.
    pub events: mpsc::Sender<FleetEvent>,
    /// When its cluster began to be probed: the probes of all its hosts fall together.
    pub began: Instant,
    /// Who may ask for a probe out of turn.
    pub bell: std::sync::Arc<ProbeBell>,
    /// Where the circuit shows how it stands.
    pub sign: std::sync::Arc<super::circuit::CircuitSign>,
}

/// Why a connection was given up without its probe having failed.
enum Parting {
    /// It ended by itself.
    Ended,
    /// Someone's connection broke.
    Suspected,
    /// Someone could not connect.
    Refused,
    /// The fleet is not listening any more.
    Stopped,
}

impl Probe {
    /// Probes until the fleet stops listening. Ends at any await if dropped; nothing has to be cleaned up.
    pub async fn run(self) {
        let mut circuit = Circuit::new(self.health.backoff_min, self.health.backoff_max).shown_by(self.sign.clone());
        let mut warned = false;
        loop {
            if circuit.may_try(Instant::now()) {
                let opened = Instant::now();
                match self.connected(&mut circuit, &mut warned).await {
                    Ok(Parting::Stopped) => return,
                    Ok(Parting::Suspected) => {}
                    Ok(Parting::Refused) => {
                        circuit.suspect(Instant::now(), rand::random());
                    }
                    // Connect again at once: the probe's backend alone may have been ended. But not in a tight circle.
                    Ok(Parting::Ended) if opened.elapsed() > self.health.probe_interval => {}
                    Ok(Parting::Ended) => {
                        circuit.fail(Instant::now(), rand::random());
                    }
                    Err(error) => {
                        tracing::debug!(host = %self.name, %error, "probe failed");
                        circuit.fail(Instant::now(), rand::random());
                        let failed = FleetEvent::Failed { host_id: self.host_id, at: Instant::now(), error: error.to_string() };
                        if self.events.send(failed).await.is_err() {
                            return;
                        }
                    }
                }
            }
            if let super::circuit::CircuitPhase::Open { until } = circuit.phase() {
                sleep_until(until.into()).await;
            }
        }
    }

    /// One connection's life.
    async fn connected(&self, circuit: &mut Circuit, warned: &mut bool) -> Result<Parting, ProbeError> {
        self.bell.clear();
        let opened = Instant::now();
        let mut line = self.limited(ProbeLine::open(&self.target)).await?;
        if !std::mem::replace(warned, true) {
            line.warn_about_rights(&self.name, &self.role);
        }
        loop {
            let asked = Instant::now();
            let sample = match self.limited(line.ask(asked)).await {
                Ok(sample) => sample,
                // A backend that an administrator ended answers so; whether the host lives is for a new connection to say.
                Err(ProbeError::Server(error))
                    if error.is_closed() || error.code().is_some_and(|code| code.code() == "57P01") =>
                {
                    return self.part(FleetEvent::Lost { host_id: self.host_id }, Parting::Ended).await;
                }
                Err(error) => return Err(error),
            };
            circuit.succeed(Instant::now());
            let hidden = sample.receiver == WalReceiver::Hidden;
            if hidden && !std::mem::replace(&mut line.hidden_is_known, true) {
                tracing::warn!(host = %self.name, "the control role may not see the timeline a replica receives; run: GRANT pg_monitor TO {}", self.role);
            }
            let sampled = FleetEvent::Sampled { host_id: self.host_id, sample, latency: asked.elapsed() };
            if self.events.send(sampled).await.is_err() {
                return Ok(Parting::Stopped);
            }
            tokio::select! {
                () = sleep_until(next_beat(self.began, asked, self.health.probe_interval).into()) => {}
                () = self.bell.rung.notified() => {
                    if self.bell.refused.load(Ordering::Acquire) {
                        return Ok(Parting::Refused);
                    }
                    if self.bell.moved.swap(false, Ordering::AcqRel) {
                        return Ok(Parting::Suspected);
                    }
                    // Broken connections can come in hundreds; one new connection an interval answers for all of them.
                    if self.bell.suspected.swap(false, Ordering::AcqRel) && opened.elapsed() >= self.health.probe_interval {
                        return Ok(Parting::Suspected);
                    }
                }
                () = line.connection.ended() => {
                    return self.part(FleetEvent::Lost { host_id: self.host_id }, Parting::Ended).await;
                }
            }
        }
    }

    async fn part(&self, event: FleetEvent, parting: Parting) -> Result<Parting, ProbeError> {
        Ok(if self.events.send(event).await.is_ok() { parting } else { Parting::Stopped })
    }

    async fn limited<T>(&self, work: impl Future<Output = Result<T, ProbeError>>) -> Result<T, ProbeError> {
        let limit = self.health.probe_timeout;
        timeout(limit, work).await.unwrap_or(Err(ProbeError::Timeout(limit)))
    }
}

/// When to ask again after `asked`: at the beat that is nearest to one `interval` later. Beats are counted from `began`, so that
/// the hosts of a cluster are asked at the same time, and one wake-up of the thread does for all of them.
fn next_beat(began: Instant, asked: Instant, interval: Duration) -> Instant {
    let interval = interval.max(Duration::from_millis(1));
    let since_beat = (asked.saturating_duration_since(began) + interval / 2).as_nanos() % interval.as_nanos();
    asked + interval / 2 + interval - Duration::from_nanos(u64::try_from(since_beat).unwrap_or(0))
}

/// A connection that is ready to be asked for positions.
struct ProbeLine {
    connection: ControlConnection,
    position: Statement,
    role_settings: Option<Statement>,
    /// What it said last, and when it was asked.
    known_settings: Option<(Instant, i64)>,
    system: SystemId,
    lacks: Vec<&'static str>,
    hidden_is_known: bool,
}

impl ProbeLine {
    async fn open(target: &ControlTarget) -> Result<ProbeLine, ProbeError> {
        let connection = target.connect().await?;
        let rights = connection.client.query_one(RIGHTS, &[]).await?;
        let (may_system, may_checkpoint): (bool, bool) = (rights.try_get(0)?, rights.try_get(1)?);
        let mut system = SystemId(0);
        if may_system {
            let identifier: i64 = connection.client.query_one(SYSTEM, &[]).await?.try_get(0)?;
            system = SystemId(identifier.cast_unsigned());
        }
        let timeline = if may_checkpoint { CONTROL_TIMELINE } else { "null::int4" };
        let position = connection.client.prepare(&position_query(timeline)).await?;
        let functions = [(may_system, "pg_control_system()"), (may_checkpoint, "pg_control_checkpoint()")];
        let lacks = functions.into_iter().filter(|(may, _)| !may).map(|(_, function)| function).collect();
        let role_settings = connection.client.prepare(ROLE_SETTINGS).await.ok();
        connection.client.batch_execute(LOCKS_ARE_NOT_WAITED_FOR).await?;
        Ok(ProbeLine { connection, position, role_settings, known_settings: None, system, lacks, hidden_is_known: false })
    }

    async fn ask(&mut self, asked: Instant) -> Result<Sample, ProbeError> {
        let row = self.connection.client.query_one(&self.position, &[]).await?;
        let mut sample = read_sample(&row, asked, self.system)?;
        sample.defaults.of_roles = self.role_settings(asked).await?;
        Ok(sample)
    }

    async fn role_settings(&mut self, now: Instant) -> Result<i64, ProbeError> {
        match (self.known_settings, &self.role_settings) {
            (_, None) => Ok(0),
            (Some((asked, known)), _) if now.saturating_duration_since(asked) < ROLE_SETTINGS_INTERVAL => Ok(known),
            (before, Some(statement)) => {
                let known = match self.connection.client.query_one(statement, &[]).await {
                    Ok(row) => row.try_get(0)?,
                    // It has no bearing on the host's health: what was known holds on.
                    Err(error) if error.as_db_error().is_some() => before.map_or(0, |(_, known)| known),
                    Err(error) => return Err(error.into()),
                };
                self.known_settings = Some((now, known));
                Ok(known)
            }
        }
    }

    fn warn_about_rights(&self, host: &str, role: &str) {
        for function in &self.lacks {
            tracing::warn!(
                host,
                "the control role may not call {function}; run: GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {role}"
            );
        }
    }
}

fn read_sample(row: &Row, asked: Instant, system: SystemId) -> Result<Sample, ProbeError> {
    let in_recovery: bool = row.try_get(0)?;
    let lsn: Option<&str> = row.try_get(1)?;
    let file: Option<&str> = row.try_get(2)?;
    let has_receiver: bool = row.try_get(3)?;
    let received: Option<i32> = row.try_get(4)?;
    let control: Option<i32> = row.try_get(5)?;
    // A replica that has replayed nothing since its start has no position yet.
    let lsn = lsn.unwrap_or("0/0").parse().map_err(|_| ProbeError::Nonsense("a position that is none"))?;
    let receiver = match received {
        _ if in_recovery && !has_receiver => WalReceiver::None,
        // 0 while it is starting.
        Some(timeline) if timeline > 0 => WalReceiver::Streaming(Timeline(timeline.cast_unsigned())),
        Some(_) => WalReceiver::None,
        None if in_recovery => WalReceiver::Hidden,
        None => WalReceiver::None,
    };
    let timeline = match (file, receiver) {
        (Some(file), _) => walfile_timeline(file).ok_or(ProbeError::Nonsense("a log file name that is none"))?,
        (None, WalReceiver::Streaming(timeline)) => timeline,
        (None, _) => Timeline(control.unwrap_or(0).cast_unsigned()),
    };
    let defaults = ServerDefaults { loaded_us: row.try_get(7)?, of_roles: 0 };
    Ok(Sample { asked, in_recovery, system, timeline, receiver, lsn, started_us: row.try_get(6)?, defaults })
}

/// The timeline in the name of a log file: its first eight hexadecimal digits.
///
/// Spec: PostgreSQL source, `XLogFileName`.
pub fn walfile_timeline(name: &str) -> Option<Timeline> {
    let digits = name.get(..8).filter(|_| name.len() == 24)?;
    u32::from_str_radix(digits, 16).ok().map(Timeline)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_of_a_cluster_fall_together() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let check = |asked, expect| assert_eq!(next_beat(began, at(asked), Duration::from_millis(100)), at(expect), "{asked}");
        check(0, 100);
        check(1, 100);
        check(49, 100);
        check(50, 200);
        check(99, 200);
        check(100, 200);
        check(1_000_149, 1_000_200);
        check(1_000_150, 1_000_300);
        assert!(next_beat(began, at(7), Duration::ZERO) > at(7));
    }

    #[test]
    fn reads_timelines_from_file_names() {
        let check = |name, expect: Option<u32>| assert_eq!(walfile_timeline(name), expect.map(Timeline), "{name}");
        check("000000010000000000000003", Some(1));
        check("0000001A0000000000000003", Some(26));
        check("00000001000000000000000", None);
        check("zz0000010000000000000003", None);
        check("", None);
    }
}
