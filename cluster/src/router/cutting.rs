//! A batch becomes one for each shard.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use model::limits::HISTOGRAM_BYTES_MAX;
use model::memo::Giver;
use model::sink::{Reason, Rejection};
use model::{Batch, Histogram, ShardId};

use crate::meta::State;

/// A shard's part of a batch, and which of the batch's rows its rows are.
pub type Parts = BTreeMap<ShardId, (Arc<Batch>, Vec<u32>)>;

/// Cuts a batch by shard, remembering which row came from where. Rows that no shard could take are left out and
/// told. `shards` is who keeps in mind which shard a label set belongs to.
pub fn cut(
    state: &State,
    shards: Giver,
    batch: &Batch,
    keeps_exemplars: bool,
) -> (Parts, Vec<Rejection>) {
    let mut cutter = Cutter::new(state, shards, batch);
    let rejected = cutter.add_rows();
    if keeps_exemplars {
        cutter.add_exemplars();
    }
    (cutter.finish(), rejected)
}

/// Cuts one batch, its series in the order in which their rows are met.
struct Cutter<'a> {
    batch: &'a Batch,
    state: &'a State,
    shards: Giver,
    parts: Vec<(ShardId, Batch, Vec<u32>)>,
    /// Of each shard, by number: its part.
    by_shard: Vec<Option<usize>>,
    /// Of each series of the batch, once it was met: its part and its place there.
    places: Vec<Option<(u32, u32)>>,
}

impl<'a> Cutter<'a> {
    fn new(state: &'a State, shards: Giver, batch: &'a Batch) -> Self {
        Self {
            batch,
            state,
            shards,
            parts: Vec::new(),
            by_shard: vec![None; state.table.len()],
            places: vec![None; batch.series.len()],
        }
    }

    /// The part that a series belongs to, whose rows are there, and the series' place in it.
    fn part(&mut self, series: u32) -> (&mut Batch, &mut Vec<u32>, u32) {
        let (part, place) = match self.places[series as usize] {
            Some(known) => known,
            None => self.place(series as usize),
        };
        let (_, batch, from) = &mut self.parts[part as usize];
        (batch, from, place)
    }

    fn place(&mut self, series: usize) -> (u32, u32) {
        let labels = &self.batch.series[series];
        let shard = labels.shard_memo(self.shards).unwrap_or_else(|| {
            let shard = self.state.shard_of(labels.as_canonical());
            labels.set_shard_memo(self.shards, shard);
            shard
        });
        let part = match self.by_shard[shard.0 as usize] {
            Some(part) => part,
            None => self.begin(shard),
        };
        let place = self.parts[part].1.add_series(labels.clone());
        self.places[series] = Some((part as u32, place));
        (part as u32, place)
    }

    /// An empty part, with room for what is likely to come.
    fn begin(&mut self, shard: ShardId) -> usize {
        let share = |all: usize| all / self.state.table.len().max(1) * 5 / 4;
        let rows = share(self.batch.rows.len());
        let mut part = Batch {
            fence: self.batch.fence,
            backfill: self.batch.backfill,
            series: Vec::with_capacity(share(self.batch.series.len())),
            ..Batch::default()
        };
        part.rows.reserve(rows);
        self.parts.push((shard, part, Vec::with_capacity(rows)));
        let part = self.parts.len() - 1;
        self.by_shard[shard.0 as usize] = Some(part);
        part
    }

    /// Those that no shard could take.
    fn add_rows(&mut self) -> Vec<Rejection> {
        let rows = &self.batch.rows;
        let mut rejected = Vec::new();
        let mut histograms = rows.histograms.iter().peekable();
        let mut next = 0;
        for of_series in rows.series.chunk_by(|one, other| one == other) {
            let (series, end) = (of_series[0], next + of_series.len());
            while next < end {
                if let Some((_, histogram)) = histograms.next_if(|(row, _)| *row as usize == next) {
                    if !self.add_histogram(series, next, histogram) {
                        rejected.push(Rejection {
                            row: next as u32,
                            reason: Reason::BadHistogram,
                        });
                    }
                    next += 1;
                    continue;
                }
                let histogram = histograms.peek().map_or(end, |(row, _)| *row as usize);
                let floats = next..histogram.clamp(next + 1, end);
                next = floats.end;
                self.add_floats(series, floats);
            }
        }
        rejected
    }

    fn add_floats(&mut self, series: u32, floats: Range<usize>) {
        let batch = self.batch;
        let (part, from, place) = self.part(series);
        // Mostly one, which is added faster so.
        match floats.len() {
            1 => {
                let (at, value) = (floats.start, batch.rows.values[floats.start]);
                part.rows.push(place, batch.rows.timestamps[at], value);
            }
            _ => part.rows.extend_of(place, &batch.rows, floats.clone()),
        }
        from.extend(floats.start as u32..floats.end as u32);
        let deltas = batch.deltas.get(floats);
        part.deltas.extend_from_slice(deltas.unwrap_or_default());
    }

    /// Whether a shard can take it.
    fn add_histogram(&mut self, series: u32, row: usize, histogram: &Arc<Histogram>) -> bool {
        if !is_storable(histogram) {
            return false;
        }
        let batch = self.batch;
        let (part, from, place) = self.part(series);
        let at = batch.rows.timestamps[row];
        part.rows.push_histogram(place, at, histogram.clone());
        part.deltas.extend(batch.deltas.get(row));
        from.push(row as u32);
        true
    }

