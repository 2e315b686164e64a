//! Whether the replicas of a shard hold the same: its leader asks each of them, once in a while, for the
//! digests of its state at some indexes of the log (docs/adr/0043-states-are-compared.md).
//!
//! What a replica has applied was committed, so at one index there is one right state, whoever leads, is
//! behind, or was given a snapshot. A replica that differs from what more than half of the voters hold
//! stops, also if it is the leader; where there is no such majority nobody can know who is right, and
//! nobody stops. A replica that does not answer, or only of other indexes, says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use model::ShardId;
use proto::node as wire;

use super::Replica;
use crate::cluster::Shared;
use crate::convert::cluster_id_to_wire;
use crate::router::{call_within, refused};

/// How often it is looked whether a shard's turn has come.
const ROUND: Duration = Duration::from_secs(1);
/// A replica that says nothing for so long is asked again another time.
const PATIENCE: Duration = Duration::from_secs(3);
/// A comparison that not all replicas took part in is made again after this part of the usual time.
const AGAIN: u32 = 10;

/// Digests by index of the log.
type Digests = BTreeMap<u64, u64>;
/// What each node said.
type Told = BTreeMap<u64, Digests>;

/// Goes on for as long as the node lives.
pub async fn run(shared: Arc<Shared>) {
    let every = shared.options.compare_every;
    let mut due: BTreeMap<ShardId, Duration> = BTreeMap::new();
    loop {
        tokio::time::sleep(ROUND.min(every)).await;
        let now = shared.world.clock.monotonic();
        let led = led_here(&shared);
        // Whoever begins to lead begins by comparing.
        due.retain(|shard, _| led.iter().any(|replica| replica.shard == *shard));
        let is_due = |replica: &&Arc<Replica>| due.get(&replica.shard).is_none_or(|at| now >= *at);
        let asked = led.iter().filter(is_due).map(async |replica| {
            let pause = match compare(&shared, replica).await {
                true => every,
                false => every / AGAIN,
            };
            (replica.shard, now + pause)
        });
        let asked = join_all(asked).await;
        due.extend(asked);
    }
}

fn led_here(shared: &Shared) -> Vec<Arc<Replica>> {
    let replicas = shared.replicas.read().expect("not poisoned");
    let led = replicas.values().filter(|replica| replica.leads());
    led.cloned().collect()
}

/// Compares one shard's replicas; whether there is nothing to ask soon.
async fn compare(shared: &Shared, replica: &Replica) -> bool {
    let voters = replica.voters();
    let node = shared.node.0;
    // That of now, which most of the others have too where little is written.
    replica.engine.digests();
    let others = voters.iter().filter(|voter| **voter != node);
    let answers =
        others.map(async |voter| Some((*voter, ask(shared, replica, *voter, None).await?)));
    let mut told: Told = join_all(answers).await.into_iter().flatten().collect();
    told.insert(node, replica.engine.digests().into_iter().collect());
    match judge(&voters, &told) {
        Verdict::Alike(nodes) if nodes == voters => {
            shared.metrics.comparisons.inc();
            true
        }
        Verdict::Alike(_) => voters.len() == 1,
        Verdict::Differ(different) => {
            shared.metrics.mismatches.inc();
            act(shared, replica, &voters, &different).await;
            different.agreed.is_none()
        }
    }
}

async fn act(shared: &Shared, replica: &Replica, voters: &BTreeSet<u64>, different: &Different) {
    let (shard, index) = (replica.shard, different.index);
    let told = different.to_string();
    let Some(agreed) = different.agreed else {
        return tracing::error!(
            %shard, index, told,
            "replicas of a shard differ, and no majority of them says who is right"
        );
    };
    tracing::error!(%shard, index, told, "replicas of a shard differ");
    let verdict = Sentence {
        index,
        digest: agreed,
        agreed: different.with(agreed),
    };
    for node in different
        .told
        .keys()
        .filter(|node| !verdict.agreed.contains(node))
    {
        if *node == shared.node.0 {
            condemn(replica, &verdict, voters);
        } else if ask(shared, replica, *node, Some(&verdict)).await.is_none() {
            tracing::warn!(%shard, node, "the replica that differs does not answer; it is asked again");
        }
    }
}

/// What a majority says, to one that says something else.
struct Sentence {
    index: u64,
    digest: u64,
    agreed: BTreeSet<u64>,
}

