//! Parts of queries, computed by the leader of the shard that holds the series.
//!
//! Who computes is handed in ([`model::fragment::Evaluator`]); here is how the question gets to
//! the leader and the part back. An asker that no longer waits ends the work: dropping the future
//! resets the call, which drops the future over there.

mod wire;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use model::fragment::{Evaluator, Fragment, FragmentError, Part};
use model::port::{Task, World};
use model::source::{Selection, Source, SourceError};
use model::{Series, ShardId};
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
pub async fn chosen(
    seat: &Seat,
    replicas: &[Arc<Replica>],
    fragment: &Fragment,
    samples_max: usize,
) -> Option<Chosen> {
    let selection = seat.get()?.selection(fragment)?;
    let engines = engines(replicas);
    let chosen = Chosen::within(engines, &selection, samples_max).await;
    // What is wrong with a file here need not be so elsewhere.
    chosen.ok().flatten()
}

pub fn engines(replicas: &[Arc<Replica>]) -> Vec<Arc<tsdb::Shard>> {
    let engines = replicas.iter().map(|replica| replica.engine.clone());
    engines.collect()
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
    let engines = engines(replicas);
    let pieces = Chosen::pieces(engines, &selection, TASK_SAMPLES, threads()).await?;
    over_pieces(evaluator, world, pieces, fragment).await
}

/// Computes on series that were chosen for it.
pub async fn over_chosen(
    seat: &Seat,
    world: &World,
    chosen: Chosen,
    fragment: &Fragment,
) -> Result<Vec<Part>, FragmentError> {
    let evaluator = seat.get().cloned().ok_or(FragmentError::Unsupported)?;
    let pieces = chosen.into_pieces(TASK_SAMPLES, threads());
    over_pieces(evaluator, world, pieces, fragment).await
}

/// What is little is one piece and computed in place; what is much by as many tasks as there are threads.
/// The parts hold the same, however the series are cut.
///
/// Of several none is computed in place: the task that a thread of tokio's spawned last stays with that
/// thread, and no other one takes it, until the task that spawned it waits.
async fn over_pieces(
    evaluator: Arc<dyn Evaluator>,
    world: &World,
    pieces: Vec<Chosen>,
    fragment: &Fragment,
) -> Result<Vec<Part>, FragmentError> {
    if let [piece] = pieces.as_slice() {
        return Ok(vec![evaluator.evaluate(piece, fragment).await?]);
    }
    let tasks: Vec<_> = pieces
        .into_iter()
        .map(|piece| {
            let (evaluator, fragment) = (evaluator.clone(), fragment.clone());
            let work = async move { evaluator.evaluate(&piece, &fragment).await };
            spawned(world, work)
        })
        .collect();
    let mut parts = Vec::with_capacity(tasks.len());
    for (result, _task) in tasks {
        parts.push(result.await.map_err(|_| FragmentError::Canceled)??);
    }
    Ok(parts)
}

/// The series of a source of this node, as the evaluator lets it have them.
pub async fn select(
    seat: &Seat,
    source: &dyn Source,
    selection: &Selection,
) -> Result<Vec<Series>, SourceError> {
    match seat.get() {
        Some(evaluator) => evaluator.select(source, selection).await,
        None => source.select(selection).await,
    }
}

/// The series that replicas of this node hold, which are fresh enough; what is much is decoded by as many
/// tasks as there are threads. In no order.
pub async fn select_over(
    seat: &Seat,
    world: &World,
    replicas: &[Arc<Replica>],
    selection: &Selection,
) -> Result<Vec<Series>, SourceError> {
    let engines = engines(replicas);
    let pieces = Chosen::pieces(engines, selection, TASK_SAMPLES, threads()).await?;
    if let [piece] = pieces.as_slice() {
        return select(seat, piece, selection).await;
    }
    let tasks: Vec<_> = pieces
        .into_iter()
        .map(|piece| {
            let (seat, selection) = (seat.clone(), selection.clone());
            spawned(
                world,
                async move { select(&seat, &piece, &selection).await },
            )
        })
        .collect();
    let mut series = Vec::new();
    for (result, _task) in tasks {
        let ended = |_| SourceError::Internal("a part of a selection was given up".to_owned());
        series.append(&mut result.await.map_err(ended)??);
    }
    Ok(series)
}

/// How many tasks can run at a time.
fn threads() -> usize {
    tokio::runtime::Handle::current().metrics().num_workers()
}

/// A piece of the work in a task of its own, which ends with the task that is returned.
fn spawned<T: Send + 'static>(
    world: &World,
    work: impl Future<Output = T> + Send + 'static,
) -> (oneshot::Receiver<T>, Task) {
    let (done, result) = oneshot::channel();
    let work = async move {
        // Nobody waits any more: nobody needs it.
        done.send(work.await).ok();
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
