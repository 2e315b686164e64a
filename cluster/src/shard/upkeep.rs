//! What is done from time to time: a shard's leader seals, drops old blocks and forgets series
//! through the log, every replica of every group checkpoints and purges its own log.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use model::Timestamp;
use model::limits::COMPACTION_BYTES_MAX;
use model::port::Clock;
use tsdb::collecting::{self, Look};
use tsdb::compaction::{self, Bounds, Choice};
use tsdb::retention::{self, Held, Policy};
use tsdb::sealing::{self, Rules};
use tsdb::{
    CleanCommand, CollectCommand, Command, CompactCommand, RetainCommand, SealCommand, StorageError,
};

use super::Replica;
use super::mending::Mender;
use crate::raft::group;
use crate::raft::machine::Debt;
use crate::raft::service::Running;
use crate::raft::types::{LogId, WatchReceiver};

/// When to write a checkpoint, and how much log to keep behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointPolicy {
    /// Entries applied since the last one.
    pub entries_max: u64,
    /// Bytes of commands applied since the last one, if they are twice what that one took: so what is
    /// written on top of the log stays below half of it.
    pub log_bytes_max: u64,
    /// Age of the last one, if anything was applied since.
    pub age_max: Duration,
    /// How long nothing must have been applied for a checkpoint to be worth it whatever its age:
    /// what is settled then takes its place in the files, and the log none.
    pub quiet: Duration,
    /// Entries left in the log behind a checkpoint, so that a follower that was away for a moment
    /// catches up from the log and not from files.
    pub entries_kept: u64,
}

/// A restart replays about this much: a second's work of a core for each 64 MiB. A checkpoint writes
/// the whole head again, so one each few minutes would write every sample many times before it is sealed.
impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self {
            entries_max: 16_384,
            log_bytes_max: 32 << 20,
            age_max: Duration::from_secs(900),
            quiet: Duration::from_secs(30),
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
    pub in_order_window_ms: i64,
    pub retention: Option<Duration>,
    /// Of a block that is made of several.
    pub block_bytes_max: u64,
}

/// A block may have one part in so many of what its shard may take: so no drop takes much at once.
const BLOCKS_MIN: u64 = 10;

/// How large a block may be made where a node that may take `bytes_max` has so many shards.
pub fn block_bytes_max(bytes_max: Option<u64>, shards: usize) -> u64 {
    let share = bytes_max.map(|bytes| bytes / (shards.max(1) as u64 * BLOCKS_MIN));
    share.map_or(COMPACTION_BYTES_MAX, |share| {
        share.min(COMPACTION_BYTES_MAX)
    })
}

/// For each replica on a node, what to drop for all to take no more than `bytes_max`.
pub fn fit(replicas: &[Arc<Replica>], bytes_max: Option<u64>) -> Vec<Option<Timestamp>> {
    let Some(bytes_max) = bytes_max else {
        return vec![None; replicas.len()];
    };
    let held: Vec<Held> = replicas.iter().map(|one| one.engine.held()).collect();
    retention::fit(&held, bytes_max)
}

/// Whether a checkpoint is due.
fn is_due(
    applied: u64,
    durable: u64,
    (age, still): (Duration, Duration),
    debt: Debt,
    policy: &CheckpointPolicy,
) -> bool {
    let behind = applied.saturating_sub(durable);
    let waited = age >= policy.age_max || still >= policy.quiet;
    let bytes_max = policy.log_bytes_max.max(debt.checkpoint_bytes * 2);
    behind >= policy.entries_max || (behind > 0 && (waited || debt.log_bytes >= bytes_max))
}

/// Up to where the log may go, behind a checkpoint at `durable` that is `age` old. A checkpoint
/// that stays the newest for long is of a quiet group: it then needs no tail, which would keep
/// whole segments that every other group has left.
fn purge_upto(durable: u64, (age, still): (Duration, Duration), policy: &CheckpointPolicy) -> u64 {
    match age >= policy.age_max || (age >= policy.quiet && still >= policy.quiet) {
        true => durable,
        false => durable.saturating_sub(policy.entries_kept),
    }
}

