//! [`SegmentedLog`]: the log as replicas use it. Checks each operation, changes the index, and
//! hands the operation to the writer.
//!
//! What stays true: an operation changes the index and enters the queue under one lock, so both
//! see operations in one order.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use model::limits::{LOG_QUEUE_BYTES_MAX, LOG_QUEUE_MAX};
use model::port::{Disk, Task, World};
use model::{GroupId, limits};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tracing::error;

use crate::index::{Index, Source};
use crate::record::{Change, RECORD_BYTES, Record};
use crate::recovery::{OpenError, Recovered, Recovery, recover};
use crate::run::Position;
use crate::segment::path_of;
use crate::writer::{Completion, Op, Shared, Writer};
use crate::{Done, Entry, GroupState, Log, LogId, Metrics, Vote};

/// Bounds of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// A segment is sealed once it has this many bytes.
    pub segment_bytes: u64,
    pub batch_bytes_max: usize,
    pub cache_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: limits::LOG_SEGMENT_BYTES,
            batch_bytes_max: limits::LOG_BATCH_BYTES_MAX,
            cache_bytes_max: limits::LOG_CACHE_BYTES_MAX,
        }
    }
}

/// Offsets in a segment are 32 bits wide; a segment ends after the batch that fills it.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
const APPEND_BYTES_MAX: usize = 1 << 30;

/// The log of one node: one directory, one writer.
///
/// A group in quarantine ([`Log::quarantined`]) shows an empty state and answers every operation
/// but [`Log::remove_group`] with an error of kind `InvalidData`, so its replica can neither vote
/// nor acknowledge. Removing it ends the quarantine.
pub struct SegmentedLog {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    shared: Arc<Shared>,
    queue: mpsc::Sender<Op>,
    room: Arc<Semaphore>,
    metrics: Metrics,
    _writer: Task,
}

impl SegmentedLog {
    /// Opens the log in `dir`, creating it if need be, and starts its writer. What it holds may be read
    /// at once; it is known to be durable when [`Log::settled`] says so.
    pub async fn open(
        world: &World,
        dir: &Path,
        options: Options,
        metrics: Metrics,
    ) -> Result<(Arc<Self>, Recovery), OpenError> {
        assert!(
            options.segment_bytes <= SEGMENT_BYTES_MAX
                && options.batch_bytes_max <= APPEND_BYTES_MAX,
            "positions hold 32-bit offsets"
        );
        let Recovered {
            states,
            runs,
            tail,
            rewrite,
            report,
        } = recover(&*world.disk, &*world.dice, dir).await?;
        let index = Index::new(states.groups, runs, states.lost, options.cache_bytes_max);
        metrics.segments.set(report.segments as i64);
        metrics.entries.set(index.entries() as i64);
        metrics.quarantined.set(report.quarantined.len() as i64);
        let shared = Arc::new(Shared {
            index: Mutex::new(index),
            failure: watch::Sender::new(None),
        });
        let (queue, receiver) = mpsc::channel(LOG_QUEUE_MAX);
        let writer = Writer {
            disk: world.disk.clone(),
            clock: world.clock.clone(),
            dir: dir.to_owned(),
            options,
            metrics: metrics.clone(),
            shared: shared.clone(),
            queue: receiver,
            tail,
            rewrite,
            carried: None,
        };
        let log = Self {
            disk: world.disk.clone(),
            dir: dir.to_owned(),
            shared,
            queue,
            room: Arc::new(Semaphore::new(LOG_QUEUE_BYTES_MAX)),
            metrics,
            _writer: world.spawn.spawn("log writer", Box::pin(writer.run())),
        };
        Ok((Arc::new(log), report))
    }

    /// Begins with what [`Log::settled`] waits for: until it is written, what was read of the last segment
    /// stays in memory.
    pub fn begin_settling(&self) {
        // A full queue has begun already.
        if let Ok(permit) = self.queue.try_reserve() {
            let done = Completion::none();
            permit.send(Op::Settle { done });
        }
    }

    /// Closes the log: returns when everything queued, committed marks too, is durable and the
    /// segment sealed, or when the log has failed. Later operations get errors.
    pub async fn closed(&self) {
        let (done, written) = completion();
        if let Ok(permit) = self.queue.reserve().await {
            permit.send(Op::Close { done });
            // An error here is the failure that `failure` tells.
            drop(written.await);
        }
    }

