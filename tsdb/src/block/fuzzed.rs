//! A block's file out of its parts, built for fuzzers only.

use model::Timestamp;

use super::Meta;
use super::directory::{self, Packed, Root, Section};
use super::writer::{HEADER_BYTES, MAGIC, VERSION, VERSION_TABLES, encode_footer};

/// What a file is made of; `data` stands in front of the directory.
pub struct Words<'a> {
    pub version: u8,
    pub directory: &'a [u8],
    pub data: &'a [u8],
}

/// The file, with checksums and a footer that fit; `None` where the directory says nothing.
pub fn lay_out(words: Words<'_>) -> Option<Vec<u8>> {
    let version = 1 + words.version % VERSION;
    let end = (HEADER_BYTES + words.data.len()) as u64;
    let meta = meta_of(version, words.directory, end)?;
    let packed = zstd::bulk::compress(words.directory, 1).expect("memory takes it");
    let root = Packed {
        section: Section {
            offset: end,
            len: packed.len() as u32,
            crc32c: crc32c::crc32c(&packed),
        },
        raw_len: words.directory.len() as u64,
    };
    let footer = encode_footer(&meta, &root);
    let header = [&MAGIC[..], &[version, b'\n']].concat();
    Some([&header, words.data, &packed, &footer].concat())
}

fn meta_of(version: u8, directory: &[u8], end: u64) -> Option<Meta> {
    let meta = Meta {
        id: 7,
        min: Timestamp::MIN,
        max: Timestamp::MAX,
        series: 0,
        samples: 0,
        digest: 0,
    };
    let begin = HEADER_BYTES as u64;
    if version >= VERSION_TABLES {
        let root = Root::decode(directory, version, begin, end).ok()?;
        let series = root.ids.count() as u64;
        return Some(Meta { series, ..meta });
    }
    let entries = directory::decode(directory, version, begin).ok()?;
    let chunks = || entries.iter().flat_map(|entry| &entry.chunks);
    Some(Meta {
        min: chunks().map(|chunk| chunk.min).min()?,
        max: chunks().map(|chunk| chunk.max).max()?,
        series: entries.len() as u64,
        samples: chunks().map(|chunk| u64::from(chunk.count)).sum(),
        ..meta
    })
}
