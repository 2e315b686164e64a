//! One shard: its state behind a lock, its files behind another.
//!
//! Order of locks: the files' lock is taken first and may be held across waits; the state's lock
//! is held briefly and never across one. Whatever removes or replaces a file holds the files' lock.
//!
//! Applying is `async` for one reason: sealed blocks on disk may decide the answer, on every replica alike. A row older
//! than its series' newest sample may be stored there already, a new label set may be that of a series that rests there.
//! That is read before the state is touched (`preparing`); without such rows nothing waits.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use model::group::{Group, GroupingKey, PushOp, PushOptions};
use model::limits::{COLLECT_SERIES_MAX, SUSPECTS_MAX};
use model::port::{Disk, World};
use model::sink::Reason;
use model::{FamilyMetadata, Labels, SeriesId, Timestamp};
use tokio::sync::{Mutex, MutexGuard};
use tracing::info;

use crate::block::{self, Frozen, IndexCheck, Meta, Reader, Root, Sealed, Tables, Walk};
use crate::by_id::ById;
use crate::cardinality::Cardinality;
use crate::checkpoint;
use crate::collecting::Look;
use crate::command::{AddCommand, Command};
use crate::compaction::Candidate;
use crate::digest;
use crate::error::{ApplyError, InstallError, OpenError, StorageError};
use crate::file::{FileEntry, FileKind, checkpoint_bytes, remove_dir_if_there, remove_if_there};
use crate::gathered::{Gathered, Handles};
use crate::head::Taken;
use crate::loading::{load, load_block, not_as_registered, open_manifest, remove_leftovers};
use crate::manifest::{self, Manifest};
use crate::metrics::Metrics;
use crate::part::{self, Column, Part};
use crate::retention::{BlockRange, Held};
use crate::sealing::{self, Unsealed};
use crate::snapshot::{self, Released, SnapshotFiles};
use crate::state::{Cleaned, Entry, Outcome, Prepared, Replayed, Run, State, sums_of};

/// Where in the log a set of files stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Everything up to this index is in the files.
    pub index: u64,
    /// What the log's owner wants kept beside it.
    pub opaque: Bytes,
}

/// Sizes, for metrics and for deciding when to seal and checkpoint.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    pub applied_index: u64,
    pub series: u64,
    /// How many were ever registered; one that comes back after it was forgotten counts again.
    pub series_ever: u64,
    /// How many that rested came back since the shard was opened.
    pub series_returned: u64,
    pub groups: u64,
    pub head_samples: u64,
    /// Of the head's compressed samples.
    pub head_bytes: u64,
    pub head_range: Option<(Timestamp, Timestamp)>,
    pub blocks: u64,
    pub block_samples: u64,
    /// Of block files; blocks not written yet count nothing.
    pub block_bytes: u64,
    /// The newest sample ever stored.
    pub max_time: Option<Timestamp>,
    /// The furthest cut of any seal.
    pub sealed_before: Option<Timestamp>,
}

/// One shard on one disk.
pub struct Shard {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    metrics: Arc<Metrics>,
    tables: Arc<Tables>,
    state: RwLock<State>,
    /// What is durable, as of the manifest on disk.
    durable: RwLock<Durable>,
    files: Mutex<Files>,
    released: Released,
    /// Files in which reading found damage.
    suspects: std::sync::Mutex<BTreeSet<String>>,
    digests: digest::Kept,
}

/// What a manifest says.
#[derive(Debug, Clone)]
struct Durable {
    position: Option<Position>,
    checkpoint_bytes: u64,
}

impl Durable {
    fn of(manifest: &Manifest) -> Self {
        Self {
            position: manifest.position.clone(),
            checkpoint_bytes: checkpoint_bytes(&manifest.files),
        }
    }
}

/// What the files' lock protects.
pub(crate) struct Files {
    manifest: Manifest,
    pins: u64,
}

