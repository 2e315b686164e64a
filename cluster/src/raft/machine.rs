//! openraft's state machine over a group's [`Machine`]: a shard, or the meta state.
//!
//! Keeps what Raft itself needs to know of the applied state: the log id and the membership at
//! each point a checkpoint may be taken. A machine only ever sees commands, in log order.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use model::GroupId;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, SnapshotMeta};

use super::types::{
    Entry, LeaderId, LogId, Mark, Reply, StoredMembers, TypeConfig, entry_from_wal,
};

/// Bytes of the log that are read together when a replica opens. What lies between them, of other groups, is
/// read too, so with a few shards it is a megabyte, which a core keeps close until it is decoded.
const REPLAY_BYTES: usize = 256 << 10;

/// One file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    pub name: String,
    pub bytes: u64,
    pub crc32c: u32,
}

/// A machine's state at one log index, as immutable files on this node's disk.
pub struct FileSet {
    /// The last entry in it.
    pub index: u64,
    /// The [`Mark`] stored with it.
    pub opaque: Bytes,
    pub dir: PathBuf,
    pub files: Vec<SnapshotFile>,
    /// Keeps the files from being removed while somebody reads them.
    pub pin: Option<Box<dyn std::any::Any + Send + Sync>>,
}

impl FileSet {
    fn meta(&self) -> io::Result<SnapshotMeta<LeaderId, u64, openraft::impls::BasicNode>> {
        let mark = Mark::decode(&self.opaque)?;
        Ok(SnapshotMeta {
            last_log_id: mark.log_id,
            last_membership: mark.members,
        })
    }

    fn into_snapshot(self) -> io::Result<GroupSnapshot> {
        Ok(Snapshot {
            meta: self.meta()?,
            snapshot: self,
        })
    }
}

/// openraft's snapshot, with files for data.
pub type GroupSnapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, FileSet>;

/// Gives the mark for the index a checkpoint was captured at.
pub type MarkAt = Box<dyn FnOnce(u64) -> Bytes + Send>;

/// What a checkpoint would spare a restart, and about what it would cost.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Debt {
    /// Of commands applied since the last one.
    pub log_bytes: u64,
    /// Of the last one.
    pub checkpoint_bytes: u64,
}

/// A stretch of a log: each entry's index, and its command if it holds one.
pub type Stretch = Vec<(u64, Option<Bytes>)>;
/// Of one log, in order.
pub type Batches<'a> = BoxStream<'a, io::Result<Stretch>>;

/// What a Raft group replicates. `apply` is a pure function of the log.
#[async_trait]
pub trait Machine: Send + Sync + 'static {
    /// Applies one command. An error means the log is not ours to understand, or the disk failed:
    /// the group stops.
    async fn apply(&self, index: u64, command: &Bytes) -> io::Result<Reply>;

    /// Applies entries whose outcome nobody waits for, in order; those without a command hold none.
    async fn replay(&self, mut batches: Batches<'_>) -> io::Result<()> {
        while let Some(entries) = batches.try_next().await? {
            for (index, command) in entries {
                match command {
                    Some(command) => drop(self.apply(index, &command).await?),
                    None => self.advance(index),
                }
            }
        }
        Ok(())
    }

    /// Bytes of commands applied since the last checkpoint, and of that checkpoint itself; zero where
    /// nobody counts them.
    fn checkpoint_debt(&self) -> Debt {
        Debt::default()
    }

    /// Notes an entry that holds no command.
    fn advance(&self, index: u64);

    /// Index and mark of the state loaded from disk.
    fn loaded(&self) -> Option<(u64, Bytes)>;

    /// Writes the state as files and pins them.
    async fn checkpoint(&self, mark_at: MarkAt) -> io::Result<FileSet>;

    /// The files of the last checkpoint, pinned.
    async fn current(&self) -> io::Result<Option<FileSet>>;

    /// Files of the last checkpoint: a sender need not send those again.
    async fn held(&self) -> Vec<SnapshotFile>;

    /// A directory of its own for an incoming snapshot with this index.
    async fn stage(&self, index: u64) -> io::Result<PathBuf>;

    /// Replaces the state by staged files, or keeps the old one and says why.
    async fn install(&self, staged: FileSet) -> io::Result<()>;
}

