//! A shard's state from what a manifest names, when it is opened or a snapshot takes its place.

use std::io;
use std::path::Path;
use std::sync::Arc;

use model::Labels;
use model::port::Disk;

use crate::block::{Reader, Tables};
use crate::by_id::ById;
use crate::checkpoint;
use crate::error::StorageError;
use crate::file::{FileEntry, FileKind, remove_dir_if_there};
use crate::manifest::{self, Manifest};
use crate::snapshot;
use crate::state::State;

/// The manifest in `dir`; in a directory that holds nothing yet a new one.
pub async fn open_manifest(disk: &dyn Disk, dir: &Path) -> Result<Manifest, StorageError> {
    if let Some(manifest) = Manifest::read(disk, dir).await? {
        return Ok(manifest);
    }
    let io = |e| StorageError::io("create", dir.to_string_lossy(), e);
    let names = disk.list(dir).await.map_err(io)?;
    if let Some(orphan) = names.iter().find(|name| is_finished_file(name)) {
        let reason = format!("missing, while {} is there", orphan.display());
        return Err(StorageError::corrupt(manifest::NAME, "manifest", reason));
    }
    disk.create_dir_all(dir).await.map_err(io)?;
    let manifest = Manifest::default();
    manifest.write(disk, dir).await.map_err(io)?;
    let parent = dir.parent().unwrap_or(Path::new(""));
    disk.flush_dir(parent).await.map_err(io)?;
    Ok(manifest)
}

fn is_finished_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("block-") || name.starts_with("checkpoint-")
}

/// Removes what a crash left: files that no manifest names, temporary files, pins; once the name of the manifest that was read is durable: a power cut might bring
/// the one before it back, which names other files.
pub async fn remove_leftovers(disk: &dyn Disk, dir: &Path, manifest: &Manifest) -> io::Result<()> {
    let mut leftovers = disk.list(dir).await?;
    leftovers.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".tmp") || is_finished_file(path) && !manifest.contains(&name)
    });
    if !leftovers.is_empty() {
        disk.flush_dir(dir).await?;
    }
    for path in leftovers {
        let name = path.file_name().unwrap_or_default();
        disk.remove(&dir.join(name)).await?;
    }
    remove_dir_if_there(disk, &dir.join(snapshot::DIR)).await
}

/// Reads what a manifest names.
pub async fn load(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    manifest: &Manifest,
    tables: &Arc<Tables>,
) -> Result<State, StorageError> {
    let Some(position) = &manifest.position else {
        return Ok(State::default());
    };
    let damaged = |reason: &str| StorageError::corrupt(manifest::NAME, "files", reason);
    let mut checkpoint = None;
    let mut blocks = Vec::new();
    for file in &manifest.files {
        match file.kind() {
            Some(FileKind::Block(id)) => blocks.push((id, file.clone())),
            Some(FileKind::Checkpoint(index))
                if index == position.index && checkpoint.is_none() =>
            {
                checkpoint = Some(file);
            }
            _ => return Err(damaged("a file that does not belong to the position")),
        }
    }
    let checkpoint = checkpoint.ok_or_else(|| damaged("no checkpoint"))?;
    blocks.sort_unstable();
    if blocks.windows(2).any(|w| w[0].0 == w[1].0) {
        return Err(damaged("two files of one block"));
    }
    let (image, mut named) = load_checkpoint(&**disk, dir, checkpoint).await?;
    let corrupt = |reason: &str| StorageError::corrupt(&checkpoint.name, "meta", reason);
    named.sort_unstable();
    if image.applied_index != position.index || !named.iter().eq(blocks.iter().map(|b| &b.1.name)) {
        return Err(corrupt("index or blocks differ from the manifest"));
    }
    let mut readers = Vec::with_capacity(blocks.len());
    for (id, file) in blocks {
        let block = load_block(disk, dir, (id, file), &image.labels, tables).await;
        readers.push(block.map_err(missing_is_damage)?);
    }
    State::restore(image, readers).map_err(|e| StorageError::corrupt(&checkpoint.name, "series", e))
}

async fn load_checkpoint(
    disk: &dyn Disk,
    dir: &Path,
    file: &FileEntry,
) -> Result<(checkpoint::Image, Vec<String>), StorageError> {
    let bytes = model::port::read_all(disk, &dir.join(&file.name))
        .await
        .map_err(|e| missing_is_damage(StorageError::io("read", &file.name, e)))?;
    if bytes.len() as u64 != file.len || crc32c::crc32c(&bytes) != file.crc32c {
        return Err(StorageError::corrupt(&file.name, "file", "wrong checksum"));
    }
    checkpoint::decode(&bytes)
        .map_err(|damage| StorageError::corrupt(&file.name, damage.section, damage.malformed))
}

/// A file that is named and not there has to be had from somewhere else, as one that rotted.
fn missing_is_damage(error: StorageError) -> StorageError {
    match error {
        StorageError::Io { file, source, .. } if source.kind() == io::ErrorKind::NotFound => {
            StorageError::corrupt(file, "file", "missing")
        }
        error => error,
    }
}

/// Opens a block whose series were all registered once. That their labels are those of the register is looked at when
/// all of it is read.
pub async fn load_block(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    (id, file): (u64, FileEntry),
    registered: &ById<Labels>,
    tables: &Arc<Tables>,
) -> Result<Arc<Reader>, StorageError> {
    let name = file.name.clone();
    let reader = Reader::open(disk.clone(), dir, file, tables).await?;
    let last = reader.ids().last();
    match reader.meta().id == id && last.is_some_and(|last| last.0 < registered.next()) {
        true => Ok(Arc::new(reader)),
        false => Err(not_as_registered(&name)),
    }
}

pub fn not_as_registered(name: &str) -> StorageError {
    StorageError::corrupt(
        name,
        "directory",
        "not the block or not the series it should be",
    )
}