    fn add_exemplars(&mut self) {
        for (series, exemplar) in &self.batch.exemplars {
            let (part, _, place) = self.part(*series);
            part.exemplars.push((place, exemplar.clone()));
        }
    }

    fn finish(self) -> Parts {
        let parts = self.parts.into_iter();
        parts
            .map(|(shard, part, from)| (shard, (Arc::new(part), from)))
            .collect()
    }
}

fn is_storable(histogram: &Histogram) -> bool {
    // In canonical bytes a number takes nine at most, here eight.
    histogram.validate().is_ok() && histogram.size() <= HISTOGRAM_BYTES_MAX / 2
}

#[cfg(test)]
mod tests {
    use model::batch::DeltaSpan;
    use model::{Exemplar, Labels, Timestamp};
    use proptest::prelude::*;

    use super::*;
    use crate::meta::Assignment;

    fn state(shards: usize) -> State {
        let assignment = Assignment {
            replicas: vec![1],
            founders: Vec::new(),
            settled: true,
        };
        State {
            table: vec![assignment; shards],
            ..State::default()
        }
    }

    fn histogram(bad: bool) -> Arc<Histogram> {
        Arc::new(Histogram {
            schema: if bad { 99 } else { 0 },
            ..Histogram::default()
        })
    }

    #[derive(Debug, Clone)]
    enum Row {
        Floats(u8),
        Histogram { bad: bool },
    }

    fn batch(rows: &[(u8, Row)], with_deltas: bool, exemplars: &[u8]) -> Batch {
        let mut batch = Batch::default();
        for n in 0..9 {
            let labels = [("__name__", "m".to_owned()), ("n", n.to_string())];
            batch.add_series(Labels::from_pairs(labels));
        }
        for (series, row) in rows {
            let series = u32::from(*series);
            let at = |batch: &Batch| Timestamp(batch.rows.len() as i64);
            match row {
                Row::Floats(count) => {
                    for _ in 0..*count {
                        let at = at(&batch);
                        batch.rows.push(series, at, at.0 as f64 / 2.0);
                    }
                }
                Row::Histogram { bad } => {
                    let at = at(&batch);
                    batch.rows.push_histogram(series, at, histogram(*bad));
                }
            }
        }
        if with_deltas {
            let spans = 0..batch.rows.len() as u64;
            batch.deltas = spans
                .map(|n| DeltaSpan {
                    start_ns: n,
                    end_ns: n + 1,
                })
                .collect();
        }
        for series in exemplars {
            let exemplar = Exemplar {
                labels: Labels::default(),
                value: f64::from(*series),
                timestamp: Timestamp(1),
            };
            batch.exemplars.push((u32::from(*series), exemplar));
        }
        batch
    }

    fn row() -> impl Strategy<Value = Row> {
        prop_oneof![
            (1u8..7).prop_map(Row::Floats),
            prop::bool::weighted(0.3).prop_map(|bad| Row::Histogram { bad }),
        ]
    }

    proptest! {
        #[test]
        fn every_row_is_in_its_shard_or_told(
            rows in prop::collection::vec((0u8..9, row()), 0..30),
            with_deltas in any::<bool>(),
            exemplars in prop::collection::vec(0u8..9, 0..4),
            keeps_exemplars in any::<bool>(),
            shards in 1usize..5,
        ) {
            let (state, batch) = (state(shards), batch(&rows, with_deltas, &exemplars));
            let (parts, rejected) = cut(&state, Giver::new(), &batch, keeps_exemplars);
            let mut seen: Vec<u32> = rejected.iter().map(|r| r.row).collect();
            for rejection in &rejected {
                let row = rejection.row as usize;
                prop_assert_eq!(rejection.reason, Reason::BadHistogram);
                prop_assert!(batch.rows.histogram(row).is_some_and(|h| !is_storable(h)));
            }
            let mut exemplars_seen = 0;
            for (shard, (part, from)) in &parts {
                prop_assert_eq!(part.rows.len(), from.len());
                prop_assert_eq!(part.rows.values.len(), from.len());
                prop_assert_eq!(part.deltas.len(), if with_deltas { from.len() } else { 0 });
                prop_assert!(from.is_sorted_by(|a, b| a < b));
                for (place, row) in from.iter().enumerate() {
                    let whole = *row as usize;
                    let labels = &batch.series[batch.rows.series[whole] as usize];
                    prop_assert_eq!(&part.series[part.rows.series[place] as usize], labels);
                    prop_assert_eq!(state.shard_of(labels.as_canonical()), *shard);
                    prop_assert_eq!(part.rows.timestamps[place], batch.rows.timestamps[whole]);
                    prop_assert_eq!(part.rows.values[place], batch.rows.values[whole]);
                    prop_assert_eq!(part.rows.histogram(place), batch.rows.histogram(whole));
                    prop_assert_eq!(part.deltas.get(place), batch.deltas.get(whole));
                }
                for (series, exemplar) in &part.exemplars {
                    let labels = &part.series[*series as usize];
                    prop_assert_eq!(labels, &batch.series[exemplar.value as usize]);
                }
                exemplars_seen += part.exemplars.len();
                seen.extend(from);
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..batch.rows.len() as u32).collect::<Vec<_>>());
            let kept = if keeps_exemplars { batch.exemplars.len() } else { 0 };
            prop_assert_eq!(exemplars_seen, kept);
        }
    }
}
