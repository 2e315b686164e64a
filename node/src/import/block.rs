//! A block's directory as Prometheus has it, read series by series: `meta.json`, `index`,
//! `chunks/`, `tombstones`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use proto::remote::Label;
use serde::Deserialize;

use super::chunk::{self, Samples};
use super::index::{Chunk, Reader};
use super::input::{Bad, Broken, Cursor, Input};

pub(super) const CHUNKS_MAGIC: u32 = 0x85BD_40DD;
pub(super) const TOMBSTONES_MAGIC: u32 = 0x0130_BA30;
pub(super) const VERSION: u8 = 1;
/// One chunk's bytes; Prometheus cuts them far below.
const CHUNK_BYTES_MAX: u64 = 16 << 20;
/// Nearly every chunk is shorter.
const GUESS_BYTES: u64 = 1 << 10;

/// What `meta.json` says that matters here.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    pub ulid: String,
    pub min_time: i64,
    /// The first instant behind the block.
    pub max_time: i64,
    #[serde(default)]
    compaction: Compaction,
    version: u32,
}

#[derive(Debug, Default, Clone, Deserialize)]
struct Compaction {
    #[serde(default)]
    hints: Option<Vec<String>>,
}

impl Meta {
    pub(super) fn read(text: &[u8]) -> anyhow::Result<Self> {
        let meta: Self = serde_json::from_slice(text)?;
        if meta.version != 1 {
            anyhow::bail!("a block of version {}", meta.version);
        }
        Ok(meta)
    }

    /// Whether it was made of samples that came late: the head may have older ones then.
    pub fn is_of_late_samples(&self) -> bool {
        let hints = self.compaction.hints.iter().flatten();
        hints.into_iter().any(|hint| hint == "from-out-of-order")
    }
}

/// The blocks of a data directory, the oldest first.
pub fn find(dir: &Path) -> anyhow::Result<Vec<(Meta, PathBuf)>> {
    let mut blocks = Vec::new();
    let attempt = || format!("read {}", dir.display());
    for entry in std::fs::read_dir(dir).with_context(attempt)? {
        let path = entry.with_context(attempt)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let file = path.join("meta.json");
        if !is_ulid(&name) || !file.exists() {
            continue;
        }
        let text = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        let meta = Meta::read(&text).with_context(|| format!("read {}", file.display()))?;
        blocks.push((meta, path));
    }
    blocks.sort_by(|(a, _), (b, _)| (a.min_time, &a.ulid).cmp(&(b.min_time, &b.ulid)));
    Ok(blocks)
}

fn is_ulid(name: &str) -> bool {
    name.len() == 26
        && name
            .bytes()
            .all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
}

/// Goes through a block.
pub struct Block {
    index: Reader,
    segments: Vec<Input>,
    tombstones: BTreeMap<u64, Vec<(i64, i64)>>,
}

impl Block {
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            index: Reader::open(&dir.join("index"))?,
            segments: segments(&dir.join("chunks"))?,
            tombstones: tombstones(&dir.join("tombstones"))?,
        })
    }

    /// The next series with what is left of its samples; `None` behind the last.
    pub fn next(&mut self) -> Result<Option<(Vec<Label>, Samples)>, Broken> {
        let Some(series) = self.index.next()? else {
            return Ok(None);
        };
        let mut samples = Samples::default();
        for chunk in &series.chunks {
            self.read(chunk, &mut samples)?;
        }
        if let Some(deleted) = self.tombstones.get(&series.reference) {
            samples.retain(|at| !covers(deleted, at));
        }
        Ok(Some((series.labels, samples)))
    }

    /// Length, encoding, data, checksum.
    fn read(&self, chunk: &Chunk, samples: &mut Samples) -> Result<(), Broken> {
        let (segment, at) = (
            (chunk.place >> 32) as usize,
            chunk.place & u64::from(u32::MAX),
        );
        let segment = self.segments.get(segment).ok_or_else(|| Broken {
            file: PathBuf::from("chunks"),
            offset: at,
            what: format!(
                "the index names file {} of the chunks, which is not there",
                segment + 1
            ),
        })?;
        let mut bytes = segment.read_upto(at, GUESS_BYTES)?;
        let mut cursor = Cursor::new(&bytes);
        let len = cursor.uvarint().map_err(|bad| segment.bad(at, &bad))?;
        let start = cursor.at();
        if len > CHUNK_BYTES_MAX {
            return Err(segment.broken(at, format!("a chunk of {len} bytes")));
        }
        let whole = start as u64 + 1 + len + 4;
        if whole > bytes.len() as u64 {
            bytes = segment.read(at, whole)?;
        }
        let body = &bytes[start..whole as usize];
        let (content, sum) = body.split_at(1 + len as usize);
        if crc32c::crc32c(content).to_be_bytes() != sum {
            return Err(segment.broken(at, "wrong checksum of a chunk"));
        }
        let decoded = chunk::decode(content[0], &content[1..], samples);
        decoded.map_err(|bad| segment.bad(at + start as u64 + 1, &bad))
    }
}

