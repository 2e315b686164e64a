//! What the log makes of a shard: the state in memory and how each command changes it.
//!
//! Nothing here waits or touches a disk. What applying needs to know from sealed blocks (the value
//! an old sample already has, what is left of a block) is read beforehand and handed in as [`Prepared`]; sealed content
//! changes by commands alone, so it is the same when the command is applied.

mod adding;
mod collecting;
mod reading;
mod replay;
mod resting;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use model::hash::Map;
use model::sink::{Pushed, Reason, Rejection};
use model::{Labels, SeriesId, Timestamp};

use crate::bits::Words;
use crate::block::{Frozen, Merged, Reader, Sealed};
use crate::checkpoint::Image;
use crate::chunk::{ChunkError, Point};
use crate::command::{Command, DeleteCommand, SeriesRef, WriteCommand};
use crate::descriptions::Descriptions;
use crate::digest::{self, Digest, Sums};
use crate::exemplars::Exemplars;
use crate::fences::Fences;
use crate::gathered::{Gathered, Handles, InFile, Others, add_left};
use crate::groups::{Groups, Wiped};
use crate::head::{Head, HeadSeries};
use crate::histogram::HistogramPoint;
use crate::part::Part;
use crate::running::Running;
use crate::series::SeriesTable;
use crate::tombstones::Tombstones;
use crate::touched::Touched;
use crate::value::Value;

pub use reading::EachValue;
pub use replay::{Entry, Replayed, Run};
pub use resting::{Resting, Returning, Unregistered};

/// What became of a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Rows refused, ascending; all others are stored.
    Written {
        rejected: Vec<Rejection>,
    },
    /// A write named a series that was collected before it: nothing of it was done, so that whoever
    /// proposed it may do so again and say the labels.
    NotRegistered,
    Pushed(Pushed),
    /// Of each push, in their order.
    PushedAll(Vec<Pushed>),
    Wiped(Wiped),
    Sealed,
    Retained,
    Deleted,
    Cleaned,
    Compacted,
    Described,
    /// So many series.
    Collected(u64),
}

/// Values that sealed blocks hold for rows of one command.
#[derive(Debug, Default)]
pub struct Recalled(Map<(SeriesId, Timestamp), Value>);

impl Recalled {
    pub fn insert(&mut self, id: SeriesId, at: Timestamp, value: Value) {
        self.0.insert((id, at), value);
    }

    fn get(&self, id: SeriesId, at: Timestamp) -> Option<Value> {
        self.0.get(&(id, at)).cloned()
    }
}

/// What applying needs to know and cannot find in memory, read beforehand.
#[derive(Debug, Default)]
pub struct Prepared {
    /// For a write.
    pub recalled: Recalled,
    /// For a write: series that rest and of which it says the labels; by id.
    pub returning: Vec<Returning>,
    /// For a deletion: series that rest and are concerned, ascending.
    pub resting: Vec<SeriesId>,
    /// For a clean: what is left of the block; nothing if all of it was deleted.
    pub cleaned: Option<Cleaned>,
}

/// What is left of a block.
#[derive(Debug, Clone)]
pub struct Cleaned {
    pub frozen: Arc<Frozen>,
    /// Of all its series, by id.
    pub labels: Vec<(SeriesId, Labels)>,
}

/// One series' old rows that a command asks sealed blocks about, and where the answer may stand.
#[derive(Debug)]
pub struct Lookup {
    pub at: Timestamp,
    /// Of one series.
    pub places: Gathered,
}

/// Where a series' newest sample stands.
#[derive(Debug)]
pub enum Standing {
    Nowhere,
    Here(Timestamp, Value),
    /// It is the newest in these and in what blocks hold, if they hold any.
    Among(Vec<Part>),
}

