//! Batches to a shard, and what became of their rows.

use std::sync::Arc;

use bytes::Bytes;
use model::batch::{DeltaSpan, Fence, Rows};
use model::limits::HISTOGRAM_BYTES_MAX;
use model::sample::Histograms;
use model::sink::{Reason, Rejection, Written};
use model::{Batch, Exemplar, Histogram, Labels, Timestamp};
use proto::node as wire;

use super::{Malformed, labels_from_wire, labels_to_wire};

/// A batch whose label sets travel as `labels` say.
pub fn batch_to_wire(batch: &Batch, labels: Vec<Bytes>) -> wire::Batch {
    wire::Batch {
        labels,
        series: batch.rows.series.clone(),
        timestamps: batch.rows.timestamps.iter().map(|t| t.0).collect(),
        values: batch.rows.values.clone(),
        fence: batch.fence.map(|f| wire::Fence {
            target: f.target,
            epoch: f.epoch,
        }),
        histogram_rows: batch.rows.histograms.iter().map(|h| h.0).collect(),
        histograms: batch
            .rows
            .histograms
            .iter()
            .map(histogram_to_wire)
            .collect(),
        exemplars: batch
            .exemplars
            .iter()
            .map(|(series, exemplar)| exemplar_to_wire(*series, exemplar))
            .collect(),
        backfill: batch.backfill,
        delta_starts_ns: batch.deltas.iter().map(|span| span.start_ns).collect(),
        delta_ends_ns: batch.deltas.iter().map(|span| span.end_ns).collect(),
    }
}

pub(super) fn histogram_to_wire((_, histogram): &(u32, Arc<Histogram>)) -> Bytes {
    tsdb::histogram::canonical(histogram)
}

/// Checks each histogram; whoever takes the answer checks the places.
pub fn histograms_from_wire(
    places: Vec<u32>,
    histograms: Vec<Bytes>,
) -> Result<Histograms, Malformed> {
    if places.len() != histograms.len() {
        return Err(Malformed::new("columns of different length"));
    }
    let one = |(place, bytes): (u32, Bytes)| {
        if bytes.len() > HISTOGRAM_BYTES_MAX {
            return Err(Malformed::new("a histogram too large"));
        }
        let histogram = Histogram::decode(&bytes).map_err(Malformed::new)?;
        Ok((place, Arc::new(histogram)))
    };
    places.into_iter().zip(histograms).map(one).collect()
}

pub(super) fn exemplar_to_wire(series: u32, exemplar: &Exemplar) -> wire::Exemplar {
    wire::Exemplar {
        series,
        labels: labels_to_wire(&exemplar.labels),
        timestamp_ms: exemplar.timestamp.0,
        value_bits: exemplar.value.to_bits(),
    }
}

pub(super) fn exemplar_from_wire(exemplar: wire::Exemplar) -> Result<Exemplar, Malformed> {
    Ok(Exemplar {
        labels: labels_from_wire(&exemplar.labels)?,
        value: f64::from_bits(exemplar.value_bits),
        timestamp: Timestamp(exemplar.timestamp_ms),
    })
}

fn deltas_from_wire(starts: &[u64], ends: &[u64]) -> Result<Vec<DeltaSpan>, Malformed> {
    if starts.len() != ends.len() {
        return Err(Malformed::new("columns of different length"));
    }
    let spans = starts.iter().zip(ends);
    let spans = spans.map(|(&start_ns, &end_ns)| DeltaSpan { start_ns, end_ns });
    Ok(spans.collect())
}

/// A batch of these label sets.
pub fn batch_from_wire(batch: wire::Batch, series: Vec<Labels>) -> Result<Batch, Malformed> {
    let batch = Batch {
        series,
        rows: Rows {
            series: batch.series,
            timestamps: batch.timestamps.into_iter().map(Timestamp).collect(),
            values: batch.values,
            histograms: histograms_from_wire(batch.histogram_rows, batch.histograms)?,
        },
        exemplars: batch
            .exemplars
            .into_iter()
            .map(|e| Ok((e.series, exemplar_from_wire(e)?)))
            .collect::<Result<_, Malformed>>()?,
        deltas: deltas_from_wire(&batch.delta_starts_ns, &batch.delta_ends_ns)?,
        backfill: batch.backfill,
        fence: batch.fence.map(|f| Fence {
            target: f.target,
            epoch: f.epoch,
        }),
    };
    batch.validate().map_err(Malformed)?;
    Ok(batch)
}

