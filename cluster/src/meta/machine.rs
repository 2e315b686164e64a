//! The meta state under Raft.
//!
//! The applied state is kept as a view in the node's catalogue, one small value per member and
//! shard, so that a restart begins where it was. The view may be lost at any time: then the state
//! is rebuilt from the last checkpoint file and the log. Nothing acknowledged rests on it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use model::port::{Disk, read_all, replace};
use prometheus::IntCounter;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use super::{Command, State};
use crate::catalogue::{Catalogue, Opening};
use crate::node_files::hold;
use crate::raft::machine::{FileSet, Machine, MarkAt, SnapshotFile};
use crate::raft::types::{Reply, malformed};

const DIR: &str = "meta";
const FILE: &str = "checkpoint.json";
const STAGING: &str = "incoming";

/// A checkpoint: the state, the index it stands at, and Raft's mark.
#[derive(Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    index: u64,
    mark: String,
    state: State,
}

struct Applied {
    state: State,
    index: u64,
}

/// Holds the meta state and publishes it.
pub struct MetaMachine {
    disk: Arc<dyn Disk>,
    catalogue: Arc<dyn Catalogue>,
    applied: Mutex<Applied>,
    loaded: Mutex<Option<(u64, Bytes)>>,
    /// What the checkpoint file holds; nobody else writes or judges the file meanwhile.
    file: tokio::sync::Mutex<Option<Bytes>>,
    corruptions: IntCounter,
    view: watch::Sender<Arc<State>>,
}