/// A shard in memory.
#[derive(Debug, Default)]
pub struct State {
    applied_index: u64,
    table: SeriesTable,
    head: Head,
    /// By id, that is by log index.
    sealed: Vec<Sealed>,
    /// What was deleted of sealed blocks, by block; none of them empty.
    tombstones: BTreeMap<u64, Tombstones>,
    resting: Resting,
    groups: Groups,
    fences: Fences,
    exemplars: Exemplars,
    descriptions: Descriptions,
    running: Running,
    /// The newest sample ever stored.
    max_time: Option<Timestamp>,
    /// The furthest cut of any seal.
    sealed_before: Option<Timestamp>,
    sums: Sums,
    touched: Touched,
    /// Blocks that no longer count but whose files may still be named by a manifest or read.
    retired: Vec<Arc<Reader>>,
}

/// What became of a command's rows.
#[derive(Default)]
struct Judged {
    /// Ascending.
    rejected: Vec<Rejection>,
    /// Of the rows that were stored, or had been before.
    oldest: Option<Timestamp>,
}

impl Judged {
    fn note(&mut self, row: u32, at: Timestamp, refused: Option<Reason>) {
        if refused.is_none() {
            self.note_oldest(at);
        }
        let rejection = refused.map(|reason| Rejection { row, reason });
        self.rejected.extend(rejection);
    }

    fn note_oldest(&mut self, at: Timestamp) {
        self.oldest = Some(self.oldest.map_or(at, |oldest| oldest.min(at)));
    }
}

/// Fewer rows of a series are stored one by one.
const RUN_ROWS: usize = 4;

const REGISTERED: &str = "a write whose series are not registered is not applied";

/// Rows whose series are fetched from memory together: about as many as a core waits for at once.
const TOUCHED_ROWS: usize = 16;

impl State {
    /// From a checkpoint and its blocks.
    pub fn restore(image: Image, blocks: Vec<Arc<Reader>>) -> Result<Self, ChunkError> {
        let mut sums = sums_of(&image)?;
        for block in &blocks {
            sums.add_samples(block.meta().digest);
        }
        let head = match image.head.len() == image.labels.len() {
            true => Head::restore(image.head, &image.labels)?,
            false => return Err(ChunkError::NotAsNoted),
        };
        let table = SeriesTable::restore(image.labels).ok_or(ChunkError::NotAsNoted)?;
        let sealed = merge(blocks, &image.merged)?;
        let ids: BTreeSet<u64> = sealed.iter().map(Sealed::id).collect();
        let known = image.tombstones.keys().all(|block| ids.contains(block));
        let known = known
            && image
                .running
                .iter()
                .all(|(id, _)| table.labels(id).is_some());
        if sums != image.sums || !known {
            return Err(ChunkError::NotAsNoted);
        }
        let mut state = Self {
            applied_index: image.applied_index,
            table,
            head,
            sealed,
            tombstones: image.tombstones,
            groups: image.groups,
            fences: image.fences,
            exemplars: image.exemplars,
            descriptions: image.descriptions,
            running: image.running,
            max_time: image.max_time,
            sealed_before: image.sealed_before,
            sums,
            touched: image.touched,
            resting: Resting::default(),
            retired: Vec::new(),
        };
        state.find_resting();
        Ok(state)
    }

    pub fn image(&self) -> Image {
        Image {
            applied_index: self.applied_index,
            max_time: self.max_time,
            sealed_before: self.sealed_before,
            sums: self.sums,
            labels: self.table.all().clone(),
            head: self.head.images(),
            groups: self.groups.clone(),
            fences: self.fences.clone(),
            exemplars: self.exemplars.clone(),
            descriptions: self.descriptions.clone(),
            running: self.running.clone(),
            tombstones: self.tombstones.clone(),
            touched: self.touched.clone(),
            merged: self.merged().map(merged_ids).collect(),
        }
    }

    pub fn touched(&self) -> &Touched {
        &self.touched
    }

    fn merged(&self) -> impl Iterator<Item = &Merged> {
        self.sealed.iter().filter_map(|block| match block {
            Sealed::Merged(merged) => Some(merged),
            Sealed::Frozen(_) | Sealed::Stored(_) => None,
        })
    }

