//! Whether a new server connection leads to the very server that the host's probe knows: behind a name several may stand, and what is
//! known of one's position says nothing of another's.

use super::handle::Cluster;
use super::keeper::HostReport;
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
        let health = self.settings().health.clone();
        let begun = Instant::now();
        self.report(host_id, HostReport::Broken);
        let looked_anew = async {
            let mut generation = 0;
            while let Some(newer) = self.wait_for_change(generation).await {
                generation = newer;
                match sample() {
                    Some(sample) if sample.started_us == started_us => return true,
                    // One that was under way when the probe was told means nothing yet.
                    Some(sample) if sample.asked > begun + health.probe_interval * 2 => return false,
                    _ => {}
                }
            }
            false
        };
        tokio::time::timeout(health.probe_timeout + health.probe_interval * 2, looked_anew).await.unwrap_or(false)
    }
}