impl MetaMachine {
    /// Loads the last checkpoint, or the catalogue's view if that is further. `corruptions` counts how
    /// often the file is found to have rotted afterwards.
    pub async fn open(
        disk: Arc<dyn Disk>,
        catalogue: Opening,
        corruptions: IntCounter,
    ) -> io::Result<Self> {
        disk.create_dir_all(Path::new(DIR)).await?;
        disk.flush_dir(Path::new("")).await?;
        let file = match read_all(&*disk, &path()).await {
            Ok(bytes) => {
                // Who was killed right behind renaming it did not: a power cut would bring the one before back.
                disk.flush_dir(Path::new(DIR)).await?;
                Some(bytes)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let checkpoint = file.as_ref().map(|bytes| decode(bytes)).transpose()?;
        let state = checkpoint
            .as_ref()
            .map(|c| c.state.clone())
            .unwrap_or_default();
        let index = checkpoint.as_ref().map_or(0, |c| c.index);
        let loaded = checkpoint.map(|c| (c.index, Bytes::from(c.mark)));
        let catalogue = catalogue.await?;
        let view = watch::Sender::new(Arc::new(published(&*catalogue, &state)));
        Ok(Self {
            disk,
            catalogue,
            applied: Mutex::new(Applied { state, index }),
            loaded: Mutex::new(loaded),
            file: tokio::sync::Mutex::new(file),
            corruptions,
            view,
        })
    }

    /// The state, now and whenever it changes. After a restart it begins with the catalogue's
    /// view, which may be ahead of what has been applied again.
    pub fn watch(&self) -> watch::Receiver<Arc<State>> {
        self.view.subscribe()
    }

    fn publish(&self, state: &State) {
        let view = Arc::new(state.clone());
        if let Err(e) = store(&*self.catalogue, &self.view.borrow(), &view) {
            // Only a view: the next change writes it again, a restart rebuilds it.
            tracing::warn!(error = %e, "the catalogue did not take the meta state");
        }
        self.view.send_replace(view);
    }

    /// Reads the checkpoint file again; one that has rotted is written anew.
    pub async fn keep(&self) -> io::Result<()> {
        self.keep_file(&*self.file.lock().await).await
    }

    async fn keep_file(&self, file: &Option<Bytes>) -> io::Result<()> {
        let Some(bytes) = file else { return Ok(()) };
        if !hold(&*self.disk, &path(), bytes).await? {
            self.corruptions.inc();
        }
        Ok(())
    }

    async fn write(&self, bytes: Bytes) -> io::Result<()> {
        let mut file = self.file.lock().await;
        replace(&*self.disk, &path(), bytes.clone()).await?;
        *file = Some(bytes);
        Ok(())
    }
}

fn path() -> PathBuf {
    Path::new(DIR).join(FILE)
}

/// The catalogue's view where it is whole, else `state`: the log brings the rest.
fn published(catalogue: &dyn Catalogue, state: &State) -> State {
    match load(catalogue) {
        Ok(Some(view)) => view,
        Ok(None) => state.clone(),
        Err(e) => {
            tracing::warn!(error = %e, "the catalogue's view of the meta state is not used");
            state.clone()
        }
    }
}

// ---- the catalogue's view: one key per thing ----

const HEADER: &str = "meta/header";
const MEMBERS: &str = "meta/member/";
const TABLE: &str = "meta/shard/";
const HISTORY: &str = "meta/history/";
const CURSORS: &str = "meta/cursor/";

/// The state as small values by key.
pub(crate) fn to_keys(state: &State) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let json = |value: Value| serde_json::to_vec(&value).expect("plain data is JSON");
    let header = serde_json::json!({
        "cluster_id": state.cluster_id,
        "replication_factor": state.replication_factor,
        "hash_seed": state.hash_seed,
        "lease_epoch": state.lease_epoch,
        "shards": state.table.len(),
    });
    let mut keys = BTreeMap::from([(HEADER.as_bytes().to_vec(), json(header))]);
    for (id, member) in &state.members {
        keys.insert(
            format!("{MEMBERS}{id:020}").into(),
            json(serde_json::json!(member)),
        );
    }
    for (shard, assignment) in state.table.iter().enumerate() {
        keys.insert(
            format!("{TABLE}{shard:06}").into(),
            json(serde_json::json!(assignment)),
        );
    }
    for (child, cursor) in &state.cursors {
        keys.insert(
            format!("{CURSORS}{child}").into(),
            json(serde_json::json!(cursor)),
        );
    }
    for change in &state.history {
        keys.insert(
            format!("{HISTORY}{:020}", change.index).into(),
            json(serde_json::json!(change)),
        );
    }
    keys
}

#[derive(Deserialize)]
struct Header {
    cluster_id: String,
    replication_factor: usize,
    hash_seed: u64,
    lease_epoch: u64,
    shards: usize,
}

pub(crate) fn load(catalogue: &dyn Catalogue) -> io::Result<Option<State>> {
    let keys = catalogue.load()?;
    let Some(header) = keys.get(HEADER.as_bytes()) else {
        return Ok(None);
    };
    let header: Header = serde_json::from_slice(header)?;
    let mut state = State {
        cluster_id: header.cluster_id,
        replication_factor: header.replication_factor,
        hash_seed: header.hash_seed,
        lease_epoch: header.lease_epoch,
        ..State::default()
    };
    for (key, value) in &keys {
        let key = std::str::from_utf8(key).map_err(|_| malformed("catalogue key"))?;
        if let Some(id) = key.strip_prefix(MEMBERS) {
            let id = id.parse().map_err(|_| malformed("catalogue key"))?;
            state.members.insert(id, serde_json::from_slice(value)?);
        } else if let Some(child) = key.strip_prefix(CURSORS) {
            let cursor = serde_json::from_slice(value)?;
            state.cursors.insert(child.to_owned(), cursor);
        } else if key.starts_with(TABLE) {
            state.table.push(serde_json::from_slice(value)?);
        } else if key.starts_with(HISTORY) {
            state.history.push(serde_json::from_slice(value)?);
        }
    }
    match state.table.len() == header.shards {
        true => Ok(Some(state)),
        false => Err(malformed("catalogue: a shard is missing")),
    }
}

/// Writes what differs between two states.
fn store(catalogue: &dyn Catalogue, before: &State, after: &State) -> io::Result<()> {
    let (old, new) = (to_keys(before), to_keys(after));
    let removes = old
        .keys()
        .filter(|key| !new.contains_key(*key))
        .cloned()
        .collect();
    let puts = new
        .into_iter()
        .filter(|(key, value)| old.get(key) != Some(value))
        .collect();
    catalogue.store(puts, removes)
}

// ---- the checkpoint file ----

/// The file ends in the sum of what is before it.
pub(crate) fn encode(checkpoint: &Checkpoint) -> Bytes {
    let mut bytes = serde_json::to_vec(checkpoint).expect("plain data is JSON");
    let sum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes.into()
}

pub(crate) fn decode(bytes: &[u8]) -> io::Result<Checkpoint> {
    let (text, sum) = bytes
        .split_last_chunk()
        .ok_or_else(|| malformed("meta checkpoint"))?;
    if crc32c::crc32c(text) != u32::from_le_bytes(*sum) {
        return Err(malformed("meta checkpoint: its sum does not match"));
    }
    Ok(serde_json::from_slice(text)?)
}

fn file_of(bytes: &Bytes) -> SnapshotFile {
    SnapshotFile {
        name: FILE.to_owned(),
        bytes: bytes.len() as u64,
        crc32c: crc32c::crc32c(bytes),
    }
}

fn set_of(bytes: &Bytes, checkpoint: Checkpoint) -> FileSet {
    FileSet {
        index: checkpoint.index,
        opaque: Bytes::from(checkpoint.mark),
        dir: PathBuf::from(DIR),
        files: vec![file_of(bytes)],
        pin: None,
    }
}

#[async_trait]
impl Machine for MetaMachine {
    async fn apply(&self, index: u64, command: &Bytes) -> io::Result<Reply> {
        let command: Command = serde_json::from_slice(command)?;
        let (outcome, state) = {
            let mut applied = self.applied.lock().expect("not poisoned");
            assert!(index > applied.index, "the log goes forward");
            applied.index = index;
            (applied.state.apply(index, command), applied.state.clone())
        };
        self.publish(&state);
        Ok(Reply::Meta(outcome))
    }

