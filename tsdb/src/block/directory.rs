//! A block's directory: which series it holds, and where their samples and labels stand
//! (docs/format/block.md). Of this version a root and tables that are read when they are asked for; of those
//! before in one piece, which is columns in version 3 and one row a chunk in 1 and 2.

use std::num::NonZeroU32;

use model::{Labels, SeriesId, Timestamp};

use super::filter::Filter;
use super::ids::Ids;
use super::index::{Key, PagePlace, SEGMENT_STRETCHES, Segment};
use super::page::{PAGE_SLOTS, put_ints, take_ints};
use super::table::{TABLE_SERIES, Table};
use super::writer::VERSION_INDEX;
use super::{ChunkRef, Entry};
use crate::chunk::BLOCK_CHUNK_SAMPLES;
use crate::column::COLUMN_SAMPLES_MAX;
use crate::fields::{Fields, Malformed, put_bytes, put_u32, put_varint};

/// A stretch of the file under one checksum: a page, or one chunk of histograms.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    pub offset: u64,
    pub len: u32,
    pub crc32c: u32,
}

impl Section {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.len.into())
    }
}

/// A stretch of the file that is compressed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    pub section: Section,
    /// Its length after decompression.
    pub raw_len: u64,
}

impl Packed {
    fn end(&self) -> u64 {
        self.section.offset.saturating_add(self.section.len.into())
    }
}

/// [`TABLE_SERIES`] series, the last ones of a block fewer: their samples, where those stand, and their labels,
/// one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Where their samples begin.
    pub offset: u64,
    pub chunks: Packed,
    pub labels: Packed,
}

/// What is known of a block while it is open.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Root {
    pub ids: Ids,
    /// By id.
    pub stretches: Vec<Stretch>,
    /// None of a version that has none.
    pub index: Option<Index>,
}

/// Which of its series have which label, and which it may have.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Index {
    /// Behind each [`SEGMENT_STRETCHES`] stretches one that tells of their series.
    pub segments: Vec<Segment>,
    pub filter: Filter,
}

impl Root {
    /// A stretch begins where the one before ends, or the pages of the index behind it, so no offset is written.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let ids: Vec<i64> = self.ids.iter().map(|id| id.0 as i64).collect();
        put_varint(&mut out, ids.len() as u64);
        put_ints(&mut out, &ids);
        let column = |out: &mut Vec<u8>, of: &dyn Fn(&Stretch) -> u64| {
            let numbers = self.stretches.iter().map(|s| of(s) as i64);
            put_ints(out, &numbers.collect::<Vec<_>>());
        };
        column(&mut out, &|s| s.chunks.section.offset - s.offset);
        for packed in [|s: &Stretch| s.chunks, |s: &Stretch| s.labels] {
            put_packed(&mut out, self.stretches.iter().map(packed));
        }
        if let Some(index) = &self.index {
            index.put(&mut out);
        }
        out
    }

    /// The first stretch begins at `from`, the last one ends at `end`.
    pub fn decode(raw: &[u8], version: u8, from: u64, end: u64) -> Result<Self, Malformed> {
        let mut fields = Fields::new(raw);
        // Ids that follow one another take no bytes, stretches do.
        let count = usize::try_from(fields.varint()?).unwrap_or(usize::MAX);
        let stretches = count.div_ceil(TABLE_SERIES);
        if stretches.saturating_mul(STRETCH_BYTES) > fields.remaining() {
            return Err(Malformed("more series than there can be"));
        }
        let mut root = Self::default();
        for id in take_ints(&mut fields, count)? {
            root.ids.push(SeriesId(id as u64))?;
        }
        let lens = take_ints(&mut fields, stretches)?;
        let chunks = take_packed(&mut fields, stretches)?;
        let labels = take_packed(&mut fields, stretches)?;
        if version >= VERSION_INDEX {
            root.index = Some(Index::take(&mut fields, count)?);
        }
        fields.end()?;
        let mut offset = from;
        let segments = root.index.iter_mut().flat_map(|index| &mut index.segments);
        let mut segments = segments.map(|segment| &mut segment.pages);
        for ((len, mut chunks), mut labels) in lens.into_iter().zip(chunks).zip(labels) {
            let behind = u64::try_from(len)
                .ok()
                .and_then(|len| offset.checked_add(len));
            chunks.section.offset = behind.ok_or(OVERFLOW)?;
            labels.section.offset = chunks.end();
            root.stretches.push(Stretch {
                offset,
                chunks,
                labels,
            });
            offset = labels.end();
            let is_last = root.stretches.len() == stretches;
            if root.stretches.len().is_multiple_of(SEGMENT_STRETCHES) || is_last {
                for page in segments.next().into_iter().flatten() {
                    page.packed.section.offset = offset;
                    offset = page.packed.end();
                }
            }
        }
        match offset == end && count > 0 {
            true => Ok(root),
            false => Err(Malformed("does not end where the series do")),
        }
    }
}

