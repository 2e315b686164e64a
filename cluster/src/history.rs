//! Push groups as history: while a group lives, its samples are repeated as a Prometheus that
//! scrapes a Pushgateway would have stored them. The leader of the group's shard does it.

use std::sync::Arc;
use std::time::Duration;

use model::Batch;
use model::sink::Sink;

use crate::cluster::Shared;
use crate::shard::Replica;

/// Rows of one repeated write.
const ROWS_MAX: usize = 20_000;

/// How late a group may expire.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);
/// Groups of a shard that expire at once; the rest follow.
const EXPIRY_MAX: usize = 1000;

pub struct History {
    shared: Arc<Shared>,
}

impl History {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub async fn run(self) {
        loop {
            tokio::time::sleep(self.shared.options.history_interval).await;
            for replica in self.led() {
                self.repeat(&replica).await;
            }
        }
    }

    /// Lets groups expire whose time to live is over.
    pub async fn expire(self) {
        loop {
            tokio::time::sleep(EXPIRY_INTERVAL).await;
            let now = self.shared.world.clock.now();
            for replica in self.led() {
                let over = replica.engine.expired_groups(now);
                for key in over.into_iter().take(EXPIRY_MAX) {
                    if let Err(e) = self.shared.router.expire(&replica, key).await {
                        tracing::warn!(error = %e, "a push group did not expire yet");
                    }
                }
            }
        }
    }

    fn led(&self) -> Vec<Arc<Replica>> {
        let replicas = self.shared.replicas.read().expect("not poisoned");
        let led = replicas.values().filter(|replica| replica.leads());
        led.cloned().collect()
    }

    async fn repeat(&self, replica: &Replica) {
        // Taken before the groups are read: a group that is deleted meanwhile ends later than
        // what is written here.
        let at = self.shared.world.clock.now();
        let Ok(groups) = replica.groups().await else {
            return;
        };
        let mut batch = Batch::default();
        for (labels, value) in groups
            .iter()
            .filter(|g| g.push_time < at)
            .flat_map(|g| g.series())
        {
            batch.add_value(labels, at, value);
            if batch.rows.len() >= ROWS_MAX {
                self.write(std::mem::take(&mut batch)).await;
            }
        }
        if !batch.is_empty() {
            self.write(batch).await;
        }
    }

    async fn write(&self, batch: Batch) {
        if let Err(e) = self.shared.router.write(batch).await {
            tracing::warn!(error = %e, "push groups were not repeated into history");
        }
    }
}
