//! Reads every byte that the shards of this node keep, every sealed segment of the log and the node's
//! [own files](crate::node_files) once in a while, and gets files that rotted
//! from another replica, before somebody asks for them.
//!
//! A pass goes file by file at an even pace. Files in which a query found damage come first. A block
//! is fetched from a replica that has a file of the same name, which says what it holds, and is
//! checked whole before it takes the place of the damaged one; until then reads of the damaged part
//! are errors. A checkpoint or a manifest is written anew from memory. Nothing is removed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use model::ShardId;
use model::port::Disk;
use proto::node as wire;
use tonic::Status;
use tsdb::file::FileKind;
use tsdb::scrub::Check;
use tsdb::{FileEntry, StorageError};

use super::Replica;
use crate::cluster::Shared;
use crate::node_files;

/// Of one message.
const MESSAGE_BYTES: usize = 256 << 10;
/// Between two pieces, at most: what a query stumbled over is looked after so soon.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// And at least, however much there is to read.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// Files that are remembered as told of.
const TOLD_MAX: usize = 1024;

/// Goes on for as long as the node lives.
pub async fn run(shared: Arc<Shared>) {
    let mut reader = Reader {
        shared,
        pause: PAUSE_MAX,
        told: BTreeSet::new(),
    };
    loop {
        reader.pass().await;
    }
}

/// Who reads.
struct Reader {
    shared: Arc<Shared>,
    /// Between two pieces.
    pause: Duration,
    /// Damage that reads found and that nobody could mend so far: it need not be told again and again.
    told: BTreeSet<(ShardId, String)>,
}

impl Reader {
    /// Everything once.
    async fn pass(&mut self) {
        let shared = self.shared.clone();
        let replicas = replicas_of(&shared);
        let mut pieces = 0;
        for replica in &replicas {
            let files = replica.engine.files().await;
            pieces += 1 + files.iter().map(Check::pieces).sum::<u64>();
        }
        let sealed = shared.log.sealed().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the log's segments cannot be listed");
            Vec::new()
        });
        pieces += sealed.iter().map(wal::Check::pieces).sum::<u64>();
        let pause = shared.options.scrub_every / u32::try_from(pieces.max(1)).unwrap_or(u32::MAX);
        self.pause = pause.clamp(PAUSE_MIN, PAUSE_MAX);
        for replica in &replicas {
            self.pass_shard(replica).await;
        }
        for check in sealed {
            self.pass_segment(check).await;
        }
        node_files::pass(&shared).await;
        self.rest().await;
    }

    /// One sealed segment of the log. What is damaged stays: opened next, the log puts the groups that
    /// miss something of it in quarantine (docs/operations.md says what to do then).
    async fn pass_segment(&mut self, mut check: wal::Check) {
        loop {
            self.rest().await;
            match self.shared.log.check_piece(&mut check).await {
                Ok(wal::Checked::More) => {}
                Ok(wal::Checked::Whole | wal::Checked::Gone) => return,
                Ok(wal::Checked::Damaged(what)) => {
                    return tracing::error!(what, "a sealed segment of the log is damaged");
                }
                Err(error) => {
                    return tracing::warn!(%error, "a segment of the log cannot be read");
                }
            }
        }
    }

    /// All files of one replica.
    async fn pass_shard(&mut self, replica: &Replica) {
        if let Err(found) = replica.engine.check_manifest().await {
            tell(replica, &found);
        }
        for entry in replica.engine.files().await {
            let mut check = Check::of(entry);
            loop {
                self.rest().await;
                match replica.engine.check_piece(&mut check).await {
                    Ok(false) => {}
                    Ok(true) => break,
                    Err(found) => {
                        tell(replica, &found);
                        self.mend(replica, check.entry()).await;
                        break;
                    }
                }
            }
        }
    }

    /// Waits, and looks after what others have stumbled over meanwhile.
    async fn rest(&mut self) {
        tokio::time::sleep(self.pause).await;
        for replica in replicas_of(&self.shared) {
            let suspects = replica.engine.take_suspects();
            if suspects.is_empty() {
                continue;
            }
            for entry in replica.engine.files().await {
                if suspects.contains(&entry.name) {
                    self.look_after(&replica, &entry).await;
                }
            }
        }
    }

    /// A file that a read was not content with.
    async fn look_after(&mut self, replica: &Replica, entry: &FileEntry) {
        let Err(found) = read_through(replica, entry).await else {
            return;
        };
        if !self.told.contains(&(replica.shard, entry.name.clone())) {
            tell(replica, &found);
        }
        self.mend(replica, entry).await;
    }

    /// Gets a whole file in the place of a damaged one, if there is a way.
    async fn mend(&mut self, replica: &Replica, entry: &FileEntry) {
        let mended = match entry.kind() {
            Some(FileKind::Block(_)) => {
                let mender = &self.shared.mender;
                mender.mend(replica.shard, &replica.engine, entry).await
            }
            // All that is in it is in memory.
            _ => {
                let asked = replica.raft.trigger().snapshot().await;
                asked.map_err(|e| e.to_string())
            }
        };
        // If it is not mended, the next pass finds it again.
        replica.engine.forget_suspect(&entry.name);
        let (shard, file) = (replica.shard, entry.name.clone());
        match mended {
            Ok(()) => {
                tracing::info!(%shard, file, "mended");
                self.told.remove(&(shard, file));
            }
            Err(why) => {
                tracing::warn!(%shard, file, why, "not mended");
                if self.told.len() < TOLD_MAX {
                    self.told.insert((shard, file));
                }
            }
        }
    }
}

fn replicas_of(shared: &Shared) -> Vec<Arc<Replica>> {
    let replicas = shared.replicas.read().expect("not poisoned");
    replicas.values().cloned().collect()
}

async fn read_through(replica: &Replica, entry: &FileEntry) -> Result<(), StorageError> {
    let mut check = Check::of(entry.clone());
    while !replica.engine.check_piece(&mut check).await? {}
    Ok(())
}

fn tell(replica: &Replica, found: &StorageError) {
    tracing::error!(shard = %replica.shard, error = %found.full_text(), "a file of a shard is damaged");
}

type Pieces = Pin<Box<dyn Stream<Item = Result<wire::FetchReply, Status>> + Send>>;

/// A file in pieces. Its reader holds them against the name, so nothing is checked here.
pub fn serve(disk: Arc<dyn Disk>, path: PathBuf, len: u64) -> Pieces {
    let pieces = futures::stream::try_unfold(0, move |at| {
        let (disk, path) = (disk.clone(), path.clone());
        async move {
            if at >= len {
                return Ok(None);
            }
            let data = disk.read(&path, at, MESSAGE_BYTES).await;
            let data = data.map_err(|e| Status::unavailable(e.to_string()))?;
            if data.is_empty() {
                return Err(Status::data_loss("the file ends early"));
            }
            let next = at + data.len() as u64;
            let reply = wire::FetchReply {
                data,
                refusal: None,
            };
            Ok(Some((reply, next)))
        }
    });
    pieces.boxed()
}