/// Checksums of a stretch.
const STRETCH_BYTES: usize = 8;
/// The checksum of a page of the index, and two lengths.
const INDEX_PAGE_BYTES: usize = 6;

impl Index {
    fn put(&self, out: &mut Vec<u8>) {
        let counts = self.segments.iter().map(|s| s.pages.len() as i64);
        put_ints(out, &counts.collect::<Vec<_>>());
        let pages = || self.segments.iter().flat_map(|s| &s.pages);
        put_packed(out, pages().map(|page| page.packed));
        pages().for_each(|page| page.first.put(out));
        self.filter.put(out);
    }

    /// Of a block of so many series; without the offsets of its pages.
    fn take(fields: &mut Fields<'_>, series: usize) -> Result<Self, Malformed> {
        let segments = series.div_ceil(TABLE_SERIES).div_ceil(SEGMENT_STRETCHES);
        let counts = take_ints(fields, segments)?.into_iter();
        let counts: Vec<usize> = counts
            .map(|count| usize::try_from(count).unwrap_or(usize::MAX))
            .collect();
        let total = counts
            .iter()
            .fold(0, |sum: usize, n| sum.saturating_add(*n));
        if total.saturating_mul(INDEX_PAGE_BYTES) > fields.remaining() {
            return Err(Malformed("more pages of the index than there can be"));
        }
        let mut packed = take_packed(fields, total)?.into_iter();
        let mut index = Self::default();
        for count in counts {
            let pages = packed.by_ref().take(count).map(|packed| {
                let first = Key::take(fields)?;
                Ok(PagePlace { packed, first })
            });
            let pages: Vec<_> = pages.collect::<Result<_, _>>()?;
            if !pages.is_sorted_by(|a, b| a.first <= b.first) {
                return Err(Malformed("pages of the index are not sorted"));
            }
            index.segments.push(Segment { pages });
        }
        index.filter = Filter::take(fields, series)?;
        Ok(index)
    }
}

fn put_packed(out: &mut Vec<u8>, all: impl Iterator<Item = Packed>) {
    let all: Vec<Packed> = all.collect();
    let lens = all.iter().map(|packed| i64::from(packed.section.len));
    put_ints(out, &lens.collect::<Vec<_>>());
    let raw_lens = all.iter().map(|packed| packed.raw_len as i64);
    put_ints(out, &raw_lens.collect::<Vec<_>>());
    for packed in all {
        put_u32(out, packed.section.crc32c);
    }
}

/// Without their offsets.
fn take_packed(fields: &mut Fields<'_>, count: usize) -> Result<Vec<Packed>, Malformed> {
    let lens = take_ints(fields, count)?;
    let raw_lens = take_ints(fields, count)?;
    let packed = lens.into_iter().zip(raw_lens).map(|(len, raw_len)| {
        let len = u32::try_from(len).map_err(|_| IMPOSSIBLE_LENGTH)?;
        Ok(Packed {
            section: Section {
                offset: 0,
                len,
                crc32c: fields.u32()?,
            },
            raw_len: u64::try_from(raw_len).map_err(|_| IMPOSSIBLE_LENGTH)?,
        })
    });
    packed.collect()
}

