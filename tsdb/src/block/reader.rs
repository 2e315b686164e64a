//! Reads a block's file by range: magic, footer and root when it is opened, a table or a chunk when it
//! is asked for. Every byte is under a checksum that is looked at before the byte is believed.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use bytes::Bytes;
use model::port::Disk;
use model::{Labels, Samples, SeriesId, Timestamp};

use super::directory::{self, Root, Stretch};
use super::filter::Filter;
use super::ids::Ids;
use super::index::Segment;
use super::kept::Kept;
use super::page::Page;
use super::raw::{RawFile, decompress};
use super::table::{Decoded, Piece, TABLE_SERIES, Table, Tables};
use super::writer::VERSION_TABLES;
use super::{ChunkRef, Entry, Meta};
use crate::chunk::{Chunk, ChunkError, Coding, Point};
use crate::error::StorageError;
use crate::fields::Malformed;
use crate::file::FileEntry;
use crate::histogram;
use crate::part::Column;

/// An open block. Holds which series it has and where their tables are, no samples and no open file.
pub struct Reader {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: FileEntry,
    meta: Meta,
    ids: Ids,
    stretches: Stretches,
    /// None of a version that has none.
    pub(super) segments: Option<Vec<Segment>>,
    /// Of a version that has none once all of its labels were read.
    pub(super) filter: OnceLock<Filter>,
    tables: Arc<Tables>,
    /// Its own among all whose tables are kept there.
    number: u64,
    /// The page read last, by where it begins: who goes through the series one by one meets it
    /// many times.
    recent: Mutex<Option<(u64, Arc<Page>)>>,
    kept: Mutex<Kept>,
}

/// Each [`TABLE_SERIES`] series of a block, by id.
enum Stretches {
    Stored(Vec<Stretch>),
    /// Of a version whose directory is read in one piece.
    Held(Vec<Arc<Table>>),
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reader({})", self.file.name)
    }
}

