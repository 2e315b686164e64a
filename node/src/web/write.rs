//! `/api/v1/write`: Prometheus' remote write 1.0.
//!
//! Promise: 204 only when every sample is durable on a majority. Samples that can never be stored
//! give 400, after all others of the request were stored, and the text names the first; 503 and
//! 429 mean that the same request may be sent again. A native histogram that Prometheus refuses is
//! one of those: Prometheus 3.5 answers it with 500, and a sender repeats it for ever. Not here:
//! the wire format.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use model::Batch;
use model::limits::WRITE_BODY_BYTES_MAX;
use model::sink::Written;

use super::errors::TextError;
use super::{Shared, body};

const PROTOBUF: &str = "application/x-protobuf";
const VERSION_1: &str = "prometheus.WriteRequest";
const VERSION_2: &str = "io.prometheus.write.v2.Request";

/// One request of a sender.
pub async fn remote(
    State(api): State<Shared>,
    headers: HeaderMap,
    incoming: Body,
) -> Result<StatusCode, TextError> {
    if !api.settings.remote_write_receiver {
        return Err(TextError::new(
            StatusCode::NOT_FOUND,
            "remote write receiver needs to be enabled with --web.enable-remote-write-receiver",
        ));
    }
    check_headers(&headers)?;
    let bytes = body::read(incoming, WRITE_BODY_BYTES_MAX, &api.body_budget).await?;
    let decoded = api.seen.decode(&bytes)?;
    let complaint = store(&api, decoded.batch).await?;
    match decoded
        .problems
        .first()
        .map(ToString::to_string)
        .or(complaint)
    {
        None => Ok(StatusCode::NO_CONTENT),
        Some(complaint) => Err(TextError::bad_request(complaint)),
    }
}

/// Stores what can be stored; the result tells of what cannot.
async fn store(api: &Shared, batch: Batch) -> Result<Option<String>, TextError> {
    if batch.is_empty() {
        return Ok(None);
    }
    let written = api.sink.write(batch.clone()).await?;
    Ok(complaint(&batch, &written))
}

/// Names the first row that was rejected.
fn complaint(batch: &Batch, written: &Written) -> Option<String> {
    let first = written.rejected.first()?;
    let row = first.row as usize;
    let series = batch.rows.series.get(row)?;
    let labels = batch.series.get(*series as usize)?;
    let at = batch.rows.timestamps.get(row)?;
    Some(format!(
        "{} {at}: series {labels}; {} of {} samples rejected, all others stored",
        first.reason.as_str(),
        written.rejected.len(),
        batch.rows.len()
    ))
}

