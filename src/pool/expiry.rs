//! Ends waits that last too long. One task for all who wait at a pool, while anybody does: a timer for each wait would cost more
//! than the wait. It also looks whether the pool may have more connections by now.

use super::Pool;
use std::sync::Weak;
use std::time::Duration;

/// Of the longest wait: how much later than it a wait may end.
const GRAIN: u32 = 20;
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Looks after those who wait until nobody does.
pub(super) async fn expire_waiters(pool: Weak<Pool>) {
    loop {
        let Some(limit) = pool.upgrade().map(|pool| pool.longest_wait()) else { return };
        tokio::time::sleep((limit / GRAIN).clamp(PAUSE_MIN, PAUSE_MAX)).await;
        let Some(pool) = pool.upgrade() else { return };
        if !pool.end_long_waits(limit) {
            return;
        }
        // A connection of their own was to come sooner.
        pool.give_up_kept();
        pool.connect_for_waiters();
    }
}
