//! Symbols by how often they come: range asymmetric numeral systems (J. Duda, "Asymmetric numeral
//! systems", arXiv:1311.2540) with a table of fixed frequencies and whole numbers throughout.

use std::borrow::Cow;
use std::sync::OnceLock;

use crate::fields::Malformed;

/// Symbols of a table, at most.
pub const SYMBOLS_MAX: usize = 256;
/// The state lies in `FLOOR .. FLOOR << 16` between symbols; words of 16 bits leave and enter.
const FLOOR: u32 = 1 << 16;
/// The scale of tables whose symbols all come alike.
pub const FLAT_SCALE: u32 = 11;

/// Frequencies that add up to `1 << scale`; a symbol that never comes has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    freqs: Vec<u16>,
    scale: u32,
    is_flat: bool,
}

impl Table {
    /// Frequencies near the share of each count; `counts` has up to [`SYMBOLS_MAX`], not all zero,
    /// and no more than `1 << scale` that are not.
    pub fn of(counts: &[u32], scale: u32) -> Self {
        let whole = 1u64 << scale;
        let total: u64 = counts.iter().map(|&n| u64::from(n)).sum();
        let share = |&n: &u32| match n {
            0 => 0,
            n => (u64::from(n) * whole / total).max(1) as u16,
        };
        let mut freqs: Vec<u16> = counts.iter().map(share).collect();
        let sum: u64 = freqs.iter().map(|&f| u64::from(f)).sum();
        // What is left goes to those that lost most by rounding down; the first of equals, so that
        // all machines agree.
        let mut order: Vec<usize> = (0..counts.len()).filter(|&at| counts[at] > 0).collect();
        order.sort_by_key(|&at| std::cmp::Reverse(u64::from(counts[at]) * whole % total));
        for &at in order
            .iter()
            .cycle()
            .take(whole.saturating_sub(sum) as usize)
        {
            freqs[at] += 1;
        }
        // What is too much comes from the rare that were raised to one: the largest bear it best.
        for _ in whole..sum {
            let (mut largest, mut place) = (0, 0);
            for (at, &freq) in freqs.iter().enumerate() {
                if freq > largest {
                    (largest, place) = (freq, at);
                }
            }
            freqs[place] -= 1;
        }
        Self {
            freqs,
            scale,
            is_flat: false,
        }
    }

    /// As [`Table::of`] `classes` counts that are all the same, `1 ..= SYMBOLS_MAX`.
    pub fn flat(classes: usize) -> Self {
        let whole = 1usize << FLAT_SCALE;
        let (share, left) = (whole / classes, whole % classes);
        let freqs = (0..classes).map(|at| (share + usize::from(at < left)) as u16);
        Self {
            freqs: freqs.collect(),
            scale: FLAT_SCALE,
            is_flat: true,
        }
    }

    /// Takes frequencies from a disk.
    pub fn check(freqs: Vec<u16>, scale: u32) -> Result<Self, Malformed> {
        let sum: u64 = freqs.iter().map(|&f| u64::from(f)).sum();
        match (1..=12).contains(&scale) && sum == 1 << scale && freqs.len() <= SYMBOLS_MAX {
            true => Ok(Self {
                freqs,
                scale,
                is_flat: false,
            }),
            false => Err(Malformed("frequencies do not add up")),
        }
    }

    pub fn freqs(&self) -> &[u16] {
        &self.freqs
    }

    fn starts(&self) -> Vec<u32> {
        let sum = |sum: &mut u32, &freq: &u16| {
            let start = *sum;
            *sum += u32::from(freq);
            Some(start)
        };
        self.freqs.iter().scan(0, sum).collect()
    }

    /// The bytes of `symbols`, each of which has a frequency.
    pub fn encode(&self, symbols: &[u8]) -> Vec<u8> {
        let starts = self.starts();
        let mut state = FLOOR;
        let mut words: Vec<u16> = Vec::new();
        // The last symbol goes in first, so that the first comes out first.
        for &symbol in symbols.iter().rev() {
            let freq = u32::from(self.freqs[usize::from(symbol)]);
            let ceiling = (u64::from(FLOOR >> self.scale) * u64::from(freq)) << 16;
            if u64::from(state) >= ceiling {
                words.push(state as u16);
                state >>= 16;
            }
            state = ((state / freq) << self.scale) + state % freq + starts[usize::from(symbol)];
        }
        let mut out = state.to_le_bytes().to_vec();
        out.extend(words.iter().rev().flat_map(|word| word.to_le_bytes()));
        out
    }

    /// A reader of what [`Table::encode`] made.
    pub fn decoder<'a>(&self, bytes: &'a [u8]) -> Result<Decoder<'a>, Malformed> {
        let (state, words) = bytes.split_first_chunk::<4>().ok_or(ENDS_EARLY)?;
        let slots = match self.is_flat {
            true => FLAT_SLOTS[self.freqs.len()]
                .get_or_init(|| self.slots())
                .into(),
            false => self.slots().into(),
        };
        Ok(Decoder {
            slots,
            scale: self.scale,
            state: u32::from_le_bytes(*state),
            words,
            short: false,
        })
    }

    fn slots(&self) -> Vec<Slot> {
        let mut slots = Vec::with_capacity(1 << self.scale);
        for (symbol, &freq) in self.freqs.iter().enumerate().filter(|(_, freq)| **freq > 0) {
            let slot = Slot::new(symbol as u8, freq, slots.len());
            slots.resize(slots.len() + usize::from(freq), slot);
        }
        slots
    }
}

