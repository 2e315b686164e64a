//! Where shards live: plain functions from members to a table.
//!
//! A consistent-hash ring with virtual nodes proposes an order of nodes for each shard; the table
//! in the meta group decides. The ring is fed fixed bytes through XXH3, never std's `Hash` layout,
//! which differs between machines and compilers.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use consistent_hash::{Node, RingHash, StaticHashRing};
use model::hash::xxh3;

use crate::meta::State;

const VIRTUAL_NODES: usize = 256;
/// Shards that may be moving at once, all nodes together.
const MOVES_MAX: usize = 2;

/// Shards of a cluster that nobody gave a number: enough for a query to use the cores of a node.
const SHARDS_MIN: usize = 4;
const SHARDS_MAX: usize = 64;

/// A key of the ring whose `Hash` is exactly its eight little-endian bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key(u64);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0.to_le_bytes());
    }
}

/// Collects the bytes it is given.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        xxh3(0, &self.0)
    }
}

#[derive(Debug, Clone, Copy)]
struct Ring;

impl RingHash for Ring {
    fn hash_item<T: Hash>(&self, item: &T) -> u64 {
        let mut bytes = Bytes::default();
        item.hash(&mut bytes);
        bytes.finish()
    }

    fn hash_vnode<K: Hash>(&self, node: &K, number: usize) -> u64 {
        let mut bytes = Bytes::default();
        node.hash(&mut bytes);
        bytes.write(&(number as u64).to_le_bytes());
        bytes.finish()
    }
}

/// Nodes in the ring's order of preference for each shard.
fn preferences(nodes: impl Iterator<Item = u64>, shards: usize) -> Vec<Vec<u64>> {
    let members = nodes.map(|id| Node::new(Key(id)).quantity(VIRTUAL_NODES));
    let ring = StaticHashRing::new(Ring, members);
    let order = |shard: usize| {
        ring.calc_candidates(&Key(shard as u64))
            .map(|n| n.key.0)
            .collect()
    };
    (0..shards).map(order).collect()
}

/// How much each node holds: replicas, and shards it is preferred to lead.
#[derive(Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Load {
    replicas: usize,
    leaders: usize,
}

/// How many shards a cluster is formed with when nobody says: one for each node and for each core of
/// the founder, and some to grow by. Each costs its own entry for a request that touches it.
pub fn shards_for(nodes: usize, cores: u32) -> u32 {
    nodes.max(cores as usize).clamp(SHARDS_MIN, SHARDS_MAX) as u32
}

/// The table of a new cluster: `replication_factor` replicas a shard on different nodes, in
/// different zones while there are enough, evenly spread; the first of each is to lead.
pub fn found(
    zones: &BTreeMap<u64, String>,
    shards: usize,
    replication_factor: usize,
) -> Vec<Vec<u64>> {
    let mut loads: BTreeMap<u64, Load> = zones.keys().map(|id| (*id, Load::default())).collect();
    let wanted = replication_factor.min(zones.len());
    let place = |order: Vec<u64>| {
        let mut replicas: Vec<u64> = Vec::with_capacity(wanted);
        while replicas.len() < wanted {
            let free = order.iter().filter(|id| !replicas.contains(id));
            let zone_used = |id: &u64| replicas.iter().any(|r| zones[r] == zones[id]);
            let best = free.min_by_key(|id| (zone_used(id), loads[id].replicas));
            replicas.push(*best.expect("there are more nodes than replicas"));
        }
        // The least burdened leads; the ring's order breaks ties.
        let leader = (0..replicas.len()).min_by_key(|at| loads[&replicas[*at]].leaders);
        replicas.swap(0, leader.expect("a shard has a replica"));
        for id in &replicas {
            loads.get_mut(id).expect("a member").replicas += 1;
        }
        loads.get_mut(&replicas[0]).expect("a member").leaders += 1;
        replicas
    };
    preferences(zones.keys().copied(), shards)
        .into_iter()
        .map(place)
        .collect()
}

/// The next moves towards an even spread, few at a time: a shard with too few replicas gains one
/// on the emptiest node; else one replica moves from the fullest node to the emptiest when that
/// evens them out. Each is `(shard, its new replicas)`.
pub fn rebalance(state: &State) -> Vec<(u32, Vec<u64>)> {
    if moving(state) >= MOVES_MAX {
        return Vec::new();
    }
    let alive: Vec<u64> = state
        .members
        .iter()
        .filter(|(_, member)| member.alive)
        .map(|(id, _)| *id)
        .collect();
    let mut counts: BTreeMap<u64, usize> = alive.iter().map(|id| (*id, 0)).collect();
    for id in state
        .table
        .iter()
        .flat_map(|assignment| &assignment.replicas)
    {
        counts.entry(*id).and_modify(|n| *n += 1);
    }
    next_move(state, &counts).into_iter().collect()
}

