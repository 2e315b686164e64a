//! The one task that writes. It takes everything that waits, lays it out as one batch, appends
//! and flushes once, and only then acknowledges, in order.
//!
//! What stays true:
//! - one write is in flight; the next batch is begun after the flush of the one before;
//! - a segment's name and head are durable before its first data is acknowledged;
//! - a segment is deleted only when no entry in it is needed any more *by what is durable*, and
//!   only after a batch in a later segment, so that no state hangs on one unproven head;
//! - after the first error nothing is acknowledged.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use model::GroupId;
use model::port::{Clock, Disk, File};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tracing::{error, warn};

use crate::batch::{HEADER_BYTES, Kind, Stamp, lay_out, mask};
use crate::index::Index;
use crate::record::{Change, RECORD_BYTES, Record};
use crate::recovery::Rewrite;
use crate::run::Position;
use crate::segment::{lay_out_footer, path_of};
use crate::summary::Summary;
use crate::{Done, Entry, LogId, Metrics, Options};

/// What the writer and its callers both see.
pub(crate) struct Shared {
    pub index: Mutex<Index>,
    /// Why nothing can be written any more.
    pub failure: watch::Sender<Option<String>>,
}

/// Runs a [`Done`] exactly once, with an error when the operation is dropped on its way.
pub(crate) struct Completion(Option<Done>);

impl Completion {
    pub fn new(done: Done) -> Self {
        Self(Some(done))
    }

    /// For operations nobody waits for.
    pub fn none() -> Self {
        Self(None)
    }

    pub fn run(mut self, result: io::Result<()>) {
        if let Some(done) = self.0.take() {
            done(result);
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(io::Error::other(
                "the log ended before this was written",
            )));
        }
    }
}

/// What waits for the writer.
pub(crate) enum Op {
    Append {
        group: GroupId,
        /// The append's number in the index.
        append: u64,
        entries: Vec<Entry>,
        /// Checksums of the payloads.
        crcs: Vec<u32>,
        done: Completion,
        /// Its share of the queue's bytes, given back once written.
        room: OwnedSemaphorePermit,
    },
    Change {
        record: Record,
        done: Completion,
    },
    /// A committed mark: goes out with whatever is flushed next.
    Mark {
        group: GroupId,
        committed: Option<LogId>,
    },
    /// Nothing to write: told that what is before it is durable.
    Settle {
        done: Completion,
    },
    Close {
        done: Completion,
    },
}

impl Op {
    fn bytes(&self) -> usize {
        match self {
            Self::Append { entries, .. } => entries
                .iter()
                .map(|entry| entry.payload.len() + RECORD_BYTES)
                .sum(),
            Self::Change { .. } | Self::Mark { .. } => RECORD_BYTES,
            Self::Settle { .. } | Self::Close { .. } => 0,
        }
    }

    fn fail(self, why: &str) {
        match self {
            Self::Append { done, .. }
            | Self::Change { done, .. }
            | Self::Settle { done }
            | Self::Close { done } => done.run(Err(io::Error::other(why.to_owned()))),
            Self::Mark { .. } => {}
        }
    }
}

/// How often tasks that can run do so before a flush begins: what they append is flushed with it. Idle, that
/// takes no time.
const GATHERING_YIELDS: u32 = 2;
/// A segment without a needed entry is ended once it has this part of a whole one's length.
const SPENT_SHARE: u64 = 16;

/// A sealed segment and the entries in it that are still needed.
pub(crate) struct Sealed {
    pub number: u32,
    pub needed: BTreeMap<GroupId, std::ops::Range<u64>>,
}

impl Sealed {
    fn apply(&mut self, record: &Record) {
        let Some(range) = self.needed.get_mut(&record.group) else {
            return;
        };
        match record.change {
            Change::Truncate(last) => {
                let end = last.map_or(0, |id| id.index.saturating_add(1));
                range.end = range.end.min(end);
            }
            Change::Purge(upto) => range.start = range.start.max(upto.index.saturating_add(1)),
            Change::Remove => range.end = range.start,
            Change::Append { .. } | Change::Vote(_) | Change::Committed(_) => {}
        }
        if range.is_empty() {
            self.needed.remove(&record.group);
        }
    }
}

struct Active {
    number: u32,
    file: Box<dyn File>,
    path: PathBuf,
    len: u64,
}

pub(crate) struct Writer {
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub dir: PathBuf,
    pub options: Options,
    pub metrics: Metrics,
    pub shared: Arc<Shared>,
    pub queue: mpsc::Receiver<Op>,
    pub tail: Tail,
    /// What is written before the first batch, and no sooner than somebody asks for one: until then a node
    /// that starts has smaller things to flush.
    pub rewrite: Option<Rewrite>,
    pub carried: Option<Op>,
}

