//! Votes that other nodes tell, gathered until they confirm what this node claims.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::ShardId;
use model::source::Consistency;
use tokio::sync::watch;

use crate::raft::standing::{Claim, Leadership};
use crate::shard::Replica;

/// What is known so far.
#[derive(Debug, Default)]
struct Known {
    /// By node and shard.
    seen: BTreeMap<(u64, ShardId), Leadership>,
    /// Nodes that were asked and have not told yet.
    open: usize,
}

/// The votes of a question.
pub struct Votes(watch::Sender<Known>);

/// One node that will tell its votes, or not.
pub struct Teller<'a> {
    votes: &'a Votes,
    node: u64,
    is_done: bool,
}

impl Votes {
    pub fn new() -> Self {
        Self(watch::Sender::default())
    }

    /// Votes of `node` will be told through this; dropping it says that they will not.
    pub fn teller(&self, node: u64) -> Teller<'_> {
        self.0.send_modify(|known| known.open += 1);
        Teller {
            votes: self,
            node,
            is_done: false,
        }
    }

    /// Waits until all claims hold, or nobody is left who could tell more. Whether they hold.
    pub async fn confirm(&self, claims: &[(ShardId, Claim)]) -> bool {
        let holds = |known: &Known| {
            claims
                .iter()
                .all(|(shard, claim)| claim.holds(|node| known.seen.get(&(node, *shard)).copied()))
        };
        let mut receiver = self.0.subscribe();
        let end = receiver
            .wait_for(|known| known.open == 0 || holds(known))
            .await;
        end.is_ok_and(|known| holds(&known))
    }
}

impl Teller<'_> {
    pub fn tell(&mut self, seen: impl IntoIterator<Item = (ShardId, Leadership)>) {
        if std::mem::replace(&mut self.is_done, true) {
            return;
        }
        let node = self.node;
        self.votes.0.send_modify(|known| {
            known.open -= 1;
            let seen = seen.into_iter();
            known
                .seen
                .extend(seen.map(|(shard, seen)| ((node, shard), seen)));
        });
    }
}

impl Drop for Teller<'_> {
    fn drop(&mut self) {
        self.tell([]);
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

    #[tokio::test]
    async fn without_claims_nobody_is_waited_for_and_silence_ends_the_waiting() {
        let votes = Votes::new();
        let teller = votes.teller(2);
        assert!(votes.confirm(&[]).await);
        drop(teller);
        assert!(votes.confirm(&[]).await);
        let mut twice = votes.teller(3);
        twice.tell([(ShardId(1), Leadership::default())]);
        twice.tell([(ShardId(2), Leadership::default())]);
        drop(twice);
        let known = votes.0.borrow();
        assert_eq!((known.open, known.seen.len()), (0, 1));
    }
}