    fn advance(&self, index: u64) {
        self.applied.lock().expect("not poisoned").index = index;
    }

    fn loaded(&self) -> Option<(u64, Bytes)> {
        self.loaded.lock().expect("not poisoned").clone()
    }

    async fn checkpoint(&self, mark_at: MarkAt) -> io::Result<FileSet> {
        let checkpoint = {
            let applied = self.applied.lock().expect("not poisoned");
            let mark = String::from_utf8(mark_at(applied.index).to_vec());
            Checkpoint {
                index: applied.index,
                mark: mark.map_err(|_| malformed("mark"))?,
                state: applied.state.clone(),
            }
        };
        let bytes = encode(&checkpoint);
        self.write(bytes.clone()).await?;
        Ok(set_of(&bytes, checkpoint))
    }

    async fn current(&self) -> io::Result<Option<FileSet>> {
        let file = self.file.lock().await;
        // Whoever gets it holds it against its sum.
        self.keep_file(&file).await?;
        let set = |bytes: &Bytes| Ok(set_of(bytes, decode(bytes)?));
        file.as_ref().map(set).transpose()
    }

    async fn held(&self) -> Vec<SnapshotFile> {
        Vec::new()
    }

    async fn stage(&self, _index: u64) -> io::Result<PathBuf> {
        let dir = Path::new(DIR).join(STAGING);
        match self.disk.remove_dir_all(&dir).await {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        self.disk.create_dir_all(&dir).await?;
        Ok(dir)
    }

    async fn install(&self, staged: FileSet) -> io::Result<()> {
        let bytes = read_all(&*self.disk, &staged.dir.join(FILE)).await?;
        if staged.files != [file_of(&bytes)] {
            return Err(malformed("meta snapshot: its sum does not match"));
        }
        let checkpoint = decode(&bytes)?;
        self.write(bytes).await?;
        {
            let mut applied = self.applied.lock().expect("not poisoned");
            *applied = Applied {
                state: checkpoint.state.clone(),
                index: checkpoint.index,
            };
        }
        *self.loaded.lock().expect("not poisoned") = Some((staged.index, staged.opaque));
        self.publish(&checkpoint.state);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sim_world::SimDisk;

    use super::*;
    use crate::catalogue::{Memory, opened};
    use crate::meta::{Assignment, Member};

    async fn open(disk: &Arc<dyn Disk>, catalogue: Arc<Memory>) -> MetaMachine {
        let corruptions = IntCounter::new("corruptions", "Found.").unwrap();
        let opened = MetaMachine::open(disk.clone(), opened(catalogue), corruptions).await;
        opened.unwrap()
    }

    fn form() -> Bytes {
        let member = Member {
            address: "h:1".to_owned(),
            zone: "z".to_owned(),
            version: "1".to_owned(),
            alive: true,
        };
        let command = Command::Form {
            cluster_id: "0a".to_owned(),
            replication_factor: 1,
            hash_seed: 3,
            members: BTreeMap::from([(7, member)]),
            placement: vec![vec![7]; 3],
        };
        Bytes::from(serde_json::to_vec(&command).unwrap())
    }

    #[tokio::test]
    async fn a_checkpoint_and_the_catalogue_each_bring_the_state_back() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1).mount());
        let catalogue = Arc::new(Memory::default());
        let machine = open(&disk, catalogue.clone()).await;
        machine.apply(4, &form()).await.unwrap();
        let state = machine.watch().borrow().clone();
        assert_eq!(state.table.len(), 3);

