//! `/api/v1/write`: Prometheus' remote write, 1.0 and 2.0.
//!
//! Promise: 204 only when every sample is durable on a majority, and what the request says of its
//! metrics too. Samples that can never be stored
//! give 400, after all others of the request were stored, and the text names them: the first in
//! version 1.0, the first few in 2.0. 503 and 429 mean that the same request may be sent again. A
//! native histogram that Prometheus refuses is answered with 400: Prometheus 3.5 says 500, and a
//! sender repeats it for ever. A series of a 1.0 request whose labels are none of a series is
//! dropped and logged, and the answer is 204, as there. An answer to 2.0 tells how much is stored,
//! whatever its code. Not here: the wire format.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ingest::remote::{self, Decoded};
use model::Batch;
use model::limits::WRITE_BODY_BYTES_MAX;
use model::sink::{Reason, Rejection, Written};
use tracing::warn;

use super::errors::TextError;
use super::{Shared, body};

const PROTOBUF: &str = "application/x-protobuf";

/// A message that a sender may write with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    V1,
    V2,
}

impl Message {
    pub const ALL: [Self; 2] = [Self::V1, Self::V2];

    /// As `--web.remote-write-receiver.accepted-protobuf-messages` and `proto=` name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "prometheus.WriteRequest",
            Self::V2 => "io.prometheus.write.v2.Request",
        }
    }

    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|message| message.name() == name)
    }
}

/// One request of a sender.
pub async fn remote(
    State(api): State<Shared>,
    headers: HeaderMap,
    incoming: Body,
) -> Result<Response, TextError> {
    if !api.settings.remote_write_receiver {
        return Err(TextError::new(
            StatusCode::NOT_FOUND,
            "remote write receiver needs to be enabled with --web.enable-remote-write-receiver",
        ));
    }
    let message = check_headers(&headers, &api.settings.remote_write_messages)?;
    let bytes = body::read(incoming, WRITE_BODY_BYTES_MAX, &api.body_budget).await?;
    let declared = remote::declared_bytes(&bytes);
    match message {
        Message::V1 => {
            let decoding = || api.seen.decode(&bytes);
            let decoded = api.body_budget.apart(declared, decoding).await?;
            tell_invalid(&decoded);
            let done = store(&api, decoded).await?;
            let complaint = done.complaints(1).into_iter().next();
            answer(complaint, done.code()).map(IntoResponse::into_response)
        }
        Message::V2 => {
            let decoding = || remote::v2::decode(&bytes);
            let decoded = api.body_budget.apart(declared, decoding).await?;
            let (stored, result) = match store(&api, decoded).await {
                Ok(done) => (done.stored(), answer(done.joined(), done.code())),
                Err(undecided) => (Stored::default(), Err(undecided)),
            };
            Ok((stored.headers(), result).into_response())
        }
    }
}

fn tell_invalid(decoded: &Decoded) {
    if let Some(first) = decoded.invalid.first() {
        let count = decoded.invalid.len();
        warn!(first, count, "remote write of series with invalid labels");
    }
}

fn answer(complaint: Option<String>, code: StatusCode) -> Result<StatusCode, TextError> {
    match complaint {
        None => Ok(StatusCode::NO_CONTENT),
        Some(complaint) => Err(TextError::new(code, complaint)),
    }
}

/// What became of a request whose every row was decided.
struct Done {
    batch: Batch,
    /// Of what was left out before anything was stored.
    problems: Vec<String>,
    written: Written,
}

/// Stores what can be stored.
async fn store(api: &Shared, decoded: Decoded) -> Result<Done, TextError> {
    let Decoded {
        batch,
        problems,
        metadata,
        ..
    } = decoded;
    let written = match batch.is_empty() {
        true => Written::default(),
        false => api.sink.write_kept(&batch).await?,
    };
    api.describe(&metadata).await?;
    Ok(Done {
        batch,
        problems,
        written,
    })
}

/// Texts in an answer to version 2.0, which Prometheus does not bound.
const COMPLAINTS_MAX: usize = 20;

impl Done {
    /// Of an answer that complains: series that are too many may be let in later.
    fn code(&self) -> StatusCode {
        let mut rejected = self.written.rejected.iter();
        match rejected.any(|rejection| rejection.reason == Reason::SeriesLimit) {
            true => StatusCode::TOO_MANY_REQUESTS,
            false => StatusCode::BAD_REQUEST,
        }
    }

    /// The first `max` things that were not stored.
    fn complaints(&self, max: usize) -> Vec<String> {
        let rejected = self.written.rejected.iter();
        let rejected = rejected.filter_map(|rejection| self.complaint(rejection));
        let problems = self.problems.iter().cloned();
        problems.chain(rejected).take(max).collect()
    }

    /// Names a row that was rejected.
    fn complaint(&self, rejection: &Rejection) -> Option<String> {
        let rows = &self.batch.rows;
        let row = rejection.row as usize;
        let labels = self.batch.series.get(*rows.series.get(row)? as usize)?;
        let at = rows.timestamps.get(row)?;
        let why = rejection.reason.as_str();
        // Prometheus' words, and the instant where they have it or at the end.
        let what = match rejection.reason {
            Reason::Duplicate => format!("{why} {at} for series {labels}"),
            _ => format!("{why} for series {labels} at {at}"),
        };
        Some(format!(
            "{what}; {} of {} samples rejected, all others stored",
            self.written.rejected.len(),
            rows.len()
        ))
    }