/// What Raft knows of the applied log: enough to mark any index since the last checkpoint.
#[derive(Debug, Default)]
struct Applied {
    last: Option<LogId>,
    /// First index of each leadership, ascending.
    leaders: Vec<(u64, LeaderId)>,
    /// Memberships by the index they were applied at, ascending.
    members: Vec<(u64, StoredMembers)>,
}

impl Applied {
    fn from_mark(mark: Mark) -> Self {
        let Some(log_id) = mark.log_id else {
            return Self::default();
        };
        Self {
            leaders: vec![(log_id.index, log_id.leader_id)],
            members: vec![(log_id.index, mark.members)],
            last: Some(log_id),
        }
    }

    fn note(&mut self, entry: &Entry) {
        let LogId { leader_id, index } = entry.log_id;
        if self
            .leaders
            .last()
            .is_none_or(|(_, leader)| *leader != leader_id)
        {
            self.leaders.push((index, leader_id));
        }
        if let EntryPayload::Membership(members) = &entry.payload {
            let stored = StoredMembers::new(Some(entry.log_id), members.clone());
            self.members.push((index, stored));
        }
        self.last = Some(entry.log_id);
    }

    fn members(&self) -> StoredMembers {
        self.members
            .last()
            .map(|(_, members)| members.clone())
            .unwrap_or_default()
    }

    /// The mark for `index`, forgetting what only earlier indexes need.
    fn mark(&mut self, index: u64) -> Mark {
        if self.last.is_none() {
            return Mark::default();
        }
        let at = self.leaders.partition_point(|(first, _)| *first <= index);
        let at = at.checked_sub(1).expect("an applied index has a leader");
        let leader_id = self.leaders[at].1;
        self.leaders.drain(..at);
        let at = self
            .members
            .partition_point(|(applied, _)| *applied <= index);
        let members = match at.checked_sub(1) {
            None => StoredMembers::default(),
            Some(last) => {
                self.members.drain(..last);
                self.members[0].1.clone()
            }
        };
        Mark {
            log_id: Some(LogId { leader_id, index }),
            members,
        }
    }
}

/// A group's machine as openraft drives it.
pub struct StateMachine {
    machine: Arc<dyn Machine>,
    applied: Arc<Mutex<Applied>>,
}

impl StateMachine {
    /// Starts from what the machine loaded from disk.
    pub fn new(machine: Arc<dyn Machine>) -> io::Result<Self> {
        let applied = match machine.loaded() {
            None => Applied::default(),
            Some((index, opaque)) => {
                let mark = Mark::decode(&opaque)?;
                if mark.log_id.is_some_and(|id| id.index != index) {
                    return Err(super::types::malformed(
                        "checkpoint: its mark is of another index",
                    ));
                }
                Applied::from_mark(mark)
            }
        };
        Ok(Self {
            machine,
            applied: Arc::new(Mutex::new(applied)),
        })
    }

    /// The first entry that is not applied.
    fn next_index(&self) -> u64 {
        let applied = self.applied.lock().expect("not poisoned");
        applied.last.map_or(0, |last| last.index + 1)
    }

    /// Applies what `log` says was committed, before Raft begins: it would do the same, a few entries at
    /// a time. What cannot be read is left to it to tell of.
    pub async fn replay(&self, log: &dyn wal::Log, group: GroupId) -> io::Result<()> {
        let committed = log.state(group).committed;
        let end = committed.map_or(0, |committed| committed.index + 1);
        let batches = stream::try_unfold(self.next_index(), |next| async move {
            let entries = match next < end {
                true => log.read(group, next..end, REPLAY_BYTES).await?,
                false => Vec::new(),
            };
            match entries.first().is_some_and(|first| first.id.index == next) {
                true => self.noted(entries).map(Some),
                false => Ok(None),
            }
        });
        self.machine.replay(batches.boxed()).await
    }

