//! What the meta group replicates. Applying a command is a pure function of state and command.

use std::collections::BTreeMap;

use model::hash::xxh3;
use model::limits::{CURSOR_BYTES_MAX, CURSORS_MAX};
use model::{ClusterId, NodeId, ShardId};
use serde::{Deserialize, Serialize};

/// Moves remembered for people who ask what happened.
const HISTORY_MAX: usize = 1_000;

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Where other nodes reach its gRPC listener.
    pub address: String,
    pub zone: String,
    pub version: String,
    /// Whether the meta leader hears from it. Only lease owners follow from this.
    pub alive: bool,
}

/// Where one shard's replicas are meant to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The first is preferred as leader.
    pub replicas: Vec<u64>,
    /// Who begins the shard's Raft group; nobody once it has begun, or a replica that moved away
    /// and came back empty would begin it again.
    pub founders: Vec<u64>,
    /// Whether Raft's membership is known to equal `replicas`.
    pub settled: bool,
}

/// One change of placement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub index: u64,
    pub shard: u32,
    pub from: Vec<u64>,
    pub to: Vec<u64>,
}

/// The replicated state.
///
/// Invariants: formed once, after which cluster id, shard count and replication factor never
/// change; `table` has one assignment per shard; a replica is a member.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Hex; empty while not formed.
    pub cluster_id: String,
    pub replication_factor: usize,
    /// Seeds the shard of a label set.
    pub hash_seed: u64,
    pub members: BTreeMap<u64, Member>,
    pub table: Vec<Assignment>,
    /// Rises whenever the set of nodes that may hold leases changes.
    pub lease_epoch: u64,
    pub history: Vec<Move>,
    /// How far this cluster has read each of its children.
    #[serde(default)]
    pub cursors: BTreeMap<String, Cursor>,
}

/// How far another cluster was read: everything up to there is stored here.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The child's own word.
    pub position: String,
    /// Ids of the clusters whose samples the child's stream holds.
    pub origins: Vec<String>,
}

/// A change of the state, as the log holds it (JSON).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first command of a cluster.
    Form {
        cluster_id: String,
        replication_factor: usize,
        hash_seed: u64,
        members: BTreeMap<u64, Member>,
        /// Replicas of each shard.
        placement: Vec<Vec<u64>>,
    },
    /// A node joins, or comes back at another address.
    Join { node: u64, member: Member },
    /// Nodes the meta leader hears, or no longer hears.
    Alive { nodes: BTreeMap<u64, bool> },
    /// A shard's replicas are to be these.
    Place { shard: u32, replicas: Vec<u64> },
    /// Raft's membership of the shard equals these replicas.
    Settled { shard: u32, replicas: Vec<u64> },
    /// A child was read on from `from`; refused when somebody else has moved it meanwhile.
    Advance {
        child: String,
        from: Option<String>,
        to: Cursor,
    },
    /// Cursors of children other than these are forgotten.
    KeepCursors { children: Vec<String> },
}

/// What applying a command gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Done,
    Refused(String),
}

