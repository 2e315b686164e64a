//! Forgets a replica that is to be here no more: its place is elsewhere, or what its log had lost is lost.
//!
//! A replica that moved away may come back, and so does one whose log was damaged, as an empty one
//! (docs/adr/0045-damaged-logs-heal.md). Whatever it had promised must hold nevertheless, so first it is made
//! sure of that nothing counts on it any more: the shard's leader, which a majority confirms, says that the
//! committed members are others. That is asked only once the replica does not run, so it has acknowledged and
//! granted nothing since. What it promised before is then covered by what the leader tells: all that was ever
//! committed with its help lies up to an index, and who was elected with its help led no later. Both are kept
//! ([`before`]), and a replica that comes back votes only behind them.
//!
//! The group's log goes last: as long as it is there, a later start sees that something is left to do.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use model::{GroupId, ShardId};
use proto::node as wire;
use tsdb::file::remove_dir_if_there;

use super::replica::dir_of;
use crate::cluster::Shared;
use crate::convert::cluster_id_to_wire;
use crate::meta::State;
use crate::raft::before;
use crate::raft::standing::Seen;
use crate::raft::types::vote_from_wire;
use crate::refusal::Refusal;
use crate::router::{call_within, refused};

/// Until a leader is asked again that did not answer, or said that the replica still votes.
const AGAIN: Duration = Duration::from_secs(1);
/// One that says nothing for so long is given up for this time.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is known of a shard of which something may have to be forgotten here.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// The log says nothing of what it had held.
    pub is_damaged: bool,
    /// A replica runs, or the log holds something.
    pub is_here: bool,
}

/// Whether a replica must go once nothing counts on it: also one with a damaged log that is meant to be
/// here, which nothing but forgetting mends.
pub fn must_leave(state: &State, node: u64, shard: ShardId, held: Held) -> bool {
    let moved = state
        .assignment(shard)
        .is_some_and(|a| a.settled && !a.replicas.contains(&node));
    held.is_damaged || (moved && held.is_here)
}

/// Forgets a replica that does not run; returns without having done so when it is meant to be here after all.
pub async fn leave(shared: &Shared, shard: ShardId) -> io::Result<()> {
    let group = GroupId::of_shard(shard);
    let discharged = loop {
        let held = Held {
            is_damaged: wal::Log::quarantined(&*shared.log, group).is_some(),
            is_here: true,
        };
        if !must_leave(&shared.view.borrow(), shared.node.0, shard, held) {
            return Ok(());
        }
        if let Some(seen) = ask(shared, shard).await {
            break seen;
        }
        tokio::time::sleep(AGAIN).await;
    };
    let log: &dyn wal::Log = &*shared.log;
    let disk = &*shared.world.disk;
    before::keep(disk, group, discharged).await?;
    remove_dir_if_there(disk, &dir_of(shard)).await?;
    log.remove_group(group).await?;
    tracing::info!(%shard, reached = discharged.reached, "a replica is forgotten that votes no more");
    Ok(())
}

/// What covers all that the replica here ever promised; nothing while it votes, or nobody can say.
async fn ask(shared: &Shared, shard: ShardId) -> Option<Seen> {
    let state: Arc<State> = shared.view.borrow().clone();
    let replicas = state.assignment(shard)?.replicas.iter();
    for node in replicas.filter(|node| **node != shared.node.0) {
        let Some(address) = state.address(*node) else {
            continue;
        };
        match ask_at(shared, shard, address).await {
            Ok(Some(seen)) => return Some(seen),
            // Its leader says so.
            Ok(None) => return None,
            Err(refusal) => tracing::debug!(%shard, node, %refusal, "no discharge"),
        }
    }
    None
}

async fn ask_at(shared: &Shared, shard: ShardId, address: &str) -> Result<Option<Seen>, Refusal> {
    let request = wire::DischargeRequest {
        cluster_id: cluster_id_to_wire(shared.peers.cluster()),
        shard: shard.0,
        node: shared.node.0,
    };
    let mut data = shared.peers.at(address).data();
    let reply = call_within(PATIENCE, data.discharge(request)).await?;
    refused(reply.refusal)?;
    if reply.vote.is_none() {
        return Ok(None);
    }
    let vote = vote_from_wire(reply.vote).map_err(|e| Refusal::Internal(e.to_string()))?;
    Ok(Some(Seen {
        vote: vote.leader_id.into(),
        reached: Some(reply.index),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::Assignment;

    #[test]
    fn what_moved_away_and_what_is_damaged_must_leave() {
        let assigned = |replicas: &[u64], settled| State {
            table: vec![Assignment {
                replicas: replicas.to_vec(),
                founders: Vec::new(),
                settled,
            }],
            ..State::default()
        };
        let leaves = |state: &State, is_damaged, is_here| {
            let held = Held {
                is_damaged,
                is_here,
            };
            must_leave(state, 3, ShardId(0), held)
        };
        let (here, moving, away) = (
            assigned(&[1, 2, 3], true),
            assigned(&[1, 2], false),
            assigned(&[1, 2], true),
        );
        assert!(!leaves(&here, false, true) && !leaves(&moving, false, true));
        assert!(leaves(&away, false, true) && !leaves(&away, false, false));
        for state in [&here, &moving, &away] {
            assert!(leaves(state, true, false));
        }
        assert!(!must_leave(
            &here,
            3,
            ShardId(7),
            Held {
                is_damaged: false,
                is_here: true
            }
        ));
    }
}
