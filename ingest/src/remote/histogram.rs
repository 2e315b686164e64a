//! One `prometheus.Histogram` message to a [`Histogram`].
//!
//! Which of the two kinds it is, the field of its count tells, as in Prometheus; integer buckets
//! come as differences, float buckets as they are. A field that does not belong to the kind is
//! checked for form and not used.

use model::histogram::{Integers, ResetHint, SCHEMA_MAX, Span};
use model::{Histogram, Timestamp};
use proto::remote::{Fields, WireError};

use crate::histogram::buckets;
use crate::histogram::check::check;

/// Schemas above ours that the format reserves: they are of the same kind, and finer.
const SCHEMA_RESERVED_MAX: i32 = 52;

/// Both sides' buckets as they stand in the message.
#[derive(Default)]
struct Side {
    spans: Vec<Span>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

/// Reads the message; a histogram finer than [`SCHEMA_MAX`] comes out at that resolution. With what
/// keeps it from being stored, if anything does.
pub fn read(message: &[u8]) -> Result<(Timestamp, Histogram, Result<(), String>), WireError> {
    let mut histogram = Histogram {
        is_integer: true,
        ..Histogram::default()
    };
    let mut at = Timestamp(0);
    let (mut positive, mut negative) = (Side::default(), Side::default());
    let mut hint = 0;
    let mut count = 0;
    // Of both kinds: the histogram's kind may be told behind them.
    let (mut zero_count, mut zero_count_float) = (0, 0.0);
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            1 => (histogram.is_integer, count) = (true, field.int64()? as u64),
            2 => (histogram.is_integer, histogram.count) = (false, field.double()?),
            3 => histogram.sum = field.double()?,
            4 => histogram.schema = field.sint64()? as i32,
            5 => histogram.zero_threshold = field.double()?,
            6 => (zero_count, zero_count_float) = (field.int64()? as u64, 0.0),
            7 => (zero_count, zero_count_float) = (0, field.double()?),
            8 => negative.spans.push(read_span(field.bytes()?)?),
            9 => field.append_sint64s(&mut negative.deltas)?,
            10 => field.append_doubles(&mut negative.counts)?,
            11 => positive.spans.push(read_span(field.bytes()?)?),
            12 => field.append_sint64s(&mut positive.deltas)?,
            13 => field.append_doubles(&mut positive.counts)?,
            14 => hint = field.int64()?,
            15 => at = Timestamp(field.int64()?),
            16 => field.append_doubles(&mut histogram.custom_values)?,
            _ => {}
        }
    }
    let hint = u8::try_from(hint).ok().and_then(ResetHint::of_number);
    histogram.reset_hint = hint.unwrap_or_default();
    histogram.positive_spans = std::mem::take(&mut positive.spans);
    histogram.negative_spans = std::mem::take(&mut negative.spans);
    match histogram.is_integer {
        true => histogram.set_integers(Integers {
            count,
            zero_count,
            positive_buckets: buckets::absolute(positive.deltas),
            negative_buckets: buckets::absolute(negative.deltas),
        }),
        false => {
            histogram.zero_count = zero_count_float;
            histogram.positive_buckets = positive.counts;
            histogram.negative_buckets = negative.counts;
        }
    }
    if (SCHEMA_MAX + 1..=SCHEMA_RESERVED_MAX).contains(&histogram.schema) && is_laid_out(&histogram)
    {
        buckets::reduce_resolution(&mut histogram, SCHEMA_MAX);
    }
    let checked = check(&histogram);
    Ok((at, histogram, checked))
}

/// Whether spans and buckets agree; if not, the check to come must see them as they are.
fn is_laid_out(histogram: &Histogram) -> bool {
    let finest = Histogram {
        schema: SCHEMA_MAX,
        ..histogram.clone()
    };
    finest.validate().is_ok()
}

fn read_span(message: &[u8]) -> Result<Span, WireError> {
    let mut span = Span::default();
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            1 => span.offset = field.sint64()? as i32,
            2 => span.length = field.int64()? as u32,
            _ => {}
        }
    }
    Ok(span)
}

#[cfg(test)]
mod tests {
    use model::histogram::CUSTOM_SCHEMA;
    use proptest::prelude::*;
    use prost::Message;
    use proto::remote as wire;

    use super::*;

    fn decode(message: &wire::Histogram) -> Histogram {
        read(&message.encode_to_vec()).unwrap().1
    }

    #[test]
    fn integers_come_as_differences() {
        let message = wire::Histogram {
            count: Some(wire::histogram::Count::CountInt(12)),
            sum: 2.5,
            schema: 3,
            zero_threshold: 0.5,
            zero_count: Some(wire::histogram::ZeroCount::ZeroCountInt(1)),
            positive_spans: vec![wire::BucketSpan {
                offset: -2,
                length: 3,
            }],
            positive_deltas: vec![4, -1, 1],
            positive_counts: vec![9.0],
            reset_hint: 2,
            timestamp: 77,
            ..Default::default()
        };
        let (at, histogram, checked) = read(&message.encode_to_vec()).unwrap();
        assert_eq!(checked, Ok(()));
        assert_eq!(at, Timestamp(77));
        assert_eq!(histogram.positive_buckets, [4.0, 3.0, 4.0]);
        assert_eq!(histogram.reset_hint, ResetHint::NotCounterReset);
        assert_eq!((histogram.count, histogram.zero_count), (12.0, 1.0));
        assert!(histogram.is_integer);
        let finer = wire::Histogram {
            schema: 9,
            ..message
        };
        assert_eq!(decode(&finer).schema, 8);
        assert_eq!(decode(&finer).positive_buckets, [4.0, 7.0]);
    }

    #[test]
    fn floats_come_as_they_are() {
        let message = wire::Histogram {
            count: Some(wire::histogram::Count::CountFloat(1.5)),
            zero_count: Some(wire::histogram::ZeroCount::ZeroCountFloat(0.5)),
            schema: CUSTOM_SCHEMA,
            positive_counts: vec![0.5, 1.0],
            positive_deltas: vec![4],
            custom_values: vec![0.1, 2.0],
            reset_hint: 3,
            ..Default::default()
        };
        let histogram = decode(&message);
        assert!(!histogram.is_integer);
        assert_eq!(histogram.positive_buckets, [0.5, 1.0]);
        assert_eq!(histogram.custom_values, [0.1, 2.0]);
        assert_eq!(histogram.reset_hint, ResetHint::Gauge);
        assert_eq!(histogram.zero_count, 0.5);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
            let _ = read(&bytes);
        }
    }
}