impl Files {
    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

impl Shard {
    /// Opens the shard in `dir`, a directory of its own; a new one holds nothing. The caller then
    /// applies the log from behind [`Shard::position`].
    pub async fn open(
        world: &World,
        dir: PathBuf,
        metrics: Arc<Metrics>,
        tables: Arc<Tables>,
    ) -> Result<Self, OpenError> {
        let disk = world.disk.clone();
        let manifest = open_manifest(&*disk, &dir).await?;
        remove_leftovers(&*disk, &dir, &manifest)
            .await
            .map_err(|e| StorageError::io("clean", dir.to_string_lossy(), e))?;
        let state = load(&disk, &dir, &manifest, &tables)
            .await
            .inspect_err(|e| count_corruption(&metrics, e))?;
        info!(dir = %dir.display(), index = state.applied_index(), series = state.table().len(), "shard open");
        Ok(Self {
            disk,
            dir,
            metrics,
            tables,
            state: RwLock::new(state),
            durable: RwLock::new(Durable::of(&manifest)),
            files: Mutex::new(Files { manifest, pins: 0 }),
            released: Released::default(),
            suspects: std::sync::Mutex::default(),
            digests: digest::Kept::default(),
        })
    }

    /// Makes durable the names that [`Shard::open`] found: a process that was killed right behind renaming a
    /// manifest did not. Until then a power cut may bring the state before it back, so nothing may be told or
    /// forgotten that [`Shard::position`] stands for.
    pub async fn keep_names(&self) -> io::Result<()> {
        self.disk.flush_dir(&self.dir).await
    }

    /// Of the last durable checkpoint, loaded, written or installed.
    pub fn position(&self) -> Option<Position> {
        self.durable().position
    }

    /// Applies one entry of the log; `index` must be above all before. On an error nothing has
    /// changed and the replica cannot go on.
    ///
    /// Commands are applied one at a time: the caller waits for one before it begins the next.
    pub async fn apply(&self, index: u64, command: &Command) -> Result<Outcome, ApplyError> {
        if let Command::Clean(clean) = command {
            return self.clean(index, clean.block, command).await;
        }
        let prepared = self.prepare(command).await?;
        let outcome = self.apply_prepared(index, command, &prepared);
        let rows = match command {
            Command::Write(write) | Command::Add(AddCommand { write, .. }) => write.rows.len(),
            _ => 0,
        };
        if let Outcome::Written { rejected } = &outcome {
            let stored = rows - rejected.len();
            self.count(stored as u64, rejected.iter().map(|r| r.reason));
        }
        Ok(outcome)
    }

    fn apply_prepared(&self, index: u64, command: &Command, prepared: &Prepared) -> Outcome {
        self.write(|state| {
            let outcome = state.apply(index, command, prepared);
            self.digests.note_step(index, || state.digest());
            outcome
        })
    }

    fn count(&self, stored: u64, refused: impl Iterator<Item = Reason>) {
        self.metrics.samples_applied.inc_by(stored);
        refused.for_each(|reason| self.metrics.rejected(reason).inc());
    }

    /// Applies entries of the log, in order, that nobody waits for: as [`Shard::apply`] would one after the
    /// other, and with less work the more there are in a batch. Commands are as [`Command::encode`] gives
    /// them.
    ///
    /// # Errors
    /// As [`Shard::apply`], or bytes that are no command; entries before the one concerned are applied.
    pub async fn replay(
        &self,
        mut batches: impl Stream<Item = io::Result<Vec<Entry>>> + Unpin,
    ) -> io::Result<()> {
        let mut run = Run::default();
        let replayed = self.replay_all(&mut batches, &mut run).await;
        // Also what stands before an error.
        let mut settled = Replayed::default();
        self.write(|state| state.settle(&mut run, &mut settled));
        self.count(settled.stored, settled.refused.into_iter());
        replayed
    }

    async fn replay_all(
        &self,
        batches: &mut (impl Stream<Item = io::Result<Vec<Entry>>> + Unpin),
        run: &mut Run,
    ) -> io::Result<()> {
        while let Some(entries) = batches.try_next().await? {
            self.replay_batch(&entries, run).await?;
        }
        Ok(())
    }

