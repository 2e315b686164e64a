//! Files of Prometheus with right checksums and whatever content, for tests.

use tsdb::fields::put_varint;

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
