//! Votes and ends of logs that other nodes tell, gathered until they confirm what this node claims.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::ShardId;
use model::source::Consistency;

use crate::raft::standing::{Claim, Seen};
use crate::shard::Replica;

type Told = BTreeMap<(u64, ShardId), Seen>;

/// What was told for a question, by node and shard, and is looked at within one task: waking it from
/// within itself would cost a turn of another thread.
#[derive(Debug, Default)]
pub struct Votes(Mutex<Told>);

impl Votes {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `node` tells first counts: later it tells no more of the time before the question.
    pub fn tell(&self, node: u64, seen: impl IntoIterator<Item = (ShardId, Seen)>) {
        let mut all = self.told();
        for (shard, seen) in seen {
            all.entry((node, shard)).or_insert(seen);
        }
    }

    /// Whether what was told so far confirms all claims.
    pub fn confirm(&self, claims: &[(ShardId, Claim)]) -> bool {
        let told = self.told();
        claims
            .iter()
            .all(|(shard, claim)| claim.holds(|node| told.get(&(node, *shard)).copied()))
    }
}

/// The replicas here that may answer at once, with what must be confirmed of them, and the others.
pub struct Standings {
    pub replicas: Vec<Arc<Replica>>,
    pub claims: Vec<(ShardId, Claim)>,
    pub unclear: Vec<Arc<Replica>>,
}

impl Standings {
    /// `seen` says what another node has told already, by node and shard.
    pub fn of(
        replicas: impl IntoIterator<Item = Arc<Replica>>,
        consistency: Consistency,
        seen: impl Fn(u64, ShardId) -> Option<Seen>,
    ) -> Self {
        let mut standings = Self {
            replicas: Vec::new(),
            claims: Vec::new(),
            unclear: Vec::new(),
        };
        for replica in replicas {
            if consistency == Consistency::Local {
                standings.replicas.push(replica);
                continue;
            }
            match replica.standing.claim() {
                None => standings.unclear.push(replica),
                Some(claim) => {
                    let shard = replica.shard;
                    if !claim.holds(|node| seen(node, shard)) {
                        standings.claims.push((shard, claim));
                    }
                    standings.replicas.push(replica);
                }
            }
        }
        standings
    }

    /// The same of all `shards`, from replicas here that lead or have applied all of their logs; none
    /// where one of them is not such a replica.
    pub fn near(
        shards: &[ShardId],
        replica: impl Fn(ShardId) -> Option<Arc<Replica>>,
    ) -> Option<Self> {
        let mut standings = Self {
            replicas: Vec::with_capacity(shards.len()),
            claims: Vec::with_capacity(shards.len()),
            unclear: Vec::new(),
        };
        for &shard in shards {
            let replica = replica(shard)?;
            let claim = replica.standing.claim();
            let claim = claim.or_else(|| replica.standing.level())?;
            standings.claims.push((shard, claim));
            standings.replicas.push(replica);
        }
        Some(standings)
    }

    /// Of `voters`, in their order, some that can confirm all claims together; none where they cannot.
    pub fn confirmers(&self, voters: impl IntoIterator<Item = u64>) -> Option<Vec<u64>> {
        let suffice = |nodes: &[u64]| {
            let mut claims = self.claims.iter();
            claims.all(|(_, claim)| claim.has_majority(|node| nodes.contains(&node)))
        };
        let mut nodes = Vec::new();
        let mut voters = voters.into_iter();
        while !suffice(&nodes) {
            nodes.push(voters.next()?);
        }
        Some(nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::standing::Leadership;

    #[test]
    fn claims_hold_once_a_majority_told_of_each_shard() {
        let votes = Votes::default();
        assert!(votes.confirm(&[]));
        let claim = || Claim::of_first(&[&[1, 2, 3]]);
        let claims = [(ShardId(1), claim()), (ShardId(2), claim())];
        let at = |term| Seen {
            vote: Leadership { term, node: 1 },
            reached: None,
        };
        assert!(!votes.confirm(&claims));
        votes.tell(2, [(ShardId(1), at(5)), (ShardId(2), at(6))]);
        assert!(!votes.confirm(&claims));
        assert!(votes.confirm(&claims[..1]));
        // Who was told higher at first is not heard when he is told lower.
        votes.tell(2, [(ShardId(2), at(5))]);
        assert!(!votes.confirm(&claims));
        votes.tell(3, [(ShardId(2), at(4))]);
        assert!(votes.confirm(&claims));
    }

    #[test]
    fn as_many_are_asked_as_make_a_majority() {
        let of = |configs: &[&[&[u64]]]| {
            let claims = configs.iter().map(|configs| Claim::of_level(configs));
            Standings {
                replicas: Vec::new(),
                claims: (0..).map(ShardId).zip(claims).collect(),
                unclear: Vec::new(),
            }
        };
        assert_eq!(of(&[&[&[1]]]).confirmers([2, 3]), Some(vec![]));
        assert_eq!(of(&[&[&[1, 2, 3]]]).confirmers([3, 2]), Some(vec![3]));
        assert_eq!(of(&[&[&[1, 2, 3]]]).confirmers([]), None);
        let apart = of(&[&[&[1, 2, 3]], &[&[1, 3, 4]]]);
        assert_eq!(apart.confirmers([2, 4, 3]), Some(vec![2, 4]));
        assert_eq!(apart.confirmers([3, 2, 4]), Some(vec![3]));
        let changing = of(&[&[&[1, 2, 3], &[1, 4, 5]]]);
        assert_eq!(changing.confirmers([2, 3, 4, 5]), Some(vec![2, 3, 4]));
    }
}