/// Where the log ends on disk, and what is durable there.
pub(crate) struct Tail {
    pub log: u64,
    pub lsn_next: u64,
    pub segment_next: u32,
    pub groups_before: u64,
    pub summary: Summary,
    pub sealed: Vec<Sealed>,
    active: Option<Active>,
}

impl Tail {
    pub fn new(log: u64, lsn_next: u64, segment_next: u32, summary: Summary) -> Self {
        Self {
            log,
            lsn_next,
            segment_next,
            groups_before: 0,
            summary,
            sealed: Vec::new(),
            active: None,
        }
    }

    fn stamp(&self, kind: Kind, groups: u64) -> Stamp {
        Stamp {
            kind,
            log: self.log,
            lsn: self.lsn_next,
            groups,
            groups_before: self.groups_before,
            fill_at: None,
        }
    }
}

/// What one flush makes durable.
#[derive(Default)]
struct Batch {
    ops: Vec<Op>,
    marks: BTreeMap<GroupId, Option<LogId>>,
    closing: Vec<Completion>,
    ends: bool,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, op: Op) {
        self.bytes += op.bytes();
        match op {
            Op::Mark { group, committed } => {
                self.marks.insert(group, committed);
            }
            Op::Close { done } => {
                self.closing.push(done);
                self.ends = true;
            }
            op => {
                if let Op::Change { record, .. } = &op
                    && record.change == Change::Remove
                {
                    self.marks.remove(&record.group);
                }
                self.ops.push(op);
            }
        }
    }

    /// Whether somebody waits for it.
    fn is_urgent(&self) -> bool {
        !self.ops.is_empty() || self.ends
    }

    /// The records in order, and the payloads.
    fn records(&self) -> (Vec<Record>, Vec<Bytes>) {
        let mut records = Vec::new();
        let mut payloads = Vec::new();
        for op in &self.ops {
            match op {
                Op::Append {
                    group,
                    entries,
                    crcs,
                    ..
                } => {
                    for (entry, &crc) in entries.iter().zip(crcs) {
                        let len = u32::try_from(entry.payload.len()).expect("checked at append");
                        let id = entry.id;
                        records.push(Record {
                            group: *group,
                            change: Change::Append { id, len, crc },
                        });
                        payloads.push(entry.payload.clone());
                    }
                }
                Op::Change { record, .. } => records.push(*record),
                Op::Settle { .. } => {}
                Op::Mark { .. } | Op::Close { .. } => unreachable!("kept apart by push"),
            }
        }
        for (&group, &committed) in &self.marks {
            records.push(Record {
                group,
                change: Change::Committed(committed),
            });
        }
        (records, payloads)
    }

    fn acknowledge(&mut self) {
        for op in self.ops.drain(..) {
            match op {
                Op::Append { done, room, .. } => {
                    drop(room);
                    done.run(Ok(()));
                }
                Op::Change { done, .. } | Op::Settle { done } => done.run(Ok(())),
                Op::Mark { .. } | Op::Close { .. } => unreachable!("kept apart by push"),
            }
        }
    }

    fn fail(self, why: &str) {
        for op in self.ops {
            op.fail(why);
        }
        for done in self.closing {
            done.run(Err(io::Error::other(why.to_owned())));
        }
    }
}

impl Writer {
    /// Writes until the log is closed or an operation of the disk fails.
    pub async fn run(mut self) {
        let why = loop {
            let mut batch = self.collect().await;
            if let Err(e) = self.turn(&mut batch).await {
                let why = format!("the log can no longer be written: {e}");
                error!(error = %e, "log poisoned: nothing is acknowledged any more");
                self.shared.failure.send_replace(Some(why.clone()));
                batch.fail(&why);
                break why;
            }
            if batch.ends {
                for done in batch.closing {
                    done.run(Ok(()));
                }
                break "the log is closed".to_owned();
            }
        };
        self.queue.close();
        if let Some(op) = self.carried.take() {
            op.fail(&why);
        }
        while let Some(op) = self.queue.recv().await {
            op.fail(&why);
        }
    }