    pub fn is_merging(&self) -> bool {
        self.merged().next().is_some()
    }

    /// Blocks made one whose file is to be written, if all that they are made of has files.
    pub fn next_merge(&self) -> Option<Merged> {
        let whole = |merged: &&Merged| {
            let mut blocks = merged.blocks().iter();
            blocks.all(|block| matches!(block, Sealed::Stored(_)))
        };
        self.merged().find(whole).cloned()
    }

    pub fn applied_index(&self) -> u64 {
        self.applied_index
    }

    pub fn resting(&self) -> &Resting {
        &self.resting
    }

    pub fn table(&self) -> &SeriesTable {
        &self.table
    }

    pub fn head(&self) -> &Head {
        &self.head
    }

    pub fn sealed(&self) -> &[Sealed] {
        &self.sealed
    }

    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    pub fn descriptions(&self) -> &Descriptions {
        &self.descriptions
    }

    pub fn max_time(&self) -> Option<Timestamp> {
        self.max_time
    }

    pub fn sealed_before(&self) -> Option<Timestamp> {
        self.sealed_before
    }

    /// An entry of the log that holds no command.
    pub fn advance(&mut self, index: u64) {
        assert!(
            index >= self.applied_index,
            "the log is applied in order: {index} after {}",
            self.applied_index
        );
        self.applied_index = index;
    }

    pub fn apply(&mut self, index: u64, command: &Command, prepared: &Prepared) -> Outcome {
        assert!(
            index > self.applied_index,
            "the log is applied in order: {index} after {}",
            self.applied_index
        );
        self.applied_index = index;
        match command {
            Command::Write(write) if !self.knows(write) => Outcome::NotRegistered,
            Command::Write(write) => Outcome::Written {
                rejected: self.write(index, write, prepared),
            },
            Command::Add(add) if !self.knows(&add.write) => Outcome::NotRegistered,
            Command::Add(add) => Outcome::Written {
                rejected: self.add(index, add, prepared),
            },
            Command::Push(push) => Outcome::Pushed(self.groups.apply(push)),
            Command::Pushes(pushes) => Outcome::PushedAll(self.groups.apply_all(pushes)),
            Command::Wipe(wipe) => Outcome::Wiped(self.groups.wipe(wipe.proposed_at)),
            Command::Seal(seal) => {
                self.seal(index, seal.before);
                Outcome::Sealed
            }
            Command::Retain(retain) => {
                self.retain(retain.before);
                Outcome::Retained
            }
            Command::Delete(delete) => {
                self.delete(delete, &prepared.resting);
                Outcome::Deleted
            }
            Command::Clean(clean) => {
                self.clean(clean.block, prepared.cleaned.as_ref());
                Outcome::Cleaned
            }
            Command::Compact(compact) => {
                self.compact(index, &compact.blocks);
                Outcome::Compacted
            }
            Command::Collect(collect) => Outcome::Collected(self.collect(collect)),
            Command::Describe(describe) => {
                self.descriptions.apply(describe);
                Outcome::Described
            }
        }
    }

