//! Symbols by how often they come: range asymmetric numeral systems (J. Duda, "Asymmetric numeral
//! systems", arXiv:1311.2540) with a table of fixed frequencies and whole numbers throughout.

use std::borrow::Cow;
use std::hint::select_unpredictable;
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
            slots.extend((0..freq).map(|within| Slot::new(symbol as u8, freq, within)));
        }
        slots
    }
}

/// Of flat tables, by how many symbols they have: no more than 2 MiB, and made once.
static FLAT_SLOTS: [OnceLock<Vec<Slot>>; SYMBOLS_MAX + 1] =
    [const { OnceLock::new() }; SYMBOLS_MAX + 1];

const ENDS_EARLY: Malformed = Malformed("symbols end early");

/// Symbol, its frequency less one, and how far within it the slot lies, in 8, 12 and 12 bits: tables are
/// filled in long strides, and stay in a core's nearest cache.
#[derive(Debug, Clone, Copy)]
struct Slot(u32);

impl Slot {
    /// A frequency is `1 ..= 1 << 12`, and `within` is less.
    fn new(symbol: u8, freq: u16, within: u16) -> Self {
        Self(u32::from(symbol) << 24 | u32::from(freq - 1) << 12 | u32::from(within))
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
    fn within(self) -> u32 {
        self.0 & 0xfff
    }

    /// The symbol, and the state behind it before a word enters; `high` is what the state has above the
    /// table's scale.
    #[inline]
    fn step(self, high: u32) -> (u8, u32) {
        // Never above 32 bits: a frequency is at most the scale's whole.
        let next = self.freq().wrapping_mul(high).wrapping_add(self.within());
        (self.symbol(), next)
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
        Self::fill_together([self], [symbols]);
    }

    /// As [`Decoder::fill`] of each with its own `symbols`. What a symbol leads to must be known before
    /// the next one can be looked up: several readers that know nothing of each other fill that wait.
    pub fn fill_together<const N: usize>(
        mut decoders: [&mut Decoder<'_>; N],
        mut symbols: [&mut [u8]; N],
    ) {
        let scale = decoders.first().map_or(0, |decoder| decoder.scale);
        let is_one = decoders.iter().all(|decoder| decoder.scale == scale);
        let filled = (&mut decoders, &mut symbols);
        match scale {
            8 if is_one => fill_scaled::<N, { 1 << 8 }>(filled),
            9 if is_one => fill_scaled::<N, { 1 << 9 }>(filled),
            10 if is_one => fill_scaled::<N, { 1 << 10 }>(filled),
            11 if is_one => fill_scaled::<N, { 1 << 11 }>(filled),
            12 if is_one => fill_scaled::<N, { 1 << 12 }>(filled),
            _ => {
                let (decoders, symbols) = filled;
                let scales = decoders.each_ref().map(|decoder| decoder.scale);
                let slots = decoders.each_mut().map(|d| std::mem::take(&mut d.slots));
                let tables = std::array::from_fn(|n| (&*slots[n], scales[n]));
                let step = |(slots, scale): (&[Slot], u32), state: u32| {
                    let low = state & ((1 << scale) - 1);
                    slots[low as usize].step(state >> scale)
                };
                fill_sure(decoders, symbols, tables, step);
                give_back(decoders, slots);
            }
        }
        for (decoder, symbols) in decoders.into_iter().zip(symbols) {
            match N {
                1 => decoder.fill_rest(symbols),
                _ => decoder.fill(symbols),
            }
        }
    }

    /// Fills `symbols` with the last ones.
    fn fill_rest(&mut self, symbols: &mut [u8]) {
        for place in symbols {
            let low = self.state & ((1 << self.scale) - 1);
            let (symbol, next) = self.slots[low as usize].step(self.state >> self.scale);
            *place = symbol;
            self.state = match (next < FLOOR, self.words.split_first_chunk()) {
                (false, _) => next,
                (true, Some((word, rest))) => {
                    self.words = rest;
                    next << 16 | u32::from(u16::from_le_bytes(*word))
                }
                (true, None) => {
                    self.short = true;
                    next | FLOOR
                }
            };
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

/// [`fill_sure`] of tables that all have so many slots: the least significant bits of a state are then
/// one of them in any case, and nothing is looked up to know which bits.
fn fill_scaled<const N: usize, const SLOTS: usize>(
    (decoders, symbols): (&mut [&mut Decoder<'_>; N], &mut [&mut [u8]; N]),
) {
    let slots = decoders.each_mut().map(|d| std::mem::take(&mut d.slots));
    let tables: [Option<&[Slot; SLOTS]>; N] = slots.each_ref().map(|slots| slots.first_chunk());
    if tables.iter().all(Option::is_some) {
        let tables = tables.map(|table| table.expect("all have so many slots"));
        fill_sure(decoders, symbols, tables, |slots, state| {
            slots[state as usize % SLOTS].step(state / SLOTS as u32)
        });
    }
    give_back(decoders, slots);
}

fn give_back<const N: usize>(
    decoders: &mut [&mut Decoder<'_>; N],
    slots: [Cow<'static, [Slot]>; N],
) {
    for (decoder, slots) in decoders.iter_mut().zip(slots) {
        decoder.slots = slots;
    }
}

/// Fills as many symbols as there are words for in any case, as many of each; what is left of `symbols`
/// is the rest.
#[allow(
    clippy::needless_range_loop,
    reason = "one place in each of several slices"
)]
#[inline]
fn fill_sure<const N: usize, T: Copy>(
    decoders: &mut [&mut Decoder<'_>; N],
    symbols: &mut [&mut [u8]; N],
    tables: [T; N],
    step: impl Fn(T, u32) -> (u8, u32),
) {
    loop {
        let words: [&[[u8; 2]]; N] = std::array::from_fn(|n| decoders[n].words.as_chunks().0);
        // A symbol takes one word or none. Which it is nobody can guess: no branch may hang on it.
        let sure = |n: usize| symbols[n].len().min(words[n].len());
        let count = (0..N).map(sure).min().unwrap_or(0);
        if count == 0 {
            return;
        }
        let mut states: [u32; N] = std::array::from_fn(|n| decoders[n].state);
        let mut at = [0; N];
        {
            let symbols = symbols.each_mut().map(|symbols| &mut symbols[..count]);
            for place in 0..count {
                for n in 0..N {
                    let (symbol, next) = step(tables[n], states[n]);
                    let word = u32::from(u16::from_le_bytes(words[n][at[n]]));
                    let is_low = next < FLOOR;
                    states[n] = select_unpredictable(is_low, next << 16 | word, next);
                    at[n] += usize::from(is_low);
                    symbols[n][place] = symbol;
                }
            }
        }
        for n in 0..N {
            decoders[n].state = states[n];
            decoders[n].words = &decoders[n].words[2 * at[n]..];
            symbols[n] = &mut std::mem::take(&mut symbols[n])[count..];
        }
    }
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