    /// One line for each thing, or for as many as an answer tells.
    fn joined(&self) -> Option<String> {
        let mut lines = self.complaints(COMPLAINTS_MAX);
        let all = self.problems.len() + self.written.rejected.len();
        if all > lines.len() {
            lines.push(format!("and {} more", all - lines.len()));
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    fn stored(&self) -> Stored {
        let rows = &self.batch.rows;
        let is_histogram = |r: &&Rejection| rows.histogram(r.row as usize).is_some();
        let rejected = &self.written.rejected;
        let histograms = rejected.iter().filter(is_histogram).count();
        Stored {
            samples: rows.len() - rows.histograms.len() - (rejected.len() - histograms),
            histograms: rows.histograms.len() - histograms,
            exemplars: self.batch.exemplars.len(),
        }
    }
}

/// How much of a 2.0 request is stored. Exemplars are told as they were taken: what becomes of one
/// nobody waits for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Stored {
    samples: usize,
    histograms: usize,
    exemplars: usize,
}

impl Stored {
    fn headers(self) -> [(HeaderName, HeaderValue); 3] {
        let header = |name, count: usize| (HeaderName::from_static(name), HeaderValue::from(count));
        [
            header("x-prometheus-remote-write-samples-written", self.samples),
            header(
                "x-prometheus-remote-write-histograms-written",
                self.histograms,
            ),
            header(
                "x-prometheus-remote-write-exemplars-written",
                self.exemplars,
            ),
        ]
    }
}

/// Media type and encoding, refused in Prometheus' words; which message the body is.
fn check_headers(headers: &HeaderMap, accepted: &[Message]) -> Result<Message, TextError> {
    let text = |name| {
        let value = headers.get(name);
        value.map_or("", |v| v.to_str().unwrap_or("?"))
    };
    let refused = |why| TextError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why);
    let message = message_of(text(header::CONTENT_TYPE)).map_err(refused)?;
    if !accepted.contains(&message) {
        return Err(refused(format!(
            "{} protobuf message is not accepted by this server; accepted {}",
            message.name(),
            names(accepted)
        )));
    }
    match text(header::CONTENT_ENCODING) {
        "" => Ok(message),
        snappy if snappy.eq_ignore_ascii_case("snappy") => Ok(message),
        other => Err(refused(format!(
            "{other} encoding (compression) is not accepted by this server; \
             only snappy is acceptable"
        ))),
    }
}

fn names(messages: &[Message]) -> String {
    let names: Vec<_> = messages.iter().map(|message| message.name()).collect();
    names.join(", ")
}

