//! Whole numbers that lie near one another: as words of one width above the least, or as classes
//! by how often they come (`rans`) with the bits that tell within a class behind them.
//!
//! Classes are even (all of one power of two wide, above the least) or logarithmic (by distance
//! from a middle: the further, the wider). Which is smallest is reckoned from counts before
//! anything is written.

use super::log2_256;
use super::pack::{Packer, Unpacker};
use super::rans::{Decoder, SYMBOLS_MAX, Table};
use crate::fields::{Fields, Malformed, put_bytes, put_varint, put_zigzag};

const PACKED: u8 = 0;
const EVEN: u8 = 1;
/// Plus how many bits of a number, below its highest, its class tells: 0, 1 or 2.
const LOG: u8 = 2;
const LOG_BITS_MAX: u32 = 2;

/// Kind, base, shift and the table's own words: about what a coded form costs before its first bit.
const CODED_HEADER_BITS: u64 = 10 * 8;
const PACKED_HEADER_BITS: u64 = 4 * 8;

/// How numbers are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Packed { base: i64, width: u32 },
    Even { base: i64, shift: u32, flat: bool },
    Log { middle: i64, bits: u32 },
}

/// The least and the most of `numbers`; zeros when there are none.
pub fn range(numbers: &[i64]) -> (i64, i64) {
    let min = numbers.iter().copied().min().unwrap_or(0);
    let max = numbers.iter().copied().max().unwrap_or(0);
    (min, max)
}

/// Bits that some form takes, about; no more than the smallest takes by much.
pub fn estimate(numbers: &[i64]) -> u64 {
    let (min, max) = range(numbers);
    let packed = packed_bits(numbers.len(), min, max);
    if min == max {
        return packed;
    }
    packed.min(log_bits(numbers, middle_of(numbers), 1))
}

/// Appends `numbers` in the form that takes fewest bits.
pub fn encode(numbers: &[i64], out: &mut Vec<u8>) {
    match choose(numbers) {
        Form::Packed { base, width } => {
            out.push(PACKED);
            put_zigzag(out, base);
            out.push(width as u8);
            let mut packer = Packer::default();
            for &number in numbers {
                packer.push(number.wrapping_sub(base) as u64, width);
            }
            out.extend(packer.finish());
        }
        Form::Even { base, shift, flat } => {
            out.push(EVEN);
            put_zigzag(out, base);
            out.push(shift as u8);
            let split = |number: i64| split_even(number, base, shift);
            put_classes(numbers, flat, split, out);
        }
        Form::Log { middle, bits } => {
            out.push(LOG + bits as u8);
            put_zigzag(out, middle);
            put_classes(numbers, false, |n| split_log(n, middle, bits), out);
        }
    }
}

/// Reads `count` numbers; nothing may follow them.
#[cfg(test)]
pub fn decode(bytes: &[u8], count: usize) -> Result<Vec<i64>, Malformed> {
    let mut numbers = Vec::new();
    let mut open = open(bytes, count)?;
    let mut symbols = Vec::new();
    if let Some(coded) = open.coded() {
        coded.fill(&mut symbols);
    }
    open.finish(&symbols, &mut numbers)?;
    Ok(numbers)
}

/// Numbers whose form is known, and whose symbols, if they have any, are still to be read.
pub enum Open<'a> {
    Packed(Packed<'a>),
    Coded(Coded<'a>),
}

/// Words of one width above a base.
pub struct Packed<'a> {
    base: i64,
    width: u32,
    bytes: &'a [u8],
    count: usize,
}

/// A class for each number, and the bits within it.
pub struct Coded<'a> {
    symbols: Decoder<'a>,
    classes: Classes,
    low: &'a [u8],
    count: usize,
}

impl<'a> Open<'a> {
    /// What has symbols to be read.
    pub fn coded(&mut self) -> Option<&mut Coded<'a>> {
        match self {
            Self::Packed(_) => None,
            Self::Coded(coded) => Some(coded),
        }
    }

    /// Appends the numbers, whose `symbols` were read; nothing may be left.
    pub fn finish(self, symbols: &[u8], numbers: &mut Vec<i64>) -> Result<(), Malformed> {
        match self {
            Self::Packed(packed) => packed.finish(numbers),
            Self::Coded(coded) => coded.finish(symbols, numbers),
        }
    }
}

