//! Where a replica stands in its group, told without asking the group's own task: what it claims, and
//! what other replicas must have seen for the claim to hold.
//!
//! A leader that still leads has applied everything it acknowledged, and everything its predecessors
//! did is in its log before the entry it began with. So its state is fresh enough for a read that
//! began earlier, if nobody can have been elected before the read began. A replica saves a vote
//! before it grants it, and votes only rise: if a majority's saved votes were, at some instants after
//! the read began, no higher than the leader's own, then no majority had granted a higher one before
//! (docs/adr/0013-reads-confirmed-by-votes.md). No clock is in the argument.
//!
//! Whoever leads, a replica that has applied all that is in its log lacks nothing that was acknowledged
//! when the read began, if, at some instants after that, a majority's logs ended no later: each entry
//! that was committed lies in one of them (docs/adr/0035-reads-from-level-replicas.md).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use model::GroupId;

use super::types::{LeaderId, Raft, ServerState, StoredMembers, WatchReceiver};

/// Whom a replica has voted for, or follows: a later one is higher.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leadership {
    pub term: u64,
    pub node: u64,
}

impl Leadership {
    const HIGHEST: Self = Self {
        term: u64::MAX,
        node: u64::MAX,
    };
}

impl From<wal::Vote> for Leadership {
    fn from(vote: wal::Vote) -> Self {
        Self {
            term: vote.term,
            node: vote.node.0,
        }
    }
}

impl From<LeaderId> for Leadership {
    fn from(id: LeaderId) -> Self {
        Self {
            term: id.term,
            node: id.node_id,
        }
    }
}

/// What a replica has saved.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The highest vote, which may have been granted.
    pub vote: Leadership,
    /// Where its log ends; none from who does not say so.
    pub reached: Option<u64>,
}