    /// Waits until there is something to flush, then takes all that is there and comes at once.
    async fn collect(&mut self) -> Batch {
        let mut batch = Batch::default();
        let mut yields = 0;
        while !batch.ends {
            let op = match self.carried.take() {
                Some(op) => op,
                None if batch.is_urgent() => match self.queue.try_recv() {
                    Ok(op) => op,
                    Err(_) if yields < GATHERING_YIELDS => {
                        yields += 1;
                        tokio::task::yield_now().await;
                        continue;
                    }
                    Err(_) => break,
                },
                None => match self.queue.recv().await {
                    Some(op) => op,
                    None => {
                        batch.ends = true;
                        break;
                    }
                },
            };
            if batch.is_urgent() && batch.bytes + op.bytes() > self.options.batch_bytes_max {
                self.carried = Some(op);
                break;
            }
            batch.push(op);
        }
        batch
    }

    async fn turn(&mut self, batch: &mut Batch) -> io::Result<()> {
        if let Some(rewrite) = self.rewrite.take() {
            rewrite.run(&*self.disk).await?;
        }
        let (records, payloads) = batch.records();
        if !records.is_empty() {
            let positions = self.write(&records, payloads).await?;
            self.publish(batch, positions);
        }
        batch.acknowledge();
        if batch.ends || self.is_full() {
            self.seal().await?;
        } else if self.is_spent() {
            // The new file takes the state over; then the old ones can go.
            self.seal().await?;
            self.activate().await?;
        }
        if !records.is_empty() {
            self.reclaim().await;
        }
        Ok(())
    }

    /// Makes the records durable; returns where the entries among them lie.
    async fn write(
        &mut self,
        records: &[Record],
        payloads: Vec<Bytes>,
    ) -> io::Result<Vec<Position>> {
        let (segment, at) = self.activate().await?;
        let mut index = BytesMut::with_capacity(records.len() * RECORD_BYTES);
        let mut groups = 0;
        for record in records {
            record.encode(&mut index);
            groups |= mask(record.group);
        }
        let stamp = Stamp {
            fill_at: Some(at),
            ..self.tail.stamp(Kind::Data, groups)
        };
        let (pieces, extent) = lay_out(&stamp, &index, payloads);
        self.store(pieces, extent, groups).await?;

        let mut positions = Vec::new();
        let mut offset = at + (HEADER_BYTES + index.len()) as u64;
        for record in records {
            self.tail.summary.apply(record, segment, offset);
            for sealed in &mut self.tail.sealed {
                sealed.apply(record);
            }
            if let Change::Append { id, len, crc } = record.change {
                positions.push(Position {
                    term: id.term,
                    node: id.node,
                    segment,
                    offset: u32::try_from(offset).expect("segments are below 4 GiB"),
                    len,
                    crc,
                });
                offset += u64::from(len);
            }
        }
        Ok(positions)
    }

    /// Tells the index where the batch's entries lie.
    fn publish(&self, batch: &Batch, positions: Vec<Position>) {
        let mut index = self.shared.index.lock().expect("no holder panics");
        let mut rest = &positions[..];
        for op in &batch.ops {
            if let Op::Append {
                group,
                append,
                entries,
                ..
            } = op
                && let Some(first) = entries.first()
            {
                let (own, others) = rest.split_at(entries.len());
                index.written(*group, *append, first.id.index, own);
                rest = others;
            }
        }
        self.metrics.entries.set(index.entries() as i64);
        self.metrics.cache_bytes.set(index.cache_bytes() as i64);
    }

    /// Opens a new segment if there is none; returns its number and length.
    async fn activate(&mut self) -> io::Result<(u32, u64)> {
        if self.tail.active.is_none() {
            let number = self.tail.segment_next;
            let path = path_of(&self.dir, number);
            let named = |e: io::Error| about("creating", &path, &e);
            let file = self.disk.create(&path).await.map_err(named)?;
            self.tail.segment_next += 1;
            self.tail.active = Some(Active {
                number,
                file,
                path,
                len: 0,
            });
            let mut index = BytesMut::new();
            self.tail.summary.states.encode(&mut index);
            let (pieces, extent) = lay_out(&self.tail.stamp(Kind::Head, 0), &index, Vec::new());
            self.store(pieces, extent, 0).await?;
            let named = |e: io::Error| about("flushing the names of", &self.dir, &e);
            self.disk.flush_dir(&self.dir).await.map_err(named)?;
            self.count_segments();
        }
        let active = self.tail.active.as_ref().expect("opened above");
        Ok((active.number, active.len))
    }