    /// The entries as a machine takes them, and the index behind them.
    fn noted(&self, entries: Vec<wal::Entry>) -> io::Result<(Stretch, u64)> {
        let mut commands = Vec::with_capacity(entries.len());
        for entry in entries {
            let entry = entry_from_wal(entry)?;
            self.applied.lock().expect("not poisoned").note(&entry);
            let command = match entry.payload {
                EntryPayload::Normal(payload) => Some(payload.0),
                EntryPayload::Blank | EntryPayload::Membership(_) => None,
            };
            commands.push((entry.log_id.index, command));
        }
        Ok((commands, self.next_index()))
    }

    async fn apply_one(&self, entry: &Entry) -> io::Result<Reply> {
        self.applied.lock().expect("not poisoned").note(entry);
        let index = entry.log_id.index;
        match &entry.payload {
            EntryPayload::Normal(payload) => self.machine.apply(index, &payload.0).await,
            EntryPayload::Blank | EntryPayload::Membership(_) => {
                self.machine.advance(index);
                Ok(Reply::Nothing)
            }
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = FileSet;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembers), io::Error> {
        let applied = self.applied.lock().expect("not poisoned");
        Ok((applied.last, applied.members()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let reply = self.apply_one(&entry).await?;
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            machine: self.machine.clone(),
            applied: self.applied.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<LeaderId, u64, openraft::impls::BasicNode>,
        snapshot: FileSet,
    ) -> Result<(), io::Error> {
        self.machine.install(snapshot).await?;
        let mark = Mark {
            log_id: meta.last_log_id,
            members: meta.last_membership.clone(),
        };
        *self.applied.lock().expect("not poisoned") = Applied::from_mark(mark);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<GroupSnapshot>, io::Error> {
        self.machine
            .current()
            .await?
            .map(FileSet::into_snapshot)
            .transpose()
    }
}

/// Takes one checkpoint while entries go on being applied.
pub struct Builder {
    machine: Arc<dyn Machine>,
    applied: Arc<Mutex<Applied>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = FileSet;

    async fn build_snapshot(&mut self) -> Result<GroupSnapshot, io::Error> {
        let applied = self.applied.clone();
        let mark_at =
            Box::new(move |index| applied.lock().expect("not poisoned").mark(index).encode());
        self.machine.checkpoint(mark_at).await?.into_snapshot()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::impls::BasicNode;

    use super::super::types::Members;
    use super::*;

    fn entry(term: u64, index: u64, members: Option<u64>) -> Entry {
        let payload = match members {
            None => EntryPayload::Blank,
            Some(node) => EntryPayload::Membership(
                Members::new(
                    vec![BTreeSet::from([node])],
                    BTreeMap::from([(node, BasicNode::default())]),
                )
                .unwrap(),
            ),
        };
        Entry {
            log_id: LogId {
                leader_id: LeaderId { term, node_id: 1 },
                index,
            },
            payload,
        }
    }

    #[test]
    fn a_mark_names_the_leader_and_members_of_its_index() {
        let mut applied = Applied::default();
        for e in [
            entry(1, 0, Some(7)),
            entry(1, 1, None),
            entry(2, 2, None),
            entry(2, 3, Some(8)),
            entry(3, 4, None),
        ] {
            applied.note(&e);
        }
        for (index, term, voter) in [(0, 1, 7), (1, 1, 7), (2, 2, 7), (3, 2, 8), (4, 3, 8)] {
            let mark = applied.mark(index);
            assert_eq!(mark.log_id, Some(entry(term, index, None).log_id));
            assert_eq!(
                mark.members.voter_ids().collect::<Vec<_>>(),
                vec![voter],
                "at {index}"
            );
        }
        assert_eq!((applied.leaders.len(), applied.members.len()), (1, 1));
    }
}
