//! Answers about labels, series, exemplars and samples in a form in which those of two servers are equal
//! when they say the same.

use anyhow::Context;
use prost::Message;
use proto::remote::{ChunkedReadResponse, Label, ReadResponse, TimeSeries};
use serde_json::Value;

use super::call::Call;

/// What the answer to `call` says. Series have no order; labels and values have.
pub fn canonical(call: &Call, status: u16, body: &[u8]) -> anyhow::Result<Vec<String>> {
    let read = || match (call.path.as_str(), status) {
        ("/api/v1/read", 200) => samples(body).or_else(|_| chunks(body)),
        _ => data(call, body),
    };
    let mut lines = read().with_context(|| format!("{}: {status}", call.line))?;
    lines.insert(0, status.to_string());
    Ok(lines)
}

fn data(call: &Call, body: &[u8]) -> anyhow::Result<Vec<String>> {
    let answer: Value = serde_json::from_slice(body)?;
    let Value::Array(items) = &answer["data"] else {
        return Ok(vec![answer.to_string()]);
    };
    let mut lines: Vec<String> = items.iter().map(Value::to_string).collect();
    if !call.path.starts_with("/api/v1/label") {
        lines.sort();
    }
    Ok(lines)
}

/// A line for each series. Two histograms may say the same in many ways: only where they are is told.
fn samples(body: &[u8]) -> anyhow::Result<Vec<String>> {
    let body = snap::raw::Decoder::new().decompress_vec(body)?;
    let answer = ReadResponse::decode(&body[..])?;
    let series = answer.results.into_iter().flat_map(|r| r.timeseries);
    let line = |series: TimeSeries| {
        let floats = series.samples.iter();
        let floats: Vec<String> = floats
            .map(|s| format!("{}:{:x}", s.timestamp, s.value.to_bits()))
            .collect();
        let histograms: Vec<i64> = series.histograms.iter().map(|h| h.timestamp).collect();
        format!("{} {floats:?} {histograms:?}", labels(&series.labels))
    };
    let mut lines: Vec<String> = series.map(line).collect();
    lines.sort();
    Ok(lines)
}

/// The labels of each series: where its chunks are cut is each server's own.
fn chunks(mut body: &[u8]) -> anyhow::Result<Vec<String>> {
    const CHECKSUM_BYTES: usize = 4;
    let mut lines = Vec::new();
    while !body.is_empty() {
        let length = prost::decode_length_delimiter(&mut body)?;
        let frame = body.split_at_checked(CHECKSUM_BYTES);
        let frame = frame.and_then(|(_, rest)| rest.split_at_checked(length));
        let (frame, rest) = frame.context("a frame is cut off")?;
        let frame = ChunkedReadResponse::decode(frame)?;
        let series = frame.chunked_series.iter();
        lines.extend(series.map(|series| labels(&series.labels)));
        body = rest;
    }
    lines.sort();
    lines.dedup();
    Ok(lines)
}

fn labels(labels: &[Label]) -> String {
    let labels = labels.iter();
    let labels: Vec<String> = labels
        .map(|l| format!("{}={:?}", l.name, l.value))
        .collect();
    labels.join(",")
}

/// Some lines that only one of them has.
pub fn apart(reference: &[String], own: &[String]) -> String {
    const SHOWN: usize = 5;
    let only = |a: &[String], b: &[String]| {
        let mut lines: Vec<String> = a.iter().filter(|line| !b.contains(line)).cloned().collect();
        let more = lines.len().saturating_sub(SHOWN);
        lines.truncate(SHOWN);
        lines
            .iter_mut()
            .for_each(|line| *line = line.chars().take(300).collect());
        format!("{lines:?} and {more} more")
    };
    let (missing, more) = (only(reference, own), only(own, reference));
    format!("  only Prometheus: {missing}\n  only quorate:    {more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str, body: &str) -> Vec<String> {
        canonical(&Call::get(path, &[], &[]), 200, body.as_bytes()).unwrap()
    }

    #[test]
    fn series_have_no_order_and_labels_have() {
        let (ab, ba) = (r#"{"data":["a","b"]}"#, r#"{"data":["b","a"]}"#);
        assert_eq!(of("/api/v1/series", ab), of("/api/v1/series", ba));
        assert_ne!(of("/api/v1/labels", ab), of("/api/v1/labels", ba));
        assert_ne!(
            of("/api/v1/series", ab),
            of("/api/v1/series", r#"{"data":["a"]}"#)
        );
        assert!(canonical(&Call::get("/api/v1/labels", &[], &[]), 200, b"x").is_err());
    }

    #[test]
    fn a_frame_that_is_cut_off_is_no_answer() {
        assert!(chunks(&[]).unwrap().is_empty());
        assert!(chunks(&[0, 1, 2, 3, 4]).unwrap().is_empty());
        assert!(chunks(&[0, 1, 2]).is_err() && chunks(&[9, 1, 2, 3, 4, 5]).is_err());
    }

    #[test]
    fn what_one_does_not_say_is_shown() {
        let (a, b) = (["1".to_owned(), "2".to_owned()], ["2".to_owned()]);
        assert_eq!(
            apart(&a, &b),
            "  only Prometheus: [\"1\"] and 0 more\n  only quorate:    [] and 0 more"
        );
    }
}
