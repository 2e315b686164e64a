//! Files that are written once: under a temporary name until they are whole and durable, then
//! under a name that says what they hold.
//!
//! ```text
//! block-<id, 20 digits>-<crc32c of the file, 8 hex digits>
//! checkpoint-<applied index, 20 digits>-<crc32c of the file, 8 hex digits>
//! ```
//!
//! The checksum in the name keeps two files apart that were written for the same log index, so no
//! file that a manifest names is ever overwritten by other bytes.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::port::{Disk, File};

use crate::error::StorageError;
use crate::fields::{Fields, Malformed, put_bytes, put_u32, put_varint};

/// Bytes read at once when a whole file is checked.
const PIECE_BYTES: usize = 1 << 20;

/// One immutable file of a shard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileEntry {
    pub name: String,
    pub len: u64,
    /// Of all its bytes.
    pub crc32c: u32,
}

/// What a file's name says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// By the log index of the command that sealed it.
    Block(u64),
    /// By applied index.
    Checkpoint(u64),
}

impl FileKind {
    fn name(self, crc32c: u32) -> String {
        match self {
            Self::Block(id) => format!("block-{id:020}-{crc32c:08x}"),
            Self::Checkpoint(index) => format!("checkpoint-{index:020}-{crc32c:08x}"),
        }
    }

    /// Reads a name; `None` unless it is exactly one that this module gives.
    pub fn of_name(name: &str) -> Option<Self> {
        let (_, sum) = name.rsplit_once('-')?;
        let entry = FileEntry {
            name: name.to_owned(),
            len: 0,
            crc32c: u32::from_str_radix(sum, 16).ok()?,
        };
        entry.kind()
    }

    fn temporary_name(self) -> &'static str {
        match self {
            Self::Block(_) => "block.tmp",
            Self::Checkpoint(_) => "checkpoint.tmp",
        }
    }
}

/// Of the checkpoint among a shard's files.
pub fn checkpoint_bytes(files: &[FileEntry]) -> u64 {
    let is_checkpoint = |entry: &&FileEntry| matches!(entry.kind(), Some(FileKind::Checkpoint(_)));
    let checkpoints = files.iter().filter(is_checkpoint);
    checkpoints.map(|entry| entry.len).sum()
}

impl FileEntry {
    /// A block's file.
    pub fn of_block(id: u64, len: u64, crc32c: u32) -> Self {
        Self {
            name: FileKind::Block(id).name(crc32c),
            len,
            crc32c,
        }
    }

    /// Reads the name; `None` unless it is exactly one that this module gives. A name from a peer
    /// that passes holds no path.
    pub fn kind(&self) -> Option<FileKind> {
        let (stem, _) = self.name.rsplit_once('-')?;
        let (kind, number) = stem.split_once('-')?;
        let number = number.parse().ok()?;
        let kind = match kind {
            "block" => FileKind::Block(number),
            "checkpoint" => FileKind::Checkpoint(number),
            _ => return None,
        };
        (kind.name(self.crc32c) == self.name).then_some(kind)
    }

    /// Reads the whole file in `dir` and holds it against length and checksum.
    pub async fn verify(&self, disk: &dyn Disk, dir: &Path) -> Result<(), StorageError> {
        let path = dir.join(&self.name);
        let io = |e| StorageError::io("read", &self.name, e);
        let corrupt = |reason: String| StorageError::corrupt(&self.name, "file", reason);
        let len = disk.len(&path).await.map_err(io)?;
        if len != self.len {
            return Err(corrupt(format!("{len} bytes instead of {}", self.len)));
        }
        let (mut at, mut crc) = (0, 0);
        while at < len {
            let piece = disk.read(&path, at, PIECE_BYTES).await.map_err(io)?;
            if piece.is_empty() {
                return Err(corrupt(format!("ends at {at} instead of {len}")));
            }
            crc = crc32c::crc32c_append(crc, &piece);
            at += piece.len() as u64;
        }
        if crc != self.crc32c {
            return Err(corrupt(format!(
                "checksum {crc:08x} instead of {:08x}",
                self.crc32c
            )));
        }
        Ok(())
    }