    fn write(&mut self, index: u64, write: &WriteCommand, prepared: &Prepared) -> Vec<Rejection> {
        let recalled = &prepared.recalled;
        self.put_back(&prepared.returning);
        let new = self.register(&write.labels);
        let stale = self.fences.admit(&write.fences);
        let bounds = Bounds::new(write, self.max_time);
        let rows = &write.rows;
        let mut judged = Judged::default();
        let mut histograms = rows.histograms.iter().peekable();
        let singly = !stale.is_empty() || histograms.peek().is_some();
        let (mut points, mut words) = (Vec::new(), Words::default());
        let (mut next, mut touched) = (0, 0);
        for of_series in rows.series.chunk_by(|one, other| one == other) {
            let run = next..next + of_series.len();
            if next >= touched {
                touched = next + TOUCHED_ROWS;
                let some = rows.series[next..].iter().take(TOUCHED_ROWS);
                self.head.touch(some.map(|series| id_of(*series, &new)));
            }
            next = run.end;
            let id = id_of(of_series[0], &new);
            if !singly && run.len() >= RUN_ROWS {
                rows.points(run.clone(), &mut points);
                if self.store_admitted(id, &points, &bounds, &mut words) {
                    judged.note_oldest(points[0].at);
                    continue;
                }
            }
            for row in run {
                let at = rows.timestamps[row];
                let bits = rows.values[row].to_bits();
                let row = row as u32;
                let histogram = histograms.next_if(|(place, _)| *place == row);
                let refused = match stale.iter().any(|range: &Range<u32>| range.contains(&row)) {
                    true => Some(Reason::Fenced),
                    false => match histogram {
                        None => self.store_float(id, Point { at, bits }, &bounds, recalled),
                        Some((_, bytes)) => {
                            let value = Value::Histogram(bytes.clone());
                            self.store(id, at, value, &bounds, recalled)
                        }
                    },
                };
                judged.note(row, at, refused);
            }
        }
        self.finish(index, write, &new, judged)
    }

    /// What a command's rows leave behind, and its rejections.
    fn finish(
        &mut self,
        index: u64,
        write: &WriteCommand,
        new: &[SeriesId],
        judged: Judged,
    ) -> Vec<Rejection> {
        if let Some(oldest) = judged.oldest {
            self.note_oldest(index, oldest);
        }
        self.keep_exemplars(write, new);
        judged.rejected
    }

    /// Of what an entry stored.
    fn note_oldest(&mut self, index: u64, oldest: Timestamp) {
        self.touched.note(index, oldest);
        self.head.note_oldest(oldest);
    }

    fn keep_exemplars(&mut self, write: &WriteCommand, new: &[SeriesId]) {
        for (series, exemplar) in &write.exemplars {
            let id = id_of(*series, new);
            let series = self.head.series(id);
            if series.is_some_and(|series| series.last().is_some()) {
                let len_max = write.exemplars_max as usize;
                self.exemplars.add(id, exemplar.clone(), len_max);
            }
        }
    }

    /// The ids of label sets, which are registered if they are not yet.
    fn register(&mut self, all: &[Labels]) -> Vec<SeriesId> {
        let given = self.table.register_all(all);
        for ((id, new), labels) in given.iter().zip(all) {
            if *new {
                self.head.add_series();
                self.sums.add_series(*id, labels);
            }
        }
        given.into_iter().map(|(id, _)| id).collect()
    }

    /// What [`State::store`] does, without looking for a sample where there can be none: nearly all
    /// are floats newer than what their series has.
    fn store_float(
        &mut self,
        id: SeriesId,
        point: Point,
        bounds: &Bounds,
        recalled: &Recalled,
    ) -> Option<Reason> {
        let series = self.head.series_mut(id);
        let series = series.expect(REGISTERED);
        let last = series.last();
        if last.is_some_and(|last| point.at <= last) {
            return self.store(id, point.at, Value::Float(point.bits), bounds, recalled);
        }
        let refused = bounds.refuse(point.at, last);
        if refused.is_none() {
            series.insert(point);
            self.sums.add_sample(id, point);
            self.max_time = self.max_time.max(Some(point.at));
        }
        refused
    }

    /// As [`State::store_run`], not none, if the bounds of their write admit them.
    fn store_admitted(
        &mut self,
        id: SeriesId,
        points: &[Point],
        bounds: &Bounds,
        words: &mut Words,
    ) -> bool {
        let (first, last) = (points[0].at, points[points.len() - 1].at);
        let place = self.head.place(id).expect(REGISTERED);
        let stored = bounds.admit(first, last) && self.store_run(id, place, points, words);
        if stored {
            self.max_time = self.max_time.max(Some(last));
        }
        stored
    }

