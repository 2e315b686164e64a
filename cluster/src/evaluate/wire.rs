//! Fragments and parts as node-to-node messages.

use std::sync::Arc;

use model::fragment::{Fragment, FragmentError, Part, PartColumn, PartNote, StepCount};
use model::source::{Consistency, SourceError};
use model::{Histogram, Labels, Timestamp};
use prost::Message;
use proto::node as wire;
use wire::part_failure::Kind;

use super::Answer;
use crate::convert::{Malformed, refusal_from_wire, refusal_to_wire};
use crate::refusal::Refusal;

/// Values in one message of an answer.
const VALUES_PER_MESSAGE: usize = 64 << 10;

pub fn fragment_to_wire(fragment: &Fragment) -> wire::EvaluateRequest {
    wire::EvaluateRequest {
        query: fragment.query.clone(),
        node: fragment.node,
        fold: fragment.fold,
        chosen_by: fragment.chosen_by,
        start_ms: fragment.start.0,
        step_ms: fragment.step_ms,
        steps: fragment.steps,
        query_start_ms: fragment.query_start.0,
        query_end_ms: fragment.query_end.0,
        query_step_ms: fragment.query_step_ms,
        lookback_ms: fragment.lookback_ms,
        subquery_step_ms: fragment.subquery_step_ms,
        timeout_ms: fragment.timeout_ms,
        samples_max: fragment.samples_max,
        features: fragment.features,
        local: fragment.consistency == Consistency::Local,
        end_ms: Some(fragment.end.0),
        ..Default::default()
    }
}

pub fn fragment_from_wire(request: wire::EvaluateRequest) -> Fragment {
    let steps_after = i64::from(request.steps).saturating_sub(1).max(0);
    let last = request
        .start_ms
        .saturating_add(request.step_ms.saturating_mul(steps_after));
    Fragment {
        end: Timestamp(request.end_ms.unwrap_or(last)),
        query: request.query,
        node: request.node,
        fold: request.fold,
        chosen_by: request.chosen_by,
        start: Timestamp(request.start_ms),
        step_ms: request.step_ms,
        steps: request.steps,
        query_start: Timestamp(request.query_start_ms),
        query_end: Timestamp(request.query_end_ms),
        query_step_ms: request.query_step_ms,
        lookback_ms: request.lookback_ms,
        subquery_step_ms: request.subquery_step_ms,
        timeout_ms: request.timeout_ms,
        samples_max: request.samples_max,
        features: request.features,
        consistency: match request.local {
            true => Consistency::Local,
            false => Consistency::Strong,
        },
    }
}

/// An answer as messages of bounded size.
pub fn replies(answer: Result<Answer, Refusal>) -> Vec<wire::EvaluateReply> {
    let part = match answer {
        Ok(Ok(part)) => part,
        Ok(Err(FragmentError::Source(SourceError::Unavailable(_)))) => {
            return refused(Refusal::Unavailable("the shard's engine".to_owned()));
        }
        Ok(Err(error)) => return failed(&error),
        Err(refusal) => return refused(refusal),
    };
    let mut messages = Vec::new();
    let mut current = wire::EvaluateReply::default();
    let mut values = 0;
    for column in part.columns {
        values += column.values.len() * (1 + column.rest.len());
        current.columns.push(column_to_wire(column));
        if values >= VALUES_PER_MESSAGE {
            messages.push(std::mem::take(&mut current));
            values = 0;
        }
    }
    current.end = Some(wire::PartEnd {
        cannot_fold: part.cannot_fold,
        notes: part.notes.into_iter().map(note_to_wire).collect(),
        samples: part.samples,
        peak: part.peak,
        series: part.series,
        counts: part.counts.into_iter().map(count_to_wire).collect(),
    });
    messages.push(current);
    messages
}

fn refused(refusal: Refusal) -> Vec<wire::EvaluateReply> {
    vec![wire::EvaluateReply {
        refusal: Some(refusal_to_wire(refusal)),
        ..Default::default()
    }]
}

