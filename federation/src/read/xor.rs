//! Floats as a chunk of Prometheus' XOR encoding.

use model::Timestamp;

use super::bits::{Bits, XorFloat, fits};

/// A chunk that is being written.
#[derive(Debug)]
pub struct XorChunk {
    bits: Bits,
    count: u16,
    last: Timestamp,
    delta: i64,
    value: XorFloat,
}

impl XorChunk {
    /// A chunk that begins with this sample.
    pub fn new(at: Timestamp, value: f64) -> Self {
        let mut bits = Bits::behind(vec![0, 1]);
        bits.put_varint(at.0);
        bits.put_float(value);
        Self {
            bits,
            count: 1,
            last: at,
            delta: 0,
            value: XorFloat::first(value),
        }
    }

    /// How many samples it holds, never none.
    pub fn count(&self) -> usize {
        self.count.into()
    }

    pub fn push(&mut self, at: Timestamp, value: f64) {
        let delta = at.0.wrapping_sub(self.last.0);
        match self.count {
            1 => self.bits.put_uvarint(delta as u64),
            _ => self.put_change(delta.wrapping_sub(self.delta)),
        }
        self.value.put(&mut self.bits, value);
        (self.last, self.delta) = (at, delta);
        self.count += 1;
        self.bits.bytes_mut()[..2].copy_from_slice(&self.count.to_be_bytes());
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bits.into_bytes()
    }

    fn put_change(&mut self, change: i64) {
        let word = change as u64;
        let (mark, mark_bits, bits) = match change {
            0 => (0, 1, 0),
            _ if fits(change, 14) => (0b10, 2, 14),
            _ if fits(change, 17) => (0b110, 3, 17),
            _ if fits(change, 20) => (0b1110, 4, 20),
            _ => (0b1111, 4, 64),
        };
        self.bits.put(mark, mark_bits);
        self.bits.put(word, bits);
    }
}
