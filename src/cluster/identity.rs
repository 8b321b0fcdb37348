//! Whether a new server connection leads to the very server that the host's probe knows: behind a name several may stand, and what is
//! known of one's position says nothing of another's.

use super::handle::Cluster;
use super::keeper::HostReport;
use super::snapshot::{HostView, Standing};
use std::time::Instant;

impl Cluster {
    /// Whether the server that was started at this moment is the one that the host's probe knows. If it is not, the probe first looks
    /// over a new connection: the host may have been restarted just now.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn knows_server(&self, host_id: u32, started_us: i64) -> bool {
        let sample = || {
            let fleet = self.fleet();
            fleet.index_of(host_id).and_then(|index| fleet.hosts[index].sample)
        };
        if sample().is_some_and(|sample| sample.started_us == started_us) {
            return true;
        }
        let two_intervals = self.settings().health.probe_interval * 2;
        let begun = Instant::now();
        let verdict = |view: &HostView| match view.sample {
            Some(sample) if sample.started_us == started_us => Some(true),
            // One that was under way when the probe was told means nothing yet.
            Some(sample) if sample.asked > begun + two_intervals => Some(false),
            _ => None,
        };
        self.look_anew(host_id, verdict).await
    }

    /// Whether the server goes on that has just ended a session of ours, which began when that server was started at `started_us`. Then
    /// somebody meant this one session. `takes_sessions` asks the server itself; where it does not tell when it was started, that has to do.
    ///
    /// That it takes sessions is not enough: it may have been restarted in between, by which nobody was meant.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn goes_on(&self, host_id: u32, started_us: Option<i64>, takes_sessions: impl Future<Output = bool>) -> bool {
        let takes_sessions = tokio::select! {
            takes_sessions = takes_sessions => takes_sessions,
            () = self.leaves(host_id) => false,
        };
        let Some(started_us) = started_us.filter(|_| takes_sessions) else { return takes_sessions };
        let begun = Instant::now();
        let verdict = |view: &HostView| match view.sample {
            _ if view.standing == Standing::Unreachable => Some(false),
            Some(sample) if sample.asked >= begun => Some(sample.started_us == started_us),
            _ => None,
        };
        self.look_anew(host_id, verdict).await
    }

    /// Has the host probed, until the verdict is clear. False also when that takes longer than a probe may, or there is no such host.
    async fn look_anew(&self, host_id: u32, verdict: impl Fn(&HostView) -> Option<bool>) -> bool {
        let health = self.settings().health.clone();
        self.report(host_id, HostReport::Broken);
        let looked_anew = async {
            let mut generation = 0;
            while let Some(newer) = self.wait_for_change(generation).await {
                generation = newer;
                let fleet = self.fleet();
                let Some(index) = fleet.index_of(host_id) else { return false };
                if let Some(verdict) = verdict(&fleet.hosts[index]) {
                    return verdict;
                }
            }
            false
        };
        tokio::time::timeout(health.probe_timeout + health.probe_interval * 2, looked_anew).await.unwrap_or(false)
    }

    /// Until the host can't be reached, or is no host of the cluster any more.
    async fn leaves(&self, host_id: u32) {
        let mut generation = 0;
        while let Some(newer) = self.wait_for_change(generation).await {
            generation = newer;
            let fleet = self.fleet();
            if fleet.index_of(host_id).is_none_or(|index| fleet.hosts[index].standing == Standing::Unreachable) {
                return;
            }
        }
    }
}
