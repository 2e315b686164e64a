//! Writes a block's file from samples in memory.

use std::io;
use std::num::NonZeroU32;
use std::path::Path;

use bytes::Bytes;
use model::port::Disk;
use model::{Labels, SeriesId, Timestamp};

use super::{ChunkRef, Frozen, Meta};
use crate::chunk::{BLOCK_CHUNK_SAMPLES, encode};
use crate::digest;
use crate::fields::{put_bytes, put_time, put_u32, put_u64, put_varint, put_zigzag};
use crate::file::{FileEntry, FileKind, FileWriter};
use crate::head::Taken;
use crate::histogram::{self, HistogramPoint};

/// What the file begins with, but for its version and a newline.
pub const MAGIC: [u8; 6] = *b"qblock";
/// Magic, version, newline.
pub const HEADER_BYTES: usize = 8;
/// Histograms came with this one.
pub const VERSION: u8 = 2;
/// The oldest version we read.
pub const VERSION_MIN: u8 = 1;
pub const FOOTER_MAGIC: [u8; 8] = *b"qblkend\n";
/// Directory offset, length, raw length, checksum; id, range, counts, digest; checksum, magic.
pub const FOOTER_BYTES: usize = 8 * 3 + 4 + 8 * 6 + 4 + 8;

/// Chunk bytes gathered before they are appended.
const PIECE_BYTES: usize = 1 << 20;
/// Labels repeat much; a higher level gains little more on them.
const ZSTD_LEVEL: i32 = 3;
/// A chunk of histograms is cut once it has so many bytes: a query reads whole chunks.
const HISTOGRAM_CHUNK_BYTES: usize = 64 << 10;

/// One series of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: SeriesId,
    pub labels: Labels,
    /// Those of floats, then those of histograms.
    pub chunks: Vec<ChunkRef>,
}

/// Writes `frozen` into `dir` and makes its bytes durable; the caller flushes the directory.
/// `labels` answers for every series in the block.
pub async fn write(
    disk: &dyn Disk,
    dir: &Path,
    frozen: &Frozen,
    labels: impl Fn(SeriesId) -> Labels,
) -> io::Result<(FileEntry, Meta, Vec<Entry>)> {
    let mut file = FileWriter::create(disk, dir, FileKind::Block(frozen.id())).await?;
    let mut meta = Meta {
        id: frozen.id(),
        min: frozen.range.0,
        max: frozen.range.1,
        series: frozen.series().len() as u64,
        samples: frozen.samples,
        digest: 0,
    };
    let mut entries = Vec::with_capacity(frozen.series().len());
    let mut piece = Piece {
        offset: 0,
        bytes: [&MAGIC[..], &[VERSION, b'\n']].concat(),
    };
    for (id, taken) in frozen.series() {
        let (chunks, digest) = put_chunks(&mut piece, *id, taken)?;
        meta.digest = meta.digest.wrapping_add(digest);
        entries.push(Entry {
            id: *id,
            labels: labels(*id),
            chunks,
        });
        if piece.bytes.len() >= PIECE_BYTES {
            file.append(piece.take()).await?;
        }
    }
    file.append(piece.take()).await?;
    let raw = encode_directory(&entries);
    let directory = Bytes::from(zstd::bulk::compress(&raw, ZSTD_LEVEL)?);
    let footer = encode_footer(&meta, file.len(), raw.len(), &directory);
    file.append(directory).await?;
    file.append(footer.into()).await?;
    let entry = file.finish().await?;
    Ok((entry, meta, entries))
}

/// Bytes of the file that are not appended yet.
struct Piece {
    /// Where they begin.
    offset: u64,
    bytes: Vec<u8>,
}

impl Piece {
    fn take(&mut self) -> Bytes {
        self.offset += self.bytes.len() as u64;
        std::mem::take(&mut self.bytes).into()
    }

    /// Adds a chunk's bytes and says where they stand.
    fn put(
        &mut self,
        series: SeriesId,
        range: (Timestamp, Timestamp),
        count: u16,
        data: &[u8],
    ) -> io::Result<ChunkRef> {
        let offset = self.offset + self.bytes.len() as u64;
        self.bytes.extend_from_slice(data);
        Ok(ChunkRef {
            series,
            min: range.0,
            max: range.1,
            count,
            offset,
            len: u32::try_from(data.len()).map_err(io::Error::other)?,
            crc32c: crc32c::crc32c(data),
            histograms: None,
        })
    }
}

/// The chunks of one series, and the digest of its samples.
fn put_chunks(piece: &mut Piece, id: SeriesId, taken: &Taken) -> io::Result<(Vec<ChunkRef>, u64)> {
    let points = taken.points();
    let digest = digest::samples(id, &points);
    let mut chunks = Vec::new();
    for chunk in encode(&points, BLOCK_CHUNK_SAMPLES) {
        let range = (chunk.min, chunk.max);
        chunks.push(piece.put(id, range, chunk.count, &chunk.data)?);
    }
    for run in cut_histograms(&taken.histograms) {
        let raw = histogram::encode(run);
        let data = zstd::bulk::compress(&raw, ZSTD_LEVEL)?;
        let range = histogram::range_of(run).expect("no run is empty");
        let mut chunk = piece.put(id, range, run.len() as u16, &data)?;
        let raw_len = u32::try_from(raw.len()).map_err(io::Error::other)?;
        chunk.histograms = NonZeroU32::new(raw_len);
        chunks.push(chunk);
    }
    let histograms = digest::histograms(id, &taken.histograms);
    Ok((chunks, digest.wrapping_add(histograms)))
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

/// Offsets are not written: chunks follow one another from behind the magic.
fn encode_directory(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut last_id = 0;
    for entry in entries {
        put_varint(&mut out, entry.id.0 - last_id);
        last_id = entry.id.0;
        put_bytes(&mut out, entry.labels.as_canonical());
        let floats = entry.chunks.partition_point(|c| c.histograms.is_none());
        let (floats, histograms) = entry.chunks.split_at(floats);
        put_chunk_list(&mut out, floats);
        put_chunk_list(&mut out, histograms);
    }
    out
}

fn put_chunk_list(out: &mut Vec<u8>, chunks: &[ChunkRef]) {
    put_varint(out, chunks.len() as u64);
    let mut last = Timestamp(0);
    for chunk in chunks {
        // Both differences wrap: any two instants have one.
        put_zigzag(out, chunk.min.0.wrapping_sub(last.0));
        put_varint(out, chunk.max.0.wrapping_sub(chunk.min.0) as u64);
        put_varint(out, u64::from(chunk.count));
        put_varint(out, u64::from(chunk.len));
        put_u32(out, chunk.crc32c);
        if let Some(raw_len) = chunk.histograms {
            put_varint(out, u64::from(raw_len.get()));
        }
        last = chunk.max;
    }
}

fn encode_footer(meta: &Meta, offset: u64, raw_len: usize, directory: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FOOTER_BYTES);
    put_u64(&mut out, offset);
    put_u64(&mut out, directory.len() as u64);
    put_u64(&mut out, raw_len as u64);
    put_u32(&mut out, crc32c::crc32c(directory));
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