        // Without a checkpoint the log is applied again, but the view is there at once.
        let again = open(&disk, catalogue.clone()).await;
        assert_eq!(again.loaded(), None);
        assert_eq!(*again.watch().borrow(), state);

        machine
            .checkpoint(Box::new(|_| Bytes::from_static(b"mark")))
            .await
            .unwrap();
        let lost = Arc::new(Memory::default());
        let rebuilt = open(&disk, lost).await;
        assert_eq!(rebuilt.loaded(), Some((4, Bytes::from_static(b"mark"))));
        assert_eq!(*rebuilt.watch().borrow(), state);
    }

    #[tokio::test]
    async fn a_checkpoint_that_rots_is_written_anew() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1).mount());
        let machine = open(&disk, Arc::default()).await;
        machine.keep().await.unwrap();
        machine.apply(4, &form()).await.unwrap();
        let mark: MarkAt = Box::new(|_| Bytes::from_static(b"mark"));
        machine.checkpoint(mark).await.unwrap();
        let whole = read_all(&*disk, &path()).await.unwrap();
        let rot = async |at: usize| {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 16;
            replace(&*disk, &path(), bytes.into()).await.unwrap();
        };
        machine.keep().await.unwrap();
        assert_eq!(machine.corruptions.get(), 0);

        rot(9).await;
        machine.keep().await.unwrap();
        assert_eq!(read_all(&*disk, &path()).await.unwrap(), whole);
        assert_eq!(machine.corruptions.get(), 1);

        // And before it is sent to somebody, also by the machine of the next start.
        let machine = open(&disk, Arc::default()).await;
        rot(whole.len() - 1).await;
        let set = machine.current().await.unwrap().unwrap();
        assert_eq!((set.index, &set.files[0]), (4, &file_of(&whole)));
        assert_eq!(read_all(&*disk, &path()).await.unwrap(), whole);
        disk.remove(&path()).await.unwrap();
        machine.keep().await.unwrap();
        assert_eq!(read_all(&*disk, &path()).await.unwrap(), whole);
        assert_eq!(machine.corruptions.get(), 2);
    }

    #[test]
    fn a_view_with_a_missing_shard_is_not_believed() {
        let catalogue = Memory::default();
        let assignment = Assignment {
            replicas: vec![1],
            founders: vec![1],
            settled: true,
        };
        let state = State {
            cluster_id: "0a".to_owned(),
            table: vec![assignment; 2],
            ..State::default()
        };
        store(&catalogue, &State::default(), &state).unwrap();
        assert_eq!(load(&catalogue).unwrap(), Some(state));
        catalogue
            .store(vec![], vec![format!("{TABLE}{:06}", 1).into()])
            .unwrap();
        assert!(load(&catalogue).is_err());
    }

    #[test]
    fn a_flipped_bit_in_the_checkpoint_is_seen() {
        let whole = encode(&Checkpoint {
            index: 3,
            mark: "m".into(),
            state: State::default(),
        });
        for at in 0..whole.len() {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 4;
            assert!(decode(&bytes).is_err(), "byte {at}");
        }
    }
}