/// One replica's digests; nothing when it does not tell any.
async fn ask(
    shared: &Shared,
    replica: &Replica,
    node: u64,
    sentence: Option<&Sentence>,
) -> Option<Digests> {
    let address = shared.view.borrow().address(node)?.to_owned();
    let agreed = sentence.map(|said| said.agreed.iter().copied().collect());
    let request = wire::DigestRequest {
        cluster_id: cluster_id_to_wire(shared.peers.cluster()),
        shard: replica.shard.0,
        verdict: sentence.map(|said| wire::StateDigest {
            index: said.index,
            digest: said.digest,
        }),
        agreed: agreed.unwrap_or_default(),
    };
    let mut data = shared.peers.at(&address).data();
    let asked = async {
        let reply = call_within(PATIENCE, data.digest(request)).await?;
        refused(reply.refusal).map(|()| reply.digests)
    };
    match asked.await {
        Ok(digests) => Some(digests.iter().map(|one| (one.index, one.digest)).collect()),
        Err(refusal) => {
            tracing::debug!(shard = %replica.shard, node, %refusal, "no digests");
            None
        }
    }
}

/// What this node's replica says to a leader that asks.
pub fn answer(replica: &Replica) -> wire::DigestReply {
    let digests = replica.engine.digests().into_iter();
    wire::DigestReply {
        digests: digests
            .map(|(index, digest)| wire::StateDigest { index, digest })
            .collect(),
        refusal: None,
    }
}

/// Hears what `agreed` hold, which this replica is said not to.
pub fn obey(replica: &Replica, verdict: wire::StateDigest, agreed: &[u64]) {
    let sentence = Sentence {
        index: verdict.index,
        digest: verdict.digest,
        agreed: agreed.iter().copied().collect(),
    };
    condemn(replica, &sentence, &replica.voters());
}

/// Stops the replica if it is as the sentence says.
fn condemn(replica: &Replica, sentence: &Sentence, voters: &BTreeSet<u64>) {
    let own: Digests = replica.engine.digests().into_iter().collect();
    let Some(why) = reason(*replica.raft.node_id(), &own, sentence, voters) else {
        return;
    };
    tracing::error!(shard = %replica.shard, why, "this replica differs from the others");
    // It stops for the first reason.
    replica.condemned.set(why).ok();
}

/// Why a replica that has these digests must stop: a majority of others holds something else.
fn reason(node: u64, own: &Digests, sentence: &Sentence, voters: &BTreeSet<u64>) -> Option<String> {
    let Sentence {
        index,
        digest,
        agreed,
    } = sentence;
    let found = own.get(index).filter(|found| *found != digest)?;
    let against = agreed.intersection(voters).filter(|other| **other != node);
    let is_majority = against.count() > voters.len() / 2;
    is_majority.then(|| {
        format!(
            "its state at log index {index} is {found:016x}, that of nodes {agreed:?} {digest:016x}"
        )
    })
}

/// What answers come to.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// No two differ; each of these has told of an index of which another one has.
    Alike(BTreeSet<u64>),
    Differ(Different),
}

/// An index at which not all have the same state.
#[derive(Debug, PartialEq, Eq)]
struct Different {
    index: u64,
    /// Digest by node.
    told: BTreeMap<u64, u64>,
    /// What more than half of the voters hold.
    agreed: Option<u64>,
}

impl Different {
    fn with(&self, digest: u64) -> BTreeSet<u64> {
        let same = self.told.iter().filter(|(_, told)| **told == digest);
        same.map(|(node, _)| *node).collect()
    }
}

impl std::fmt::Display for Different {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (node, digest)) in self.told.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}node {node}: {digest:016x}")?;
        }
        Ok(())
    }
}

