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
use model::port::World;
use proto::node as messages;
use tokio::sync::oneshot;

use crate::peer::Peer;
use crate::refusal::Refusal;
use crate::router::{ASK_TIMEOUT, Router, call_within, engine_refusal};
use crate::shard::Replica;

pub use wire::{fragment_from_wire, replies};

/// Where the evaluator sits once the node has handed it in.
pub type Seat = Arc<OnceLock<Arc<dyn Evaluator>>>;

/// What a shard that was reached says.
pub type Answer = Result<Part, FragmentError>;

/// Computes on a replica of this node, in a task of its own so that shards share the cores.
pub async fn here(
    seat: &Seat,
    world: &World,
    replica: Arc<Replica>,
    fragment: Fragment,
) -> Result<Answer, Refusal> {
    let Some(evaluator) = seat.get().cloned() else {
        return Ok(Err(FragmentError::Unsupported));
    };
    replica.settle(fragment.consistency).await?;
    let (done, result) = oneshot::channel();
    let work = async move {
        let answer = evaluator.evaluate(&*replica.engine, &fragment).await;
        // Nobody waits any more: nobody needs it.
        done.send(answer).ok();
    };
    let _task = world.spawn.spawn("part of a query", work.boxed());
    let answer = result.await;
    match answer.map_err(|_| Refusal::Unavailable("the node stops".to_owned()))? {
        Err(FragmentError::Source(error)) => Err(engine_refusal(error)),
        answer => Ok(answer),
    }
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
        let next = tokio::time::timeout(ASK_TIMEOUT, replies.message()).await;
        let reply = next
            .map_err(|_| Refusal::Unavailable("no answer in time".to_owned()))?
            .map_err(|status| Refusal::Unavailable(status.to_string()))?;
        let reply = reply.ok_or_else(|| Refusal::Unavailable("the answer broke off".to_owned()))?;
        if let Some(answer) = arriving.add(reply)? {
            if let Ok(part) = &answer {
                router.received.inc_by(part.bytes);
            }
            return Ok(answer);
        }
    }
}