/// Looks at `count` numbers.
pub fn open(bytes: &[u8], count: usize) -> Result<Open<'_>, Malformed> {
    let mut fields = Fields::new(bytes);
    let kind = fields.u8()?;
    let base = fields.zigzag()?;
    match kind {
        PACKED => open_packed(&mut fields, base, count),
        EVEN => {
            let shift = u32::from(fields.u8()?);
            if shift >= 64 {
                return Err(Malformed("shift above 63"));
            }
            let classes = |first: u8, _last| Classes::Even {
                first: base.wrapping_add((u64::from(first) << shift) as i64) as u64,
                shift,
            };
            open_classes(&mut fields, count, classes)
        }
        _ => {
            let bits = u32::from(kind.wrapping_sub(LOG));
            if bits > LOG_BITS_MAX {
                return Err(Malformed("unknown form of numbers"));
            }
            let classes = |first, last| Classes::Log {
                of: (first..=last).map(|class| class_log(class, bits)).collect(),
                middle: base,
            };
            open_classes(&mut fields, count, classes)
        }
    }
}

fn open_packed<'a>(
    fields: &mut Fields<'a>,
    base: i64,
    count: usize,
) -> Result<Open<'a>, Malformed> {
    let width = u32::from(fields.u8()?);
    let bytes = fields.take(fields.remaining())?;
    if width > 64 || bytes.len() != (count * width as usize).div_ceil(8) {
        return Err(Malformed("words are not as many as they should be"));
    }
    Ok(Open::Packed(Packed {
        base,
        width,
        bytes,
        count,
    }))
}

impl Packed<'_> {
    fn finish(self, numbers: &mut Vec<i64>) -> Result<(), Malformed> {
        let (base, width, count) = (self.base, self.width, self.count);
        if width == 0 {
            numbers.resize(numbers.len() + count, base);
            return Ok(());
        }
        let mut words = Unpacker::new(self.bytes);
        let from = numbers.len();
        numbers.resize(from + count, 0);
        for number in &mut numbers[from..] {
            *number = base.wrapping_add(words.read(width) as i64);
        }
        words.end()
    }
}

fn choose(numbers: &[i64]) -> Form {
    let (min, max) = range(numbers);
    let width = width_of(max.wrapping_sub(min) as u64);
    let packed = Form::Packed { base: min, width };
    if width == 0 {
        return packed;
    }
    let mut best = (packed_bits(numbers.len(), min, max), packed);
    let mut offer = |bits: u64, form: Form| {
        if bits < best.0 {
            best = (bits, form);
        }
    };
    let classes_bits = |shift: u32| (max.wrapping_sub(min) as u64 >> shift) + 1;
    let fine = width.saturating_sub(8);
    let flat = log2_256(classes_bits(fine)) + 8;
    let flat = numbers.len() as u64 * (flat + (u64::from(fine) << 8)) / 256;
    offer(
        flat + CODED_HEADER_BITS,
        Form::Even {
            base: min,
            shift: fine,
            flat: true,
        },
    );
    for classes in [3u32, 4, 5, 6] {
        let shift = width.saturating_sub(classes);
        let bits = even_bits(numbers, min, shift);
        offer(
            bits,
            Form::Even {
                base: min,
                shift,
                flat: false,
            },
        );
    }
    let middle = middle_of(numbers);
    for bits in 0..=LOG_BITS_MAX {
        offer(log_bits(numbers, middle, bits), Form::Log { middle, bits });
    }
    best.1
}

/// A number near the middle one: that of up to 63 taken evenly.
fn middle_of(numbers: &[i64]) -> i64 {
    let step = numbers.len().div_ceil(63).max(1);
    let mut some: Vec<i64> = numbers.iter().copied().step_by(step).collect();
    some.sort_unstable();
    some.get(some.len() / 2).copied().unwrap_or(0)
}

