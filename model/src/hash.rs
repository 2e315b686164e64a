//! Hashing that is the same in every process, on every machine, in every version.
//!
//! XXH3 with explicit seeds (xxHash specification 0.8, `XXH3_64bits_withSeed`). The placement of
//! data rests on it, so the golden vectors below must never change.

use std::hash::{BuildHasherDefault, Hasher};

/// A hash map whose iteration order depends on its contents and history alone.
pub type Map<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<Xxh3>>;
/// A hash set with the same promise as [`Map`].
pub type Set<K> = std::collections::HashSet<K, BuildHasherDefault<Xxh3>>;

/// 64-bit XXH3 of `bytes`.
pub fn xxh3(seed: u64, bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(bytes, seed)
}

/// [`xxh3`] of the 24 little-endian bytes of three words. What is hashed for every sample comes as such: put down
/// as bytes and looked at again it takes several times as long.
#[inline]
pub fn xxh3_of_three(seed: u64, [first, second, third]: [u64; 3]) -> u64 {
    // The front of the specification's secret, and what it does with 17 to 32 bytes: two pairs of words, the
    // second one the last 16 bytes.
    const SECRET: [u64; 4] = [
        0xbe4b_a423_396c_feb8,
        0x1cad_21f7_2c81_017c,
        0xdb97_9083_e96d_d4de,
        0x1f67_b3b7_a4a4_4072,
    ];
    const LEN: u64 = 24;
    let mixed = |low: u64, high: u64, secret: &[u64]| {
        let low = low ^ secret[0].wrapping_add(seed);
        let high = high ^ secret[1].wrapping_sub(seed);
        let product = u128::from(low) * u128::from(high);
        product as u64 ^ (product >> 64) as u64
    };
    let word = LEN
        .wrapping_mul(0x9e37_79b1_85eb_ca87)
        .wrapping_add(mixed(first, second, &SECRET[..2]))
        .wrapping_add(mixed(second, third, &SECRET[2..]));
    let word = (word ^ (word >> 37)).wrapping_mul(0x1656_6791_9e37_79f9);
    word ^ (word >> 32)
}

/// 64-bit XXH64 of `bytes`: what Prometheus hashes labels with.
pub fn xxh64(seed: u64, bytes: &[u8]) -> u64 {
    xxhash_rust::xxh64::xxh64(bytes, seed)
}

/// The output function of SplitMix64 (Steele, Lea, Flood, 2014): applied to multiples of
/// [`SPLIT_MIX_STEP`] plus a seed it gives well-mixed, seeded 64-bit words.
pub fn split_mix(counter: u64) -> u64 {
    let word = (counter ^ (counter >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// What a counter for [`split_mix`] moves by.
pub const SPLIT_MIX_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A [`Hasher`] that folds each written piece into one word by XXH3.
#[derive(Debug, Default, Clone)]
pub struct Xxh3(u64);

impl Hasher for Xxh3 {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3(self.0, bytes);
    }

    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_vectors_hold() {
        assert_eq!(xxh3(0, b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(xxh3(0, b"quorate"), xxhash_rust::xxh3::xxh3_64(b"quorate"));
        assert_ne!(xxh3(1, b"quorate"), xxh3(0, b"quorate"));
        for n in 0..1_000u64 {
            let words = [n, n + 1, n + 2].map(|n| split_mix(n.wrapping_mul(SPLIT_MIX_STEP)));
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            for seed in [0, 2, split_mix(n), u64::MAX] {
                assert_eq!(xxh3_of_three(seed, words), xxh3(seed, &bytes));
            }
        }
        assert_eq!(xxh64(0, b""), 0xef46_db37_51d8_e999);
    }

    #[test]
    fn split_mix_gives_the_published_sequence() {
        // The reference generator seeded with 1234567.
        let words = (1..=3u64)
            .map(|i| split_mix(1_234_567u64.wrapping_add(i.wrapping_mul(SPLIT_MIX_STEP))));
        assert_eq!(
            words.collect::<Vec<_>>(),
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }
}