    async fn replay_batch(&self, mut entries: &[Entry], run: &mut Run) -> io::Result<()> {
        loop {
            let replayed = self.write(|state| state.replay(entries, run));
            self.count(replayed.stored, replayed.refused.into_iter());
            entries = &entries[replayed.entries..];
            let (Some(command), Some(((index, _), rest))) = (replayed.next, entries.split_first())
            else {
                return Ok(());
            };
            let command = command.map_err(io::Error::other)?;
            self.apply(*index, &command).await?;
            entries = rest;
        }
    }

    /// Writes what is left of a block as a new file before it goes on, so that of many blocks
    /// cleaned one after another one at a time is in memory. No checkpoint is taken meanwhile: it
    /// would write the new block too.
    async fn clean(
        &self,
        index: u64,
        block: u64,
        command: &Command,
    ) -> Result<Outcome, ApplyError> {
        let _files = self.files.lock().await;
        let cleaned = match self.read(|state| state.remains(block)) {
            Some(remains) => self.read_block(index, remains).await?,
            None => None,
        };
        let prepared = Prepared {
            cleaned,
            ..Prepared::default()
        };
        let outcome = self.apply_prepared(index, command, &prepared);
        if let Some(Cleaned { frozen, labels }) = prepared.cleaned {
            let labels_of = |id: SeriesId| {
                let place = labels.binary_search_by_key(&id, |(id, _)| *id).ok()?;
                Some(labels[place].1.clone())
            };
            let stored = self.store(&frozen, labels_of).await;
            stored.map_err(|e| StorageError::io("write", "a cleaned block", e))?;
        }
        Ok(outcome)
    }

    /// A block of what was gathered.
    async fn read_block(
        &self,
        id: u64,
        gathered: Gathered,
    ) -> Result<Option<Cleaned>, StorageError> {
        let found = gathered.found().await.map_err(|e| self.note(e))?;
        let (mut series, mut label_sets) = (Vec::new(), Vec::new());
        for Handles {
            id, labels, parts, ..
        } in found
        {
            let column = part::collect(&parts, Timestamp::MIN, Timestamp::MAX).await;
            let column = column.map_err(|e| self.note(e))?;
            if !column.is_empty() {
                series.push((id, Taken::of(column)));
                label_sets.push((id, labels));
            }
        }
        Ok(Frozen::new(id, series).map(|frozen| Cleaned {
            frozen: Arc::new(frozen),
            labels: label_sets,
        }))
    }

    /// Ids of blocks of which something is deleted and not cleaned.
    pub fn unclean_blocks(&self) -> Vec<u64> {
        self.read(State::unclean)
    }

    /// Notes an entry of the log that holds no command.
    pub fn advance(&self, index: u64) {
        self.write(|state| {
            state.advance(index);
            self.digests.note_step(index, || state.digest());
        });
    }

    pub fn applied_index(&self) -> u64 {
        self.read(State::applied_index)
    }

    /// The id of a registered series.
    pub fn resolve(&self, labels: &Labels) -> Option<SeriesId> {
        self.read(|state| state.table().resolve(labels))
    }

    /// [`Shard::resolve`] for many, as of one state.
    pub fn resolve_all(&self, labels: &[Labels]) -> Vec<Option<SeriesId>> {
        self.read(|state| labels.iter().map(|l| state.table().resolve(l)).collect())
    }

    /// Counts rows that were refused before they became a command.
    pub fn note_refused(&self, reason: Reason, rows: usize) {
        self.metrics.rejected(reason).inc_by(rows as u64);
    }

    /// How many series are registered.
    pub fn series_count(&self) -> usize {
        self.read(|state| state.table().len())
    }

    /// The newest sample ever stored.
    pub fn max_time(&self) -> Option<Timestamp> {
        self.read(State::max_time)
    }

