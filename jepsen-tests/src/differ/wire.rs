//! Remote write 1.0 requests, native histograms included: the senders' side, plain and slow.
//!
//! Field numbers are the protocol's (prometheus.io/docs/specs/prw/remote_write_spec). Within one
//! time series a receiver reads all floats before all histograms, so a series that changes between
//! them is sent in several.

use bytes::Bytes;
use model::histogram::Span;
use model::{Histogram, Value};
use prost::encoding::{WireType, encode_key, encode_varint};

use super::data::{Point, Series};

/// The headers of a request with [`body`].
pub const HEADERS: [(&str, &str); 3] = [
    ("content-type", "application/x-protobuf"),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "0.1.0"),
];

/// Those of a request of version 2.0.
pub const HEADERS_V2: [(&str, &str); 3] = [
    (
        "content-type",
        "application/x-protobuf;proto=io.prometheus.write.v2.Request",
    ),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "2.0.0"),
];

/// The compressed request that carries `series`.
pub fn body(series: &[Series]) -> anyhow::Result<Bytes> {
    let mut message = Vec::new();
    for one in series {
        for run in one.points.chunk_by(same_kind) {
            bytes(1, &time_series(&one.labels, run), &mut message);
        }
    }
    Ok(snap::raw::Encoder::new().compress_vec(&message)?.into())
}

/// The compressed request that carries an exemplar of each series, at its newest point.
pub fn exemplars<'a>(series: impl IntoIterator<Item = &'a Series>) -> anyhow::Result<Bytes> {
    let mut message = Vec::new();
    for one in series {
        let Some(newest) = one.points.last() else {
            continue;
        };
        let mut exemplar = label("trace_id", &newest.at_ms.to_string());
        double(2, 1.0, &mut exemplar);
        varint(3, newest.at_ms as u64, &mut exemplar);
        let mut series = time_series(&one.labels, &[]);
        bytes(3, &exemplar, &mut series);
        bytes(1, &series, &mut message);
    }
    Ok(snap::raw::Encoder::new().compress_vec(&message)?.into())
}

/// A label as the first field of what has some.
fn label(name: &str, value: &str) -> Vec<u8> {
    let (mut label, mut out) = (Vec::new(), Vec::new());
    bytes(1, name.as_bytes(), &mut label);
    bytes(2, value.as_bytes(), &mut label);
    bytes(1, &label, &mut out);
    out
}

fn same_kind(a: &Point, b: &Point) -> bool {
    std::mem::discriminant(&a.value) == std::mem::discriminant(&b.value)
}

fn time_series(labels: &[(String, String)], points: &[Point]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in labels {
        out.extend(label(name, value));
    }
    for point in points {
        match &point.value {
            Value::Float(value) => {
                let mut sample = Vec::new();
                double(1, *value, &mut sample);
                varint(2, point.at_ms as u64, &mut sample);
                bytes(2, &sample, &mut out);
            }
            Value::Histogram(value) => bytes(4, &histogram(value, point.at_ms), &mut out),
        }
    }
    out
}

fn histogram(h: &Histogram, at_ms: i64) -> Vec<u8> {
    let mut out = Vec::new();
    match h.is_integer || h.is_stale() {
        true => varint(1, h.count as u64, &mut out),
        false => double(2, h.count, &mut out),
    }
    double(3, h.sum, &mut out);
    varint(4, zigzag(h.schema.into()), &mut out);
    double(5, h.zero_threshold, &mut out);
    match h.is_integer || h.is_stale() {
        true => varint(6, h.zero_count as u64, &mut out),
        false => double(7, h.zero_count, &mut out),
    }
    side(
        h,
        [8, 9, 10],
        &h.negative_spans,
        &h.negative_buckets,
        &mut out,
    );
    side(
        h,
        [11, 12, 13],
        &h.positive_spans,
        &h.positive_buckets,
        &mut out,
    );
    varint(14, h.reset_hint.number().into(), &mut out);
    varint(15, at_ms as u64, &mut out);
    if !h.custom_values.is_empty() {
        bytes(16, &doubles(&h.custom_values), &mut out);
    }
    out
}

fn side(h: &Histogram, fields: [u32; 3], spans: &[Span], counts: &[f64], out: &mut Vec<u8>) {
    for span in spans {
        let mut one = Vec::new();
        varint(1, zigzag(span.offset.into()), &mut one);
        varint(2, span.length.into(), &mut one);
        bytes(fields[0], &one, out);
    }
    if counts.is_empty() {
        return;
    }
    if !h.is_integer {
        return bytes(fields[2], &doubles(counts), out);
    }
    let mut deltas = Vec::new();
    let mut before = 0;
    for count in counts {
        encode_varint(zigzag(*count as i64 - before), &mut deltas);
        before = *count as i64;
    }
    bytes(fields[1], &deltas, out);
}

fn doubles(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

fn varint(field: u32, word: u64, out: &mut Vec<u8>) {
    encode_key(field, WireType::Varint, out);
    encode_varint(word, out);
}

fn double(field: u32, value: f64, out: &mut Vec<u8>) {
    encode_key(field, WireType::SixtyFourBit, out);
    out.extend_from_slice(&value.to_le_bytes());
}

fn bytes(field: u32, content: &[u8], out: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use proto::remote::WriteRequest;

    use super::super::data::Data;
    use super::*;

    #[test]
    fn floats_decode_to_the_data() {
        let data = Data::generate(2, false);
        let compressed = body(&data.series).unwrap();
        let message = snap::raw::Decoder::new()
            .decompress_vec(&compressed)
            .unwrap();
        let request = WriteRequest::decode(&message[..]).unwrap();
        assert_eq!(request.timeseries.len(), data.series.len());
        for (sent, own) in request.timeseries.iter().zip(&data.series) {
            assert_eq!(sent.samples.len(), own.points.len());
            let Value::Float(first) = own.points[0].value else {
                panic!("no histograms here");
            };
            assert_eq!(sent.samples[0].value.to_bits(), first.to_bits());
            assert_eq!(sent.samples[0].timestamp, own.points[0].at_ms);
        }
    }
}
