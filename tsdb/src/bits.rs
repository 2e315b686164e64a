//! Bit strings, most significant bit first. Reading past the end is `None`, never a panic.

/// What takes bits.
pub trait Bits {
    /// Appends the low `bits` bits of `value`, at most 64.
    fn push(&mut self, value: u64, bits: u32);
}

/// Bits that do not fill a word yet.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Begun {
    /// From the top; zeros behind them.
    word: u64,
    /// How many, fewer than 64.
    bits: u32,
}

impl Begun {
    /// Appends the low `bits` bits of `value`, at most 64. A word that this fills goes to `full`.
    #[inline]
    fn push(&mut self, value: u64, bits: u32, full: impl FnOnce([u8; 8])) {
        debug_assert!(bits <= 64);
        if bits == 0 {
            return;
        }
        let value = value & (u64::MAX >> (64 - bits));
        let free = 64 - self.bits;
        if bits < free {
            self.word |= value << (free - bits);
            self.bits += bits;
            return;
        }
        let over = bits - free;
        full((self.word | value >> over).to_be_bytes());
        // Two shifts: one by 64 would do nothing.
        self.word = value << 1 << (63 - over);
        self.bits = over;
    }
}

/// Appends bits to bytes, a word at a time: of one that is not full nothing stands among the bytes, so that
/// they, which are in no cache where many writers take turns, are looked at once for each word.
#[derive(Debug, Default, Clone)]
pub struct BitWriter {
    /// Whole words.
    bytes: Vec<u8>,
    begun: Begun,
}

/// Bytes that a writer grows by: in many that grow a little each, doubling would leave a third of
/// the memory empty. Up to 512 bytes jemalloc gives out multiples of it, and they begin with a cache line.
const GROWTH: usize = 64;
const WORD: usize = 8;
/// What a sample takes, mostly at most.
const SAMPLE_BITS: u32 = 24;

impl BitWriter {
    /// Goes on where a reader of `bytes` stopped after `bits` bits. `None` when that is not inside
    /// the last byte, or the bits behind it are not zero.
    pub fn resume(bytes: &[u8], bits: usize) -> Option<Self> {
        let free = (bytes.len() * 8).checked_sub(bits).filter(|&f| f < 8)?;
        let padding = bytes.last().map_or(0, |last| last & low_mask(free as u8));
        if padding != 0 {
            return None;
        }
        let (whole, rest) = bytes.split_at(bits / 64 * WORD);
        let mut writer = Self::default();
        writer.append(whole);
        let mut word = [0; WORD];
        word[..rest.len()].copy_from_slice(rest);
        writer.begun = Begun {
            word: u64::from_be_bytes(word),
            bits: (bits % 64) as u32,
        };
        Some(writer)
    }

    /// Appends the low `bits` bits of `value`, at most 64.
    #[inline]
    pub fn push(&mut self, value: u64, bits: u32) {
        let mut begun = self.begun;
        begun.push(value, bits, |word| self.append(&word));
        self.begun = begun;
    }

    #[inline]
    fn append(&mut self, words: &[u8]) {
        let end = self.bytes.len() + words.len();
        if self.bytes.capacity() < end {
            self.grow(end);
        }
        self.bytes.extend_from_slice(words);
    }

    #[cold]
    fn grow(&mut self, least: usize) {
        let wanted = least.next_multiple_of(GROWTH);
        self.bytes.reserve_exact(wanted - self.bytes.len());
    }

    /// All bits so far; those behind them in the last byte are zero.
    pub fn to_bytes(&self) -> Vec<u8> {
        together(&self.bytes, &[], self.begun)
    }

    /// How many bytes these are.
    pub fn bytes_len(&self) -> usize {
        self.bytes.len() + self.begun.bits.div_ceil(8) as usize
    }

    /// Those that stand in memory of their own.
    pub fn words(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads where the next bits go, and the word that they may fill.
    pub fn touch(&self) -> u8 {
        let fills = self.begun.bits > u64::BITS - SAMPLE_BITS;
        self.bytes.last().filter(|_| fills).map_or(0, |byte| *byte)
    }
}

fn together(words: &[u8], more: &[u8], begun: Begun) -> Vec<u8> {
    let rest = begun.word.to_be_bytes();
    let rest = &rest[..begun.bits.div_ceil(8) as usize];
    [words, more, rest].concat()
}

/// Bits of many samples, put together apart from where they will stand. Made to be used again.
#[derive(Debug, Default, Clone)]
pub struct Words {
    bytes: Vec<u8>,
    begun: Begun,
}

impl Words {
    /// Begins behind what `writer` has.
    pub fn begin(&mut self, writer: &BitWriter) {
        self.bytes.clear();
        self.begun = writer.begun;
    }

