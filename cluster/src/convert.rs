//! Between the nouns of `model` and the node-to-node messages, and the small things both sides
//! of a call need.
//!
//! Messages from a peer are checked like any outside bytes.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use model::batch::{DeltaSpan, Fence, Rows};
use model::group::{
    Family, FamilyKind, FamilySample, Group, GroupingKey, PushId, PushOp, PushOptions, Rare,
};
use model::limits::HISTOGRAM_BYTES_MAX;
use model::port::Dice;
use model::sample::Histograms;
use model::sink::{Reason, Rejection, Written};
use model::source::{Consistency, MetadataSelection, Selection, Take};
use model::{
    Batch, ClusterId, Exemplar, ExemplarSeries, FamilyMetadata, Histogram, Labels, MatchOp,
    Matcher, MetricKind, Samples, Series, Timestamp,
};
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;
use proto::node as wire;
use tsdb::DeleteCommand;
use tsdb::cardinality::Cardinality;

use crate::refusal::Refusal;

/// Gives a future the seeded random source that openraft asks its task for. Everything that
/// calls openraft runs in such a scope.
pub fn scoped<'a, F>(dice: &Arc<dyn Dice>, future: F) -> BoxFuture<'a, F::Output>
where
    F: Future + Send + 'a,
{
    DeterministicRng::<TokioRuntime>::scope(dice.roll(), future).boxed()
}

/// A message that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(pub String);

impl Malformed {
    pub(crate) fn new(what: impl ToString) -> Self {
        Self(what.to_string())
    }
}

pub fn cluster_id_to_wire(id: ClusterId) -> Bytes {
    Bytes::copy_from_slice(&id.0.to_be_bytes())
}

pub fn cluster_id_from_wire(bytes: &[u8]) -> Option<ClusterId> {
    Some(ClusterId(u128::from_be_bytes(bytes.try_into().ok()?)))
}

// ---- writes ----

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

