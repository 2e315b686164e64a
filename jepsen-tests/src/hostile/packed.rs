//! Compressed bodies: honest, broken, lying about their length, and bombs.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::words::{mutate, pick};
use crate::splitmix::SplitMix64;

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("a vector takes all");
    encoder.finish().expect("a vector takes all")
}

/// Raw blocks, as remote write and Pushgateway have them.
pub fn snappy(bytes: &[u8]) -> Vec<u8> {
    let packed = snap::raw::Encoder::new().compress_vec(bytes);
    packed.expect("bodies are smaller than 4 GiB")
}

/// Some megabytes of what `line` repeats, by the name of its encoding.
pub fn bomb(dice: &mut SplitMix64) -> (&'static str, Vec<u8>) {
    let line = *pick(
        dice,
        &[
            &b"\0"[..],
            b"#",
            b"\n",
            b"a 1\n",
            b"a{b=\"c\"} 1\n",
            b"# TYPE a gauge\n",
        ],
    );
    // The bound of an exposition is 64 MiB.
    let bytes = match dice.chance(25) {
        true => dice.between(60, 80) as usize * (1 << 20),
        false => dice.between(1, 8) as usize * (1 << 20),
    };
    let plain = line.repeat(bytes / line.len());
    match dice.chance(50) {
        true => ("gzip", gzip(&plain)),
        false => ("snappy", snappy(&plain)),
    }
}

/// A block of snappy that claims to be of any length.
pub fn lying_snappy(dice: &mut SplitMix64) -> Vec<u8> {
    let mut out = Vec::new();
    let length = *pick(dice, &[u64::from(u32::MAX), 1 << 31, 64 << 20, u64::MAX, 7]);
    prost::encoding::encode_varint(length, &mut out);
    out.extend((0..dice.between(0, 30)).map(|_| dice.word() as u8));
    out
}

/// Packed by one of both, now and then not as it should be.
pub fn pack(dice: &mut SplitMix64, body: &[u8]) -> (&'static str, Vec<u8>) {
    let (name, mut packed) = match dice.chance(50) {
        true => ("gzip", gzip(body)),
        false => ("snappy", snappy(body)),
    };
    if dice.chance(15) {
        mutate(dice, &mut packed);
    }
    match dice.chance(5) {
        true => (
            *pick(dice, &["gzip", "snappy", "zstd", "br", "", "GZIP, snappy"]),
            packed,
        ),
        false => (name, packed),
    }
}
