//! Writes a block's file series by series, holding no more of it than a page, a table, the labels of an index segment
//! and the root.

use std::io;
use std::num::NonZeroU32;
use std::path::Path;

use bytes::Bytes;
use model::port::Disk;
use model::{Labels, SeriesId, Timestamp};

use super::directory::{Index, Packed, Root, Section, Stretch, encode_labels, encode_table};
use super::index::{PagePlace, SEGMENT_SERIES, Segment};
use super::page::Builder;
use super::table::TABLE_SERIES;
use super::{ChunkRef, Entry, Frozen, Meta, filter, index};
use crate::chunk::{BLOCK_CHUNK_SAMPLES, Point};
use crate::column::COLUMN_SAMPLES_MAX;
use crate::digest;
use crate::fields::{put_time, put_u32, put_u64};
use crate::file::{FileEntry, FileKind, FileWriter};
use crate::head::join;
use crate::histogram::{self, HistogramPoint};
use crate::part::Column;
use crate::select::Turn;

/// What the file begins with, but for its version and a newline.
pub const MAGIC: [u8; 6] = *b"qblock";
/// Magic, version, newline.
pub const HEADER_BYTES: usize = 8;
/// Histograms came with 2, pages of columns with 3, tables and a root with 4, an index with 5.
pub const VERSION: u8 = 5;
/// The first version that has tables and a root.
pub const VERSION_TABLES: u8 = 4;
/// The first version that has an index of labels.
pub const VERSION_INDEX: u8 = 5;
/// The oldest version we read.
pub const VERSION_MIN: u8 = 1;
pub const FOOTER_MAGIC: [u8; 8] = *b"qblkend\n";
/// Directory offset, length, raw length, checksum; id, range, counts, digest; checksum, magic.
pub const FOOTER_BYTES: usize = 8 * 3 + 4 + 8 * 6 + 4 + 8;

/// Of histograms.
const ZSTD_LEVEL: i32 = 3;
/// Labels repeat much, and tables are written once.
const TABLE_ZSTD_LEVEL: i32 = 9;
/// Making a page of the index takes about as long as decoding so many samples.
const SAMPLES_OF_INDEX_PAGE: usize = 16 << 10;
/// A chunk of histograms is cut once it has so many bytes: a query reads whole chunks.
const HISTOGRAM_CHUNK_BYTES: usize = 64 << 10;

/// Writes `frozen` into `dir` and makes its bytes durable; the caller flushes the directory.
/// `labels` answers for every series in the block.
pub async fn write(
    disk: &dyn Disk,
    dir: &Path,
    frozen: &Frozen,
    labels: impl Fn(SeriesId) -> Labels,
) -> io::Result<(FileEntry, Meta, Root)> {
    let mut writer = Writer::create(disk, dir, frozen.id()).await?;
    for (id, taken) in frozen.series() {
        let column = Column {
            floats: taken.points(),
            histograms: taken.histograms.clone(),
        };
        writer.add(*id, labels(*id), &column).await?;
    }
    writer.finish().await
}

/// A block's file that grows.
pub struct Writer<'d> {
    file: FileWriter<'d>,
    id: u64,
    samples: u64,
    digest: u64,
    range: Option<(Timestamp, Timestamp)>,
    root: Root,
    /// Where the stretch begins that is being written.
    offset: u64,
    /// Of that stretch.
    entries: Vec<Entry>,
    sections: Vec<Section>,
    page: Builder,
    /// Chunks that stand in `page`: whose place is known once it is written.
    waiting: Vec<(usize, usize)>,
    /// Of the labels since the last segment.
    index: index::Builder,
    segments: Vec<Segment>,
    filter: filter::Builder,
}

impl<'d> Writer<'d> {
    /// Begins the file of block `id` in `dir`, under a temporary name.
    pub async fn create(disk: &'d dyn Disk, dir: &'d Path, id: u64) -> io::Result<Self> {
        let file = FileWriter::create(disk, dir, FileKind::Block(id)).await?;
        Self::begin(file, id).await
    }

    /// As [`Writer::create`], under another temporary name, so that one of each may grow at once.
    pub async fn create_merged(disk: &'d dyn Disk, dir: &'d Path, id: u64) -> io::Result<Self> {
        let file = FileWriter::create_as(disk, dir, FileKind::Block(id), "merge.tmp").await?;
        Self::begin(file, id).await
    }

