//! How nodes that know of each other become a cluster, or one of them joins it.
//!
//! Every node asks the addresses it was given who is there. Where somebody already belongs to a
//! cluster, the others join it. Where as many as expected have met and none belongs anywhere, the
//! one with the lowest id draws a cluster id and asks all of them to promise: a node promises
//! once, on disk, so two clusters can never be formed of the same node. When all have promised it
//! begins the meta group with them. A node that stopped half-way goes on where it was. A promise is void
//! once one of those who should give it belongs to another cluster, which it does for ever.

use std::collections::BTreeMap;

use model::ClusterId;
use proto::node as wire;

use crate::convert::cluster_id_from_wire;
use crate::identity::{Identity, Promise};

/// What a round of asking around found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    pub node_id: u64,
    pub address: String,
    pub cluster: Option<ClusterId>,
}

impl Neighbour {
    pub fn from_wire(reply: wire::HelloReply) -> Option<Self> {
        let member = reply.member?;
        Some(Self {
            node_id: member.node_id,
            address: member.address,
            cluster: cluster_id_from_wire(&reply.cluster_id).filter(|id| id.0 != 0),
        })
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask again later.
    Wait(String),
    /// Join the cluster that this address belongs to.
    Join(ClusterId, String),
    /// Ask these to promise, then begin.
    Form(Promise),
}

/// Decides from what this node knows. `draw` gives a new cluster id.
pub fn choose(
    identity: &Identity,
    address: &str,
    neighbours: &[Neighbour],
    expect: usize,
    draw: impl FnOnce() -> ClusterId,
) -> Step {
    if let Some(promise) = &identity.promise {
        if let Some(step) = void(promise, neighbours).filter(|_| identity.cluster_id.is_empty()) {
            return step;
        }
        let coordinator = promise.members.keys().min();
        return match coordinator == Some(&identity.node_id) {
            true => Step::Form(promise.clone()),
            false => Step::Wait("waiting for the node that forms the cluster".to_owned()),
        };
    }
    if let Some((neighbour, cluster)) = neighbours.iter().find_map(|n| Some((n, n.cluster?))) {
        return Step::Join(cluster, neighbour.address.clone());
    }
    let mut members: BTreeMap<u64, String> = neighbours
        .iter()
        .map(|n| (n.node_id, n.address.clone()))
        .collect();
    members.insert(identity.node_id, address.to_owned());
    if members.len() < expect {
        return Step::Wait(format!("{} of {expect} nodes have met", members.len()));
    }
    let members: BTreeMap<u64, String> = members.into_iter().take(expect).collect();
    match members.keys().min() == Some(&identity.node_id) {
        true => Step::Form(Promise {
            cluster_id: draw().to_string(),
            members,
        }),
        false => Step::Wait("another node forms the cluster".to_owned()),
    }
}

/// Where to go instead of what can never be formed.
fn void(promise: &Promise, neighbours: &[Neighbour]) -> Option<Step> {
    let asked = |n: &&Neighbour| promise.members.contains_key(&n.node_id);
    neighbours.iter().filter(asked).find_map(|n| {
        let other = n
            .cluster
            .filter(|cluster| cluster.to_string() != promise.cluster_id)?;
        Some(Step::Join(other, n.address.clone()))
    })
}

/// Whether a node with this identity gives the promise it is asked for.
pub fn may_promise(identity: &Identity, asked: &Promise) -> Result<(), String> {
    if !identity.cluster_id.is_empty() && identity.cluster_id != asked.cluster_id {
        return Err(format!(
            "this node belongs to cluster {}",
            identity.cluster_id
        ));
    }
    if identity
        .promise
        .as_ref()
        .is_some_and(|given| given != asked)
    {
        return Err("this node has promised to be formed into another cluster".to_owned());
    }
    match asked.members.contains_key(&identity.node_id) {
        true => Ok(()),
        false => Err("this node is not among those to be formed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(node_id: u64) -> Identity {
        Identity {
            node_id,
            cluster_id: String::new(),
            promise: None,
        }
    }

    #[test]
    fn a_promise_that_can_never_be_kept_is_void() {
        let members = [(1, "h1"), (2, "h2"), (3, "h3")].map(|(id, at)| (id, at.to_owned()));
        let promise = Promise {
            cluster_id: ClusterId(7).to_string(),
            members: members.into(),
        };
        let promised = |node, cluster_id: &str| Identity {
            promise: Some(promise.clone()),
            cluster_id: cluster_id.to_owned(),
            ..identity(node)
        };
        let step = |identity: &Identity, neighbours: &[Neighbour]| {
            choose(identity, "own", neighbours, 3, || ClusterId(9))
        };
        let elsewhere = [neighbour(2, None), neighbour(3, Some(8))];
        let joins = Step::Join(ClusterId(8), "h3".to_owned());
        assert_eq!(step(&promised(1, ""), &elsewhere), joins);
        assert_eq!(step(&promised(2, ""), &elsewhere), joins);
        let forms = Step::Form(promise.clone());
        assert_eq!(step(&promised(1, &promise.cluster_id), &elsewhere), forms);
        // Whoever was not asked may belong anywhere, and those that were to the cluster itself.
        let others = [neighbour(2, Some(7)), neighbour(4, Some(8))];
        assert_eq!(step(&promised(1, ""), &others), forms);
    }

    fn neighbour(node_id: u64, cluster: Option<u128>) -> Neighbour {
        Neighbour {
            node_id,
            address: format!("h{node_id}"),
            cluster: cluster.map(ClusterId),
        }
    }

    fn step(node: u64, neighbours: &[Neighbour], expect: usize) -> Step {
        choose(
            &identity(node),
            &format!("h{node}"),
            neighbours,
            expect,
            || ClusterId(7),
        )
    }

    #[test]
    fn the_lowest_id_forms_when_all_have_met() {
        let others = [neighbour(2, None), neighbour(3, None)];
        assert!(matches!(step(1, &others[..1], 3), Step::Wait(_)));
        let Step::Form(promise) = step(1, &others, 3) else {
            panic!("it forms")
        };
        assert_eq!(
            promise.members.keys().copied().collect::<Vec<_>>(),
            [1, 2, 3]
        );
        assert!(
            matches!(step(4, &others, 3), Step::Wait(_)),
            "not the lowest"
        );
        assert!(matches!(step(9, &[], 1), Step::Form(_)), "alone");
    }

    #[test]
    fn whoever_meets_a_cluster_joins_it() {
        let met = [neighbour(2, None), neighbour(3, Some(5))];
        assert_eq!(step(1, &met, 3), Step::Join(ClusterId(5), "h3".to_owned()));
    }

    #[test]
    fn a_promise_is_kept() {
        let Step::Form(promise) = step(1, &[neighbour(2, None)], 2) else {
            panic!("it forms")
        };
        let mut second = identity(2);
        assert_eq!(may_promise(&second, &promise), Ok(()));
        second.promise = Some(promise.clone());
        assert_eq!(may_promise(&second, &promise), Ok(()), "asked again");
        let other = Promise {
            cluster_id: "ff".to_owned(),
            ..promise.clone()
        };
        assert!(may_promise(&second, &other).is_err());
        assert!(may_promise(&identity(3), &promise).is_err(), "a stranger");
        let mut formed = identity(2);
        formed.cluster_id = "ee".to_owned();
        assert!(
            may_promise(&formed, &promise).is_err(),
            "a second formation"
        );
        // The coordinator goes on with what it promised itself, whoever it meets.
        let mut first = identity(1);
        first.promise = Some(promise.clone());
        let met = [neighbour(3, Some(5))];
        assert_eq!(
            choose(&first, "h1", &met, 2, || unreachable!()),
            Step::Form(promise)
        );
    }
}
