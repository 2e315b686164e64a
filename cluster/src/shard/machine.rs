//! A shard's engine as what a Raft group replicates.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use model::port::Disk;
use tokio::sync::Semaphore;
use tsdb::{Command, FileEntry, Position, Shard, SnapshotFiles};

use crate::raft::machine::{Batches, FileSet, Machine, MarkAt, SnapshotFile};
use crate::raft::types::Reply;

/// Where incoming snapshots are put together, inside the shard's directory.
const STAGING: &str = "incoming";

/// Drives a [`Shard`] from the log.
pub struct ShardMachine {
    pub engine: Arc<Shard>,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    turns: Arc<Semaphore>,
}

/// How many checkpoints of shards a node writes at once. Each begins with a copy of what the shard's head
/// holds, and those of all shards are due together when nothing is written any more.
pub fn checkpoint_turns() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(1))
}

impl ShardMachine {
    /// `dir` is a directory beside the engine's own; `turns` are [`checkpoint_turns`] of its node.
    pub fn new(
        engine: Arc<Shard>,
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        turns: Arc<Semaphore>,
    ) -> Self {
        Self {
            engine,
            disk,
            dir: dir.join(STAGING),
            turns,
        }
    }
}

impl ShardMachine {
    async fn clear_staging(&self) -> io::Result<()> {
        match self.disk.remove_dir_all(&self.dir).await {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

fn to_file(entry: &FileEntry) -> SnapshotFile {
    SnapshotFile {
        name: entry.name.clone(),
        bytes: entry.len,
        crc32c: entry.crc32c,
    }
}

fn to_entry(file: &SnapshotFile) -> FileEntry {
    FileEntry {
        name: file.name.clone(),
        len: file.bytes,
        crc32c: file.crc32c,
    }
}

fn to_set(files: SnapshotFiles) -> FileSet {
    FileSet {
        index: files.position.index,
        opaque: files.position.opaque.clone(),
        dir: files.dir.clone(),
        files: files.files.iter().map(to_file).collect(),
        pin: Some(Box::new(files)),
    }
}

#[async_trait]
impl Machine for ShardMachine {
    async fn apply(&self, index: u64, command: &Bytes) -> io::Result<Reply> {
        let command = Command::decode(command.clone()).map_err(io::Error::other)?;
        Ok(Reply::Shard(self.engine.apply(index, &command).await?))
    }

    async fn replay(&self, batches: Batches<'_>) -> io::Result<()> {
        self.engine.replay(batches).await
    }

    fn advance(&self, index: u64) {
        self.engine.advance(index);
    }

    fn loaded(&self) -> Option<(u64, Bytes)> {
        self.engine
            .position()
            .map(|position| (position.index, position.opaque))
    }

    async fn checkpoint(&self, mark_at: MarkAt) -> io::Result<FileSet> {
        let turn = self.turns.acquire().await.map_err(io::Error::other)?;
        self.engine.checkpoint(mark_at).await?;
        drop(turn);
        self.engine.snapshot().await.map(to_set)
    }

    async fn current(&self) -> io::Result<Option<FileSet>> {
        match self.engine.snapshot().await {
            Ok(files) => Ok(Some(to_set(files))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn held(&self) -> Vec<SnapshotFile> {
        self.engine.files().await.iter().map(to_file).collect()
    }

    async fn stage(&self, index: u64) -> io::Result<PathBuf> {
        self.clear_staging().await?;
        let dir = self.dir.join(format!("{index:020}"));
        self.disk.create_dir_all(&dir).await?;
        Ok(dir)
    }

    async fn install(&self, staged: FileSet) -> io::Result<()> {
        let files: Vec<FileEntry> = staged.files.iter().map(to_entry).collect();
        let position = Position {
            index: staged.index,
            opaque: staged.opaque,
        };
        self.engine.install(&staged.dir, &files, position).await?;
        self.clear_staging().await
    }
}
