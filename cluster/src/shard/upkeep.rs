//! What a replica does for itself from time to time: the leader seals and drops old blocks through
//! the log, each replica checkpoints and purges its own log.

use std::io;
use std::time::Duration;

use model::Timestamp;
use model::port::Clock;
use tsdb::retention::{self, Policy};
use tsdb::{Command, RetainCommand, SealCommand, Stats, sealing};

use super::Replica;
use crate::raft::group;
use crate::raft::types::WatchReceiver;

/// When to write a checkpoint, and how much log to keep behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointPolicy {
    /// Entries applied since the last one.
    pub entries_max: u64,
    /// Age of the last one, if anything was applied since.
    pub age_max: Duration,
    /// Entries left in the log behind a checkpoint, so that a follower that was away for a moment
    /// catches up from the log and not from files.
    pub entries_kept: u64,
}

/// A restart replays at most this much: some thousand entries a shard.
impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self {
            entries_max: 4_096,
            age_max: Duration::from_secs(300),
            entries_kept: 256,
        }
    }
}

/// How long a block is; Prometheus' own choice for its first level.
const BLOCK_MS: i64 = 2 * 3_600_000;

/// What decides about sealing and retention.
#[derive(Debug, Clone, Copy)]
pub struct Ages {
    pub out_of_order_window_ms: i64,
    pub retention: Option<Duration>,
}

/// Remembers what was done last for one replica.
#[derive(Debug, Default)]
pub struct Upkeep {
    checkpointed_at: Duration,
}

/// Whether a checkpoint is due.
fn is_due(applied: u64, durable: u64, age: Duration, policy: &CheckpointPolicy) -> bool {
    let behind = applied.saturating_sub(durable);
    behind >= policy.entries_max || (behind > 0 && age >= policy.age_max)
}

/// The command that keeps the head and the blocks within their ages, if one is needed.
fn tidy(stats: &Stats, replica: &Replica, now: Timestamp, ages: Ages) -> Option<Command> {
    let newest = stats.max_time?;
    let cut = sealing::choose(
        stats.head_range,
        newest,
        BLOCK_MS,
        ages.out_of_order_window_ms,
    );
    if let Some(before) = cut {
        return Some(Command::Seal(SealCommand { before }));
    }
    let retention_ms = ages.retention.map_or(0, |r| r.as_millis() as i64);
    let policy = Policy {
        retention_ms,
        bytes_max: 0,
    };
    let before = retention::choose(&replica.engine.block_ranges(), now, &policy)?;
    Some(Command::Retain(RetainCommand { before }))
}

impl Upkeep {
    /// One round. An error means the replica's disk or log failed.
    pub async fn round(
        &mut self,
        replica: &Replica,
        clock: &dyn Clock,
        policy: &CheckpointPolicy,
        ages: Ages,
    ) -> io::Result<()> {
        if replica.leads() {
            let command = tidy(&replica.engine.stats(), replica, clock.now(), ages);
            if let Some(command) = command {
                // Not committed now: the next round, or the next leader, asks again.
                if let Err(refusal) = group::propose(&replica.raft, command.encode()).await {
                    tracing::debug!(shard = %replica.shard, %refusal, "upkeep not committed");
                }
            }
        }
        let durable = replica
            .engine
            .position()
            .map_or(0, |position| position.index);
        let age = clock.monotonic().saturating_sub(self.checkpointed_at);
        if is_due(replica.engine.applied_index(), durable, age, policy) {
            replica
                .raft
                .trigger()
                .snapshot()
                .await
                .map_err(io::Error::other)?;
            self.checkpointed_at = clock.monotonic();
        }
        self.purge(replica, policy).await
    }

    /// Gives log space back, once openraft knows the checkpoint.
    async fn purge(&self, replica: &Replica, policy: &CheckpointPolicy) -> io::Result<()> {
        let (snapshot, purged) = {
            let metrics = replica.raft.metrics();
            let metrics = metrics.borrow_watched();
            let index =
                |id: &Option<crate::raft::types::LogId>| id.as_ref().map_or(0, |id| id.index);
            (index(&metrics.snapshot), index(&metrics.purged))
        };
        let upto = snapshot.saturating_sub(policy.entries_kept);
        // Purging is an entry of the shared log: only when it frees something.
        if upto < purged + policy.entries_kept.max(1) {
            return Ok(());
        }
        replica
            .raft
            .trigger()
            .purge_log(upto)
            .await
            .map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_due_by_entries_or_by_age() {
        let policy = CheckpointPolicy {
            entries_max: 10,
            age_max: Duration::from_secs(5),
            entries_kept: 0,
        };
        let age = Duration::from_secs;
        assert!(!is_due(0, 0, age(100), &policy), "nothing new");
        assert!(!is_due(9, 0, age(1), &policy));
        assert!(is_due(10, 0, age(0), &policy));
        assert!(is_due(1, 0, age(5), &policy));
        assert!(
            !is_due(7, 9, age(9), &policy),
            "an installed snapshot is ahead"
        );
    }
}
