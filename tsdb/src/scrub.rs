//! Reading again what was written long ago: a file of a shard piece by piece against its checksum,
//! and putting a whole copy in the place of one that rotted.
//!
//! When and how fast is the caller's concern, and where a copy comes from too: files are named by
//! what they hold, so any replica whose file has the same name has the same bytes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Labels;
use model::port::Disk;

use crate::block::{Merged, Reader, Sealed, Tables};
use crate::by_id::ById;
use crate::error::StorageError;
use crate::file::{FileEntry, FileKind, remove_if_there};
use crate::loading::load;
use crate::manifest::{self, Manifest};
use crate::shard::Shard;
use crate::state::State;

/// Bytes read at once.
pub const PIECE_BYTES: usize = 1 << 20;

/// How far the reading of one file has come.
#[derive(Debug)]
pub struct Check {
    entry: FileEntry,
    at: u64,
    crc32c: u32,
}

impl Check {
    pub fn of(entry: FileEntry) -> Self {
        Self {
            entry,
            at: 0,
            crc32c: 0,
        }
    }

    pub fn entry(&self) -> &FileEntry {
        &self.entry
    }

    /// What it takes in pieces, at least one.
    pub fn pieces(entry: &FileEntry) -> u64 {
        entry.len.div_ceil(PIECE_BYTES as u64).max(1)
    }
}

/// The file of this name that counts in `dir`, of a shard that is not open.
pub async fn find(
    disk: &dyn Disk,
    dir: &Path,
    name: &str,
) -> Result<Option<FileEntry>, StorageError> {
    let manifest = Manifest::read(disk, dir).await?.unwrap_or_default();
    Ok(manifest.files.into_iter().find(|entry| entry.name == name))
}

/// Puts the file of this name in `staged`, checked, in the place of the one in `dir`, which counts
/// there, of a shard that is not open.
pub async fn replace(
    disk: &dyn Disk,
    dir: &Path,
    staged: &Path,
    entry: &FileEntry,
) -> Result<(), StorageError> {
    entry.adopt(disk, staged, dir).await?;
    let flushed = disk.flush_dir(dir).await;
    flushed.map_err(|e| StorageError::io("repair", &entry.name, e))
}

/// The index up to which a state was written in `dir`, of a shard that is not open, as far as the names of what
/// is there still tell; zero where nothing does.
pub async fn reached(disk: &dyn Disk, dir: &Path) -> io::Result<u64> {
    let manifest = Manifest::read(disk, dir).await.ok().flatten();
    let told = manifest.and_then(|manifest| Some(manifest.position?.index));
    let mut reached = told.unwrap_or_default();
    for path in disk.list(dir).await? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some(FileKind::Checkpoint(index)) = FileKind::of_name(&name) {
            reached = reached.max(index);
        }
    }
    Ok(reached)
}

/// Makes what `manifest` names the state in `dir`, of a shard that is not open: each file from `staged` or, if it
/// is not there, as it stands in `dir`. All are read whole, and as the shard will when it is opened, before the
/// manifest is replaced; until then what was in `dir` stands, however damaged. Durable on return.
pub async fn rebuild(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    staged: &Path,
    manifest: &Manifest,
) -> Result<(), StorageError> {
    for entry in &manifest.files {
        entry.adopt(&**disk, staged, dir).await?;
    }
    let io = |e| StorageError::io("rebuild", manifest::NAME, e);
    disk.flush_dir(dir).await.map_err(io)?;
    drop(load(disk, dir, manifest, &Arc::new(Tables::default())).await?);
    manifest.write(&**disk, dir).await.map_err(io)
}

impl Shard {
    /// Reads the next piece; whether the file is read whole. A file that does not count any more
    /// is whole at once.
    pub async fn check_piece(&self, check: &mut Check) -> Result<bool, StorageError> {
        let step = self.read_piece(check).await;
        if step.is_err() && !self.names(&check.entry).await {
            return Ok(true);
        }
        step.map_err(|e| self.note(e))
    }

    async fn read_piece(&self, check: &mut Check) -> Result<bool, StorageError> {
        let name = &check.entry.name;
        let path = self.dir().join(name);
        let piece = self.disk().read(&path, check.at, PIECE_BYTES).await;
        let piece = piece.map_err(|e| StorageError::io("read", name, e))?;
        check.crc32c = crc32c::crc32c_append(check.crc32c, &piece);
        check.at += piece.len() as u64;
        if check.at < check.entry.len && !piece.is_empty() {
            return Ok(false);
        }
        match (check.at, check.crc32c) == (check.entry.len, check.entry.crc32c) {
            true => Ok(true),
            false => Err(StorageError::corrupt(
                name,
                "file",
                "wrong length or checksum",
            )),
        }
    }