/// The commands that keep the head and the blocks within their ages, one after the other.
fn tidy(
    replica: &Replica,
    now: Timestamp,
    ages: Ages,
    fits_from: Option<Timestamp>,
) -> Vec<Command> {
    let engine = &*replica.engine;
    let Some(view) = engine.sealing() else {
        return Vec::new();
    };
    let retention_ms = ages.retention.map_or(0, |r| r.as_millis() as i64);
    let keep_from = (retention_ms > 0).then(|| now.plus_ms(-retention_ms));
    let rules = Rules {
        block_ms: BLOCK_MS,
        out_of_order_window_ms: ages.out_of_order_window_ms,
        keep_from,
    };
    let cuts = sealing::choose(&view, &rules, engine);
    if !cuts.is_empty() {
        let seal = |before| Command::Seal(SealCommand { before });
        return cuts.into_iter().map(seal).collect();
    }
    let policy = Policy {
        keep_from,
        fits_from,
    };
    if let Some(before) = retention::choose(&engine.block_ranges(), &policy) {
        return vec![Command::Retain(RetainCommand { before })];
    }
    let bounds = Bounds {
        retention_ms,
        bytes_max: ages.block_bytes_max,
    };
    compact(replica, view.sealed_before, bounds)
        .into_iter()
        .collect()
}

fn compact(replica: &Replica, sealed_before: Option<Timestamp>, bounds: Bounds) -> Option<Command> {
    // One at a time: what was made one before has its file first.
    if replica.engine.is_merging() {
        return None;
    }
    let candidates = replica.engine.candidates();
    let choice = compaction::choose(&candidates, sealed_before?, bounds)?;
    Some(match choice {
        Choice::Clean(block) => Command::Clean(CleanCommand { block }),
        Choice::Compact(blocks) => Command::Compact(CompactCommand { blocks }),
    })
}

/// Writes the file of a block that the log made of several, on whichever replica; the checkpoint
/// behind it frees those of the several.
pub async fn merge(replica: &Replica, mender: &Mender) {
    let merged = match replica.engine.merge_one().await {
        // Peers that have done it need those it is made of no more, so they cannot give them either.
        Err(StorageError::Corrupt { .. })
            if mender.mend_merge(replica.shard, &replica.engine).await =>
        {
            Ok(true)
        }
        merged => merged,
    };
    match merged {
        Ok(false) => {}
        Ok(true) => {
            // Not taken: the next one frees them.
            if let Err(error) = replica.raft.trigger().snapshot().await {
                tracing::debug!(shard = %replica.shard, %error, "no checkpoint behind a merge");
            }
        }
        // Reads go on from the files there are, and find what is wrong with them by themselves.
        Err(error) => {
            tracing::warn!(shard = %replica.shard, error = %error.full_text(), "blocks not merged")
        }
    }
}

/// A leader's round: seals and drops through the log, here what is older than `fits_from`. Whether there
/// was nothing of the kind to do, so that series may be looked for that can be forgotten.
pub async fn tidy_up(
    replica: &Replica,
    clock: &dyn Clock,
    ages: Ages,
    fits_from: Option<Timestamp>,
) -> bool {
    if !replica.leads() {
        return false;
    }
    let commands = tidy(replica, clock.now(), ages, fits_from);
    let idle = commands.is_empty();
    for command in commands {
        // A seal that did not come about leaves what it should take to the one behind it.
        if !propose(replica, command).await {
            break;
        }
    }
    idle
}

/// Takes series that are written no more out of the register, through the log, if it is time to look for some; whether
/// it was. What is left of more than fit into one command has its turn in the next round.
pub async fn forget(replica: &Replica, ages: Ages) -> bool {
    let Some(newest) = replica.engine.max_time() else {
        return false;
    };
    let looked = *replica.looked.lock().expect(NO_PANIC);
    let due = collecting::choose(newest, &looked, BLOCK_MS, ages.in_order_window_ms);
    let Some(look) = due else { return false };
    forget_found(replica, look).await;
    true
}

