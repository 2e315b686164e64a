//! Snapshots on their way to followers, so that the log they continue in is not purged meanwhile.
//!
//! openraft does not hold purging back while a snapshot travels: a follower would finish, find the
//! log behind it gone, and need another one, for ever under load.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::GroupId;
use model::port::Clock;

/// After a transfer, for the follower to catch up from the log.
const GRACE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Transfer {
    group: GroupId,
    index: u64,
    /// `None` while it runs.
    ended: Option<Duration>,
}

/// All transfers this node has under way or has just ended.
pub struct Transfers {
    clock: Arc<dyn Clock>,
    by_number: Mutex<(u64, BTreeMap<u64, Transfer>)>,
}

/// One running transfer; dropping it ends it.
pub struct Running {
    transfers: Arc<Transfers>,
    number: u64,
}

impl Transfers {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            by_number: Mutex::default(),
        }
    }

    /// Notes that a snapshot of `group` at `index` is being sent.
    pub fn begin(self: &Arc<Self>, group: GroupId, index: u64) -> Running {
        let mut guard = self.by_number.lock().expect("not poisoned");
        let (next, by_number) = &mut *guard;
        *next += 1;
        by_number.insert(
            *next,
            Transfer {
                group,
                index,
                ended: None,
            },
        );
        Running {
            transfers: self.clone(),
            number: *next,
        }
    }

    /// Entries behind this index must stay, if any must.
    pub fn floor(&self, group: GroupId) -> Option<u64> {
        let now = self.clock.monotonic();
        let mut guard = self.by_number.lock().expect("not poisoned");
        let by_number = &mut guard.1;
        by_number.retain(|_, transfer| transfer.ended.is_none_or(|ended| now < ended + GRACE));
        by_number
            .values()
            .filter(|t| t.group == group)
            .map(|t| t.index)
            .min()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let now = self.transfers.clock.monotonic();
        let mut guard = self.transfers.by_number.lock().expect("not poisoned");
        if let Some(transfer) = guard.1.get_mut(&self.number) {
            transfer.ended = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use sim_world::SimClock;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_floor_is_the_oldest_transfer_and_outlives_it_for_a_while() {
        let transfers = Arc::new(Transfers::new(Arc::new(SimClock::new())));
        let group = GroupId(1);
        assert_eq!(transfers.floor(group), None);
        let first = transfers.begin(group, 10);
        let _second = transfers.begin(group, 20);
        let _other = transfers.begin(GroupId(2), 1);
        assert_eq!(transfers.floor(group), Some(10));
        drop(first);
        assert_eq!(
            transfers.floor(group),
            Some(10),
            "the follower still catches up"
        );
        tokio::time::advance(GRACE).await;
        assert_eq!(
            transfers.floor(group),
            Some(20),
            "a running one holds for ever"
        );
    }
}
