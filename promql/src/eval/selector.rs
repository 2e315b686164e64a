//! Selected samples to columns and ranges.

use std::sync::Arc;

use model::histogram::ResetHint;
use model::sample::is_stale;
use model::{Histogram, Samples, Series};

use super::column::{extra, samples_bytes};
use super::edge::Edge;
use super::{ABSENT, Column, Columns, Evaluation, Parts, Point, RangeSeries, Ranges};
use crate::error::QueryError;
use crate::plan::{Grid, Look, Op, Step};

/// What the selections and the parts of a plan brought.
#[derive(Default)]
pub(crate) struct Data {
    sets: Vec<Set>,
    /// What the shards computed; each is used once.
    parts: Vec<Option<Parts>>,
    lookback_ms: i64,
}

struct Set {
    series: Vec<Series>,
    /// How many steps still want it.
    uses: usize,
}

impl Data {
    /// `sets` in the order of the plan's selections.
    pub fn new(sets: Vec<Vec<Series>>, parts: Vec<Parts>, lookback_ms: i64) -> Self {
        let sets = sets.into_iter().map(|series| Set { series, uses: 0 });
        Self {
            sets: sets.collect(),
            parts: parts.into_iter().map(Some).collect(),
            lookback_ms,
        }
    }

    pub(super) fn count_uses(&mut self, steps: &[Step<'_>]) {
        for step in steps {
            if let Op::Select { selection, .. }
            | Op::SelectTime { selection, .. }
            | Op::SelectInfo { selection, .. }
            | Op::Range { selection, .. } = &step.op
            {
                self.sets[*selection].uses += 1;
            }
        }
    }

    /// About how many bytes its samples take.
    pub(super) fn bytes(&self) -> usize {
        let series = self.sets.iter().flat_map(|set| &set.series);
        let parts = self.parts.iter().flatten().map(Parts::bytes);
        series.map(|s| samples_bytes(&s.samples)).chain(parts).sum()
    }

    pub(super) fn take_parts(&mut self, part: usize) -> Parts {
        let parts = self.parts[part].take();
        parts.expect("every part of a plan has one step")
    }

    /// The series of a selection: the original for its last user, a copy before.
    fn take(&mut self, selection: usize) -> Vec<Series> {
        let set = &mut self.sets[selection];
        set.uses -= 1;
        match set.uses {
            0 => std::mem::take(&mut set.series),
            _ => set.series.clone(),
        }
    }
}

impl Evaluation<'_> {
    /// The newest sample of each series at each instant, if it is not too old and no staleness
    /// marker.
    pub(super) async fn select(
        &mut self,
        selection: usize,
        look: Look,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        let columns = self.newest(selection, look, grid, Shown::Value).await?;
        Ok(Columns::Vector(columns))
    }

    /// The time of that sample, in seconds; names go.
    pub(super) async fn select_time(
        &mut self,
        selection: usize,
        look: Look,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        let mut columns = self.newest(selection, look, grid, Shown::Seconds).await?;
        for column in &mut columns {
            self.drop_name(column);
        }
        Ok(Columns::Vector(super::merge(columns)?))
    }

    /// The time of that sample, in milliseconds; histograms stay, since they are no info samples.
    pub(super) async fn select_info(
        &mut self,
        selection: usize,
        look: Look,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        let columns = self.newest(selection, look, grid, Shown::Millis).await?;
        Ok(Columns::Vector(columns))
    }

