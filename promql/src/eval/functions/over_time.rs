//! Functions of the samples inside a window.
//!
//! A window of floats is a pair of slices. One that has histograms is looked at by [`over_histograms`],
//! which hands the floats in it on to functions that know no histograms.

use model::Timestamp;

use super::super::column::{extra, histograms_within, index};
use super::super::edge::Edge;
use super::super::kahan::{Mean, Sum};
use super::super::pace::turns;
use super::super::quantile::quantile;
use super::super::{RangeSeries, Ranges};
use super::in_turn::InTurn;
use super::over_histograms::Mixed;
use super::{ABSENT, Args, Column, Columns, Evaluation, long, rate};
use crate::ast::{Call, Expr};
use crate::error::QueryError;
use crate::plan::Grid;
use crate::printer::format_float;

/// What a window function sees: at least one sample, oldest first.
pub(super) struct Window<'a> {
    pub times: &'a [Timestamp],
    pub values: &'a [f64],
    /// Where in `values`, beginning at `falls_from`, one is less than the one before it.
    pub falls: &'a [u32],
    pub falls_from: usize,
    /// The left end, itself outside.
    pub start: i64,
    /// The right end, inside.
    pub end: i64,
    /// The instant of evaluation; `end` without offset and `@`.
    pub now: i64,
    pub range_ms: i64,
    /// The call's scalars at this instant.
    pub scalars: &'a [f64],
}

impl Window<'_> {
    pub fn first_scalar(&self) -> f64 {
        self.scalars.first().copied().unwrap_or(f64::NAN)
    }
}

/// Computes a value from a window; `None` when it needs more samples.
pub(super) type OverWindow = fn(&Window<'_>) -> Option<f64>;

pub(super) fn of_windows(name: &str) -> Option<OverWindow> {
    Some(match name {
        "avg_over_time" => |w| Some(mean(w.values)),
        "sum_over_time" => |w| Some(sum(w.values)),
        "count_over_time" => |w| Some(w.values.len() as f64),
        "first_over_time" => |w| w.values.first().copied(),
        "last_over_time" => |w| w.values.last().copied(),
        "min_over_time" => |w| pick(w, f64::lt).map(|best| best.value),
        "max_over_time" => |w| pick(w, f64::gt).map(|best| best.value),
        "ts_of_min_over_time" => |w| pick(w, f64::le).map(|best| best.time.seconds()),
        "ts_of_max_over_time" => |w| pick(w, f64::ge).map(|best| best.time.seconds()),
        "ts_of_first_over_time" => |w| w.times.first().map(|t| t.seconds()),
        "ts_of_last_over_time" => |w| w.times.last().map(|t| t.seconds()),
        "present_over_time" => |_| Some(1.0),
        "stddev_over_time" => |w| Some(variance(w.values).sqrt()),
        "stdvar_over_time" => |w| Some(variance(w.values)),
        "quantile_over_time" => |w| Some(quantile(w.first_scalar(), &mut w.values.to_vec())),
        "mad_over_time" => |w| Some(deviation_from_median(w.values)),
        "double_exponential_smoothing" => |w| smooth(w),
        "changes" => |w| Some(count_pairs(w.values, has_changed)),
        "resets" => |w| Some(count_pairs(w.values, has_fallen)),
        "rate" => |w| rate::extrapolated(w, rate::Kind::Rate),
        "increase" => |w| rate::extrapolated(w, rate::Kind::Increase),
        "delta" => |w| rate::extrapolated(w, rate::Kind::Delta),
        "irate" => |w| rate::last_two(w, true),
        "idelta" => |w| rate::last_two(w, false),
        "deriv" => rate::slope,
        "predict_linear" => |w| rate::predict(w, w.first_scalar()),
        _ => return None,
    })
}

fn sum(values: &[f64]) -> f64 {
    Sum::of(values).value()
}

fn mean(values: &[f64]) -> f64 {
    Mean::of(values)
}

/// The sample that wins against all before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Best {
    pub time: Timestamp,
    pub value: f64,
}

impl Best {
    /// Of the first sample of a window.
    pub fn first(window: &Window<'_>) -> Option<Self> {
        Some(Self {
            time: *window.times.first()?,
            value: *window.values.first()?,
        })
    }

    /// Against samples that come later. A NaN loses to anything.
    pub fn against(
        mut self,
        times: &[Timestamp],
        values: &[f64],
        wins: fn(&f64, &f64) -> bool,
    ) -> Self {
        for (&time, &value) in times.iter().zip(values) {
            if wins(&value, &self.value) || self.value.is_nan() {
                self = Self { time, value };
            }
        }
        self
    }
}