    /// What `writer` has, and behind it what was pushed since [`Words::begin`] with it.
    pub fn behind(&self, writer: &BitWriter) -> Vec<u8> {
        together(&writer.bytes, &self.bytes, self.begun)
    }

    /// Appends what was pushed since [`Words::begin`] to the same `writer`.
    pub fn end(&self, writer: &mut BitWriter) {
        writer.append(&self.bytes);
        writer.begun = self.begun;
    }
}

impl Bits for Words {
    #[inline]
    fn push(&mut self, value: u64, bits: u32) {
        let mut begun = self.begun;
        begun.push(value, bits, |word| self.bytes.extend_from_slice(&word));
        self.begun = begun;
    }
}

/// Bits that are appended in one go, as long as they fit into a word.
pub struct Together<'a> {
    writer: &'a mut BitWriter,
    word: u64,
    bits: u32,
}

impl<'a> Together<'a> {
    pub fn new(writer: &'a mut BitWriter) -> Self {
        Self {
            writer,
            word: 0,
            bits: 0,
        }
    }

    #[inline]
    pub fn flush(&mut self) {
        self.writer.push(self.word, self.bits);
        (self.word, self.bits) = (0, 0);
    }
}

impl Bits for Together<'_> {
    #[inline]
    fn push(&mut self, value: u64, bits: u32) {
        if bits == 0 {
            return;
        }
        if self.bits + bits > 64 {
            self.flush();
        }
        // Two shifts: one by 64 would do nothing.
        self.word = self.word << 1 << (bits - 1) | value & (u64::MAX >> (64 - bits));
        self.bits += bits;
    }
}

fn low_mask(bits: u8) -> u8 {
    ((1u16 << bits) - 1) as u8
}

/// Reads bits from bytes, a word at a time. Every sample of every query comes through here: measured,
/// a third of a query's time goes away when its state stays in registers, so all is inlined.
///
/// Invariant: the first `have` bits of `word` are the next ones; those behind them are what stands
/// in `rest` from its beginning on, or zero.
#[derive(Debug, Clone)]
pub struct BitStream<'a> {
    rest: &'a [u8],
    word: u64,
    have: u32,
    bits_len: usize,
}

/// Bits that a refilled word has at least, unless the bytes end.
const REFILLED: u32 = 56;

