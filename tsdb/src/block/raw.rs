//! The bytes of a block's file by range, each under a checksum, with the errors that say what is wrong with them.

use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use model::limits::BLOCK_DIRECTORY_BYTES_MAX;
use model::port::Disk;

use super::directory::{self, Packed, Root};
use super::writer::{FOOTER_BYTES, FOOTER_MAGIC, HEADER_BYTES, MAGIC, VERSION, VERSION_MIN};
use super::{Entry, Meta};
use crate::error::StorageError;
use crate::fields::{Fields, Malformed};
use crate::file::FileEntry;

/// The footer's words.
pub struct Footer {
    directory_offset: u64,
    directory_len: u64,
    directory_raw_len: u64,
    directory_crc32c: u32,
    pub meta: Meta,
}

/// The bytes of a block's file, with their errors.
pub struct RawFile<'a> {
    pub disk: &'a dyn Disk,
    pub path: &'a Path,
    pub entry: &'a FileEntry,
}

impl RawFile<'_> {
    pub fn corrupt(&self, section: &'static str, reason: impl ToString) -> StorageError {
        StorageError::corrupt(&self.entry.name, section, reason)
    }

    pub async fn read(
        &self,
        offset: u64,
        len: usize,
        section: &'static str,
    ) -> Result<Bytes, StorageError> {
        let bytes = self
            .disk
            .read(self.path, offset, len)
            .await
            .map_err(|e| StorageError::io("read", &self.entry.name, e))?;
        if bytes.len() != len {
            return Err(self.corrupt(section, "file ends early"));
        }
        Ok(bytes)
    }

    /// The version and the footer.
    pub async fn ends(&self) -> Result<(u8, Footer), StorageError> {
        let len = self.disk.len(self.path).await;
        let len = len.map_err(|e| StorageError::io("open", &self.entry.name, e))?;
        let least = (HEADER_BYTES + FOOTER_BYTES) as u64;
        if len != self.entry.len || len < least {
            let reason = format!("{len} bytes instead of {}", self.entry.len);
            return Err(self.corrupt("file", reason));
        }
        let header = self.read(0, HEADER_BYTES, "magic").await?;
        let version = version_of(&header)
            .ok_or_else(|| self.corrupt("magic", "not a block of a known version"))?;
        let offset = len - FOOTER_BYTES as u64;
        let bytes = self.read(offset, FOOTER_BYTES, "footer").await?;
        let footer = decode_footer(&bytes).map_err(|e| self.corrupt("footer", e))?;
        let end = footer.directory_offset.checked_add(footer.directory_len);
        if end != Some(offset) || footer.directory_offset < HEADER_BYTES as u64 {
            return Err(self.corrupt("footer", "the directory does not end at the footer"));
        }
        Ok((version, footer))
    }

    pub async fn unpack(
        &self,
        packed: &Packed,
        section: &'static str,
    ) -> Result<Vec<u8>, StorageError> {
        let bytes = &packed.section;
        let read = self.read(bytes.offset, bytes.len as usize, section).await?;
        if crc32c::crc32c(&read) != bytes.crc32c {
            return Err(self.corrupt(section, "wrong checksum"));
        }
        let raw = decompress(&read, packed.raw_len);
        raw.ok_or_else(|| self.corrupt(section, "does not decompress to its length"))
    }

    /// What the footer points at.
    async fn last(&self, footer: &Footer) -> Result<Vec<u8>, StorageError> {
        let len = u32::try_from(footer.directory_len);
        let packed = Packed {
            section: directory::Section {
                offset: footer.directory_offset,
                len: len.map_err(|_| self.corrupt("directory", "too long"))?,
                crc32c: footer.directory_crc32c,
            },
            raw_len: footer.directory_raw_len,
        };
        self.unpack(&packed, "directory").await
    }

    pub async fn root(&self, version: u8, footer: &Footer) -> Result<Root, StorageError> {
        let raw = self.last(footer).await?;
        let root = Root::decode(&raw, version, HEADER_BYTES as u64, footer.directory_offset);
        let root = root.map_err(|e| self.corrupt("directory", e))?;
        match root.ids.count() as u64 == footer.meta.series {
            true => Ok(root),
            false => Err(self.corrupt("directory", DIFFERS)),
        }
    }

    /// Of a version that has it in one piece.
    pub async fn directory(
        &self,
        version: u8,
        footer: &Footer,
    ) -> Result<Vec<Entry>, StorageError> {
        let raw = self.last(footer).await?;
        let entries = directory::decode(&raw, version, HEADER_BYTES as u64);
        let entries = entries.map_err(|e| self.corrupt("directory", e))?;
        match consistent(&entries, footer) {
            true => Ok(entries),
            false => Err(self.corrupt("directory", DIFFERS)),
        }
    }
}

const DIFFERS: &str = "differs from the footer";

fn version_of(header: &[u8]) -> Option<u8> {
    match header.strip_prefix(&MAGIC)? {
        [version, b'\n'] => Some(*version).filter(|v| (VERSION_MIN..=VERSION).contains(v)),
        _ => None,
    }
}

fn decode_footer(bytes: &[u8]) -> Result<Footer, Malformed> {
    let mut fields = Fields::new(bytes);
    let body = Fields::new(bytes).take(FOOTER_BYTES - FOOTER_MAGIC.len() - 4)?;
    let footer = Footer {
        directory_offset: fields.u64()?,
        directory_len: fields.u64()?,
        directory_raw_len: fields.u64()?,
        directory_crc32c: fields.u32()?,
        meta: Meta {
            id: fields.u64()?,
            min: fields.time()?,
            max: fields.time()?,
            series: fields.u64()?,
            samples: fields.u64()?,
            digest: fields.u64()?,
        },
    };
    if fields.u32()? != crc32c::crc32c(body) {
        return Err(Malformed("wrong checksum"));
    }
    if fields.take(FOOTER_MAGIC.len())? != FOOTER_MAGIC {
        return Err(Malformed("wrong magic"));
    }
    fields.end()?;
    Ok(footer)
}

/// Grows with what really comes out, never with what is promised.
pub fn decompress(bytes: &[u8], raw_len: u64) -> Option<Vec<u8>> {
    if raw_len > BLOCK_DIRECTORY_BYTES_MAX {
        return None;
    }
    let mut raw = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(bytes).ok()?;
    decoder.take(raw_len + 1).read_to_end(&mut raw).ok()?;
    (raw.len() as u64 == raw_len).then_some(raw)
}

/// Whether the directory is the one the footer speaks of.
fn consistent(entries: &[Entry], footer: &Footer) -> bool {
    let chunks = || entries.iter().flat_map(|e| &e.chunks);
    let samples: u64 = chunks().map(|c| u64::from(c.count)).sum();
    let end = chunks().map(|c| c.offset + u64::from(c.len)).max();
    let min = chunks().map(|c| c.min).min();
    let max = chunks().map(|c| c.max).max();
    entries.len() as u64 == footer.meta.series
        && samples == footer.meta.samples
        && end == Some(footer.directory_offset)
        && (min, max) == (Some(footer.meta.min), Some(footer.meta.max))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_footers_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_footer(&bytes);
            let _ = decompress(&bytes, 100);
        }
    }

    #[test]
    fn a_directory_that_swells_is_cut_off() {
        let bomb = zstd::bulk::compress(&vec![0; 1 << 20], 3).unwrap();
        assert_eq!(decompress(&bomb, 100), None);
        assert_eq!(decompress(&bomb, u64::MAX), None);
        assert!(decompress(&bomb, 1 << 20).is_some());
    }
}