fn histogram_to_wire((_, histogram): &(u32, Arc<Histogram>)) -> Bytes {
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

fn exemplar_to_wire(series: u32, exemplar: &Exemplar) -> wire::Exemplar {
    wire::Exemplar {
        series,
        labels: labels_to_wire(&exemplar.labels),
        timestamp_ms: exemplar.timestamp.0,
        value: exemplar.value,
    }
}

fn exemplar_from_wire(exemplar: wire::Exemplar) -> Result<Exemplar, Malformed> {
    Ok(Exemplar {
        labels: labels_from_wire(&exemplar.labels)?,
        value: exemplar.value,
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

pub fn labels_to_wire(labels: &Labels) -> Bytes {
    Bytes::copy_from_slice(labels.as_canonical())
}

pub fn labels_from_wire(block: &[u8]) -> Result<Labels, Malformed> {
    Labels::from_canonical(block).map_err(Malformed::new)
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

pub fn refusal_to_wire(refusal: Refusal) -> wire::ShardRefusal {
    use wire::shard_refusal::Kind;
    let (kind, leader, text) = match refusal {
        Refusal::NotLeader(leader) => (Kind::NotLeader, leader, String::new()),
        Refusal::Overloaded(text) => (Kind::Overloaded, None, text),
        Refusal::Unavailable(text) => (Kind::Unavailable, None, text),
        Refusal::TooLarge(text) => (Kind::TooLarge, None, text),
        Refusal::Internal(text) => (Kind::Internal, None, text),
    };
    wire::ShardRefusal {
        kind: kind.into(),
        leader,
        text,
    }
}

pub fn refusal_from_wire(refusal: wire::ShardRefusal) -> Refusal {
    use wire::shard_refusal::Kind;
    match refusal.kind() {
        Kind::NotLeader => Refusal::NotLeader(refusal.leader),
        Kind::Overloaded => Refusal::Overloaded(refusal.text),
        Kind::Unavailable | Kind::Unknown => Refusal::Unavailable(refusal.text),
        Kind::TooLarge => Refusal::TooLarge(refusal.text),
        Kind::Internal => Refusal::Internal(refusal.text),
    }
}

// ---- groups ----

const KINDS: [FamilyKind; 5] = [
    FamilyKind::Untyped,
    FamilyKind::Counter,
    FamilyKind::Gauge,
    FamilyKind::Histogram,
    FamilyKind::Summary,
];
const SUFFIXES: [&str; 4] = ["", "_bucket", "_sum", "_count"];

fn family_to_wire(family: &Family) -> wire::Family {
    let sample = |s: &FamilySample| wire::FamilySample {
        suffix: s.suffix.to_owned(),
        labels: labels_to_wire(&s.labels),
        value: s.value,
        empty: s.empty_labels().to_vec(),
        native: s.native().map_or_else(Bytes::new, |native| {
            let mut bytes = Vec::new();
            native.encode(&mut bytes);
            bytes.into()
        }),
        implied: s.is_implied(),
    };
    wire::Family {
        name: family.name.clone(),
        help: family.help.clone(),
        kind: KINDS
            .iter()
            .position(|k| *k == family.kind)
            .expect("all are listed") as u32,
        samples: family.samples.iter().map(sample).collect(),
    }
}

fn family_from_wire(family: wire::Family) -> Result<Family, Malformed> {
    let sample = |s: wire::FamilySample| {
        let suffix = SUFFIXES.iter().find(|known| **known == s.suffix);
        Ok(FamilySample {
            suffix: suffix.ok_or_else(|| Malformed::new("suffix"))?,
            labels: labels_from_wire(&s.labels)?,
            value: s.value,
            rare: rare_from_wire(s.empty, &s.native, s.implied)?,
        })
    };
    Ok(Family {
        name: family.name,
        help: family.help,
        kind: *KINDS
            .get(family.kind as usize)
            .ok_or_else(|| Malformed::new("kind"))?,
        samples: family
            .samples
            .into_iter()
            .map(sample)
            .collect::<Result<_, _>>()?,
    })
}

fn rare_from_wire(
    empty: Vec<String>,
    native: &[u8],
    implied: bool,
) -> Result<Option<Box<Rare>>, Malformed> {
    let native = match native {
        [] => None,
        bytes => {
            let histogram = Histogram::decode(bytes).map_err(|_| Malformed::new("native"))?;
            Some(Arc::new(histogram))
        }
    };
    let rare = Rare {
        empty,
        native,
        implied,
    };
    Ok(rare.boxed())
}

pub fn key_to_wire(key: &GroupingKey) -> Vec<wire::GroupingLabel> {
    let label = |(name, value): (&str, &str)| wire::GroupingLabel {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    key.iter().map(label).collect()
}

pub fn key_from_wire(key: Vec<wire::GroupingLabel>) -> Result<GroupingKey, Malformed> {
    let pairs = key.into_iter().map(|label| (label.name, label.value));
    GroupingKey::new(pairs).ok_or_else(|| Malformed::new("grouping key without job"))
}

pub fn group_to_wire(group: &Group) -> wire::Group {
    wire::Group {
        key: key_to_wire(&group.key),
        families: group.families.iter().map(family_to_wire).collect(),
        push_time_ms: group.push_time.0,
        push_failure_time_ms: group.push_failure_time.0,
        expires_ms: group.expires.map(|at| at.0),
    }
}

pub fn group_from_wire(group: wire::Group) -> Result<Group, Malformed> {
    Ok(Group {
        key: key_from_wire(group.key)?,
        families: group
            .families
            .into_iter()
            .map(family_from_wire)
            .collect::<Result<_, _>>()?,
        push_time: Timestamp(group.push_time_ms),
        push_failure_time: Timestamp(group.push_failure_time_ms),
        expires: group.expires_ms.map(Timestamp),
    })
}

pub fn metadata_families_to_wire(families: &[FamilyMetadata]) -> Vec<wire::FamilyMetadata> {
    let families = families.iter().map(|family| wire::FamilyMetadata {
        name: family.name.clone(),
        kind: family.kind.number().into(),
        help: family.help.clone(),
        unit: family.unit.clone(),
    });
    families.collect()
}

pub fn metadata_families_from_wire(
    families: Vec<wire::FamilyMetadata>,
) -> Result<Vec<FamilyMetadata>, Malformed> {
    let family = |family: wire::FamilyMetadata| {
        if family.name.is_empty() {
            return Err(Malformed::new("name of a family"));
        }
        let kind = MetricKind::of_number(family.kind.into());
        Ok(FamilyMetadata {
            name: family.name,
            kind: kind.ok_or_else(|| Malformed::new("kind"))?,
            help: family.help,
            unit: family.unit,
        })
    };
    families.into_iter().map(family).collect()
}

/// A request without its cluster and shard.
pub fn push_to_wire(key: &GroupingKey, op: &PushOp, options: PushOptions) -> wire::PushRequest {
    use wire::push_request::Op;
    let none = &Vec::new();
    let (kind, families, id) = match op {
        PushOp::Put(families) => (Op::Put, families, None),
        PushOp::Post(families) => (Op::Post, families, None),
        PushOp::Add { families, id } => (Op::Add, families, Some(id)),
        PushOp::Delete => (Op::Delete, none, None),
        PushOp::Reject => (Op::Reject, none, None),
        PushOp::Expire => unreachable!("a shard's leader alone decides what has expired"),
    };
    wire::PushRequest {
        key: key_to_wire(key),
        op: kind.into(),
        families: families.iter().map(family_to_wire).collect(),
        id: id
            .map(|id| id.as_bytes().to_vec().into())
            .unwrap_or_default(),
        ttl_ms: options.ttl_ms.unwrap_or(0),
        unchecked: options.unchecked,
        brief: options.brief,
        partial: options.partial,
        ..wire::PushRequest::default()
    }
}

pub fn push_from_wire(
    request: wire::PushRequest,
) -> Result<(GroupingKey, PushOp, PushOptions), Malformed> {
    use wire::push_request::Op;
    let kind = request.op();
    let options = PushOptions {
        ttl_ms: (request.ttl_ms > 0).then_some(request.ttl_ms),
        unchecked: request.unchecked,
        brief: request.brief,
        partial: request.partial,
    };
    if !options.is_valid() {
        return Err(Malformed::new("time to live"));
    }
    let families = request.families.into_iter().map(family_from_wire);
    let families = families.collect::<Result<Vec<_>, Malformed>>()?;
    let op = match kind {
        Op::Put => PushOp::Put(families),
        Op::Post => PushOp::Post(families),
        Op::Add => PushOp::Add {
            families,
            id: PushId::new(&request.id).ok_or_else(|| Malformed::new("push id"))?,
        },
        Op::Delete => PushOp::Delete,
        Op::Reject => PushOp::Reject,
    };
    Ok((key_from_wire(request.key)?, op, options))
}

// ---- reads ----

const OPS: [MatchOp; 4] = [
    MatchOp::Equal,
    MatchOp::NotEqual,
    MatchOp::Regex,
    MatchOp::NotRegex,
];

fn matcher_to_wire(matcher: &Matcher) -> wire::Matcher {
    wire::Matcher {
        op: OPS
            .iter()
            .position(|op| *op == matcher.op)
            .expect("all are listed") as u32,
        name: matcher.name.clone(),
        value: matcher.value.clone(),
    }
}

fn matcher_from_wire(matcher: wire::Matcher) -> Result<Matcher, Malformed> {
    let op = OPS
        .get(matcher.op as usize)
        .ok_or_else(|| Malformed::new("matcher"))?;
    Matcher::new(*op, matcher.name, matcher.value).map_err(Malformed::new)
}

fn consistency(local: bool) -> Consistency {
    if local {
        Consistency::Local
    } else {
        Consistency::Strong
    }
}

pub fn selection_to_wire(selection: &Selection) -> wire::SelectRequest {
    wire::SelectRequest {
        matchers: selection.matchers.iter().map(matcher_to_wire).collect(),
        start_ms: selection.start.0,
        end_ms: selection.end.0,
        last_only: selection.take == Take::Last,
        local: selection.consistency == Consistency::Local,
        ..Default::default()
    }
}

pub fn selection_from_wire(request: wire::SelectRequest) -> Result<Selection, Malformed> {
    Ok(Selection {
        matchers: request
            .matchers
            .into_iter()
            .map(matcher_from_wire)
            .collect::<Result<_, _>>()?,
        start: Timestamp(request.start_ms),
        end: Timestamp(request.end_ms),
        take: if request.last_only {
            Take::Last
        } else {
            Take::All
        },
        consistency: consistency(request.local),
    })
}

pub fn series_to_wire(series: &Series) -> wire::Series {
    wire::Series {
        labels: labels_to_wire(&series.labels),
        timestamps: series.samples.timestamps.iter().map(|t| t.0).collect(),
        values: series.samples.values.clone(),
        histogram_places: series.samples.histograms.iter().map(|h| h.0).collect(),
        histograms: series
            .samples
            .histograms
            .iter()
            .map(histogram_to_wire)
            .collect(),
    }
}

/// What one sample takes in a message, in floats.
fn weight(samples: &Samples, index: usize) -> usize {
    let histogram = samples.histogram(index);
    histogram.map_or(1, |histogram| 1 + histogram.size() / 16)
}

/// A series cut into pieces of about `weight_max` floats, none empty.
pub fn pieces(series: &Series, weight_max: usize) -> Vec<Series> {
    let samples = &series.samples;
    let mut pieces: Vec<Series> = Vec::new();
    let mut left = 0;
    for index in 0..samples.len() {
        if left == 0 {
            left = weight_max;
            pieces.push(Series {
                labels: series.labels.clone(),
                samples: Samples::default(),
            });
        }
        left = left.saturating_sub(weight(samples, index));
        let piece = pieces.last_mut().expect("just made sure");
        piece.samples.push_from(samples, index);
    }
    pieces
}

/// Puts a message's series behind those of the messages before; it may go on the last of them.
pub fn join_series(answer: &mut Vec<Series>, next: Series) -> Result<(), Malformed> {
    let Some(last) = answer.last_mut().filter(|last| last.labels == next.labels) else {
        answer.push(next);
        return Ok(());
    };
    let (samples, more) = (&mut last.samples, next.samples);
    if samples.timestamps.last() >= more.timestamps.first() {
        return Err(Malformed::new("a series goes back in time"));
    }
    let offset = u32::try_from(samples.len()).map_err(Malformed::new)?;
    let moved = more.histograms.into_iter().map(|(at, h)| (at + offset, h));
    samples.histograms.extend(moved);
    samples.timestamps.extend(more.timestamps);
    samples.values.extend(more.values);
    Ok(())
}

pub fn exemplars_to_wire(series: &ExemplarSeries) -> wire::ExemplarSeries {
    let exemplars = series.exemplars.iter();
    wire::ExemplarSeries {
        labels: labels_to_wire(&series.labels),
        exemplars: exemplars.map(|e| exemplar_to_wire(0, e)).collect(),
    }
}

pub fn exemplars_from_wire(series: wire::ExemplarSeries) -> Result<ExemplarSeries, Malformed> {
    let exemplars = series.exemplars.into_iter().map(exemplar_from_wire);
    Ok(ExemplarSeries {
        labels: labels_from_wire(&series.labels)?,
        exemplars: exemplars.collect::<Result<_, _>>()?,
    })
}

pub fn series_from_wire(series: wire::Series) -> Result<Series, Malformed> {
    let rising = series.timestamps.windows(2).all(|pair| pair[0] < pair[1]);
    if !rising || series.timestamps.len() != series.values.len() {
        return Err(Malformed::new("columns of a series"));
    }
    let histograms = histograms_from_wire(series.histogram_places, series.histograms)?;
    let ascending = histograms.is_sorted_by(|a, b| a.0 < b.0);
    let last = histograms.last().map(|(place, _)| *place as usize);
    if !ascending || last.is_some_and(|last| last >= series.values.len()) {
        return Err(Malformed::new("histograms of a series"));
    }
    Ok(Series {
        labels: labels_from_wire(&series.labels)?,
        samples: Samples {
            timestamps: series.timestamps.into_iter().map(Timestamp).collect(),
            values: series.values,
            histograms,
        },
    })
}

fn set_to_wire(matchers: &[Matcher]) -> wire::MatcherSet {
    wire::MatcherSet {
        matchers: matchers.iter().map(matcher_to_wire).collect(),
    }
}

fn set_from_wire(set: wire::MatcherSet) -> Result<Vec<Matcher>, Malformed> {
    set.matchers.into_iter().map(matcher_from_wire).collect()
}

pub fn sets_to_wire(any_of: &[Vec<Matcher>]) -> Vec<wire::MatcherSet> {
    any_of.iter().map(|set| set_to_wire(set)).collect()
}

pub fn sets_from_wire(sets: Vec<wire::MatcherSet>) -> Result<Vec<Vec<Matcher>>, Malformed> {
    sets.into_iter().map(set_from_wire).collect()
}

pub fn metadata_to_wire(selection: &MetadataSelection) -> wire::MetadataRequest {
    wire::MetadataRequest {
        any_of: sets_to_wire(&selection.any_of),
        start_ms: selection.start.0,
        end_ms: selection.end.0,
        local: selection.consistency == Consistency::Local,
        ..Default::default()
    }
}

pub fn metadata_from_wire(request: wire::MetadataRequest) -> Result<MetadataSelection, Malformed> {
    Ok(MetadataSelection {
        any_of: sets_from_wire(request.any_of)?,
        start: Timestamp(request.start_ms),
        end: Timestamp(request.end_ms),
        consistency: consistency(request.local),
    })
}

pub fn label_sets_to_wire(sets: &[Labels]) -> Vec<Bytes> {
    sets.iter().map(labels_to_wire).collect()
}

pub fn label_sets_from_wire(sets: Vec<Bytes>) -> Result<Vec<Labels>, Malformed> {
    sets.iter().map(|block| labels_from_wire(block)).collect()
}

// ---- administration ----

pub fn delete_to_wire(delete: &DeleteCommand) -> wire::DeleteRequest {
    wire::DeleteRequest {
        any_of: delete.any_of.iter().map(|set| set_to_wire(set)).collect(),
        start_ms: delete.start.0,
        end_ms: delete.end.0,
        ..Default::default()
    }
}

pub fn delete_from_wire(request: wire::DeleteRequest) -> Result<DeleteCommand, Malformed> {
    let any_of = request.any_of.into_iter().map(set_from_wire);
    Ok(DeleteCommand {
        any_of: any_of.collect::<Result<_, _>>()?,
        start: Timestamp(request.start_ms),
        end: Timestamp(request.end_ms),
    })
}

/// Label values in one piece of an answer.
const VALUES_PER_PIECE: usize = 64 << 10;

/// In pieces, at least one.
pub fn cardinality_to_wire(counted: &Cardinality) -> Vec<wire::CardinalityReply> {
    let mut pieces = vec![wire::CardinalityReply {
        series: counted.series,
        chunks: counted.chunks,
        first_ms: counted.range.map(|range| range.0.0),
        last_ms: counted.range.map(|range| range.1.0),
        ..Default::default()
    }];
    for (name, values) in &counted.labels {
        let values: Vec<(&String, &u64)> = values.iter().collect();
        for run in values.chunks(VALUES_PER_PIECE) {
            let label = wire::LabelCardinality {
                name: name.clone(),
                values: run.iter().map(|(value, _)| (*value).clone()).collect(),
                series: run.iter().map(|(_, series)| **series).collect(),
            };
            pieces.push(wire::CardinalityReply {
                labels: vec![label],
                ..Default::default()
            });
        }
    }
    pieces
}

pub fn cardinality_from_wire(piece: wire::CardinalityReply) -> Result<Cardinality, Malformed> {
    let range = piece.first_ms.zip(piece.last_ms);
    let mut counted = Cardinality {
        series: piece.series,
        chunks: piece.chunks,
        range: range.map(|(first, last)| (Timestamp(first), Timestamp(last))),
        ..Cardinality::default()
    };
    for label in piece.labels {
        if label.values.len() != label.series.len() {
            return Err(Malformed::new("columns of different length"));
        }
        let values = label.values.into_iter().zip(label.series).collect();
        counted.labels.insert(label.name, values);
    }
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_series_survives_the_wire_in_pieces() {
        let mut samples = Samples::default();
        samples.push(Timestamp(1), 1.0);
        samples.push_histogram(Timestamp(2), Arc::default());
        samples.push(Timestamp(3), 3.0);
        samples.push_histogram(Timestamp(4), Arc::default());
        let whole = Series {
            labels: Labels::from_pairs([("a", "b")]),
            samples,
        };
        let mut again = Vec::new();
        for piece in pieces(&whole, 2) {
            let piece = series_from_wire(series_to_wire(&piece)).unwrap();
            join_series(&mut again, piece).unwrap();
        }
        assert_eq!(again, std::slice::from_ref(&whole));
        assert!(join_series(&mut again, whole.clone()).is_err());
        let mut bad = series_to_wire(&whole);
        bad.histogram_places = vec![3, 1];
        assert!(series_from_wire(bad.clone()).is_err());
        bad.histogram_places = vec![1, 4];
        assert!(series_from_wire(bad).is_err());
    }

    #[test]
    fn groups_and_ops_survive_the_wire() {
        let families = vec![Family {
            name: "h".into(),
            help: Some("what".into()),
            kind: FamilyKind::Histogram,
            samples: vec![FamilySample {
                suffix: "_bucket",
                labels: Labels::from_pairs([("le", "+Inf")]),
                value: 2.0,
                rare: None,
            }],
        }];
        let key = [
            ("job".to_owned(), "a".to_owned()),
            ("zone".to_owned(), String::new()),
        ];
        let group = Group {
            key: GroupingKey::new(key).unwrap(),
            families: families.clone(),
            push_time: Timestamp(4),
            push_failure_time: Timestamp(0),
            expires: Some(Timestamp(9)),
        };
        let key = group.key.clone();
        assert_eq!(group_from_wire(group_to_wire(&group)), Ok(group));
        for op in [
            PushOp::Put(families.clone()),
            PushOp::Add {
                families: families.clone(),
                id: PushId::new(b"one").unwrap(),
            },
            PushOp::Post(families),
            PushOp::Delete,
            PushOp::Reject,
        ] {
            for ttl_ms in [None, Some(7)] {
                let options = PushOptions {
                    ttl_ms,
                    unchecked: ttl_ms.is_some(),
                    brief: ttl_ms.is_none(),
                    partial: ttl_ms.is_some(),
                };
                let sent = push_to_wire(&key, &op, options);
                assert_eq!(push_from_wire(sent), Ok((key.clone(), op.clone(), options)));
            }
        }
        assert!(group_from_wire(wire::Group::default()).is_err());
    }

    #[test]
    fn rejections_and_refusals_survive_the_wire() {
        let rejected = REASONS
            .iter()
            .zip(0..)
            .map(|(&reason, row)| Rejection { row, reason });
        let written = Written {
            rejected: rejected.collect(),
        };
        assert_eq!(written_from_wire(written_to_wire(&written)), Ok(written));
        for refusal in [
            Refusal::NotLeader(Some(3)),
            Refusal::NotLeader(None),
            Refusal::Overloaded("a".into()),
            Refusal::Unavailable("b".into()),
            Refusal::TooLarge("c".into()),
            Refusal::Internal("d".into()),
        ] {
            assert_eq!(refusal_from_wire(refusal_to_wire(refusal.clone())), refusal);
        }
    }

    #[test]
    fn deletions_and_counts_survive_the_wire() {
        let delete = DeleteCommand {
            any_of: vec![vec![Matcher::equal("a", "b")], vec![]],
            start: Timestamp(-3),
            end: Timestamp(9),
        };
        assert_eq!(delete_from_wire(delete_to_wire(&delete)), Ok(delete));
        let values = (0..VALUES_PER_PIECE + 1).map(|n| (format!("{n:08}"), n as u64 + 1));
        let mut counted = Cardinality {
            series: 3,
            chunks: 4,
            range: Some((Timestamp(1), Timestamp(2))),
            ..Cardinality::default()
        };
        counted.labels.insert("many".to_owned(), values.collect());
        let pieces = cardinality_to_wire(&counted);
        assert_eq!(pieces.len(), 3);
        let mut again = Cardinality::default();
        for piece in pieces {
            let piece = cardinality_from_wire(piece).unwrap();
            again.series += piece.series;
            again.chunks += piece.chunks;
            again.range = again.range.or(piece.range);
            for (name, values) in piece.labels {
                again.labels.entry(name).or_default().extend(values);
            }
        }
        assert_eq!(again, counted);
    }

    #[test]
    fn selections_survive_the_wire() {
        let matchers = vec![Matcher::new(MatchOp::NotRegex, "job", "a|b").unwrap()];
        let selection = Selection {
            matchers: matchers.clone(),
            start: Timestamp(-1),
            end: Timestamp::MAX,
            take: Take::Last,
            consistency: Consistency::Local,
        };
        assert_eq!(
            selection_from_wire(selection_to_wire(&selection)),
            Ok(selection)
        );
        let metadata = MetadataSelection {
            any_of: vec![matchers, vec![]],
            start: Timestamp::MIN,
            end: Timestamp(3),
            consistency: Consistency::Strong,
        };
        assert_eq!(
            metadata_from_wire(metadata_to_wire(&metadata)),
            Ok(metadata)
        );
    }
}