    async fn begin(mut file: FileWriter<'d>, id: u64) -> io::Result<Self> {
        let header = [&MAGIC[..], &[VERSION, b'\n']].concat();
        file.append(header.into()).await?;
        Ok(Self {
            file,
            id,
            samples: 0,
            digest: 0,
            range: None,
            root: Root::default(),
            offset: HEADER_BYTES as u64,
            entries: Vec::new(),
            sections: Vec::new(),
            page: Builder::default(),
            waiting: Vec::new(),
            index: index::Builder::default(),
            segments: Vec::new(),
            filter: filter::Builder::default(),
        })
    }

    /// Adds a series, behind all of lower ids; one without samples is left out.
    pub async fn add(&mut self, id: SeriesId, labels: Labels, column: &Column) -> io::Result<()> {
        if column.is_empty() {
            return Ok(());
        }
        if self.entries.len() == TABLE_SERIES {
            self.finish_stretch().await?;
        }
        let pushed = self.root.ids.push(id);
        pushed.expect("series come by id, each once");
        self.samples += column.len() as u64;
        let floats = digest::samples(id, &column.floats);
        let histograms = digest::histograms(id, &column.histograms);
        self.digest = self.digest.wrapping_add(floats).wrapping_add(histograms);
        self.entries.push(Entry {
            id,
            labels,
            chunks: Vec::new(),
        });
        for run in cut_floats(&column.floats) {
            self.add_floats(run).await?;
        }
        for run in cut_histograms(&column.histograms) {
            self.add_histograms(run).await?;
        }
        Ok(())
    }

    async fn add_floats(&mut self, run: &[Point]) -> io::Result<()> {
        let slot = self.waiting.len() as u16;
        self.page.add(run);
        let at = self.entries.len() - 1;
        let chunks = &mut self.entries[at].chunks;
        self.waiting.push((at, chunks.len()));
        chunks.push(ChunkRef {
            min: run[0].at,
            max: run[run.len() - 1].at,
            count: run.len() as u16,
            offset: 0,
            len: 0,
            crc32c: 0,
            slot: Some(slot),
            histograms: None,
        });
        match self.page.is_full() {
            true => self.finish_page().await,
            false => Ok(()),
        }
    }

    async fn add_histograms(&mut self, run: &[HistogramPoint]) -> io::Result<()> {
        let raw = histogram::encode(run);
        let data = zstd::bulk::compress(&raw, ZSTD_LEVEL)?;
        let (min, max) = histogram::range_of(run).expect("no run is empty");
        let section = self.append(data.into()).await?;
        let raw_len = u32::try_from(raw.len()).map_err(io::Error::other)?;
        let at = self.entries.len() - 1;
        self.entries[at].chunks.push(ChunkRef {
            min,
            max,
            count: run.len() as u16,
            offset: section.offset,
            len: section.len,
            crc32c: section.crc32c,
            slot: None,
            histograms: NonZeroU32::new(raw_len),
        });
        Ok(())
    }

    async fn finish_page(&mut self) -> io::Result<()> {
        if self.page.is_empty() {
            return Ok(());
        }
        let bytes = self.page.finish()?;
        let section = self.append(bytes).await?;
        for (entry, chunk) in self.waiting.drain(..) {
            let chunk = &mut self.entries[entry].chunks[chunk];
            chunk.offset = section.offset;
            chunk.len = section.len;
            chunk.crc32c = section.crc32c;
        }
        Ok(())
    }

    async fn append(&mut self, bytes: Bytes) -> io::Result<Section> {
        let section = self.write(bytes).await?;
        self.sections.push(section);
        Ok(section)
    }

    async fn write(&mut self, bytes: Bytes) -> io::Result<Section> {
        let section = Section {
            offset: self.file.len(),
            len: u32::try_from(bytes.len()).map_err(io::Error::other)?,
            crc32c: crc32c::crc32c(&bytes),
        };
        self.file.append(bytes).await?;
        Ok(section)
    }

    async fn write_packed(&mut self, raw: &[u8]) -> io::Result<Packed> {
        let bytes = zstd::bulk::compress(raw, TABLE_ZSTD_LEVEL)?;
        Ok(Packed {
            section: self.write(bytes.into()).await?,
            raw_len: raw.len() as u64,
        })
    }

    /// Writes where the samples of the last series stand, and their labels.
    async fn finish_stretch(&mut self) -> io::Result<()> {
        self.finish_page().await?;
        let entries = std::mem::take(&mut self.entries);
        let sections = std::mem::take(&mut self.sections);
        let ranges = entries.iter().flat_map(|e| &e.chunks);
        let ranges = ranges.map(|chunk| Some((chunk.min, chunk.max)));
        self.range = ranges.fold(self.range, join);
        let chunks = self
            .write_packed(&encode_table(&entries, &sections))
            .await?;
        let labels = self.write_packed(&encode_labels(&entries)).await?;
        self.root.stretches.push(Stretch {
            offset: self.offset,
            chunks,
            labels,
        });
        let labels = || entries.iter().map(|entry| &entry.labels);
        labels().for_each(|labels| self.filter.add(labels));
        self.index.add(labels());
        if self.index.series() == SEGMENT_SERIES {
            self.finish_segment().await?;
        }
        self.offset = self.file.len();
        Ok(())
    }

