//! `/api/v1/export`: series as lines of JSON, streamed.
//!
//! Promise: every series and sample that the selectors choose, or an error: before the first byte
//! with a code, later by breaking the answer off. One metric name's samples are held at a time;
//! where even those are too many for an answer between nodes, the time is cut in halves. Native
//! histograms have no place in this format: an export that meets one fails and says so.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, future, stream};
use ingest::jsonlines;
use model::labels::METRIC_NAME;
use model::limits::{EXPORT_LINE_ROWS, EXPOSITION_PIECE_BYTES};
use model::source::{Consistency, MetadataSelection, Selection, SourceError, Take};
use model::{Labels, Matcher, Series, Timestamp};
use tokio::sync::mpsc;

use super::Shared;
use crate::web::errors::{ApiError, ErrorType};
use crate::web::params::{Form, MIN_TIME};

const STREAM: &str = "application/stream+json; charset=utf-8";

/// What is asked for.
struct Export {
    any_of: Vec<Vec<Matcher>>,
    start: Timestamp,
    end: Timestamp,
    consistency: Consistency,
}

type Pieces = mpsc::Sender<Result<Bytes, ApiError>>;

/// `match[]`, any number of them; `start` and `end` default to all up to now.
pub async fn export(
    State(api): State<Shared>,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, ApiError> {
    form.strict().map_err(ApiError::bad_data)?;
    let bad = |e: String| ApiError::bad_parameter("match[]", e);
    let any_of = form.matchers().map_err(bad)?;
    if any_of.is_empty() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let export = Export {
        any_of,
        start: form.time_or("start", MIN_TIME)?,
        end: form.time_or("end", api.clock.now())?,
        consistency: form.consistency(&headers).map_err(ApiError::bad_data)?,
    };
    let mut pieces = run(api, export);
    let first = pieces.next().await.transpose()?;
    let first = stream::iter(first.map(Ok));
    let body = Body::from_stream(first.chain(pieces).map(|piece| {
        // The answer's head is gone: all that is left is not to end it.
        piece.map_err(|e| std::io::Error::other(e.message))
    }));
    Ok(([(header::CONTENT_TYPE, STREAM)], body).into_response())
}

/// The lines in pieces. Whoever takes them drives the work; it ends when they are let go.
fn run(api: Shared, export: Export) -> BoxStream<'static, Result<Bytes, ApiError>> {
    let (pieces, mut receiver) = mpsc::channel(1);
    let work = async move {
        if let Err(error) = export.run(&api, &pieces).await {
            // Nobody is left to tell when the client has gone.
            pieces.send(Err(error)).await.ok();
        }
    };
    let work = stream::once(work).filter_map(|()| future::ready(None));
    let received = stream::poll_fn(move |context| receiver.poll_recv(context));
    stream::select(work, received).boxed()
}

impl Export {
    async fn run(&self, api: &Shared, pieces: &Pieces) -> Result<(), ApiError> {
        let closed = |_| ApiError::new(ErrorType::Unavailable, "the node is stopping");
        let _slot = api.queries.slots.acquire().await.map_err(closed)?;
        for name in self.names(api).await? {
            if !self.write_name(api, &name, pieces).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Names of the metrics that are chosen, sorted.
    async fn names(&self, api: &Shared) -> Result<BTreeSet<String>, ApiError> {
        let selection = MetadataSelection {
            any_of: self.any_of.clone(),
            start: self.start,
            end: self.end,
            consistency: self.consistency,
        };
        let values = api.source.label_values(METRIC_NAME, &selection).await?;
        Ok(values.into_iter().collect())
    }

    /// False when nobody takes the lines any more.
    async fn write_name(
        &self,
        api: &Shared,
        name: &str,
        pieces: &Pieces,
    ) -> Result<bool, ApiError> {
        let mut spans = vec![(self.start, self.end)];
        while let Some((start, end)) = spans.pop() {
            match self.select(api, name, start, end).await {
                Ok(series) => {
                    if !write_series(series, pieces).await? {
                        return Ok(false);
                    }
                }
                Err(SourceError::TooLarge(_)) if start < end => {
                    let middle = Timestamp(start.0.midpoint(end.0));
                    spans.push((middle.plus_ms(1), end));
                    spans.push((start, middle));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// The union of all selectors for one name, each series once.
    async fn select(
        &self,
        api: &Shared,
        name: &str,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<Vec<Series>, SourceError> {
        let mut seen: BTreeSet<Labels> = BTreeSet::new();
        let mut all = Vec::new();
        for matchers in &self.any_of {
            let mut matchers = matchers.clone();
            matchers.push(Matcher::equal(METRIC_NAME, name));
            let selection = Selection {
                matchers,
                start,
                end,
                take: Take::All,
                consistency: self.consistency,
            };
            let mut series = api.source.select(&selection).await?;
            series.retain(|one| seen.insert(one.labels.clone()));
            all.append(&mut series);
        }
        Ok(all)
    }
}

async fn write_series(series: Vec<Series>, pieces: &Pieces) -> Result<bool, ApiError> {
    let mut text = String::new();
    for Series { labels, samples } in series {
        if !samples.histograms.is_empty() {
            let why =
                format!("series {labels} has native histograms, which this format cannot hold");
            return Err(ApiError::new(ErrorType::Execution, why));
        }
        let rows = samples.len();
        for first in (0..rows).step_by(EXPORT_LINE_ROWS) {
            let span = first..rows.min(first + EXPORT_LINE_ROWS);
            jsonlines::write(&labels, &samples, span, &mut text);
            if text.len() >= EXPOSITION_PIECE_BYTES {
                let piece = Bytes::from(std::mem::take(&mut text));
                if pieces.send(Ok(piece)).await.is_err() {
                    return Ok(false);
                }
            }
        }
    }
    match text.is_empty() {
        true => Ok(true),
        false => Ok(pieces.send(Ok(Bytes::from(text))).await.is_ok()),
    }
}
