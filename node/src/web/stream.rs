//! `/api/v1/federation/stream`: every sample since a position, for a parent
//! (docs/format/federation.md).
//!
//! Promise: shards are read one after the other, each once its leader has settled; the stream ends
//! with a frame that says so, and an error breaks it off.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use cluster::newest::Newest;
use cluster::{Changes, Cluster, Question};
use federation::stream::{Frame, Position, samples_frames};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use model::source::SourceError;
use model::time::parse_duration;
use model::{ClusterId, Labels, NewestSelection, Series, ShardId};

use super::Shared;
use super::errors::TextError;
use super::params::Form;
use crate::tree::{Tree, origins};

/// Of a parent that does not say how much it wants.
const HISTORY_DEFAULT: Duration = Duration::from_secs(60 * 60);

/// What is asked of the cluster.
#[async_trait]
pub trait Upward: Send + Sync {
    /// `None` before there is a cluster.
    fn cluster_id(&self) -> Option<ClusterId>;
    fn shards(&self) -> Vec<ShardId>;
    /// With commas.
    fn origins(&self) -> String;
    async fn changes(&self, shard: ShardId, question: &Question) -> Result<Changes, SourceError>;
    /// Newest samples of a shard, of series written since an index of its log.
    async fn newest(
        &self,
        shard: ShardId,
        selection: &NewestSelection,
        since: Option<u64>,
    ) -> Result<Newest, SourceError>;
}

/// The cluster of this node, and its children.
pub struct Whole {
    pub cluster: Arc<Cluster>,
    pub tree: Arc<Tree>,
}

#[async_trait]
impl Upward for Whole {
    fn cluster_id(&self) -> Option<ClusterId> {
        self.cluster.cluster_id()
    }

    fn shards(&self) -> Vec<ShardId> {
        self.cluster.shards()
    }

    fn origins(&self) -> String {
        self.tree.origins()
    }

    async fn changes(&self, shard: ShardId, question: &Question) -> Result<Changes, SourceError> {
        self.cluster.changes(shard, question).await
    }

    async fn newest(
        &self,
        shard: ShardId,
        selection: &NewestSelection,
        since: Option<u64>,
    ) -> Result<Newest, SourceError> {
        self.cluster.newest(shard, selection, since).await
    }
}

pub async fn stream(State(api): State<Shared>, uri: Uri) -> Result<Response, TextError> {
    let form = Form::parse(uri.query().unwrap_or_default().as_bytes());
    form.strict().map_err(TextError::bad_request)?;
    let any_of: Result<Vec<_>, _> = form.all("match[]").map(promql::parse_matchers).collect();
    let any_of = any_of.map_err(|e| TextError::bad_request(e.to_string()))?;
    let history = match form.first("history") {
        "" => HISTORY_DEFAULT,
        text => parse_duration(text).map_err(|e| TextError::bad_request(e.to_string()))?,
    };
    let history_ms = i64::try_from(history.as_millis()).unwrap_or(i64::MAX);
    let upward = Arc::clone(&api.upward);
    let shards = upward.shards();
    let own = upward.cluster_id().filter(|_| !shards.is_empty());
    let own = own.ok_or(SourceError::Unavailable(Vec::new()))?;
    // One of another cluster, which this one may have taken the place of, says nothing here.
    let since = form.first("since").parse::<Position>().ok();
    let since = since.filter(|since| since.fits(own, shards.len()));
    let told = [
        (
            header::CONTENT_TYPE,
            "application/x-quorate-federation".to_owned(),
        ),
        (
            header::HeaderName::from_static(origins::HEADER),
            upward.origins(),
        ),
    ];
    let mut reading = Reading {
        question: Question {
            any_of,
            since: None,
            oldest: api.clock.now().plus_ms(history_ms.saturating_neg()),
        },
        position: since.unwrap_or_else(|| Position::start(own, shards.len())),
        external: api.external_labels(),
        shards: shards.into_iter(),
        shard: None,
        ended: false,
        upward,
    };
    // The first shard has settled before anything is promised.
    let first = reading.frames().await?;
    let rest = stream::unfold(Some(reading), async |reading| {
        let mut reading = reading?;
        match reading.frames().await {
            Ok(None) => None,
            Ok(Some(frames)) => Some((Ok(frames), Some(reading))),
            Err(error) => {
                tracing::warn!(%error, "a federation stream was broken off");
                Some((Err(error), None))
            }
        }
    });
    let frames = stream::iter(first.map(Ok)).chain(rest);
    let body = frames.flat_map(|frames| match frames {
        Ok(frames) => stream::iter(frames).map(Ok).boxed(),
        Err(error) => stream::iter([Err(error)]).boxed(),
    });
    Ok((told, Body::from_stream(body)).into_response())
}

