//! Which series of a block a question is about.

use std::ops::Range;

/// Series by their places in a block.
#[derive(Debug)]
pub enum Among {
    All,
    /// A bit each; the last word may have some that stand for none.
    These(Box<[u64]>),
}

const WORD: usize = u64::BITS as usize;

impl Among {
    /// Those at these places, of so many.
    pub fn these(series: usize, places: impl IntoIterator<Item = usize>) -> Self {
        let mut words = vec![0; series.div_ceil(WORD)].into_boxed_slice();
        for place in places {
            words[place / WORD] |= 1 << (place % WORD);
        }
        Self::These(words)
    }

    pub fn is_none(&self) -> bool {
        match self {
            Self::All => false,
            Self::These(words) => words.iter().all(|word| *word == 0),
        }
    }

    /// Whether any of them is at one of these places, which are not none.
    pub fn meets(&self, places: Range<usize>) -> bool {
        let Self::These(words) = self else {
            return true;
        };
        let (first, last) = (places.start / WORD, (places.end - 1) / WORD);
        let from = u64::MAX << (places.start % WORD);
        let to = u64::MAX >> (WORD - 1 - (places.end - 1) % WORD);
        match first == last {
            true => words[first] & from & to != 0,
            false => {
                let between = &words[first + 1..last];
                words[first] & from != 0
                    || words[last] & to != 0
                    || between.iter().any(|word| *word != 0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const SERIES: usize = 300;

    proptest! {
        #[test]
        fn a_range_meets_what_is_in_it(
            places in prop::collection::btree_set(0..SERIES, 0..6),
            from in 0..SERIES,
            len in 1..SERIES,
        ) {
            let range = from..(from + len).min(SERIES);
            let among = Among::these(SERIES, places.iter().copied());
            prop_assert_eq!(among.is_none(), places.is_empty());
            let places: BTreeSet<usize> = places;
            prop_assert_eq!(among.meets(range.clone()), places.range(range.clone()).next().is_some());
            prop_assert!(Among::All.meets(range));
        }
    }
}