/// What a node says of the replicas on it, by shard.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Told {
    /// They run, and have a leader.
    pub running: BTreeSet<u32>,
    /// Their log is damaged, so they do not.
    pub damaged: BTreeSet<u32>,
}

/// Moves replicas with a damaged log away, at most so many at a time: they come back as one that a shard is
/// short of. Not unless more than half of a shard's replicas run, which it takes to do without the damaged one;
/// of two it is the other's only help. Each is `(shard, its new replicas)`; `told` is by node.
pub fn relieve(state: &State, told: &BTreeMap<u64, Told>) -> Vec<(u32, Vec<u64>)> {
    let of_living = |node: &u64| {
        let lives = state.members.get(node).is_some_and(|member| member.alive);
        told.get(node).filter(|_| lives)
    };
    let relieved = (0..).zip(&state.table).filter(|(_, a)| a.settled);
    let relieved = relieved.filter_map(|(shard, assignment)| {
        let replicas = &assignment.replicas;
        let is_damaged = |node: &&u64| of_living(node).is_some_and(|t| t.damaged.contains(&shard));
        let runs = |node: &&u64| of_living(node).is_some_and(|t| t.running.contains(&shard));
        let damaged = replicas.iter().find(is_damaged)?;
        let enough = replicas.iter().filter(runs).count() > replicas.len() / 2;
        let others = replicas.iter().filter(|node| *node != damaged).copied();
        enough.then(|| (shard, others.collect()))
    });
    relieved
        .take(MOVES_MAX.saturating_sub(moving(state)))
        .collect()
}

fn moving(state: &State) -> usize {
    let unsettled = state.table.iter().filter(|assignment| !assignment.settled);
    unsettled.count()
}

