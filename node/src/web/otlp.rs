//! OpenTelemetry's metrics: `/api/v1/otlp/v1/metrics`, and the same by gRPC on a listener of its own.
//!
//! Promise: success only when every data point is decided; those that can never be stored are
//! counted and named in it (partial success), as the protocol wants it and otherwise than
//! Prometheus 3.5, which refuses the whole request with 400. What may be sent again is 503 or 429,
//! and UNAVAILABLE. gRPC is spoken here without its library: one message in, one out, so that a
//! message is bounded before it is decoded.

use std::borrow::Cow;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use ingest::otlp::answer::{self, Encoding};
use ingest::otlp::{Decoded, NO_POINT, OtlpError, decode, decode_json};
use model::limits::{WRITE_BODY_BYTES_MAX, WRITE_DECODED_BYTES_MAX};
use model::sink::Written;

use super::errors::{TextError, tell_when};
use super::state::ApiState;
use super::{Shared, body};

const GRPC_EXPORT: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// The listener for gRPC.
pub fn grpc_router(state: ApiState) -> Router {
    Router::new()
        .route(GRPC_EXPORT, post(export))
        .fallback(|| async { trailers_only(UNIMPLEMENTED, "unknown method") })
        .with_state(std::sync::Arc::new(state))
}

/// One request of an exporter by HTTP.
pub async fn metrics(
    State(api): State<Shared>,
    headers: HeaderMap,
    incoming: Body,
) -> Result<Response, TextError> {
    if !api.settings.otlp_receiver {
        return Err(TextError::new(
            StatusCode::NOT_FOUND,
            "otlp write receiver needs to be enabled with --web.enable-otlp-receiver",
        ));
    }
    let encoding = encoding_of(&headers)?;
    let (code, bytes) = match receive(&api, &headers, incoming, encoding).await {
        Ok(done) => {
            let bytes = answer::decided(encoding, done.rejected, &done.text);
            (StatusCode::OK, bytes)
        }
        Err(error) => {
            let bytes = answer::failed(encoding, grpc_code(error.status), &error.message);
            (error.status, bytes)
        }
    };
    let kind = [(header::CONTENT_TYPE, encoding.media_type())];
    let mut response = (code, kind, bytes).into_response();
    tell_when(&mut response);
    Ok(response)
}

