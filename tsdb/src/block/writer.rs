//! Writes a block's file from samples in memory.

use std::io;
use std::path::Path;

use bytes::Bytes;
use model::port::Disk;
use model::{Labels, SeriesId, Timestamp};

use super::{ChunkRef, Frozen, Meta};
use crate::chunk::{BLOCK_CHUNK_SAMPLES, encode};
use crate::digest;
use crate::fields::{put_bytes, put_time, put_u32, put_u64, put_varint};
use crate::file::{FileEntry, FileKind, FileWriter};

pub const MAGIC: [u8; 8] = *b"qblock\x01\n";
pub const FOOTER_MAGIC: [u8; 8] = *b"qblkend\n";
/// Directory offset, length, raw length, checksum; id, range, counts, digest; checksum, magic.
pub const FOOTER_BYTES: usize = 8 * 3 + 4 + 8 * 6 + 4 + 8;

/// Chunk bytes gathered before they are appended.
const PIECE_BYTES: usize = 1 << 20;
/// Labels repeat much; a higher level gains little more on them.
const ZSTD_LEVEL: i32 = 3;

/// One series of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: SeriesId,
    pub labels: Labels,
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
    let mut piece = MAGIC.to_vec();
    for (id, taken) in frozen.series() {
        let points = taken.points();
        meta.digest = meta.digest.wrapping_add(digest::samples(*id, &points));
        let mut chunks = Vec::new();
        for chunk in encode(&points, BLOCK_CHUNK_SAMPLES) {
            chunks.push(ChunkRef {
                series: *id,
                min: chunk.min,
                max: chunk.max,
                count: chunk.count,
                offset: file.len() + piece.len() as u64,
                len: u32::try_from(chunk.data.len()).map_err(io::Error::other)?,
                crc32c: crc32c::crc32c(&chunk.data),
            });
            piece.extend_from_slice(&chunk.data);
        }
        entries.push(Entry {
            id: *id,
            labels: labels(*id),
            chunks,
        });
        if piece.len() >= PIECE_BYTES {
            file.append(std::mem::take(&mut piece).into()).await?;
        }
    }
    file.append(piece.into()).await?;
    let raw = encode_directory(&entries);
    let directory = Bytes::from(zstd::bulk::compress(&raw, ZSTD_LEVEL)?);
    let footer = encode_footer(&meta, file.len(), raw.len(), &directory);
    file.append(directory).await?;
    file.append(footer.into()).await?;
    let entry = file.finish().await?;
    Ok((entry, meta, entries))
}

/// Offsets are not written: chunks follow one another from behind the magic.
fn encode_directory(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut last_id = 0;
    for entry in entries {
        put_varint(&mut out, entry.id.0 - last_id);
        last_id = entry.id.0;
        put_bytes(&mut out, entry.labels.as_canonical());
        put_varint(&mut out, entry.chunks.len() as u64);
        let mut last = Timestamp(0);
        for chunk in &entry.chunks {
            // Both differences wrap: any two instants have one.
            put_varint(&mut out, zigzag(chunk.min.0.wrapping_sub(last.0)));
            put_varint(&mut out, chunk.max.0.wrapping_sub(chunk.min.0) as u64);
            put_varint(&mut out, u64::from(chunk.count));
            put_varint(&mut out, u64::from(chunk.len));
            put_u32(&mut out, chunk.crc32c);
            last = chunk.max;
        }
    }
    out
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
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