/// Of flat tables, by how many symbols they have: no more than 2 MiB, and made once.
static FLAT_SLOTS: [OnceLock<Vec<Slot>>; SYMBOLS_MAX + 1] =
    [const { OnceLock::new() }; SYMBOLS_MAX + 1];

const ENDS_EARLY: Malformed = Malformed("symbols end early");

/// Symbol, its frequency less one, and where it starts, in 8, 12 and 12 bits: tables are filled in long
/// strides, and stay in a core's nearest cache.
#[derive(Debug, Clone, Copy)]
struct Slot(u32);

impl Slot {
    /// A frequency is `1 ..= 1 << 12`, and what starts lies below that.
    fn new(symbol: u8, freq: u16, start: usize) -> Self {
        Self(u32::from(symbol) << 24 | u32::from(freq - 1) << 12 | start as u32)
    }

    #[inline]
    fn symbol(self) -> u8 {
        (self.0 >> 24) as u8
    }

    #[inline]
    fn freq(self) -> u32 {
        (self.0 >> 12 & 0xfff) + 1
    }

    #[inline]
    fn start(self) -> u32 {
        self.0 & 0xfff
    }
}

/// Gives symbols. Wrong bytes give wrong symbols, and [`Decoder::end`] an error.
pub struct Decoder<'a> {
    /// As many as `1 << scale`.
    slots: Cow<'static, [Slot]>,
    scale: u32,
    state: u32,
    words: &'a [u8],
    short: bool,
}

impl Decoder<'_> {
    /// Fills `symbols` with the next ones.
    pub fn fill(&mut self, symbols: &mut [u8]) {
        let (slots, scale, mut state) = (&*self.slots, self.scale, self.state);
        let mut rest = symbols;
        // A symbol takes one word or none: for so many there is one in any case. Which it is nobody can
        // guess, so that there is no branch.
        while rest.len().min(self.words.len() / 2) > 0 {
            let (sure, later) = rest.split_at_mut(rest.len().min(self.words.len() / 2));
            let mut at = 0;
            for place in sure {
                let (symbol, next) = step(slots, scale, state);
                let word = u32::from(u16::from_le_bytes([self.words[at], self.words[at + 1]]));
                let is_low = next < FLOOR;
                state = if is_low { next << 16 | word } else { next };
                at += 2 * usize::from(is_low);
                *place = symbol;
            }
            self.words = &self.words[at..];
            rest = later;
        }
        for place in rest {
            let (symbol, next) = step(slots, scale, state);
            // No word is left.
            self.short |= next < FLOOR;
            state = if next < FLOOR { next | FLOOR } else { next };
            *place = symbol;
        }
        self.state = state;
    }

    /// As [`Decoder::fill`] of each with its own `symbols`, as many as the shortest are, the others'
    /// rest behind. What a symbol leads to must be known before the next one can be looked up: several
    /// readers that know nothing of each other fill that wait.
    #[allow(
        clippy::needless_range_loop,
        reason = "one place in each of several slices"
    )]
    pub fn fill_together<const N: usize>(
        decoders: [&mut Decoder<'_>; N],
        mut symbols: [&mut [u8]; N],
    ) {
        loop {
            // A symbol takes one word or none: for so many there is one in any case.
            let sure = |at: usize| symbols[at].len().min(decoders[at].words.len() / 2);
            let count = (0..N).map(sure).min().unwrap_or(0);
            if count == 0 {
                break;
            }
            let mut words: [&[u8]; N] = std::array::from_fn(|at| decoders[at].words);
            let mut states: [u32; N] = std::array::from_fn(|at| decoders[at].state);
            let slots: [&[Slot]; N] = std::array::from_fn(|at| &*decoders[at].slots);
            let scales: [u32; N] = std::array::from_fn(|at| decoders[at].scale);
            let mut at = [0; N];
            for place in 0..count {
                for n in 0..N {
                    let (symbol, next) = step(slots[n], scales[n], states[n]);
                    let word = [words[n][at[n]], words[n][at[n] + 1]];
                    let is_low = next < FLOOR;
                    states[n] = match is_low {
                        true => next << 16 | u32::from(u16::from_le_bytes(word)),
                        false => next,
                    };
                    at[n] += 2 * usize::from(is_low);
                    symbols[n][place] = symbol;
                }
            }
            for (words, at) in words.iter_mut().zip(at) {
                *words = &words[at..];
            }
            for n in 0..N {
                (decoders[n].state, decoders[n].words) = (states[n], words[n]);
                symbols[n] = &mut std::mem::take(&mut symbols[n])[count..];
            }
        }
        for (decoder, symbols) in decoders.into_iter().zip(symbols) {
            decoder.fill(symbols);
        }
    }

    /// All symbols were read: the state is back where the writer began, and nothing is left.
    pub fn end(self) -> Result<(), Malformed> {
        match (self.short, self.state, self.words) {
            (false, FLOOR, []) => Ok(()),
            (true, ..) => Err(ENDS_EARLY),
            _ => Err(Malformed("bytes behind the last symbol")),
        }
    }
}

