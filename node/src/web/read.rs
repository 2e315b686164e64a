//! `/api/v1/read`: Prometheus' remote read.
//!
//! Promise: an answer is whole or an error: every query is answered by the cluster before the
//! first byte leaves. A bad regular expression is the reader's mistake and gives 400, where
//! Prometheus 3.5 gives 500. Not here: the wire format.

use std::convert::Infallible;

use axum::BoxError;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use federation::read::{Answer, Body as ReadBody, External, Request, Results, decode, markers};
use futures::stream;
use model::limits::{READ_REQUEST_BYTES_MAX, READ_SAMPLES_MAX};
use model::source::{Consistency, Selection, Take};
use model::{Samples, Series};

use super::errors::TextError;
use super::params::Form;
use super::{Shared, body};
use crate::queries::memory::{Held, size};

/// Names from which a reader knows the form of an answer.
const SAMPLES: &str = "application/x-protobuf";
const CHUNKS: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";

/// One request of a reader; it takes the place of a query while it is answered.
pub async fn remote(
    State(api): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    incoming: Body,
) -> Result<Response, TextError> {
    let bytes = body::read(incoming, READ_REQUEST_BYTES_MAX, &api.body_budget).await?;
    let request = decode(&bytes)?;
    let external = External(api.external_labels());
    let closed = |_| TextError::new(StatusCode::SERVICE_UNAVAILABLE, "the node is stopping");
    let _slot = api.queries.slots.acquire().await.map_err(closed)?;
    let form = Form::parse(uri.query().unwrap_or_default().as_bytes());
    let consistency = form.consistency(&headers).map_err(TextError::bad_request)?;
    let mut counted = Counted {
        results: Results::new(request.answer, external.clone()),
        held: Vec::new(),
    };
    match select(&api, &request, &external, consistency, &mut counted).await {
        Ok(()) => respond(counted),
        Err(error) => {
            let_go(counted.results.into_series()).await;
            Err(error)
        }
    }
}

/// What was selected, while it is counted.
struct Counted {
    results: Results,
    held: Vec<Held>,
}

async fn select(
    api: &Shared,
    request: &Request,
    external: &External,
    consistency: Consistency,
    counted: &mut Counted,
) -> Result<(), TextError> {
    let samples_max = match request.answer {
        Answer::Samples => READ_SAMPLES_MAX,
        Answer::Chunks => 0,
    };
    for query in &request.queries {
        let selection = Selection {
            matchers: external.strip(&query.matchers),
            start: query.start,
            end: query.end,
            take: Take::All,
            consistency,
        };
        // No matcher chooses no series, as in Prometheus.
        let mut series = match selection.matchers.is_empty() {
            true => Vec::new(),
            false => api.source.select(&selection).await?,
        };
        if query.labels_only {
            series
                .iter_mut()
                .for_each(|one| one.samples = Samples::default());
        }
        let mut held = api.queries.memory.hold(series.iter().map(size).sum())?;
        let samples = series.iter().map(|one| one.samples.len()).sum();
        if let Err(too_many) = counted.results.begin(samples, samples_max) {
            let_go(series).await;
            return Err(too_many.into());
        }
        let before = counted.results.bytes();
        keep(&mut counted.results, series).await;
        held.shrink(counted.results.bytes() - before);
        counted.held.push(held);
    }
    Ok(())
}