/// Senders older than version 1.0 leave the type out.
fn message_of(kind: &str) -> Result<Message, String> {
    let mut parts = kind.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    if !matches!(media, "" | PROTOBUF) {
        return Err(format!(
            "expected {PROTOBUF} as the first (media) part, got {kind} content-type"
        ));
    }
    for part in parts {
        let Some((name, value)) = part.split_once('=') else {
            return Err(format!(
                "as per https://www.rfc-editor.org/rfc/rfc9110#parameter expected parameters to \
                 be key-values, got {part} in {kind} content-type"
            ));
        };
        if name == "proto" {
            return Message::of_name(value).ok_or_else(|| {
                format!(
                    "got {kind} content type; unknown remote write protobuf message {value}, \
                     supported: {}",
                    names(&Message::ALL)
                )
            });
        }
    }
    Ok(Message::V1)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::state::Settings;
    use super::super::twin::{Answer, NOW, Twin};
    use super::Message;

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

    /// `WriteRequest.metadata`, field 3: a gauge `up` with this help.
    fn metadata(help: &str) -> Vec<u8> {
        let help = [&[0x22, help.len() as u8], help.as_bytes()].concat();
        let message = [b"\x08\x02\x12\x02up", &help[..]].concat();
        [&[0x1a, message.len() as u8], &message[..]].concat()
    }

    #[tokio::test]
    async fn metadata_is_told_once_and_when_it_changes() {
        let twin = Twin::new();
        let told = || twin.store.described.lock().unwrap().clone();
        for (help, words, times) in [("a", 1, 1), ("a", 1, 1), ("b", 2, 2), ("a", 2, 2)] {
            let both = [series(&UP, 1.0), metadata(help)].concat();
            assert_eq!(send(&twin, &both).await.code, 204);
            assert_eq!((told().0.len(), told().1), (words, times), "{help}");
        }
        twin.store.broken.store(true, Ordering::SeqCst);
        assert_eq!(send(&twin, &metadata("b")).await.code, 204, "nothing to do");
        assert_eq!(send(&twin, &metadata("c")).await.code, 503);
        twin.store.broken.store(false, Ordering::SeqCst);
        assert_eq!(send(&twin, &metadata("c")).await.code, 204);
        assert_eq!(told().1, 3, "what failed is told again");
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
                "duplicate sample for timestamp 1795233379500 for series \
                 {__name__=\"up\", job=\"a\"}; 1 of 2 samples rejected, all others stored\n"
            )
        );
        assert_eq!(twin.store.value(&UP, NOW), Some(1.0));
        assert_eq!(twin.store.value(&other, NOW), Some(3.0));
    }

    /// As Prometheus, whose 1.0 receiver answers with success and logs.
    #[tokio::test]
    async fn a_series_that_breaks_the_data_model_is_left_out() {
        let twin = Twin::new();
        let nameless = [("job", "nameless")];
        let message = [series(&nameless, 2.0), series(&UP, 3.0)].concat();
        assert_eq!(send(&twin, &message).await.seen(), (204, ""));
        assert_eq!(twin.store.value(&UP, NOW), Some(3.0));
        assert_eq!(twin.store.value(&nameless, NOW), None);
    }

    /// Symbols `__name__`, `up` and `other`; a series of 2.0 with one sample, its name by index.
    fn series_2(refs: &[u8], value: f64) -> Vec<u8> {
        let field = |tag: u8, bytes: &[u8]| [&[tag, bytes.len() as u8], bytes].concat();
        let mut sample = vec![0x09];
        sample.extend(value.to_le_bytes());
        sample.push(0x10);
        let mut at = NOW.0 as u64;
        while at >= 0x80 {
            sample.push(at as u8 | 0x80);
            at >>= 7;
        }
        sample.push(at as u8);
        field(0x2a, &[field(0x0a, refs), field(0x12, &sample)].concat())
    }

    async fn send_2(twin: &Twin, series: &[Vec<u8>]) -> Answer {
        let symbols = b"\x22\x00\x22\x08__name__\x22\x02up\x22\x05other\x22\x03job\x22\x01a";
        let message = [&symbols[..], &series.concat()].concat();
        let body = snap::raw::Encoder::new().compress_vec(&message).unwrap();
        let headers = [
            (
                "content-type",
                "application/x-protobuf;proto=io.prometheus.write.v2.Request",
            ),
            ("content-encoding", "snappy"),
        ];
        twin.api_request("POST", PATH, &headers, body).await
    }

    fn counts(answer: &Answer) -> [String; 3] {
        ["samples", "histograms", "exemplars"].map(|what| {
            let name = format!("x-prometheus-remote-write-{what}-written");
            answer.header(&name).to_owned()
        })
    }

    #[tokio::test]
    async fn version_2_tells_how_much_is_stored() {
        let twin = Twin::new();
        let up = series_2(&[1, 2, 4, 5], 1.0);
        let answer = send_2(&twin, std::slice::from_ref(&up)).await;
        assert_eq!(answer.seen(), (204, ""));
        assert_eq!(counts(&answer), ["1", "0", "0"]);
        assert_eq!(twin.store.value(&UP, NOW), Some(1.0));
        let again = send_2(&twin, std::slice::from_ref(&up)).await;
        assert_eq!((again.code, counts(&again)[0].as_str()), (204, "1"));
        let mixed = [
            series_2(&[4, 5], 1.0),
            series_2(&[1, 2, 4, 5], 2.0),
            series_2(&[1, 3], 3.0),
        ];
        let answer = send_2(&twin, &mixed).await;
        assert_eq!(
            answer.seen(),
            (
                400,
                "invalid metric name or labels, got {job=\"a\"}: no metric name\n\
                 duplicate sample for timestamp 1795233379500 for series \
                 {__name__=\"up\", job=\"a\"}; 1 of 2 samples rejected, all others stored\n"
            )
        );
        assert_eq!(counts(&answer), ["1", "0", "0"]);
        assert_eq!(twin.store.value(&[("__name__", "other")], NOW), Some(3.0));
        twin.store.broken.store(true, Ordering::SeqCst);
        let answer = send_2(&twin, &[up]).await;
        assert_eq!((answer.code, answer.header("retry-after")), (503, "1"));
        assert_eq!(counts(&answer), ["0", "0", "0"]);
    }

    #[tokio::test]
    async fn a_version_may_be_switched_off() {
        let twin = Twin::with(Settings {
            remote_write_messages: vec![Message::V2],
            ..Settings::default()
        });
        let answer = send(&twin, &series(&UP, 1.0)).await;
        assert_eq!(
            answer.seen(),
            (
                415,
                "prometheus.WriteRequest protobuf message is not accepted by this server; accepted io.prometheus.write.v2.Request\n"
            )
        );
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

    /// Prometheus 3.5.3 with `--web.enable-remote-write-receiver`.
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
                "application/x-protobuf;bad",
                "snappy",
                "as per https://www.rfc-editor.org/rfc/rfc9110#parameter expected parameters to be key-values, got bad in application/x-protobuf;bad content-type\n",
            ),
            (
                "application/x-protobuf;proto=foo",
                "snappy",
                "got application/x-protobuf;proto=foo content type; unknown remote write protobuf message foo, supported: prometheus.WriteRequest, io.prometheus.write.v2.Request\n",
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