const IMPOSSIBLE_LENGTH: Malformed = Malformed("an impossible length");

/// Where the chunks of series stand. Sections follow one another, and so do the slots of a page in the order of the chunks
/// that stand in it. Neither place is written.
pub fn encode_table(entries: &[Entry], sections: &[Section]) -> Vec<u8> {
    let mut out = Vec::new();
    let column = |out: &mut Vec<u8>, of: &dyn Fn(&ChunkRef) -> i64| {
        let chunks = entries.iter().flat_map(|e| &e.chunks);
        put_ints(out, &chunks.map(of).collect::<Vec<_>>());
    };
    let lens: Vec<i64> = sections.iter().map(|s| i64::from(s.len)).collect();
    put_varint(&mut out, sections.len() as u64);
    put_ints(&mut out, &lens);
    for section in sections {
        put_u32(&mut out, section.crc32c);
    }
    let counts: Vec<i64> = entries.iter().map(|e| e.chunks.len() as i64).collect();
    put_ints(&mut out, &counts);
    let place = |chunk: &ChunkRef| {
        let found = sections.binary_search_by_key(&chunk.offset, |s| s.offset);
        found.expect("a chunk stands in a section") as i64
    };
    column(&mut out, &place);
    column(&mut out, &|c| c.min.0);
    column(&mut out, &|c| c.max.0.wrapping_sub(c.min.0));
    column(&mut out, &|c| i64::from(c.count));
    column(&mut out, &|c| {
        c.histograms.map_or(0, |len| i64::from(len.get()))
    });
    out
}

/// Of so many series, whose first section begins at `from` and whose last one ends at `end`.
pub fn decode_table(raw: &[u8], series: usize, from: u64, end: u64) -> Result<Table, Malformed> {
    let mut fields = Fields::new(raw);
    let sections = take_sections(&mut fields, from)?;
    if sections.last().map(Section::end) != Some(end) {
        return Err(Malformed("sections do not end where the table begins"));
    }
    let counts = take_ints(&mut fields, series)?;
    let mut table = Table::default();
    take_chunks(&mut fields, &sections, &counts, |chunks, _| {
        table.push(&chunks);
        Ok(())
    })?;
    fields.end()?;
    Ok(table)
}

pub fn encode_labels(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        put_bytes(&mut out, entry.labels.as_canonical());
    }
    out
}

/// Of so many series.
pub fn decode_labels(raw: &[u8], series: usize) -> Result<Vec<Labels>, Malformed> {
    let mut fields = Fields::new(raw);
    let labels = (0..series).map(|_| fields.labels()).collect();
    fields.end().and(labels)
}

/// The same, each with its place, as it stands there.
pub fn each_label_block(
    raw: &[u8],
    series: usize,
    mut tell: impl FnMut(usize, &[u8]),
) -> Result<(), Malformed> {
    let mut fields = Fields::new(raw);
    for place in 0..series {
        tell(place, fields.bytes()?);
    }
    fields.end()
}

/// Reads a directory in one piece, of a version that has it; the first section begins at `from`.
pub fn decode(raw: &[u8], version: u8, from: u64) -> Result<Vec<Entry>, Malformed> {
    match version {
        1 | 2 => decode_rows(raw, version, from),
        _ => decode_columns(raw, from),
    }
}

fn decode_columns(raw: &[u8], from: u64) -> Result<Vec<Entry>, Malformed> {
    let mut fields = Fields::new(raw);
    let sections = take_sections(&mut fields, from)?;
    let count = fields.count(1)?;
    let ids = take_ints(&mut fields, count)?;
    let counts = take_ints(&mut fields, count)?;
    if !ids.windows(2).all(|w| (w[0] as u64) < w[1] as u64) {
        return Err(Malformed("a series stands twice"));
    }
    let mut ids = ids.into_iter();
    let mut entries = Vec::with_capacity(count);
    take_chunks(&mut fields, &sections, &counts, |chunks, fields| {
        entries.push(Entry {
            id: SeriesId(ids.next().unwrap_or_default() as u64),
            labels: fields.labels()?,
            chunks,
        });
        Ok(())
    })?;
    fields.end()?;
    Ok(entries)
}