impl Reader {
    /// A reader of a file that was just written, with this root.
    pub fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        file: FileEntry,
        (meta, root): (Meta, Root),
        tables: &Arc<Tables>,
    ) -> Self {
        Self::with(disk, dir, file, (meta, Known::of(root)), tables)
    }

    fn with(
        disk: Arc<dyn Disk>,
        dir: &Path,
        file: FileEntry,
        (meta, known): (Meta, Known),
        tables: &Arc<Tables>,
    ) -> Self {
        Self {
            disk,
            path: dir.join(&file.name),
            kept: Mutex::new(Kept::of_block(file.len)),
            file,
            meta,
            ids: known.ids,
            stretches: known.stretches,
            segments: known.segments,
            filter: known.filter,
            number: tables.number(),
            tables: tables.clone(),
            recent: Mutex::default(),
        }
    }

    /// Opens the file. What its tables say is looked at when they are read.
    pub async fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        file: FileEntry,
        tables: &Arc<Tables>,
    ) -> Result<Self, StorageError> {
        let path = dir.join(&file.name);
        let raw = RawFile {
            disk: &*disk,
            path: &path,
            entry: &file,
        };
        let (version, footer) = raw.ends().await?;
        let known = match version >= VERSION_TABLES {
            true => Known::of(raw.root(version, &footer).await?),
            false => Known::held(&raw.directory(version, &footer).await?)
                .map_err(|e| raw.corrupt("directory", e))?,
        };
        let known = (footer.meta, known);
        Ok(Self::with(disk.clone(), dir, file, known, tables))
    }

    pub(super) fn raw(&self) -> RawFile<'_> {
        RawFile {
            disk: &*self.disk,
            path: &self.path,
            entry: &self.file,
        }
    }

    /// The series it holds, ascending.
    pub fn ids(&self) -> &Ids {
        &self.ids
    }

    /// Of how many series one of its tables tells.
    fn series_of(&self, nth: usize) -> usize {
        let before = nth.saturating_mul(TABLE_SERIES);
        self.ids.count().saturating_sub(before).min(TABLE_SERIES)
    }

    /// Where the chunks of [`TABLE_SERIES`] series stand, from the one at `nth` times as many on.
    pub async fn table(&self, nth: usize) -> Result<Arc<Table>, StorageError> {
        let missing = || self.corrupt("no such table");
        let stretch = match &self.stretches {
            Stretches::Held(held) => return held.get(nth).cloned().ok_or_else(missing),
            Stretches::Stored(stored) => stored.get(nth).ok_or_else(missing)?,
        };
        if let Some(Decoded::Table(table)) = self.kept_piece(Piece::Table(nth)) {
            return Ok(table);
        }
        let table = Arc::new(self.read_table(nth, stretch).await?);
        self.keep_piece(Piece::Table(nth), Decoded::Table(table.clone()));
        Ok(table)
    }

    /// One that was read lately.
    pub(super) fn kept_piece(&self, piece: Piece) -> Option<Decoded> {
        self.tables.get(self.number, piece)
    }

    pub(super) fn keep_piece(&self, piece: Piece, decoded: Decoded) {
        self.tables.put(self.number, piece, decoded);
    }

    async fn read_table(&self, nth: usize, stretch: &Stretch) -> Result<Table, StorageError> {
        let raw = self.raw();
        let bytes = raw.unpack(&stretch.chunks, "table").await?;
        let end = stretch.chunks.section.offset;
        let table = directory::decode_table(&bytes, self.series_of(nth), stretch.offset, end);
        let table = table.map_err(|e| raw.corrupt("table", e))?;
        let inside = |c: &ChunkRef| self.meta.min <= c.min && c.max <= self.meta.max;
        match table.all().iter().all(inside) {
            true => Ok(table),
            false => Err(raw.corrupt("table", "a chunk out of the block's range")),
        }
    }

    /// Those of its series, as many at a time as a table tells of.
    pub fn label_sets(&self) -> LabelSets<'_> {
        LabelSets {
            reader: self,
            nth: 0,
            held: None,
        }
    }

    /// Whether labels are read by table; otherwise they are read all at once.
    pub(super) fn has_label_pieces(&self) -> bool {
        matches!(self.stretches, Stretches::Stored(_))
    }

    /// Of the series that a table tells of.
    pub(super) async fn read_labels(&self, nth: usize) -> Result<Vec<Labels>, StorageError> {
        let bytes = self.unpack_labels(nth).await?;
        let labels = directory::decode_labels(&bytes, self.series_of(nth));
        labels.map_err(|e| self.raw().corrupt("labels", e))
    }

    /// The same, told one by one as they stand there: what should be in the canonical form.
    pub(super) async fn read_label_blocks(
        &self,
        nth: usize,
        tell: impl FnMut(usize, &[u8]) + Send,
    ) -> Result<(), StorageError> {
        let bytes = self.unpack_labels(nth).await?;
        let told = directory::each_label_block(&bytes, self.series_of(nth), tell);
        told.map_err(|e| self.raw().corrupt("labels", e))
    }

    async fn unpack_labels(&self, nth: usize) -> Result<Vec<u8>, StorageError> {
        let stretch = match &self.stretches {
            Stretches::Stored(stored) => stored.get(nth),
            Stretches::Held(_) => None,
        };
        let stretch = stretch.ok_or_else(|| self.corrupt("no such table"))?;
        self.raw().unpack(&stretch.labels, "labels").await
    }

    /// How many tables it has.
    pub fn tables(&self) -> usize {
        self.ids.count().div_ceil(TABLE_SERIES)
    }

    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    pub fn file(&self) -> &FileEntry {
        &self.file
    }

    /// Reads and checks one chunk.
    pub async fn read(&self, chunk: &ChunkRef) -> Result<Column, StorageError> {
        if let Some(slot) = chunk.slot {
            let page = self.page(chunk).await?;
            let floats = page.points(slot).map_err(|e| self.corrupt(e))?;
            self.check_slot(chunk, ends(&floats))?;
            return Ok(Column {
                floats,
                ..Column::default()
            });
        }
        let data = self.raw();
        let data = data.read(chunk.offset, chunk.len as usize, "chunk").await?;
        self.check(chunk, &data)?;
        match chunk.histograms {
            None => decode_floats(chunk, data).map_err(|e| self.corrupt(e)),
            Some(len) => decode_histograms(chunk, &data, len).map_err(|e| self.corrupt(e)),
        }
    }

    /// The bytes of a chunk and what lies behind it, `bytes` in all if the file has so many.
    pub async fn read_ahead(&self, chunk: &ChunkRef, bytes: usize) -> Result<Bytes, StorageError> {
        let len = bytes.max(chunk.len as usize);
        let read = self.disk.read(&self.path, chunk.offset, len).await;
        read.map_err(|e| StorageError::io("read", &self.file.name, e))
    }

    /// A chunk of floats whose bytes were read by [`Reader::read_ahead`], checked.
    pub fn floats(&self, chunk: &ChunkRef, data: Bytes) -> Result<Chunk, StorageError> {
        self.check(chunk, &data)?;
        Ok(floats(chunk, data))
    }

    /// The page a chunk stands in, checked.
    pub async fn page(&self, chunk: &ChunkRef) -> Result<Arc<Page>, StorageError> {
        let recent = self.recent.lock().expect(UNPOISONED).clone();
        if let Some((_, page)) = recent.filter(|(offset, _)| *offset == chunk.offset) {
            return Ok(page);
        }
        let data = self.raw();
        let data = data.read(chunk.offset, chunk.len as usize, "page").await?;
        self.check(chunk, &data)?;
        let page = Arc::new(Page::open(data).map_err(|e| self.corrupt(e))?);
        *self.recent.lock().expect(UNPOISONED) = Some((chunk.offset, page.clone()));
        Ok(page)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect(UNPOISONED)
    }

    /// As much of the page a chunk stands in as `wanted`, a few of its slots, ascending. What is read for
    /// them is kept for the next time.
    pub async fn slots(&self, chunk: &ChunkRef, wanted: &[u16]) -> Result<Arc<Page>, StorageError> {
        if let Some(page) = self.kept().page(chunk.offset, wanted) {
            return Ok(Arc::new(page));
        }
        let page = self.page(chunk).await?;
        let done = self.kept().keep(chunk.offset, wanted, &page);
        done.map_err(|e| self.corrupt(e))?;
        Ok(page)
    }

    /// Adds the samples of a chunk in `page` that lie in `range`; `values` are the chunk's.
    pub fn read_slot(
        &self,
        chunk: &ChunkRef,
        (page, values): (&Page, &[u64]),
        range: (Timestamp, Timestamp),
        samples: &mut Samples,
    ) -> Result<(), StorageError> {
        let slot = chunk.slot.unwrap_or(u16::MAX);
        let found = page.read_into(slot, values, range, samples);
        let (first, last, count) = found.map_err(|e| self.corrupt(e))?;
        self.check_slot(chunk, Some((first, last, count)))
    }

    fn check_slot(
        &self,
        chunk: &ChunkRef,
        found: Option<(Timestamp, Timestamp, usize)>,
    ) -> Result<(), StorageError> {
        match found == Some((chunk.min, chunk.max, usize::from(chunk.count))) {
            true => Ok(()),
            false => Err(self.corrupt(ChunkError::NotAsNoted)),
        }
    }

    /// Lets go of the page read last.
    pub fn forget_page(&self) {
        *self.recent.lock().expect(UNPOISONED) = None;
    }

    fn check(&self, chunk: &ChunkRef, data: &[u8]) -> Result<(), StorageError> {
        match crc32c::crc32c(data) == chunk.crc32c {
            true => Ok(()),
            false => Err(self.corrupt(format!("wrong checksum at {}", chunk.offset))),
        }
    }

    /// Of a chunk.
    pub fn corrupt(&self, reason: impl ToString) -> StorageError {
        StorageError::corrupt(&self.file.name, "chunk", reason)
    }
}

