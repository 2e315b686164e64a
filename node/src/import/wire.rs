//! Series as parts of a `prometheus.WriteRequest`, to the last bit: the generated encoder leaves
//! fields out that are equal to zero, and so the sign of a zero.

use prost::Message;
use proto::remote::{Exemplar, Label, MetricMetadata};
use tsdb::fields::put_varint;

use super::chunk::Samples;

const SERIES: u8 = 1 << 3 | 2;
const LABELS: u8 = 1 << 3 | 2;
const SAMPLES: u8 = 2 << 3 | 2;
const EXEMPLARS: u8 = 3 << 3 | 2;
const HISTOGRAMS: u8 = 4 << 3 | 2;
const METADATA: u8 = 3 << 3 | 2;
/// Of a sample.
const VALUE: u8 = 1 << 3 | 1;
const TIMESTAMP: u8 = 2 << 3;
/// Of a histogram.
const SUM: u8 = 3 << 3 | 1;

/// Appends one series.
pub fn put_series(request: &mut Vec<u8>, labels: &[Label], samples: &Samples) {
    let mut series = begin_series(labels);
    for sample in &samples.floats {
        let mut message = vec![VALUE];
        message.extend(sample.value.to_le_bytes());
        message.push(TIMESTAMP);
        put_varint(&mut message, sample.timestamp as u64);
        put_message(&mut series, SAMPLES, &message);
    }
    for histogram in &samples.histograms {
        let mut message = histogram.encode_to_vec();
        message.push(SUM);
        message.extend(histogram.sum.to_le_bytes());
        put_message(&mut series, HISTOGRAMS, &message);
    }
    put_message(request, SERIES, &series);
}

/// Appends exemplars of one series. Of their values a zero's sign is lost.
pub fn put_exemplars(request: &mut Vec<u8>, labels: &[Label], exemplars: &[Exemplar]) {
    let mut series = begin_series(labels);
    for exemplar in exemplars {
        put_message(&mut series, EXEMPLARS, &exemplar.encode_to_vec());
    }
    put_message(request, SERIES, &series);
}

/// Appends what is said of one metric.
pub fn put_metadata(request: &mut Vec<u8>, said: &MetricMetadata) {
    put_message(request, METADATA, &said.encode_to_vec());
}

/// A series of which only the labels are there.
fn begin_series(labels: &[Label]) -> Vec<u8> {
    let mut series = Vec::new();
    for label in labels {
        put_message(&mut series, LABELS, &label.encode_to_vec());
    }
    series
}

fn put_message(out: &mut Vec<u8>, tag: u8, message: &[u8]) {
    out.push(tag);
    put_varint(out, message.len() as u64);
    out.extend(message);
}

#[cfg(test)]
mod tests {
    use proto::remote::{Sample, WriteRequest};

    use super::*;

    #[test]
    fn a_zero_keeps_its_sign() {
        let label = Label {
            name: "a".to_owned(),
            value: "b".to_owned(),
        };
        let sample = Sample {
            value: -0.0,
            timestamp: -5,
        };
        let samples = Samples {
            floats: vec![sample],
            ..Samples::default()
        };
        let mut request = Vec::new();
        put_series(&mut request, std::slice::from_ref(&label), &samples);
        let read = WriteRequest::decode(&request[..]).unwrap();
        let series = &read.timeseries[0];
        assert_eq!(series.labels, [label]);
        assert_eq!(series.samples, samples.floats);
        assert!(series.samples[0].value.is_sign_negative());
    }
}