fn pick(window: &Window<'_>, wins: fn(&f64, &f64) -> bool) -> Option<Best> {
    let best = Best::first(window)?;
    Some(best.against(&window.times[1..], &window.values[1..], wins))
}

fn variance(values: &[f64]) -> f64 {
    let mut spread = Spread::default();
    values.iter().for_each(|&value| spread.add(value));
    spread.variance()
}

/// Distances from the mean so far, squared and summed.
#[derive(Debug, Default)]
pub(super) struct Spread {
    count: f64,
    mean: Sum,
    squares: Sum,
}

impl Spread {
    pub fn add(&mut self, value: f64) {
        self.count += 1.0;
        let distance = value - self.mean.value();
        self.mean.add(distance / self.count);
        self.squares.add(distance * (value - self.mean.value()));
    }

    pub fn variance(&self) -> f64 {
        self.squares.value() / self.count
    }
}

fn deviation_from_median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    let median = quantile(0.5, &mut values);
    values.iter_mut().for_each(|v| *v = (*v - median).abs());
    quantile(0.5, &mut values)
}

/// Double exponential smoothing (Holt): a level and a trend.
#[derive(Debug)]
pub(super) struct Smoothing {
    smoothing: f64,
    trending: f64,
    before: f64,
    pub level: f64,
    trend: f64,
}

impl Smoothing {
    /// Samples that it begins with.
    pub const FIRST: usize = 2;

    /// Of the first two samples of a window.
    pub fn of(window: &Window<'_>) -> Option<Self> {
        let [smoothing, trending] = *window.scalars else {
            return None;
        };
        let [first, second, ..] = *window.values else {
            return None;
        };
        let mut all = Self {
            smoothing,
            trending,
            before: 0.0,
            level: first,
            trend: second - first,
        };
        all.move_level(second);
        Some(all)
    }

    /// The next sample.
    pub fn add(&mut self, value: f64) {
        let steepness = self.level - self.before;
        self.trend = self.trending * steepness + (1.0 - self.trending) * self.trend;
        self.move_level(value);
    }

    fn move_level(&mut self, value: f64) {
        let expected = self.level + self.trend;
        let next = self.smoothing * value + (1.0 - self.smoothing) * expected;
        (self.before, self.level) = (self.level, next);
    }
}

fn smooth(window: &Window<'_>) -> Option<f64> {
    let mut smoothing = Smoothing::of(window)?;
    let later = window.values.iter().skip(Smoothing::FIRST);
    later.for_each(|&value| smoothing.add(value));
    Some(smoothing.level)
}

pub(super) fn has_changed(before: f64, after: f64) -> bool {
    before != after && !(before.is_nan() && after.is_nan())
}

pub(super) fn has_fallen(before: f64, after: f64) -> bool {
    after < before
}

pub(super) fn count_pairs(values: &[f64], counts: fn(f64, f64) -> bool) -> f64 {
    values
        .windows(2)
        .filter(|pair| counts(pair[0], pair[1]))
        .count() as f64
}

/// Where values are less than the one before: where a counter was reset.
pub(super) fn falls(values: &[f64]) -> Vec<u32> {
    let mut falls = Vec::new();
    let later = values.get(1..).unwrap_or_default();
    let runs = values.chunks(RUN).zip(later.chunks(RUN));
    for ((before, after), first) in runs.zip((1..).step_by(RUN)) {
        let pairs = || before.iter().zip(after);
        // Hardly any run has a fall; whether one has takes no branch for each value.
        let falls_in = pairs().fold(false, |any, (before, after)| any | (after < before));
        if falls_in {
            let placed = pairs().zip(first..);
            let fallen = placed.filter(|((before, after), _)| after < before);
            falls.extend(fallen.map(|(_, at)| at));
        }
    }
    falls
}

/// Values that are looked at together.
const RUN: usize = 64;

/// A call over windows, ready to be applied to series.
pub(super) struct OverRanges<'a> {
    pub name: &'static str,
    function: OverWindow,
    /// The range, as messages point at it.
    pub place: &'a Expr,
    /// The first argument.
    pub first_place: &'a Expr,
    scalars: Vec<Vec<f64>>,
}

