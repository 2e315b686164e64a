//! A block's directory as Prometheus has it: `chunks/`, `index`, `meta.json`. It has another name
//! until it is whole.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use federation::read::Chunks;
use model::hash::xxh3;
use model::{Labels, Samples};
use serde_json::json;

use super::index::{self, Chunk, Series};

const CHUNKS_MAGIC: u32 = 0x85BD_40DD;
const CHUNKS_VERSION: u8 = 1;
/// Magic, version, padding.
const HEADER_BYTES: u64 = 8;
/// A file of chunks has at most so many, as Prometheus' own.
const SEGMENT_BYTES_MAX: u64 = 512 << 20;
/// Prometheus ignores and later removes directories of this ending.
const UNFINISHED: &str = "exported.tmp-for-creation";

/// A block that grows.
pub struct Block {
    output: PathBuf,
    dir: PathBuf,
    segment: Option<Segment>,
    segments: u64,
    series: Series,
    samples: u64,
    histograms: u64,
    chunks: u64,
    /// Of all chunks: what the block's name is made of.
    digest: u64,
}

struct Segment {
    file: BufWriter<File>,
    len: u64,
}

impl Block {
    pub fn create(output: &Path) -> anyhow::Result<Self> {
        let dir = output.join(UNFINISHED);
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
        }
        let chunks = dir.join("chunks");
        fs::create_dir_all(&chunks).with_context(|| format!("make {}", chunks.display()))?;
        Ok(Self {
            output: output.to_owned(),
            dir,
            segment: None,
            segments: 0,
            series: Series::new(),
            samples: 0,
            histograms: 0,
            chunks: 0,
            digest: 0,
        })
    }

    /// Adds a series that the block does not have, with its samples by time.
    pub fn add(&mut self, labels: Labels, samples: &Samples) -> anyhow::Result<()> {
        let mut chunks = Vec::new();
        for chunk in Chunks::new(samples) {
            // In a file an encoding has the number that remote read gives it.
            let encoding = u8::try_from(chunk.r#type).context("a chunk's encoding")?;
            chunks.push(Chunk {
                min: chunk.min_time_ms,
                max: chunk.max_time_ms,
                place: self.append(encoding, &chunk.data)?,
            });
        }
        if chunks.is_empty() {
            return Ok(());
        }
        self.samples += samples.len() as u64;
        self.histograms += samples.histograms.len() as u64;
        self.chunks += chunks.len() as u64;
        self.series.insert(index::key_of(&labels), chunks);
        Ok(())
    }

    /// Length, coding, data, checksum; where it stands.
    fn append(&mut self, encoding: u8, data: &[u8]) -> anyhow::Result<u64> {
        let mut bytes = Vec::with_capacity(data.len() + 10);
        tsdb::fields::put_varint(&mut bytes, data.len() as u64);
        let sum = crc32c::crc32c_append(crc32c::crc32c(&[encoding]), data);
        bytes.push(encoding);
        bytes.extend(data);
        bytes.extend(sum.to_be_bytes());
        self.digest = xxh3(self.digest, &bytes);
        let full = |s: &Segment| s.len + bytes.len() as u64 > SEGMENT_BYTES_MAX;
        if self.segment.as_ref().is_none_or(full) {
            self.begin_segment()?;
        }
        let segment = self.segment.as_mut().context("a segment was begun")?;
        let place = (self.segments - 1) << 32 | segment.len;
        segment.file.write_all(&bytes)?;
        segment.len += bytes.len() as u64;
        Ok(place)
    }

    fn begin_segment(&mut self) -> anyhow::Result<()> {
        self.end_segment()?;
        self.segments += 1;
        let path = self
            .dir
            .join("chunks")
            .join(format!("{:06}", self.segments));
        let file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
        let mut file = BufWriter::new(file);
        file.write_all(&CHUNKS_MAGIC.to_be_bytes())?;
        file.write_all(&[CHUNKS_VERSION, 0, 0, 0])?;
        self.segment = Some(Segment {
            file,
            len: HEADER_BYTES,
        });
        Ok(())
    }

    fn end_segment(&mut self) -> anyhow::Result<()> {
        if let Some(segment) = self.segment.take() {
            segment
                .file
                .into_inner()
                .map_err(|e| e.into_error())?
                .sync_all()?;
        }
        Ok(())
    }

    /// Writes the index and gives the block its name, which says when it ends and what it holds;
    /// `None`, and no block, when it holds nothing.
    pub fn finish(mut self) -> anyhow::Result<Option<String>> {
        self.end_segment()?;
        let chunks = || self.series.values().flatten();
        let min = chunks().map(|c| c.min).min();
        let max = chunks().map(|c| c.max).max();
        let Some((min, max)) = min.zip(max) else {
            fs::remove_dir_all(&self.dir)?;
            return Ok(None);
        };
        write(&self.dir.join("index"), &index::encode(&self.series))?;
        let ulid = ulid(max, self.digest);
        // The end of a block does not belong to it.
        let meta = json!({
            "ulid": ulid,
            "minTime": min,
            "maxTime": max.saturating_add(1),
            "stats": {
                "numSamples": self.samples,
                "numFloatSamples": self.samples - self.histograms,
                "numHistogramSamples": self.histograms,
                "numSeries": self.series.len(),
                "numChunks": self.chunks,
            },
            "compaction": {"level": 1, "sources": [ulid]},
            "version": 1,
        });
        write(
            &self.dir.join("meta.json"),
            &serde_json::to_vec_pretty(&meta)?,
        )?;
        let path = self.output.join(&ulid);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::rename(&self.dir, &path).with_context(|| format!("make {}", path.display()))?;
        File::open(&self.output)?.sync_all()?;
        let (series, samples) = (self.series.len(), self.samples);
        Ok(Some(format!("{ulid}: {series} series, {samples} samples")))
    }
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let attempt = || format!("write {}", path.display());
    let mut file = File::create(path).with_context(attempt)?;
    file.write_all(bytes).with_context(attempt)?;
    file.sync_all().with_context(attempt)
}

/// 48 bits of time and 80 of what else tells it apart, five bits a digit (github.com/ulid/spec).
fn ulid(at_ms: i64, digest: u64) -> String {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let time = (at_ms.max(0) as u128) & ((1 << 48) - 1);
    let word = time << 80 | u128::from(digest);
    let digits = (0..26)
        .rev()
        .map(|n| DIGITS[(word >> (5 * n)) as usize & 31]);
    digits.map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_ulid() {
        // The example of the specification: 1469918176385 is 01ARYZ6S41.
        assert_eq!(ulid(1_469_918_176_385, 0), "01ARYZ6S410000000000000000");
        assert_eq!(ulid(0, 31).len(), 26);
    }
}
