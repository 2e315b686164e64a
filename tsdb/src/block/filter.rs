//! Which label sets a block may have: a Bloom filter (Bloom 1970), with double hashing (Kirsch, Mitzenmacher 2006)
//! over XXH3 of the canonical form.

use model::Labels;
use model::hash::split_mix;

use crate::fields::{Fields, Malformed, put_u64};

/// Bits for each label set, and how many of all are set for one: with a hundredth of others it is mistaken.
const BITS_EACH: u64 = 10;
const PROBES: u64 = 7;

/// Label sets of a block being written. Takes 8 bytes for each.
#[derive(Debug, Default)]
pub struct Builder(Vec<u64>);

impl Builder {
    pub fn add(&mut self, labels: &Labels) {
        self.0.push(hash(labels));
    }

    pub fn finish(&self) -> Filter {
        let mut words = vec![0u64; words(self.0.len()).unwrap_or_default()];
        for &hash in &self.0 {
            for bit in bits(hash, words.len()) {
                words[(bit / 64) as usize] |= 1 << (bit % 64);
            }
        }
        Filter(words.into())
    }
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Filter(Box<[u64]>);

impl Filter {
    /// Never false of one that was added.
    pub fn may_have(&self, labels: &Labels) -> bool {
        let is_set = |bit: u64| self.0[(bit / 64) as usize] & 1 << (bit % 64) != 0;
        bits(hash(labels), self.0.len()).all(is_set)
    }

    pub fn put(&self, out: &mut Vec<u8>) {
        self.0.iter().for_each(|&word| put_u64(out, word));
    }

    /// Of so many label sets.
    pub fn take(fields: &mut Fields<'_>, count: usize) -> Result<Self, Malformed> {
        let bytes = words(count).and_then(|words| words.checked_mul(8));
        let mut words = Fields::new(fields.take(bytes.unwrap_or(usize::MAX))?);
        let words = (0..words.remaining() / 8).map(|_| words.u64());
        Ok(Self(words.collect::<Result<_, _>>()?))
    }
}

fn words(count: usize) -> Option<usize> {
    Some(count.checked_mul(BITS_EACH as usize)?.div_ceil(64))
}

/// A shard has label sets whose hashes are alike, by which they were placed there: mixed they are not.
fn hash(labels: &Labels) -> u64 {
    split_mix(labels.hash(0))
}

/// In so many words, none of which is one where there are none.
fn bits(hash: u64, words: usize) -> impl Iterator<Item = u64> {
    let (bits, step) = (words as u128 * 64, hash.rotate_left(32) | 1);
    let probes = 0..if words == 0 { 0 } else { PROBES };
    let mixed = probes.map(move |probe| hash.wrapping_add(step.wrapping_mul(probe)));
    mixed.map(move |word| ((u128::from(word) * bits) >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(n: u64) -> Labels {
        Labels::from_pairs([("__name__", "up"), ("n", &n.to_string())])
    }

    #[test]
    fn it_has_what_was_added_and_little_else() {
        for count in [1, 7, 1_000, 40_000] {
            let mut builder = Builder::default();
            // Those of one of 16 shards, however they are placed.
            let mine = |labels: &Labels| labels.hash(0) >> 60 == 3;
            let mut all = (0..).map(labels).filter(mine);
            let added: Vec<Labels> = all.by_ref().take(count).collect();
            added.iter().for_each(|labels| builder.add(labels));
            let filter = builder.finish();
            assert!(added.iter().all(|labels| filter.may_have(labels)));
            let others = all.take(2_000);
            let mistaken = others.filter(|labels| filter.may_have(labels)).count();
            assert!(count < 100 || mistaken < 40, "{mistaken} of 2000");
            let mut bytes = Vec::new();
            filter.put(&mut bytes);
            assert_eq!(bytes.len(), (count * 10).div_ceil(64) * 8);
            assert_eq!(Filter::take(&mut Fields::new(&bytes), count), Ok(filter));
            assert!(Filter::take(&mut Fields::new(&bytes), count + 7).is_err());
        }
        assert!(Filter::take(&mut Fields::new(&[]), usize::MAX).is_err());
    }
}
