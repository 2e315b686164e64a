//! Where a replica stands in its group, told without asking the group's own task: what a leader
//! claims, and what other replicas must have seen for the claim to hold.
//!
//! A leader that still leads has applied everything it acknowledged, and everything its predecessors
//! did is in its log before the entry it began with. So its state is fresh enough for a read that
//! began earlier, if nobody can have been elected before the read began. A replica saves a vote
//! before it grants it, and votes only rise: if a majority's saved votes were, at some instants after
//! the read began, no higher than the leader's own, then no majority had granted a higher one before
//! (docs/adr/0013-reads-confirmed-by-votes.md). No clock is in the argument.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::GroupId;

use super::types::{LeaderId, Raft, ServerState, StoredMembers, WatchReceiver};

/// Whom a replica has voted for, or follows: a later one is higher.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leadership {
    pub term: u64,
    pub node: u64,
}

impl From<LeaderId> for Leadership {
    fn from(id: LeaderId) -> Self {
        Self {
            term: id.term,
            node: id.node_id,
        }
    }
}

/// The index of the last change of members that was put into a group's log, or a higher one.
#[derive(Debug, Default, Clone)]
pub struct Changes(Arc<AtomicU64>);

impl Changes {
    pub fn note(&self, index: u64) {
        self.0.fetch_max(index, Ordering::SeqCst);
    }

    /// The log was cut behind `last`.
    pub fn cut(&self, last: u64) {
        self.0.fetch_min(last, Ordering::SeqCst);
    }

    fn last(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// One replica of a group, looked at from outside.
pub struct Standing {
    raft: Raft,
    log: Arc<dyn wal::Log>,
    group: GroupId,
    changes: Changes,
}

/// That this node leads the group and has applied what it must have.
pub struct Claim {
    leadership: Leadership,
    node: u64,
    members: Arc<StoredMembers>,
}

impl Standing {
    pub fn new(raft: Raft, log: Arc<dyn wal::Log>, group: GroupId, changes: Changes) -> Self {
        Self {
            raft,
            log,
            group,
            changes,
        }
    }

    /// The highest vote saved here, which may have been granted.
    pub fn seen(&self) -> Leadership {
        let vote = self.log.state(self.group).vote;
        vote.map(|vote| Leadership {
            term: vote.term,
            node: vote.node.0,
        })
        .unwrap_or_default()
    }

    /// What this node may claim now; nothing when Raft itself has to be asked.
    pub fn claim(&self) -> Option<Claim> {
        let claim = self.last_told()?;
        // What Raft tells may be of a moment ago; what is saved is of now.
        (self.seen() == claim.leadership).then_some(claim)
    }

    fn last_told(&self) -> Option<Claim> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leadership = Leadership::from(metrics.vote.leader_id);
        let leads = metrics.state == ServerState::Leader
            && metrics.vote.committed
            && leadership.node == metrics.id;
        // An entry of its own time: so all of those before it.
        let applied = metrics.last_applied.as_ref();
        let has_applied = applied.is_some_and(|id| Leadership::from(id.leader_id) == leadership);
        let members = &metrics.membership_config;
        let members_at = members.log_id().as_ref().map_or(0, |id| id.index);
        // A leader does not cut its log: members told since it leads, and none put in since.
        let is_current = members_at >= self.changes.last();
        (leads && has_applied && is_current).then(|| Claim {
            leadership,
            node: metrics.id,
            members: members.clone(),
        })
    }
}

impl Claim {
    /// Whether a majority of the voters, in both memberships while they change, has seen nothing
    /// higher; `seen` says what another node has. The claiming node itself has not.
    pub fn holds(&self, seen: impl Fn(u64) -> Option<Leadership>) -> bool {
        let agrees = |node: &&u64| {
            **node == self.node || seen(**node).is_some_and(|seen| seen <= self.leadership)
        };
        let configs = self.members.membership().get_joint_config();
        let majority = |voters: &std::collections::BTreeSet<u64>| {
            voters.iter().filter(agrees).count() > voters.len() / 2
        };
        !configs.is_empty() && configs.iter().all(majority)
    }

    /// All who may vote.
    pub fn voters(&self) -> impl Iterator<Item = u64> + '_ {
        self.members.membership().voter_ids()
    }
}

#[cfg(test)]
impl Claim {
    /// Of node 1, in groups of these voters, for term 5.
    pub fn of_first(configs: &[&[u64]]) -> Self {
        use std::collections::{BTreeMap, BTreeSet};
        let configs: Vec<BTreeSet<u64>> = configs
            .iter()
            .map(|c| c.iter().copied().collect())
            .collect();
        let ids: BTreeSet<u64> = configs.iter().flatten().copied().collect();
        let nodes: BTreeMap<u64, _> = ids
            .into_iter()
            .map(|id| (id, openraft::impls::BasicNode::default()))
            .collect();
        let members = super::types::Members::new(configs, nodes).unwrap();
        Self {
            leadership: Leadership { term: 5, node: 1 },
            node: 1,
            members: Arc::new(StoredMembers::new(None, members)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_majority_must_have_seen_nothing_higher() {
        let at = |term, node| Some(Leadership { term, node });
        let seen = |votes: &[(u64, Option<Leadership>)]| {
            let votes: BTreeMap<_, _> = votes.iter().copied().collect();
            move |node| votes.get(&node).copied().flatten()
        };
        assert!(Claim::of_first(&[&[1]]).holds(seen(&[])));
        let three = Claim::of_first(&[&[1, 2, 3]]);
        assert!(!three.holds(seen(&[])));
        assert!(three.holds(seen(&[(2, at(5, 1))])));
        assert!(three.holds(seen(&[(2, at(4, 3)), (3, at(6, 3))])));
        assert!(!three.holds(seen(&[(2, at(6, 2))])));
        // The same term with a higher node is a later leader.
        assert!(!three.holds(seen(&[(2, at(5, 2))])));
        // Who is no voter does not count.
        assert!(!three.holds(seen(&[(4, at(5, 1)), (5, at(5, 1))])));
        let changing = Claim::of_first(&[&[1, 2, 3], &[1, 4, 5]]);
        assert!(!changing.holds(seen(&[(2, at(5, 1)), (3, at(5, 1))])));
        assert!(changing.holds(seen(&[(2, at(5, 1)), (5, at(5, 1))])));
    }
}