/// Tells of the chunks of one series after the other, which has `counts` of them, and of what stands behind all of them.
fn take_chunks<'a>(
    fields: &mut Fields<'a>,
    sections: &[Section],
    counts: &[i64],
    mut tell: impl FnMut(Vec<ChunkRef>, &mut Fields<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let counts = counts.iter().map(|n| usize::try_from(*n).unwrap_or(0));
    let runs: Vec<usize> = counts.collect();
    // A chunk takes no bytes of its own where all are alike; a section has a checksum, though, and
    // a page has no more slots than so many.
    let total = runs.iter().try_fold(0usize, |sum, n| sum.checked_add(*n));
    let total = total.filter(|total| *total <= sections.len().saturating_mul(PAGE_SLOTS));
    let total = total.ok_or(Malformed("more chunks than the sections hold"))?;
    let places = take_ints(fields, total)?;
    let mins = take_ints(fields, total)?;
    let lengths = take_ints(fields, total)?;
    let counts = take_ints(fields, total)?;
    let raw_lens = take_ints(fields, total)?;
    let mut slots = vec![0u16; sections.len()];
    let mut at = 0;
    for runs in runs {
        let mut chunks: Vec<ChunkRef> = Vec::with_capacity(runs);
        for at in at..at + runs {
            let place = usize::try_from(places[at]).unwrap_or(usize::MAX);
            let section = sections.get(place).ok_or(Malformed("no such section"))?;
            let raw_len = u32::try_from(raw_lens[at]).map_err(|_| IMPOSSIBLE_LENGTH)?;
            let min = Timestamp(mins[at]);
            let slot = slots[place];
            slots[place] = slot.saturating_add(1);
            chunks.push(ChunkRef {
                min,
                max: Timestamp(min.0.wrapping_add(lengths[at])),
                count: u16::try_from(counts[at]).unwrap_or(0),
                offset: section.offset,
                len: section.len,
                crc32c: section.crc32c,
                histograms: NonZeroU32::new(raw_len),
                slot: (raw_len == 0).then_some(slot),
            });
        }
        check_order(&chunks)?;
        at += runs;
        tell(chunks, fields)?;
    }
    match slots
        .iter()
        .all(|used| (1..=PAGE_SLOTS as u16).contains(used))
    {
        true => Ok(()),
        false => Err(Malformed("a section without a chunk, or with too many")),
    }
}

fn take_sections(fields: &mut Fields<'_>, from: u64) -> Result<Vec<Section>, Malformed> {
    let count = fields.count(4)?;
    let mut offset = from;
    let mut sections = Vec::with_capacity(count);
    for len in take_ints(fields, count)? {
        let len = u32::try_from(len).map_err(|_| IMPOSSIBLE_LENGTH)?;
        let crc32c = fields.u32()?;
        sections.push(Section {
            offset,
            len,
            crc32c,
        });
        offset = offset.checked_add(u64::from(len)).ok_or(OVERFLOW)?;
    }
    Ok(sections)
}

const OVERFLOW: Malformed = Malformed("chunks overflow the file");
const IMPOSSIBLE: Malformed = Malformed("a chunk's range or count is impossible");

/// Floats before histograms, each in time order, at least one in all.
fn check_order(chunks: &[ChunkRef]) -> Result<(), Malformed> {
    let floats = chunks.partition_point(|c| c.histograms.is_none());
    let (floats, histograms) = chunks.split_at(floats);
    let whole = |c: &ChunkRef, most: usize| c.min <= c.max && (1..=most).contains(&c.count.into());
    let most = usize::from(BLOCK_CHUNK_SAMPLES);
    let floats_whole = floats.iter().all(|c| whole(c, COLUMN_SAMPLES_MAX));
    let histograms_whole = histograms
        .iter()
        .all(|c| c.histograms.is_some() && whole(c, most));
    let ordered = |chunks: &[ChunkRef]| chunks.windows(2).all(|w| w[0].max < w[1].min);
    let right = floats_whole && histograms_whole && ordered(floats) && ordered(histograms);
    match right && !chunks.is_empty() {
        true => Ok(()),
        false => Err(IMPOSSIBLE),
    }
}