/// Whether any of the intervals, ends included, has the instant.
pub fn covers(intervals: &[(i64, i64)], at: i64) -> bool {
    intervals
        .iter()
        .any(|(min, max)| (*min..=*max).contains(&at))
}

/// Files of a directory whose names are numbers, in their order.
pub fn numbered(dir: &Path) -> anyhow::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    let attempt = || format!("read {}", dir.display());
    for entry in std::fs::read_dir(dir).with_context(attempt)? {
        let entry = entry.with_context(attempt)?;
        let number = entry.file_name().to_string_lossy().parse();
        if let Ok(number) = number {
            files.push((number, entry.path()));
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn segments(dir: &Path) -> anyhow::Result<Vec<Input>> {
    let mut segments = Vec::new();
    for (place, (number, path)) in numbered(dir)?.into_iter().enumerate() {
        let segment = Input::open(&path)?;
        // References count the files.
        if number != place as u64 + 1 {
            return Err(segment
                .broken(0, "a file of chunks before it is missing")
                .into());
        }
        check_magic(&segment, CHUNKS_MAGIC, "not a file of chunks of Prometheus")?;
        segments.push(segment);
    }
    Ok(segments)
}

/// Magic and version in front of a file.
pub fn check_magic(input: &Input, magic: u32, otherwise: &str) -> Result<(), Broken> {
    let head = input.read(0, 5)?;
    let expected = [&magic.to_be_bytes()[..], &[VERSION]].concat();
    match head == expected {
        true => Ok(()),
        false => Err(input.broken(0, otherwise)),
    }
}

/// What was deleted, by series; nothing where there is no such file.
fn tombstones(path: &Path) -> anyhow::Result<BTreeMap<u64, Vec<(i64, i64)>>> {
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let input = Input::open(path)?;
    check_magic(&input, TOMBSTONES_MAGIC, "not tombstones of Prometheus")?;
    let bytes = input.read(5, input.len() - 5)?;
    let (content, sum) = bytes
        .split_last_chunk::<4>()
        .ok_or_else(|| input.broken(5, "ends early"))?;
    if crc32c::crc32c(content).to_be_bytes() != *sum {
        return Err(input.broken(5, "wrong checksum of tombstones").into());
    }
    let read = read_tombstones(content);
    Ok(read.map_err(|bad| input.bad(5, &bad))?)
}

/// A series and an interval, again and again.
fn read_tombstones(content: &[u8]) -> Result<BTreeMap<u64, Vec<(i64, i64)>>, Bad> {
    let mut cursor = Cursor::new(content);
    let mut found: BTreeMap<u64, Vec<(i64, i64)>> = BTreeMap::new();
    while !cursor.is_empty() {
        let series = cursor.uvarint()?;
        let interval = (cursor.varint()?, cursor.varint()?);
        found.entry(series).or_default().push(interval);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::index::tests::two_series;
    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_are_tombstones_or_told(
            content in prop::collection::vec(any::<u8>(), 0..60),
            is_summed: bool,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("tombstones");
            let sum = match is_summed {
                true => crc32c::crc32c(&content).to_be_bytes(),
                false => [0; 4],
            };
            let magic = TOMBSTONES_MAGIC.to_be_bytes();
            std::fs::write(&path, [&magic[..], &[VERSION], &content[..], &sum].concat()).unwrap();
            let expected = read_tombstones(&content);
            match tombstones(&path) {
                Ok(found) => prop_assert_eq!(Ok(found), expected),
                Err(_) => prop_assert!(!is_summed || expected.is_err()),
            }
        }

        /// A segment with any chunk, and any place to look for it.
        #[test]
        fn arbitrary_bytes_are_a_chunk_or_told(
            content in prop::collection::vec(any::<u8>(), 1..80),
            len in 0u8..90,
            place in 0u64..20,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let chunk = Chunk { min: 0, max: 0, place };
            let magic = CHUNKS_MAGIC.to_be_bytes();
            let sum = crc32c::crc32c(&content).to_be_bytes();
            let file = [&magic[..], &[VERSION, 0, 0, 0, len], &content[..], &sum].concat();
            std::fs::write(dir.path().join("000001"), file).unwrap();
            std::fs::write(dir.path().join("index"), two_series()).unwrap();
            let block = Block {
                index: Reader::open(&dir.path().join("index")).unwrap(),
                segments: segments(dir.path()).unwrap(),
                tombstones: BTreeMap::new(),
            };
            let mut samples = Samples::default();
            let read = block.read(&chunk, &mut samples);
            let whole = place == 8 && usize::from(len) + 1 == content.len();
            prop_assert!(whole || read.is_err() || samples.is_empty());
        }
    }
}
