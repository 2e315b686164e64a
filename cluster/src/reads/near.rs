//! Small questions answered by this node's own replicas, leaders or not, once another node's word
//! has confirmed that they lack nothing.
//!
//! Promise: the answer holds what a leader's would, everything acknowledged before the question
//! (docs/adr/0035-reads-from-level-replicas.md). Where a replica here is behind its own log, or a peer's
//! log ends later, or the question is a large one, there is no answer, and the leaders are asked.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use model::ShardId;
use model::fragment::FragmentError;
use model::source::{Consistency, SourceError};

use super::answer::Little;
use super::ask::{Notes, Other, Round};
use super::votes::Standings;
use super::{AllShards, Found, Question};
use crate::router::Router;

/// A peer that does not confirm in so long is not waited for.
const PATIENCE: Duration = Duration::from_millis(100);
/// After an attempt in vain none is made for so many times what it took: a tenth at most is wasted.
const REST: u32 = 10;

/// Whom to ask next, and when.
#[derive(Debug, Default)]
pub struct Near(Mutex<Turn>);

#[derive(Debug, Default, Clone, Copy)]
struct Turn {
    /// Moves on with each attempt in vain, so that a silent peer is not asked again and again.
    first: usize,
    /// On the monotonic clock.
    resume_at: Duration,
}

impl Near {
    /// Which peer is asked first, when one may be.
    fn turn(&self, now: Duration) -> Option<usize> {
        let turn = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (now >= turn.resume_at).then_some(turn.first)
    }

    fn rest(&self, began: Duration, now: Duration) {
        let mut turn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turn.first = turn.first.wrapping_add(1);
        let took = now.saturating_sub(began);
        turn.resume_at = now.saturating_add(took.saturating_mul(REST));
    }
}

/// The whole answer, or none where it could not be had so.
pub(super) async fn ask(
    source: &AllShards,
    question: &Question,
    notes: &Notes<'_>,
) -> Result<Option<Found>, FragmentError> {
    let (router, clock) = (&source.router, &source.router.world.clock);
    if question.consistency() == Consistency::Local {
        return Ok(None);
    }
    let began = clock.monotonic();
    let Some((here, others)) = standing(router, &source.shards, began) else {
        return Ok(None);
    };
    let Some(little) = Little::of(&router.evaluator, &here.replicas, question).await else {
        return Ok(None);
    };
    let round = Round {
        router,
        question,
        notes,
        here,
        others,
        nowhere: Vec::new(),
    };
    match round.ask(Some(little), Some(PATIENCE)).await {
        Ok((found, left)) if left.is_empty() => Ok(Some(found)),
        // What is damaged here need not be where the leaders are.
        Ok(_) | Err(FragmentError::Source(SourceError::Internal(_))) => {
            router.near.rest(began, clock.monotonic());
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Replicas here of all shards that may answer, and the peers to confirm it; none where there are no
/// such replicas, or no peer is needed.
fn standing(router: &Router, shards: &[ShardId], now: Duration) -> Option<(Standings, Vec<Other>)> {
    let first = router.near.turn(now)?;
    let here = Standings::near(shards, |shard| router.replica(shard))?;
    let claims = here.claims.iter();
    let voters: BTreeSet<u64> = claims.flat_map(|(_, claim)| claim.voters()).collect();
    let peers = voters.into_iter().filter(|node| *node != router.node);
    let peers: Vec<u64> = peers.collect();
    let in_turn = (0..peers.len()).map(|at| peers[first.wrapping_add(at) % peers.len()]);
    let other = |node| {
        Some(Other {
            node,
            peer: router.peer(node)?,
            shards: Vec::new(),
        })
    };
    let others = here.confirmers(in_turn)?.into_iter().map(other);
    let others: Vec<Other> = others.collect::<Option<_>>()?;
    (!others.is_empty()).then_some((here, others))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_in_vain_is_followed_by_a_rest_and_another_peer() {
        let near = Near::default();
        let at = Duration::from_millis;
        assert_eq!(near.turn(at(5)), Some(0));
        near.rest(at(5), at(7));
        assert_eq!(near.turn(at(26)), None);
        assert_eq!(near.turn(at(27)), Some(1));
    }
}