fn width_of(word: u64) -> u32 {
    64 - word.leading_zeros()
}

fn packed_bits(count: usize, min: i64, max: i64) -> u64 {
    let width = width_of(max.wrapping_sub(min) as u64);
    PACKED_HEADER_BITS + count as u64 * u64::from(width)
}

fn even_bits(numbers: &[i64], base: i64, shift: u32) -> u64 {
    let mut counts = [0u32; SYMBOLS_MAX];
    for &number in numbers {
        counts[usize::from(split_even(number, base, shift).0)] += 1;
    }
    table_bits(&counts, numbers.len()) + numbers.len() as u64 * u64::from(shift)
}

fn log_bits(numbers: &[i64], middle: i64, bits: u32) -> u64 {
    let mut counts = [0u32; SYMBOLS_MAX];
    let mut low = 0u64;
    for &number in numbers {
        let (class, _, width) = split_log(number, middle, bits);
        counts[usize::from(class)] += 1;
        low += u64::from(width);
    }
    table_bits(&counts, numbers.len()) + low
}

/// What classes that come so often take, with their table.
fn table_bits(counts: &[u32; SYMBOLS_MAX], total: usize) -> u64 {
    let whole = log2_256(total as u64);
    let scale = scale_of(total);
    let (mut bits, mut used, mut largest, mut span) = (0, 0u64, 0u64, 0u64);
    let first = counts.iter().position(|&n| n > 0).unwrap_or(0);
    for (class, &count) in counts.iter().enumerate().filter(|(_, n)| **n > 0) {
        // No class has less than the least share of its table.
        let cost = (whole - log2_256(u64::from(count))).min(u64::from(scale) << 8);
        bits += u64::from(count) * cost;
        used += 1;
        largest = largest.max(u64::from(count));
        span = (class - first) as u64 + 1;
    }
    if used > 1 << scale {
        return u64::MAX / 2;
    }
    let width = width_of((largest << scale) / (total as u64).max(1));
    bits / 256 + span * u64::from(width) + CODED_HEADER_BITS
}

/// The scale of a written table: finer for more numbers, as it is paid once.
fn scale_of(count: usize) -> u32 {
    (count.max(1).ilog2()).clamp(5, 12)
}

/// Class, the bits within it, and how many they are.
fn split_even(number: i64, base: i64, shift: u32) -> (u8, u64, u32) {
    let above = number.wrapping_sub(base) as u64;
    let low = above & ((1u128 << shift) - 1) as u64;
    ((above >> shift) as u8, low, shift)
}

/// Classes by the highest bit of the zigzag distance from `middle` and `bits` more; the nearest
/// have each their own.
#[inline]
fn split_log(number: i64, middle: i64, bits: u32) -> (u8, u64, u32) {
    let distance = number.wrapping_sub(middle);
    let zigzag = ((distance << 1) ^ (distance >> 63)) as u64;
    if zigzag < 2 << bits {
        return (zigzag as u8, 0, 0);
    }
    let highest = zigzag.ilog2();
    let low_bits = highest - bits;
    let told = (zigzag >> low_bits) & ((1 << bits) - 1);
    let class = (2 << bits) + ((highest - bits - 1) << bits) + told as u32;
    let low = zigzag & ((1u64 << low_bits) - 1);
    (class as u8, low, low_bits)
}

/// What the symbols of a column stand for.
enum Classes {
    /// All as wide as `shift` bits, one behind the other from `first` on.
    Even {
        first: u64,
        shift: u32,
    },
    Log {
        of: Vec<Class>,
        middle: i64,
    },
}

/// What a logarithmic class stands for: zigzag distances from `low` on, told apart by `bits` bits.
#[derive(Debug, Clone, Copy)]
struct Class {
    low: u64,
    bits: u32,
}

