//! What a node knows of the cluster, for people.

use crate::meta::State;
use crate::raft::types::Raft;
use crate::raft::types::WatchReceiver;

/// The part one Raft group's replica on this node plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Leader,
    Follower,
    Learner,
    Candidate,
    /// The shard has no replica here.
    Absent,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Learner => "learner",
            Self::Candidate => "candidate",
            Self::Absent => "absent",
        }
    }
}

/// One Raft group, seen from this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    pub leader: Option<u64>,
    pub replicas: Vec<u64>,
    pub role: Role,
    pub term: u64,
    pub last_log: u64,
    pub applied: u64,
    /// Entries that are committed but not applied here, as far as this node knows.
    pub lag: u64,
}

/// The whole, seen from this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub node_id: u64,
    pub address: String,
    pub state: std::sync::Arc<State>,
    pub meta: GroupStatus,
    /// By shard.
    pub shards: Vec<GroupStatus>,
}

/// A group that does not run here.
pub fn absent(replicas: Vec<u64>) -> GroupStatus {
    GroupStatus {
        leader: None,
        replicas,
        role: Role::Absent,
        term: 0,
        last_log: 0,
        applied: 0,
        lag: 0,
    }
}

/// A group that runs here.
pub fn of_group(raft: &Raft) -> GroupStatus {
    use crate::raft::types::ServerState;
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let index = |id: &Option<crate::raft::types::LogId>| id.as_ref().map_or(0, |id| id.index);
    let applied = index(&metrics.last_applied);
    GroupStatus {
        leader: metrics.current_leader,
        replicas: metrics.membership_config.membership().voter_ids().collect(),
        role: match metrics.state {
            ServerState::Leader => Role::Leader,
            ServerState::Follower => Role::Follower,
            ServerState::Learner => Role::Learner,
            ServerState::Candidate => Role::Candidate,
            ServerState::Shutdown => Role::Absent,
        },
        term: metrics.current_term,
        last_log: metrics.last_log_index.unwrap_or(0),
        applied,
        lag: index(&metrics.local_committed).saturating_sub(applied),
    }
}