    /// Appends one batch to the active segment and flushes it.
    async fn store(&mut self, pieces: Vec<Bytes>, extent: u64, groups: u64) -> io::Result<()> {
        let active = self.tail.active.as_mut().expect("only called with one");
        let started = self.clock.monotonic();
        let named = |e: io::Error| about("writing or flushing", &active.path, &e);
        let file = &mut active.file;
        file.append_durably(pieces).await.map_err(named)?;
        let took = self.clock.monotonic().saturating_sub(started);
        active.len += extent;
        self.tail.lsn_next += 1;
        self.tail.groups_before = groups;
        self.metrics.written_bytes.inc_by(extent);
        self.metrics.flushes.inc();
        self.metrics.flush_duration.observe(took.as_secs_f64());
        Ok(())
    }

    fn is_full(&self) -> bool {
        let len = self.tail.active.as_ref().map_or(0, |active| active.len);
        len >= self.options.segment_bytes
    }

    /// Whether the active segment has grown though no entry is needed any more: what is settled
    /// elsewhere should not go on taking its place.
    fn is_spent(&self) -> bool {
        let len = self.tail.active.as_ref().map_or(0, |active| active.len);
        let mut states = self.tail.summary.states.groups.values();
        len >= self.options.segment_bytes / SPENT_SHARE
            && states.all(|state| state.damaged.is_none() && state.indexes().is_empty())
    }

    /// Ends the active segment with its footer.
    async fn seal(&mut self) -> io::Result<()> {
        let tail = &self.tail;
        let Some(active) = &tail.active else {
            return Ok(());
        };
        let number = active.number;
        let pieces = lay_out_footer(
            tail.log,
            tail.lsn_next,
            tail.groups_before,
            &tail.summary,
            active.len,
        );
        let extent = pieces.iter().map(|piece| piece.len() as u64).sum();
        self.store(pieces, extent, 0).await?;
        self.tail.active = None;
        let states = self.tail.summary.states.clone();
        let sealed = std::mem::replace(&mut self.tail.summary, Summary::after(states));
        self.tail.sealed.push(Sealed {
            number,
            needed: sealed
                .entries
                .iter()
                .map(|(&group, run)| (group, run.first..run.end()))
                .collect(),
        });
        Ok(())
    }

    /// Deletes sealed segments nobody needs. The newest stays as long as it is the newest file:
    /// its footer is then the only copy of the state.
    ///
    /// A deletion that a crash undoes is harmless: the heads that came later still hold.
    async fn reclaim(&mut self) {
        let keep_from = match &self.tail.active {
            Some(active) => active.number,
            None => self.tail.segment_next - 1,
        };
        let mut kept = Vec::with_capacity(self.tail.sealed.len());
        for sealed in std::mem::take(&mut self.tail.sealed) {
            let needed = !sealed.needed.is_empty() || sealed.number >= keep_from;
            if needed || !delete(&*self.disk, &path_of(&self.dir, sealed.number)).await {
                kept.push(sealed);
            }
        }
        self.tail.sealed = kept;
        self.count_segments();
    }

    fn count_segments(&self) {
        let count = self.tail.sealed.len() + usize::from(self.tail.active.is_some());
        self.metrics.segments.set(count as i64);
    }
}

/// Deletes a segment; false when that has to be tried again.
async fn delete(disk: &dyn Disk, path: &Path) -> bool {
    match disk.remove(path).await {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::NotFound => true,
        Err(e) => {
            warn!(path = %path.display(), error = %e, "segment not deleted, will try again");
            false
        }
    }
}

/// The same error, saying what was attempted on which file.
fn about(attempt: &str, path: &Path, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{attempt} {}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use model::NodeId;

    use super::*;

    fn id(index: u64) -> LogId {
        LogId {
            term: 1,
            node: NodeId(1),
            index,
        }
    }

    #[test]
    fn a_sealed_segment_is_needed_while_an_entry_is() {
        let group = GroupId(1);
        let mut sealed = Sealed {
            number: 1,
            needed: BTreeMap::from([(group, 5..9)]),
        };
        let mut apply = |change| {
            sealed.apply(&Record { group, change });
            sealed.needed.get(&group).cloned()
        };
        assert_eq!(apply(Change::Purge(id(5))), Some(6..9));
        assert_eq!(apply(Change::Truncate(Some(id(7)))), Some(6..8));
        assert_eq!(apply(Change::Purge(id(3))), Some(6..8));
        assert_eq!(apply(Change::Purge(id(7))), None);
    }

    #[test]
    fn a_dropped_completion_still_runs() {
        let (sender, receiver) = std::sync::mpsc::channel();
        drop(Completion::new(Box::new(move |result| {
            sender.send(result.is_err()).expect("the receiver waits");
        })));
        assert_eq!(receiver.recv(), Ok(true));
    }
}
