//! Every receiver, and every reason there is to send the same later: each answer says when.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Bytes;

use super::body::Budget;
use super::state::Settings;
use super::twin::{Answer, Store, Twin};

/// One well-formed request of a receiver.
struct Request {
    to_push_port: bool,
    method: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: Bytes,
}

fn line(path: &'static str, body: &'static str) -> Request {
    Request {
        to_push_port: false,
        method: "POST",
        path,
        headers: Vec::new(),
        body: Bytes::from_static(body.as_bytes()),
    }
}

/// A series `m` with a sample, as 1.0 has it.
fn remote_write(path: &'static str) -> Request {
    let sample = b"\x0a\x1c\x0a\x0d\x0a\x08__name__\x12\x01m\x12\x0b\x09";
    let message = [&sample[..], &1f64.to_le_bytes(), b"\x10\x01"].concat();
    let packed = snap::raw::Encoder::new().compress_vec(&message);
    let body = packed.expect("a short message").into();
    let headers = vec![
        ("content-type", "application/x-protobuf"),
        ("content-encoding", "snappy"),
    ];
    Request {
        headers,
        body,
        ..line(path, "")
    }
}

/// The same series, its name as symbols 1 and 2.
fn remote_write_2() -> Request {
    let sample = [b"\x12\x0b\x09", &1f64.to_le_bytes()[..], b"\x10\x01"].concat();
    let series = [b"\x0a\x02\x01\x02", &sample[..]].concat();
    let symbols = b"\x22\x00\x22\x08__name__\x22\x01m";
    let message = [&symbols[..], &[0x2a, series.len() as u8], &series].concat();
    let packed = snap::raw::Encoder::new().compress_vec(&message);
    let headers = vec![
        (
            "content-type",
            "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        ),
        ("content-encoding", "snappy"),
    ];
    Request {
        headers,
        body: packed.expect("a short message").into(),
        ..line("/api/v1/write", "")
    }
}

fn push(method: &'static str, path: &'static str, body: &'static str) -> Request {
    Request {
        to_push_port: true,
        method,
        ..line(path, body)
    }
}

const OTLP: &str = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","gauge":{"dataPoints":[{"timeUnixNano":"1000000","asDouble":1}]}}]}]}]}"#;

fn requests() -> Vec<Request> {
    vec![
        push("PUT", "/metrics/job/j", "m 1\n"),
        push("POST", "/metrics/job/j", "m 1\n"),
        push("PUT", "/metrics/job/j?mode=sum&id=a", "m 1\n"),
        push("DELETE", "/metrics/job/j", ""),
        remote_write("/api/v1/write"),
        remote_write_2(),
        remote_write("/api/v1/import/write"),
        Request {
            headers: vec![("content-type", "application/json")],
            ..line("/api/v1/otlp/v1/metrics", OTLP)
        },
        line("/write", "m value=1\n"),
        line("/api/v2/write", "m value=1\n"),
        line(
            "/api/v1/import",
            "{\"metric\":{\"__name__\":\"m\"},\"values\":[1],\"timestamps\":[1]}\n",
        ),
        line("/api/v1/import/prometheus", "m 1\n"),
        Request {
            headers: vec![("content-type", "application/openmetrics-text")],
            ..line("/api/v1/import/prometheus", "m 1 1\n# EOF\n")
        },
        line("/api/v1/import/prometheus/metrics/job/j", "m 1\n"),
    ]
}

async fn send(twin: &Twin, request: Request) -> Answer {
    let Request {
        to_push_port,
        method,
        path,
        headers,
        body,
    } = request;
    match to_push_port {
        true => twin.push_request(method, path, &headers, body).await,
        false => twin.api_request(method, path, &headers, body).await,
    }
}

/// Switches one thing on, and expects `code` and the time to wait of every receiver.
async fn each_answers(what: fn(&Store) -> &AtomicBool, code: u16) {
    for request in requests() {
        let twin = Twin::new();
        let asked = format!("{} {}", request.method, request.path);
        what(&twin.store).store(true, Ordering::SeqCst);
        let answer = send(&twin, request).await;
        let seen = (answer.code, answer.header("retry-after"));
        assert_eq!(seen, (code, "1"), "{asked}: {}", answer.text());
    }
}

#[tokio::test]
async fn without_cause_all_are_taken() {
    for request in requests() {
        let twin = Twin::new();
        let asked = format!("{} {}", request.method, request.path);
        let answer = send(&twin, request).await;
        assert!(answer.code < 300, "{asked}: {}", answer.text());
        assert_eq!(answer.header("retry-after"), "", "{asked}");
    }
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_again() {
    each_answers(|store| &store.overloaded, 429).await;
}

#[tokio::test]
async fn a_shard_without_a_majority_says_when_to_come_again() {
    each_answers(|store| &store.broken, 503).await;
}

#[tokio::test]
async fn too_many_bodies_say_when_to_come_again() {
    for request in requests() {
        if request.body.is_empty() {
            continue;
        }
        let nothing = Budget::new(0, Duration::from_secs(1));
        let twin = Twin::with_bodies(Settings::default(), nothing);
        let asked = format!("{} {}", request.method, request.path);
        let answer = send(&twin, request).await;
        let seen = (answer.code, answer.header("retry-after"));
        assert_eq!(seen, (429, "1"), "{asked}: {}", answer.text());
    }
}

/// Pushes and remote write are told to come again. The others are told what was not stored, and
/// that is all: their senders keep everything that comes later behind what they are to repeat.
#[tokio::test]
async fn a_series_too_many_is_told_as_its_sender_can_bear_it() {
    for request in requests() {
        let twin = Twin::new();
        let path = request.path;
        twin.store.full.store(true, Ordering::SeqCst);
        let answer = send(&twin, request).await;
        let seen = (answer.code, answer.header("retry-after"));
        let expected = match path {
            _ if path.starts_with("/metrics") => (429, "1"),
            "/api/v1/write" => (429, "1"),
            "/api/v1/otlp/v1/metrics" | "/api/v1/import/write" => (200, ""),
            _ => (400, ""),
        };
        assert_eq!(seen, expected, "{path}: {}", answer.text());
        assert!(
            answer.text().contains("max-series"),
            "{path}: {}",
            answer.text()
        );
    }
}