    /// Writes which of the series since the last segment have which label.
    async fn finish_segment(&mut self) -> io::Result<()> {
        let (mut segment, mut turn) = (Segment::default(), Turn::default());
        for (first, raw) in self.index.finish() {
            let packed = self.write_packed(&raw).await?;
            segment.pages.push(PagePlace { packed, first });
            turn.spend(SAMPLES_OF_INDEX_PAGE).await;
        }
        self.segments.push(segment);
        Ok(())
    }

    /// Sum over the samples so far ([`digest::samples`]).
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Makes the file durable under its name; the caller flushes the directory.
    ///
    /// # Panics
    /// When no series with a sample was added.
    pub async fn finish(mut self) -> io::Result<(FileEntry, Meta, Root)> {
        self.finish_stretch().await?;
        if self.index.series() > 0 {
            self.finish_segment().await?;
        }
        self.root.index = Some(Index {
            segments: std::mem::take(&mut self.segments),
            filter: self.filter.finish(),
        });
        let (min, max) = self.range.expect("a block holds samples");
        let meta = Meta {
            id: self.id,
            min,
            max,
            series: self.root.ids.count() as u64,
            samples: self.samples,
            digest: self.digest,
        };
        let root = self.root.encode();
        let packed = self.write_packed(&root).await?;
        self.file
            .append(encode_footer(&meta, &packed).into())
            .await?;
        let entry = self.file.finish().await?;
        Ok((entry, meta, self.root))
    }
}

/// Runs of a column each, of one length but for the last, none empty.
fn cut_floats(points: &[Point]) -> impl Iterator<Item = &[Point]> {
    let runs = points.len().div_ceil(COLUMN_SAMPLES_MAX).max(1);
    points.chunks(points.len().div_ceil(runs).max(1))
}

/// Runs of a chunk each, none empty.
fn cut_histograms(mut points: &[HistogramPoint]) -> Vec<&[HistogramPoint]> {
    let mut runs = Vec::new();
    while !points.is_empty() {
        let mut bytes = 0;
        let fits = points.iter().take_while(|point| {
            let before = bytes;
            bytes += point.bytes.len();
            before == 0 || bytes <= HISTOGRAM_CHUNK_BYTES
        });
        let count = fits.take(usize::from(BLOCK_CHUNK_SAMPLES)).count();
        let (run, rest) = points.split_at(count);
        runs.push(run);
        points = rest;
    }
    runs
}

pub fn encode_footer(meta: &Meta, root: &Packed) -> Vec<u8> {
    let mut out = Vec::with_capacity(FOOTER_BYTES);
    put_u64(&mut out, root.section.offset);
    put_u64(&mut out, root.section.len.into());
    put_u64(&mut out, root.raw_len);
    put_u32(&mut out, root.section.crc32c);
    put_u64(&mut out, meta.id);
    put_time(&mut out, meta.min);
    put_time(&mut out, meta.max);
    put_u64(&mut out, meta.series);
    put_u64(&mut out, meta.samples);
    put_u64(&mut out, meta.digest);
    let crc = crc32c::crc32c(&out);
    put_u32(&mut out, crc);
    out.extend_from_slice(&FOOTER_MAGIC);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_cut_by_bytes_and_by_count() {
        let point = |at, len| HistogramPoint {
            at: Timestamp(at),
            bytes: vec![0; len].into(),
        };
        let lens = |points: &[HistogramPoint]| -> Vec<usize> {
            cut_histograms(points).iter().map(|run| run.len()).collect()
        };
        assert_eq!(lens(&[]), []);
        let many: Vec<_> = (0..500).map(|at| point(at, 10)).collect();
        assert_eq!(lens(&many), [480, 20]);
        let large: Vec<_> = (0..3).map(|at| point(at, HISTOGRAM_CHUNK_BYTES)).collect();
        assert_eq!(lens(&large), [1, 1, 1]);
        let half: Vec<_> = (0..3)
            .map(|at| point(at, HISTOGRAM_CHUNK_BYTES / 2))
            .collect();
        assert_eq!(lens(&half), [2, 1]);
    }
}