fn next_move(state: &State, counts: &BTreeMap<u64, usize>) -> Option<(u32, Vec<u64>)> {
    let settled = || state.table.iter().enumerate().filter(|(_, a)| a.settled);
    for (shard, assignment) in settled() {
        if assignment.replicas.len() < state.replication_factor {
            let free = counts
                .iter()
                .filter(|(id, _)| !assignment.replicas.contains(id));
            if let Some((id, _)) = free.min_by_key(|(_, count)| **count) {
                let replicas = assignment.replicas.iter().copied().chain([*id]).collect();
                return Some((shard as u32, replicas));
            }
        }
    }
    let (to, least) = counts.iter().min_by_key(|(_, count)| **count)?;
    let (from, most) = counts.iter().max_by_key(|(_, count)| **count)?;
    if *most < least + 2 {
        return None;
    }
    let (shard, assignment) =
        settled().find(|(_, a)| a.replicas.contains(from) && !a.replicas.contains(to))?;
    let swap = |id: &u64| if id == from { *to } else { *id };
    Some((shard as u32, assignment.replicas.iter().map(swap).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::{Assignment, Member};

    fn zones(names: &[&str]) -> BTreeMap<u64, String> {
        (1..)
            .zip(names.iter().map(|zone| (*zone).to_owned()))
            .collect()
    }

    #[test]
    fn the_ring_never_changes_its_mind() {
        let order = preferences([11, 22, 33, 44].into_iter(), 3);
        assert_eq!(order, preferences([44, 33, 22, 11].into_iter(), 3));
        let golden = [[11, 44, 22, 33], [22, 11, 33, 44], [22, 11, 44, 33]];
        assert_eq!(order, golden);
    }

    #[test]
    fn replicas_spread_over_nodes_zones_and_leaders() {
        let table = found(&zones(&["a", "a", "b", "b", "c", "c"]), 64, 3);
        let mut replicas = BTreeMap::new();
        let mut leaders = BTreeMap::new();
        for shard in &table {
            let zones: std::collections::BTreeSet<_> = shard.iter().map(|n| (n - 1) / 2).collect();
            assert_eq!(zones.len(), 3, "{shard:?} in three zones");
            shard
                .iter()
                .for_each(|n| *replicas.entry(*n).or_insert(0) += 1);
            *leaders.entry(shard[0]).or_insert(0) += 1;
        }
        let spread = |counts: &BTreeMap<u64, i32>| {
            counts.values().max().unwrap() - counts.values().min().unwrap()
        };
        assert!(
            spread(&replicas) <= 1 && spread(&leaders) <= 2,
            "{replicas:?} {leaders:?}"
        );
    }

    #[test]
    fn the_number_of_shards_follows_nodes_and_cores() {
        let chosen = [(1, 1), (3, 2), (7, 2), (3, 16), (1, 500)].map(|(n, c)| shards_for(n, c));
        assert_eq!(chosen, [4, 4, 7, 16, 64]);
    }

    #[test]
    fn fewer_nodes_than_replicas_means_fewer_replicas() {
        assert_eq!(found(&zones(&[""]), 2, 3), vec![vec![1], vec![1]]);
    }

    fn state(nodes: u64, table: Vec<Vec<u64>>) -> State {
        let member = |n: u64| Member {
            address: format!("h{n}"),
            zone: String::new(),
            version: String::new(),
            alive: true,
        };
        State {
            cluster_id: "a".to_owned(),
            replication_factor: 3,
            members: (1..=nodes).map(|n| (n, member(n))).collect(),
            table: table
                .into_iter()
                .map(|replicas| Assignment {
                    founders: replicas.clone(),
                    replicas,
                    settled: true,
                })
                .collect(),
            ..State::default()
        }
    }

    #[test]
    fn a_new_node_takes_its_share_one_move_at_a_time() {
        let mut state = state(4, vec![vec![1, 2, 3]; 16]);
        let mut moves = 0;
        loop {
            let next = rebalance(&state);
            assert!(next.len() <= 1);
            let Some((shard, replicas)) = next.into_iter().next() else {
                break;
            };
            let before = &state.table[shard as usize].replicas;
            assert_eq!(replicas.iter().filter(|id| !before.contains(id)).count(), 1);
            state.table[shard as usize].replicas = replicas;
            moves += 1;
        }
        assert_eq!(moves, 12, "48 replicas over 4 nodes");
    }

    #[test]
    fn a_shard_short_of_replicas_gains_one_and_moving_shards_are_left_alone() {
        let mut short = state(3, vec![vec![1, 2], vec![1, 2, 3]]);
        assert_eq!(rebalance(&short), vec![(0, vec![1, 2, 3])]);
        short.table[0].settled = false;
        assert!(rebalance(&short).is_empty());
    }

    fn told(all: &[(u64, &[u32], &[u32])]) -> BTreeMap<u64, Told> {
        let told = |running: &[u32], damaged: &[u32]| Told {
            running: running.iter().copied().collect(),
            damaged: damaged.iter().copied().collect(),
        };
        let all = all.iter();
        all.map(|(node, running, damaged)| (*node, told(running, damaged)))
            .collect()
    }

    #[test]
    fn a_replica_with_a_damaged_log_moves_away_while_a_majority_runs() {
        let three = state(3, vec![vec![3, 1, 2]]);
        let one = told(&[(1, &[0], &[]), (2, &[0], &[]), (3, &[], &[0])]);
        assert_eq!(relieve(&three, &one), [(0, vec![1, 2])]);
        // Then it comes back, also where nobody else could take it.
        let mut short = three.clone();
        short.table[0].replicas = vec![1, 2];
        assert!(relieve(&short, &one).is_empty());
        assert_eq!(rebalance(&short), [(0, vec![1, 2, 3])]);
        // Nothing is done while it moves, without its word or another one's, or while another one is dead.
        short.table[0].settled = false;
        assert!(relieve(&short, &one).is_empty());
        for silent in 1..=3 {
            let mut told = one.clone();
            told.remove(&silent);
            assert!(relieve(&three, &told).is_empty(), "{silent} is silent");
            let mut state = three.clone();
            state.members.get_mut(&silent).unwrap().alive = false;
            assert!(relieve(&state, &one).is_empty(), "{silent} is dead");
        }
        // What does not run for another reason is not moved.
        let stopped = told(&[(1, &[0], &[]), (2, &[0], &[]), (3, &[], &[])]);
        assert!(relieve(&three, &stopped).is_empty());
        // Nor is one whom the others need.
        let two = told(&[(1, &[0], &[]), (2, &[], &[0]), (3, &[], &[0])]);
        assert!(relieve(&three, &two).is_empty());
        let pair = state(2, vec![vec![1, 2]]);
        let one_of_two = told(&[(1, &[0], &[]), (2, &[], &[0])]);
        assert!(relieve(&pair, &one_of_two).is_empty());
        assert!(relieve(&state(1, vec![vec![1]]), &told(&[(1, &[], &[0])])).is_empty());
    }

    #[test]
    fn two_of_five_leave_one_after_the_other() {
        let mut five = state(5, vec![vec![1, 2, 3, 4, 5]]);
        five.replication_factor = 5;
        let all: &[u32] = &[0];
        let said = [
            (1, all, &[][..]),
            (2, all, &[]),
            (3, all, &[]),
            (4, &[], all),
            (5, &[], all),
        ];
        assert_eq!(relieve(&five, &told(&said)), [(0, vec![1, 2, 3, 5])]);
        assert!(relieve(&five, &told(&said[1..])).is_empty());
    }

    #[test]
    fn few_shards_are_relieved_at_a_time() {
        let mut many = state(3, vec![vec![1, 2, 3]; 5]);
        let all = &[0, 1, 2, 3, 4];
        let told = told(&[(1, all, &[]), (2, all, &[]), (3, &[], all)]);
        let relieved = relieve(&many, &told);
        assert_eq!(relieved, [(0, vec![1, 2]), (1, vec![1, 2])]);
        many.table[4].settled = false;
        assert_eq!(relieve(&many, &told).len(), 1);
        many.table[3].settled = false;
        assert!(relieve(&many, &told).is_empty());
    }
}
