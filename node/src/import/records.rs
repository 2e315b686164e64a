//! What a record of Prometheus' log says (its `tsdb/docs/format/wal.md`, `tsdb/record`).

use proto::remote as wire;
use proto::remote::Label;

use super::input::{Bad, Cursor};

const SERIES: u8 = 1;
const SAMPLES: u8 = 2;
const TOMBSTONES: u8 = 3;
const EXEMPLARS: u8 = 4;
const MMAP_MARKERS: u8 = 5;
const METADATA: u8 = 6;
const HISTOGRAMS: u8 = 7;
const FLOAT_HISTOGRAMS: u8 = 8;
const CUSTOM_HISTOGRAMS: u8 = 9;
const CUSTOM_FLOAT_HISTOGRAMS: u8 = 10;

/// The schema of histograms with bounds of their own.
const CUSTOM_SCHEMA: i32 = -53;
/// As `record` numbers a gauge's hint.
const GAUGE: u8 = 3;

/// One record.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    Series(Vec<(u64, Vec<Label>)>),
    Floats(Vec<(u64, wire::Sample)>),
    Histograms(Vec<(u64, wire::Histogram)>),
    /// Series, first and last instant deleted.
    Tombstones(Vec<(u64, i64, i64)>),
    Exemplars(Vec<(u64, wire::Exemplar)>),
    /// What was said of the series' metrics; of no family yet.
    Metadata(Vec<(u64, wire::MetricMetadata)>),
    /// Where chunks were put.
    Other,
}

pub fn decode(record: &[u8]) -> Result<Record, Bad> {
    let mut cursor = Cursor::new(record);
    Ok(match cursor.u8()? {
        SERIES => Record::Series(until_end(&mut cursor, series)?),
        SAMPLES => Record::Floats(samples(&mut cursor, |cursor, timestamp| {
            let value = cursor.float()?;
            Ok(wire::Sample { value, timestamp })
        })?),
        TOMBSTONES => Record::Tombstones(until_end(&mut cursor, |cursor| {
            Ok((cursor.be64()?, cursor.varint()?, cursor.varint()?))
        })?),
        HISTOGRAMS | CUSTOM_HISTOGRAMS => {
            Record::Histograms(samples(&mut cursor, |cursor, at| {
                histogram(cursor, at, true)
            })?)
        }
        FLOAT_HISTOGRAMS | CUSTOM_FLOAT_HISTOGRAMS => {
            Record::Histograms(samples(&mut cursor, |cursor, at| {
                histogram(cursor, at, false)
            })?)
        }
        EXEMPLARS => Record::Exemplars(samples(&mut cursor, exemplar)?),
        METADATA => Record::Metadata(until_end(&mut cursor, metadata)?),
        MMAP_MARKERS => Record::Other,
        _ => {
            return Err(Bad {
                at: 0,
                what: "a record of an unknown type",
            });
        }
    })
}

