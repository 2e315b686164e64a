//! Words of up to 64 bits, back to back, the least significant bit first.

use crate::fields::Malformed;

/// Appends words.
#[derive(Debug, Default)]
pub struct Packer {
    out: Vec<u8>,
    held: u64,
    /// Bits of `held` in use, below 8 between calls.
    used: u32,
}

impl Packer {
    /// Appends the low `width` bits of `value`, whose others must be zero.
    pub fn push(&mut self, value: u64, width: u32) {
        debug_assert!(width <= 64 && (width == 64 || value >> width == 0));
        if width > 32 {
            self.push_half(value & 0xffff_ffff, 32);
            self.push_half(value >> 32, width - 32);
        } else {
            self.push_half(value, width);
        }
    }

    fn push_half(&mut self, value: u64, width: u32) {
        self.held |= value << self.used;
        self.used += width;
        while self.used >= 8 {
            self.out.push(self.held as u8);
            self.held >>= 8;
            self.used -= 8;
        }
    }

    /// The bytes; unused bits of the last one are zero.
    pub fn finish(mut self) -> Vec<u8> {
        if self.used > 0 {
            self.out.push(self.held as u8);
        }
        self.out
    }
}

/// Reads words. What lies behind the end reads as zeros; [`Unpacker::end`] tells.
#[derive(Debug, Clone)]
pub struct Unpacker<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Unpacker<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `width` bits, at most 64.
    #[inline]
    pub fn read(&mut self, width: u32) -> u64 {
        debug_assert!(width <= 64);
        if width > 56 {
            let low = self.read_short(32);
            return low | (self.read_short(width - 32) << 32);
        }
        self.read_short(width)
    }

    /// As [`Unpacker::read`], of at most 56 bits.
    #[inline]
    pub fn read_short(&mut self, width: u32) -> u64 {
        let from = self.at / 8;
        let word = match self.bytes.get(from..from + 8) {
            Some(eight) => u64::from_le_bytes(eight.try_into().unwrap_or_default()),
            None => tail(self.bytes, from),
        };
        let value = (word >> (self.at % 8)) & ((1u64 << width) - 1);
        self.at += width as usize;
        value
    }

    /// All bytes were read, none beyond, and the unused bits of the last are zero.
    pub fn end(mut self) -> Result<(), Malformed> {
        let padding = (self.bytes.len() * 8).checked_sub(self.at);
        match padding {
            Some(padding) if padding < 8 && self.read(padding as u32) == 0 => Ok(()),
            Some(_) => Err(Malformed("bits behind the last word")),
            None => Err(Malformed("words end early")),
        }
    }
}

/// The word at `from`, which would end behind `bytes`. It is told the bytes and not their reader, which so
/// may be held in registers.
#[cold]
fn tail(bytes: &[u8], from: usize) -> u64 {
    if let Some(last) = bytes.last_chunk::<8>() {
        // Of the last eight those before `from` go; all, where it lies behind them.
        let gone = 8 * (from + 8 - bytes.len());
        let last = u64::from_le_bytes(*last);
        return last.checked_shr(gone as u32).unwrap_or(0);
    }
    let rest = bytes.get(from..).unwrap_or_default();
    let mut word = [0; 8];
    word[..rest.len()].copy_from_slice(rest);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_come_back(words in prop::collection::vec((any::<u64>(), 0u32..=64), 0..200)) {
            let words: Vec<_> = words.into_iter().map(|(word, width)| (word & ((1u128 << width) - 1) as u64, width)).collect();
            let mut packer = Packer::default();
            words.iter().for_each(|&(word, width)| packer.push(word, width));
            let bytes = packer.finish();
            let mut unpacker = Unpacker::new(&bytes);
            for &(word, width) in &words {
                prop_assert_eq!(unpacker.read(width), word);
            }
            prop_assert!(unpacker.clone().end().is_ok());
            let at = unpacker.at;
            let ends = |bytes: &[u8]| Unpacker { bytes, at }.end().is_ok();
            prop_assert!(!ends(&[&bytes[..], &[0]].concat()));
            if let Some((_, shorter)) = bytes.split_last() {
                prop_assert!(!ends(shorter));
            }
        }
    }
}