/// The symbol that `state` tells, and the state behind it before a word enters.
#[inline]
fn step(slots: &[Slot], scale: u32, state: u32) -> (u8, u32) {
    let low = state & ((1 << scale) - 1);
    let slot = slots[low as usize];
    let high = state >> scale;
    // Never above 32 bits: a frequency is at most the scale's whole.
    let next = (slot.freq().wrapping_mul(high)).wrapping_add(low.wrapping_sub(slot.start()));
    (slot.symbol(), next)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(symbols: &[u8]) -> Vec<u32> {
        let mut counts = vec![0; SYMBOLS_MAX];
        symbols.iter().for_each(|&s| counts[usize::from(s)] += 1);
        counts
    }

    fn decode(table: &Table, bytes: &[u8], count: usize) -> Result<Vec<u8>, Malformed> {
        let mut decoder = table.decoder(bytes)?;
        let mut symbols = vec![0; count];
        // In two goes, as callers may.
        let (first, rest) = symbols.split_at_mut(count / 3);
        decoder.fill(first);
        decoder.fill(rest);
        decoder.end().map(|()| symbols)
    }

    proptest! {
        #[test]
        fn symbols_come_back(symbols in prop::collection::vec(prop_oneof![Just(3u8), 0u8..5, any::<u8>()], 1..600), scale in 8u32..=12) {
            let table = Table::of(&counts(&symbols), scale);
            prop_assert_eq!(Table::check(table.freqs().to_vec(), scale).unwrap(), table.clone());
            let bytes = table.encode(&symbols);
            prop_assert_eq!(decode(&table, &bytes, symbols.len()), Ok(symbols.clone()));
            prop_assert!(decode(&table, &bytes[..bytes.len() - 1], symbols.len()).is_err());
            prop_assert!(decode(&table, &[&bytes[..], &[0, 0]].concat(), symbols.len()).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), freqs in prop::collection::vec(0u16..600, 0..20), scale in 0u32..20) {
            let _ = Table::check(freqs, scale);
            let table = Table::of(&[3, 0, 1, 100], 8);
            let _ = decode(&table, &bytes, 300);
        }
    }

    #[test]
    fn a_flat_table_is_that_of_counts_that_are_all_the_same() {
        for classes in 1..=SYMBOLS_MAX {
            let alike = Table::of(&vec![1; classes], FLAT_SCALE);
            let flat = Table::flat(classes);
            assert_eq!((flat.freqs(), flat.scale), (alike.freqs(), alike.scale));
            let symbols: Vec<u8> = (0..classes).map(|symbol| symbol as u8).collect();
            let bytes = alike.encode(&symbols);
            assert_eq!(decode(&flat, &bytes, classes), Ok(symbols));
        }
    }

    proptest! {
        #[test]
        fn several_read_together_read_what_each_would(
            all in prop::collection::vec(prop::collection::vec(prop_oneof![Just(3u8), 0u8..5, any::<u8>()], 1..600), 4),
            cut in 0usize..600,
        ) {
            let tables: Vec<Table> = all.iter().map(|symbols| Table::of(&counts(symbols), 9)).collect();
            let bytes: Vec<Vec<u8>> = tables.iter().zip(&all).map(|(table, symbols)| table.encode(symbols)).collect();
            // What ends early does so for each by itself.
            let bytes: Vec<&[u8]> = bytes.iter().map(|bytes| &bytes[..bytes.len().min(cut + 4)]).collect();
            let alone: Vec<_> = tables.iter().zip(&bytes).zip(&all).map(|((table, bytes), symbols)| {
                let mut decoder = table.decoder(bytes).unwrap();
                let mut found = vec![0; symbols.len()];
                decoder.fill(&mut found);
                (found, decoder.end())
            }).collect();
            let mut decoders: Vec<Decoder<'_>> = tables.iter().zip(&bytes).map(|(table, bytes)| table.decoder(bytes).unwrap()).collect();
            let mut found: Vec<Vec<u8>> = all.iter().map(|symbols| vec![0; symbols.len()]).collect();
            if let ([a, b, c, d], [p, q, r, s]) = (&mut decoders[..], &mut found[..]) {
                Decoder::fill_together([a, b, c, d], [p, q, r, s]);
            }
            let together: Vec<_> = found.into_iter().zip(decoders).map(|(found, decoder)| (found, decoder.end())).collect();
            prop_assert_eq!(together, alone);
        }
    }

    #[test]
    fn what_comes_nearly_always_takes_nearly_nothing() {
        let mut symbols = vec![0; 4000];
        symbols[17] = 1;
        let table = Table::of(&counts(&symbols), 12);
        assert!(table.encode(&symbols).len() < 10);
    }
}