const REASONS: [Reason; 8] = [
    Reason::TooOld,
    Reason::TooNew,
    Reason::Duplicate,
    Reason::Fenced,
    Reason::BadLabels,
    Reason::BadHistogram,
    Reason::OutOfOrder,
    Reason::SeriesLimit,
];

pub fn written_to_wire(written: &Written) -> wire::Written {
    let number = |reason| {
        REASONS
            .iter()
            .position(|r| *r == reason)
            .expect("all are listed") as u32
    };
    wire::Written {
        rows: written.rejected.iter().map(|r| r.row).collect(),
        reasons: written.rejected.iter().map(|r| number(r.reason)).collect(),
    }
}

pub fn written_from_wire(written: wire::Written) -> Result<Written, Malformed> {
    if written.rows.len() != written.reasons.len() {
        return Err(Malformed::new("columns of different length"));
    }
    let rejection = |(row, reason): (u32, u32)| match REASONS.get(reason as usize) {
        Some(&reason) => Ok(Rejection { row, reason }),
        None => Err(Malformed(format!("reason {reason}"))),
    };
    let rejected = written.rows.into_iter().zip(written.reasons).map(rejection);
    Ok(Written {
        rejected: rejected.collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn an_exemplar_keeps_all_bits_of_its_value() {
        for value in [
            -0.0,
            0.0,
            f64::NEG_INFINITY,
            f64::from_bits(0x7ff8_0000_0000_0002),
        ] {
            let exemplar = Exemplar {
                labels: Labels::from_pairs([("trace_id", "a")]),
                value,
                timestamp: Timestamp(-7),
            };
            let bytes = exemplar_to_wire(3, &exemplar).encode_to_vec();
            let again = wire::Exemplar::decode(&bytes[..]).unwrap();
            let again = exemplar_from_wire(again).unwrap();
            assert_eq!(again.value.to_bits(), value.to_bits());
        }
    }

    #[test]
    fn batches_survive_the_wire_and_bad_ones_do_not() {
        let mut batch = Batch {
            fence: Some(Fence {
                target: 7,
                epoch: 9,
            }),
            ..Batch::default()
        };
        batch.add_sample(
            Labels::from_pairs([("__name__", "x")]),
            Timestamp(-5),
            f64::INFINITY,
        );
        let histogram = Histogram {
            sum: 2.5,
            ..Histogram::default()
        };
        batch
            .rows
            .push_histogram(0, Timestamp(7), Arc::new(histogram));
        let exemplar = Exemplar {
            labels: Labels::from_pairs([("trace_id", "t")]),
            value: 0.5,
            timestamp: Timestamp(6),
        };
        batch.exemplars.push((0, exemplar));
        let wire = batch_to_wire(&batch, Vec::new());
        let series = batch.series.clone();
        let read = |wire| batch_from_wire(wire, series.clone());
        assert_eq!(read(wire.clone()), Ok(batch));
        assert!(batch_from_wire(wire.clone(), Vec::new()).is_err());
        let bad_row = wire::Batch {
            series: vec![1],
            ..wire.clone()
        };
        assert!(read(bad_row).is_err());
        let bad_exemplar = wire::Batch {
            series: vec![],
            timestamps: vec![],
            values: vec![],
            histogram_rows: vec![],
            histograms: vec![],
            ..wire.clone()
        };
        assert!(batch_from_wire(bad_exemplar, Vec::new()).is_err());
        let good = wire.histograms[0].clone();
        for (rows, histograms) in [
            (vec![2], vec![good.clone()]),
            (vec![1, 1], vec![good.clone(), good.clone()]),
            (vec![1], vec![]),
            (vec![1], vec![Bytes::from_static(b"x")]),
        ] {
            let bad = wire::Batch {
                histogram_rows: rows,
                histograms,
                ..wire.clone()
            };
            assert!(read(bad).is_err());
        }
    }

    #[test]
    fn rejections_survive_the_wire() {
        let rejected = REASONS
            .iter()
            .zip(0..)
            .map(|(&reason, row)| Rejection { row, reason });
        let written = Written {
            rejected: rejected.collect(),
        };
        assert_eq!(written_from_wire(written_to_wire(&written)), Ok(written));
    }
}