    /// Stores rows that their write admits, if each is later than the one before and than all that their series has;
    /// the caller tells of the newest.
    fn store_run(
        &mut self,
        id: SeriesId,
        place: usize,
        points: &[Point],
        words: &mut Words,
    ) -> bool {
        let series = self.head.at_mut(place);
        let is_later = points.first().map(|first| first.at) > series.last();
        if !is_later || !points.is_sorted_by(|one, next| one.at < next.at) {
            return false;
        }
        series.insert_all(points, words);
        points.iter().for_each(|p| self.sums.add_sample(id, *p));
        true
    }

    /// Stores one sample, or says why not. Whether it is stored already comes before its age: a
    /// repeated request gets the same answer however late it is.
    fn store(
        &mut self,
        id: SeriesId,
        at: Timestamp,
        value: Value,
        bounds: &Bounds,
        recalled: &Recalled,
    ) -> Option<Reason> {
        let series = self.head.series_mut(id);
        let series = series.expect(REGISTERED);
        if let Some(stored) = stored_value(series, id, at, recalled) {
            return (stored != value).then_some(Reason::Duplicate);
        }
        if let Some(reason) = bounds.refuse(at, series.last()) {
            return Some(reason);
        }
        match value {
            Value::Float(bits) => {
                let point = Point { at, bits };
                series.insert(point);
                self.sums.add_sample(id, point);
            }
            Value::Histogram(bytes) => {
                let point = HistogramPoint { at, bytes };
                self.sums.add_histogram(id, &point);
                series.insert_histogram(point);
            }
        }
        self.max_time = self.max_time.max(Some(at));
        None
    }

    fn seal(&mut self, index: u64, before: Timestamp) {
        self.sealed_before = self.sealed_before.max(Some(before));
        if let Some(frozen) = Frozen::new(index, self.head.take_before(before)) {
            self.sealed.push(Sealed::Frozen(Arc::new(frozen)));
        }
    }

    fn retain(&mut self, before: Timestamp) {
        let (dropped, kept) = std::mem::take(&mut self.sealed)
            .into_iter()
            .partition(|block| block.range().1 < before);
        self.sealed = kept;
        for block in dropped {
            self.forget(block);
        }
        self.tidy_resting();
    }

    /// A block does not count any more.
    fn forget(&mut self, block: Sealed) {
        self.sums.remove_samples(block.digest());
        self.tombstones.remove(&block.id());
        self.retired.extend(block.readers().cloned());
    }

    /// Makes blocks one. Nothing that is stored changes; when one of them is not there, or
    /// something of it is deleted, nothing changes at all.
    fn compact(&mut self, index: u64, blocks: &[u64]) {
        let chosen: BTreeSet<u64> = blocks.iter().copied().collect();
        let is_chosen = |block: &Sealed| chosen.contains(&block.id());
        let found = self.sealed.iter().filter(|block| is_chosen(block)).count();
        let unclean = chosen.iter().any(|id| self.tombstones.contains_key(id));
        if found < 2 || found != chosen.len() || unclean {
            return;
        }
        let (chosen, kept) = std::mem::take(&mut self.sealed)
            .into_iter()
            .partition(is_chosen);
        self.sealed = kept;
        let merged = Merged::new(index, chosen).expect("two blocks or more");
        self.sealed.push(Sealed::Merged(merged));
    }

    /// Head samples go at once. Of a sealed block each chosen series that it holds gets an
    /// interval, whether there is a sample in it or not: that depends on no layout.
    fn delete(&mut self, delete: &DeleteCommand, resting: &[SeriesId]) {
        let (start, end) = (delete.start, delete.end);
        if delete.any_of.is_empty() || start > end {
            return;
        }
        let registered = self.select_registered(&delete.any_of);
        for &id in registered.iter().chain(resting) {
            if let Some(series) = self.head.series_mut(id) {
                let removed = series.remove(start, end);
                self.sums.remove_column(id, &removed);
            }
            for block in &self.sealed {
                let (min, max) = block.range();
                if min <= end && max >= start && block.has(id) {
                    let tombstones = self.tombstones.entry(block.id()).or_default();
                    tombstones.add(id, (start.max(min), end.min(max)));
                }
            }
        }
    }

