//! Gets the whole state of a shard from another replica when the one here does not open: its checkpoint or its
//! manifest rotted, or is gone.
//!
//! The log and the vote are whole, or the group would be in quarantine by its log, so nothing that this replica
//! ever promised is lost with the state. What a peer's manifest names holds committed entries only; put in the
//! place of the damaged state it is what a snapshot from the leader would have made of this replica
//! (docs/adr/0044-damaged-states-come-from-peers.md). Files are checked whole, and those that are whole here do
//! not travel.

use std::path::Path;
use std::time::Duration;

use model::port::Disk;
use model::{GroupId, ShardId};
use tsdb::file::{FileKind, remove_dir_if_there, remove_if_there};
use tsdb::manifest::{self, Manifest};
use tsdb::{FileEntry, StorageError, scrub};

use super::mending::{Mender, NOBODY};
use super::replica::{dir_of, engine_dir_of};
use crate::raft::types::{Mark, log_id_to_wal};

/// Where a peer's files are put together, inside the shard's directory. What is whole there outlives an attempt.
const STAGING: &str = "rebuilt";
/// Until what keeps a shard closed is asked for again.
const AGAIN: Duration = Duration::from_secs(5);
/// A manifest of more files than any shard has.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;

/// A manifest of a state that holds everything up to an index: what a peer is asked for.
fn name_of(index: u64) -> String {
    format!("{}-{index:020}", manifest::NAME)
}

/// The index in a name that [`name_of`] gave.
pub fn index_in(name: &str) -> Option<u64> {
    let index = name.strip_prefix(manifest::NAME)?.strip_prefix('-')?;
    let index = index.parse().ok()?;
    (name_of(index) == name).then_some(index)
}

/// What is wrong with a state that ends where the log here does not begin: entries between them are gone.
pub fn gap(held: Option<u64>, purged: Option<wal::LogId>) -> Option<StorageError> {
    let purged = purged.map(|purged| purged.index)?;
    if held >= Some(purged) {
        return None;
    }
    let held = held.map_or("nothing".to_owned(), |held| format!("up to {held}"));
    let reason = format!("it holds {held}, and the log is purged up to {purged}");
    Some(StorageError::corrupt(manifest::NAME, "position", reason))
}

/// Removes what an attempt left that a crash ended.
pub async fn clear(disk: &dyn Disk, shard: ShardId) -> std::io::Result<()> {
    remove_dir_if_there(disk, &dir_of(shard).join(STAGING)).await
}

