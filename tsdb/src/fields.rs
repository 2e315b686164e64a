//! The fields that all our formats are made of: little-endian words, LEB128 varints, zigzag, and
//! byte strings with their length in front.
//!
//! Reading never panics and never allocates more than the bytes that are there: counts are held
//! against what is left before anything is reserved.

use model::{Labels, Timestamp};

/// Why bytes do not hold the field that should be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes of a varint.
pub fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

pub fn put_zigzag(out: &mut Vec<u8>, value: i64) {
    put_varint(out, zigzag(value));
}

/// Small numbers of either sign as small ones.
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub fn unzigzag(raw: u64) -> i64 {
    (raw >> 1) as i64 ^ -((raw & 1) as i64)
}

pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub fn put_time(out: &mut Vec<u8>, value: Timestamp) {
    put_u64(out, value.0 as u64);
}

/// `0`, or `1` and the instant.
pub fn put_optional_time(out: &mut Vec<u8>, value: Option<Timestamp>) {
    out.push(u8::from(value.is_some()));
    if let Some(at) = value {
        put_time(out, at);
    }
}

/// Takes fields off the front of a byte string.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Nothing may follow.
    pub fn end(&self) -> Result<(), Malformed> {
        match self.rest {
            [] => Ok(()),
            _ => Err(Malformed("bytes behind the last field")),
        }
    }

    /// Exactly `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self
            .rest
            .split_at_checked(len)
            .ok_or(Malformed("ends early"))?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| Malformed("ends early"))
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn time(&mut self) -> Result<Timestamp, Malformed> {
        self.u64().map(|word| Timestamp(word as i64))
    }

    pub fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a flag is neither 0 nor 1")),
        }
    }

    pub fn optional_time(&mut self) -> Result<Option<Timestamp>, Malformed> {
        match self.flag()? {
            true => self.time().map(Some),
            false => Ok(None),
        }
    }

    /// As [`Fields::varint`], where most have one byte.
    #[inline]
    pub fn short_varint(&mut self) -> Result<u64, Malformed> {
        match self.rest.split_first() {
            Some((&byte, rest)) if byte < 0x80 => {
                self.rest = rest;
                Ok(byte.into())
            }
            _ => self.varint(),
        }
    }

    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let piece = u64::from(byte & 0x7f);
            if piece << shift >> shift != piece {
                return Err(Malformed("varint above 64 bits"));
            }
            value |= piece << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("varint above 64 bits"))
    }

    pub fn varint_u32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.varint()?).map_err(|_| Malformed("number above 32 bits"))
    }

    pub fn zigzag(&mut self) -> Result<i64, Malformed> {
        self.varint().map(unzigzag)
    }

    /// How many records follow, each of at least `bytes_min` bytes; so many must be left.
    pub fn count(&mut self, bytes_min: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(self.varint()?).map_err(|_| Malformed("count too large"))?;
        match count.checked_mul(bytes_min) {
            Some(bytes) if bytes <= self.rest.len() => Ok(count),
            _ => Err(Malformed("count larger than the bytes left")),
        }
    }

    /// A byte string with its length in front.
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.count(1)?;
        self.take(len)
    }

    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("text is not UTF-8"))
    }

    pub fn labels(&mut self) -> Result<Labels, Malformed> {
        Labels::from_canonical(self.bytes()?).map_err(|_| Malformed("not a label block"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn fields_come_back(a in any::<u64>(), b in any::<i64>(), c in prop::collection::vec(any::<u8>(), 0..20), d in any::<Option<i64>>()) {
            let mut out = Vec::new();
            put_varint(&mut out, a);
            put_zigzag(&mut out, b);
            put_bytes(&mut out, &c);
            put_optional_time(&mut out, d.map(Timestamp));
            let mut fields = Fields::new(&out);
            prop_assert_eq!(fields.varint(), Ok(a));
            prop_assert_eq!(fields.zigzag(), Ok(b));
            prop_assert_eq!(fields.bytes(), Ok(&c[..]));
            prop_assert_eq!(fields.optional_time(), Ok(d.map(Timestamp)));
            prop_assert_eq!(fields.end(), Ok(()));
        }
    }

    #[test]
    fn a_count_is_held_against_the_bytes_left() {
        let mut out = Vec::new();
        put_varint(&mut out, 1 << 60);
        out.extend_from_slice(&[0; 8]);
        assert!(Fields::new(&out).count(1).is_err());
        assert!(Fields::new(&out).bytes().is_err());
        assert!(Fields::new(&[0xff; 10]).varint().is_err());
    }
}