async fn forget_found(replica: &Replica, look: Look) {
    let (series, next) = replica.engine.idle_series(look).await;
    let before = look.before;
    let count = series.len();
    if count > 0 {
        let collect = Command::Collect(CollectCommand {
            before,
            series,
            rest: true,
        });
        if !propose(replica, collect).await {
            return;
        }
        tracing::info!(shard = %replica.shard, count, "series that are written no more left the register");
    }
    replica.looked.lock().expect(NO_PANIC).note(look, next);
}

const NO_PANIC: &str = "no panic under this lock";

/// Whether it was committed. If not, the next round, or the next leader, asks again.
async fn propose(replica: &Replica, command: Command) -> bool {
    let proposed = group::propose(&replica.raft, command.encode()).await;
    if let Err(refusal) = &proposed {
        tracing::debug!(shard = %replica.shard, %refusal, "upkeep not committed");
    }
    proposed.is_ok()
}

/// Checkpoints one group and purges its log; remembers the newest checkpoint.
#[derive(Debug, Default)]
pub struct Upkeep {
    durable: u64,
    since: Duration,
    /// Asked for and not seen yet.
    asked: Option<u64>,
    /// The newest entry applied, and since when it is.
    applied: u64,
    applied_since: Duration,
}

impl Upkeep {
    /// One round. Entries behind `floor` are still wanted. An error means the group has stopped.
    pub async fn round(
        &mut self,
        running: &Running,
        now: Duration,
        floor: Option<u64>,
        policy: &CheckpointPolicy,
    ) -> io::Result<()> {
        let raft = &running.raft;
        let (applied, durable, purged) = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            let index = |id: &Option<LogId>| id.as_ref().map_or(0, |id| id.index);
            (
                index(&metrics.last_applied),
                index(&metrics.snapshot),
                index(&metrics.purged),
            )
        };
        if durable != self.durable {
            self.durable = durable;
            self.since = now;
            self.asked = None;
        }
        if applied != self.applied {
            self.applied = applied;
            self.applied_since = now;
        }
        let age = now.saturating_sub(self.since);
        let ages = (age, now.saturating_sub(self.applied_since));
        let debt = running.machine.checkpoint_debt();
        if self.asked.is_none() && is_due(applied, durable, ages, debt, policy) {
            self.asked = Some(applied);
            raft.trigger().snapshot().await.map_err(io::Error::other)?;
        }
        let upto = purge_upto(durable, ages, policy).min(floor.unwrap_or(u64::MAX));
        if upto > purged {
            raft.trigger()
                .purge_log(upto)
                .await
                .map_err(io::Error::other)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_due_by_entries_bytes_or_age() {
        let policy = CheckpointPolicy {
            entries_max: 10,
            log_bytes_max: 100,
            age_max: Duration::from_secs(5),
            quiet: Duration::from_secs(2),
            entries_kept: 0,
        };
        let due = |applied, durable, ages| is_due(applied, durable, ages, Debt::default(), &policy);
        let age = |s| (Duration::from_secs(s), Duration::ZERO);
        let still = |s| (Duration::ZERO, Duration::from_secs(s));
        assert!(due(1, 0, still(2)), "nothing comes any more");
        assert!(!due(1, 0, still(1)));
        assert!(!due(0, 0, age(100)), "nothing new");
        assert!(!due(9, 0, age(1)));
        assert!(due(10, 0, age(0)));
        assert!(due(1, 0, age(5)));
        assert!(!due(7, 9, age(9)), "an installed snapshot is ahead");
        let by_bytes = |log_bytes, checkpoint_bytes| {
            let debt = Debt {
                log_bytes,
                checkpoint_bytes,
            };
            is_due(1, 0, age(0), debt, &policy)
        };
        assert!(!by_bytes(99, 0) && by_bytes(100, 0));
        assert!(
            !by_bytes(119, 60) && by_bytes(120, 60),
            "not for little more than it costs"
        );
    }
}
