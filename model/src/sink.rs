//! The way in: something that accepts a batch.

use std::sync::Arc;

use async_trait::async_trait;

use crate::group::{Group, GroupingKey, PushOp, PushOptions};
use crate::source::SourceError;
use crate::{Batch, ShardId, Timestamp};

/// Why a row can never be stored. A client that sends it again gets the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Older than the shard's newest sample by more than the out-of-order window.
    TooOld,
    /// Further in the future than the shard takes.
    TooNew,
    /// The series has another value at this timestamp.
    Duplicate,
    /// Another node holds the target's lease by now.
    Fenced,
    /// The batch's labels break the data model (no name, invalid name).
    BadLabels,
    /// The histogram's parts contradict each other, or it is too large.
    BadHistogram,
    /// Not later than the series' newest sample, and no out-of-order window reaches back to it.
    OutOfOrder,
    /// The series is new, and there are as many as may be.
    SeriesLimit,
}

impl Reason {
    /// As Prometheus words it, where it has a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooOld => "too old sample",
            Self::TooNew => "out of bounds: timestamp is too far in the future",
            Self::Duplicate => "duplicate sample for timestamp",
            Self::Fenced => "the scrape lease moved to another node",
            Self::BadLabels => "invalid labels",
            Self::BadHistogram => "invalid histogram",
            Self::OutOfOrder => "out of order sample",
            Self::SeriesLimit => {
                "limit of series reached (--cluster.max-series), new series refused"
            }
        }
    }
}

/// One row that was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    /// Row index in the batch that was written.
    pub row: u32,
    pub reason: Reason,
}

/// What became of a batch whose every row was decided. Rows not named in `rejected` are durable
/// on a majority and visible to strong reads; a row stored before with the same bits counts as
/// stored.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Written {
    /// By row, ascending.
    pub rejected: Vec<Rejection>,
}

/// Why a batch, or part of it, was not decided. Repeating it is safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Rows of these shards may or may not be stored.
    #[error("no acknowledgement from {}", crate::id::shard_list(.0))]
    Unavailable(Vec<ShardId>),
    /// Too much is waiting; nothing of this batch was taken.
    #[error("overloaded: {0}")]
    Overloaded(String),
    /// Something broke on the way; the text says where. Part of it may be done.
    #[error("{0}")]
    Failed(String),
    /// A push contradicts what groups hold; nothing was stored. In Pushgateway's words.
    #[error("{0}")]
    Inconsistent(String),
    /// The request breaks a rule; nothing was stored.
    #[error("{0}")]
    Invalid(String),
}

/// Accepts batches. Implementations wrap one another: routing, replicating, one shard.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Returns when every row is decided. `Ok` means durable on a majority.
    async fn write(&self, batch: Batch) -> Result<Written, WriteError>;

    /// [`Sink::write`] for whoever needs the batch afterwards, to name what was rejected.
    async fn write_kept(&self, batch: &Batch) -> Result<Written, WriteError> {
        self.write(batch.clone()).await
    }
}

/// What a committed push changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Pushed {
    /// The instant the log gave this push.
    pub at: Timestamp,
    /// The group before it, if there was one.
    pub before: Option<Arc<Group>>,
    /// The group after it; `None` when deleted.
    pub after: Option<Arc<Group>>,
    /// An additive push whose id was seen before: nothing was changed, `before` and `after` are
    /// what the group is now.
    pub repeated: bool,
}

/// Pushgateway's groups, linearizable from any node.
#[async_trait]
pub trait Groups: Send + Sync {
    /// Commits `op` on the group of `key`. After an error that leaves open whether it was committed
    /// only an `Add` may be repeated blindly.
    async fn push(
        &self,
        key: GroupingKey,
        op: PushOp,
        options: PushOptions,
    ) -> Result<Pushed, WriteError>;

    /// Removes every group, each shard's at one instant of its log. Groups pushed while it runs
    /// may stay; after an error some shards may be wiped and others not.
    async fn wipe(&self) -> Result<(), WriteError>;

    /// Every group, by key. Contains all that was acknowledged before the call.
    async fn groups(&self) -> Result<Vec<Group>, SourceError>;
}