impl State {
    pub fn is_formed(&self) -> bool {
        !self.cluster_id.is_empty()
    }

    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.cluster_id.parse().ok().filter(|_| self.is_formed())
    }

    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.table.len() as u32).map(ShardId)
    }

    pub fn assignment(&self, shard: ShardId) -> Option<&Assignment> {
        self.table.get(shard.0 as usize)
    }

    /// The shard that bytes with this hash belong to.
    pub fn shard_of(&self, canonical: &[u8]) -> ShardId {
        assert!(!self.table.is_empty(), "a formed cluster has shards");
        ShardId((xxh3(self.hash_seed, canonical) % self.table.len() as u64) as u32)
    }

    pub fn address(&self, node: u64) -> Option<&str> {
        self.members
            .get(&node)
            .map(|member| member.address.as_str())
    }

    /// Which living node holds the lease of `target`: the highest random weight, so that a node's
    /// end moves only its own leases.
    pub fn lease_owner(&self, target: u64) -> Option<NodeId> {
        let alive = self.members.iter().filter(|(_, member)| member.alive);
        let weight = |node: u64| xxh3(target, &node.to_le_bytes());
        alive
            .map(|(node, _)| *node)
            .max_by_key(|node| (weight(*node), *node))
            .map(NodeId)
    }

    /// Applies the command at `index` of the log.
    pub fn apply(&mut self, index: u64, command: Command) -> Outcome {
        let result = match command {
            Command::Form {
                cluster_id,
                replication_factor,
                hash_seed,
                members,
                placement,
            } => self.form(
                cluster_id,
                replication_factor,
                hash_seed,
                members,
                placement,
            ),
            _ if !self.is_formed() => Err("the cluster is not formed".to_owned()),
            Command::Join { node, member } => self.join(node, member),
            Command::Alive { nodes } => self.note_alive(&nodes),
            Command::Place { shard, replicas } => self.place(index, shard, replicas),
            Command::Settled { shard, replicas } => self.settle(shard, &replicas),
            Command::Advance { child, from, to } => self.advance(child, from.as_deref(), to),
            Command::KeepCursors { children } => {
                self.cursors.retain(|child, _| children.contains(child));
                Ok(())
            }
        };
        match result {
            Ok(()) => Outcome::Done,
            Err(why) => Outcome::Refused(why),
        }
    }

    fn form(
        &mut self,
        cluster_id: String,
        replication_factor: usize,
        hash_seed: u64,
        members: BTreeMap<u64, Member>,
        placement: Vec<Vec<u64>>,
    ) -> Result<(), String> {
        if self.is_formed() {
            return match self.cluster_id == cluster_id {
                true => Ok(()),
                false => Err(format!("already formed as cluster {}", self.cluster_id)),
            };
        }
        if placement.is_empty() || cluster_id.is_empty() {
            return Err("a cluster has an id and at least one shard".to_owned());
        }
        if !placement
            .iter()
            .flatten()
            .all(|node| members.contains_key(node))
        {
            return Err("a replica is placed on a node that is not a member".to_owned());
        }
        let assignment = |replicas: Vec<u64>| Assignment {
            founders: replicas.clone(),
            replicas,
            settled: false,
        };
        *self = Self {
            cluster_id,
            replication_factor,
            hash_seed,
            members,
            table: placement.into_iter().map(assignment).collect(),
            lease_epoch: 1,
            history: Vec::new(),
            cursors: BTreeMap::new(),
        };
        Ok(())
    }

    fn join(&mut self, node: u64, member: Member) -> Result<(), String> {
        let taken = self
            .members
            .iter()
            .find(|(id, m)| **id != node && m.address == member.address);
        if let Some((other, known)) = taken
            && known.alive
        {
            return Err(format!("{} is the address of node {other}", member.address));
        }
        if self.members.insert(node, member.clone()) != Some(member) {
            self.lease_epoch += 1;
        }
        Ok(())
    }

    fn note_alive(&mut self, nodes: &BTreeMap<u64, bool>) -> Result<(), String> {
        let mut changed = false;
        for (node, alive) in nodes {
            if let Some(member) = self.members.get_mut(node) {
                changed |= member.alive != *alive;
                member.alive = *alive;
            }
        }
        self.lease_epoch += u64::from(changed);
        Ok(())
    }

    fn place(&mut self, index: u64, shard: u32, replicas: Vec<u64>) -> Result<(), String> {
        let stranger = replicas
            .iter()
            .find(|node| !self.members.contains_key(node));
        if let Some(node) = stranger {
            return Err(format!("node {node} is not a member"));
        }
        let assignment = self.table.get_mut(shard as usize).ok_or("no such shard")?;
        if replicas.is_empty() {
            return Err("a shard needs a replica".to_owned());
        }
        if assignment.replicas == replicas {
            return Ok(());
        }
        if !assignment.settled {
            return Err("the shard has not begun, or still moves".to_owned());
        }
        let from = std::mem::replace(&mut assignment.replicas, replicas.clone());
        assignment.settled = false;
        self.history.push(Move {
            index,
            shard,
            from,
            to: replicas,
        });
        let excess = self.history.len().saturating_sub(HISTORY_MAX);
        self.history.drain(..excess);
        Ok(())
    }

    fn advance(&mut self, child: String, from: Option<&str>, to: Cursor) -> Result<(), String> {
        let size = |cursor: &Cursor| {
            let origins = cursor.origins.iter().map(String::len);
            cursor.position.len() + origins.sum::<usize>()
        };
        if child.len() + size(&to) > CURSOR_BYTES_MAX {
            return Err("a cursor too large".to_owned());
        }
        if self.cursors.len() >= CURSORS_MAX && !self.cursors.contains_key(&child) {
            return Err("too many children".to_owned());
        }
        let known = self.cursors.get(&child);
        // The same again counts as done: a command may be proposed twice.
        if known != Some(&to) && known.map(|known| known.position.as_str()) != from {
            return Err("the cursor was moved meanwhile".to_owned());
        }
        self.cursors.insert(child, to);
        Ok(())
    }

    fn settle(&mut self, shard: u32, replicas: &[u64]) -> Result<(), String> {
        let assignment = self.table.get_mut(shard as usize).ok_or("no such shard")?;
        if assignment.replicas == replicas {
            assignment.settled = true;
            assignment.founders.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(n: u64) -> Member {
        Member {
            address: format!("h{n}:9092"),
            zone: String::new(),
            version: "1".to_owned(),
            alive: true,
        }
    }

    fn formed() -> State {
        let mut state = State::default();
        let command = Command::Form {
            cluster_id: "ab".to_owned(),
            replication_factor: 2,
            hash_seed: 0,
            members: (1..=3).map(|n| (n, member(n))).collect(),
            placement: vec![vec![1, 2], vec![2, 3]],
        };
        assert_eq!(state.apply(1, command), Outcome::Done);
        state
    }

    #[test]
    fn a_cluster_is_formed_once() {
        let mut state = formed();
        let again = |id: &str| Command::Form {
            cluster_id: id.to_owned(),
            replication_factor: 1,
            hash_seed: 1,
            members: BTreeMap::from([(9, member(9))]),
            placement: vec![vec![9]],
        };
        let before = state.clone();
        assert!(matches!(state.apply(2, again("cd")), Outcome::Refused(_)));
        assert_eq!(
            state.apply(3, again("ab")),
            Outcome::Done,
            "a repeat changes nothing"
        );
        assert_eq!(state, before);
    }

    #[test]
    fn nothing_happens_before_forming() {
        let mut state = State::default();
        let join = Command::Join {
            node: 1,
            member: member(1),
        };
        assert!(matches!(state.apply(1, join), Outcome::Refused(_)));
        assert_eq!(state, State::default());
    }

    #[test]
    fn leases_move_only_off_a_dead_node_and_with_a_new_epoch() {
        let mut state = formed();
        let owners: Vec<_> = (0..100).map(|t| state.lease_owner(t).unwrap().0).collect();
        assert!((1..=3).all(|n| owners.contains(&n)), "spread");
        state.apply(
            2,
            Command::Alive {
                nodes: BTreeMap::from([(2, false)]),
            },
        );
        assert_eq!(state.lease_epoch, 2);
        for (target, owner) in owners.iter().enumerate() {
            let now = state.lease_owner(target as u64).unwrap().0;
            assert!(now != 2 && (now == *owner || *owner == 2));
        }
        state.apply(
            3,
            Command::Alive {
                nodes: BTreeMap::from([(2, false)]),
            },
        );
        assert_eq!(state.lease_epoch, 2, "no change, no new epoch");
    }

    #[test]
    fn placement_changes_are_unsettled_until_said_otherwise() {
        let mut state = formed();
        let early = Command::Place {
            shard: 1,
            replicas: vec![1, 3],
        };
        assert!(
            matches!(state.apply(3, early), Outcome::Refused(_)),
            "it has not begun"
        );
        state.apply(
            4,
            Command::Settled {
                shard: 1,
                replicas: vec![2, 3],
            },
        );
        assert!(state.table[1].settled && state.table[1].founders.is_empty());
        state.apply(
            5,
            Command::Place {
                shard: 1,
                replicas: vec![1, 3],
            },
        );
        assert!(!state.table[1].settled);
        state.apply(
            6,
            Command::Settled {
                shard: 1,
                replicas: vec![2, 3],
            },
        );
        assert!(!state.table[1].settled, "an older placement's word");
        state.apply(
            7,
            Command::Settled {
                shard: 1,
                replicas: vec![1, 3],
            },
        );
        assert!(state.table[1].settled);
        assert_eq!(state.history.len(), 1);
        let stranger = Command::Place {
            shard: 0,
            replicas: vec![8],
        };
        assert!(matches!(state.apply(8, stranger), Outcome::Refused(_)));
    }

    #[test]
    fn a_living_nodes_address_cannot_be_taken() {
        let mut state = formed();
        let take = Command::Join {
            node: 9,
            member: member(1),
        };
        assert!(matches!(state.apply(2, take.clone()), Outcome::Refused(_)));
        state.apply(
            3,
            Command::Alive {
                nodes: BTreeMap::from([(1, false)]),
            },
        );
        assert_eq!(
            state.apply(4, take),
            Outcome::Done,
            "a wiped node comes back as another"
        );
    }
}
