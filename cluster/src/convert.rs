//! Between the nouns of `model` and the node-to-node messages, and the small things both sides
//! of a call need.
//!
//! Messages from a peer are checked like any outside bytes. By what they are about: `writes`, `pushes`,
//! `selections`, `series`, `cardinality`; here is what all of them use.

mod cardinality;
mod pushes;
mod selections;
mod series;
mod writes;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use model::port::Dice;
use model::{ClusterId, Labels};
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;
use proto::node as wire;

use crate::refusal::Refusal;

pub use cardinality::{cardinality_from_wire, cardinality_to_wire};
pub use pushes::{
    group_from_wire, group_to_wire, key_from_wire, key_to_wire, metadata_families_from_wire,
    metadata_families_to_wire, push_from_wire, push_to_wire,
};
pub use selections::{
    delete_from_wire, delete_to_wire, metadata_from_wire, metadata_to_wire, selection_from_wire,
    selection_to_wire, sets_from_wire, sets_to_wire,
};
pub use series::{
    exemplars_from_wire, exemplars_to_wire, join_series, pieces, series_from_wire, series_to_wire,
};
pub use writes::{
    batch_from_wire, batch_to_wire, histograms_from_wire, written_from_wire, written_to_wire,
};

/// Gives a future the seeded random source that openraft asks its task for. Everything that
/// calls openraft runs in such a scope.
pub fn scoped<'a, F>(dice: &Arc<dyn Dice>, future: F) -> BoxFuture<'a, F::Output>
where
    F: Future + Send + 'a,
{
    DeterministicRng::<TokioRuntime>::scope(dice.roll(), future).boxed()
}

/// A message that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(pub String);

impl Malformed {
    pub(crate) fn new(what: impl ToString) -> Self {
        Self(what.to_string())
    }
}

pub fn cluster_id_to_wire(id: ClusterId) -> Bytes {
    Bytes::copy_from_slice(&id.0.to_be_bytes())
}

pub fn cluster_id_from_wire(bytes: &[u8]) -> Option<ClusterId> {
    Some(ClusterId(u128::from_be_bytes(bytes.try_into().ok()?)))
}

pub fn labels_to_wire(labels: &Labels) -> Bytes {
    Bytes::copy_from_slice(labels.as_canonical())
}

pub fn labels_from_wire(block: &[u8]) -> Result<Labels, Malformed> {
    Labels::from_canonical(block).map_err(Malformed::new)
}

pub fn label_sets_to_wire(sets: &[Labels]) -> Vec<Bytes> {
    sets.iter().map(labels_to_wire).collect()
}

pub fn label_sets_from_wire(sets: Vec<Bytes>) -> Result<Vec<Labels>, Malformed> {
    sets.iter().map(|block| labels_from_wire(block)).collect()
}

pub fn refusal_to_wire(refusal: Refusal) -> wire::ShardRefusal {
    use wire::shard_refusal::Kind;
    let (kind, leader, text) = match refusal {
        Refusal::NotLeader(leader) => (Kind::NotLeader, leader, String::new()),
        Refusal::Overloaded(text) => (Kind::Overloaded, None, text),
        Refusal::Unavailable(text) => (Kind::Unavailable, None, text),
        Refusal::TooLarge(text) => (Kind::TooLarge, None, text),
        Refusal::Internal(text) => (Kind::Internal, None, text),
    };
    wire::ShardRefusal {
        kind: kind.into(),
        leader,
        text,
    }
}

pub fn refusal_from_wire(refusal: wire::ShardRefusal) -> Refusal {
    use wire::shard_refusal::Kind;
    match refusal.kind() {
        Kind::NotLeader => Refusal::NotLeader(refusal.leader),
        Kind::Overloaded => Refusal::Overloaded(refusal.text),
        Kind::Unavailable | Kind::Unknown => Refusal::Unavailable(refusal.text),
        Kind::TooLarge => Refusal::TooLarge(refusal.text),
        Kind::Internal => Refusal::Internal(refusal.text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_survive_the_wire() {
        for refusal in [
            Refusal::NotLeader(Some(3)),
            Refusal::NotLeader(None),
            Refusal::Overloaded("a".into()),
            Refusal::Unavailable("b".into()),
            Refusal::TooLarge("c".into()),
            Refusal::Internal("d".into()),
        ] {
            assert_eq!(refusal_from_wire(refusal_to_wire(refusal.clone())), refusal);
        }
    }
}
