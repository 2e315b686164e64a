//! The shared segmented log: one ordered, checksummed log per node for all its Raft groups.
//!
//! What stays true:
//! - One writer, one write in flight, one flush for everything that waits. Votes, entries,
//!   truncations, purges and committed marks go through it in one order.
//! - [`Log::append`]'s completion runs after the entries are durable, in order per group.
//! - A torn tail is cut. A bad record that anything valid follows was durable once: it is
//!   corruption, reported by group, never cut in silence.
//! - After the first failed write or flush nothing is ever acknowledged again.
//!
//! It purposely does not know what an entry means, nor what Raft is beyond terms and indexes.
//!
//! In reading order; the format is drawn in `docs/format/log.md`:
//! - `record`, `batch`: what one write looks like
//! - `run`, `state`, `summary`: what the records of one segment amount to
//! - `segment`, `recovery`: files, footers, scanning; from files back to memory
//! - `index`: what is held, in memory
//! - `scrub`: reading again what was sealed
//! - `writer`, `log`: the task that writes, and the face it has for replicas
//! - `metrics`

use std::io;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use model::{GroupId, NodeId};

mod batch;
mod index;
mod log;
mod metrics;
mod record;
mod recovery;
mod run;
mod scrub;
mod segment;
mod state;
mod summary;
mod writer;

#[cfg(fuzzing)]
pub mod fuzzed;

pub use log::{Options, SegmentedLog};
pub use metrics::Metrics;
pub use recovery::{OpenError, Quarantine, Recovery};
pub use scrub::{Check, Checked};

/// A position in a group's log and the leadership that created it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    pub term: u64,
    pub node: NodeId,
    pub index: u64,
}

/// Whom a replica votes for, and whether a majority confirmed that leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vote {
    pub term: u64,
    pub node: NodeId,
    pub committed: bool,
}

/// One log entry; the payload is opaque here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: LogId,
    pub payload: Bytes,
}

/// What the log holds of one group.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct GroupState {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    /// Entries up to here are gone.
    pub purged: Option<LogId>,
    /// The newest entry, or `purged` when no entry is left.
    pub last: Option<LogId>,
}

/// Called once when an append is durable, or can never be.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// The thin trait through which a replica keeps its log.
#[async_trait]
pub trait Log: Send + Sync {
    /// What is held of `group`; all empty for a group never seen.
    fn state(&self, group: GroupId) -> GroupState;

    /// Why acknowledged records of `group` are lost here, if they are. Such a group shows an
    /// empty state that must not be believed; every operation fails but [`Log::remove_group`],
    /// which ends the quarantine. It can come back only as a new learner.
    fn quarantined(&self, _group: GroupId) -> Option<String> {
        None
    }

    /// Returns once everything that was there when the log was opened is durable: before, nobody may be
    /// told that it is, nor be shown what depends on it. What is queued meanwhile waits for the same.
    async fn settled(&self) -> io::Result<()>;

    /// Queues entries, which must follow the group's last index without a gap. On return they
    /// can be read; `done` runs when they are durable.
    async fn append(&self, group: GroupId, entries: Vec<Entry>, done: Done) -> io::Result<()>;

    /// Durable on return, and so is everything queued before it.
    async fn save_vote(&self, group: GroupId, vote: Vote) -> io::Result<()>;

    /// Becomes durable with the next flush: a lower mark after a crash is safe.
    async fn save_committed(&self, group: GroupId, committed: Option<LogId>) -> io::Result<()>;

    /// Removes entries after `last` (all of them for `None`). Durable on return.
    async fn truncate_after(&self, group: GroupId, last: Option<LogId>) -> io::Result<()>;

    /// Removes entries up to and including `upto`; segments nobody needs are deleted.
    async fn purge(&self, group: GroupId, upto: LogId) -> io::Result<()>;

    /// Entries with an index in `range` that are still there, in order, stopping once
    /// `bytes_max` of payload is reached but after at least one.
    async fn read(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: usize,
    ) -> io::Result<Vec<Entry>>;

    /// Forgets the group: its entries, its vote, everything. Durable on return.
    async fn remove_group(&self, group: GroupId) -> io::Result<()>;
}