fn class_log(class: u8, bits: u32) -> Class {
    let class = u32::from(class);
    if class < 2 << bits {
        return Class {
            low: u64::from(class),
            bits: 0,
        };
    }
    let above = class - (2 << bits);
    let highest = (above >> bits) + bits + 1;
    let told = u64::from(above & ((1 << bits) - 1));
    // A class no number has: the highest bit does not exist.
    if highest > 63 {
        return Class { low: 0, bits: 0 };
    }
    let low_bits = highest - bits;
    let low = (1u64 << highest) | (told << low_bits);
    Class {
        low,
        bits: low_bits,
    }
}

impl Class {
    #[inline]
    fn number(&self, low: u64, middle: i64) -> i64 {
        let word = self.low.wrapping_add(low);
        middle.wrapping_add((word >> 1) as i64 ^ -((word & 1) as i64))
    }
}

fn put_classes(
    numbers: &[i64],
    flat: bool,
    split: impl Fn(i64) -> (u8, u64, u32),
    out: &mut Vec<u8>,
) {
    let mut counts = vec![0u32; SYMBOLS_MAX];
    let mut symbols = Vec::with_capacity(numbers.len());
    let mut packer = Packer::default();
    for &number in numbers {
        let (class, low, bits) = split(number);
        counts[usize::from(class)] += 1;
        symbols.push(class);
        packer.push(low, bits);
    }
    let first = counts.iter().position(|&n| n > 0).unwrap_or(0);
    let last = counts.iter().rposition(|&n| n > 0).unwrap_or(0);
    counts.truncate(last + 1);
    let counts = &mut counts[first..];
    let table = match flat {
        true => Table::flat(counts.len()),
        false => Table::of(counts, scale_of(numbers.len())),
    };
    put_table(&table, first, last, flat, out);
    symbols.iter_mut().for_each(|symbol| *symbol -= first as u8);
    put_bytes(out, &table.encode(&symbols));
    out.extend(packer.finish());
}

/// First and last class, scale, width of a frequency (0: all alike, none follow), frequencies.
fn put_table(table: &Table, first: usize, last: usize, flat: bool, out: &mut Vec<u8>) {
    let largest = table.freqs().iter().copied().max().unwrap_or(0);
    let width = if flat {
        0
    } else {
        width_of(u64::from(largest))
    };
    out.extend([first as u8, last as u8]);
    put_varint(out, u64::from(width));
    if flat {
        return;
    }
    let sum: u32 = table.freqs().iter().map(|&f| u32::from(f)).sum();
    out.push(sum.ilog2() as u8);
    let mut packer = Packer::default();
    for &freq in table.freqs() {
        packer.push(u64::from(freq), width);
    }
    out.extend(packer.finish());
}

fn take_table(fields: &mut Fields<'_>) -> Result<(u8, Table), Malformed> {
    let (first, last) = (fields.u8()?, fields.u8()?);
    let width = fields.varint_u32()?;
    if last < first || width > 13 {
        return Err(Malformed("not a table of frequencies"));
    }
    let classes = usize::from(last - first) + 1;
    if width == 0 {
        return Ok((first, Table::flat(classes)));
    }
    let scale = u32::from(fields.u8()?);
    let bytes = fields.take((classes * width as usize).div_ceil(8))?;
    let mut words = Unpacker::new(bytes);
    let freqs = (0..classes).map(|_| words.read(width) as u16).collect();
    words.end()?;
    Ok((first, Table::check(freqs, scale)?))
}

fn open_classes<'a>(
    fields: &mut Fields<'a>,
    count: usize,
    classes: impl Fn(u8, u8) -> Classes,
) -> Result<Open<'a>, Malformed> {
    let (first, table) = take_table(fields)?;
    let last = first.saturating_add((table.freqs().len() - 1) as u8);
    Ok(Open::Coded(Coded {
        classes: classes(first, last),
        symbols: table.decoder(fields.bytes()?)?,
        low: fields.take(fields.remaining())?,
        count,
    }))
}

