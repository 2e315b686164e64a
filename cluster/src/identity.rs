//! Who this node is: one small file, written before anybody is told.
//!
//! The file is JSON and ends in the sum of what stands before (docs/format/identity.md), so that a bit
//! that flipped makes no other node of this one, which would vote a second time in a log that holds the
//! first one's votes. One without a sum, of an earlier version, must agree with itself and with the
//! members that the meta state names, and gets its sum.

use std::io;
use std::path::Path;

use bytes::Bytes;
use model::port::{World, read_all, replace};
use model::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};

use crate::cluster::LOG_DIR;
use crate::meta::State;
use crate::node_files::hold;
use crate::shard::replica::DIR as SHARDS_DIR;

const FILE: &str = "identity.json";

/// A node that knows its cluster has voted in it, and led or followed: its log cannot be empty.
const LOG_GONE: &str = "log/ is empty or missing, but this node has been in a cluster: what it had \
     acknowledged there is not known, so it must not go on under its name; put the log back, or move the whole \
     data directory away to come back as a new node";

/// What stands around the eight digits of the sum.
const SUM: (&str, &str) = (",\n  \"crc32c\": \"", "\"\n}");
const SUM_DIGITS: usize = 8;

/// A promise to be formed into one cluster with exactly these nodes; given once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promise {
    pub cluster_id: String,
    /// Address by node id.
    pub members: std::collections::BTreeMap<u64, String>,
}

/// What the identity file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Drawn when the data directory was born.
    pub node_id: u64,
    /// Hex; empty while the node belongs to no cluster.
    #[serde(default)]
    pub cluster_id: String,
    #[serde(default)]
    pub promise: Option<Promise>,
}

/// What the disk says this node is.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Summed(Identity),
    /// Of a version that wrote no sum: not to be believed without [`Found::confirm`].
    Bare(Identity),
}

impl Found {
    /// The identity, if nothing of `known`, the meta state this node had, nor of its directory speaks
    /// against it. From now on the file has a sum.
    pub async fn confirm(self, world: &World, known: &State) -> io::Result<Identity> {
        if (known.is_formed() || holds(world, SHARDS_DIR).await?) && !holds(world, LOG_DIR).await? {
            return Err(io::Error::new(io::ErrorKind::InvalidData, LOG_GONE));
        }
        let identity = match self {
            Self::Summed(identity) => return Ok(identity),
            Self::Bare(identity) => identity,
        };
        if known.is_formed() && !known.members.contains_key(&identity.node_id) {
            let node_id = identity.node_id;
            return Err(refusal(&format!("no member of its cluster is {node_id}")));
        }
        identity.store(world).await?;
        Ok(identity)
    }
}

impl Identity {
    /// Reads the file, or draws a new identity and writes it.
    pub async fn load(world: &World) -> io::Result<Found> {
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
                Ok(Found::Summed(born))
            }
            Err(e) => Err(e),
        }
    }

    /// Durable on return.
    pub async fn store(&self, world: &World) -> io::Result<()> {
        replace(&*world.disk, Path::new(FILE), encode(self)).await
    }

    /// Reads the file again, which nobody writes meanwhile, and writes it anew where it is not what
    /// was written; whether it was.
    pub async fn keep(&self, world: &World) -> io::Result<bool> {
        hold(&*world.disk, Path::new(FILE), &encode(self)).await
    }

    pub fn node(&self) -> NodeId {
        NodeId(self.node_id)
    }

    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster_id.parse().ok()
    }

    /// What of it cannot have been written.
    fn contradiction(&self) -> Option<&'static str> {
        if self.node_id == 0 {
            return Some("node_id is zero");
        }
        if !self.cluster_id.is_empty() && self.cluster().is_none() {
            return Some("cluster_id is not an id");
        }
        let promise = self.promise.as_ref()?;
        if !promise.members.contains_key(&self.node_id) {
            return Some("node_id is not among those it has promised to be formed with");
        }
        let is_other = !self.cluster_id.is_empty() && self.cluster_id != promise.cluster_id;
        is_other.then_some("cluster_id is not that of its promise")
    }
}