const UNPOISONED: &str = "no panic under this lock";

fn ends(points: &[Point]) -> Option<(Timestamp, Timestamp, usize)> {
    let (first, last) = points.first().zip(points.last())?;
    Some((first.at, last.at, points.len()))
}

/// What is known of a block while it is open.
struct Known {
    ids: Ids,
    stretches: Stretches,
    segments: Option<Vec<Segment>>,
    filter: OnceLock<Filter>,
}

impl Known {
    fn of(root: Root) -> Self {
        let (segments, filter) = match root.index {
            None => (None, OnceLock::new()),
            Some(index) => (Some(index.segments), OnceLock::from(index.filter)),
        };
        Self {
            ids: root.ids,
            stretches: Stretches::Stored(root.stretches),
            segments,
            filter,
        }
    }

    fn held(entries: &[Entry]) -> Result<Self, Malformed> {
        let mut ids = Ids::default();
        entries.iter().try_for_each(|entry| ids.push(entry.id))?;
        let held = entries.chunks(TABLE_SERIES).map(|some| {
            let mut table = Table::default();
            some.iter().for_each(|entry| table.push(&entry.chunks));
            Arc::new(table)
        });
        Ok(Self {
            ids,
            stretches: Stretches::Held(held.collect()),
            segments: None,
            filter: OnceLock::new(),
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.tables.forget(self.number);
    }
}

/// Goes through the labels of a block's series.
pub struct LabelSets<'r> {
    reader: &'r Reader,
    nth: usize,
    /// Of a version whose directory is read in one piece: those that were not asked for yet.
    held: Option<std::vec::IntoIter<Entry>>,
}

impl LabelSets<'_> {
    /// Of the series that the next table tells of.
    pub async fn next(&mut self) -> Result<Vec<Labels>, StorageError> {
        let (reader, nth) = (self.reader, self.nth);
        self.nth += 1;
        if let Stretches::Stored(_) = &reader.stretches {
            return reader.read_labels(nth).await;
        }
        if self.held.is_none() {
            let raw = reader.raw();
            let (version, footer) = raw.ends().await?;
            self.held = Some(raw.directory(version, &footer).await?.into_iter());
        }
        let some = self.held.iter_mut().flatten().take(TABLE_SERIES);
        let labels: Vec<Labels> = some.map(|entry| entry.labels).collect();
        match labels.len() == reader.series_of(nth) {
            true => Ok(labels),
            false => Err(reader.corrupt("not the series that it had when it was opened")),
        }
    }

