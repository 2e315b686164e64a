//! A checkpoint's files, pinned so that they can be sent while the shard goes on.
//!
//! A pin is a directory of hard links; removing a file from the shard leaves it there. Dropping
//! the handle gives the directory back at the next checkpoint or snapshot, [`release`] at once. A
//! crash leaves directories behind that the next opening removes: no pin outlives its process.
//!
//! [`release`]: SnapshotFiles::release

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use model::port::Disk;

use crate::file::{FileEntry, FileKind, checkpoint_bytes, remove_dir_if_there};
use crate::manifest::Manifest;
use crate::shard::Position;

/// The folder of all pins, in the shard's directory.
pub const DIR: &str = "snapshots";

/// Directories whose pins were dropped.
#[derive(Debug, Default, Clone)]
pub struct Released(Arc<Mutex<Vec<PathBuf>>>);

impl Released {
    fn push(&self, dir: PathBuf) {
        self.0.lock().expect("no panic under this lock").push(dir);
    }

    pub fn take(&self) -> Vec<PathBuf> {
        std::mem::take(&mut self.0.lock().expect("no panic under this lock"))
    }
}

/// Files that stay readable under `dir` until this is dropped or released.
pub struct SnapshotFiles {
    pub position: Position,
    /// One checkpoint and its blocks.
    pub files: Vec<FileEntry>,
    /// Relative to the disk's root.
    pub dir: PathBuf,
    disk: Arc<dyn Disk>,
    released: Released,
}

impl std::fmt::Debug for SnapshotFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotFiles")
            .field("position", &self.position)
            .field("dir", &self.dir)
            .field("files", &self.files)
            .finish()
    }
}

impl SnapshotFiles {
    pub(crate) fn new(
        position: Position,
        files: Vec<FileEntry>,
        dir: PathBuf,
        disk: Arc<dyn Disk>,
        released: Released,
    ) -> Self {
        Self {
            position,
            files,
            dir,
            disk,
            released,
        }
    }

    /// What is in no block takes so many bytes.
    pub fn checkpoint_bytes(&self) -> u64 {
        checkpoint_bytes(&self.files)
    }

    /// Links the files into `dir`, which is then a shard's directory; without the head only its
    /// blocks, which are then none. What is in `dir` is durable, its own name the caller's to flush.
    pub async fn link_into(&self, dir: &Path, with_head: bool) -> io::Result<()> {
        self.disk.create_dir_all(dir).await?;
        for entry in &self.files {
            let is_block = matches!(entry.kind(), Some(FileKind::Block(_)));
            if with_head || is_block {
                let (from, to) = (self.dir.join(&entry.name), dir.join(&entry.name));
                self.disk.link(&from, &to).await?;
            }
        }
        if with_head {
            let manifest = Manifest {
                position: Some(self.position.clone()),
                files: self.files.clone(),
            };
            manifest.write(&*self.disk, dir).await?;
        }
        self.disk.flush_dir(dir).await
    }

    /// Removes the pin now.
    pub async fn release(self) -> io::Result<()> {
        remove_dir_if_there(&*self.disk, &self.dir).await
    }
}

impl Drop for SnapshotFiles {
    fn drop(&mut self) {
        self.released.push(std::mem::take(&mut self.dir));
    }
}