    /// Puts `cleaned`, which is all that is left of a block with deletions, in its place.
    fn clean(&mut self, block: u64, cleaned: Option<&Cleaned>) {
        if !self.tombstones.contains_key(&block) {
            return;
        }
        let place = self.sealed.iter().position(|sealed| sealed.id() == block);
        let place = place.expect("only blocks that are there have deletions");
        let old = self.sealed.remove(place);
        self.forget(old);
        if let Some(Cleaned { frozen, labels }) = cleaned {
            let new = Sealed::Frozen(frozen.clone());
            self.sums.add_samples(new.digest());
            self.note_resting(new.id(), labels);
            self.sealed.push(new);
        }
        self.tidy_resting();
    }

    /// Ids of blocks of which something is deleted.
    pub fn unclean(&self) -> Vec<u64> {
        self.tombstones.keys().copied().collect()
    }

    /// What is left of a block with deletions; `None` for any other block.
    pub fn remains(&self, block: u64) -> Option<Gathered> {
        self.tombstones.get(&block)?;
        let block = self.sealed.iter().find(|sealed| sealed.id() == block)?;
        let (min, max) = block.range();
        let (mut series, mut resting) = (Vec::new(), Vec::new());
        for id in block.series() {
            let mut parts = Vec::new();
            self.frozen_parts(block, id, (min, max), &mut parts);
            match self.handles(id, parts, true) {
                Some(handles) => series.push(handles),
                None => resting.push(id),
            }
        }
        let others = Others::These(resting);
        Some(self.gathered(series, &[block], (min, max), others))
    }

    /// What is known of a series; `None` of one whose labels are in no memory.
    pub fn handles(&self, id: SeriesId, parts: Vec<Part>, in_files: bool) -> Option<Handles> {
        Some(Handles {
            id,
            labels: self.labels(id)?.clone(),
            parts,
            in_files,
        })
    }