    /// Series that a [`CollectCommand`](crate::CollectCommand) would take out of the register, ascending and as many
    /// as it may have, and where to go on if they are not all. Looks at a few at a time.
    pub async fn idle_series(&self, look: Look) -> (Vec<SeriesId>, Option<SeriesId>) {
        let mut idle: Vec<SeriesId> = Vec::new();
        let mut from = Some(look.from);
        while let Some(first) = from.filter(|_| idle.len() < COLLECT_SERIES_MAX) {
            let left = COLLECT_SERIES_MAX - idle.len();
            let (found, next) = self.read(|state| state.look_for_idle(look.before, first, left));
            idle.extend(found);
            from = next;
            tokio::task::yield_now().await;
        }
        (idle, from)
    }

    /// First and last instant of samples that no seal has taken.
    pub fn head_range(&self) -> Option<(Timestamp, Timestamp)> {
        self.read(|state| state.head().stats().range)
    }

    /// What decides about the next seal, without looking at any series; `None` before the first sample.
    pub fn sealing(&self) -> Option<sealing::View> {
        self.read(|state| {
            Some(sealing::View {
                begins: state.head().begins()?,
                newest: state.max_time()?,
                sealed_before: state.sealed_before(),
            })
        })
    }

    /// Walks all series: for whoever asks now and then.
    pub fn stats(&self) -> Stats {
        self.read(|state| {
            let head = state.head().stats();
            let sealed = state.sealed();
            Stats {
                applied_index: state.applied_index(),
                series: state.table().len() as u64,
                series_ever: state.table().given(),
                series_returned: state.resting().returned(),
                groups: state.groups().len() as u64,
                head_samples: head.samples,
                head_bytes: head.bytes,
                head_range: head.range,
                blocks: sealed.len() as u64,
                block_samples: sealed.iter().map(Sealed::samples).sum(),
                block_bytes: sealed.iter().map(Sealed::file_bytes).sum(),
                max_time: state.max_time(),
                sealed_before: state.sealed_before(),
            }
        })
    }

    /// What labels the head's series carry. Walks all series.
    pub fn cardinality(&self) -> Cardinality {
        self.read(Cardinality::of)
    }

    /// Sealed blocks, for [`retention::choose`](crate::retention::choose).
    pub fn block_ranges(&self) -> Vec<BlockRange> {
        self.read(|state| {
            let sealed = state.sealed().iter();
            sealed
                .map(|block| range_of(block, block.file_bytes()))
                .collect()
        })
    }

    /// What the shard takes, for [`retention::fit`](crate::retention::fit), as of the last checkpoint: while the next
    /// one is written, what the head held stands in the files of both.
    pub fn held(&self) -> Held {
        let durable = self.durable();
        let index = durable.position.map_or(0, |position| position.index);
        let bytes_of = |block: &Sealed| {
            let leaves = block.leaves().iter();
            let settled = leaves.filter(|leaf| leaf.id() <= index);
            settled.map(Sealed::file_bytes).sum()
        };
        let blocks = self.read(|state| {
            let sealed = state.sealed().iter();
            sealed
                .map(|block| range_of(block, bytes_of(block)))
                .collect()
        });
        Held {
            blocks,
            other_bytes: durable.checkpoint_bytes,
        }
    }

    /// Whether some blocks count as one whose file is not written yet.
    pub fn is_merging(&self) -> bool {
        self.read(State::is_merging)
    }

    /// Whether [`Shard::merge_one`] would write one.
    pub fn has_merge(&self) -> bool {
        self.read(|state| state.next_merge().is_some())
    }

    /// Sealed blocks, for [`compaction::choose`](crate::compaction::choose).
    pub fn candidates(&self) -> Vec<Candidate> {
        self.read(|state| {
            let unclean = state.unclean();
            let candidates = state.sealed().iter().map(|block| Candidate {
                id: block.id(),
                min: block.range().0,
                max: block.range().1,
                bytes: block.file_bytes(),
                unclean: unclean.contains(&block.id()),
            });
            candidates.collect()
        })
    }

    pub fn group(&self, key: &GroupingKey) -> Option<Group> {
        self.read(|state| state.groups().get(key).cloned())
    }