fn decode_rows(raw: &[u8], version: u8, from: u64) -> Result<Vec<Entry>, Malformed> {
    let mut fields = Fields::new(raw);
    let mut entries: Vec<Entry> = Vec::new();
    let mut offset = from;
    while !fields.is_empty() {
        let last = entries.last().map(|entry| entry.id.0);
        let step = fields.varint()?;
        let id = last.unwrap_or(0).checked_add(step);
        let id = id.ok_or(Malformed("series id overflows"))?;
        if last.is_some() && step == 0 {
            return Err(Malformed("a series stands twice"));
        }
        let labels = fields.labels()?;
        let mut chunks = take_rows(&mut fields, false, &mut offset)?;
        if version > 1 {
            chunks.extend(take_rows(&mut fields, true, &mut offset)?);
        }
        if chunks.is_empty() {
            return Err(Malformed("a series without chunks"));
        }
        entries.push(Entry {
            id: SeriesId(id),
            labels,
            chunks,
        });
    }
    Ok(entries)
}

fn take_rows(
    fields: &mut Fields<'_>,
    histograms: bool,
    offset: &mut u64,
) -> Result<Vec<ChunkRef>, Malformed> {
    let mut chunks: Vec<ChunkRef> = Vec::new();
    for _ in 0..fields.count(8)? {
        let last = chunks.last().map(|c| c.max);
        let base = last.unwrap_or_default();
        let min = Timestamp(base.0.wrapping_add(fields.zigzag()?));
        let max = Timestamp(min.0.wrapping_add(fields.varint()? as i64));
        let count = fields.varint()?;
        let count = u16::try_from(count).map_err(|_| Malformed("chunk too large"))?;
        let len = fields.varint_u32()?;
        let crc32c = fields.u32()?;
        let raw_len = match histograms {
            true => Some(take_raw_len(fields)?),
            false => None,
        };
        let ordered = min <= max && last.is_none_or(|last| last < min);
        if !ordered || count == 0 || count > BLOCK_CHUNK_SAMPLES {
            return Err(IMPOSSIBLE);
        }
        chunks.push(ChunkRef {
            min,
            max,
            count,
            offset: *offset,
            len,
            crc32c,
            histograms: raw_len,
            slot: None,
        });
        *offset = offset.checked_add(u64::from(len)).ok_or(OVERFLOW)?;
    }
    Ok(chunks)
}