fn failed(error: &FragmentError) -> Vec<wire::EvaluateReply> {
    let kind = match error {
        FragmentError::Source(_) => Kind::Unknown,
        FragmentError::Execution(_) => Kind::Execution,
        FragmentError::TooManySamples => Kind::TooManySamples,
        FragmentError::Timeout => Kind::Timeout,
        FragmentError::Canceled => Kind::Canceled,
        FragmentError::Unsupported => Kind::Unsupported,
    };
    let failure = wire::PartFailure {
        kind: kind.into(),
        text: error.to_string(),
    };
    vec![wire::EvaluateReply {
        failure: Some(failure),
        ..Default::default()
    }]
}

fn failure_from_wire(failure: wire::PartFailure) -> FragmentError {
    match failure.kind() {
        Kind::Unknown => FragmentError::Source(SourceError::Internal(failure.text)),
        Kind::Execution => FragmentError::Execution(failure.text),
        Kind::TooManySamples => FragmentError::TooManySamples,
        Kind::Timeout => FragmentError::Timeout,
        Kind::Canceled => FragmentError::Canceled,
        Kind::Unsupported => FragmentError::Unsupported,
    }
}

fn column_to_wire(column: PartColumn) -> wire::PartColumn {
    let bytes = |histogram: &Histogram| {
        let mut bytes = Vec::new();
        histogram.encode(&mut bytes);
        bytes.into()
    };
    wire::PartColumn {
        labels: bytes::Bytes::copy_from_slice(column.labels.as_canonical()),
        drop_name: column.drop_name,
        values: column.values,
        histogram_places: column.histograms.iter().map(|(place, _)| *place).collect(),
        histograms: column.histograms.iter().map(|(_, h)| bytes(h)).collect(),
        rest: column
            .rest
            .into_iter()
            .map(|values| wire::Doubles { values })
            .collect(),
    }
}

fn column_from_wire(column: wire::PartColumn) -> Result<PartColumn, Malformed> {
    let malformed = |what: &str| Malformed(format!("column of a part: {what}"));
    let steps = column.values.len();
    let places = &column.histogram_places;
    let ascending = places.is_sorted_by(|a, b| a < b);
    let inside = places.last().is_none_or(|last| (*last as usize) < steps);
    if !ascending || !inside || places.len() != column.histograms.len() {
        return Err(malformed("places of histograms"));
    }
    if column.rest.iter().any(|rest| rest.values.len() != steps) {
        return Err(malformed("columns of different length"));
    }
    let histograms = places.iter().zip(&column.histograms);
    let histograms = histograms.map(|(&place, bytes)| {
        let histogram = Histogram::decode(bytes).map_err(|e| malformed(&e.to_string()))?;
        Ok((place, Arc::new(histogram)))
    });
    Ok(PartColumn {
        histograms: histograms.collect::<Result<_, Malformed>>()?,
        labels: Labels::from_canonical(&column.labels).map_err(|e| malformed(&e.to_string()))?,
        drop_name: column.drop_name,
        values: column.values,
        rest: column.rest.into_iter().map(|rest| rest.values).collect(),
    })
}

fn note_to_wire(note: PartNote) -> wire::PartNote {
    wire::PartNote {
        is_warning: note.is_warning,
        text: note.text,
        offset: note.offset,
    }
}

fn note_from_wire(note: wire::PartNote) -> PartNote {
    PartNote {
        is_warning: note.is_warning,
        text: note.text,
        offset: note.offset,
    }
}

fn count_to_wire(count: StepCount) -> wire::StepCount {
    wire::StepCount {
        sizes: count.sizes,
        points: count.points,
        rounded: count.rounded,
        windows: count.windows,
        results: count.results,
        is_scalar: count.is_scalar,
    }
}

fn count_from_wire(count: wire::StepCount) -> StepCount {
    StepCount {
        sizes: count.sizes,
        points: count.points,
        rounded: count.rounded,
        read: Vec::new(),
        windows: count.windows,
        results: count.results,
        is_scalar: count.is_scalar,
    }
}

/// A part of which not all messages are here.
#[derive(Default)]
pub struct Arriving {
    columns: Vec<PartColumn>,
    bytes: u64,
}

