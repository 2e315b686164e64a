//! Selected samples to columns and ranges.

use std::sync::Arc;

use model::histogram::ResetHint;
use model::sample::is_stale;
use model::{Histogram, Labels, Samples, Series, Timestamp};

use super::column::{extra, put_samples, samples_bytes};
use super::edge::Edge;
use super::pace::turns;
use super::{
    ABSENT, Column, Columns, Evaluation, Pace, Parts, Point, RangeSeries, Ranges, is_present,
};
use crate::error::QueryError;
use crate::plan::{Grid, Look, Op, Step};

/// What the selections and the parts of a plan brought.
#[derive(Default)]
pub(crate) struct Data {
    sets: Vec<Set>,
    /// What the shards computed, and how many steps still want it.
    parts: Vec<(Option<Parts>, usize)>,
    lookback_ms: i64,
    /// About how many bytes all samples and values take.
    bytes: usize,
}

struct Set {
    series: Vec<Series>,
    bytes: usize,
    /// How many steps still want it.
    uses: usize,
}

impl Data {
    /// `sets` in the order of the plan's selections.
    pub fn new(sets: Vec<Vec<Series>>, parts: Vec<Parts>, lookback_ms: i64) -> Self {
        let sets = sets.into_iter().map(|series| Set {
            bytes: series.iter().map(|s| samples_bytes(&s.samples)).sum(),
            series,
            uses: 0,
        });
        let sets: Vec<Set> = sets.collect();
        let of_sets: usize = sets.iter().map(|set| set.bytes).sum();
        let of_parts: usize = parts.iter().map(|parts| parts.bytes).sum();
        Self {
            sets,
            parts: parts.into_iter().map(|parts| (Some(parts), 0)).collect(),
            lookback_ms,
            bytes: of_sets + of_parts,
        }
    }

