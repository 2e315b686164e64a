//! Bit strings, most significant bit first. Reading past the end is `None`, never a panic.

/// Appends bits to bytes; unused bits of the last byte are zero.
#[derive(Debug, Default, Clone)]
pub struct BitWriter {
    bytes: Vec<u8>,
    /// Unused low bits of the last byte, `0 ..= 7`.
    free: u32,
}

impl BitWriter {
    /// Goes on where a reader of `bytes` stopped after `bits` bits. `None` when that is not inside
    /// the last byte, or the bits behind it are not zero.
    pub fn resume(bytes: &[u8], bits: usize) -> Option<Self> {
        let free = (bytes.len() * 8).checked_sub(bits).filter(|&f| f < 8)? as u32;
        let padding = bytes.last().map_or(0, |last| last & low_mask(free));
        (padding == 0).then(|| Self {
            bytes: bytes.to_vec(),
            free,
        })
    }

    /// Appends the low `bits` bits of `value`.
    pub fn push(&mut self, value: u64, bits: u32) {
        debug_assert!(bits <= 64);
        if bits == 0 {
            return;
        }
        // At the top of the word, zeros behind them.
        let mut rest = value << (64 - bits);
        let mut left = bits;
        if self.free > 0
            && let Some(last) = self.bytes.last_mut()
        {
            let take = left.min(self.free);
            *last |= (rest >> 56) as u8 >> (8 - self.free);
            self.free -= take;
            left -= take;
            rest <<= take;
        }
        if left > 0 {
            let whole = left.div_ceil(8);
            self.bytes
                .extend_from_slice(&rest.to_be_bytes()[..whole as usize]);
            self.free = whole * 8 - left;
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

fn low_mask(bits: u32) -> u8 {
    ((1u16 << bits) - 1) as u8
}

/// Reads bits from bytes.
#[derive(Debug, Clone)]
pub struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bits read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    pub fn bit(&mut self) -> Option<bool> {
        let byte = *self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit == 1)
    }

    /// The next `bits` bits, at most 64.
    pub fn read(&mut self, bits: u32) -> Option<u64> {
        debug_assert!(bits <= 64);
        let end = self.at + bits as usize;
        if bits == 0 || end > self.bytes.len() * 8 {
            return (bits == 0).then_some(0);
        }
        let (byte, skipped) = (self.at / 8, (self.at % 8) as u32);
        self.at = end;
        let word = self.word(byte) << skipped;
        let have = 64 - skipped;
        if bits <= have {
            return Some(word >> (64 - bits));
        }
        // Nine bytes hold it; the last one gives what is missing.
        let missing = bits - have;
        let last = u64::from(*self.bytes.get(byte + 8)?);
        Some(word >> (64 - bits) | last >> (8 - missing))
    }

    /// Eight bytes from `byte` on, zeros behind the end.
    fn word(&self, byte: usize) -> u64 {
        let rest = self.bytes.get(byte..).unwrap_or_default();
        match rest.first_chunk() {
            Some(eight) => u64::from_be_bytes(*eight),
            None => {
                let mut eight = [0; 8];
                eight[..rest.len()].copy_from_slice(rest);
                u64::from_be_bytes(eight)
            }
        }
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
            let mut reader = BitReader::new(writer.as_bytes());
            for &(value, bits) in &pieces {
                let expected = if bits == 64 { value } else { value & ((1 << bits) - 1) };
                prop_assert_eq!(reader.read(bits), Some(expected));
            }
            let resumed = BitWriter::resume(writer.as_bytes(), reader.position()).unwrap();
            prop_assert_eq!(resumed.free, writer.free);
            prop_assert_eq!(reader.read(8), None);
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