/// A shard being sent, up to an index of its log.
struct OfShard {
    shard: ShardId,
    index: u64,
    series: BoxStream<'static, Result<Vec<Series>, SourceError>>,
}

struct Reading {
    upward: Arc<dyn Upward>,
    question: Question,
    /// Moves on with each shard that was sent.
    position: Position,
    external: Labels,
    shards: std::vec::IntoIter<ShardId>,
    shard: Option<OfShard>,
    ended: bool,
}

impl Reading {
    /// The next frames; none at the end.
    async fn frames(&mut self) -> Result<Option<Vec<Bytes>>, SourceError> {
        let Some(sent) = &mut self.shard else {
            return self.next_shard().await;
        };
        if let Some(series) = sent.series.next().await.transpose()? {
            let series = series.into_iter().map(|one| with(&self.external, one));
            return Ok(Some(samples_frames(series.collect())));
        }
        self.position.advance(sent.shard, sent.index);
        self.shard = None;
        let position = Frame::Position(self.position.to_string());
        Ok(Some(vec![position.encode()]))
    }

    async fn next_shard(&mut self) -> Result<Option<Vec<Bytes>>, SourceError> {
        let Some(shard) = self.shards.next() else {
            let end = Frame::End(self.position.to_string());
            let first = !std::mem::replace(&mut self.ended, true);
            return Ok(first.then(|| vec![end.encode()]));
        };
        self.question.since = self.position.of(shard);
        let changes = self.upward.changes(shard, &self.question).await?;
        self.shard = Some(OfShard {
            shard,
            index: changes.index,
            series: changes.series,
        });
        Ok(Some(Vec::new()))
    }
}

/// With the external labels it lacks.
fn with(external: &Labels, series: Series) -> Series {
    let lacking = external
        .iter()
        .filter(|(n, _)| series.labels.get(n).is_none());
    let lacking: Vec<_> = lacking.collect();
    if lacking.is_empty() {
        return series;
    }
    let labels = Labels::from_pairs(series.labels.iter().chain(lacking));
    Series { labels, ..series }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use federation::stream::Decoder;

    use super::super::twin::{NOW, Twin};
    use super::*;

    fn frames(body: &[u8]) -> Vec<Frame> {
        let mut decoder = Decoder::default();
        decoder.push(body);
        std::iter::from_fn(|| decoder.next_frame().unwrap()).collect()
    }

    #[tokio::test]
    async fn everything_since_a_position_then_the_next_position() {
        let twin = Twin::new();
        twin.store
            .add(&[("__name__", "a"), ("job", "x")], NOW.plus_ms(-5), 1.0);
        twin.store.add(
            &[("__name__", "old"), ("job", "x")],
            NOW.plus_ms(-7_200_000),
            1.0,
        );
        let path = "/api/v1/federation/stream?match[]={job=%22x%22}";
        let answer = twin.get(path).await;
        assert_eq!(answer.code, 200);
        assert_eq!(
            answer.header(origins::HEADER),
            model::ClusterId(0xab).to_string()
        );
        let all = frames(&answer.body);
        let [
            Frame::Samples(series),
            Frame::Position(position),
            Frame::End(end),
        ] = &all[..]
        else {
            panic!("{all:?}");
        };
        let labels = [("__name__", "a"), ("job", "x"), ("region", "eu")];
        assert_eq!(series[0].labels, Labels::from_pairs(labels));
        assert_eq!((series.len(), position), (1, end));
        let again = twin.get(&format!("{path}&since={end}")).await;
        let again = frames(&again.body);
        assert!(
            matches!(&again[..], [Frame::Position(_), Frame::End(_)]),
            "{again:?}"
        );
        let foreign = twin.get(&format!("{path}&since=q1.99.5&history=3h")).await;
        let Frame::Samples(series) = &frames(&foreign.body)[0] else {
            panic!("another cluster's position counts for nothing");
        };
        assert_eq!(series.len(), 2);
    }

    #[tokio::test]
    async fn what_cannot_be_answered_is_an_error() {
        let twin = Twin::new();
        let bad = twin.get("/api/v1/federation/stream?match[]=-1").await;
        assert_eq!(bad.code, 400);
        twin.store.broken.store(true, Ordering::SeqCst);
        assert_eq!(
            twin.get("/api/v1/federation/stream?match[]=a").await.code,
            503
        );
    }
}