impl Evaluation<'_> {
    pub(super) async fn over_windows(
        &mut self,
        call: &Call,
        function: OverWindow,
        args: Args,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        let (mut ranges, mut scalars) = (None, Vec::new());
        for (columns, place) in args
            .0
            .zip(call.args.iter().map(|arg| super::place(call, arg)))
        {
            match columns {
                Columns::Ranges(found) => ranges = Some((found, place)),
                other => scalars.push(other.into_scalar()),
            }
        }
        let (ranges, place) = ranges.expect("the parser checked that one argument is a range");
        let over = OverRanges {
            name: call.function.name,
            function,
            place,
            first_place: super::argument(call, 0),
            scalars,
        };
        self.read = self.pace.filled(0, grid.steps).await?;
        let (look, range_ms) = (ranges.look, ranges.range_ms);
        let mut columns = Vec::new();
        for series in ranges.series {
            self.pace.expect(columns.len() + 1, grid.steps)?;
            let ranges = Ranges {
                series: Vec::new(),
                look,
                range_ms,
            };
            if let Some(column) = self.over_series(&over, &ranges, series, grid).await? {
                columns.push(column);
            }
        }
        Ok(Columns::Vector(if self.rules.delayed_names {
            columns
        } else {
            super::super::distinct(columns, &mut self.pace).await?
        }))
    }

    /// One series' windows; `None` when no one of them yields anything.
    async fn over_series(
        &mut self,
        over: &OverRanges<'_>,
        ranges: &Ranges,
        series: RangeSeries,
        grid: Grid,
    ) -> Result<Option<Column>, QueryError> {
        let samples = &series.samples;
        let values = self.pace.filled(ABSENT, grid.steps).await?;
        let mut column = Column::new(series.labels.clone(), series.drop_name, values);
        let needs_falls = matches!(over.name, "rate" | "increase");
        let falls = if needs_falls {
            self.falls(&samples.values).await?
        } else {
            Vec::new()
        };
        let mut in_turn = InTurn::of(over.name);
        let mut scalars = vec![0.0; over.scalars.len()];
        let (mut since, mut until, mut first_fall) = (Edge::default(), Edge::default(), 0);
        let (mut work, mut window_samples, mut window_most, mut found) = (0, 0, 0_u64, 0);
        for step in 0..grid.steps {
            let now = grid.at(step);
            let end = ranges.look.from(now);
            let start = end.saturating_sub(ranges.range_ms);
            let times = &samples.timestamps;
            let to = until.move_to(times, end);
            let from = since.move_to(&times[..to], start);
            work += 1 + to - from;
            if work >= VALUES_PER_CHECK {
                self.pace.spend(std::mem::take(&mut work)).await?;
            }
            let histograms = match samples.histograms.is_empty() {
                true => &[][..],
                false => histograms_within(&samples.histograms, from, to),
            };
            window_samples = (to - from) as u64 + extra(histograms);
            window_most = window_most.max(window_samples);
            self.pace.glimpse(window_samples)?;
            if from == to {
                continue;
            }
            self.read[step] += window_samples;
            for (scalar, all) in scalars.iter_mut().zip(&over.scalars) {
                *scalar = all[step];
            }
            first_fall += falls[first_fall..]
                .iter()
                .take_while(|at| **at as usize <= from)
                .count();
            let window = Window {
                times: &times[from..to],
                values: &samples.values[from..to],
                falls: &falls[first_fall..],
                falls_from: from,
                start,
                end,
                now,
                range_ms: ranges.range_ms,
                scalars: &scalars,
            };
            if let Some(in_turn) = &mut in_turn
                && histograms.is_empty()
                && window.values.len() < long::LONG
            {
                found += in_turn.take(step, &window, &samples.values, &mut column.values);
                continue;
            }
            if histograms.is_empty() {
                self.check_scalars(over, &scalars)?;
                let value = match window.values.len() >= long::LONG {
                    true => long::value(over.name, &window, &mut self.pace).await?,
                    false => None,
                };
                if let Some(value) = value.or_else(|| (over.function)(&window)) {
                    column.values[step] = value;
                    found += 1;
                }
                continue;
            }
            let mixed = Mixed::new(&window, from, histograms);
            let metric = series.labels.metric_name();
            if let Some(point) = self.over_histograms(over, &mixed, metric)? {
                column.set(step, point);
                found += 1;
            }
        }
        if let Some(in_turn) = in_turn {
            in_turn.finish(&samples.values, &mut column.values);
        }
        self.pace.spend(work).await?;
        let results = found + extra(&column.histograms);
        self.note_windows(results, window_most, window_samples)?;
        if found == 0 {
            return Ok(None);
        }
        let made = column.histograms.iter().map(|(_, h)| h.size());
        self.pace.hold_more(made.sum())?;
        self.finish(over, &mut column);
        Ok(Some(column))
    }

    /// Where values are less than the one before.
    async fn falls(&mut self, values: &[f64]) -> Result<Vec<u32>, QueryError> {
        if values.len() < long::LONG {
            return Ok(falls(values));
        }
        let mut all = Vec::new();
        for turn in turns(values.len()) {
            self.pace.spend(turn.len()).await?;
            // With the one before the first.
            let begin = turn.start.saturating_sub(1);
            let found = falls(&values[begin..turn.end]).into_iter();
            all.extend(found.map(|at| at + index(begin)));
        }
        Ok(all)
    }

    /// Notes how many results a series has, and what its windows held: at most, and the last one. That
    /// one stays while the results are noted.
    fn note_windows(&mut self, results: u64, most: u64, last: u64) -> Result<(), QueryError> {
        self.results += results;
        self.windows = self.windows.max(most.saturating_sub(results)).max(last);
        self.pace.current += results;
        self.pace.glimpse(last)
    }

    fn finish(&mut self, over: &OverRanges<'_>, column: &mut Column) {
        let has_floats = column.histograms.is_empty() || column.present() > column.histograms.len();
        if matches!(over.name, "rate" | "increase") && has_floats {
            self.inform_if_no_counter(over.place, column);
        }
        match over.name {
            // Of a subquery too, whose names were to go.
            "last_over_time" => column.drop_name = false,
            // Newer, where those of a subquery go.
            "first_over_time" => (),
            _ => self.drop_name(column),
        }
    }

    fn inform_if_no_counter(&mut self, place: &Expr, column: &Column) {
        let metric = column.labels.metric_name();
        if self.rules.type_and_unit_labels {
            let ty = column.labels.get(super::super::TYPE).unwrap_or_default();
            self.notes.inform_if_not_typed_counter(place, metric, ty);
        } else {
            self.notes.inform_if_no_counter(place, metric);
        }
    }

    /// Tells of scalars that make no sense; called where there are floats to use them on.
    pub(super) fn check_scalars(
        &mut self,
        over: &OverRanges<'_>,
        scalars: &[f64],
    ) -> Result<(), QueryError> {
        match (over.name, scalars) {
            ("quantile_over_time", &[q]) => {
                self.notes.warn_quantile(over.first_place, q);
            }
            ("double_exponential_smoothing", &[smoothing, trending]) => {
                for (what, short, factor) in
                    [("smoothing", "sf", smoothing), ("trend", "tf", trending)]
                {
                    if factor <= 0.0 || factor >= 1.0 {
                        let got = match factor.is_finite() {
                            true => format!("{factor:.6}"),
                            false => format_float(factor),
                        };
                        return Err(QueryError::Execution(format!(
                            "invalid {what} factor. Expected: 0 < {short} < 1, got: {got}"
                        )));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Applies the call to the floats of a window that has histograms too.
    pub(super) fn over_floats(
        &mut self,
        over: &OverRanges<'_>,
        window: &Window<'_>,
    ) -> Result<Option<f64>, QueryError> {
        self.check_scalars(over, window.scalars)?;
        Ok((over.function)(window))
    }

    /// One where no series has a sample in its window.
    pub(super) async fn absent_over_time(
        &mut self,
        place: &Expr,
        ranges: Ranges,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        let mut values = self.pace.filled(1.0, grid.steps).await?;
        self.read = self.pace.filled(0, grid.steps).await?;
        for series in &ranges.series {
            let samples = &series.samples;
            let times = &samples.timestamps;
            let (mut seen, mut most, mut windows) = (0, 0_u64, 0);
            for (step, value) in values.iter_mut().enumerate() {
                if step % STEPS_PER_CHECK == 0 {
                    let steps = STEPS_PER_CHECK.min(grid.steps - step);
                    self.pace.spend(steps).await?;
                }
                let end = ranges.look.from(grid.at(step));
                let start = end.saturating_sub(ranges.range_ms);
                let to = times.partition_point(|t| t.0 <= end);
                let from = times.partition_point(|t| t.0 <= start);
                let histograms = histograms_within(&samples.histograms, from, to);
                seen = (to - from) as u64 + extra(histograms);
                most = most.max(seen);
                self.pace.glimpse(seen)?;
                if seen > 0 {
                    self.read[step] += seen;
                    windows += 1;
                    *value = ABSENT;
                }
            }
            // Prometheus notes every window as a result first.
            self.note_windows(windows, most, seen)?;
        }
        let mut columns = super::absent::column(place, values);
        columns
            .iter_mut()
            .for_each(|column| column.drop_name = self.rules.delayed_names);
        Ok(Columns::Vector(columns))
    }
}

/// Values a series' windows may see between two looks at the clock.
const VALUES_PER_CHECK: usize = 20_000;
/// Windows that are looked for between two such looks.
const STEPS_PER_CHECK: usize = 20_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn falls_are_found_wherever_runs_begin(
            values in prop::collection::vec(prop_oneof![20 => Just(1.0), 1 => Just(0.0), 1 => Just(f64::NAN)], 0..300),
        ) {
            let pairs = values.windows(2).zip(1..);
            let slowly = pairs.filter(|(pair, _)| pair[1] < pair[0]).map(|(_, at)| at);
            prop_assert_eq!(falls(&values), slowly.collect::<Vec<u32>>());
        }
    }
}