    /// Checks the file of this name in `staged` and puts it into `dir`, durable but for its name. One
    /// that is not in `staged` must be whole in `dir`.
    pub async fn adopt(
        &self,
        disk: &dyn Disk,
        staged: &Path,
        dir: &Path,
    ) -> Result<(), StorageError> {
        if self.kind().is_none() {
            return Err(StorageError::corrupt(
                self.name.escape_default().to_string(),
                "name",
                "not a name of a shard's file",
            ));
        }
        let io = |e| StorageError::io("install", &self.name, e);
        let from = staged.join(&self.name);
        match disk.len(&from).await {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return self.verify(disk, dir).await;
            }
            found => found.map_err(io)?,
        };
        self.verify(disk, staged).await?;
        let mut file = disk.open(&from).await.map_err(io)?;
        file.flush().await.map_err(io)?;
        drop(file);
        let temporary = dir.join("install.tmp");
        let to = dir.join(&self.name);
        remove_if_there(disk, &temporary).await.map_err(io)?;
        disk.link(&from, &temporary).await.map_err(io)?;
        disk.rename(&temporary, &to).await.map_err(io)?;
        // Renaming one link of a file onto another of the same file does nothing (POSIX).
        remove_if_there(disk, &temporary).await.map_err(io)
    }
}

/// `name`, `len`, `crc32c`: as a manifest lists a file.
pub fn put_entry(out: &mut Vec<u8>, entry: &FileEntry) {
    put_bytes(out, entry.name.as_bytes());
    put_varint(out, entry.len);
    put_u32(out, entry.crc32c);
}

pub fn take_entry(fields: &mut Fields<'_>) -> Result<FileEntry, Malformed> {
    Ok(FileEntry {
        name: fields.text()?.to_owned(),
        len: fields.varint()?,
        crc32c: fields.u32()?,
    })
}

/// Writes one file of a shard.
pub struct FileWriter<'d> {
    disk: &'d dyn Disk,
    dir: &'d Path,
    kind: FileKind,
    temporary: PathBuf,
    file: Box<dyn File>,
    len: u64,
    crc32c: u32,
}

impl<'d> FileWriter<'d> {
    pub async fn create(disk: &'d dyn Disk, dir: &'d Path, kind: FileKind) -> io::Result<Self> {
        Self::create_as(disk, dir, kind, kind.temporary_name()).await
    }

    /// As [`FileWriter::create`], under a temporary name that ends with `.tmp`.
    pub async fn create_as(
        disk: &'d dyn Disk,
        dir: &'d Path,
        kind: FileKind,
        temporary: &str,
    ) -> io::Result<Self> {
        let temporary = dir.join(temporary);
        remove_if_there(disk, &temporary).await?;
        let file = disk.create(&temporary).await?;
        Ok(Self {
            disk,
            dir,
            kind,
            temporary,
            file,
            len: 0,
            crc32c: 0,
        })
    }

    /// Bytes appended so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub async fn append(&mut self, bytes: Bytes) -> io::Result<()> {
        self.len += bytes.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &bytes);
        self.file.append(vec![bytes]).await
    }

    /// Makes the bytes durable and gives the file its name. The name is durable once the caller
    /// has flushed the directory.
    pub async fn finish(mut self) -> io::Result<FileEntry> {
        self.file.flush().await?;
        drop(self.file);
        let entry = FileEntry {
            name: self.kind.name(self.crc32c),
            len: self.len,
            crc32c: self.crc32c,
        };
        let path = self.dir.join(&entry.name);
        self.disk.rename(&self.temporary, &path).await?;
        Ok(entry)
    }
}

pub async fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path).await {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

pub async fn remove_dir_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove_dir_all(path).await {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, crc32c: u32) -> FileEntry {
        FileEntry {
            name: name.to_owned(),
            len: 0,
            crc32c,
        }
    }

    #[test]
    fn only_names_we_give_are_names() {
        let name = FileKind::Block(7).name(0xab);
        assert_eq!(name, "block-00000000000000000007-000000ab");
        assert_eq!(entry(&name, 0xab).kind(), Some(FileKind::Block(7)));
        assert_eq!(FileKind::of_name(&name), Some(FileKind::Block(7)));
        assert_eq!(entry(&name, 0xac).kind(), None);
        for name in [
            "",
            "manifest",
            "block-7-000000ab",
            "../block-00000000000000000007-000000ab",
            "block-+0000000000000000007-000000ab",
            "other-00000000000000000007-000000ab",
        ] {
            assert_eq!(entry(name, 0xab).kind(), None, "{name}");
            assert_eq!(FileKind::of_name(name), None, "{name}");
        }
    }
}
