//! Series whose samples prove themselves: the value of a sample is a 52-bit hash of seed, series
//! and timestamp, which a float holds exactly. A sample that was invented or damaged anywhere is
//! recognised on sight.

use anyhow::{Context, bail};
use bytes::Bytes;
use hyper::Method;
use model::hash::xxh3;
use prost::Message;
use proto::remote::{Label, Sample, TimeSeries, WriteRequest};
use serde::Deserialize;

use super::{Listener, Request, Scope};
use crate::history::SeriesSeen;

const NAME: &str = "jepsen_sample";
/// Series that share the `chunk` label, by which many are scanned at once.
pub const CHUNK: u32 = 50;

/// The one value of a sample.
pub fn value(seed: u64, series: u32, at_ms: i64) -> f64 {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&series.to_le_bytes());
    key[4..].copy_from_slice(&at_ms.to_le_bytes());
    (xxh3(seed, &key) >> 12) as f64
}

/// Remote write of (series, timestamp) pairs.
pub fn append(scope: &Scope, samples: impl Iterator<Item = (u32, i64)>) -> Request {
    let timeseries = samples
        .map(|(series, at_ms)| TimeSeries {
            labels: labels(scope, series),
            samples: vec![Sample {
                value: value(scope.seed, series, at_ms),
                timestamp: scope.base_ms + at_ms,
            }],
            ..TimeSeries::default()
        })
        .collect();
    let message = WriteRequest {
        timeseries,
        metadata: Vec::new(),
    };
    let body = snap::raw::Encoder::new()
        .compress_vec(&message.encode_to_vec())
        .expect("a request is far below 4 GiB");
    Request {
        listener: Listener::Api,
        method: Method::POST,
        path: "/api/v1/write".to_owned(),
        headers: &[
            ("content-type", "application/x-protobuf"),
            ("content-encoding", "snappy"),
            ("x-prometheus-remote-write-version", "0.1.0"),
        ],
        body: body.into(),
    }
}

/// Instant query of a range selector for one series or one whole chunk.
pub fn scan(scope: &Scope, first: u32, count: u32, now_ms: i64) -> Request {
    let which = match count {
        1 => format!("series=\"{first}\""),
        _ => format!("chunk=\"{}\"", first / CHUNK),
    };
    let query = format!(
        "{NAME}{{run=\"{}\",{which}}}[{}s]",
        scope.run, scope.range_s
    );
    let time = now_ms as f64 / 1000.0;
    Request {
        listener: Listener::Api,
        method: Method::GET,
        path: format!("/api/v1/query?query={}&time={time:.3}", escaped(&query)),
        headers: &[],
        body: Bytes::new(),
    }
}

/// The series of a scan's answer.
pub fn points(scope: &Scope, body: &[u8]) -> anyhow::Result<Vec<SeriesSeen>> {
    let answer: Answer<'_> = serde_json::from_slice(body).context("not a matrix")?;
    if answer.data.result_type != "matrix" {
        bail!("a {} where a matrix was asked for", answer.data.result_type);
    }
    answer
        .data
        .result
        .iter()
        .map(|row| seen(scope, row))
        .collect()
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(rename = "resultType")]
    result_type: &'a str,
    #[serde(borrow)]
    result: Vec<Row<'a>>,
}

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    metric: Metric<'a>,
    #[serde(borrow)]
    values: Vec<(f64, &'a str)>,
}

#[derive(Deserialize)]
struct Metric<'a> {
    series: &'a str,
}

fn seen(scope: &Scope, row: &Row<'_>) -> anyhow::Result<SeriesSeen> {
    let label = row.metric.series;
    let series = label.parse().with_context(|| format!("series {label:?}"))?;
    let mut seen = SeriesSeen {
        series,
        points: Vec::with_capacity(row.values.len()),
        alien: Vec::new(),
    };
    for (seconds, text) in &row.values {
        let at_ms = (seconds * 1000.0).round() as i64 - scope.base_ms;
        seen.points.push(at_ms);
        if text.parse().ok() != Some(value(scope.seed, series, at_ms)) {
            seen.alien.push((at_ms, (*text).to_owned()));
        }
    }
    Ok(seen)
}

fn labels(scope: &Scope, series: u32) -> Vec<Label> {
    let chunk = (series / CHUNK).to_string();
    let series = series.to_string();
    let pairs = [
        ("__name__", NAME),
        ("chunk", &chunk),
        ("run", &scope.run),
        ("series", &series),
    ];
    pairs
        .map(|(name, value)| Label {
            name: name.to_owned(),
            value: value.to_owned(),
        })
        .to_vec()
}

/// Percent-encoding of everything but letters and digits.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::scope_for_tests;
    use super::*;

    #[test]
    fn values_are_whole_and_differ() {
        let a = value(1, 2, -3);
        assert_eq!(a, a.trunc());
        assert!(a < (1u64 << 52) as f64);
        assert_ne!(a, value(1, 2, -4));
        assert_ne!(a, value(1, 3, -3));
        assert_ne!(a, value(2, 2, -3));
    }

    #[test]
    fn an_append_decodes_to_its_samples() {
        let scope = scope_for_tests();
        let request = append(&scope, [(51, -7), (0, 9)].into_iter());
        let bytes = snap::raw::Decoder::new()
            .decompress_vec(&request.body)
            .unwrap();
        let message = WriteRequest::decode(&bytes[..]).unwrap();
        let first = &message.timeseries[0];
        let pairs: Vec<_> = first.labels.iter().map(|l| (&*l.name, &*l.value)).collect();
        let expected = [
            ("__name__", "jepsen_sample"),
            ("chunk", "1"),
            ("run", "t1"),
            ("series", "51"),
        ];
        assert_eq!(pairs, expected);
        assert_eq!(first.samples[0].timestamp, 1_699_999_999_993);
        assert_eq!(first.samples[0].value, value(1, 51, -7));
    }

    #[test]
    fn a_matrix_shows_its_points_and_what_does_not_belong() {
        let scope = scope_for_tests();
        let good = value(1, 5, 250);
        let text = format!(
            r#"{{"status":"success","data":{{"resultType":"matrix","result":[{{"metric":
            {{"__name__":"jepsen_sample","series":"5"}},"values":[[1700000000.25,"{good}"],
            [1700000000.5,"12"]]}}]}}}}"#
        );
        let seen = points(&scope, text.as_bytes()).unwrap();
        assert_eq!(seen[0].points, [250, 500]);
        assert_eq!(seen[0].alien, [(500, "12".to_owned())]);
        assert!(points(&scope, br#"{"data":{"resultType":"vector","result":[]}}"#).is_err());
    }

    #[test]
    fn scans_ask_for_one_series_or_one_chunk() {
        let scope = scope_for_tests();
        let one = scan(&scope, 7, 1, 1_700_000_000_000).path;
        assert!(
            one.contains("series%3D%227%22%7D%5B3600s%5D&time=1700000000.000"),
            "{one}"
        );
        assert!(scan(&scope, 50, 50, 0).path.contains("chunk%3D%221%22"));
    }
}
