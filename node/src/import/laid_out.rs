//! Files of Prometheus with right checksums and whatever content, for tests and fuzzers.

use tsdb::fields::put_varint;

#[cfg(fuzzing)]
use super::block::{CHUNKS_MAGIC, TOMBSTONES_MAGIC, VERSION};
use super::index;

fn put_checked(file: &mut Vec<u8>, content: &[u8]) {
    file.extend(content);
    file.extend(crc32c::crc32c(content).to_be_bytes());
}

/// An index as Prometheus writes it, but for the sections that are not read.
pub fn index(symbols: &[u8], series: &[Vec<u8>]) -> Vec<u8> {
    let mut file = index::MAGIC.to_be_bytes().to_vec();
    file.push(index::VERSION);
    let symbols_at = file.len() as u64;
    file.extend((symbols.len() as u32).to_be_bytes());
    put_checked(&mut file, symbols);
    let align = |file: &mut Vec<u8>| file.resize(file.len().next_multiple_of(16), 0);
    align(&mut file);
    let series_at = file.len() as u64;
    for content in series {
        put_varint(&mut file, content.len() as u64);
        put_checked(&mut file, content);
        align(&mut file);
    }
    let behind = file.len() as u64;
    let places = [symbols_at, series_at, behind, behind, behind, behind];
    let places = places.iter().flat_map(|place| place.to_be_bytes());
    put_checked(&mut file, &places.collect::<Vec<u8>>());
    file
}

/// A file of a block's chunks: of each its encoding and its data.
#[cfg(fuzzing)]
pub fn segment<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut file = [&CHUNKS_MAGIC.to_be_bytes()[..], &[VERSION, 0, 0, 0]].concat();
    for chunk in chunks {
        put_varint(&mut file, (chunk.len() as u64).saturating_sub(1));
        put_checked(&mut file, chunk);
    }
    file
}

#[cfg(fuzzing)]
pub fn tombstones(content: &[u8]) -> Vec<u8> {
    let mut file = [&TOMBSTONES_MAGIC.to_be_bytes()[..], &[VERSION]].concat();
    put_checked(&mut file, content);
    file
}
