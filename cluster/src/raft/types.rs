//! openraft's type parameters, and their way to and from the log's and the wire's own nouns.
//!
//! One configuration serves the meta group and every shard: a payload is opaque bytes here, a
//! reply is whatever the group's machine answers. The runtime is tokio with a seeded random
//! source, so that elections in the simulation follow from its seed.

use std::collections::BTreeSet;
use std::fmt;
use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use model::NodeId;
use openraft::impls::{BasicNode, leader_id_adv};
use openraft::{EntryPayload, Membership};
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;
use proto::node as wire;

use crate::meta;

/// A replicated command, encoded by whoever proposed it.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(pub Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying an entry gave.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Blank and membership entries say nothing.
    Nothing,
    Shard(tsdb::Outcome),
    Meta(meta::Outcome),
}

openraft::declare_raft_types!(
    pub TypeConfig:
        D = Payload,
        R = Reply,
        NodeId = u64,
        Node = BasicNode,
        AsyncRuntime = Runtime,
);

/// tokio, with elections' dice seeded per task tree.
pub type Runtime = DeterministicRng<TokioRuntime>;
pub type LeaderId = leader_id_adv::LeaderId<u64, u64>;
pub type LogId = openraft::LogId<LeaderId>;
pub type Vote = openraft::impls::Vote<LeaderId>;
pub type Entry = openraft::impls::Entry<LeaderId, EntryPayload<Payload, u64, BasicNode>>;
pub type Members = Membership<u64, BasicNode>;
pub type StoredMembers = openraft::StoredMembership<LeaderId, u64, BasicNode>;
pub type AppendRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
pub use openraft::ServerState;
pub use openraft::async_runtime::WatchReceiver;
pub type Raft = openraft::Raft<TypeConfig, super::machine::StateMachine>;

/// First payload byte of a membership entry; an empty payload is a blank entry.
const MEMBERSHIP: u8 = 0xff;

/// Bytes that are not what they should be.
pub fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed {what}"))
}

// ---- log ----

pub fn log_id_to_wal(id: &LogId) -> wal::LogId {
    wal::LogId {
        term: id.leader_id.term,
        node: NodeId(id.leader_id.node_id),
        index: id.index,
    }
}

pub fn log_id_from_wal(id: wal::LogId) -> LogId {
    LogId {
        leader_id: LeaderId {
            term: id.term,
            node_id: id.node.0,
        },
        index: id.index,
    }
}

pub fn vote_to_wal(vote: &Vote) -> wal::Vote {
    wal::Vote {
        term: vote.leader_id.term,
        node: NodeId(vote.leader_id.node_id),
        committed: vote.committed,
    }
}

pub fn vote_from_wal(vote: wal::Vote) -> Vote {
    Vote {
        leader_id: LeaderId {
            term: vote.term,
            node_id: vote.node.0,
        },
        committed: vote.committed,
    }
}

pub fn entry_to_wal(entry: Entry) -> wal::Entry {
    wal::Entry {
        id: log_id_to_wal(&entry.log_id),
        payload: encode_payload(entry.payload),
    }
}

pub fn entry_from_wal(entry: wal::Entry) -> io::Result<Entry> {
    Ok(Entry {
        log_id: log_id_from_wal(entry.id),
        payload: decode_payload(entry.payload)?,
    })
}

pub(crate) fn encode_payload(payload: EntryPayload<Payload, u64, BasicNode>) -> Bytes {
    match payload {
        EntryPayload::Blank => Bytes::new(),
        EntryPayload::Normal(Payload(bytes)) => {
            debug_assert!(!bytes.is_empty() && bytes[0] != MEMBERSHIP);
            bytes
        }
        EntryPayload::Membership(members) => {
            let mut bytes = BytesMut::new();
            bytes.put_u8(MEMBERSHIP);
            encode_members(&members, &mut bytes);
            bytes.freeze()
        }
    }
}

pub(crate) fn decode_payload(payload: Bytes) -> io::Result<EntryPayload<Payload, u64, BasicNode>> {
    Ok(match payload.first() {
        None => EntryPayload::Blank,
        Some(&MEMBERSHIP) => {
            let members: MembersText = serde_json::from_slice(&payload[1..])?;
            EntryPayload::Membership(members.into_members()?)
        }
        Some(_) => EntryPayload::Normal(Payload(payload)),
    })
}

// ---- membership, as JSON: small, rare, and worth reading in a hex dump ----

#[derive(serde::Serialize, serde::Deserialize)]
struct MembersText {
    configs: Vec<BTreeSet<u64>>,
    nodes: Vec<(u64, String)>,
}

impl MembersText {
    fn from_members(members: &Members) -> Self {
        Self {
            configs: members.get_joint_config().clone(),
            nodes: members
                .nodes()
                .map(|(id, node)| (*id, node.addr.clone()))
                .collect(),
        }
    }

    fn into_members(self) -> io::Result<Members> {
        let nodes: std::collections::BTreeMap<u64, BasicNode> = self
            .nodes
            .into_iter()
            .map(|(id, addr)| (id, BasicNode { addr }))
            .collect();
        if self.configs.is_empty() && nodes.is_empty() {
            return Ok(Members::default());
        }
        Members::new(self.configs, nodes).map_err(|e| malformed(&format!("membership: {e}")))
    }
}

fn encode_members(members: &Members, bytes: &mut BytesMut) {
    let text = serde_json::to_vec(&MembersText::from_members(members))
        .expect("a membership of ids and texts is JSON");
    bytes.put_slice(&text);
}

