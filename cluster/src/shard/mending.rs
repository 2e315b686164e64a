//! Gets a block that rotted from another replica of its shard.
//!
//! A block is fetched from a replica that has a file of the same name, which says what it holds, and
//! is checked whole before it takes the place of the damaged one. It may be wanted by the scrub, by a
//! shard that does not open without it, or by a command that cannot be applied without it. What is not the same on
//! every replica is had as a whole (`rebuilding`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::ShardId;
use model::port::{Disk, World};
use proto::node as wire;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;
use tsdb::file::{FileKind, remove_dir_if_there, remove_if_there};
use tsdb::{FileEntry, Shard, StorageError, scrub};

use super::replica::{dir_of, engine_dir_of};
use crate::convert::cluster_id_to_wire;
use crate::meta::State;
use crate::peer::Peers;

/// Where fetched files are put together, inside the shard's directory.
const STAGING: &str = "fetched";
/// A peer that sends nothing for so long is given up: a log may wait for the file.
const PIECE_TIMEOUT: Duration = Duration::from_secs(3);
/// A block made of several takes hardly more than they; what a small one may take beside.
const MERGED_BYTES_MORE: u64 = 1 << 20;
pub(super) const NOBODY: &str = "no other replica";

/// What fetching takes.
pub struct Mender {
    node: u64,
    world: World,
    peers: Arc<Peers>,
    view: watch::Receiver<Arc<State>>,
    /// One file at a time: they are put together in one place of the shard.
    turn: Mutex<()>,
    /// One whole state at a time.
    pub(super) rebuilding: Mutex<()>,
}

/// A block's name without its checksum: what a peer is asked for that knows the rest.
fn name_of(id: u64) -> String {
    format!("block-{id:020}")
}

/// The id in a name that [`name_of`] gave.
pub fn id_in(name: &str) -> Option<u64> {
    let id = name.strip_prefix("block-")?.parse().ok()?;
    (name_of(id) == name).then_some(id)
}

/// The block that an error says is damaged.
pub fn damaged_block(error: &io::Error) -> Option<&str> {
    storage_error(error).and_then(block_in)
}

/// Whether an error says that a file is damaged, and not that it cannot be read.
pub fn is_damage(error: &io::Error) -> bool {
    matches!(storage_error(error), Some(StorageError::Corrupt { .. }))
}

fn storage_error(error: &io::Error) -> Option<&StorageError> {
    error.get_ref()?.downcast_ref()
}

fn block_in(error: &StorageError) -> Option<&str> {
    match error {
        StorageError::Corrupt { file, .. } if file.starts_with("block-") => Some(file),
        _ => None,
    }
}

impl Mender {
    pub fn new(
        node: u64,
        world: World,
        peers: Arc<Peers>,
        view: watch::Receiver<Arc<State>>,
    ) -> Self {
        Self {
            node,
            world,
            peers,
            view,
            turn: Mutex::default(),
            rebuilding: Mutex::default(),
        }
    }

    /// Mends a block of a shard that is open.
    pub async fn mend(
        &self,
        shard: ShardId,
        engine: &Shard,
        entry: &FileEntry,
    ) -> Result<(), String> {
        let _turn = self.turn.lock().await;
        let staged = self.fetch(shard, entry).await?;
        let repaired = engine.repair(&staged, entry).await;
        self.clear(&staged).await?;
        repaired.map_err(|e| e.full_text())
    }

    /// As [`Mender::mend`], of whatever `error` says is damaged; whether it is whole now.
    pub async fn mend_found(&self, shard: ShardId, engine: &Shard, error: &StorageError) -> bool {
        let Some(name) = block_in(error) else {
            return false;
        };
        let entry = engine.files().await.into_iter().find(|e| e.name == name);
        let mended = match entry {
            Some(entry) => self.mend(shard, engine, &entry).await,
            None => Err("no checkpoint has it yet".to_owned()),
        };
        tell(shard, name, mended)
    }

    /// Mends a block of a shard that is not open.
    pub(super) async fn mend_closed(&self, shard: ShardId, name: &str) -> Result<(), String> {
        let _turn = self.turn.lock().await;
        let (disk, dir) = (&*self.world.disk, engine_dir_of(shard));
        let entry = scrub::find(disk, &dir, name).await;
        let entry = entry.map_err(|e| e.full_text())?;
        let entry = entry.ok_or("the manifest does not name it")?;
        let staged = self.fetch(shard, &entry).await?;
        let replaced = scrub::replace(disk, &dir, &staged, &entry).await;
        self.clear(&staged).await?;
        replaced.map_err(|e| e.full_text())
    }

    /// Gets the file of a block made of several that cannot be written here, as one of them is
    /// damaged, from a replica that has written it; that one needs the several no more.
    pub async fn mend_merge(&self, shard: ShardId, engine: &Shard) -> bool {
        let Some((id, bytes)) = engine.wanted_merge() else {
            return false;
        };
        let _turn = self.turn.lock().await;
        let mended = self.take_merged(shard, engine, id, bytes).await;
        tell(shard, &name_of(id), mended)
    }

    async fn take_merged(
        &self,
        shard: ShardId,
        engine: &Shard,
        id: u64,
        bytes: u64,
    ) -> Result<(), String> {
        let bytes_max = bytes * 2 + MERGED_BYTES_MORE;
        let mut taken = Err(NOBODY.to_owned());
        for (node, address) in self.others(shard) {
            taken = self.take_from(shard, engine, id, bytes_max, &address).await;
            match &mut taken {
                Ok(()) => break,
                Err(why) => why.insert_str(0, &format!("node {node}: ")),
            }
        }
        self.clear(&self.staged(shard)).await?;
        taken
    }

