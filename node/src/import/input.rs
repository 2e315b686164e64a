//! Bytes of another program's files, read with bounds: what is wrong is told with the file and the
//! place in it, and nothing is believed before its checksum.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Why bytes are not what they should be, and where in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bad {
    pub at: usize,
    pub what: &'static str,
}

/// Why a file cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    pub file: PathBuf,
    /// Bytes from the file's beginning.
    pub offset: u64,
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        write!(f, "{file}: byte {}: {}", self.offset, self.what)
    }
}

impl std::error::Error for Broken {}

/// Big-endian numbers and Go's varints out of bytes.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub fn at(&self) -> usize {
        self.at
    }

    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub fn bad(&self, what: &'static str) -> Bad {
        Bad { at: self.at, what }
    }

    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Bad> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..len).ok_or(self.bad("ends early"))?;
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub fn u8(&mut self) -> Result<u8, Bad> {
        Ok(self.array::<1>()?[0])
    }

    pub fn be32(&mut self) -> Result<u32, Bad> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn be64(&mut self) -> Result<u64, Bad> {
        self.array().map(u64::from_be_bytes)
    }

    pub fn float(&mut self) -> Result<f64, Bad> {
        self.be64().map(f64::from_bits)
    }

    pub fn uvarint(&mut self) -> Result<u64, Bad> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.bad("a number of more than 64 bits"))
    }

    pub fn varint(&mut self) -> Result<i64, Bad> {
        let word = self.uvarint()?;
        Ok((word >> 1) as i64 ^ -((word & 1) as i64))
    }

    pub fn uvarint32(&mut self) -> Result<u32, Bad> {
        let value = self.uvarint()?;
        u32::try_from(value).map_err(|_| self.bad("a number of more than 32 bits"))
    }

    pub fn varint32(&mut self) -> Result<i32, Bad> {
        let value = self.varint()?;
        i32::try_from(value).map_err(|_| self.bad("a number of more than 32 bits"))
    }

    /// A count of things of at least `bytes` each: no number makes us allocate more than there is.
    pub fn count(&mut self, bytes: usize) -> Result<usize, Bad> {
        let count = usize::try_from(self.uvarint()?).unwrap_or(usize::MAX);
        self.fits(count, bytes)
    }

    /// [`Cursor::count`] of a number that was read already.
    pub fn fits(&self, count: usize, bytes: usize) -> Result<usize, Bad> {
        match count.checked_mul(bytes) {
            Some(needed) if needed <= self.remaining() => Ok(count),
            _ => Err(self.bad("counts more than there is")),
        }
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Bad> {
        let len = self.count(1)?;
        self.take(len)
    }

    pub fn text(&mut self) -> Result<&'a str, Bad> {
        let at = self.at;
        let what = "a text that is not UTF-8";
        std::str::from_utf8(self.bytes()?).map_err(|_| Bad { at, what })
    }
}

/// A file that is only read.
#[derive(Debug)]
pub struct Input {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Input {
    pub fn open(path: &Path) -> Result<Self, Broken> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (len, file) = opened.map_err(|e| Broken {
            file: path.to_owned(),
            offset: 0,
            what: e.to_string(),
        })?;
        let path = path.to_owned();
        Ok(Self { path, file, len })
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn broken(&self, offset: u64, what: impl Into<String>) -> Broken {
        Broken {
            file: self.path.clone(),
            offset,
            what: what.into(),
        }
    }

    /// What is wrong in bytes that begin at `offset`.
    pub fn bad(&self, offset: u64, bad: &Bad) -> Broken {
        self.broken(offset.saturating_add(bad.at as u64), bad.what)
    }

    /// Exactly these bytes.
    pub fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>, Broken> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(self.broken(offset, format!("{len} bytes are not there")));
        }
        let mut bytes = vec![0; len as usize];
        let read = self.file.read_exact_at(&mut bytes, offset);
        read.map_err(|e| self.broken(offset, e.to_string()))?;
        Ok(bytes)
    }

    /// So many bytes, or those up to the file's end.
    pub fn read_upto(&self, offset: u64, len: u64) -> Result<Vec<u8>, Broken> {
        self.read(offset, len.min(self.len.saturating_sub(offset)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_end_or_are_told(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut cursor = Cursor::new(&bytes);
            while !cursor.is_empty() {
                if let Err(bad) = cursor.clone().text() {
                    prop_assert!(bad.at <= bytes.len());
                }
                if cursor.varint().is_err() {
                    break;
                }
            }
            prop_assert!(Cursor::new(&bytes).take(bytes.len() + 1).is_err());
        }
    }

    #[test]
    fn numbers_are_go_s() {
        let mut cursor = Cursor::new(&[0xac, 0x02, 0x03, 0, 0, 1, 0, 2, b'a', b'b', 9]);
        assert_eq!(cursor.uvarint(), Ok(300));
        assert_eq!(cursor.varint(), Ok(-2));
        assert_eq!(cursor.be32(), Ok(256));
        assert_eq!(cursor.text(), Ok("ab"));
        let what = "counts more than there is";
        assert_eq!(cursor.text(), Err(Bad { at: 11, what }));
    }
}