/// A log or shards without an identity are another node's, or this one's after its name was lost: under a
/// new name its votes would count twice.
async fn refuse_orphans(world: &World) -> io::Result<()> {
    for dir in [LOG_DIR, SHARDS_DIR] {
        if holds(world, dir).await? {
            let what = format!(
                "there is {dir}/ but no {FILE}: restore the file, or move the whole data directory \
                 away to come back as a new node"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
    }
    Ok(())
}

/// Whether there is something in a directory of the node.
async fn holds(world: &World, dir: &str) -> io::Result<bool> {
    Ok(!world.disk.list(Path::new(dir)).await?.is_empty())
}

fn refusal(why: &str) -> io::Error {
    let what = format!(
        "{FILE} is damaged: {why}; restore the file from a copy, or move the whole data directory \
         away to come back as a new node"
    );
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The identity as JSON; its last field is the sum of all that stands before it.
pub(crate) fn encode(identity: &Identity) -> Bytes {
    let mut text = serde_json::to_string_pretty(identity).expect("plain data is JSON");
    text.truncate(text.len() - "\n}".len());
    let sum = crc32c::crc32c(text.as_bytes());
    text.push_str(&format!("{}{sum:08x}{}", SUM.0, SUM.1));
    text.into()
}

/// What stands before the sum, and the sum's digits.
fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_suffix(SUM.1)?;
    let (text, sum) = text.split_at_checked(text.len().checked_sub(SUM_DIGITS)?)?;
    Some((text.strip_suffix(SUM.0)?, sum))
}

pub(crate) fn decode(bytes: &[u8]) -> io::Result<Found> {
    let text = std::str::from_utf8(bytes).map_err(|_| refusal("it is not text"))?;
    let parse = |text: &str| -> io::Result<Identity> {
        let parsed = serde_json::from_str(text);
        let identity: Identity = parsed.map_err(|e| refusal(&e.to_string()))?;
        match identity.contradiction() {
            Some(why) => Err(refusal(why)),
            None => Ok(identity),
        }
    };
    let Some((said, sum)) = split(text) else {
        return parse(text).map(Found::Bare);
    };
    match format!("{:08x}", crc32c::crc32c(said.as_bytes())) == sum {
        true => parse(&format!("{said}\n}}")).map(Found::Summed),
        false => Err(refusal("its sum does not match")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sim_world::{SimClock, SimDisk};

    use super::*;
    use crate::meta::Member;

    fn promised() -> Identity {
        let cluster_id = ClusterId(0xfeed).to_string();
        let members = [(0x1d_cafe, "h1:9092"), (0x1d_beef, "h2:9092")];
        let members = members.map(|(id, address)| (id, address.to_owned()));
        Identity {
            node_id: 0x1d_beef,
            cluster_id: cluster_id.clone(),
            promise: Some(Promise {
                cluster_id,
                members: members.into(),
            }),
        }
    }

    /// A meta state of a cluster with these members.
    fn known(members: &[u64]) -> State {
        let member = Member {
            address: "h:1".to_owned(),
            zone: String::new(),
            version: String::new(),
            alive: true,
        };
        State {
            cluster_id: ClusterId(0xfeed).to_string(),
            members: members.iter().map(|id| (*id, member.clone())).collect(),
            ..State::default()
        }
    }

    #[tokio::test]
    async fn an_identity_is_drawn_once() {
        let disk = SimDisk::new(5);
        let clock = SimClock::new();
        let first = Identity::load(&sim_world::world(1, &clock, &disk))
            .await
            .unwrap();
        disk.crash();
        let world = sim_world::world(2, &clock, &disk);
        let again = Identity::load(&world).await.unwrap();
        assert_eq!(first, again);
        let drawn = again.confirm(&world, &State::default()).await.unwrap();
        assert_eq!(drawn.cluster(), None);
    }

    /// Something in a directory of the node.
    async fn put_into(world: &World, dir: &str) {
        world.disk.create_dir_all(Path::new(dir)).await.unwrap();
        let path = Path::new(dir).join("something");
        drop(world.disk.create(&path).await.unwrap());
    }

    #[tokio::test]
    async fn what_a_node_has_without_a_name_is_refused() {
        for dir in ["log", "shards"] {
            let world = sim_world::world(1, &SimClock::new(), &SimDisk::new(5));
            put_into(&world, dir).await;
            let error = Identity::load(&world).await.unwrap_err().to_string();
            assert!(error.contains("identity.json"), "{error}");
            assert!(error.contains(dir), "{error}");
        }
    }

    #[tokio::test]
    async fn a_name_without_the_log_that_it_had_is_refused() {
        let identity = promised();
        let members = known(&[identity.node_id]);
        let nothing = State::default();
        // What is known of the cluster, whether shards are here, whether a log is.
        let cases = [
            (&members, false, false, false),
            (&nothing, true, false, false),
            (&nothing, false, false, true),
            (&members, true, true, true),
        ];
        for (known, has_shards, has_log, is_taken) in cases {
            let world = sim_world::world(1, &SimClock::new(), &SimDisk::new(5));
            identity.store(&world).await.unwrap();
            if has_shards {
                put_into(&world, "shards").await;
            }
            if has_log {
                put_into(&world, "log").await;
            }
            let found = Identity::load(&world).await.unwrap();
            match found.confirm(&world, known).await {
                Ok(taken) => assert!(is_taken && taken == identity),
                Err(e) => assert!(!is_taken && e.to_string().contains("log/"), "{e}"),
            }
        }
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        assert!(decode(b"{}").is_err());
        assert!(decode(br#"{"node_id":0}"#).is_err());
        assert!(decode(b"").is_err());
        let whole = encode(&promised());
        for len in 0..whole.len() {
            assert!(decode(&whole[..len]).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn no_flipped_bit_makes_another_node() {
        let born = Identity {
            node_id: 7_419_863_250_112_233,
            cluster_id: String::new(),
            promise: None,
        };
        for identity in [born, promised()] {
            let whole = encode(&identity);
            assert_eq!(decode(&whole).unwrap(), Found::Summed(identity));
            assert!(serde_json::from_slice::<serde_json::Value>(&whole).is_ok());
            for bit in 0..whole.len() * 8 {
                let mut bytes = whole.to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let error = decode(&bytes).expect_err("not what was written");
                let text = error.to_string();
                assert!(
                    text.starts_with("identity.json is damaged"),
                    "{bit}: {text}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_file_without_a_sum_gets_one_if_it_agrees_with_what_is_known() {
        let world = sim_world::world(1, &SimClock::new(), &SimDisk::new(5));
        let identity = promised();
        let bare = serde_json::to_vec_pretty(&identity).unwrap();
        let put = |bytes: Vec<u8>| replace(&*world.disk, Path::new(FILE), Bytes::from(bytes));
        put(bare.clone()).await.unwrap();
        put_into(&world, "log").await;
        let found = Identity::load(&world).await.unwrap();
        assert_eq!(found, Found::Bare(identity.clone()));
        let strangers = known(&[1, 2]);
        let error = found.confirm(&world, &strangers).await.unwrap_err();
        assert!(error.to_string().contains(FILE), "{error}");
        let found = Identity::load(&world).await.unwrap();
        let members = known(&[1, identity.node_id]);
        assert_eq!(found.confirm(&world, &members).await.unwrap(), identity);
        let found = Identity::load(&world).await.unwrap();
        assert_eq!(found, Found::Summed(identity.clone()));

        // Every flip in the number itself contradicts the promise.
        let text = String::from_utf8(bare.clone()).unwrap();
        let at = text.find(&identity.node_id.to_string()).unwrap();
        for bit in 0..identity.node_id.to_string().len() * 8 {
            let mut bytes = bare.clone();
            bytes[at + bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let elsewhere = Identity {
            cluster_id: ClusterId(5).to_string(),
            ..promised()
        };
        let stranger = Identity {
            promise: promised().promise.map(|promise| Promise {
                members: BTreeMap::from([(9, "h".to_owned())]),
                ..promise
            }),
            ..promised()
        };
        for identity in [elsewhere, stranger] {
            assert!(decode(&serde_json::to_vec(&identity).unwrap()).is_err());
        }
    }

    #[tokio::test]
    async fn a_file_that_rots_is_written_anew() {
        let world = sim_world::world(1, &SimClock::new(), &SimDisk::new(5));
        let identity = promised();
        identity.store(&world).await.unwrap();
        assert!(identity.keep(&world).await.unwrap());
        let mut bytes = encode(&identity).to_vec();
        bytes[20] ^= 1;
        let rotten = replace(&*world.disk, Path::new(FILE), Bytes::from(bytes));
        rotten.await.unwrap();
        assert!(!identity.keep(&world).await.unwrap());
        assert!(identity.keep(&world).await.unwrap());
        world.disk.remove(Path::new(FILE)).await.unwrap();
        assert!(!identity.keep(&world).await.unwrap());
        let found = Identity::load(&world).await.unwrap();
        assert_eq!(found, Found::Summed(identity));
    }
}