impl Arriving {
    /// Takes the next message; the answer, once it is whole.
    pub fn add(&mut self, reply: wire::EvaluateReply) -> Result<Option<Answer>, Refusal> {
        if let Some(refusal) = reply.refusal {
            return Err(refusal_from_wire(refusal));
        }
        if let Some(failure) = reply.failure {
            return Ok(Some(Err(failure_from_wire(failure))));
        }
        self.bytes += reply.encoded_len() as u64;
        for column in reply.columns {
            let column = column_from_wire(column).map_err(|e| Refusal::Internal(e.to_string()))?;
            self.columns.push(column);
        }
        Ok(reply.end.map(|end| {
            Ok(Part {
                columns: std::mem::take(&mut self.columns),
                cannot_fold: end.cannot_fold,
                notes: end.notes.into_iter().map(note_from_wire).collect(),
                samples: end.samples,
                peak: end.peak,
                counts: end.counts.into_iter().map(count_from_wire).collect(),
                series: end.series,
                bytes: self.bytes,
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use model::histogram::Span;

    use super::*;

    fn fragment() -> Fragment {
        Fragment {
            query: "sum(rate(x[5m]))".to_owned(),
            node: 1,
            fold: true,
            chosen_by: Some(0),
            start: Timestamp(-5),
            step_ms: 15_000,
            steps: 7,
            end: Timestamp(90_002),
            query_start: Timestamp(1),
            query_end: Timestamp(2),
            query_step_ms: 3,
            lookback_ms: 300_000,
            subquery_step_ms: 60_000,
            timeout_ms: 9,
            samples_max: 10,
            features: 3,
            consistency: Consistency::Local,
        }
    }

    fn arrive(replies: Vec<wire::EvaluateReply>) -> Result<Answer, Refusal> {
        let mut arriving = Arriving::default();
        for reply in replies {
            if let Some(answer) = arriving.add(reply)? {
                return Ok(answer);
            }
        }
        panic!("the answer broke off");
    }

    #[test]
    fn fragments_survive_the_wire() {
        assert_eq!(
            fragment_from_wire(fragment_to_wire(&fragment())),
            fragment()
        );
    }

    #[test]
    fn parts_survive_the_wire_in_pieces() {
        let histogram = Histogram {
            count: 2.0,
            positive_spans: vec![Span {
                offset: 0,
                length: 1,
            }],
            positive_buckets: vec![2.0],
            ..Histogram::default()
        };
        let column = |name: &str| PartColumn {
            labels: Labels::from_pairs([("__name__", name)]),
            drop_name: true,
            values: vec![1.0; 20_000],
            histograms: vec![(3, Arc::new(histogram.clone()))],
            rest: vec![vec![2.0; 20_000]],
        };
        let part = Part {
            columns: ["a", "b", "c"].map(column).to_vec(),
            notes: vec![PartNote {
                is_warning: true,
                text: "careful".to_owned(),
                offset: 4,
            }],
            samples: vec![60_000],
            peak: 5,
            series: 3,
            counts: vec![StepCount {
                sizes: vec![7, 300],
                points: vec![1, 2],
                rounded: vec![0, 1],
                read: Vec::new(),
                windows: 9,
                results: 4,
                is_scalar: true,
            }],
            ..Part::default()
        };
        let messages = replies(Ok(Ok(part.clone())));
        assert_eq!(messages.len(), 2);
        let arrived = arrive(messages).unwrap().unwrap();
        assert!(arrived.bytes > 3 * 2 * 8 * 20_000);
        assert_eq!(
            Part {
                bytes: 0,
                ..arrived
            },
            part
        );
    }

    #[test]
    fn failures_keep_their_kind_and_nonsense_is_refused() {
        for error in [
            FragmentError::Execution("x".to_owned()),
            FragmentError::TooManySamples,
            FragmentError::Timeout,
            FragmentError::Canceled,
            FragmentError::Unsupported,
        ] {
            assert_eq!(arrive(replies(Ok(Err(error.clone())))), Ok(Err(error)));
        }
        let refusal = Refusal::NotLeader(Some(3));
        assert_eq!(arrive(replies(Err(refusal.clone()))), Err(refusal));
        let bad = wire::PartColumn {
            values: vec![1.0],
            rest: vec![wire::Doubles { values: vec![] }],
            ..Default::default()
        };
        assert!(column_from_wire(bad).is_err());
    }
}