fn until_end<T>(
    cursor: &mut Cursor<'_>,
    mut one: impl FnMut(&mut Cursor<'_>) -> Result<T, Bad>,
) -> Result<Vec<T>, Bad> {
    let mut all = Vec::new();
    while !cursor.is_empty() {
        all.push(one(cursor)?);
    }
    Ok(all)
}

fn series(cursor: &mut Cursor<'_>) -> Result<(u64, Vec<Label>), Bad> {
    Ok((cursor.be64()?, labels(cursor)?))
}

fn labels(cursor: &mut Cursor<'_>) -> Result<Vec<Label>, Bad> {
    list(cursor, 2, |cursor| {
        let name = cursor.text()?.to_owned();
        let value = cursor.text()?.to_owned();
        Ok(Label { name, value })
    })
}

fn exemplar(cursor: &mut Cursor<'_>, timestamp: i64) -> Result<wire::Exemplar, Bad> {
    let value = cursor.float()?;
    let labels = labels(cursor)?;
    Ok(wire::Exemplar {
        labels,
        value,
        timestamp,
    })
}

/// Kinds have the numbers that remote write gives them; later fields may come.
fn metadata(cursor: &mut Cursor<'_>) -> Result<(u64, wire::MetricMetadata), Bad> {
    let reference = cursor.uvarint()?;
    let mut said = wire::MetricMetadata {
        r#type: cursor.u8()?.into(),
        ..wire::MetricMetadata::default()
    };
    for field in labels(cursor)? {
        match &*field.name {
            "UNIT" => said.unit = field.value,
            "HELP" => said.help = field.value,
            _ => {}
        }
    }
    Ok((reference, said))
}

/// References and times as differences from those in front.
fn samples<T>(
    cursor: &mut Cursor<'_>,
    mut one: impl FnMut(&mut Cursor<'_>, i64) -> Result<T, Bad>,
) -> Result<Vec<(u64, T)>, Bad> {
    if cursor.is_empty() {
        return Ok(Vec::new());
    }
    let (reference, at) = (cursor.be64()?, cursor.be64()? as i64);
    until_end(cursor, |cursor| {
        let reference = reference.wrapping_add_signed(cursor.varint()?);
        let at = at.wrapping_add(cursor.varint()?);
        Ok((reference, one(cursor, at)?))
    })
}

fn histogram(
    cursor: &mut Cursor<'_>,
    timestamp: i64,
    is_integer: bool,
) -> Result<wire::Histogram, Bad> {
    use wire::histogram::{Count, ResetHint, ZeroCount};
    let reset_hint = match cursor.u8()? {
        GAUGE => ResetHint::Gauge,
        _ => ResetHint::Unknown,
    };
    let schema = cursor.varint32()?;
    let zero_threshold = cursor.float()?;
    let (zero_count, count) = match is_integer {
        true => {
            let zero = ZeroCount::ZeroCountInt(cursor.uvarint()?);
            (zero, Count::CountInt(cursor.uvarint()?))
        }
        false => {
            let zero = ZeroCount::ZeroCountFloat(cursor.float()?);
            (zero, Count::CountFloat(cursor.float()?))
        }
    };
    let sum = cursor.float()?;
    let (positive_spans, negative_spans) = (spans(cursor)?, spans(cursor)?);
    let mut histogram = wire::Histogram {
        count: Some(count),
        sum,
        schema,
        zero_threshold,
        zero_count: Some(zero_count),
        positive_spans,
        negative_spans,
        reset_hint: reset_hint.into(),
        timestamp,
        ..wire::Histogram::default()
    };
    match is_integer {
        true => {
            histogram.positive_deltas = list(cursor, 1, Cursor::varint)?;
            histogram.negative_deltas = list(cursor, 1, Cursor::varint)?;
        }
        false => {
            histogram.positive_counts = list(cursor, 8, Cursor::float)?;
            histogram.negative_counts = list(cursor, 8, Cursor::float)?;
        }
    }
    if schema == CUSTOM_SCHEMA {
        histogram.custom_values = list(cursor, 8, Cursor::float)?;
    }
    Ok(match model::sample::is_stale(sum) {
        true => super::chunk::stale(&histogram, is_integer),
        false => histogram,
    })
}

fn spans(cursor: &mut Cursor<'_>) -> Result<Vec<wire::BucketSpan>, Bad> {
    list(cursor, 2, |cursor| {
        let offset = cursor.varint32()?;
        let length = cursor.uvarint32()?;
        Ok(wire::BucketSpan { offset, length })
    })
}

fn list<'a, T>(
    cursor: &mut Cursor<'a>,
    bytes: usize,
    one: impl Fn(&mut Cursor<'a>) -> Result<T, Bad>,
) -> Result<Vec<T>, Bad> {
    (0..cursor.count(bytes)?).map(|_| one(cursor)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_are_a_record_or_told(kind in 0u8..12, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let bytes = [&[kind], &bytes[..]].concat();
            if let Err(bad) = decode(&bytes) {
                prop_assert!(bad.at <= bytes.len());
            }
        }
    }

    #[test]
    fn samples_stand_beside_the_first() {
        let mut bytes = vec![SAMPLES];
        bytes.extend(7u64.to_be_bytes());
        bytes.extend(1000i64.to_be_bytes());
        for (reference, at) in [(0u8, 0u8), (4, 1)] {
            bytes.extend([reference, at]);
            bytes.extend(1.5f64.to_be_bytes());
        }
        let sample = |timestamp| wire::Sample {
            value: 1.5,
            timestamp,
        };
        let expected = vec![(7, sample(1000)), (9, sample(999))];
        assert_eq!(decode(&bytes), Ok(Record::Floats(expected)));
        bytes.pop();
        assert!(decode(&bytes).is_err());
    }

    #[test]
    fn exemplars_and_metadata() {
        let mut bytes = vec![EXEMPLARS];
        bytes.extend(7u64.to_be_bytes());
        bytes.extend(1000i64.to_be_bytes());
        bytes.extend([2, 3]);
        bytes.extend(0.5f64.to_be_bytes());
        bytes.extend([1, 1, b't', 1, b'x']);
        let exemplar = wire::Exemplar {
            labels: vec![Label {
                name: "t".to_owned(),
                value: "x".to_owned(),
            }],
            value: 0.5,
            timestamp: 998,
        };
        let expected = Record::Exemplars(vec![(8, exemplar)]);
        assert_eq!(decode(&bytes), Ok(expected));
        let bytes = b"\x06\x03\x01\x02\x04UNIT\x01s\x04HELP\x02Hi";
        let said = wire::MetricMetadata {
            r#type: wire::metric_metadata::MetricType::Counter.into(),
            unit: "s".to_owned(),
            help: "Hi".to_owned(),
            ..wire::MetricMetadata::default()
        };
        assert_eq!(decode(bytes), Ok(Record::Metadata(vec![(3, said)])));
    }

    #[test]
    fn series_have_labels() {
        let mut bytes = vec![SERIES];
        bytes.extend(3u64.to_be_bytes());
        bytes.extend([1, 1, b'a', 2, b'b', b'c']);
        let label = Label {
            name: "a".to_owned(),
            value: "bc".to_owned(),
        };
        let expected = Record::Series(vec![(3, vec![label])]);
        assert_eq!(decode(&bytes), Ok(expected));
    }
}