fn encoding_of(headers: &HeaderMap) -> Result<Encoding, TextError> {
    let kind = text(headers, "content-type");
    let media = kind.split(';').next().unwrap_or_default().trim();
    let known = [Encoding::Protobuf, Encoding::Json];
    let found = known.into_iter().find(|one| one.media_type() == media);
    found.ok_or_else(|| {
        let text = format!(
            "unsupported content type: {kind}, supported: [application/json, application/x-protobuf]"
        );
        TextError::bad_request(text)
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let value = headers.get(name);
    value.map_or("", |value| value.to_str().unwrap_or("?"))
}

async fn receive(
    api: &Shared,
    headers: &HeaderMap,
    incoming: Body,
    encoding: Encoding,
) -> Result<Done, TextError> {
    let sent = body::read(incoming, WRITE_BODY_BYTES_MAX, &api.body_budget).await?;
    let is_packed = match text(headers, "content-encoding") {
        "" | "identity" => false,
        "gzip" => true,
        other => {
            let text = format!(
                "unsupported compression: {other}. Only \"gzip\" or no compression supported"
            );
            return Err(TextError::bad_request(text));
        }
    };
    take(api, &sent, is_packed, encoding).await
}

/// What became of a request whose every data point was decided.
struct Done {
    rejected: u64,
    /// Why; empty when nothing was rejected.
    text: String,
}

/// Texts of an answer.
const TOLD_MAX: usize = 5;

async fn take(
    api: &Shared,
    sent: &[u8],
    is_packed: bool,
    encoding: Encoding,
) -> Result<Done, TextError> {
    let settings = api.otlp_settings();
    let decoding = || {
        let plain = match is_packed {
            true => Cow::Owned(body::gunzip(sent, WRITE_DECODED_BYTES_MAX)?),
            false => Cow::Borrowed(sent),
        };
        match encoding {
            Encoding::Protobuf => decode(&plain, &settings),
            Encoding::Json => decode_json(&plain, &settings),
        }
        .map_err(refused)
    };
    let weight = body::weight(sent, is_packed);
    let decoded = api.body_budget.apart(weight, decoding).await?;
    let written = match decoded.batch.is_empty() {
        true => Written::default(),
        false => api.sink.write_kept(&decoded.batch).await?,
    };
    let added = match decoded.deltas.is_empty() {
        true => Written::default(),
        false => api.sink.write_kept(&decoded.deltas).await?,
    };
    api.describe(&decoded.metadata).await?;
    Ok(tell(&decoded, [written, added]))
}

fn refused(error: OtlpError) -> TextError {
    let status = match error {
        OtlpError::TooMuch { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        OtlpError::Wire(_) | OtlpError::Protobuf { .. } | OtlpError::Json(_) => {
            StatusCode::BAD_REQUEST
        }
    };
    TextError::new(status, error.to_string())
}

/// `written` is what became of the batch, and of the differences.
fn tell(decoded: &Decoded, written: [Written; 2]) -> Done {
    let mut rejected = decoded.rejected;
    let mut told: Vec<String> = decoded.problems.iter().take(TOLD_MAX).cloned().collect();
    let mut last = NO_POINT;
    let sides = [
        (&decoded.batch, &decoded.points),
        (&decoded.deltas, &decoded.delta_points),
    ];
    let of_both = sides.iter().zip(&written);
    let of_both = of_both.flat_map(|(side, written)| {
        let all = written.rejected.iter();
        all.map(move |rejection| (side, rejection))
    });
    for ((batch, points), rejection) in of_both {
        let row = rejection.row as usize;
        let point = points.get(row).copied().unwrap_or(NO_POINT);
        if point == NO_POINT || point == last {
            continue;
        }
        (last, rejected) = (point, rejected + 1);
        let rows = &batch.rows;
        let series = rows.series.get(row).map(|series| *series as usize);
        let labels = series.and_then(|series| batch.series.get(series));
        if let (Some(labels), Some(at)) = (labels, rows.timestamps.get(row))
            && told.len() < TOLD_MAX
        {
            told.push(format!(
                "{} {at}: series {labels}",
                rejection.reason.as_str()
            ));
        }
    }
    let more = rejected.saturating_sub(told.len() as u64);
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    Done {
        rejected,
        text: told.join("\n"),
    }
}

// ---- gRPC ----

const INVALID_ARGUMENT: i32 = 3;
const RESOURCE_EXHAUSTED: i32 = 8;
const UNIMPLEMENTED: i32 = 12;
const INTERNAL: i32 = 13;
const UNAVAILABLE: i32 = 14;
/// In front of each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Exporters send again what is UNAVAILABLE, so what waits too long here is that.
fn grpc_code(status: StatusCode) -> i32 {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => RESOURCE_EXHAUSTED,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => UNAVAILABLE,
        status if status.is_client_error() => INVALID_ARGUMENT,
        _ => INTERNAL,
    }
}

async fn export(State(api): State<Shared>, headers: HeaderMap, incoming: Body) -> Response {
    if !text(&headers, "content-type").starts_with("application/grpc") {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    match export_one(&api, &headers, incoming).await {
        Ok(done) => {
            let message = answer::decided(Encoding::Protobuf, done.rejected, &done.text);
            in_one_message(message)
        }
        Err(error) => trailers_only(grpc_code(error.status), &error.message),
    }
}

async fn export_one(api: &Shared, headers: &HeaderMap, incoming: Body) -> Result<Done, TextError> {
    let bytes_max = WRITE_BODY_BYTES_MAX + PREFIX_BYTES;
    let sent = body::read(incoming, bytes_max, &api.body_budget).await?;
    let cut = sent.split_first_chunk::<PREFIX_BYTES>();
    let whole = cut.filter(|([_, length @ ..], message)| {
        u32::from_be_bytes(*length) as usize == message.len()
    });
    let Some(([flag, ..], message)) = whole else {
        return Err(TextError::bad_request("expected one gRPC message"));
    };
    let is_packed = match (flag, text(headers, "grpc-encoding")) {
        (0, _) => false,
        (1, "gzip") => true,
        (_, encoding) => {
            let text = format!("compression {encoding:?} is not known, only gzip");
            return Err(TextError::bad_request(text));
        }
    };
    take(api, message, is_packed, Encoding::Protobuf).await
}

fn in_one_message(message: Vec<u8>) -> Response {
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(0i32));
    let frames = [
        Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(framed))),
        Ok(Frame::trailers(trailers)),
    ];
    let body = Body::new(StreamBody::new(futures::stream::iter(frames)));
    ([(header::CONTENT_TYPE, "application/grpc")], body).into_response()
}

