//! Selected samples to columns and ranges.

use model::sample::is_stale;
use model::{Samples, Series};

use super::{ABSENT, Column, Columns, Evaluation, Parts, RangeSeries, Ranges, is_present};
use crate::error::QueryError;
use crate::plan::{Grid, Look, Op, Step};

/// What the selections and the parts of a plan brought.
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
            | Op::Range { selection, .. } = &step.op
            {
                self.sets[*selection].uses += 1;
            }
        }
    }

    /// Samples that are held.
    pub fn size(&self) -> usize {
        let series = self.sets.iter().flat_map(|set| &set.series);
        let parts = self.parts.iter().flatten().map(Parts::size);
        series.map(|s| s.samples.len()).chain(parts).sum()
    }

    /// Series that were selected.
    pub fn series(&self) -> usize {
        self.sets.iter().map(|set| set.series.len()).sum()
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
        self.newest(selection, look, grid, |samples, at| samples.values[at])
            .await
    }

    /// The time of that sample, in seconds; names go.
    pub(super) async fn select_time(
        &mut self,
        selection: usize,
        look: Look,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        let seconds = |samples: &Samples, at: usize| samples.timestamps[at].seconds();
        let mut columns = self
            .newest(selection, look, grid, seconds)
            .await?
            .into_vector();
        for column in &mut columns {
            self.drop_name(column);
        }
        Ok(Columns::Vector(super::merge(columns)?))
    }

    async fn newest(
        &mut self,
        selection: usize,
        look: Look,
        grid: Grid,
        shown: impl Fn(&Samples, usize) -> f64,
    ) -> Result<Columns, QueryError> {
        let lookback_ms = self.data.lookback_ms;
        let series = self.data.take(selection);
        let mut columns = Vec::with_capacity(series.len());
        for Series { labels, samples } in series {
            self.pace.expect(columns.len() + 1, grid.steps)?;
            self.pace.spend(grid.steps + samples.len()).await?;
            let mut values = vec![ABSENT; grid.steps];
            let mut next = 0;
            for (step, value) in values.iter_mut().enumerate() {
                let end = look.from(grid.at(step));
                while samples.timestamps.get(next).is_some_and(|t| t.0 <= end) {
                    next += 1;
                }
                let Some(at) = next.checked_sub(1) else {
                    continue;
                };
                let is_recent = samples.timestamps[at].0 > end.saturating_sub(lookback_ms);
                if is_recent && !is_stale(samples.values[at]) {
                    *value = shown(&samples, at);
                }
            }
            if values.iter().copied().any(is_present) {
                columns.push(Column {
                    labels,
                    drop_name: false,
                    values,
                });
            }
        }
        Ok(Columns::Vector(columns))
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
            let mut samples = Samples::default();
            for (step, &value) in column.values.iter().enumerate() {
                if is_present(value) {
                    samples.push(model::Timestamp(inner.at(step)), value);
                }
            }
            series.push(RangeSeries {
                labels: column.labels,
                drop_name: column.drop_name,
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

fn without_markers(samples: Samples) -> Samples {
    if !samples.values.iter().copied().any(is_stale) {
        return samples;
    }
    let mut kept = Samples::default();
    for sample in samples.iter().filter(|s| !is_stale(s.value)) {
        kept.push(sample.timestamp, sample.value);
    }
    kept
}
