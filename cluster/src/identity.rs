//! Who this node is: one small file, written before anybody is told.

use std::io;
use std::path::Path;

use bytes::Bytes;
use model::port::{World, read_all, replace};
use model::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};

const FILE: &str = "identity.json";

/// A promise to be formed into one cluster with exactly these nodes; given once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    pub cluster_id: String,
    /// Address by node id.
    pub members: std::collections::BTreeMap<u64, String>,
}

/// What the identity file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Drawn when the data directory was born.
    pub node_id: u64,
    /// Hex; empty while the node belongs to no cluster.
    #[serde(default)]
    pub cluster_id: String,
    #[serde(default)]
    pub promise: Option<Promise>,
}

impl Identity {
    /// Reads the file, or draws a new identity and writes it.
    pub async fn load(world: &World) -> io::Result<Self> {
        match read_all(&*world.disk, Path::new(FILE)).await {
            Ok(bytes) => decode(&bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                refuse_orphans(world).await?;
                // Readable by people, exact as a float in JSON, and never zero.
                let node_id = (world.dice.roll() >> 11).max(1);
                let born = Self {
                    node_id,
                    cluster_id: String::new(),
                    promise: None,
                };
                born.store(world).await?;
                Ok(born)
            }
            Err(e) => Err(e),
        }
    }

    /// Durable on return.
    pub async fn store(&self, world: &World) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(self).expect("plain data is JSON");
        replace(&*world.disk, Path::new(FILE), Bytes::from(bytes)).await
    }

    pub fn node(&self) -> NodeId {
        NodeId(self.node_id)
    }

    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster_id.parse().ok()
    }
}

/// A log without an identity is another node's, or this one's after its name was lost: under a
/// new name its votes would count twice.
async fn refuse_orphans(world: &World) -> io::Result<()> {
    match world.disk.list(Path::new("log")).await?.is_empty() {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "there is a log but no identity.json: restore the file, or wipe the whole directory \
             to come back as a new node",
        )),
    }
}

fn decode(bytes: &[u8]) -> io::Result<Identity> {
    let identity: Identity = serde_json::from_slice(bytes)?;
    match identity.node_id {
        0 => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "identity.json: node_id is zero",
        )),
        _ => Ok(identity),
    }
}

#[cfg(test)]
mod tests {
    use sim_world::{SimClock, SimDisk};

    use super::*;

    #[tokio::test]
    async fn an_identity_is_drawn_once() {
        let disk = SimDisk::new(5);
        let clock = SimClock::new();
        let first = Identity::load(&sim_world::world(1, &clock, &disk))
            .await
            .unwrap();
        disk.crash();
        let again = Identity::load(&sim_world::world(2, &clock, &disk))
            .await
            .unwrap();
        assert_eq!(first, again);
        assert_eq!(first.cluster(), None);
    }

    #[tokio::test]
    async fn a_log_without_a_name_is_refused() {
        let world = sim_world::world(1, &SimClock::new(), &SimDisk::new(5));
        world.disk.create_dir_all(Path::new("log")).await.unwrap();
        drop(
            world
                .disk
                .create(&Path::new("log").join("segment"))
                .await
                .unwrap(),
        );
        let error = Identity::load(&world).await.unwrap_err();
        assert!(error.to_string().contains("identity.json"), "{error}");
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        assert!(decode(b"{}").is_err());
        assert!(decode(br#"{"node_id":0}"#).is_err());
    }
}
