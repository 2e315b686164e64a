//! Series that only blocks hold. They leave the register and the head, keep their ids, and come back with them.
//!
//! Which series rest depends on the log alone; where their labels are looked up does not: in memory as long as one of
//! their blocks has no file, in the files after that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::hash::Map;
use model::{Labels, Matcher, SeriesId, Timestamp};

use super::State;
use crate::block::{Reader, Sealed};
use crate::command::{SeriesRef, WriteCommand};
use crate::gathered::Others;
use crate::index::{Index, select_any};
use crate::resting::{Rest, RestIn};

/// What memory has to know of them.
#[derive(Debug, Default)]
pub struct Resting {
    unwritten: Unwritten,
    /// Blocks that have or get a file and may hold such series.
    blocks: BTreeSet<u64>,
    /// How often one came back since this state was made.
    returned: u64,
}

/// Those that a block without a file holds.
#[derive(Debug, Default)]
struct Unwritten {
    labels: BTreeMap<SeriesId, Labels>,
    ids: Map<Labels, SeriesId>,
    index: Index,
}

impl Unwritten {
    fn add(&mut self, mut series: Vec<(SeriesId, Labels)>) {
        series.retain(|(id, _)| !self.labels.contains_key(id));
        self.index.put_back(&series);
        self.ids
            .extend(series.iter().map(|(id, labels)| (labels.clone(), *id)));
        self.labels.extend(series);
    }

    fn remove(&mut self, gone: impl Fn(&SeriesId) -> bool) {
        let gone: Vec<(SeriesId, Labels)> = self.labels.extract_if(.., |id, _| gone(id)).collect();
        if gone.is_empty() {
            return;
        }
        self.index.remove(&gone);
        for (_, labels) in &gone {
            self.ids.remove(labels);
        }
    }
}

impl Resting {
    /// Those that a block without a file holds.
    pub fn unwritten(&self) -> &BTreeMap<SeriesId, Labels> {
        &self.unwritten.labels
    }

    pub fn may_be_in(&self, block: u64) -> bool {
        self.blocks.contains(&block)
    }

    /// This state takes the place of that other.
    pub(super) fn take_count(&mut self, before: &Self) {
        self.returned = before.returned;
    }

    /// How often a series came back since the shard was opened.
    pub fn returned(&self) -> u64 {
        self.returned
    }
}

/// A series that rested and is written again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Returning {
    pub id: SeriesId,
    pub labels: Labels,
    /// Of what blocks hold.
    pub newest: Timestamp,
}

/// Label sets of a command that are not registered, and where their series may rest.
#[derive(Debug, Default)]
pub struct Unregistered<'a> {
    /// Those whose ids memory tells.
    pub known: Vec<(SeriesId, &'a Labels)>,
    /// All others, if these files may have any.
    pub others: Vec<&'a Labels>,
    pub files: Vec<Arc<Reader>>,
}

impl State {
    /// Finds out in which of its blocks series rest.
    pub(super) fn find_resting(&mut self) {
        let leaves = self.sealed.iter().flat_map(Sealed::leaves);
        let registered = |id: &SeriesId| self.table.labels(*id).is_some();
        let holds = leaves.filter(|leaf| !leaf.series().iter().all(registered));
        self.resting.blocks = holds.map(Sealed::id).collect();
    }

    /// Series that leave the register and that blocks hold; by id.
    pub(super) fn lay_down(&mut self, series: Vec<(SeriesId, Labels)>) {
        for leaf in self.sealed.iter().flat_map(Sealed::leaves) {
            let has = |(id, _): &&(SeriesId, Labels)| leaf.has(*id);
            let mut held = series.iter().filter(has).peekable();
            if held.peek().is_some() {
                self.resting.blocks.insert(leaf.id());
            }
            if let Sealed::Frozen(_) = leaf {
                self.resting.unwritten.add(held.cloned().collect());
            }
        }
    }

    /// Those of a block that was just made, whose `labels` they are, that are not registered.
    pub(super) fn note_resting(&mut self, block: u64, labels: &[(SeriesId, Labels)]) {
        let rests = |(id, _): &&(SeriesId, Labels)| self.table.labels(*id).is_none();
        let resting: Vec<_> = labels.iter().filter(rests).cloned().collect();
        if !resting.is_empty() {
            self.resting.blocks.insert(block);
        }
        self.resting.unwritten.add(resting);
    }

    /// A block of this id holds what this one did.
    pub(super) fn rest_on(&mut self, block: u64, before: &Sealed) {
        let mut leaves = before.leaves().iter();
        if leaves.any(|leaf| self.resting.may_be_in(leaf.id())) {
            self.resting.blocks.insert(block);
        }
    }

    /// Forgets what was known of blocks that are not there any more, or have a file now.
    pub(super) fn tidy_resting(&mut self) {
        if self.resting.blocks.is_empty() {
            return;
        }
        let leaves: Vec<&Sealed> = self.sealed.iter().flat_map(Sealed::leaves).collect();
        let there: BTreeSet<u64> = leaves.iter().map(|leaf| leaf.id()).collect();
        self.resting.blocks.retain(|block| there.contains(block));
        let unwritten = |leaf: &&&Sealed| matches!(leaf, Sealed::Frozen(_));
        let frozen: Vec<&&Sealed> = leaves.iter().filter(unwritten).collect();
        let is_written = |id: &SeriesId| !frozen.iter().any(|leaf| leaf.has(*id));
        self.resting.unwritten.remove(is_written);
    }