fn take_raw_len(fields: &mut Fields<'_>) -> Result<NonZeroU32, Malformed> {
    NonZeroU32::new(fields.varint_u32()?).ok_or(Malformed("a chunk of no histograms"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_directories_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for version in 1..=3 {
                let _ = decode(&bytes, version, 8);
            }
            for version in 4..=5 {
                let _ = Root::decode(&bytes, version, 8, 300);
            }
            let _ = decode_table(&bytes, bytes.len() / 8, 8, 300);
            let _ = decode_labels(&bytes, bytes.len() / 8);
        }

        #[test]
        fn entries_come_back(series in prop::collection::vec((1u64..50, 1usize..4, 0usize..3), 1..60)) {
            let (mut sections, mut entries) = (Vec::new(), Vec::new());
            let (mut id, mut slot) = (0, 0);
            let section = |sections: &mut Vec<Section>| {
                let offset = sections.last().map_or(8, |s: &Section| s.offset + u64::from(s.len));
                sections.push(Section { offset, len: 77, crc32c: offset as u32 });
            };
            section(&mut sections);
            for (step, floats, histograms) in series {
                id += step;
                let mut chunks = Vec::new();
                for n in 0..floats + histograms {
                    let is_float = n < floats;
                    if !is_float || slot == 7 {
                        section(&mut sections);
                        slot = 0;
                    }
                    let s = sections[sections.len() - 1];
                    chunks.push(ChunkRef {
                        min: Timestamp(n as i64 * 100), max: Timestamp(n as i64 * 100 + 99),
                        count: 9, offset: s.offset, len: s.len, crc32c: s.crc32c,
                        histograms: (!is_float).then(|| NonZeroU32::new(5).unwrap()), slot: is_float.then_some(slot),
                    });
                    slot = if is_float { slot + 1 } else { 7 };
                }
                entries.push(Entry { id: SeriesId(id), labels: Labels::from_pairs([("a", id.to_string())]), chunks });
            }
            let end = sections[sections.len() - 1].end();
            let table = decode_table(&encode_table(&entries, &sections), entries.len(), 8, end).unwrap();
            prop_assert_eq!(table.count(), entries.len());
            let found: Vec<&[ChunkRef]> = (0..table.count()).map(|place| table.chunks(place)).collect();
            let expected: Vec<&[ChunkRef]> = entries.iter().map(|e| &e.chunks[..]).collect();
            prop_assert_eq!(found, expected);
            let labels = decode_labels(&encode_labels(&entries), entries.len()).unwrap();
            prop_assert!(labels.iter().eq(entries.iter().map(|e| &e.labels)));
        }

        #[test]
        fn a_root_comes_back(
            steps in prop::collection::vec(1u64..3, 1..5000),
            lens in prop::collection::vec(0u32..999, 40),
            pages in prop::collection::vec(0usize..4, 3),
        ) {
            let mut root = Root::default();
            let mut id = 0;
            for step in steps {
                id += step;
                root.ids.push(SeriesId(id)).unwrap();
            }
            let (mut offset, mut lens) = (8, lens.into_iter());
            let mut packed = |offset: u64| {
                let len = lens.next().unwrap();
                Packed { section: Section { offset, len, crc32c: len ^ 77 }, raw_len: u64::from(len) * 3 }
            };
            for _ in 0..root.ids.count().div_ceil(TABLE_SERIES) {
                let chunks = packed(offset + 100);
                let labels = packed(chunks.end());
                root.stretches.push(Stretch { offset, chunks, labels });
                offset = labels.end();
            }
            let bytes = root.encode();
            prop_assert!(Root::decode(&bytes, 4, 8, offset + 1).is_err());
            prop_assert!(Root::decode(&bytes, 5, 8, offset).is_err());
            prop_assert_eq!(&Root::decode(&bytes, 4, 8, offset).unwrap(), &root);

            let mut index = Index::default();
            let mut filter = super::super::filter::Builder::default();
            root.ids.iter().for_each(|id| filter.add(&Labels::from_pairs([("n", id.0.to_string())])));
            index.filter = filter.finish();
            // What follows moves.
            let mut moved = 0;
            for (some, pages) in root.stretches.chunks_mut(SEGMENT_STRETCHES).zip(pages) {
                for stretch in &mut *some {
                    for offset in [&mut stretch.offset, &mut stretch.chunks.section.offset, &mut stretch.labels.section.offset] {
                        *offset += moved;
                    }
                }
                let mut end = some[some.len() - 1].labels.end();
                let pages = (0..pages).map(|nth| {
                    let packed = packed(end);
                    end = packed.end();
                    PagePlace { packed, first: Key::of(b"name", nth.to_string().as_bytes()) }
                });
                let pages: Vec<_> = pages.collect();
                moved += pages.iter().map(|page| u64::from(page.packed.section.len)).sum::<u64>();
                index.segments.push(Segment { pages });
            }
            offset += moved;
            root.index = Some(index);
            let bytes = root.encode();
            prop_assert!(Root::decode(&bytes, 5, 8, offset + 1).is_err());
            prop_assert!(Root::decode(&bytes, 4, 8, offset).is_err());
            prop_assert_eq!(Root::decode(&bytes, 5, 8, offset).unwrap(), root);
        }
    }
}