    /// Whether a push brings no series that is new to its group, nor as another type.
    pub fn holds(&self, key: &GroupingKey, op: &PushOp, options: PushOptions) -> bool {
        self.read(|state| state.groups().holds(key, op, options))
    }

    /// What a push on this group, wherever it lives, contradicts in the groups of this shard.
    pub fn conflict(&self, key: &GroupingKey, op: &PushOp) -> Option<String> {
        self.read(|state| state.groups().conflict(key, op))
    }

    /// Groups whose time to live is over at `now`.
    pub fn expired_groups(&self, now: Timestamp) -> Vec<GroupingKey> {
        self.read(|state| state.groups().expired(now))
    }

    /// All groups, by key.
    pub fn groups(&self) -> Vec<Group> {
        self.read(|state| state.groups().iter().cloned().collect())
    }

    /// What the log and the pushed groups say of all families, or of one; in order, each once.
    pub fn described(&self, family: Option<&str>) -> Vec<FamilyMetadata> {
        self.read(|state| {
            let pushed = state.groups().described(family);
            let told = state.descriptions().of(family).cloned();
            let all: BTreeSet<_> = told.chain(pushed).collect();
            all.into_iter().collect()
        })
    }

    /// Those of `families` that were not told at `since` or later.
    pub fn untold(&self, families: &[FamilyMetadata], since: Timestamp) -> Vec<FamilyMetadata> {
        self.read(|state| state.descriptions().untold(families, since))
    }

    /// One word for the logical content: series with their ids, samples, groups, fences, metadata.
    /// Equal on replicas at the same index, however their chunks and files lie.
    pub fn digest(&self) -> u64 {
        self.read(State::digest)
    }

    /// The index of the log that is applied, and the digest there.
    pub fn digest_now(&self) -> (u64, u64) {
        self.read(|state| (state.applied_index(), state.digest()))
    }

    /// Digests by index of the log: that of now and some before, since the shard was opened.
    pub fn digests(&self) -> Vec<(u64, u64)> {
        let (index, digest) = self.digest_now();
        self.digests.note(index, digest);
        self.digests.all()
    }

    /// Reads every byte of every block and checks that head and blocks together still hold what
    /// the digest says was applied.
    pub async fn verify(&self) -> Result<(), StorageError> {
        let (image, sealed) = self.read(|state| (state.image(), state.sealed().to_vec()));
        let corrupt = |reason: &str| {
            self.note(StorageError::corrupt(
                self.dir.to_string_lossy(),
                "head",
                reason,
            ))
        };
        let mut sums = sums_of(&image).map_err(|e| corrupt(&e.to_string()))?;
        for block in sealed {
            for reader in block.readers() {
                let found = self.verify_block(reader, &image.labels).await;
                reader.forget_page();
                found.map_err(|e| self.note(e))?;
            }
            sums.add_samples(block.digest());
        }
        match sums == image.sums {
            true => Ok(()),
            false => Err(corrupt("content differs from what was applied")),
        }
    }

    /// Writes sealed blocks, the head and a manifest, and returns the position they stand for:
    /// everything applied when it began. `opaque` is asked under the state's lock, with the
    /// applied index, so that what it returns belongs to that state. Applying goes on meanwhile.
    ///
    /// After an error the files are in an unknown state: stop the node.
    pub async fn checkpoint(
        &self,
        opaque: impl FnOnce(u64) -> Bytes + Send,
    ) -> io::Result<Position> {
        let mut files = self.files.lock().await;
        self.remove_released().await?;
        let (image, resting, sealed, position) = self.read(|state| {
            let index = state.applied_index();
            let opaque = opaque(index);
            (
                state.image(),
                state.resting().unwritten().clone(),
                state.sealed().to_vec(),
                Position { index, opaque },
            )
        });
        let labels_of = |id: SeriesId| {
            let labels = image.labels.get(id).or_else(|| resting.get(&id));
            labels.cloned()
        };
        let mut entries = Vec::with_capacity(sealed.len() + 1);
        for block in sealed.iter().flat_map(Sealed::leaves) {
            entries.push(match block {
                Sealed::Stored(reader) => reader.file().clone(),
                Sealed::Frozen(frozen) => self.store(frozen, labels_of).await?,
                Sealed::Merged(_) => unreachable!("merged blocks are taken apart"),
            });
        }
        let entry = checkpoint::write(&*self.disk, &self.dir, &image, &entries).await?;
        self.metrics.checkpoints.inc();
        self.metrics.checkpoint_bytes.inc_by(entry.len);
        entries.push(entry);
        // The names of all new files before the one that makes them count.
        self.disk.flush_dir(&self.dir).await?;
        let next = Manifest {
            position: Some(position.clone()),
            files: entries,
        };
        next.write(&*self.disk, &self.dir).await?;
        let before = std::mem::replace(&mut files.manifest, next);
        self.set_durable(&files.manifest);
        self.sweep(&before, &files.manifest).await?;
        Ok(position)
    }