impl Mender {
    /// Returns once what keeps a shard closed is whole: a block of this name, or else its state. A block that no
    /// peer gives may be one that all have cleaned, merged or dropped: then a peer's state has something else in
    /// its place, or nothing.
    pub async fn heal(&self, shard: ShardId, block: Option<String>, log: &dyn wal::Log) {
        let mut said = String::new();
        loop {
            let healed = match &block {
                Some(name) if said.is_empty() => self.mend_closed(shard, name).await,
                Some(name) => match self.mend_closed(shard, name).await {
                    Ok(()) => Ok(()),
                    Err(block) => {
                        let rebuilt = self.rebuild(shard, log).await;
                        rebuilt.map_err(|state| format!("{block}; nor all of its state: {state}"))
                    }
                },
                None => self.rebuild(shard, log).await,
            };
            let file = block.as_deref().unwrap_or("all of its state");
            match healed {
                Ok(()) => return tracing::info!(%shard, file, "mended"),
                Err(why) if why != said => {
                    tracing::warn!(%shard, file, why, "not mended");
                    said = why;
                }
                Err(_) => {}
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Puts a peer's state in the place of the shard's, which is not open.
    async fn rebuild(&self, shard: ShardId, log: &dyn wal::Log) -> Result<(), String> {
        let _turn = self.rebuilding.lock().await;
        let mut whys = Vec::new();
        for (node, address) in self.others(shard) {
            match self.rebuild_from(shard, log, &address).await {
                Ok(index) => {
                    tracing::info!(%shard, node, index, "the state of another replica is taken");
                    let cleared = clear(&**self.disk(), shard).await;
                    return cleared.map_err(|e| e.to_string());
                }
                Err(why) => whys.push(format!("node {node}: {why}")),
            }
        }
        match whys.is_empty() {
            true => Err(NOBODY.to_owned()),
            false => Err(whys.join("; ")),
        }
    }

    /// The index of the state that was taken.
    async fn rebuild_from(
        &self,
        shard: ShardId,
        log: &dyn wal::Log,
        address: &str,
    ) -> Result<u64, String> {
        let (disk, dir) = (self.disk(), engine_dir_of(shard));
        let staged = dir_of(shard).join(STAGING);
        let reached = scrub::reached(&**disk, &dir).await;
        let reached = reached.map_err(|e| e.to_string())?;
        let group = GroupId::of_shard(shard);
        let floor = floor(&log.state(group), reached);
        let manifest = self.list(shard, floor, &staged, address).await?;
        let at = position_of(&manifest)?;
        let fit = Fit::of(log, group, at, floor).await?;
        sweep(&**disk, &staged, &manifest)
            .await
            .map_err(|e| e.to_string())?;
        // The peer replaces its checkpoint sooner than its blocks.
        let is_block = |entry: &&FileEntry| matches!(entry.kind(), Some(FileKind::Block(_)));
        let (blocks, checkpoint): (Vec<_>, Vec<_>) = manifest.files.iter().partition(is_block);
        for entry in checkpoint.into_iter().chain(blocks) {
            self.take(shard, entry, &staged, address).await?;
        }
        fit.make(log, group).await.map_err(|e| e.to_string())?;
        let rebuilt = scrub::rebuild(disk, &dir, &staged, &manifest).await;
        rebuilt.map_err(|e| e.full_text())?;
        Ok(at.index)
    }

    /// The peer's files, of a state that holds everything up to `floor`.
    async fn list(
        &self,
        shard: ShardId,
        floor: u64,
        staged: &Path,
        address: &str,
    ) -> Result<Manifest, String> {
        let (disk, name) = (&**self.disk(), name_of(floor));
        let text = |e: std::io::Error| e.to_string();
        disk.create_dir_all(staged).await.map_err(text)?;
        self.receive(shard, staged, &name, MANIFEST_BYTES_MAX, address)
            .await?;
        let (from, to) = (staged.join(name), staged.join(manifest::NAME));
        disk.rename(&from, &to).await.map_err(text)?;
        let manifest = Manifest::read(disk, staged).await;
        let manifest = manifest.map_err(|e| e.full_text())?;
        Ok(manifest.ok_or("its list of files is gone")?)
    }

    /// Makes sure of a file: whole where it was staged earlier, whole in the shard, or fetched.
    async fn take(
        &self,
        shard: ShardId,
        entry: &FileEntry,
        staged: &Path,
        address: &str,
    ) -> Result<(), String> {
        if entry.kind().is_none() {
            return Err("its list names what is no file of a shard".to_owned());
        }
        let disk = &**self.disk();
        let is_staged = entry.verify(disk, staged).await.is_ok();
        if is_staged || entry.verify(disk, &engine_dir_of(shard)).await.is_ok() {
            return Ok(());
        }
        self.receive(shard, staged, &entry.name, entry.len, address)
            .await?;
        let whole = entry.verify(disk, staged).await;
        whole.map_err(|e| e.full_text())
    }
}

/// Removes what was staged for a state that is not taken any more.
async fn sweep(disk: &dyn Disk, staged: &Path, manifest: &Manifest) -> std::io::Result<()> {
    for path in disk.list(staged).await? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !manifest.contains(&name) {
            remove_if_there(disk, &staged.join(&*name)).await?;
        }
    }
    Ok(())
}

fn position_of(manifest: &Manifest) -> Result<wal::LogId, String> {
    let position = manifest.position.as_ref();
    let position = position.ok_or("it has no checkpoint yet")?;
    let mark = Mark::decode(&position.opaque).map_err(|e| e.to_string())?;
    let at = mark.log_id.filter(|at| at.index == position.index);
    let at = at.ok_or("its checkpoint is of no entry of the log")?;
    Ok(log_id_to_wal(&at))
}

/// What a state must hold to go with a log: all that is purged; all that was committed, where the log is not there
/// to apply it; and all that a state here ever held, which was told to others.
fn floor(log: &wal::GroupState, reached: u64) -> u64 {
    let index = |id: Option<wal::LogId>| id.map_or(0, |id| id.index);
    let committed = index(log.committed);
    let alone = committed > index(log.last);
    index(log.purged)
        .max(reached)
        .max(if alone { committed } else { 0 })
}

/// What becomes of a group's vote and log so that they go with a state at an entry that was committed: as when the
/// leader of that entry had sent it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fit {
    vote: Option<wal::Vote>,
    /// Behind what entry the log is cut.
    cut: Option<Option<wal::LogId>>,
}

impl Fit {
    async fn of(
        log: &dyn wal::Log,
        group: GroupId,
        at: wal::LogId,
        floor: u64,
    ) -> Result<Self, String> {
        if let Some(why) = log.quarantined(group) {
            return Err(format!("the log is damaged: {why}"));
        }
        if at.index < floor {
            return Err(format!("its state ends at {}, before {floor}", at.index));
        }
        let held = log.state(group);
        let leadership = |id: wal::LogId| (id.term, id.node);
        let vote = held.vote.map(|vote| (vote.term, vote.node));
        let mut fit = Self {
            // Who follows the leader of an entry has voted no lower.
            vote: (vote < Some(leadership(at))).then_some(wal::Vote {
                term: at.term,
                node: at.node,
                committed: true,
            }),
            cut: None,
        };
        let own = match held.purged.filter(|purged| purged.index == at.index) {
            None => entry_at(log, group, at.index).await?,
            purged => purged,
        };
        match own {
            Some(own) if own == at => return Ok(fit),
            // Never committed, as another entry was in its place; nor was what follows it.
            Some(own) if leadership(own) < leadership(at) => {
                let before = match at.index.checked_sub(1) {
                    Some(before) => entry_at(log, group, before).await?,
                    None => None,
                };
                fit.cut = Some(before.or(held.purged));
            }
            // The log ends before: Raft lets it begin behind the state.
            None if held.last.map(leadership) <= Some(leadership(at)) => {}
            _ => return Err("its state is of another history than the log here".to_owned()),
        }
        let contradicts =
            |id: Option<wal::LogId>| id.is_some_and(|id| id != at && id.index >= at.index);
        match contradicts(held.committed) || contradicts(held.purged) {
            true => Err("its state contradicts what was committed here".to_owned()),
            false => Ok(fit),
        }
    }