/// An answer without a message has its status among the headers.
fn trailers_only(code: i32, text: &str) -> Response {
    let mut response = [(header::CONTENT_TYPE, "application/grpc")].into_response();
    let headers = response.headers_mut();
    headers.insert("grpc-status", HeaderValue::from(code));
    if let Ok(text) = HeaderValue::from_str(&percent_encoded(text)) {
        headers.insert("grpc-message", text);
    }
    response
}

/// Bytes of a status text that one header may have.
const MESSAGE_BYTES_MAX: usize = 1024;

/// As gRPC has it: what is not printable ASCII, and the percent sign, by their bytes.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes().take(MESSAGE_BYTES_MAX) {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::state::Settings;
    use super::super::twin::{Answer, NOW, Twin};
    use super::*;

    const PATH: &str = "/api/v1/otlp/v1/metrics";
    const UP: [(&str, &str); 1] = [("__name__", "up")];

    fn request(name: &str, value: f64) -> String {
        let at = NOW.0 as u64 * 1_000_000;
        format!(
            r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"{name}","gauge":{{"dataPoints":[{{"timeUnixNano":"{at}","asDouble":{value}}}]}}}}]}}]}}]}}"#
        )
    }

    async fn send(twin: &Twin, body: impl Into<Body>) -> Answer {
        let (headers, body) = ([("content-type", "application/json")], body.into());
        twin.api_request("POST", PATH, &headers, body).await
    }

    #[tokio::test]
    async fn what_is_stored_is_200_and_what_is_not_is_told() {
        let twin = Twin::new();
        assert_eq!(send(&twin, request("up", 1.0)).await.seen(), (200, "{}"));
        assert_eq!(twin.store.value(&UP, NOW), Some(1.0));
        assert_eq!(send(&twin, request("up", 1.0)).await.seen(), (200, "{}"));
        let answer = send(&twin, request("up", 2.0)).await;
        assert_eq!(
            answer.seen(),
            (
                200,
                r#"{"partialSuccess":{"errorMessage":"duplicate sample for timestamp 1795233379500: series {__name__=\"up\"}","rejectedDataPoints":"1"}}"#
            )
        );
        assert_eq!(answer.header("content-type"), "application/json");
    }

    #[tokio::test]
    async fn refusals_are_in_the_encoding_of_the_request() {
        let twin = Twin::new();
        assert_eq!(
            send(&twin, "[]").await.seen(),
            (
                400,
                r#"{"code":3,"message":"metrics request: JSON: the request: expected an object"}"#
            )
        );
        let headers = [("content-type", "application/x-protobuf")];
        let bad = twin
            .api_request("POST", PATH, &headers, "\u{a}\u{9}x")
            .await;
        assert_eq!((bad.code, bad.body.first()), (400, Some(&8)));
        let empty = twin.api_request("POST", PATH, &headers, "").await;
        assert_eq!(empty.seen(), (200, ""));
        let other = [("content-type", "text/plain")];
        let refused = twin.api_request("POST", PATH, &other, "").await;
        let text = "unsupported content type: text/plain, supported: [application/json, application/x-protobuf]\n";
        assert_eq!(refused.seen(), (400, text));
        twin.store.broken.store(true, Ordering::SeqCst);
        let answer = send(&twin, request("up", 1.0)).await;
        assert_eq!((answer.code, answer.header("retry-after")), (503, "1"));
        assert!(answer.text().starts_with(r#"{"code":14,"#));
        let off = Twin::with(Settings {
            otlp_receiver: false,
            ..Settings::default()
        });
        assert_eq!(send(&off, request("up", 1.0)).await.code, 404);
    }

    #[test]
    fn texts_fit_a_header() {
        assert_eq!(percent_encoded("a\n50% é"), "a%0A50%25 %C3%A9");
    }
}