    /// Reads the manifest and holds it against the one in memory; one that differs is written anew
    /// and the error says so.
    pub async fn check_manifest(&self) -> Result<(), StorageError> {
        let files = self.lock_files().await;
        let found = match Manifest::read(self.disk(), self.dir()).await {
            Ok(Some(found)) if found == *files.manifest() => return Ok(()),
            Ok(_) => StorageError::corrupt(manifest::NAME, "manifest", "not as it was written"),
            Err(found @ StorageError::Corrupt { .. }) => found,
            Err(error) => return Err(error),
        };
        let written = files.manifest().write(self.disk(), self.dir()).await;
        written.map_err(|e| StorageError::io("write", manifest::NAME, e))?;
        Err(self.note(found))
    }

    /// Puts the file of this name in `staged`, checked, in the place of the shard's own. One that
    /// does not count any more is left alone.
    pub async fn repair(&self, staged: &Path, entry: &FileEntry) -> Result<(), StorageError> {
        let files = self.lock_files().await;
        if !files.manifest().contains(&entry.name) {
            return Ok(());
        }
        let replaced = replace(self.disk(), self.dir(), staged, entry).await;
        replaced.map_err(|e| self.note(e))
    }

    /// Where a file that counts here stands, for a peer that asks for it.
    pub async fn path_of(&self, name: &str) -> Option<(PathBuf, FileEntry)> {
        let files = self.lock_files().await;
        let entry = files.manifest().files.iter().find(|e| e.name == name)?;
        Some((self.dir().join(name), entry.clone()))
    }

    /// The block made of several whose file cannot be written here, as one of theirs is damaged, and
    /// the bytes of theirs.
    pub fn wanted_merge(&self) -> Option<(u64, u64)> {
        let merged = self.read(State::next_merge)?;
        let bytes = merged.blocks().iter().map(Sealed::file_bytes);
        Some((merged.id(), bytes.sum()))
    }

    /// Takes the file that a peer wrote of a block made of several, in `staged`, instead of writing
    /// it here. It must hold what they hold; of a block that is wanted no more it is left alone.
    pub async fn adopt_merged(&self, staged: &Path, entry: &FileEntry) -> Result<(), StorageError> {
        let _files = self.lock_files().await;
        let found = self.read(|state| Some((state.next_merge()?, state.table().all().clone())));
        let Some((merged, labels)) = found else {
            return Ok(());
        };
        if entry.kind() != Some(FileKind::Block(merged.id())) {
            return Ok(());
        }
        entry.adopt(self.disk(), staged, self.dir()).await?;
        let checked = self.check_merged(merged, entry, &labels).await;
        match checked {
            Ok(reader) => self.take_stored(reader),
            Err(error) => {
                let path = self.dir().join(&entry.name);
                let removed = remove_if_there(self.disk(), &path).await;
                removed.map_err(|e| StorageError::io("remove", &entry.name, e))?;
                return Err(error);
            }
        }
        Ok(())
    }

    async fn check_merged(
        &self,
        merged: Merged,
        entry: &FileEntry,
        labels: &ById<Labels>,
    ) -> Result<Arc<Reader>, StorageError> {
        let reader = self.load_block(merged.id(), entry, labels).await?;
        self.verify_block(&reader, labels).await?;
        match reader.meta().digest == Sealed::Merged(merged).digest() {
            true => Ok(reader),
            false => Err(StorageError::corrupt(
                &entry.name,
                "footer",
                "digest differs from that of the blocks it is made of",
            )),
        }
    }

    /// Where the manifest stands, for a peer that needs a state which holds everything up to `index`: nothing if
    /// the last checkpoint does not.
    pub async fn path_of_manifest(&self, index: u64) -> Option<PathBuf> {
        let files = self.lock_files().await;
        let position = files.manifest().position.as_ref()?;
        (position.index >= index).then(|| self.dir().join(manifest::NAME))
    }

    /// Where the file of a block stands that is known by its id alone.
    pub async fn path_of_block(&self, id: u64) -> Option<(PathBuf, FileEntry)> {
        let files = self.lock_files().await;
        let mut entries = files.manifest().files.iter();
        let entry = entries.find(|entry| entry.kind() == Some(FileKind::Block(id)))?;
        Some((self.dir().join(&entry.name), entry.clone()))
    }

    async fn names(&self, entry: &FileEntry) -> bool {
        self.lock_files().await.manifest().contains(&entry.name)
    }

    /// Whoever knows of the damage in a file looks after it: it need not be said again.
    pub fn forget_suspect(&self, name: &str) {
        let mut suspects = self.suspects().lock().expect("no panic under this lock");
        suspects.remove(name);
    }

    /// Names of files in which reading has found damage since this was last asked.
    pub fn take_suspects(&self) -> Vec<String> {
        let mut suspects = self.suspects().lock().expect("no panic under this lock");
        std::mem::take(&mut *suspects).into_iter().collect()
    }
}