    /// Writes the file of one of the blocks that the log made one, if there are such; whether it
    /// did. Applying and checkpoints go on meanwhile; the old files stay until a checkpoint names
    /// the new one. A crash in between leaves what was before.
    ///
    /// An error leaves everything as it is; bytes that rotted are found before they are copied.
    pub async fn merge_one(&self) -> Result<bool, StorageError> {
        let found = self.read(|state| {
            let merged = state.next_merge()?;
            Some((merged, state.table().all().clone()))
        });
        let Some((merged, labels)) = found else {
            return Ok(false);
        };
        let io = |e| StorageError::io("write", "a merged block", e);
        let writer = block::Writer::create_merged(&*self.disk, &self.dir, merged.id());
        let mut writer = writer.await.map_err(io)?;
        let one = Sealed::Merged(merged.clone());
        let walks = one.readers().map(|reader| (reader, Walk::new(reader)));
        let mut walks: Vec<(&Arc<Reader>, Walk<'_>)> = walks.collect();
        for id in merged.series() {
            let column = read_series(&mut walks, id).await;
            let column = column.map_err(|e| self.note(e))?;
            let labels = match labels.get(id) {
                Some(labels) => labels.clone(),
                None => read_labels(&mut walks, id)
                    .await
                    .map_err(|e| self.note(e))?,
            };
            writer.add(id, labels, &column).await.map_err(io)?;
            // Pages and files in the machine's cache make nobody wait: others take their turns here.
            tokio::task::yield_now().await;
        }
        if writer.digest() != one.digest() {
            let reason = "digest differs from that of the blocks it is made of";
            let found = StorageError::corrupt(merged.id().to_string(), "merged block", reason);
            return Err(self.note(found));
        }
        let (entry, meta, root) = writer.finish().await.map_err(io)?;
        self.metrics.blocks_merged.inc();
        self.metrics.block_bytes.inc_by(entry.len);
        self.stored(entry, (meta, root));
        Ok(true)
    }

    /// The files of the last checkpoint, pinned. `NotFound` before the first one.
    pub async fn snapshot(&self) -> io::Result<SnapshotFiles> {
        let mut files = self.files.lock().await;
        self.remove_released().await?;
        let Manifest {
            position,
            files: entries,
        } = files.manifest.clone();
        let position = position
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no checkpoint was written"))?;
        files.pins += 1;
        let name = format!("{:020}-{}", position.index, files.pins);
        let dir = self.dir.join(snapshot::DIR).join(name);
        remove_dir_if_there(&*self.disk, &dir).await?;
        self.disk.create_dir_all(&dir).await?;
        // Made before the links: if one fails, dropping it cleans up.
        let pinned = SnapshotFiles::new(
            position,
            entries,
            dir.clone(),
            self.disk.clone(),
            self.released.clone(),
        );
        for entry in &pinned.files {
            let from = self.dir.join(&entry.name);
            self.disk.link(&from, &dir.join(&entry.name)).await?;
        }
        Ok(pinned)
    }

    /// The files of the last checkpoint: a peer need not send those again.
    pub async fn files(&self) -> Vec<FileEntry> {
        self.files.lock().await.manifest.files.clone()
    }

    /// Puts a snapshot's files in the place of this shard's, on disk and in memory. Each file is
    /// taken from `staged`, or from the shard itself when it is not there, and read whole first;
    /// `staged` stays the caller's. Until the manifest is replaced the old state stands. Nothing may
    /// be applied meanwhile.
    pub async fn install(
        &self,
        staged: &Path,
        files: &[FileEntry],
        position: Position,
    ) -> Result<(), InstallError> {
        let mut own = self.files.lock().await;
        for entry in files {
            let adopted = entry.adopt(&*self.disk, staged, &self.dir).await;
            adopted.map_err(|e| self.note(e))?;
        }
        let io = |e| StorageError::io("install", manifest::NAME, e);
        self.disk.flush_dir(&self.dir).await.map_err(io)?;
        let next = Manifest {
            position: Some(position),
            files: files.to_vec(),
        };
        let state = load(&self.disk, &self.dir, &next, &self.tables)
            .await
            .map_err(|e| self.note(e))?;
        next.write(&*self.disk, &self.dir).await.map_err(io)?;
        let before = std::mem::replace(&mut own.manifest, next);
        self.write(|current| {
            let before = std::mem::replace(current, state);
            current.retire(before);
        });
        self.set_durable(&own.manifest);
        self.sweep(&before, &own.manifest).await.map_err(io)
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.read().expect(UNPOISONED))
    }

