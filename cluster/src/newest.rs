//! The newest sample of each series of a shard: pages from its leader, wherever it is.
//!
//! When a question has been answered here, the leader has settled; what comes after that is read
//! page by page as the asker takes it. A leader that goes away in the middle ends the pages with an
//! error that names the shard: another one's would not go on where they stopped.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use model::newest::Pages;
use model::source::{Consistency, SourceError};
use model::{Labels, NewestSelection, ShardId, Timestamp};
use proto::node as wire;
use tokio_stream::once;
use tonic::Status;

use crate::convert::{self, Malformed};
use crate::peer::Peer;
use crate::refusal::Refusal;
use crate::router::{Router, Whom, call, is_passing, next_reply, refused, to_source_error};
use crate::shard::Replica;

/// What a shard answers.
pub struct Newest {
    /// Everything up to this index of its log is in the pages, or in what the asker has.
    pub index: u64,
    /// Whether the pages hold all series, not only those written since an index.
    pub whole: bool,
    pub pages: Pages,
}

/// The pages of `shard`, from its leader or, where any replica's word is good enough, from here. With
/// an index of its log only those of series that were written since.
pub async fn of_shard(
    router: &Arc<Router>,
    shard: ShardId,
    selection: &NewestSelection,
    since: Option<u64>,
) -> Result<Newest, SourceError> {
    if selection.consistency == Consistency::Local
        && let Some(replica) = router.replica(shard)
    {
        return Ok(here(&replica, selection, since));
    }
    let asked = router.ask(shard, is_passing, |whom| {
        Box::pin(async move {
            match whom {
                Whom::Here(replica) => {
                    replica.settle(selection.consistency).await?;
                    Ok(here(&replica, selection, since))
                }
                Whom::There(peer) => there(router, &peer, shard, selection, since).await,
            }
        })
    });
    asked
        .await
        .map_err(|refusal| to_source_error(shard, refusal))
}

/// From the engine of a replica that has settled.
fn here(replica: &Replica, selection: &NewestSelection, since: Option<u64>) -> Newest {
    let pages = replica.engine.newest_since(selection, since);
    let shard = replica.shard;
    let (index, whole) = (pages.index, pages.whole);
    let pages = futures::stream::unfold(Some(pages), move |pages| async move {
        let mut pages: tsdb::newest::Pages = pages?;
        match pages.next().await.transpose()? {
            Ok(page) => Some((Ok(page), Some(pages))),
            Err(error) => {
                let text = format!("shard {}: {}", shard.0, error.full_text());
                Some((Err(SourceError::Internal(text)), None))
            }
        }
    });
    Newest {
        index,
        whole,
        pages: pages.boxed(),
    }
}

async fn there(
    router: &Router,
    peer: &Peer,
    shard: ShardId,
    selection: &NewestSelection,
    since: Option<u64>,
) -> Result<Newest, Refusal> {
    let request = wire::NewestRequest {
        cluster_id: router.cluster_id(),
        shard: shard.0,
        any_of: convert::sets_to_wire(&selection.any_of),
        start_ms: selection.start.0,
        end_ms: selection.end.0,
        local: selection.consistency == Consistency::Local,
        since,
        joined: true,
    };
    let mut replies = call(peer.pages().newest(request)).await?;
    // A leader answers with a page even if it has none to give: then it is known to have settled.
    let first = next(&mut replies).await?.unwrap_or_default();
    let (index, whole) = (first.index, first.whole);
    let received = router.received.clone();
    let rest = futures::stream::unfold(Some(replies), async |replies| {
        let mut replies = replies?;
        match next(&mut replies).await.transpose()? {
            Ok(page) => Some((Ok(page), Some(replies))),
            Err(refusal) => Some((Err(refusal), None)),
        }
    });
    let pages = futures::stream::iter([Ok(first)]).chain(rest);
    let pages = pages.map(move |page| {
        let page = page.map_err(|refusal| to_source_error(shard, refusal))?;
        received.inc_by(prost::Message::encoded_len(&page) as u64);
        page_from_wire(page).map_err(|e| SourceError::Internal(e.to_string()))
    });
    let filled = |page: &Result<Vec<model::Newest>, _>| {
        std::future::ready(page.as_ref().map_or(true, |page| !page.is_empty()))
    };
    Ok(Newest {
        index,
        whole,
        pages: pages.filter(filled).boxed(),
    })
}

async fn next(
    replies: &mut tonic::Streaming<wire::NewestReply>,
) -> Result<Option<wire::NewestReply>, Refusal> {
    let Some(mut reply) = next_reply(replies).await? else {
        return Ok(None);
    };
    refused(reply.refusal.take())?;
    Ok(Some(reply))
}

/// What a peer is sent: an empty page in front, then the pages.
pub async fn replies(
    found: Result<Arc<Replica>, Refusal>,
    request: wire::NewestRequest,
) -> BoxStream<'static, Result<wire::NewestReply, Status>> {
    let (since, joined) = (request.since, request.joined);
    let found = async {
        let replica = found?;
        let selection =
            selection_from_wire(request).map_err(|e| Refusal::Internal(e.to_string()))?;
        replica.settle(selection.consistency).await?;
        Ok::<_, Refusal>(here(&replica, &selection, since))
    };
    match found.await {
        Err(refusal) => once(Ok(refusal_reply(refusal))).boxed(),
        Ok(found) => {
            let first = wire::NewestReply {
                index: found.index,
                whole: found.whole,
                ..wire::NewestReply::default()
            };
            let pages = found.pages.map(move |page| {
                Ok(match page {
                    Ok(page) => page_to_wire(&page, joined),
                    Err(error) => refusal_reply(Refusal::Internal(error.to_string())),
                })
            });
            once(Ok(first)).chain(pages).boxed()
        }
    }
}