    /// Of those that table `nth` tells of, which was not asked for yet, nor one behind it.
    pub(super) async fn nth(&mut self, nth: usize) -> Result<Vec<Labels>, StorageError> {
        match self.reader.stretches {
            Stretches::Stored(_) => self.nth = nth,
            Stretches::Held(_) => {
                while self.nth < nth {
                    self.next().await?;
                }
            }
        }
        self.next().await
    }
}

/// Goes through a block's series by their ids, ascending: holds the table and the labels that were asked for last.
pub struct Walk<'r> {
    reader: &'r Reader,
    at: Option<(usize, Arc<Table>)>,
    label_sets: LabelSets<'r>,
    labels: Option<(usize, Vec<Labels>)>,
}

impl<'r> Walk<'r> {
    pub fn new(reader: &'r Reader) -> Self {
        Self {
            reader,
            at: None,
            label_sets: reader.label_sets(),
            labels: None,
        }
    }

    /// The chunks of one series: those of floats in time order, then those of histograms; none of one that the block
    /// does not hold.
    pub async fn chunks(&mut self, id: SeriesId) -> Result<&[ChunkRef], StorageError> {
        let Some(place) = self.reader.ids.place(id) else {
            return Ok(&[]);
        };
        let nth = place / TABLE_SERIES;
        if self.at.as_ref().is_none_or(|(at, _)| *at != nth) {
            self.at = Some((nth, self.reader.table(nth).await?));
        }
        let table = self.at.as_ref().map(|(_, table)| table);
        Ok(table.map_or(&[], |table| table.chunks(place % TABLE_SERIES)))
    }

    /// The labels of one series; nothing of one that the block does not hold.
    pub async fn labels(&mut self, id: SeriesId) -> Result<Option<&Labels>, StorageError> {
        let Some(place) = self.reader.ids.place(id) else {
            return Ok(None);
        };
        let nth = place / TABLE_SERIES;
        if self.labels.as_ref().is_none_or(|(at, _)| *at != nth) {
            self.labels = Some((nth, self.label_sets.nth(nth).await?));
        }
        let labels = self.labels.as_ref().map(|(_, labels)| labels);
        Ok(labels.and_then(|labels| labels.get(place % TABLE_SERIES)))
    }
}

fn floats(chunk: &ChunkRef, data: Bytes) -> Chunk {
    Chunk {
        min: chunk.min,
        max: chunk.max,
        count: chunk.count,
        coding: Coding::Xor,
        data,
    }
}

fn decode_floats(chunk: &ChunkRef, data: Bytes) -> Result<Column, ChunkError> {
    Ok(Column {
        floats: floats(chunk, data).decode()?,
        histograms: Vec::new(),
    })
}

fn decode_histograms(
    chunk: &ChunkRef,
    data: &[u8],
    raw_len: NonZeroU32,
) -> Result<Column, Malformed> {
    let raw = decompress(data, u64::from(raw_len.get()));
    let raw = raw.ok_or(Malformed("does not decompress to its length"))?;
    let histograms = histogram::decode(&raw, chunk.count)?;
    match histogram::range_of(&histograms) == Some((chunk.min, chunk.max)) {
        true => Ok(Column {
            floats: Vec::new(),
            histograms,
        }),
        false => Err(Malformed("time range differs from what was noted")),
    }
}