impl Seen {
    /// Of each the higher.
    #[must_use]
    pub fn or_higher(self, other: Self) -> Self {
        Self {
            vote: self.vote.max(other.vote),
            reached: self.reached.max(other.reached),
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

/// Whether a log ends before that of an earlier replica did.
pub fn is_short(log: &wal::GroupState, before: Seen) -> bool {
    log.last.map(|last| last.index) < before.reached
}

/// One replica of a group, looked at from outside.
pub struct Standing {
    raft: Raft,
    log: Arc<dyn wal::Log>,
    group: GroupId,
    changes: Changes,
    /// Of replicas that were here earlier.
    before: Seen,
    /// Whether its log ended before theirs when it was last looked at.
    owes: AtomicBool,
}

/// That a replica has applied what a read must see.
pub struct Claim {
    ground: Ground,
    node: u64,
    members: Arc<StoredMembers>,
}

/// Why a replica has.
#[derive(Debug, Clone, Copy)]
enum Ground {
    /// It leads by this vote, and has applied an entry of its own time.
    Leads(Leadership),
    /// It has applied its log, which ends no later than here.
    IsLevel(u64),
}

impl Standing {
    pub fn new(
        raft: Raft,
        log: Arc<dyn wal::Log>,
        group: GroupId,
        changes: Changes,
        before: Seen,
    ) -> Self {
        Self {
            raft,
            log,
            group,
            changes,
            before,
            owes: AtomicBool::new(true),
        }
    }

    /// Whether an earlier replica here had more of the log: entries may be committed that only a majority with
    /// this node has. Until they are here again it must vote for nobody, nor stand for election itself, which
    /// it may from then on.
    pub fn owes(&self) -> bool {
        if !self.owes.load(Ordering::SeqCst) {
            return false;
        }
        if is_short(&self.log.state(self.group), self.before) {
            return true;
        }
        if self.owes.swap(false, Ordering::SeqCst) && self.before.reached.is_some() {
            self.raft.runtime_config().elect(true);
            let (group, reached) = (self.group, self.before.reached);
            tracing::info!(%group, reached, "a replica that came back may vote");
        }
        false
    }

    /// Whether this replica is a later one than its group had here, and does not vote for good yet.
    pub fn is_coming_back(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let configs = metrics.membership_config.membership().get_joint_config();
        let votes = matches!(configs.as_slice(), [voters] if voters.contains(&metrics.id));
        self.before != Seen::default() && !votes
    }

    /// What is saved here, or was by an earlier replica. Where the log cannot be believed, what speaks
    /// against every claim.
    pub fn seen(&self) -> Seen {
        if self.log.quarantined(self.group).is_some() {
            return Seen {
                vote: Leadership::HIGHEST,
                reached: None,
            };
        }
        let state = self.log.state(self.group);
        let seen = Seen {
            vote: state.vote.map(Leadership::from).unwrap_or_default(),
            reached: state.last.map(|last| last.index),
        };
        seen.or_higher(self.before)
    }

    /// What this node may claim as the leader now; nothing when Raft itself has to be asked.
    pub fn claim(&self) -> Option<Claim> {
        let (leadership, claim) = self.last_told()?;
        // What Raft tells may be of a moment ago; what is saved is of now.
        (self.seen().vote == leadership).then_some(claim)
    }

    /// What this node may claim whoever leads: nothing while it has not applied all of its log.
    pub fn level(&self) -> Option<Claim> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let applied = metrics.last_applied.as_ref()?.index;
        // Told together: the last members that lie in the log up to there. Later ones would lie behind.
        let members = &metrics.membership_config;
        let members_at = members.log_id().as_ref()?.index;
        let reached = self.seen().reached?;
        (reached <= applied && members_at <= applied).then(|| Claim {
            ground: Ground::IsLevel(applied),
            node: metrics.id,
            members: members.clone(),
        })
    }

    fn last_told(&self) -> Option<(Leadership, Claim)> {
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
        (leads && has_applied && is_current).then(|| {
            let claim = Claim {
                ground: Ground::Leads(leadership),
                node: metrics.id,
                members: members.clone(),
            };
            (leadership, claim)
        })
    }
}

impl Claim {
    /// Whether a majority of the voters, in both memberships while they change, has seen nothing
    /// that speaks against it; `seen` says what another node has. The claiming node itself has not.
    pub fn holds(&self, seen: impl Fn(u64) -> Option<Seen>) -> bool {
        self.has_majority(|node| seen(node).is_some_and(|seen| self.agrees(seen)))
    }

    fn agrees(&self, seen: Seen) -> bool {
        match self.ground {
            Ground::Leads(leadership) => seen.vote <= leadership,
            Ground::IsLevel(applied) => seen.reached.is_some_and(|reached| reached <= applied),
        }
    }

    /// Whether the claiming node and those for which `is_in` is true are a majority of the voters.
    pub fn has_majority(&self, is_in: impl Fn(u64) -> bool) -> bool {
        let agrees = |node: &&u64| **node == self.node || is_in(**node);
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
            ground: Ground::Leads(Leadership { term: 5, node: 1 }),
            node: 1,
            members: Arc::new(StoredMembers::new(None, members)),
        }
    }

    /// The same, having applied 7 entries.
    pub fn of_level(configs: &[&[u64]]) -> Self {
        Self {
            ground: Ground::IsLevel(7),
            ..Self::of_first(configs)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_majority_must_have_seen_nothing_higher() {
        let at = |term, node| {
            Some(Seen {
                vote: Leadership { term, node },
                reached: None,
            })
        };
        let seen = |votes: &[(u64, Option<Seen>)]| {
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

    #[test]
    fn a_majority_must_have_nothing_that_was_not_applied() {
        let at = |reached| {
            Some(Seen {
                // Who leads does not matter.
                vote: Leadership { term: 9, node: 9 },
                reached,
            })
        };
        let told = |node: u64, reached| move |asked| at(reached).filter(|_| asked == node);
        let three = Claim::of_level(&[&[1, 2, 3]]);
        assert!(!three.holds(|_| None));
        assert!(three.holds(told(2, Some(7))));
        assert!(three.holds(told(3, Some(6))));
        assert!(!three.holds(told(2, Some(8))));
        // Who does not say where its log ends does not count, nor who is no voter.
        assert!(!three.holds(told(2, None)));
        assert!(!three.holds(told(4, Some(7))));
        // Who learns alone is no majority of those who vote.
        assert!(!Claim::of_level(&[&[2, 3, 4]]).holds(told(2, Some(7))));
        let changing = Claim::of_level(&[&[1, 2, 3], &[1, 4, 5]]);
        assert!(!changing.holds(told(2, Some(7))));
        assert!(changing.holds(|node| at(Some(7)).filter(|_| node == 2 || node == 5)));
    }
}