    async fn newest(
        &mut self,
        selection: usize,
        look: Look,
        grid: Grid,
        shown: Shown,
    ) -> Result<Vec<Column>, QueryError> {
        let lookback_ms = self.data.lookback_ms;
        let series = self.data.take(selection);
        let mut columns = Vec::with_capacity(series.len());
        for Series { labels, samples } in series {
            self.pace.expect(columns.len() + 1, grid.steps)?;
            self.pace.spend(grid.steps + samples.len()).await?;
            let mut column = Column::new(labels, false, vec![ABSENT; grid.steps]);
            let mut next = Edge::default();
            let mut found = 0;
            for step in 0..grid.steps {
                let end = look.from(grid.at(step));
                let Some(at) = next.move_to(&samples.timestamps, end).checked_sub(1) else {
                    continue;
                };
                let is_recent = samples.timestamps[at].0 > end.saturating_sub(lookback_ms);
                if !is_recent || is_stale(samples.values[at]) {
                    continue;
                }
                found += 1;
                match shown {
                    Shown::Value if samples.histograms.is_empty() => {
                        column.values[step] = samples.values[at];
                    }
                    Shown::Value => column.set(step, point(&samples, at)),
                    Shown::Seconds => column.values[step] = samples.timestamps[at].seconds(),
                    Shown::Millis => match samples.histogram(at) {
                        Some(histogram) => column.set(step, Point::Histogram(histogram.clone())),
                        None => column.values[step] = samples.timestamps[at].0 as f64,
                    },
                }
            }
            if found > 0 {
                self.pace.current += found + extra(&column.histograms);
                self.pace.notice()?;
                columns.push(column);
            }
        }
        Ok(columns)
    }

    /// All samples but staleness markers.
    pub(super) fn range(&mut self, selection: usize, look: Look, range_ms: i64) -> Columns {
        let series = self
            .data
            .take(selection)
            .into_iter()
            .map(|series| RangeSeries {
                labels: series.labels,
                drop_name: false,
                samples: without_markers(series.samples),
            });
        Columns::Ranges(Ranges {
            series: series.collect(),
            look,
            range_ms,
        })
    }

    /// Turns values at the instants of `inner` into samples.
    pub(super) async fn subquery(
        &mut self,
        columns: Vec<Column>,
        inner: Grid,
        look: Look,
        range_ms: i64,
    ) -> Result<Columns, QueryError> {
        let mut series = Vec::with_capacity(columns.len());
        for column in columns {
            self.pace.spend(column.values.len()).await?;
            let drop_name = column.drop_name;
            let Series {
                labels,
                mut samples,
            } = column.into_series(inner);
            forget_resets(&mut samples);
            series.push(RangeSeries {
                labels,
                drop_name,
                samples,
            });
        }
        Ok(Columns::Ranges(Ranges {
            series,
            look,
            range_ms,
        }))
    }
}

/// Values that are looked at together.
const RUN: usize = 64;

/// What of the newest sample is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Value,
    Seconds,
    Millis,
}

fn point(samples: &Samples, at: usize) -> Point {
    match samples.histogram(at) {
        Some(histogram) => Point::Histogram(histogram.clone()),
        None => Point::Float(samples.values[at]),
    }
}

/// Makes reset hints unknown: they were about the sample before, which the subquery may have left
/// out, or have seen as often as this one.
fn forget_resets(samples: &mut Samples) {
    let mut before: Option<(Arc<Histogram>, Arc<Histogram>)> = None;
    for (_, histogram) in &mut samples.histograms {
        if matches!(histogram.reset_hint, ResetHint::Unknown | ResetHint::Gauge) {
            continue;
        }
        // The same sample is mostly seen at several instants.
        let unhinted = match &before {
            Some((hinted, unhinted)) if Arc::ptr_eq(hinted, histogram) => unhinted.clone(),
            _ => Arc::new(Histogram {
                reset_hint: ResetHint::Unknown,
                ..(**histogram).clone()
            }),
        };
        let hinted = std::mem::replace(histogram, unhinted.clone());
        before = Some((hinted, unhinted));
    }
}

fn without_markers(samples: Samples) -> Samples {
    // Without a branch for each value: hardly any run has one.
    let any = |run: &[f64]| run.iter().fold(false, |any, &value| any | is_stale(value));
    if !samples.values.chunks(RUN).any(any) {
        return samples;
    }
    let mut kept = Samples::default();
    for at in (0..samples.len()).filter(|&at| !is_stale(samples.values[at])) {
        kept.push_from(&samples, at);
    }
    kept
}