    /// Why nothing can be written any more; None while all is well.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure.borrow().clone()
    }

    /// Waits until the log can no longer be written; gives the reason. The node must end then.
    pub async fn failed(&self) -> String {
        let mut failure = self.shared.failure.subscribe();
        let failed = failure.wait_for(Option::is_some).await;
        // The guard must not live across the wait below.
        match failed.map(|why| why.clone().unwrap_or_default()) {
            Ok(why) => why,
            // Never: this log holds the sender.
            Err(_) => std::future::pending().await,
        }
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.shared.index.lock().expect("no holder panics")
    }

    async fn permit(&self) -> io::Result<mpsc::Permit<'_, Op>> {
        self.queue.reserve().await.map_err(|_| self.over())
    }

    /// The error of every operation once the writer has ended.
    fn over(&self) -> io::Error {
        let why = self.failure();
        io::Error::other(why.unwrap_or_else(|| "the log is closed".to_owned()))
    }

    async fn enqueue(&self, group: GroupId, entries: Vec<Entry>, done: Done) -> io::Result<()> {
        let done = Completion::new(done);
        let bytes: usize = entries.iter().map(|e| e.payload.len() + RECORD_BYTES).sum();
        if bytes > APPEND_BYTES_MAX {
            let why = format!("an append of {bytes} bytes to {group} is too large");
            return Err(refused(done, io::ErrorKind::InvalidInput, why));
        }
        let crcs = entries.iter().map(|e| crc32c::crc32c(&e.payload)).collect();
        let share = bytes.min(LOG_QUEUE_BYTES_MAX) as u32;
        let room = match self.room.clone().acquire_many_owned(share).await {
            Ok(room) => room,
            Err(_) => unreachable!("the semaphore is never closed"),
        };
        let permit = match self.permit().await {
            Ok(permit) => permit,
            Err(e) => return Err(refused(done, e.kind(), e.to_string())),
        };
        let mut index = self.index();
        if let Err(e) = usable(&index, group) {
            drop(index);
            return Err(refused(done, e.kind(), e.to_string()));
        }
        match index.append(group, &entries) {
            Ok(append) => {
                permit.send(Op::Append {
                    group,
                    append,
                    entries,
                    crcs,
                    done,
                    room,
                });
                Ok(())
            }
            Err(gap) => {
                drop(index);
                let why = format!("append to {group} leaves a gap: {gap:?}");
                Err(refused(done, io::ErrorKind::InvalidInput, why))
            }
        }
    }

    /// Queues what `change` makes of the index, and waits until it is durable.
    async fn change(
        &self,
        group: GroupId,
        change: impl FnOnce(&mut Index) -> io::Result<Change> + Send,
    ) -> io::Result<()> {
        let (done, written) = completion();
        let permit = self.permit().await?;
        {
            let mut index = self.index();
            let change = change(&mut index)?;
            let record = Record { group, change };
            permit.send(Op::Change { record, done });
        }
        written.await.map_err(|_| self.over())?
    }

    async fn fetch(&self, group: GroupId, plan: &[(LogId, Source)]) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::with_capacity(plan.len());
        let mut rest = plan;
        while let Some(((id, source), others)) = rest.split_first() {
            match source {
                Source::Memory(payload) => {
                    let payload = payload.clone();
                    entries.push(Entry { id: *id, payload });
                    rest = others;
                }
                Source::Disk(_) => {
                    let stretch = stretch_of(rest);
                    self.fetch_stretch(group, &stretch, &mut entries).await?;
                    rest = &rest[stretch.len()..];
                }
            }
        }
        Ok(entries)
    }

    /// Reads entries that lie close together in one go. What lies between them is of other groups: when
    /// it cannot be read, they are read one by one.
    async fn fetch_stretch(
        &self,
        group: GroupId,
        stretch: &[(LogId, Position)],
        entries: &mut Vec<Entry>,
    ) -> io::Result<()> {
        let first = &stretch[0].1;
        let bytes = match self.read_span(stretch).await {
            Err(_) if stretch.len() > 1 => {
                for one in stretch.chunks(1) {
                    let bytes = self.read_span(one).await?;
                    entries.push(self.checked(group, &one[0], &bytes, 0)?);
                }
                return Ok(());
            }
            bytes => bytes?,
        };
        for one in stretch {
            let from = (one.1.offset - first.offset) as usize;
            entries.push(self.checked(group, one, &bytes, from)?);
        }
        Ok(())
    }

    /// What was durable cannot be read: from now on, and as often as it is found so, the group is in quarantine.
    fn lose(&self, group: GroupId, why: &io::Error) {
        let mut index = self.index();
        if index.damage_of(group).is_none() {
            error!(%group, %why, "the log is damaged");
            index.damage(group, &why.to_string());
            self.metrics.quarantined.set(index.quarantined() as i64);
        }
    }

    /// The bytes from the first entry's to the last one's.
    async fn read_span(&self, stretch: &[(LogId, Position)]) -> io::Result<Bytes> {
        let (first, last) = (&stretch[0].1, &stretch[stretch.len() - 1].1);
        match (last.end() - u64::from(first.offset)) as usize {
            0 => Ok(Bytes::new()),
            len => {
                let path = path_of(&self.dir, first.segment);
                self.disk.read(&path, u64::from(first.offset), len).await
            }
        }
    }

    /// The entry that stands in `bytes` behind `from`.
    fn checked(
        &self,
        group: GroupId,
        (id, position): &(LogId, Position),
        bytes: &Bytes,
        from: usize,
    ) -> io::Result<Entry> {
        let to = from + position.len as usize;
        if to > bytes.len() || crc32c::crc32c(&bytes[from..to]) != position.crc {
            let why = format!(
                "{} offset {}: entry {} of {group} is damaged",
                path_of(&self.dir, position.segment).display(),
                position.offset,
                id.index
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let payload = bytes.slice(from..to);
        Ok(Entry { id: *id, payload })
    }
}

/// Bytes of other entries that are read too when they lie between two that are wanted: far less than
/// another read costs.
const GAP_BYTES_MAX: u64 = 32 << 10;
/// What is read in one go, as long as it is more than one entry.
const SPAN_BYTES_MAX: u64 = 8 << 20;

/// The entries at the front of `plan` that lie close together on disk.
fn stretch_of(plan: &[(LogId, Source)]) -> Vec<(LogId, Position)> {
    let mut stretch: Vec<(LogId, Position)> = Vec::new();
    for (id, source) in plan {
        let Source::Disk(position) = source else {
            break;
        };
        if let [(_, first), ..] = &stretch[..]
            && let Some((_, last)) = stretch.last()
        {
            let gap = u64::from(position.offset).checked_sub(last.end());
            let is_close = position.segment == last.segment
                && gap.is_some_and(|gap| gap <= GAP_BYTES_MAX)
                && position.end() - u64::from(first.offset) <= SPAN_BYTES_MAX;
            if !is_close {
                break;
            }
        }
        stretch.push((*id, *position));
    }
    stretch
}

/// A completion and what it wakes.
fn completion() -> (Completion, oneshot::Receiver<io::Result<()>>) {
    let (sender, receiver) = oneshot::channel();
    let done = Box::new(move |result| {
        // The caller may have stopped waiting.
        drop(sender.send(result));
    });
    (Completion::new(done), receiver)
}

/// Tells `done` and the caller the same.
fn refused(done: Completion, kind: io::ErrorKind, why: String) -> io::Error {
    done.run(Err(io::Error::new(kind, why.clone())));
    io::Error::new(kind, why)
}

fn usable(index: &Index, group: GroupId) -> io::Result<()> {
    match index.damage_of(group) {
        None => Ok(()),
        Some(what) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{group} is in quarantine: {what}"),
        )),
    }
}

