//! What replicas say of themselves: who leads in which term, and what state they are in.

use std::collections::{BTreeMap, BTreeSet};

use model::{GroupId, NodeId, ShardId};

use super::{Violation, violation};

/// Everything replicas said so far.
#[derive(Debug, Default)]
pub struct Replicas {
    leaders: BTreeMap<(GroupId, u64), NodeId>,
    /// The digest at an index, and the machines whose replica had it.
    digests: BTreeMap<(ShardId, u64), (u64, BTreeSet<usize>)>,
}

impl Replicas {
    /// Somebody takes `leader` for the leader of `group` in `term`; true when that is news.
    pub fn leads(&mut self, group: GroupId, term: u64, leader: NodeId) -> Result<bool, Violation> {
        match self.leaders.insert((group, term), leader) {
            None => Ok(true),
            Some(same) if same == leader => Ok(false),
            Some(other) => violation(format!(
                "{group} has two leaders in term {term}: {other} and {leader}"
            )),
        }
    }

    /// The replica of `shard` on machine `node` has applied `index` and is in this state.
    pub fn is_at(
        &mut self,
        node: usize,
        shard: ShardId,
        index: u64,
        digest: u64,
    ) -> Result<(), Violation> {
        let (first, nodes) = self
            .digests
            .entry((shard, index))
            .or_insert_with(|| (digest, BTreeSet::new()));
        if *first == digest {
            nodes.insert(node);
            return Ok(());
        }
        violation(format!(
            "{shard} at index {index}: {nodes:?} have digest {first:016x}, {node} has {digest:016x}"
        ))
    }

    /// The newest index of `shard` at which `nodes` machines were seen in the same state, above
    /// `after`.
    pub fn agreed(&self, shard: ShardId, nodes: usize, after: u64) -> Option<(u64, u64)> {
        self.digests
            .range((shard, after + 1)..=(shard, u64::MAX))
            .rev()
            .find(|(_, (_, seen))| seen.len() == nodes)
            .map(|((_, index), (digest, _))| (*index, *digest))
    }

    /// The newest index of `shard` that anybody had.
    pub fn newest(&self, shard: ShardId) -> u64 {
        self.digests
            .range((shard, 0)..=(shard, u64::MAX))
            .next_back()
            .map_or(0, |((_, index), _)| *index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_leaders_in_one_term_are_caught() {
        let mut replicas = Replicas::default();
        let leads = |r: &mut Replicas, term, node| r.leads(GroupId(1), term, NodeId(node));
        assert_eq!(leads(&mut replicas, 1, 1), Ok(true));
        assert_eq!(leads(&mut replicas, 1, 1), Ok(false));
        assert_eq!(leads(&mut replicas, 2, 2), Ok(true));
        assert!(leads(&mut replicas, 1, 2).is_err());
    }

    #[test]
    fn replicas_that_differ_are_caught() {
        let mut replicas = Replicas::default();
        let shard = ShardId(0);
        replicas.is_at(0, shard, 5, 77).unwrap();
        replicas.is_at(1, shard, 5, 77).unwrap();
        replicas.is_at(1, shard, 6, 78).unwrap();
        assert_eq!(replicas.agreed(shard, 2, 0), Some((5, 77)));
        assert_eq!(replicas.agreed(shard, 2, 5), None);
        assert_eq!(replicas.newest(shard), 6);
        assert!(replicas.is_at(2, shard, 6, 79).is_err());
    }
}