    fn write<T>(&self, write: impl FnOnce(&mut State) -> T) -> T {
        write(&mut self.state.write().expect(UNPOISONED))
    }

    fn durable(&self) -> Durable {
        self.durable.read().expect(UNPOISONED).clone()
    }

    fn set_durable(&self, manifest: &Manifest) {
        *self.durable.write().expect(UNPOISONED) = Durable::of(manifest);
    }

    /// Counts an error on its way out; whoever ends it logs it.
    pub(crate) fn note(&self, error: StorageError) -> StorageError {
        count_corruption(&self.metrics, &error);
        if let StorageError::Corrupt { file, .. } = &error {
            let mut suspects = self.suspects.lock().expect("no panic under this lock");
            if suspects.len() < SUSPECTS_MAX {
                suspects.insert(file.clone());
            }
        }
        error
    }

    pub(crate) async fn load_block(
        &self,
        id: u64,
        entry: &FileEntry,
        labels: &ById<Labels>,
    ) -> Result<Arc<Reader>, StorageError> {
        load_block(
            &self.disk,
            &self.dir,
            (id, entry.clone()),
            labels,
            &self.tables,
        )
        .await
    }

    /// Reads go to the file that was just written from now on.
    fn stored(&self, entry: FileEntry, known: (Meta, Root)) {
        let reader = Reader::new(self.disk.clone(), &self.dir, entry, known, &self.tables);
        self.take_stored(Arc::new(reader));
    }

    /// Reads go to this file from now on.
    pub(crate) fn take_stored(&self, reader: Arc<Reader>) {
        self.write(|state| state.block_stored(reader));
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn suspects(&self) -> &std::sync::Mutex<BTreeSet<String>> {
        &self.suspects
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) async fn lock_files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().await
    }

    /// Writes one sealed block; once its bytes are durable, reads go to the file. Its name becomes
    /// durable with the checkpoint's, before any manifest holds it.
    async fn store(
        &self,
        frozen: &Frozen,
        labels_of: impl Fn(SeriesId) -> Option<Labels>,
    ) -> io::Result<FileEntry> {
        let labels_of = |id: SeriesId| labels_of(id).expect(REGISTERED);
        let (entry, meta, root) = block::write(&*self.disk, &self.dir, frozen, labels_of).await?;
        self.metrics.blocks_written.inc();
        self.metrics.block_bytes.inc_by(entry.len);
        self.stored(entry.clone(), (meta, root));
        Ok(entry)
    }

