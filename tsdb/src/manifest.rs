//! Which files make up a shard, and the position in the log they stand for. Replacing this one
//! small file is what makes a checkpoint or an installed snapshot the truth.
//!
//! A shard's directory has one from its first opening on, so a directory with files and without a
//! manifest has lost it: that is an error, not an empty shard.

use std::io;
use std::path::Path;

use bytes::Bytes;
use model::port::{Disk, read_all, replace};

use crate::error::StorageError;
use crate::fields::{Fields, Malformed, put_bytes, put_u32, put_u64, put_varint};
use crate::file::{FileEntry, put_entry, take_entry};
use crate::shard::Position;

pub const NAME: &str = "manifest";
pub(crate) const MAGIC: [u8; 8] = *b"qmanif\x01\n";

/// Invariant of a manifest with a position: one checkpoint and any number of blocks.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub position: Option<Position>,
    pub files: Vec<FileEntry>,
}

impl Manifest {
    /// `None` when there is no such file.
    pub async fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, StorageError> {
        match read_all(disk, &dir.join(NAME)).await {
            Ok(bytes) => Self::decode(&bytes)
                .map(Some)
                .map_err(|e| StorageError::corrupt(NAME, "manifest", e)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StorageError::io("read", NAME, e)),
        }
    }

    /// Makes this the shard's manifest, whole and durable, or leaves the old one.
    pub async fn write(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        replace(disk, &dir.join(NAME), self.encode()).await
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|file| file.name.as_str())
    }

    pub fn contains(&self, name: &str) -> bool {
        self.names().any(|named| named == name)
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = MAGIC.to_vec();
        out.push(u8::from(self.position.is_some()));
        if let Some(position) = &self.position {
            put_u64(&mut out, position.index);
            put_bytes(&mut out, &position.opaque);
        }
        put_varint(&mut out, self.files.len() as u64);
        for file in &self.files {
            put_entry(&mut out, file);
        }
        let crc = crc32c::crc32c(&out);
        put_u32(&mut out, crc);
        out.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let body_len = bytes.len().checked_sub(4);
        let body_len = body_len.ok_or(Malformed("ends early"))?;
        let mut whole = Fields::new(bytes);
        let body = whole.take(body_len)?;
        if whole.u32()? != crc32c::crc32c(body) {
            return Err(Malformed("wrong checksum"));
        }
        let mut fields = Fields::new(body);
        if fields.take(MAGIC.len())? != MAGIC {
            return Err(Malformed("not a manifest of a known version"));
        }
        let position = match fields.flag()? {
            true => Some(Position {
                index: fields.u64()?,
                opaque: Bytes::copy_from_slice(fields.bytes()?),
            }),
            false => None,
        };
        let files = (0..fields.count(6)?)
            .map(|_| take_entry(&mut fields))
            .collect::<Result<_, _>>()?;
        fields.end()?;
        Ok(Self { position, files })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            position: Some(Position {
                index: 7,
                opaque: Bytes::from_static(b"membership"),
            }),
            files: vec![FileEntry {
                name: "checkpoint-00000000000000000007-000000ab".into(),
                len: 12,
                crc32c: 0xab,
            }],
        }
    }

    #[test]
    fn comes_back_and_no_bit_may_flip() {
        for manifest in [Manifest::default(), manifest()] {
            let bytes = manifest.encode();
            assert_eq!(Manifest::decode(&bytes), Ok(manifest));
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(Manifest::decode(&flipped).is_err(), "bit {bit}");
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Manifest::decode(&body);
            let mut checked = [&MAGIC[..], &body].concat();
            let crc = crc32c::crc32c(&checked);
            put_u32(&mut checked, crc);
            let _ = Manifest::decode(&checked);
        }
    }
}