impl<'a> BitStream<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            word: 0,
            have: 0,
            bits_len: bytes.len() * 8,
        }
    }

    /// Bits read so far.
    pub fn position(&self) -> usize {
        self.bits_len - self.rest.len() * 8 - self.have as usize
    }

    #[inline(always)]
    fn refill(&mut self) {
        let Some(eight) = self.rest.first_chunk() else {
            return self.refill_slowly();
        };
        self.word |= u64::from_be_bytes(*eight) >> self.have;
        let bytes = (63 - self.have) / 8;
        self.rest = &self.rest[bytes as usize..];
        self.have += bytes * 8;
    }

    #[cold]
    fn refill_slowly(&mut self) {
        while self.have <= REFILLED {
            let Some((&byte, rest)) = self.rest.split_first() else {
                return;
            };
            self.word |= u64::from(byte) << (REFILLED - self.have);
            self.have += 8;
            self.rest = rest;
        }
    }

    /// Skips `bits` bits, fewer than a word's, that are there.
    #[inline(always)]
    fn skip(&mut self, bits: u32) {
        self.word <<= bits;
        self.have -= bits;
    }

    /// The next `bits` bits, at most 64.
    #[inline(always)]
    pub fn read(&mut self, bits: u32) -> Option<u64> {
        debug_assert!(bits <= 64);
        if bits > REFILLED {
            let high = self.read_few(bits - 32)?;
            return Some(high << 32 | self.read_few(32)?);
        }
        self.read_few(bits)
    }

    #[inline(always)]
    fn read_few(&mut self, bits: u32) -> Option<u64> {
        if self.have < bits {
            self.refill();
            if self.have < bits {
                return None;
            }
        }
        // Two shifts: one by 64 would do nothing.
        let value = self.word >> 1 >> (63 - bits);
        self.skip(bits);
        Some(value)
    }

    /// How many ones come next, at most `most`; the zero that ends fewer is read too.
    #[inline(always)]
    pub fn read_ones(&mut self, most: u32) -> Option<u32> {
        if self.have < most {
            self.refill();
        }
        let ones = self.word.leading_ones().min(most);
        let bits = ones + u32::from(ones < most);
        if bits > self.have {
            return None;
        }
        self.skip(bits);
        Some(ones)
    }

    /// The `width` bits behind `prefix`, with which they are at most a refilled word. `None`, and nothing
    /// is read, where something else comes next, or `width` is zero.
    #[inline(always)]
    pub fn read_behind(&mut self, prefix: u64, prefix_bits: u32, width: u32) -> Option<u64> {
        let bits = prefix_bits + width;
        debug_assert!(prefix_bits > 0 && bits <= REFILLED);
        if self.have < bits {
            self.refill();
        }
        let comes_next = self.word >> (64 - prefix_bits) == prefix;
        if !comes_next || self.have < bits || width == 0 {
            return None;
        }
        let value = self.word << prefix_bits >> (64 - width);
        self.skip(bits);
        Some(value)
    }

    /// Whether less than a byte is left, all of it zero.
    pub fn is_padding(&mut self) -> bool {
        let left = self.bits_len - self.position();
        left < 8 && self.read(left as u32) == Some(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_pushed_is_read(pieces in prop::collection::vec((any::<u64>(), 0u32..=64), 0..50)) {
            let mut writer = BitWriter::default();
            for &(value, bits) in &pieces {
                writer.push(value, bits);
            }
            let bytes = writer.to_bytes();
            let mut reader = BitStream::new(&bytes);
            for &(value, bits) in &pieces {
                let expected = if bits == 64 { value } else { value & ((1 << bits) - 1) };
                prop_assert_eq!(reader.read(bits), Some(expected));
            }
            let mut padding = reader.clone();
            prop_assert!(padding.is_padding());
            let resumed = BitWriter::resume(&bytes, reader.position()).unwrap();
            prop_assert_eq!(resumed.begun, writer.begun);
            prop_assert_eq!(resumed.bytes, writer.bytes);
            prop_assert_eq!(reader.read(8), None);
        }
    }

    proptest! {
        #[test]
        fn bits_together_are_bits_one_by_one(pieces in prop::collection::vec((any::<u64>(), 0u32..=64), 0..50)) {
            let mut writer = BitWriter::default();
            let mut other = BitWriter::default();
            let mut together = Together::new(&mut other);
            for &(value, bits) in &pieces {
                writer.push(value, bits);
                together.push(value, bits);
            }
            together.flush();
            prop_assert_eq!(other.to_bytes(), writer.to_bytes());
        }

        #[test]
        fn bits_put_together_apart_are_bits_one_by_one(
            stretches in prop::collection::vec(prop::collection::vec((any::<u64>(), 0u32..=64), 0..40), 0..6),
        ) {
            let mut writer = BitWriter::default();
            let mut other = BitWriter::default();
            let mut words = Words::default();
            for stretch in &stretches {
                words.begin(&other);
                for &(value, bits) in stretch {
                    writer.push(value, bits);
                    words.push(value, bits);
                }
                prop_assert_eq!(words.behind(&other), writer.to_bytes());
                words.end(&mut other);
                prop_assert_eq!(other.to_bytes(), writer.to_bytes());
                prop_assert_eq!(other.begun, writer.begun);
                // And goes on as if nothing had happened.
                other.push(5, 3);
                writer.push(5, 3);
                prop_assert_eq!(other.to_bytes(), writer.to_bytes());
            }
        }

        #[test]
        fn runs_of_ones_are_counted(runs in prop::collection::vec((0u32..6, 1u32..5), 0..80)) {
            let mut writer = BitWriter::default();
            for &(ones, most) in &runs {
                let ones = ones.min(most);
                writer.push(u64::MAX, ones);
                writer.push(0, u32::from(ones < most));
            }
            let bytes = writer.to_bytes();
            let mut reader = BitStream::new(&bytes);
            for &(ones, most) in &runs {
                prop_assert_eq!(reader.read_ones(most), Some(ones.min(most)));
            }
        }
    }

    proptest! {
        #[test]
        fn what_stands_behind_a_prefix_is_read_as_one_by_one(
            bytes in prop::collection::vec(any::<u8>(), 0..20),
            skipped in 0u32..64,
            width in 0u32..=52,
        ) {
            let mut reader = BitStream::new(&bytes);
            let _behind = reader.read(skipped);
            let mut twin = reader.clone();
            let expected = twin.read(3).filter(|prefix| *prefix == 0b010);
            let expected = expected.and_then(|_| twin.read(width)).filter(|_| width > 0);
            let before = reader.position();
            prop_assert_eq!(reader.read_behind(0b010, 3, width), expected);
            let read = expected.map_or(0, |_| 3 + width as usize);
            prop_assert_eq!(reader.position(), before + read);
        }
    }

    #[test]
    fn a_writer_does_not_resume_inside_written_bits() {
        assert!(BitWriter::resume(&[0xff], 7).is_none());
        assert!(BitWriter::resume(&[0xfe], 7).is_some());
        assert!(BitWriter::resume(&[0xfe, 0], 7).is_none());
        assert!(BitWriter::resume(&[], 1).is_none());
    }
}
