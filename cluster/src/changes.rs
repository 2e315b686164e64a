//! What was written to a shard after an index of its log, from its leader, wherever it is.
//!
//! Promise: the leader has settled before it looks, so everything acknowledged before the question
//! is in the answer or in what the asker has. One that breaks off in the middle is an error that
//! names the shard. An index counts on every replica: they apply one log.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use model::source::{Consistency, SourceError};
use model::{Matcher, Series, ShardId, Timestamp};
use proto::node as wire;
use tonic::Status;

use crate::convert;
use crate::peer::Peer;
use crate::refusal::Refusal;
use crate::router::{Router, Whom, call, is_passing, next_reply, refused, to_source_error};
use crate::shard::Replica;

/// Samples in one message; a histogram counts as the floats that take its room.
const SAMPLES_PER_MESSAGE: usize = 32 << 10;

/// What is asked of a shard.
#[derive(Debug, Clone)]
pub struct Question {
    pub any_of: Vec<Vec<Matcher>>,
    /// The asker has everything up to this index; without it, all samples from `oldest` on.
    pub since: Option<u64>,
    pub oldest: Timestamp,
}

/// How far the answer goes, and the series.
pub struct Changes {
    pub index: u64,
    pub series: BoxStream<'static, Result<Vec<Series>, SourceError>>,
}

pub async fn of_shard(
    router: &Arc<Router>,
    shard: ShardId,
    question: &Question,
) -> Result<Changes, SourceError> {
    let asked = router.ask(shard, is_passing, |whom| {
        Box::pin(async move {
            match whom {
                Whom::Here(replica) => here(&replica, question).await,
                Whom::There(peer) => there(router, &peer, shard, question).await,
            }
        })
    });
    asked
        .await
        .map_err(|refusal| to_source_error(shard, refusal))
}

async fn here(replica: &Replica, question: &Question) -> Result<Changes, Refusal> {
    replica.settle(Consistency::Strong).await?;
    let shard = replica.shard;
    let engine = &replica.engine;
    let changes = engine.changes(&question.any_of, question.since, question.oldest);
    let changes = changes
        .await
        .map_err(|e| Refusal::Internal(e.full_text()))?;
    let index = changes.index;
    let series = stream::unfold(Some(changes), move |changes| async move {
        let mut changes: tsdb::changes::Changes = changes?;
        match changes.next().await.transpose()? {
            Ok(series) => Some((Ok(series), Some(changes))),
            Err(error) => {
                let text = format!("shard {}: {}", shard.0, error.full_text());
                Some((Err(SourceError::Internal(text)), None))
            }
        }
    });
    Ok(Changes {
        index,
        series: series.boxed(),
    })
}

async fn there(
    router: &Router,
    peer: &Peer,
    shard: ShardId,
    question: &Question,
) -> Result<Changes, Refusal> {
    let request = wire::ChangesRequest {
        cluster_id: router.cluster_id(),
        shard: shard.0,
        any_of: convert::sets_to_wire(&question.any_of),
        since: question.since,
        oldest_ms: question.oldest.0,
    };
    let mut replies = call(peer.pages().changes(request)).await?;
    let first = next(&mut replies).await?;
    let first = first.ok_or_else(|| Refusal::Unavailable("the answer broke off".to_owned()))?;
    let series = stream::unfold(Some(replies), move |replies| async move {
        let mut replies = replies?;
        let reply = next(&mut replies).await.transpose()?;
        let series = reply.and_then(|reply| {
            let series = reply.series.into_iter().map(convert::series_from_wire);
            let series: Result<Vec<Series>, _> = series.collect();
            series.map_err(|e| Refusal::Internal(e.to_string()))
        });
        let next = series.is_ok().then_some(replies);
        Some((series.map_err(|r| to_source_error(shard, r)), next))
    });
    Ok(Changes {
        index: first.index,
        series: series.boxed(),
    })
}

async fn next(
    replies: &mut tonic::Streaming<wire::ChangesReply>,
) -> Result<Option<wire::ChangesReply>, Refusal> {
    let Some(mut reply) = next_reply(replies).await? else {
        return Ok(None);
    };
    refused(reply.refusal.take())?;
    Ok(Some(reply))
}

/// What a peer is sent.
pub async fn replies(
    found: Result<Arc<Replica>, Refusal>,
    request: wire::ChangesRequest,
) -> BoxStream<'static, Result<wire::ChangesReply, Status>> {
    let changes = async {
        let any_of = convert::sets_from_wire(request.any_of);
        let question = Question {
            any_of: any_of.map_err(|e| Refusal::Internal(e.to_string()))?,
            since: request.since,
            oldest: Timestamp(request.oldest_ms),
        };
        here(&*found?, &question).await
    };
    let changes = match changes.await {
        Err(refusal) => return stream::iter([Ok(refusal_reply(refusal))]).boxed(),
        Ok(changes) => changes,
    };
    let first = wire::ChangesReply {
        index: changes.index,
        ..wire::ChangesReply::default()
    };
    let series = changes.series.flat_map(|series| match series {
        Ok(series) => stream::iter(messages(&series)),
        Err(error) => stream::iter(vec![refusal_reply(Refusal::Internal(error.to_string()))]),
    });
    stream::iter([first]).chain(series).map(Ok).boxed()
}

fn messages(series: &[Series]) -> Vec<wire::ChangesReply> {
    let mut messages = vec![wire::ChangesReply::default()];
    let mut samples = 0;
    let pieces = series
        .iter()
        .flat_map(|one| convert::pieces(one, SAMPLES_PER_MESSAGE));
    for piece in pieces {
        if samples >= SAMPLES_PER_MESSAGE {
            messages.push(wire::ChangesReply::default());
            samples = 0;
        }
        samples += match piece.samples.histograms.is_empty() {
            true => piece.samples.len(),
            false => SAMPLES_PER_MESSAGE,
        };
        let message = messages.last_mut().expect("there is one");
        message.series.push(convert::series_to_wire(&piece));
    }
    messages
}

fn refusal_reply(refusal: Refusal) -> wire::ChangesReply {
    wire::ChangesReply {
        refusal: Some(convert::refusal_to_wire(refusal)),
        ..wire::ChangesReply::default()
    }
}
