//! Votes that other nodes tell, gathered until they confirm what this node claims.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::ShardId;
use model::source::Consistency;

use crate::raft::standing::{Claim, Leadership};
use crate::shard::Replica;

type Seen = BTreeMap<(u64, ShardId), Leadership>;

/// The votes of a question, by node and shard. They are told and looked at within one task: waking
/// it from within itself would cost a turn of another thread.
#[derive(Debug, Default)]
pub struct Votes(Mutex<Seen>);

impl Votes {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `node` tells first counts: later it tells no more of the time before the question.
    pub fn tell(&self, node: u64, seen: impl IntoIterator<Item = (ShardId, Leadership)>) {
        let mut all = self.seen();
        for (shard, seen) in seen {
            all.entry((node, shard)).or_insert(seen);
        }
    }

    /// Whether what was told so far confirms all claims.
    pub fn confirm(&self, claims: &[(ShardId, Claim)]) -> bool {
        let told = self.seen();
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
        seen: impl Fn(u64, ShardId) -> Option<Leadership>,
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_hold_once_a_majority_told_of_each_shard() {
        let votes = Votes::default();
        assert!(votes.confirm(&[]));
        let claim = || Claim::of_first(&[&[1, 2, 3]]);
        let claims = [(ShardId(1), claim()), (ShardId(2), claim())];
        let at = |term| Leadership { term, node: 1 };
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
}