/// Drops a few series at a time: hundreds of thousands take tens of milliseconds.
async fn let_go<T>(all: impl IntoIterator<Item = T>) {
    for (n, one) in (1_usize..).zip(all) {
        drop(one);
        if n % SERIES_PER_TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Series that are let go between two turns: a part of a millisecond.
const SERIES_PER_TURN: usize = 4 << 10;

/// Samples that are kept between two turns: a part of a millisecond.
const SAMPLES_PER_TURN: usize = 64 << 10;

/// Adds a result, a few series at a time.
async fn keep(results: &mut Results, series: Vec<Series>) {
    let mut spent = 0;
    for mut one in series {
        spent += SERIES_SAMPLES + one.samples.len();
        markers::fit(&mut one.samples);
        results.add(one);
        if spent >= SAMPLES_PER_TURN {
            spent = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// What a series takes beside its samples is as much as so many of them take.
const SERIES_SAMPLES: usize = 128;

fn respond(counted: Counted) -> Result<Response, TextError> {
    let body = counted.results.into_body();
    let body =
        body.map_err(|e| TextError::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    let kind = |kind| (header::CONTENT_TYPE, kind);
    Ok(match body {
        ReadBody::Samples(pieces) => {
            let headers = [kind(SAMPLES), (header::CONTENT_ENCODING, "snappy")];
            (headers, in_turns(pieces, counted.held)).into_response()
        }
        ReadBody::Chunks(frames) => {
            let frames = frames.map(Ok::<Bytes, Infallible>);
            ([kind(CHUNKS)], in_turns(frames, counted.held)).into_response()
        }
    })
}

/// Pieces as they are read; what they are made of is counted until then.
fn in_turns<P: Into<Bytes> + Send + 'static, E: Into<BoxError> + Send + 'static>(
    pieces: impl Iterator<Item = Result<P, E>> + Send + 'static,
    held: Vec<Held>,
) -> Body {
    let pieces = stream::unfold((pieces, held), async |(mut pieces, held)| {
        let piece = pieces.next()?;
        // A reader that takes all at once must not keep others from their turn.
        tokio::task::yield_now().await;
        Some((piece, (pieces, held)))
    });
    Body::from_stream(pieces)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::twin::{Answer, NOW, Twin};

    /// A request for `up{region="eu"}` up to now; `kinds` are the forms the reader takes.
    fn request(pattern: &str, kinds: &[u8]) -> Vec<u8> {
        let field = |tag: u8, bytes: &[u8]| [&[tag, bytes.len() as u8], bytes].concat();
        let matcher = |kind: u8, name: &str, value: &str| {
            let fields = [
                vec![0x08, kind],
                field(0x12, name.as_bytes()),
                field(0x1a, value.as_bytes()),
            ];
            field(0x1a, &fields.concat())
        };
        let mut end = vec![0x10];
        let mut word = NOW.0 as u64;
        while word >= 0x80 {
            end.push(word as u8 | 0x80);
            word >>= 7;
        }
        end.push(word as u8);
        let matchers = [matcher(2, "__name__", pattern), matcher(0, "region", "eu")];
        let query = [&end[..], &matchers.concat()].concat();
        let mut message = field(0x0a, &query);
        for kind in kinds {
            message.extend([0x10, *kind]);
        }
        message
    }

    async fn ask(twin: &Twin, message: &[u8]) -> Answer {
        let body = snap::raw::Encoder::new().compress_vec(message).unwrap();
        twin.api_request("POST", "/api/v1/read", &[], body).await
    }

    fn twin() -> Twin {
        let twin = Twin::new();
        twin.store
            .add(&[("__name__", "up")], NOW.plus_ms(-1000), 1.0);
        twin.store.add(&[("__name__", "down")], NOW, 1.0);
        twin
    }

    #[tokio::test]
    async fn samples_come_as_one_message() {
        let answer = ask(&twin(), &request("u.*", &[])).await;
        assert_eq!(answer.code, 200);
        assert_eq!(answer.header("content-type"), "application/x-protobuf");
        assert_eq!(answer.header("content-encoding"), "snappy");
        let body = snap::raw::Decoder::new()
            .decompress_vec(&answer.body)
            .unwrap();
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("region") && text.contains("eu") && text.contains("up"));
        assert!(!text.contains("down"));
    }

    /// Prometheus 3.5.3: an external label is no matcher, and without one there is nothing.
    #[tokio::test]
    async fn no_matcher_chooses_nothing() {
        let twin = twin();
        for query in [
            &b"\x0a\x02\x08\x00"[..],
            b"\x0a\x12\x1a\x0e\x08\x00\x12\x06region\x1a\x02eu\x10\x00",
        ] {
            let answer = ask(&twin, query).await;
            assert_eq!(answer.code, 200);
            let body = snap::raw::Decoder::new().decompress_vec(&answer.body);
            assert_eq!(body, Ok(vec![0x0a, 0x00]));
        }
    }

    #[tokio::test]
    async fn chunks_come_as_frames() {
        let answer = ask(&twin(), &request("u.*", &[1, 0])).await;
        let kind = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
        assert_eq!((answer.code, answer.header("content-type")), (200, kind));
        let (head, message) = answer.body.split_at(5);
        assert_eq!(usize::from(head[0]), message.len());
        assert_eq!(head[1..], crc32c::crc32c(message).to_be_bytes());
        let none = ask(&twin(), &request("nosuch", &[1])).await;
        assert_eq!(none.seen(), (200, ""));
    }

    #[tokio::test]
    async fn there_is_no_half_of_an_answer() {
        let twin = twin();
        let bad = ask(&twin, &request("(", &[])).await;
        assert_eq!(bad.code, 400);
        let unknown = ask(&twin, &request("u.*", &[7])).await;
        assert_eq!(
            unknown.seen(),
            (
                400,
                "server does not support any of the requested response types: [7]; \
                 supported: map[SAMPLES:{} STREAMED_XOR_CHUNKS:{}]\n"
            )
        );
        let broken = twin
            .api_request("POST", "/api/v1/read", &[], "\u{5}ab")
            .await;
        assert_eq!(broken.code, 400);
        twin.store.broken.store(true, Ordering::SeqCst);
        for kinds in [&[][..], &[1]] {
            assert_eq!(ask(&twin, &request("u.*", kinds)).await.code, 503);
        }
        let get = twin.get("/api/v1/read").await;
        assert_eq!((get.code, get.header("allow")), (405, "OPTIONS, POST"));
    }
}