    /// Together with the files of these blocks.
    fn gathered<'a>(
        &self,
        series: Vec<Handles>,
        blocks: &[&'a Sealed],
        (start, end): (Timestamp, Timestamp),
        others: Others,
    ) -> Gathered {
        let of_block = |block: &'a Sealed| {
            let deleted = self.tombstones.get(&block.id());
            block.readers().map(move |reader| InFile {
                reader: reader.clone(),
                deleted: deleted.cloned(),
                rests: self.resting.may_be_in(reader.meta().id),
            })
        };
        let meets = |file: &InFile| {
            let meta = file.reader.meta();
            meta.min <= end && meta.max >= start
        };
        let files = blocks.iter().copied().flat_map(of_block).filter(meets);
        let files: Vec<InFile> = files.collect();
        let others = match files.iter().any(|file| file.rests) {
            true => others,
            false => Others::None,
        };
        Gathered {
            files,
            series,
            others,
            start,
            end,
        }
    }

    /// Adds handles on what a sealed block holds in memory of a series in `start ..= end`.
    fn frozen_parts(
        &self,
        block: &Sealed,
        id: SeriesId,
        (start, end): (Timestamp, Timestamp),
        parts: &mut Vec<Part>,
    ) {
        for leaf in block.leaves() {
            if let Sealed::Frozen(frozen) = leaf
                && leaf.meets(start, end)
            {
                let mut all = Vec::new();
                frozen.parts(id, start, end, &mut all);
                let deleted = self.tombstones.get(&block.id());
                let deleted = deleted.and_then(|tombstones| tombstones.of(id));
                add_left(deleted, (start, end), all, parts);
            }
        }
    }

    /// Rows of `write` that may already be stored in a sealed block. Usually none: a row newer
    /// than its series' newest sample is nowhere.
    pub fn lookups(&self, write: &WriteCommand, returning: &[Returning]) -> Vec<Lookup> {
        let newest = self.sealed.iter().map(|block| block.range().1).max();
        let Some(newest) = newest else {
            return Vec::new();
        };
        let returning = returning.iter().map(|back| (&back.labels, back)).collect();
        let rows = write.rows.series.iter().zip(&write.rows.timestamps);
        rows.filter(|(_, at)| **at <= newest)
            .filter_map(|(series, at)| self.lookup(write, &returning, *series, *at))
            .collect()
    }

    fn lookup(
        &self,
        write: &WriteCommand,
        returning: &Map<&Labels, &Returning>,
        series: SeriesRef,
        at: Timestamp,
    ) -> Option<Lookup> {
        let (id, last) = self.means(write, returning, series)?;
        last.filter(|last| at <= *last)?;
        let holds = |block: &&Sealed| block.meets(at, at) && block.has(id);
        let blocks: Vec<&Sealed> = self.sealed.iter().filter(holds).collect();
        let mut parts = Vec::new();
        for block in &blocks {
            self.frozen_parts(block, id, (at, at), &mut parts);
        }
        let handles = Handles {
            id,
            labels: Labels::default(),
            parts,
            in_files: true,
        };
        let places = self.gathered(vec![handles], &blocks, (at, at), Others::None);
        (!blocks.is_empty()).then_some(Lookup { at, places })
    }

    /// One word for all that the log has made of this shard; no layout, no index.
    pub fn digest(&self) -> u64 {
        let mut digest = Digest::default();
        digest
            .word(self.table.given())
            .word(self.sums.series)
            .word(self.sums.samples)
            .time(self.max_time)
            .time(self.sealed_before);
        self.groups.digest(&mut digest);
        for (target, epoch) in self.fences.iter() {
            digest.word(target).word(epoch);
        }
        if !self.exemplars.is_empty() {
            self.exemplars.digest(&mut digest);
        }
        if !self.descriptions.is_empty() {
            self.descriptions.digest(&mut digest);
        }
        if !self.running.is_empty() {
            self.running.digest(&mut digest);
        }
        for (block, tombstones) in &self.tombstones {
            digest.word(*block);
            tombstones.digest(&mut digest);
        }
        digest.finish()
    }

    /// A block's file is durable: reads go there from now on.
    pub fn block_stored(&mut self, reader: Arc<Reader>) {
        let id = reader.meta().id;
        if let Some(block) = self.sealed.iter_mut().find(|block| block.id() == id) {
            let before = std::mem::replace(block, Sealed::Stored(reader));
            self.retired.extend(before.readers().cloned());
            self.rest_on(id, &before);
            return self.tidy_resting();
        }
        // Made one with others meanwhile.
        let within = self.sealed.iter_mut().any(|block| match block {
            Sealed::Merged(merged) => merged.stored(&reader),
            Sealed::Frozen(_) | Sealed::Stored(_) => false,
        });
        // Else dropped by the log while it was written.
        match within {
            true => self.tidy_resting(),
            false => self.retired.push(reader),
        }
    }

    /// This state takes the place of `before`, whose files must not vanish under a reader.
    pub fn retire(&mut self, before: Self) {
        self.retired.extend(before.retired);
        self.resting.take_count(&before.resting);
        for block in before.sealed {
            self.retired.extend(block.readers().cloned());
        }
    }

    /// Names of retired block files that nobody reads and that are not `named` by the manifest.
    pub fn take_unused(&mut self, named: impl Fn(&str) -> bool) -> Vec<String> {
        let in_use =
            |reader: &Arc<Reader>| Arc::strong_count(reader) > 1 || named(&reader.file().name);
        let (kept, unused): (Vec<_>, Vec<_>) = std::mem::take(&mut self.retired)
            .into_iter()
            .partition(in_use);
        self.retired = kept;
        let names = |reader: &Arc<Reader>| reader.file().name.clone();
        unused.iter().map(names).collect()
    }
}

fn merged_ids(merged: &Merged) -> (u64, Vec<u64>) {
    let blocks = merged.blocks().iter();
    (merged.id(), blocks.map(Sealed::id).collect())
}