impl Coded<'_> {
    /// Reads the symbols into `symbols`, which hold nothing else then.
    pub fn fill(&mut self, symbols: &mut Vec<u8>) {
        symbols.resize(self.count, 0);
        self.symbols.fill(symbols);
    }

    /// The same of several, which takes less than one by one.
    pub fn fill_together<const N: usize>(
        coded: [&mut Coded<'_>; N],
        mut symbols: [&mut Vec<u8>; N],
    ) {
        for (symbols, coded) in symbols.iter_mut().zip(&coded) {
            symbols.resize(coded.count, 0);
        }
        let decoders = coded.map(|coded| &mut coded.symbols);
        Decoder::fill_together(decoders, symbols.map(Vec::as_mut_slice));
    }

    fn finish(self, symbols: &[u8], numbers: &mut Vec<i64>) -> Result<(), Malformed> {
        let mut low = Unpacker::new(self.low);
        let from = numbers.len();
        numbers.resize(from + symbols.len(), 0);
        let pairs = numbers[from..].iter_mut().zip(symbols);
        match self.classes {
            Classes::Even { first, shift } => {
                let class = |symbol: u8| first.wrapping_add(u64::from(symbol) << shift);
                match shift {
                    0 => pairs.for_each(|(number, &symbol)| *number = class(symbol) as i64),
                    1..=56 => {
                        for (number, &symbol) in pairs {
                            *number = class(symbol).wrapping_add(low.read_short(shift)) as i64;
                        }
                    }
                    _ => {
                        for (number, &symbol) in pairs {
                            *number = class(symbol).wrapping_add(low.read(shift)) as i64;
                        }
                    }
                }
            }
            Classes::Log { of, middle } => {
                let class = |symbol: u8| &of[usize::from(symbol)];
                match of.iter().map(|class| class.bits).max() {
                    None | Some(0) => {
                        pairs.for_each(|(number, &s)| *number = class(s).number(0, middle));
                    }
                    Some(..=56) => {
                        for (number, &symbol) in pairs {
                            let class = class(symbol);
                            *number = class.number(low.read_short(class.bits), middle);
                        }
                    }
                    Some(_) => {
                        for (number, &symbol) in pairs {
                            let class = class(symbol);
                            *number = class.number(low.read(class.bits), middle);
                        }
                    }
                }
            }
        }
        self.symbols.end()?;
        low.end()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(numbers: &[i64]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(numbers, &mut out);
        out
    }

    proptest! {
        #[test]
        fn numbers_come_back(numbers in prop_oneof![
            prop::collection::vec(any::<i64>(), 0..300),
            prop::collection::vec(-3i64..3, 0..600),
            prop::collection::vec(1000i64..5000, 0..1500),
            prop::collection::vec(prop_oneof![9 => 0i64..40, 1 => any::<i64>()], 0..1500),
        ]) {
            let bytes = bytes_of(&numbers);
            prop_assert_eq!(decode(&bytes, numbers.len()), Ok(numbers));
        }

        #[test]
        fn every_class_holds_its_numbers(number in any::<i64>(), middle in any::<i64>(), bits in 0..=LOG_BITS_MAX) {
            let (class, low, width) = split_log(number, middle, bits);
            let of = class_log(class, bits);
            prop_assert_eq!(of.bits, width);
            prop_assert_eq!(of.number(low, middle), number);
        }

        #[test]
        fn arbitrary_bytes_never_panic(kind in 0u8..6, bytes in prop::collection::vec(any::<u8>(), 0..120), count in 0usize..500) {
            let _ = decode(&[&[kind][..], &bytes].concat(), count);
        }

        #[test]
        fn a_flipped_byte_never_panics(numbers in prop::collection::vec(prop_oneof![9 => 0i64..40, 1 => any::<i64>()], 1..500), at in any::<prop::sample::Index>(), flip in 1u8..) {
            let mut bytes = bytes_of(&numbers);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let _ = decode(&bytes, numbers.len());
        }
    }

    #[test]
    fn even_numbers_take_the_logarithm_of_their_range() {
        let mut word = 1u64;
        let numbers: Vec<i64> = (0..4000)
            .map(|_| {
                word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (word >> 33) as i64 % 3000
            })
            .collect();
        // log2(3000) is 11.55 and not 12.
        assert!(bytes_of(&numbers).len() * 8 < 4000 * 1163 / 100);
    }
}