    /// The series are registered again.
    pub(super) fn put_back(&mut self, returning: &[Returning]) {
        if returning.is_empty() {
            return;
        }
        let named = returning.iter().map(|back| (back.id, back.labels.clone()));
        self.table.put_back(&named.collect::<Vec<_>>());
        self.head
            .put_back(returning.iter().map(|back| (back.id, back.newest)));
        for back in returning {
            self.sums.add_series(back.id, &back.labels);
        }
        let is_back = |id: &SeriesId| returning.binary_search_by_key(id, |back| back.id).is_ok();
        self.resting.unwritten.remove(is_back);
        self.resting.returned += returning.len() as u64;
    }

    /// Label sets that may be those of series that rest; each as often as it stands there.
    pub fn unregistered<'a>(&self, all: &'a [Labels]) -> Unregistered<'a> {
        let mut found = Unregistered::default();
        if self.resting.blocks.is_empty() {
            return found;
        }
        let unknown = |labels: &&Labels| self.table.resolve(labels).is_none();
        for labels in all.iter().filter(unknown) {
            match self.resting.unwritten.ids.get(labels) {
                Some(id) => found.known.push((*id, labels)),
                None => found.others.push(labels),
            }
        }
        if !found.others.is_empty() {
            found.files = self.resting_files().cloned().collect();
        }
        found
    }

    /// Whether any of these may be that of a series that rests.
    pub(super) fn may_return(&self, all: &[Labels]) -> bool {
        if self.resting.blocks.is_empty() {
            return false;
        }
        let files: Vec<&Arc<Reader>> = self.resting_files().collect();
        let unknown = |labels: &&Labels| self.table.resolve(labels).is_none();
        let rests = |labels: &Labels| {
            self.resting.unwritten.ids.contains_key(labels)
                || files.iter().any(|reader| reader.may_have(labels))
        };
        all.iter().filter(unknown).any(rests)
    }

    /// Those in which series may rest.
    fn resting_files(&self) -> impl Iterator<Item = &Arc<Reader>> {
        let readers = self.sealed.iter().flat_map(Sealed::readers);
        readers.filter(|reader| self.resting.may_be_in(reader.meta().id))
    }

    /// The blocks that have or get a file.
    pub fn leaves(&self) -> Vec<Sealed> {
        let leaves = self.sealed.iter().flat_map(Sealed::leaves);
        leaves.cloned().collect()
    }

    /// Ids of registered series, and of those that rest as far as memory knows, that any of the lists chooses;
    /// ascending.
    pub fn select_any(&self, any_of: &[Vec<Matcher>]) -> Vec<SeriesId> {
        let mut ids = self.select_registered(any_of);
        let unwritten = select_any(&self.resting.unwritten.index, any_of);
        if !unwritten.is_empty() {
            ids.extend(unwritten);
            ids.sort();
        }
        ids
    }

    /// The labels of a series that is registered, or that rests in a block without a file.
    pub fn labels(&self, id: SeriesId) -> Option<&Labels> {
        let labels = self.table.labels(id);
        labels.or_else(|| self.resting.unwritten.labels.get(&id))
    }

    /// Series that rest in blocks which `start ..= end` meets, and that any of the lists chooses; registered ones may
    /// be among them.
    pub fn rest(&self, any_of: &[Vec<Matcher>], start: Timestamp, end: Timestamp) -> Rest {
        if start > end || self.resting.blocks.is_empty() {
            return Rest::default();
        }
        let blocks = self.blocks(start, end);
        let stands = |id: &SeriesId| blocks.iter().any(|block| self.stands_in(block, *id));
        let unwritten = select_any(&self.resting.unwritten.index, any_of).into_iter();
        let unwritten = unwritten.filter(stands);
        let labels = |id| Some((id, self.labels(id)?.clone()));
        let files = blocks.iter().flat_map(|block| {
            let readers = block.readers();
            let readers = readers.filter(|reader| self.resting.may_be_in(reader.meta().id));
            readers.map(|reader| RestIn {
                reader: reader.clone(),
                deleted: self.tombstones.get(&block.id()).cloned(),
                range: block.range(),
            })
        });
        Rest {
            unwritten: unwritten.filter_map(labels).collect(),
            files: files.collect(),
            any_of: any_of.to_vec(),
        }
    }

    /// Series that rest in these blocks and that any of the lists chooses, but for those that are known.
    pub(super) fn others(
        &self,
        blocks: &[&Sealed],
        any_of: &[Vec<Matcher>],
        known: Vec<SeriesId>,
    ) -> Others {
        let mut leaves = blocks.iter().flat_map(|block| block.leaves());
        match leaves.any(|leaf| self.resting.may_be_in(leaf.id())) {
            true => Others::Chosen {
                any_of: any_of.to_vec(),
                known,
            },
            false => Others::None,
        }
    }

    /// What a row of a write is about, and the newest instant of that series, once those that the write brings back are
    /// registered.
    pub(super) fn means(
        &self,
        write: &WriteCommand,
        returning: &Map<&Labels, &Returning>,
        series: SeriesRef,
    ) -> Option<(SeriesId, Option<Timestamp>)> {
        let registered = |id| Some((id, self.head.series(id)?.last()));
        match series {
            SeriesRef::Known(id) => registered(id),
            SeriesRef::New(index) => {
                let labels = &write.labels[index as usize];
                let back = returning.get(labels);
                let back = back.map(|back| (back.id, Some(back.newest)));
                self.table.resolve(labels).map_or(back, registered)
            }
        }
    }
}