/// Media type and encoding, refused in Prometheus' words.
fn check_headers(headers: &HeaderMap) -> Result<(), TextError> {
    let text = |name| {
        let value = headers.get(name);
        value.map_or("", |v| v.to_str().unwrap_or("?"))
    };
    let refused = |why| Err(TextError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    let kind = text(header::CONTENT_TYPE);
    let mut parts = kind.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    // Senders older than version 1.0 leave the type out.
    if !matches!(media, "" | PROTOBUF) {
        return refused(format!(
            "expected {PROTOBUF} as the first (media) part, got {kind} content-type"
        ));
    }
    let message = parts.find_map(|p| p.strip_prefix("proto="));
    match message.unwrap_or(VERSION_1) {
        VERSION_1 => {}
        VERSION_2 => {
            return refused(format!(
                "{VERSION_2} protobuf message is not accepted by this server; only {VERSION_1} is acceptable"
            ));
        }
        other => {
            return refused(format!(
                "got {kind} content type; unknown remote write protobuf message {other}, \
                 supported: {VERSION_1}"
            ));
        }
    }
    match text(header::CONTENT_ENCODING) {
        "" | "snappy" => Ok(()),
        other => refused(format!(
            "{other} encoding (compression) is not accepted by this server; \
             only snappy is acceptable"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::state::Settings;
    use super::super::twin::{Answer, NOW, Twin};

    const UP: [(&str, &str); 2] = [("__name__", "up"), ("job", "a")];
    const PATH: &str = "/api/v1/write";

    /// One series with one sample as protobuf: `WriteRequest.timeseries`, field 1.
    fn series(pairs: &[(&str, &str)], value: f64) -> Vec<u8> {
        let field = |tag: u8, bytes: &[u8]| {
            let length = u8::try_from(bytes.len()).expect("a short message");
            [&[tag, length], bytes].concat()
        };
        let mut message = Vec::new();
        for (name, value) in pairs {
            let label = [field(0x0a, name.as_bytes()), field(0x12, value.as_bytes())];
            message.extend(field(0x0a, &label.concat()));
        }
        let mut sample = vec![0x09];
        sample.extend(value.to_le_bytes());
        sample.push(0x10);
        let mut at = NOW.0 as u64;
        while at >= 0x80 {
            sample.push(at as u8 | 0x80);
            at >>= 7;
        }
        sample.push(at as u8);
        message.extend(field(0x12, &sample));
        let length = message.len();
        let header = [0x0a, (length as u8) | 0x80, (length >> 7) as u8];
        [&header[..], &message].concat()
    }

    async fn send(twin: &Twin, message: &[u8]) -> Answer {
        let body = snap::raw::Encoder::new().compress_vec(message).unwrap();
        let headers = [
            ("content-type", "application/x-protobuf"),
            ("content-encoding", "snappy"),
        ];
        twin.api_request("POST", PATH, &headers, body).await
    }

    #[tokio::test]
    async fn what_is_stored_is_204() {
        let twin = Twin::new();
        assert_eq!(send(&twin, &series(&UP, 1.0)).await.seen(), (204, ""));
        assert_eq!(twin.store.value(&UP, NOW), Some(1.0));
        assert_eq!(send(&twin, &series(&UP, 1.0)).await.code, 204);
        assert_eq!(send(&twin, b"").await.code, 204);
    }

    #[tokio::test]
    async fn the_good_samples_are_stored_and_the_first_bad_one_is_named() {
        let twin = Twin::new();
        let other = [("__name__", "other")];
        twin.store.add(&UP, NOW, 1.0);
        let answer = send(&twin, &[series(&UP, 2.0), series(&other, 3.0)].concat()).await;
        assert_eq!(
            answer.seen(),
            (
                400,
                "duplicate sample for timestamp 1795233379500: series \
                 {__name__=\"up\", job=\"a\"}; 1 of 2 samples rejected, all others stored\n"
            )
        );
        assert_eq!(twin.store.value(&UP, NOW), Some(1.0));
        assert_eq!(twin.store.value(&other, NOW), Some(3.0));
    }

    #[tokio::test]
    async fn a_series_that_breaks_the_data_model_is_named() {
        let twin = Twin::new();
        let nameless = [("job", "nameless")];
        let message = [series(&nameless, 2.0), series(&UP, 3.0)].concat();
        let answer = send(&twin, &message).await;
        assert_eq!(answer.code, 400);
        assert!(answer.text().contains("nameless"), "{}", answer.text());
        assert_eq!(twin.store.value(&UP, NOW), Some(3.0));
    }

    /// Field 4 of a series: an integer histogram with `count` observations, none in buckets.
    #[tokio::test]
    async fn a_bad_histogram_is_named_and_the_rest_is_stored() {
        let twin = Twin::new();
        let bad = b"\x0a\x13\x0a\x0d\x0a\x08__name__\x12\x01h\x22\x02\x08\x07".to_vec();
        let answer = send(&twin, &[series(&UP, 3.0), bad].concat()).await;
        assert_eq!(answer.code, 400);
        assert!(
            answer.text().starts_with(
                "series {__name__=\"h\"}: 0 observations found in buckets, but the Count field is 7"
            ),
            "{}",
            answer.text()
        );
        assert_eq!(twin.store.value(&UP, NOW), Some(3.0));
    }

    #[tokio::test]
    async fn what_is_undecided_may_be_sent_again() {
        let twin = Twin::new();
        twin.store.broken.store(true, Ordering::SeqCst);
        let answer = send(&twin, &series(&UP, 1.0)).await;
        assert_eq!((answer.code, answer.header("retry-after")), (503, "1"));
    }

    /// Prometheus 3.5.3 with `--web.enable-remote-write-receiver`; what it takes and we do not
    /// (version 2.0) is refused as it refuses what it was told not to take.
    #[tokio::test]
    async fn other_formats_are_refused_in_prometheus_words() {
        let twin = Twin::new();
        for (kind, encoding, text) in [
            (
                "text/plain",
                "snappy",
                "expected application/x-protobuf as the first (media) part, got text/plain content-type\n",
            ),
            (
                "application/x-protobuf",
                "gzip",
                "gzip encoding (compression) is not accepted by this server; only snappy is acceptable\n",
            ),
            (
                "application/x-protobuf;proto=io.prometheus.write.v2.Request",
                "snappy",
                "io.prometheus.write.v2.Request protobuf message is not accepted by this server; only prometheus.WriteRequest is acceptable\n",
            ),
            (
                "application/x-protobuf;proto=foo",
                "snappy",
                "got application/x-protobuf;proto=foo content type; unknown remote write protobuf message foo, supported: prometheus.WriteRequest\n",
            ),
        ] {
            let headers = [("content-type", kind), ("content-encoding", encoding)];
            let answer = twin.api_request("POST", PATH, &headers, "x").await;
            assert_eq!(answer.seen(), (415, text));
        }
        let garbage = twin.api_request("POST", PATH, &[], "\u{2}xx").await;
        assert_eq!(garbage.code, 400);
        assert!(garbage.text().starts_with("snappy: "), "{}", garbage.text());
    }

    #[tokio::test]
    async fn the_receiver_can_be_switched_off() {
        let twin = Twin::with(Settings {
            remote_write_receiver: false,
            ..Settings::default()
        });
        assert_eq!(
            send(&twin, &series(&UP, 1.0)).await.seen(),
            (
                404,
                "remote write receiver needs to be enabled with --web.enable-remote-write-receiver\n"
            )
        );
    }
}
