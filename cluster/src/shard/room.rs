//! How many series a shard may still register: its share of `--cluster.max-series`.
//!
//! A limit of the leader's, asked before a command is made: nothing that is replicated. Commands under
//! way count, so that two of them do not take the same room.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::Labels;
use model::sink::Reason;
use tsdb::Shard;

use super::proposer::Windows;
use crate::refusal::Refusal;

/// What is left for one shard.
pub struct Room {
    engine: Arc<Shard>,
    windows: Arc<dyn Windows>,
    shards: u64,
    /// Series of commands that are not applied yet.
    under_way: AtomicU64,
}

impl Room {
    /// `shards` is how many the cluster has.
    pub fn new(engine: Arc<Shard>, windows: Arc<dyn Windows>, shards: usize) -> Self {
        Self {
            engine,
            windows,
            shards: shards.max(1) as u64,
            under_way: AtomicU64::new(0),
        }
    }

    /// How many series may be registered now.
    pub fn left(&self) -> usize {
        let share = match self.windows.series_max() {
            0 => return usize::MAX,
            all => all.div_ceil(self.shards),
        };
        let there = self.engine.series_count() as u64;
        let under_way = self.under_way.load(Ordering::Relaxed);
        usize::try_from(share.saturating_sub(there + under_way)).unwrap_or(usize::MAX)
    }

    pub fn begin(&self, series: u64) {
        self.under_way.fetch_add(series, Ordering::Relaxed);
    }

    pub fn end(&self, series: u64) {
        self.under_way.fetch_sub(series, Ordering::Relaxed);
    }

    /// Whether all of `series`, each given once, are registered or may be.
    pub fn holds(&self, series: &[Labels]) -> Result<(), Refusal> {
        let left = self.left();
        let known = self.engine.resolve_all(series);
        let new = series.iter().zip(known).filter(|(_, id)| id.is_none());
        match new.map(|(labels, _)| labels).nth(left) {
            None => Ok(()),
            Some(labels) => Err(full(labels)),
        }
    }
}

/// There is no room for a series: words for whoever pushed it.
pub fn full(labels: &Labels) -> Refusal {
    let limit = Reason::SeriesLimit.as_str();
    Refusal::Overloaded(format!("{limit}: {labels}"))
}
