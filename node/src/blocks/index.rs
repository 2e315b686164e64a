//! The index of a block of Prometheus, version 2 (its `tsdb/docs/format/index.md`): symbols, series,
//! postings, and where they stand. Sections that nothing reads any more are left out.

use std::collections::{BTreeMap, BTreeSet};

use model::Labels;
use tsdb::fields::put_varint;

const MAGIC: u32 = 0xBAAA_D700;
const VERSION: u8 = 2;

/// One chunk of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    pub min: i64,
    pub max: i64,
    /// Segment and offset.
    pub place: u64,
}

/// Series by labels, each with its chunks by time.
pub type Series = BTreeMap<Vec<(String, String)>, Vec<Chunk>>;

/// Labels in the order in which Prometheus sorts series: by names and values, one after the other.
pub fn key_of(labels: &Labels) -> Vec<(String, String)> {
    let pairs = labels.iter();
    pairs.map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

/// The bytes of the index.
pub fn encode(series: &Series) -> Vec<u8> {
    let mut out = MAGIC.to_be_bytes().to_vec();
    out.push(VERSION);
    let symbols = symbols_of(series);
    let symbols_at = out.len();
    put_section(&mut out, &encode_symbols(&symbols));
    let numbers: BTreeMap<&str, u64> = (0..).zip(&symbols).map(|(n, s)| (*s, n)).collect();
    let mut postings: BTreeMap<(&str, &str), Vec<u32>> = BTreeMap::new();
    align(&mut out, 16);
    let series_at = out.len();
    for (labels, chunks) in series {
        align(&mut out, 16);
        let reference = (out.len() / 16) as u32;
        postings.entry(("", "")).or_default().push(reference);
        for (name, value) in labels {
            let list = postings.entry((name.as_str(), value.as_str())).or_default();
            list.push(reference);
        }
        put_series(&mut out, labels, chunks, &numbers);
    }
    let postings_at = out.len().next_multiple_of(4);
    let mut offsets = (postings.len() as u32).to_be_bytes().to_vec();
    for ((name, value), references) in &postings {
        align(&mut out, 4);
        put_varint(&mut offsets, 2);
        put_text(&mut offsets, name);
        put_text(&mut offsets, value);
        put_varint(&mut offsets, out.len() as u64);
        let mut list = (references.len() as u32).to_be_bytes().to_vec();
        list.extend(references.iter().flat_map(|r| r.to_be_bytes()));
        put_section(&mut out, &list);
    }
    let offsets_at = out.len();
    put_section(&mut out, &offsets);
    let places = [symbols_at, series_at, 0, 0, postings_at, offsets_at];
    let mut contents = Vec::new();
    for place in places {
        contents.extend((place as u64).to_be_bytes());
    }
    let crc = crc32c::crc32c(&contents);
    contents.extend(crc.to_be_bytes());
    out.extend(contents);
    out
}

fn symbols_of(series: &Series) -> BTreeSet<&str> {
    let labels = series.keys().flatten();
    labels
        .flat_map(|(name, value)| [name.as_str(), value.as_str()])
        .collect()
}

fn encode_symbols(symbols: &BTreeSet<&str>) -> Vec<u8> {
    let mut out = (symbols.len() as u32).to_be_bytes().to_vec();
    symbols.iter().for_each(|symbol| put_text(&mut out, symbol));
    out
}

fn put_series(
    out: &mut Vec<u8>,
    labels: &[(String, String)],
    chunks: &[Chunk],
    numbers: &BTreeMap<&str, u64>,
) {
    let mut entry = Vec::new();
    put_varint(&mut entry, labels.len() as u64);
    for (name, value) in labels {
        put_varint(&mut entry, numbers[name.as_str()]);
        put_varint(&mut entry, numbers[value.as_str()]);
    }
    put_varint(&mut entry, chunks.len() as u64);
    let mut before: Option<&Chunk> = None;
    for chunk in chunks {
        let length = chunk.max.wrapping_sub(chunk.min) as u64;
        match before {
            None => {
                tsdb::fields::put_zigzag(&mut entry, chunk.min);
                put_varint(&mut entry, length);
                put_varint(&mut entry, chunk.place);
            }
            Some(before) => {
                put_varint(&mut entry, chunk.min.wrapping_sub(before.max) as u64);
                put_varint(&mut entry, length);
                let further = chunk.place.wrapping_sub(before.place) as i64;
                tsdb::fields::put_zigzag(&mut entry, further);
            }
        }
        before = Some(chunk);
    }
    put_varint(out, entry.len() as u64);
    let crc = crc32c::crc32c(&entry);
    out.extend(entry);
    out.extend(crc.to_be_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend(text.as_bytes());
}

/// Length, contents, checksum.
fn put_section(out: &mut Vec<u8>, contents: &[u8]) {
    out.extend((contents.len() as u32).to_be_bytes());
    out.extend(contents);
    out.extend(crc32c::crc32c(contents).to_be_bytes());
}

fn align(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}