fn refusal_reply(refusal: Refusal) -> wire::NewestReply {
    wire::NewestReply {
        refusal: Some(convert::refusal_to_wire(refusal)),
        ..wire::NewestReply::default()
    }
}

fn selection_from_wire(request: wire::NewestRequest) -> Result<NewestSelection, Malformed> {
    Ok(NewestSelection {
        any_of: convert::sets_from_wire(request.any_of)?,
        start: Timestamp(request.start_ms),
        end: Timestamp(request.end_ms),
        consistency: match request.local {
            true => Consistency::Local,
            false => Consistency::Strong,
        },
    })
}

fn page_to_wire(page: &[model::Newest], joined: bool) -> wire::NewestReply {
    let mut reply = wire::NewestReply {
        timestamps: page.iter().map(|newest| newest.at.0).collect(),
        values: page.iter().map(|newest| newest.value).collect(),
        ..wire::NewestReply::default()
    };
    let blocks = page.iter().map(|newest| newest.labels.as_canonical());
    match joined {
        true => {
            reply.lengths = blocks.clone().map(|block| block.len() as u32).collect();
            reply.joined = blocks.collect::<Vec<&[u8]>>().concat().into();
        }
        false => reply.labels = blocks.map(Bytes::copy_from_slice).collect(),
    }
    for (row, newest) in page.iter().enumerate() {
        if let Some(histogram) = &newest.histogram {
            reply.histogram_rows.push(row as u32);
            reply.histograms.push(tsdb::histogram::canonical(histogram));
        }
    }
    reply
}

fn page_from_wire(mut reply: wire::NewestReply) -> Result<Vec<model::Newest>, Malformed> {
    let labels = labels_from_wire(&mut reply)?;
    let rows = labels.len();
    if reply.timestamps.len() != rows || reply.values.len() != rows {
        return Err(Malformed::new("columns of different length"));
    }
    let histograms = convert::histograms_from_wire(reply.histogram_rows, reply.histograms)?;
    let mut histograms = histograms.into_iter().peekable();
    let mut page = Vec::with_capacity(rows);
    let samples = reply.timestamps.into_iter().zip(reply.values);
    for (row, (labels, (at, value))) in labels.into_iter().zip(samples).enumerate() {
        let histogram = histograms.next_if(|(place, _)| *place as usize == row);
        page.push(model::Newest {
            labels,
            at: Timestamp(at),
            value,
            histogram: histogram.map(|(_, histogram)| histogram),
        });
    }
    match histograms.next() {
        None => Ok(page),
        Some(_) => Err(Malformed::new("a histogram beyond the rows")),
    }
}

/// Those that stand each for itself, then those that stand in one piece.
fn labels_from_wire(reply: &mut wire::NewestReply) -> Result<Vec<Labels>, Malformed> {
    let single = std::mem::take(&mut reply.labels);
    let mut labels = Vec::with_capacity(single.len() + reply.lengths.len());
    for block in &single {
        labels.push(convert::labels_from_wire(block)?);
    }
    let mut rest = &reply.joined[..];
    for &length in &reply.lengths {
        let Some((block, behind)) = rest.split_at_checked(length as usize) else {
            return Err(Malformed::new("label sets that are cut off"));
        };
        labels.push(convert::labels_from_wire(block)?);
        rest = behind;
    }
    match rest.is_empty() {
        true => Ok(labels),
        false => Err(Malformed::new("bytes behind the label sets")),
    }
}

#[cfg(test)]
mod tests {
    use model::Histogram;

    use super::*;

    #[test]
    fn a_page_survives_the_wire() {
        let newest = |name: &str, histogram: Option<Histogram>| model::Newest {
            labels: Labels::from_pairs([("__name__", name)]),
            at: Timestamp(-7),
            value: 1.5,
            histogram: histogram.map(Arc::new),
        };
        let page = vec![
            newest("a", None),
            newest("b", Some(Histogram::default())),
            newest("c", None),
        ];
        for joined in [false, true] {
            let wire = || page_to_wire(&page, joined);
            assert_eq!(page_from_wire(wire()), Ok(page.clone()));
            let mut short = wire();
            short.values.pop();
            assert!(page_from_wire(short).is_err());
            let mut beyond = wire();
            beyond.histogram_rows[0] = 9;
            assert!(page_from_wire(beyond).is_err());
        }
        let joined = || page_to_wire(&page, true);
        assert!(joined().labels.is_empty() && page_to_wire(&page, false).joined.is_empty());
        let mut cut = joined();
        cut.joined.truncate(cut.joined.len() - 1);
        assert!(page_from_wire(cut).is_err());
        let mut missing = joined();
        missing.lengths.pop();
        assert!(page_from_wire(missing).is_err());
    }
}
