//! Parts of queries, computed by the leader of the shard that holds the series.
//!
//! Who computes is handed in ([`model::fragment::Evaluator`]); here is how the question gets to
//! the leader and the part back. An asker that no longer waits ends the work: dropping the future
//! resets the call, which drops the future over there.

mod wire;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use model::ShardId;
use model::fragment::{Evaluator, Fragment, FragmentError, Part};
use model::port::{Task, World};
use proto::node as messages;
use tokio::sync::oneshot;
use tsdb::Chosen;

use crate::peer::Peer;
use crate::refusal::Refusal;
use crate::router::{ASK_TIMEOUT, Router, call_within, engine_refusal, next_reply};
use crate::shard::Replica;

pub use wire::{Arriving, fragment_from_wire, fragment_to_wire, replies};

/// Where the evaluator sits once the node has handed it in.
pub type Seat = Arc<OnceLock<Arc<dyn Evaluator>>>;

/// What a shard that was reached says.
pub type Answer = Result<Part, FragmentError>;

/// Samples that pay for a task of their own: some 100 µs of decoding.
const TASK_SAMPLES: usize = 32 << 10;

/// Computes on a replica of this node.
pub async fn here(
    seat: &Seat,
    replica: Arc<Replica>,
    fragment: Fragment,
) -> Result<Answer, Refusal> {
    let Some(evaluator) = seat.get().cloned() else {
        return Ok(Err(FragmentError::Unsupported));
    };
    replica.settle(fragment.consistency).await?;
    match evaluator.evaluate(&*replica.engine, &fragment).await {
        Err(FragmentError::Source(error)) => Err(engine_refusal(error)),
        answer => Ok(answer),
    }
}

/// The series of `replicas` that a fragment is about, if they have no more than about `samples_max`
/// samples.
pub fn chosen(
    seat: &Seat,
    replicas: &[Arc<Replica>],
    fragment: &Fragment,
    samples_max: usize,
) -> Option<Chosen> {
    let selection = seat.get()?.selection(fragment)?;
    let engines = replicas.iter().map(|replica| replica.engine.clone());
    Chosen::within(engines, &selection, samples_max)
}

/// Computes on replicas of this node that are fresh enough, over all their series as one.
pub async fn over(
    seat: &Seat,
    world: &World,
    replicas: &[Arc<Replica>],
    fragment: &Fragment,
) -> Result<Vec<Part>, FragmentError> {
    let evaluator = seat.get().cloned().ok_or(FragmentError::Unsupported)?;
    let Some(selection) = evaluator.selection(fragment) else {
        // Whatever is wrong with it, evaluating it says so.
        let mut parts = Vec::new();
        for replica in replicas {
            parts.push(evaluator.evaluate(&*replica.engine, fragment).await?);
        }
        return Ok(parts);
    };
    let engines = replicas.iter().map(|replica| replica.engine.clone());
    over_chosen(seat, world, Chosen::of(engines, &selection), fragment).await
}

/// Computes on series that were chosen for it. What is little is computed in place; what is much by as
/// many tasks as there are threads. The parts hold the same, however the series are cut.
pub async fn over_chosen(
    seat: &Seat,
    world: &World,
    chosen: Chosen,
    fragment: &Fragment,
) -> Result<Vec<Part>, FragmentError> {
    let evaluator = seat.get().cloned().ok_or(FragmentError::Unsupported)?;
    let tasks = (chosen.samples() / TASK_SAMPLES).clamp(1, threads());
    let mut pieces = chosen.cut(tasks).into_iter();
    let first = pieces.next();
    let others: Vec<_> = pieces
        .map(|piece| spawned(world, evaluator.clone(), piece, fragment.clone()))
        .collect();
    let mut parts = Vec::with_capacity(1 + others.len());
    if let Some(first) = first {
        parts.push(evaluator.evaluate(&first, fragment).await?);
    }
    for (result, _task) in others {
        parts.push(result.await.map_err(|_| FragmentError::Canceled)??);
    }
    Ok(parts)
}

/// How many tasks can run at a time.
fn threads() -> usize {
    tokio::runtime::Handle::current().metrics().num_workers()
}

/// A piece of the work in a task of its own, which ends with the task that is returned.
fn spawned(
    world: &World,
    evaluator: Arc<dyn Evaluator>,
    piece: Chosen,
    fragment: Fragment,
) -> (oneshot::Receiver<Answer>, Task) {
    let (done, result) = oneshot::channel();
    let work = async move {
        let answer = evaluator.evaluate(&piece, &fragment).await;
        // Nobody waits any more: nobody needs it.
        done.send(answer).ok();
    };
    let task = world.spawn.spawn("part of a query", work.boxed());
    (result, task)
}

/// Asks the leader on another node.
pub async fn there(
    router: &Router,
    peer: &Peer,
    shard: ShardId,
    fragment: &Fragment,
) -> Result<Answer, Refusal> {
    let request = messages::EvaluateRequest {
        cluster_id: router.cluster_id(),
        shard: shard.0,
        ..wire::fragment_to_wire(fragment)
    };
    // The work has its own time limit over there, which answers better than ours would.
    let patience = Duration::from_millis(fragment.timeout_ms).saturating_add(ASK_TIMEOUT);
    let mut replies = call_within(patience, peer.data().evaluate(request)).await?;
    let mut arriving = wire::Arriving::default();
    loop {
        let reply = next_reply(&mut replies).await?;
        let reply = reply.ok_or_else(|| Refusal::Unavailable("the answer broke off".to_owned()))?;
        if let Some(answer) = arriving.add(reply)? {
            if let Ok(part) = &answer {
                router.received.inc_by(part.bytes);
            }
            return Ok(answer);
        }
    }
}
