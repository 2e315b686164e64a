//! A shard's engine as what a Raft group replicates.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use model::ShardId;
use model::port::Disk;
use tokio::sync::Semaphore;
use tsdb::{Command, FileEntry, Position, Shard, SnapshotFiles, StorageError};

use super::mending::Mender;
use crate::raft::machine::{Batches, Debt, FileSet, Machine, MarkAt, SnapshotFile};
use crate::raft::types::Reply;

/// Where incoming snapshots are put together, inside the shard's directory.
const STAGING: &str = "incoming";

/// Drives a [`Shard`] from the log.
pub struct ShardMachine {
    pub engine: Arc<Shard>,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    turns: Arc<Semaphore>,
    mender: Option<(Arc<Mender>, ShardId)>,
    /// Bytes of commands applied ever, and how many of them the files on the disk hold: both only rise, so
    /// that a checkpoint and an incoming snapshot may end in any order.
    applied_bytes: AtomicU64,
    kept_bytes: AtomicU64,
    /// Of the last checkpoint.
    checkpoint_bytes: AtomicU64,
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
            mender: None,
            applied_bytes: AtomicU64::new(0),
            kept_bytes: AtomicU64::new(0),
            checkpoint_bytes: AtomicU64::new(0),
        }
    }

    /// Gets blocks that rotted from other replicas.
    #[must_use]
    pub fn mended_by(mut self, mender: Arc<Mender>, shard: ShardId) -> Self {
        self.mender = Some((mender, shard));
        self
    }

    /// Whether what `error` says is damaged is whole now.
    async fn mend(&self, error: &StorageError) -> bool {
        match &self.mender {
            Some((mender, shard)) => mender.mend_found(*shard, &self.engine, error).await,
            None => false,
        }
    }

    fn count(&self, command: &Bytes) {
        self.applied_bytes
            .fetch_add(command.len() as u64, Ordering::Relaxed);
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
        self.count(command);
        let command = Command::decode(command.clone()).map_err(io::Error::other)?;
        let applied = match self.engine.apply(index, &command).await {
            // Nothing has changed: the same again.
            Err(error) if self.mend(&error).await => self.engine.apply(index, &command).await,
            applied => applied,
        };
        Ok(Reply::Shard(applied?))
    }

    async fn replay(&self, batches: Batches<'_>) -> io::Result<()> {
        let counted = batches.inspect_ok(|entries| {
            let commands = entries.iter().filter_map(|(_, command)| command.as_ref());
            commands.for_each(|command| self.count(command));
        });
        self.engine.replay(counted).await
    }

    fn checkpoint_debt(&self) -> Debt {
        // In this order: what is kept was applied before.
        let kept = self.kept_bytes.load(Ordering::Acquire);
        let applied = self.applied_bytes.load(Ordering::Relaxed);
        Debt {
            log_bytes: applied.saturating_sub(kept),
            checkpoint_bytes: self.checkpoint_bytes.load(Ordering::Relaxed),
        }
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
        let in_it = self.applied_bytes.load(Ordering::Relaxed);
        self.engine.checkpoint(mark_at).await?;
        self.kept_bytes.fetch_max(in_it, Ordering::Release);
        drop(turn);
        let files = self.engine.snapshot().await?;
        let bytes = files.checkpoint_bytes();
        self.checkpoint_bytes.store(bytes, Ordering::Relaxed);
        Ok(to_set(files))
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
        let install = || self.engine.install(&staged.dir, &files, position.clone());
        match install().await {
            Err(error) if self.mend(&error).await => install().await?,
            installed => installed?,
        }
        let applied = self.applied_bytes.load(Ordering::Relaxed);
        self.kept_bytes.fetch_max(applied, Ordering::Release);
        self.clear_staging().await
    }
}
