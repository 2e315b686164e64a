//! openraft's log storage over the node's shared log: one group's view of it.
//!
//! Votes, entries and committed marks of a group all go through [`wal::Log`] in one order, which
//! is what openraft's watermark over them demands (its docs, "io_ordering").

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use model::GroupId;
use model::limits::APPEND_BYTES_MAX;
use openraft::EntryPayload;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use super::standing::Changes;
use super::types::{
    Entry, LogId, TypeConfig, Vote, entry_from_wal, entry_to_wal, log_id_from_wal, log_id_to_wal,
    vote_from_wal, vote_to_wal,
};

/// One group's log.
#[derive(Clone)]
pub struct LogStore {
    log: Arc<dyn wal::Log>,
    group: GroupId,
    changes: Changes,
}

impl LogStore {
    pub fn new(log: Arc<dyn wal::Log>, group: GroupId) -> Self {
        Self {
            log,
            group,
            changes: Changes::default(),
        }
    }

    /// Told of every change of members before it is written.
    pub fn changes(&self) -> Changes {
        self.changes.clone()
    }

    async fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let entries = self.log.read(self.group, start..end, bytes_max).await?;
        entries.into_iter().map(entry_from_wal).collect()
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last + 1,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start, end, usize::MAX).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.log.state(self.group).vote.map(vote_from_wal))
    }

    /// openraft bounds a message by entries; here it is cut by bytes.
    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, APPEND_BYTES_MAX).await
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.log.state(self.group);
        Ok(LogState {
            last_purged_log_id: state.purged.map(log_id_from_wal),
            last_log_id: state.last.map(log_id_from_wal),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.log.save_vote(self.group, vote_to_wal(vote)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let committed = committed.as_ref().map(log_id_to_wal);
        self.log.save_committed(self.group, committed).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.log.state(self.group).committed.map(log_id_from_wal))
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let note = |entry: &Entry| {
            if let EntryPayload::Membership(_) = entry.payload {
                self.changes.note(entry.log_id.index);
            }
        };
        let entries = entries
            .into_iter()
            .inspect(note)
            .map(entry_to_wal)
            .collect();
        let done = Box::new(move |result| flushed.io_completed(result));
        self.log.append(self.group, entries, done).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.changes.cut(last.as_ref().map_or(0, |id| id.index));
        self.log
            .truncate_after(self.group, last.as_ref().map(log_id_to_wal))
            .await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.log.purge(self.group, log_id_to_wal(&upto)).await
    }
}