/// Looks at every index that two or more told of. Of several at which they differ, one with a majority is
/// taken, and the newest of those.
fn judge(voters: &BTreeSet<u64>, told: &Told) -> Verdict {
    let mut by_index: BTreeMap<u64, BTreeMap<u64, u64>> = BTreeMap::new();
    for (node, digests) in told.iter().filter(|(node, _)| voters.contains(node)) {
        for (index, digest) in digests {
            by_index.entry(*index).or_default().insert(*node, *digest);
        }
    }
    by_index.retain(|_, told| told.len() > 1);
    let different = by_index.iter().filter_map(|(index, told)| {
        let distinct: BTreeSet<u64> = told.values().copied().collect();
        let holders = |digest: &u64| told.values().filter(|other| *other == digest).count();
        let is_majority = |digest: &u64| holders(digest) > voters.len() / 2;
        (distinct.len() > 1).then(|| Different {
            index: *index,
            told: told.clone(),
            agreed: distinct.iter().copied().find(is_majority),
        })
    });
    match different.max_by_key(|one| (one.agreed.is_some(), one.index)) {
        Some(different) => Verdict::Differ(different),
        None => Verdict::Alike(
            by_index
                .values()
                .flat_map(BTreeMap::keys)
                .copied()
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(all: &[(u64, &[(u64, u64)])]) -> Told {
        let digests = |pairs: &[(u64, u64)]| pairs.iter().copied().collect();
        all.iter()
            .map(|(node, pairs)| (*node, digests(pairs)))
            .collect()
    }

    fn voters(count: u64) -> BTreeSet<u64> {
        (1..=count).collect()
    }

    fn alike(nodes: &[u64]) -> Verdict {
        Verdict::Alike(nodes.iter().copied().collect())
    }

    fn differ(verdict: Verdict) -> Different {
        match verdict {
            Verdict::Differ(different) => different,
            alike => panic!("{alike:?}"),
        }
    }

    #[test]
    fn those_who_tell_of_other_indexes_say_nothing() {
        let three = voters(3);
        let verdict = |all: &[_]| judge(&three, &told(all));
        assert_eq!(verdict(&[]), alike(&[]));
        assert_eq!(verdict(&[(1, &[(5, 9)])]), alike(&[]));
        // Behind, and with nothing in common.
        assert_eq!(verdict(&[(1, &[(5, 9)]), (2, &[(4, 8)])]), alike(&[]));
        let behind: &[(u64, &[(u64, u64)])] = &[
            (1, &[(1024, 7), (2048, 8), (2050, 9)]),
            (2, &[(1024, 7), (2048, 8)]),
            (3, &[(1024, 7), (1999, 3)]),
        ];
        assert_eq!(verdict(behind), alike(&[1, 2, 3]));
        assert_eq!(verdict(&behind[..2]), alike(&[1, 2]));
        // Who does not vote is not asked and not heard.
        let stranger: &[(u64, &[(u64, u64)])] = &[(1, &[(5, 9)]), (7, &[(5, 8)])];
        assert_eq!(verdict(stranger), alike(&[]));
    }

    #[test]
    fn a_majority_knows_who_is_wrong() {
        let all = told(&[(1, &[(5, 9)]), (2, &[(5, 8)]), (3, &[(5, 8)])]);
        let different = differ(judge(&voters(3), &all));
        assert_eq!((different.index, different.agreed), (5, Some(8)));
        assert_eq!(different.with(8), [2, 3].into());
        assert_eq!(
            different.to_string(),
            "node 1: 0000000000000009, node 2: 0000000000000008, node 3: 0000000000000008"
        );
        // An earlier index may have the majority that a later one lacks.
        let mut all = told(&[
            (1, &[(5, 9), (6, 1)]),
            (2, &[(5, 8), (6, 2)]),
            (3, &[(5, 8)]),
        ]);
        assert_eq!(differ(judge(&voters(3), &all)).index, 5);
        all.get_mut(&3).unwrap().insert(6, 2);
        assert_eq!(differ(judge(&voters(3), &all)).index, 6);
    }

    #[test]
    fn without_a_majority_nobody_is_wrong() {
        let agreed = |count, all: &[_]| differ(judge(&voters(count), &told(all))).agreed;
        let two: &[(u64, &[(u64, u64)])] = &[(1, &[(5, 9)]), (2, &[(5, 8)])];
        assert_eq!(agreed(2, two), None);
        assert_eq!(agreed(3, two), None, "the third does not answer");
        let three: &[(u64, &[(u64, u64)])] = &[(1, &[(5, 9)]), (2, &[(5, 8)]), (3, &[(5, 7)])];
        assert_eq!(agreed(3, three), None);
        let most: &[(u64, &[(u64, u64)])] = &[(1, &[(5, 9)]), (2, &[(5, 8)]), (3, &[(5, 8)])];
        assert_eq!(agreed(5, most), None, "two of five");
        assert_eq!(agreed(3, most), Some(8));
    }

    #[test]
    fn a_replica_stops_only_for_what_it_said_itself() {
        let sentence = |agreed: &[u64]| Sentence {
            index: 5,
            digest: 8,
            agreed: agreed.iter().copied().collect(),
        };
        let reason = |own: (u64, u64), agreed: &[u64]| {
            reason(1, &[own].into(), &sentence(agreed), &voters(3))
        };
        let why = reason((5, 9), &[2, 3]).expect("it differs");
        assert!(why.contains("log index 5"), "{why}");
        assert_eq!(reason((5, 8), &[2, 3]), None, "it does not differ");
        assert_eq!(reason((6, 9), &[2, 3]), None, "it did not tell of it");
        assert_eq!(reason((5, 9), &[2]), None, "one of three");
        assert_eq!(reason((5, 9), &[1, 2]), None, "it is one of them");
        assert_eq!(reason((5, 9), &[2, 7]), None, "a stranger among them");
    }
}