    async fn take_from(
        &self,
        shard: ShardId,
        engine: &Shard,
        id: u64,
        bytes_max: u64,
        address: &str,
    ) -> Result<(), String> {
        let (name, staged) = (name_of(id), self.clean_staged(shard).await?);
        let received = self.receive(shard, &staged, &name, bytes_max, address);
        let (len, crc32c) = received.await?;
        let entry = FileEntry::of_block(id, len, crc32c);
        let (from, to) = (staged.join(&name), staged.join(&entry.name));
        let renamed = self.world.disk.rename(&from, &to).await;
        renamed.map_err(|e| e.to_string())?;
        let adopted = engine.adopt_merged(&staged, &entry).await;
        adopted.map_err(|e| e.full_text())
    }

    fn staged(&self, shard: ShardId) -> PathBuf {
        dir_of(shard).join(STAGING)
    }

    /// The directory for one file.
    async fn clean_staged(&self, shard: ShardId) -> Result<PathBuf, String> {
        let staged = self.staged(shard);
        self.clear(&staged).await?;
        let created = self.world.disk.create_dir_all(&staged).await;
        created.map_err(|e| e.to_string())?;
        Ok(staged)
    }

    pub(super) fn disk(&self) -> &Arc<dyn Disk> {
        &self.world.disk
    }

    /// The shard's other replicas and their addresses.
    pub(super) fn others(&self, shard: ShardId) -> Vec<(u64, String)> {
        let state = self.view.borrow().clone();
        let assignment = state.assignment(shard);
        let nodes = assignment.map(|a| a.replicas.clone()).unwrap_or_default();
        let others = nodes.into_iter().filter(|node| *node != self.node);
        let known = others.filter_map(|node| Some((node, state.address(node)?.to_owned())));
        known.collect()
    }

    /// The directory in which the file then lies, whole.
    async fn fetch(&self, shard: ShardId, entry: &FileEntry) -> Result<PathBuf, String> {
        if !matches!(entry.kind(), Some(FileKind::Block(_))) {
            return Err("only blocks are the same everywhere".to_owned());
        }
        let staged = self.staged(shard);
        let mut last = NOBODY.to_owned();
        for (node, address) in self.others(shard) {
            match self.fetch_from(shard, entry, &address).await {
                Ok(()) => return Ok(staged),
                Err(why) => last = format!("node {node}: {why}"),
            }
        }
        self.clear(&staged).await?;
        Err(last)
    }

    async fn fetch_from(
        &self,
        shard: ShardId,
        entry: &FileEntry,
        address: &str,
    ) -> Result<(), String> {
        let staged = self.clean_staged(shard).await?;
        self.receive(shard, &staged, &entry.name, entry.len, address)
            .await?;
        let whole = entry.verify(&*self.world.disk, &staged).await;
        whole.map_err(|e| e.full_text())
    }

    /// Puts what a peer has under this name into `staged`; gives length and checksum.
    pub(super) async fn receive(
        &self,
        shard: ShardId,
        staged: &Path,
        name: &str,
        bytes_max: u64,
        address: &str,
    ) -> Result<(u64, u32), String> {
        let text = |e: io::Error| e.to_string();
        let late = |_| "no answer in time".to_owned();
        let disk: &dyn Disk = &*self.world.disk;
        let path = staged.join(name);
        remove_if_there(disk, &path).await.map_err(text)?;
        let mut file = disk.create(&path).await.map_err(text)?;
        let request = wire::FetchRequest {
            cluster_id: cluster_id_to_wire(self.peers.cluster()),
            shard: shard.0,
            name: name.to_owned(),
        };
        let peer = self.peers.at(address);
        let mut data = peer.data();
        let replies = timeout(PIECE_TIMEOUT, data.fetch(request)).await;
        let mut replies = replies
            .map_err(late)?
            .map_err(|e| e.to_string())?
            .into_inner();
        let (mut len, mut crc32c) = (0, 0);
        loop {
            let reply = timeout(PIECE_TIMEOUT, replies.message()).await;
            let Some(reply) = reply.map_err(late)?.map_err(|e| e.to_string())? else {
                break;
            };
            if reply.refusal.is_some() {
                return Err("it does not have the file".to_owned());
            }
            len += reply.data.len() as u64;
            if len > bytes_max {
                return Err("it sends more than the file can have".to_owned());
            }
            crc32c = crc32c::crc32c_append(crc32c, &reply.data);
            file.append(vec![reply.data]).await.map_err(text)?;
        }
        Ok((len, crc32c))
    }

    async fn clear(&self, staged: &Path) -> Result<(), String> {
        let cleared = remove_dir_if_there(&*self.world.disk, staged).await;
        cleared.map_err(|e| e.to_string())
    }
}

fn tell(shard: ShardId, file: &str, mended: Result<(), String>) -> bool {
    match &mended {
        Ok(()) => tracing::info!(%shard, file, "mended"),
        Err(why) => tracing::warn!(%shard, file, why, "not mended"),
    }
    mended.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_known_by_its_id() {
        assert_eq!(id_in(&name_of(7)), Some(7));
        for name in ["block-7", "block-00000000000000000007-000000ab", "manifest"] {
            assert_eq!(id_in(name), None, "{name}");
        }
    }

    #[test]
    fn only_damage_to_a_block_is_mended() {
        let damaged = |file: &str| io::Error::from(StorageError::corrupt(file, "file", "wrong"));
        let block = FileEntry::of_block(7, 1, 0xab).name;
        assert_eq!(damaged_block(&damaged(&block)), Some(&*block));
        assert_eq!(damaged_block(&damaged("manifest")), None);
        assert_eq!(damaged_block(&io::ErrorKind::InvalidData.into()), None);
    }
}