    pub(super) fn count_uses(&mut self, steps: &[Step<'_>]) {
        for step in steps {
            match &step.op {
                Op::Select { selection, .. }
                | Op::SelectTime { selection, .. }
                | Op::SelectInfo { selection, .. }
                | Op::Range { selection, .. } => self.sets[*selection].uses += 1,
                Op::Part { part, .. } | Op::Combine { part, .. } => self.parts[*part].1 += 1,
                _ => {}
            }
        }
    }

    /// About how many bytes its samples and values take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the shards computed: a copy for all steps but the last one that wants it.
    pub(super) async fn take_parts(
        &mut self,
        part: usize,
        pace: &mut Pace<'_>,
    ) -> Result<Parts, QueryError> {
        let (parts, uses) = &mut self.parts[part];
        *uses -= 1;
        if let (Some(parts), 1..) = (&mut *parts, &*uses) {
            return parts.copy(pace).await;
        }
        let parts = parts.take().expect("it goes with the last step");
        self.bytes -= parts.bytes;
        Ok(parts)
    }

    /// The series of a selection that has one user.
    pub(super) fn take_all(&mut self, selection: usize) -> Vec<Series> {
        std::mem::take(&mut self.sets[selection].series)
    }

    pub(super) fn lookback_ms(&self) -> i64 {
        self.lookback_ms
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
        Ok(Columns::Vector(
            super::merge(columns, &mut self.pace).await?,
        ))
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
        let newest = Newest {
            look,
            grid,
            lookback_ms: self.data.lookback_ms,
            shown,
        };
        let series = &self.data.sets[selection].series;
        newest.foresee(series, &mut self.pace).await?;
        let mut columns = Vec::with_capacity(series.len());
        // Samples are let go one series after the other, unless somebody wants them still.
        match self.take(selection) {
            Some(series) => {
                for Series { labels, samples } in series {
                    self.pace.expect(columns.len() + 1, grid.steps)?;
                    let column = newest.column(&labels, &samples, &mut self.pace);
                    columns.extend(column.await?);
                }
            }
            None => {
                for Series { labels, samples } in &self.data.sets[selection].series {
                    self.pace.expect(columns.len() + 1, grid.steps)?;
                    let column = newest.column(labels, samples, &mut self.pace);
                    columns.extend(column.await?);
                }
            }
        }
        Ok(columns)
    }

    /// Refuses what [`Newest::foresee`] would, of series that `steps` will compute a few at a time.
    pub(crate) async fn foresee_piece(
        &mut self,
        series: &[Series],
        steps: &[Step<'_>],
        lookback_ms: i64,
    ) -> Result<(), QueryError> {
        for step in steps {
            if let Op::Select { look, .. } | Op::SelectTime { look, .. } = step.op {
                let newest = Newest {
                    look,
                    grid: step.grid,
                    lookback_ms,
                    shown: Shown::Value,
                };
                newest.foresee(series, &mut self.pace).await?;
            }
        }
        Ok(())
    }

    /// All samples but staleness markers.
    pub(super) async fn range(
        &mut self,
        selection: usize,
        look: Look,
        range_ms: i64,
    ) -> Result<Columns, QueryError> {
        let selected = match self.take(selection) {
            Some(series) => series,
            None => {
                let all = &self.data.sets[selection].series;
                let mut copy = Vec::with_capacity(all.len());
                for series in all {
                    self.pace.spend(series.samples.len()).await?;
                    copy.push(series.clone());
                }
                copy
            }
        };
        let mut series = Vec::with_capacity(selected.len());
        for Series { labels, samples } in selected {
            self.pace.spend(samples.len()).await?;
            series.push(RangeSeries {
                labels,
                drop_name: false,
                samples: without_markers(samples),
            });
        }
        Ok(Columns::Ranges(Ranges {
            series,
            look,
            range_ms,
        }))
    }

    /// The series of a selection for its last user.
    fn take(&mut self, selection: usize) -> Option<Vec<Series>> {
        let set = &mut self.data.sets[selection];
        set.uses -= 1;
        (set.uses == 0).then(|| {
            self.data.bytes -= set.bytes;
            std::mem::take(&mut set.series)
        })
    }

    /// The values of a column as samples; those before hold so many bytes more than their columns. Floats
    /// stay where they are.
    async fn samples(
        &mut self,
        column: Column,
        inner: Grid,
        grid: Grid,
        before: usize,
    ) -> Result<Samples, QueryError> {
        let mut samples = Samples::default();
        if !column.histograms.is_empty() {
            for steps in turns(inner.steps) {
                self.pace.spend(steps.len()).await?;
                let (first, values) = (steps.start, &column.values[steps]);
                put_samples(values, &column.histograms, first, inner, &mut samples);
            }
            return Ok(samples);
        }
        let (mut values, mut kept, mut present) = (column.values, 0, 0);
        for steps in turns(values.len()) {
            self.pace.spend(steps.len()).await?;
            present += values[steps].iter().filter(|v| is_present(**v)).count();
        }
        if grid.steps == 1 && !self.is_last {
            // All of them are in the window that a function will look at.
            self.pace.glimpse(present as u64)?;
        }
        let times_bytes = present * size_of::<Timestamp>();
        self.pace.expect_bytes(before + times_bytes)?;
        samples.timestamps.reserve_exact(present);
        for steps in turns(values.len()) {
            self.pace.spend(steps.len()).await?;
            for step in steps {
                let value = values[step];
                if is_present(value) {
                    values[kept] = value;
                    kept += 1;
                    samples.timestamps.push(Timestamp(inner.at(step)));
                }
            }
        }
        values.truncate(kept);
        if kept < values.capacity() / 2 {
            values.shrink_to_fit();
        }
        samples.values = values;
        Ok(samples)
    }

    /// Turns values at the instants of `inner` into samples.
    pub(super) async fn subquery(
        &mut self,
        columns: Vec<Column>,
        inner: Grid,
        look: Look,
        range_ms: i64,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        let (mut series, mut more) = (Vec::with_capacity(columns.len()), 0);
        for column in columns {
            let (labels, drop_name) = (column.labels.clone(), column.drop_name);
            let mut samples = self.samples(column, inner, grid, more).await?;
            more += samples.len() * size_of::<Timestamp>();
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

/// How columns are made of the newest samples.
#[derive(Debug, Clone, Copy)]
struct Newest {
    look: Look,
    grid: Grid,
    lookback_ms: i64,
    shown: Shown,
}

impl Newest {
    /// Refuses what all columns together would be, before one is made: at how many instants a series has
    /// a value is told by the times of its samples alone.
    async fn foresee(&self, series: &[Series], pace: &mut Pace<'_>) -> Result<(), QueryError> {
        let most = series.len().saturating_mul(self.grid.steps) as u64;
        let fits = |pace: &Pace<'_>, more| pace.current.saturating_add(more) <= pace.samples_max();
        if fits(pace, most) {
            return Ok(());
        }
        let mut found = 0_u64;
        for Series { samples, .. } in series {
            pace.spend(samples.len()).await?;
            found += instants(samples, self.look, self.grid, self.lookback_ms);
            if !fits(pace, found) {
                return Err(QueryError::TooManySamples);
            }
        }
        Ok(())
    }

    /// One series' column, if it has a value.
    async fn column(
        &self,
        labels: &Labels,
        samples: &Samples,
        pace: &mut Pace<'_>,
    ) -> Result<Option<Column>, QueryError> {
        let grid = self.grid;
        pace.spend(samples.len()).await?;
        let mut column = Column::new(labels.clone(), false, Vec::with_capacity(grid.steps));
        let mut next = Edge::default();
        let mut found = 0;
        for steps in turns(grid.steps) {
            pace.spend(steps.len()).await?;
            column.values.resize(steps.end, ABSENT);
            for step in steps {
                let end = self.look.from(grid.at(step));
                let Some(at) = next.move_to(&samples.timestamps, end).checked_sub(1) else {
                    continue;
                };
                let is_recent = samples.timestamps[at].0 > end.saturating_sub(self.lookback_ms);
                if !is_recent || is_stale(samples.values[at]) {
                    continue;
                }
                found += 1;
                match self.shown {
                    Shown::Value if samples.histograms.is_empty() => {
                        column.values[step] = samples.values[at];
                    }
                    Shown::Value => column.set(step, point(samples, at)),
                    Shown::Seconds => column.values[step] = samples.timestamps[at].seconds(),
                    Shown::Millis => match samples.histogram(at) {
                        Some(histogram) => {
                            column.set(step, Point::Histogram(histogram.clone()));
                        }
                        None => column.values[step] = samples.timestamps[at].0 as f64,
                    },
                }
            }
        }
        if found == 0 {
            return Ok(None);
        }
        pace.current += found + extra(&column.histograms);
        pace.notice()?;
        Ok(Some(column))
    }
}

/// At how many instants of `grid` the newest sample is found: it is not too old and no staleness marker.
fn instants(samples: &Samples, look: Look, grid: Grid, lookback_ms: i64) -> u64 {
    let steps = grid.steps as i64;
    // How many instants look at what is before `end`.
    let before = |end: i64| match look.at {
        Some(_) => i64::from(look.from(grid.start) < end) * steps,
        None => {
            let behind = end.saturating_sub(look.from(grid.start));
            let whole = behind.div_euclid(grid.step);
            let more = i64::from(behind.rem_euclid(grid.step) > 0);
            whole.saturating_add(more).clamp(0, steps)
        }
    };
    let times = &samples.timestamps;
    let later = times.iter().skip(1).map(|time| time.0);
    let ends = later.chain([i64::MAX]);
    let seen = times.iter().zip(&samples.values).zip(ends);
    let found = seen.filter(|((_, value), _)| !is_stale(**value));
    let count = found.map(|((time, _), next)| {
        let end = next.min(time.0.saturating_add(lookback_ms));
        (before(end) - before(time.0)).max(0) as u64
    });
    count.sum()
}

/// Values that are computed of a piece at a time, unless one series has more.
const VALUES_PER_PIECE: usize = 1 << 20;

/// Series so few at a time that their values at so many instants are not too many; at least one time,
/// also of none.
pub(crate) fn split(
    series: Vec<Series>,
    instants: usize,
) -> impl Iterator<Item = Vec<Series>> + Send {
    let each = (VALUES_PER_PIECE / instants.max(1)).max(1);
    let times = series.len().div_ceil(each).max(1);
    let mut series = series.into_iter();
    (0..times).map(move |_| series.by_ref().take(each).collect())
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Instant by instant.
    fn slowly(samples: &Samples, look: Look, grid: Grid, lookback_ms: i64) -> u64 {
        let seen = |step: &usize| {
            let end = look.from(grid.at(*step));
            let newest = samples
                .iter()
                .filter(|sample| sample.timestamp.0 <= end)
                .last();
            newest.is_some_and(|s| s.timestamp.0 > end - lookback_ms && !is_stale(s.value))
        };
        (0..grid.steps).filter(seen).count() as u64
    }

    proptest! {
        #[test]
        fn instants_are_counted_without_looking_at_each(
            gaps in prop::collection::vec((1i64..60, prop::bool::weighted(0.1)), 0..30),
            start in -100i64..400,
            step in 1i64..90,
            steps in 0usize..60,
            offset_ms in -50i64..50,
            at in prop::option::weighted(0.2, 0i64..300),
            lookback_ms in 1i64..120,
        ) {
            let (mut samples, mut now) = (Samples::default(), 0);
            for (gap, is_gone) in gaps {
                now += gap;
                samples.push(Timestamp(now), if is_gone { ABSENT } else { 1.0 });
            }
            let end = start + step * steps as i64;
            let grid = Grid { start, step, steps, end };
            let look = Look { offset_ms, at };
            prop_assert_eq!(
                instants(&samples, look, grid, lookback_ms),
                slowly(&samples, look, grid, lookback_ms)
            );
        }
    }
}