    /// Removes the files that only the manifest `before` named, and retired blocks.
    async fn sweep(&self, before: &Manifest, now: &Manifest) -> io::Result<()> {
        let old = before.files.iter().filter(|file| {
            matches!(file.kind(), Some(FileKind::Checkpoint(_))) && !now.contains(&file.name)
        });
        let mut doomed: Vec<String> = old.map(|file| file.name.clone()).collect();
        doomed.extend(self.write(|state| state.take_unused(|name| now.contains(name))));
        for name in doomed {
            remove_if_there(&*self.disk, &self.dir.join(name)).await?;
        }
        Ok(())
    }

    async fn remove_released(&self) -> io::Result<()> {
        for dir in self.released.take() {
            remove_dir_if_there(&*self.disk, &dir).await?;
        }
        Ok(())
    }

    pub(crate) async fn verify_block(
        &self,
        reader: &Reader,
        registered: &ById<Labels>,
    ) -> Result<(), StorageError> {
        reader.file().verify(&*self.disk, &self.dir).await?;
        let mut sum = 0u64;
        let (mut ids, mut label_sets) = (reader.ids().iter(), reader.label_sets());
        let mut index = IndexCheck::new(reader);
        for nth in 0..reader.tables() {
            let (table, labels) = (reader.table(nth).await?, label_sets.next().await?);
            index.add(&labels).await?;
            let series: Vec<SeriesId> = ids.by_ref().take(table.count()).collect();
            let known = |(id, labels): (&SeriesId, &Labels)| {
                // Of one that rests the block alone knows.
                registered.get(*id).is_none_or(|own| own == labels)
            };
            if labels.len() != series.len() || !series.iter().zip(&labels).all(known) {
                return Err(not_as_registered(&reader.file().name));
            }
            for (place, id) in series.into_iter().enumerate() {
                for chunk in table.chunks(place) {
                    let column = reader.read(chunk).await?;
                    let floats = digest::samples(id, &column.floats);
                    let histograms = digest::histograms(id, &column.histograms);
                    sum = sum.wrapping_add(floats).wrapping_add(histograms);
                }
            }
        }
        match sum == reader.meta().digest {
            true => Ok(()),
            false => Err(StorageError::corrupt(
                &reader.file().name,
                "footer",
                "digest differs from the samples",
            )),
        }
    }
}

/// Walks all series.
impl Unsealed for Shard {
    fn oldest(&self) -> Option<Timestamp> {
        self.head_range().map(|(oldest, _)| oldest)
    }

    /// But for those in a chunk that reaches beyond.
    fn samples_before(&self, before: Timestamp) -> u64 {
        self.read(|state| state.head().samples_before(before))
    }
}

fn range_of(block: &Sealed, bytes: u64) -> BlockRange {
    let (min, max) = block.range();
    BlockRange { min, max, bytes }
}

const REGISTERED: &str = "what a block without a file holds is registered, or noted as resting";
/// A panic while the state changes leaves it half changed: every later use must stop too.
const UNPOISONED: &str = "a command panicked while it changed the shard";

fn count_corruption(metrics: &Metrics, found: &StorageError) {
    if let StorageError::Corrupt { .. } = found {
        metrics.corruptions.inc();
    }
}

/// The labels of a series that some of these files hold.
async fn read_labels(
    walks: &mut [(&Arc<Reader>, Walk<'_>)],
    id: SeriesId,
) -> Result<Labels, StorageError> {
    for (_, walk) in walks {
        if let Some(labels) = walk.labels(id).await? {
            return Ok(labels.clone());
        }
    }
    unreachable!("one of the files holds it")
}

/// All samples of a series in some files.
async fn read_series(
    walks: &mut [(&Arc<Reader>, Walk<'_>)],
    id: SeriesId,
) -> Result<Column, StorageError> {
    let mut parts = Vec::new();
    for (reader, walk) in walks {
        let chunks = walk.chunks(id).await?.iter();
        parts.extend(chunks.map(|&chunk| Part::Stored(Arc::clone(reader), chunk)));
    }
    part::collect(&parts, Timestamp::MIN, Timestamp::MAX).await
}