/// Blocks of files as what the log made of them; by id.
fn merge(
    readers: Vec<Arc<Reader>>,
    merged: &BTreeMap<u64, Vec<u64>>,
) -> Result<Vec<Sealed>, ChunkError> {
    let mut leaves: BTreeMap<u64, Sealed> = readers
        .into_iter()
        .map(|reader| (reader.meta().id, Sealed::Stored(reader)))
        .collect();
    let mut whole = Vec::new();
    for (id, blocks) in merged {
        let blocks = blocks.iter().map(|block| leaves.remove(block));
        let blocks = blocks.collect::<Option<Vec<_>>>();
        let one = blocks.and_then(|blocks| Merged::new(*id, blocks));
        whole.push(Sealed::Merged(one.ok_or(ChunkError::NotAsNoted)?));
    }
    whole.extend(leaves.into_values());
    whole.sort_unstable_by_key(Sealed::id);
    Ok(whole)
}

/// The id a command means; `new` are those of its own series.
fn id_of(series: SeriesRef, new: &[SeriesId]) -> SeriesId {
    match series {
        SeriesRef::Known(id) => id,
        SeriesRef::New(index) => new[index as usize],
    }
}

/// The value a series has at `at`, in the head or in sealed blocks.
fn stored_value(
    series: &HeadSeries,
    id: SeriesId,
    at: Timestamp,
    recalled: &Recalled,
) -> Option<Value> {
    if series.last().is_none_or(|last| at > last) {
        return None;
    }
    series.find(at).or_else(|| recalled.get(id, at))
}

/// The sums taken again from what a checkpoint or a copy of the state holds beside its blocks.
pub fn sums_of(image: &Image) -> Result<Sums, ChunkError> {
    let mut sums = Sums::default();
    for ((id, labels), head) in image.labels.iter().zip(&image.head) {
        sums.add_series(id, labels);
        sums.add_samples(digest::samples(id, &head.late));
        sums.add_samples(digest::histograms(id, &head.histograms));
        for chunk in &head.chunks {
            sums.add_samples(digest::samples(id, &chunk.decode()?));
        }
    }
    Ok(sums)
}

/// The instants a command's rows may have. Fixed when the command begins: a request that catches
/// up series by series must not push its own later series out of the window.
struct Bounds {
    /// Whatever the series has.
    oldest: Option<Timestamp>,
    /// Behind all that the series has.
    oldest_in_order: Option<Timestamp>,
    newest: Option<Timestamp>,
}

impl Bounds {
    fn new(write: &WriteCommand, max_time: Option<Timestamp>) -> Self {
        let before = |window_ms: i64| max_time.map(|max| max.plus_ms(-window_ms.max(0)));
        let future_ms = write.future_window_ms;
        Self {
            oldest: before(write.out_of_order_window_ms),
            oldest_in_order: before(write.in_order_window_ms),
            newest: (future_ms > 0).then(|| write.proposed_at.plus_ms(future_ms)),
        }
    }

    /// `last` is the newest instant of the series.
    fn refuse(&self, at: Timestamp, last: Option<Timestamp>) -> Option<Reason> {
        let is_before = |bound: Option<Timestamp>| bound.is_some_and(|bound| at < bound);
        let in_order = last.is_none_or(|last| at > last);
        match (is_before(self.oldest), is_before(self.oldest_in_order)) {
            (true, true) => return Some(Reason::TooOld),
            (true, false) if !in_order => return Some(Reason::OutOfOrder),
            _ => {}
        }
        self.is_too_new(at).then_some(Reason::TooNew)
    }

    /// Whether no row from `min` to `max` is refused that is later than all its series has.
    fn admit(&self, min: Timestamp, max: Timestamp) -> bool {
        let later = |at: Timestamp| self.refuse(at, None).is_none();
        later(min) && later(max)
    }

    fn is_too_new(&self, at: Timestamp) -> bool {
        self.newest.is_some_and(|newest| at > newest)
    }
}