#[async_trait]
impl Log for SegmentedLog {
    fn state(&self, group: GroupId) -> GroupState {
        self.index().state(group)
    }

    fn quarantined(&self, group: GroupId) -> Option<String> {
        self.index().damage_of(group).map(str::to_owned)
    }

    async fn settled(&self) -> io::Result<()> {
        let (done, settled) = completion();
        self.permit().await?.send(Op::Settle { done });
        settled.await.map_err(|_| self.over())?
    }

    async fn append(&self, group: GroupId, entries: Vec<Entry>, done: Done) -> io::Result<()> {
        self.enqueue(group, entries, done).await
    }

    async fn save_vote(&self, group: GroupId, vote: Vote) -> io::Result<()> {
        self.change(group, |index| {
            usable(index, group)?;
            index.held_mut(group).vote = Some(vote);
            Ok(Change::Vote(vote))
        })
        .await
    }

    async fn save_committed(&self, group: GroupId, committed: Option<LogId>) -> io::Result<()> {
        let permit = self.permit().await?;
        let mut index = self.index();
        usable(&index, group)?;
        index.held_mut(group).committed = committed;
        permit.send(Op::Mark { group, committed });
        Ok(())
    }

    async fn truncate_after(&self, group: GroupId, last: Option<LogId>) -> io::Result<()> {
        self.change(group, |index| {
            usable(index, group)?;
            Ok(Change::Truncate(index.truncate_after(group, last)))
        })
        .await
    }

    async fn purge(&self, group: GroupId, upto: LogId) -> io::Result<()> {
        let permit = self.permit().await?;
        let mut index = self.index();
        usable(&index, group)?;
        index.purge(group, upto);
        let change = Change::Purge(upto);
        permit.send(Op::Change {
            record: Record { group, change },
            done: Completion::none(),
        });
        Ok(())
    }

    async fn read(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: usize,
    ) -> io::Result<Vec<Entry>> {
        loop {
            if self.failure().is_some() {
                return Err(self.over());
            }
            let plan = {
                let index = self.index();
                usable(&index, group)?;
                index.plan(group, range.clone(), bytes_max)
            };
            match self.fetch(group, &plan).await {
                // Purged meanwhile, and its segment deleted: look again.
                Err(e)
                    if e.kind() == io::ErrorKind::NotFound
                        && self.index().plan(group, range.clone(), bytes_max) != plan => {}
                Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                    self.lose(group, &e);
                    return Err(e);
                }
                result => return result,
            }
        }
    }

    async fn remove_group(&self, group: GroupId) -> io::Result<()> {
        self.change(group, |index| {
            index.remove(group);
            self.metrics.quarantined.set(index.quarantined() as i64);
            Ok(Change::Remove)
        })
        .await
    }
}