    async fn make(self, log: &dyn wal::Log, group: GroupId) -> std::io::Result<()> {
        if let Some(vote) = self.vote {
            log.save_vote(group, vote).await?;
        }
        match self.cut {
            Some(last) => log.truncate_after(group, last).await,
            None => Ok(()),
        }
    }
}

async fn entry_at(
    log: &dyn wal::Log,
    group: GroupId,
    index: u64,
) -> Result<Option<wal::LogId>, String> {
    let entries = log.read(group, index..index + 1, 1).await;
    let entries = entries.map_err(|e| e.to_string())?;
    Ok(entries.first().map(|entry| entry.id))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;
    use bytes::Bytes;
    use model::NodeId;
    use openraft::storage::RaftLogStorage;
    use openraft::{RaftLogReader, StorageHelper};
    use sim_world::{SimClock, SimDisk};
    use wal::Log;

    use super::*;
    use crate::raft::log_store::LogStore;
    use crate::raft::machine::{FileSet, Machine, MarkAt, SnapshotFile, StateMachine};
    use crate::raft::types::{Reply, StoredMembers, log_id_from_wal, log_id_to_wal, vote_from_wal};

    const GROUP: GroupId = GroupId(1);
    /// Where the peer's state ends.
    const AT: wal::LogId = id(4, 10);

    const fn id(term: u64, index: u64) -> wal::LogId {
        wal::LogId {
            term,
            node: NodeId(term % 3),
            index,
        }
    }

    const fn vote(term: u64, committed: bool) -> wal::Vote {
        wal::Vote {
            term,
            node: NodeId(term % 3),
            committed,
        }
    }

    /// A machine that was loaded with the peer's state.
    struct Loaded(AtomicU64);

    impl Loaded {
        fn mark() -> Bytes {
            let mark = Mark {
                log_id: Some(log_id_from_wal(AT)),
                members: StoredMembers::default(),
            };
            mark.encode()
        }
    }

    #[async_trait]
    impl Machine for Loaded {
        async fn apply(&self, _index: u64, _command: &Bytes) -> std::io::Result<Reply> {
            unreachable!("only blank entries")
        }

        fn advance(&self, index: u64) {
            assert_eq!(self.0.fetch_add(1, Ordering::Relaxed) + 1, index);
        }

        fn loaded(&self) -> Option<(u64, Bytes)> {
            Some((AT.index, Self::mark()))
        }

        async fn checkpoint(&self, _mark_at: MarkAt) -> std::io::Result<FileSet> {
            unreachable!("there is one")
        }

        async fn current(&self) -> std::io::Result<Option<FileSet>> {
            Ok(Some(FileSet {
                index: AT.index,
                opaque: Self::mark(),
                dir: "engine".into(),
                files: Vec::new(),
                pin: None,
            }))
        }

        async fn held(&self) -> Vec<SnapshotFile> {
            Vec::new()
        }

        async fn stage(&self, _index: u64) -> std::io::Result<std::path::PathBuf> {
            unreachable!("nothing comes")
        }

        async fn install(&self, _staged: FileSet) -> std::io::Result<()> {
            unreachable!("nothing comes")
        }
    }

    /// What a replica's log holds.
    #[derive(Default)]
    struct Held {
        entries: Vec<wal::LogId>,
        committed: Option<wal::LogId>,
        purged: Option<wal::LogId>,
        vote: Option<wal::Vote>,
    }

    impl Held {
        /// Entries from 0 on: those before `until` of this term, and so on.
        fn of(terms: &[(u64, u64)]) -> Self {
            let mut entries: Vec<wal::LogId> = Vec::new();
            for (term, until) in terms {
                let from = entries.len() as u64;
                entries.extend((from..*until).map(|index| id(*term, index)));
            }
            let vote = terms.last().map(|(term, _)| vote(*term, true));
            Self {
                entries,
                vote,
                ..Self::default()
            }
        }

        fn committed(mut self, term: u64, index: u64) -> Self {
            self.committed = Some(id(term, index));
            self
        }

        fn purged(mut self, term: u64, index: u64) -> Self {
            self.purged = Some(id(term, index));
            self
        }

        fn voted(mut self, term: u64, committed: bool) -> Self {
            self.vote = Some(vote(term, committed));
            self
        }

        async fn log(self) -> Arc<dyn wal::Log> {
            let world = sim_world::world(1, &SimClock::new(), &SimDisk::new(1));
            let metrics = wal::Metrics::new(&prometheus::Registry::new()).unwrap();
            let options = wal::Options::default();
            let opened = wal::SegmentedLog::open(&world, Path::new("log"), options, metrics).await;
            let (log, _) = opened.unwrap_or_else(|_| panic!("an empty disk opens"));
            let blank = |id| wal::Entry {
                id,
                payload: Bytes::new(),
            };
            if let Some(vote) = self.vote {
                log.save_vote(GROUP, vote).await.unwrap();
            }
            let entries = self.entries.into_iter().map(blank).collect();
            log.append(GROUP, entries, Box::new(|done| done.unwrap()))
                .await
                .unwrap();
            log.save_committed(GROUP, self.committed).await.unwrap();
            if let Some(purged) = self.purged {
                log.purge(GROUP, purged).await.unwrap();
            }
            log
        }
    }

    async fn fit(log: &dyn wal::Log) -> Result<Fit, String> {
        let floor = floor(&log.state(GROUP), 0);
        Fit::of(log, GROUP, AT, floor).await
    }

    /// What Raft makes of the log and the peer's state: the last entry, the last applied one, and the vote.
    async fn begun(log: Arc<dyn wal::Log>) -> Result<(wal::LogId, wal::LogId, wal::Vote), String> {
        let mut machine = StateMachine::new(Arc::new(Loaded(AtomicU64::new(AT.index)))).unwrap();
        machine.replay(&*log, GROUP).await.unwrap();
        let mut store = LogStore::new(log.clone(), GROUP);
        let state = StorageHelper::new(&mut store, &mut machine)
            .with_id(1)
            .get_initial_state()
            .await
            .map_err(|e| e.to_string())?;
        let vote = store.read_vote().await.unwrap().expect("saved");
        assert_eq!(state.vote_ref(), &vote);
        let last = store.get_log_state().await.unwrap().last_log_id;
        let last = last.expect("some");
        let applied = openraft::storage::RaftStateMachine::applied_state(&mut machine).await;
        let applied = applied.unwrap().0.expect("some");
        let vote = crate::raft::types::vote_to_wal(&vote);
        assert_eq!(vote_from_wal(vote), *state.vote_ref());
        Ok((log_id_to_wal(&last), log_id_to_wal(&applied), vote))
    }

    #[tokio::test]
    async fn a_log_that_goes_with_the_state_is_kept_and_any_other_gives_way() {
        let cut = |fit: &Fit| fit.cut;
        // (log, where it is cut, what Raft then has: last, applied, vote)
        let cases = [
            // Nothing was ever here.
            (Held::default(), None, AT, AT, vote(4, true)),
            // It ends before.
            (
                Held::of(&[(3, 8)]).committed(3, 5),
                None,
                AT,
                AT,
                vote(4, true),
            ),
            // It goes on behind, and some of that was committed.
            (
                Held::of(&[(3, 10), (4, 14)]).committed(4, 12).purged(3, 6),
                None,
                id(4, 13),
                id(4, 12),
                vote(4, true),
            ),
            // It is purged up to there, or to just before.
            (
                Held::of(&[(3, 10), (4, 12)]).committed(4, 10).purged(4, 10),
                None,
                id(4, 11),
                AT,
                vote(4, true),
            ),
            // It ends with what another leader never got committed.
            (
                Held::of(&[(3, 14)]).committed(3, 8),
                Some(Some(id(3, 9))),
                AT,
                AT,
                vote(4, true),
            ),
            (
                Held::of(&[(3, 14)]).committed(3, 9).purged(3, 9),
                Some(Some(id(3, 9))),
                AT,
                AT,
                vote(4, true),
            ),
            // It has promised more than it has seen.
            (
                Held::of(&[(3, 8)]).voted(6, false),
                None,
                AT,
                AT,
                vote(6, false),
            ),
            // A snapshot from the leader came just before, and is not noted here yet.
            (
                Held::of(&[(3, 8)]).committed(4, 10),
                None,
                AT,
                AT,
                vote(4, true),
            ),
        ];
        for (nth, (held, cut_behind, last, applied, voted)) in cases.into_iter().enumerate() {
            let log = held.log().await;
            let fit = fit(&*log)
                .await
                .unwrap_or_else(|why| panic!("{nth}: {why}"));
            assert_eq!(cut(&fit), cut_behind, "{nth}");
            fit.make(&*log, GROUP).await.unwrap();
            let begun = begun(log)
                .await
                .unwrap_or_else(|why| panic!("{nth}: {why}"));
            assert_eq!(begun, (last, applied, voted), "{nth}");
        }
    }

    #[tokio::test]
    async fn raft_does_not_begin_with_a_tail_of_another_leader() {
        let log = Held::of(&[(3, 14)]).committed(3, 8).log().await;
        assert!(begun(log).await.is_err(), "so it is cut before");
    }

    #[tokio::test]
    async fn a_state_that_leaves_a_gap_or_contradicts_the_log_is_not_taken() {
        let cases = [
            // Entries 11 are purged.
            Held::of(&[(3, 10), (4, 14)]).committed(4, 12).purged(4, 11),
            // What was committed lies behind, and is not in the log.
            Held::of(&[(3, 8)]).committed(4, 12),
            // Another entry was committed in the same place.
            Held::of(&[(3, 14)]).committed(3, 10),
            Held::of(&[(3, 14)]).committed(3, 10).purged(3, 10),
            // A later leader began before there.
            Held::of(&[(3, 8), (5, 9)]),
            Held::of(&[(3, 8), (5, 14)]),
        ];
        for (nth, held) in cases.into_iter().enumerate() {
            let log = held.log().await;
            let before = log.state(GROUP);
            assert!(fit(&*log).await.is_err(), "{nth}");
            assert_eq!(log.state(GROUP), before);
        }
        // Nor one that ends before what the files here held.
        let log = Held::of(&[(3, 10), (4, 14)]).log().await;
        let floor = floor(&log.state(GROUP), AT.index + 1);
        assert!(Fit::of(&*log, GROUP, AT, floor).await.is_err());
    }

    #[test]
    fn a_state_must_reach_to_where_the_log_begins() {
        assert!(gap(None, None).is_none() && gap(Some(3), None).is_none());
        assert!(gap(Some(7), Some(id(1, 7))).is_none());
        for held in [None, Some(6)] {
            let gap = std::io::Error::from(gap(held, Some(id(1, 7))).expect("a gap"));
            assert!(super::super::mending::is_damage(&gap));
        }
    }

    #[test]
    fn a_state_is_asked_for_by_what_it_must_hold() {
        assert_eq!(index_in(&name_of(7)), Some(7));
        for name in [
            "manifest",
            "manifest-7",
            "block-00000000000000000007",
            "manifest-",
        ] {
            assert_eq!(index_in(name), None, "{name}");
        }
    }
}
