//! What replicas say of themselves: whom they follow in which term, and what state they are in.

use std::collections::{BTreeMap, BTreeSet};

use model::{GroupId, NodeId, ShardId};

use super::{Violation, violation};

/// Everything replicas said so far.
#[derive(Debug, Default)]
pub struct Replicas {
    /// The newest leader that a life of a machine took for one, and its term.
    followed: BTreeMap<(usize, GroupId), (u64, NodeId)>,
    /// Every leader, by group and term.
    leaders: BTreeSet<(GroupId, u64, NodeId)>,
    /// The digest at an index, and the machines whose replica had it.
    digests: BTreeMap<(ShardId, u64), (u64, BTreeSet<usize>)>,
}

impl Replicas {
    /// A machine starts a new life: what it forgot by that it may see again.
    pub fn reborn(&mut self, machine: usize) {
        self.followed.retain(|(other, _), _| *other != machine);
    }

    /// Machine `machine` takes `leader` for the leader of `group` in `term`; true when that is
    /// news to all.
    ///
    /// Votes are ordered by term, then by node: a second leader in one term is a successor and has
    /// the larger id, so nobody ever goes back to a smaller pair.
    pub fn leads(
        &mut self,
        machine: usize,
        group: GroupId,
        term: u64,
        leader: NodeId,
    ) -> Result<bool, Violation> {
        let before = self.followed.insert((machine, group), (term, leader));
        match before.filter(|before| *before > (term, leader)) {
            None => Ok(self.leaders.insert((group, term, leader))),
            Some(before) => violation(format!(
                "machine {machine} went back from leader {before:?} of {group} to {leader} in {term}"
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

    /// The newest index of `shard` at which `nodes` machines or more were seen in the same state, above
    /// `after`.
    pub fn agreed(&self, shard: ShardId, nodes: usize, after: u64) -> Option<(u64, u64)> {
        self.digests
            .range((shard, after + 1)..=(shard, u64::MAX))
            .rev()
            .find(|(_, (_, seen))| seen.len() >= nodes)
            .map(|((_, index), (digest, _))| (*index, *digest))
    }

    /// The shards of which a machine was seen to have a replica.
    pub fn of(&self, machine: usize) -> BTreeSet<ShardId> {
        let had = self
            .digests
            .iter()
            .filter(|(_, (_, seen))| seen.contains(&machine));
        had.map(|((shard, _), _)| *shard).collect()
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
    fn going_back_to_an_earlier_leader_is_caught() {
        let mut replicas = Replicas::default();
        let leads = |r: &mut Replicas, term, node| r.leads(0, GroupId(1), term, NodeId(node));
        assert_eq!(leads(&mut replicas, 1, 1), Ok(true));
        assert_eq!(leads(&mut replicas, 1, 1), Ok(false));
        assert_eq!(leads(&mut replicas, 1, 2), Ok(true));
        assert!(leads(&mut replicas, 1, 1).is_err());
        assert_eq!(leads(&mut replicas, 2, 1), Ok(true));
        assert!(leads(&mut replicas, 1, 2).is_err());
        replicas.reborn(0);
        assert_eq!(leads(&mut replicas, 1, 2), Ok(false));
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
        assert_eq!(
            (replicas.of(1), replicas.of(2)),
            (BTreeSet::from([shard]), BTreeSet::new())
        );
        assert!(replicas.is_at(2, shard, 6, 79).is_err());
    }
}