/// A position in the log and the membership in force there: what a checkpoint stores for Raft.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Mark {
    /// `None` for the state before the first entry.
    pub log_id: Option<LogId>,
    pub members: StoredMembers,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct MarkText {
    log_id: Option<(u64, u64, u64)>,
    members_at: Option<(u64, u64, u64)>,
    members: MembersText,
}

impl Mark {
    pub fn encode(&self) -> Bytes {
        let text = MarkText {
            log_id: self.log_id.as_ref().map(log_id_parts),
            members_at: self.members.log_id().as_ref().map(log_id_parts),
            members: MembersText::from_members(self.members.membership()),
        };
        Bytes::from(serde_json::to_vec(&text).expect("ids and texts are JSON"))
    }

    pub fn decode(bytes: &[u8]) -> io::Result<Self> {
        let text: MarkText = serde_json::from_slice(bytes)?;
        Ok(Self {
            log_id: text.log_id.map(log_id_of_parts),
            members: StoredMembers::new(
                text.members_at.map(log_id_of_parts),
                text.members.into_members()?,
            ),
        })
    }
}

fn log_id_parts(id: &LogId) -> (u64, u64, u64) {
    (id.leader_id.term, id.leader_id.node_id, id.index)
}

fn log_id_of_parts((term, node_id, index): (u64, u64, u64)) -> LogId {
    LogId {
        leader_id: LeaderId { term, node_id },
        index,
    }
}

// ---- wire ----

pub fn log_id_to_wire(id: &LogId) -> wire::LogId {
    wire::LogId {
        term: id.leader_id.term,
        node_id: id.leader_id.node_id,
        index: id.index,
    }
}

pub fn log_id_from_wire(id: wire::LogId) -> LogId {
    log_id_of_parts((id.term, id.node_id, id.index))
}

pub fn vote_to_wire(vote: &Vote) -> wire::Vote {
    wire::Vote {
        term: vote.leader_id.term,
        node_id: vote.leader_id.node_id,
        committed: vote.committed,
    }
}

pub fn vote_from_wire(vote: Option<wire::Vote>) -> io::Result<Vote> {
    let vote = vote.ok_or_else(|| malformed("message: no vote"))?;
    Ok(Vote {
        leader_id: LeaderId {
            term: vote.term,
            node_id: vote.node_id,
        },
        committed: vote.committed,
    })
}

pub fn append_to_wire(request: AppendRequest) -> wire::AppendEntries {
    wire::AppendEntries {
        vote: Some(vote_to_wire(&request.vote)),
        previous: request.prev_log_id.as_ref().map(log_id_to_wire),
        entries: request
            .entries
            .into_iter()
            .map(|entry| wire::Entry {
                id: Some(log_id_to_wire(&entry.log_id)),
                payload: encode_payload(entry.payload),
            })
            .collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_to_wire),
    }
}

pub fn append_from_wire(append: Option<wire::AppendEntries>) -> io::Result<AppendRequest> {
    let append = append.ok_or_else(|| malformed("message: no entries"))?;
    let entries = append
        .entries
        .into_iter()
        .map(|entry| {
            let id = entry.id.ok_or_else(|| malformed("entry: no id"))?;
            Ok(Entry {
                log_id: log_id_from_wire(id),
                payload: decode_payload(entry.payload)?,
            })
        })
        .collect::<io::Result<_>>()?;
    Ok(AppendRequest {
        vote: vote_from_wire(append.vote)?,
        prev_log_id: append.previous.map(log_id_from_wire),
        entries,
        leader_commit: append.leader_commit.map(log_id_from_wire),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        log_id_of_parts((term, 3, index))
    }

    fn members() -> Members {
        let nodes: std::collections::BTreeMap<_, _> = (1..=3)
            .map(|n| {
                (
                    n,
                    BasicNode {
                        addr: format!("h{n}:1"),
                    },
                )
            })
            .collect();
        Members::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([1, 3])], nodes).unwrap()
    }

    #[test]
    fn entries_survive_the_log_and_the_wire() {
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(Payload(Bytes::from_static(b"\x01x"))),
            EntryPayload::Membership(members()),
        ];
        for payload in payloads {
            let entry = Entry {
                log_id: id(2, 7),
                payload,
            };
            assert_eq!(entry_from_wal(entry_to_wal(entry.clone())).unwrap(), entry);
            let request = AppendRequest {
                vote: Vote {
                    leader_id: LeaderId {
                        term: 2,
                        node_id: 3,
                    },
                    committed: true,
                },
                prev_log_id: Some(id(1, 6)),
                entries: vec![entry.clone()],
                leader_commit: None,
            };
            let back = append_from_wire(Some(append_to_wire(request.clone()))).unwrap();
            assert_eq!(
                (back.vote, back.prev_log_id),
                (request.vote, request.prev_log_id)
            );
            assert_eq!(back.entries, vec![entry]);
        }
    }

    #[test]
    fn a_mark_survives_its_text() {
        assert_eq!(
            Mark::decode(&Mark::default().encode()).unwrap(),
            Mark::default()
        );
        for members in [
            StoredMembers::new(Some(id(1, 1)), members()),
            StoredMembers::default(),
        ] {
            let mark = Mark {
                log_id: Some(id(4, 9)),
                members,
            };
            assert_eq!(Mark::decode(&mark.encode()).unwrap(), mark);
        }
        assert!(Mark::decode(b"{}").is_err());
    }

    #[test]
    fn damaged_messages_are_errors() {
        assert!(append_from_wire(None).is_err());
        assert!(append_from_wire(Some(wire::AppendEntries::default())).is_err());
        assert!(decode_payload(Bytes::from_static(b"\xff{")).is_err());
    }
}
