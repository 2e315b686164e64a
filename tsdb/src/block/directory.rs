//! A block's directory: which series it holds, and where their samples stand
//! (docs/format/block.md). Of this version as columns, of those before as one row a chunk.

use std::num::NonZeroU32;

use model::{SeriesId, Timestamp};

use super::page::{PAGE_SLOTS, put_ints, take_ints};
use super::{ChunkRef, Entry};
use crate::chunk::BLOCK_CHUNK_SAMPLES;
use crate::column::COLUMN_SAMPLES_MAX;
use crate::fields::{Fields, Malformed, put_bytes, put_u32, put_varint};

/// A stretch of the file under one checksum: a page, or one chunk of histograms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    pub offset: u64,
    pub len: u32,
    pub crc32c: u32,
}

/// Sections follow one another from behind the magic; so do the slots of a page in the order of
/// the chunks that stand in it. Neither place is written.
pub fn encode(entries: &[Entry], sections: &[Section]) -> Vec<u8> {
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
    let ids: Vec<i64> = entries.iter().map(|e| e.id.0 as i64).collect();
    let runs: Vec<i64> = entries.iter().map(|e| e.chunks.len() as i64).collect();
    put_varint(&mut out, entries.len() as u64);
    put_ints(&mut out, &ids);
    put_ints(&mut out, &runs);
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
    for entry in entries {
        put_bytes(&mut out, entry.labels.as_canonical());
    }
    out
}

/// Reads a directory of any version; the first section begins at `from`.
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
    let runs = take_ints(&mut fields, count)?;
    if !ids.windows(2).all(|w| (w[0] as u64) < w[1] as u64) {
        return Err(Malformed("a series stands twice"));
    }
    let runs = runs.into_iter().map(|n| usize::try_from(n).unwrap_or(0));
    let runs: Vec<usize> = runs.collect();
    // A chunk takes no bytes of its own where all are alike; a section has a checksum, though, and
    // a page has no more slots than so many.
    let total = runs.iter().try_fold(0usize, |sum, n| sum.checked_add(*n));
    let total = total.filter(|total| *total <= sections.len().saturating_mul(PAGE_SLOTS));
    let total = total.ok_or(Malformed("more chunks than the sections hold"))?;
    let places = take_ints(&mut fields, total)?;
    let mins = take_ints(&mut fields, total)?;
    let lengths = take_ints(&mut fields, total)?;
    let counts = take_ints(&mut fields, total)?;
    let raw_lens = take_ints(&mut fields, total)?;
    let mut slots = vec![0u16; sections.len()];
    let mut at = 0;
    let mut entries = Vec::with_capacity(count);
    for (id, runs) in ids.into_iter().zip(runs) {
        let labels = fields.labels()?;
        let series = SeriesId(id as u64);
        let mut chunks: Vec<ChunkRef> = Vec::with_capacity(runs);
        for at in at..at + runs {
            let place = usize::try_from(places[at]).unwrap_or(usize::MAX);
            let section = sections.get(place).ok_or(Malformed("no such section"))?;
            let raw_len = u32::try_from(raw_lens[at]);
            let raw_len = raw_len.map_err(|_| Malformed("an impossible length"))?;
            let min = Timestamp(mins[at]);
            let slot = slots[place];
            slots[place] = slot.saturating_add(1);
            chunks.push(ChunkRef {
                series,
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
        entries.push(Entry {
            id: series,
            labels,
            chunks,
        });
    }
    fields.end()?;
    if slots
        .iter()
        .any(|used| !(1..=PAGE_SLOTS as u16).contains(used))
    {
        return Err(Malformed("a section without a chunk, or with too many"));
    }
    Ok(entries)
}

fn take_sections(fields: &mut Fields<'_>, from: u64) -> Result<Vec<Section>, Malformed> {
    let count = fields.count(4)?;
    let mut offset = from;
    let mut sections = Vec::with_capacity(count);
    for len in take_ints(fields, count)? {
        let len = u32::try_from(len).map_err(|_| Malformed("an impossible length"))?;
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
        let mut chunks = take_rows(&mut fields, SeriesId(id), false, &mut offset)?;
        if version > 1 {
            chunks.extend(take_rows(&mut fields, SeriesId(id), true, &mut offset)?);
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
    series: SeriesId,
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
            series,
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
    use model::Labels;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_directories_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for version in 1..=3 {
                let _ = decode(&bytes, version, 8);
            }
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
                        series: SeriesId(id), min: Timestamp(n as i64 * 100), max: Timestamp(n as i64 * 100 + 99),
                        count: 9, offset: s.offset, len: s.len, crc32c: s.crc32c,
                        histograms: (!is_float).then(|| NonZeroU32::new(5).unwrap()), slot: is_float.then_some(slot),
                    });
                    slot = if is_float { slot + 1 } else { 7 };
                }
                entries.push(Entry { id: SeriesId(id), labels: Labels::from_pairs([("a", id.to_string())]), chunks });
            }
            let bytes = encode(&entries, &sections);
            let decoded = decode(&bytes, 3, 8).unwrap();
            prop_assert_eq!(decoded, entries);
        }
    }
}
