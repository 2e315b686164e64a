//! Bits in a row, and the numbers Prometheus' chunks are made of.
//!
//! Format: prometheus/prometheus, tsdb/docs/format/chunks.md (`varbit`, XOR of floats).

/// Bits from the highest of each byte on.
#[derive(Debug, Default, Clone)]
pub struct Bits {
    bytes: Vec<u8>,
    /// Bits of the last byte that are not written yet.
    free: u32,
}

impl Bits {
    /// Goes on behind whole bytes.
    pub fn behind(bytes: Vec<u8>) -> Self {
        Self { bytes, free: 0 }
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The bytes so far, to change a header.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The lowest `count` bits of `word`, the highest of them first.
    pub fn put(&mut self, word: u64, count: u32) {
        let mut left = count;
        while left > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let taken = left.min(self.free);
            let piece = (word >> (left - taken)) & ((1 << taken) - 1);
            if let Some(last) = self.bytes.last_mut() {
                *last |= (piece as u8) << (self.free - taken);
            }
            self.free -= taken;
            left -= taken;
        }
    }

    pub fn put_byte(&mut self, byte: u8) {
        self.put(byte.into(), 8);
    }

    pub fn put_float(&mut self, value: f64) {
        self.put(value.to_bits(), 64);
    }

    /// Go's `binary.PutUvarint`.
    pub fn put_uvarint(&mut self, mut word: u64) {
        while word >= 0x80 {
            self.put_byte(word as u8 | 0x80);
            word >>= 7;
        }
        self.put_byte(word as u8);
    }

    /// Go's `binary.PutVarint`.
    pub fn put_varint(&mut self, value: i64) {
        self.put_uvarint((value << 1 ^ value >> 63) as u64);
    }

    /// A number that is mostly small: a class in 1 to 8 bits, then as many bits as it has.
    pub fn put_varbit(&mut self, value: i64) {
        let class = CLASSES.iter().position(|bits| fits(value, *bits));
        self.put_class(class, value as u64);
    }

    /// The same without a sign.
    pub fn put_varbit_unsigned(&mut self, word: u64) {
        let class = CLASSES.iter().position(|bits| word >> bits == 0);
        self.put_class(class, word);
    }

    fn put_class(&mut self, class: Option<usize>, word: u64) {
        match class {
            Some(0) => self.put(0, 1),
            Some(class) => {
                let ones = class as u32;
                self.put((1 << (ones + 1)) - 2, ones + 1);
                self.put(word, CLASSES[class]);
            }
            None => {
                self.put(0xff, 8);
                self.put(word, 64);
            }
        }
    }
}

/// Bits of each class of a varbit number; the last of all is 64.
pub const CLASSES: [u32; 8] = [0, 3, 6, 9, 12, 18, 25, 56];

/// Whether a number has that many bits: one more above zero than below, as Prometheus counts.
pub fn fits(value: i64, bits: u32) -> bool {
    match bits {
        0 => value == 0,
        bits => {
            let half = 1i64 << (bits - 1);
            (-(half - 1)..=half).contains(&value)
        }
    }
}

/// A float written as what differs from the float before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct XorFloat {
    pub value: f64,
    /// Zeros around the bits that differed last; `None` before any did.
    window: Option<(u32, u32)>,
}

impl XorFloat {
    /// The first one, which the caller writes in full.
    pub fn first(value: f64) -> Self {
        let window = None;
        Self { value, window }
    }

    pub fn put(&mut self, bits: &mut Bits, value: f64) {
        let delta = value.to_bits() ^ self.value.to_bits();
        self.value = value;
        if delta == 0 {
            return bits.put(0, 1);
        }
        bits.put(1, 1);
        let leading = delta.leading_zeros().min(31);
        let trailing = delta.trailing_zeros();
        match self.window {
            Some((l, t)) if leading >= l && trailing >= t => {
                bits.put(0, 1);
                bits.put(delta >> t, 64 - l - t);
            }
            _ => {
                self.window = Some((leading, trailing));
                let significant = 64 - leading - trailing;
                bits.put(1, 1);
                bits.put(leading.into(), 5);
                // 64 does not fit six bits and is written as 0.
                bits.put(u64::from(significant) & 0x3f, 6);
                bits.put(delta >> trailing, significant);
            }
        }
    }
}
