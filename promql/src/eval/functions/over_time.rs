//! Functions of the samples inside a window.

use model::Timestamp;

use super::super::kahan::{Mean, Sum};
use super::super::quantile::quantile;
use super::super::{RangeSeries, Ranges};
use super::{ABSENT, Args, Column, Columns, Evaluation, is_present, rate};
use crate::ast::{Call, Expr};
use crate::error::QueryError;
use crate::plan::Grid;

/// What a window function sees: at least one sample, oldest first.
pub(super) struct Window<'a> {
    pub times: &'a [Timestamp],
    pub values: &'a [f64],
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
    fn first_scalar(&self) -> f64 {
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
        "last_over_time" => |w| w.values.last().copied(),
        "min_over_time" => |w| pick(w, |value, best| value < best).map(|(_, v)| v),
        "max_over_time" => |w| pick(w, |value, best| value > best).map(|(_, v)| v),
        "ts_of_min_over_time" => |w| pick(w, |value, best| value <= best).map(|(t, _)| t),
        "ts_of_max_over_time" => |w| pick(w, |value, best| value >= best).map(|(t, _)| t),
        "ts_of_last_over_time" => |w| w.times.last().map(|t| t.seconds()),
        "present_over_time" => |_| Some(1.0),
        "stddev_over_time" => |w| Some(variance(w.values).sqrt()),
        "stdvar_over_time" => |w| Some(variance(w.values)),
        "quantile_over_time" => |w| Some(quantile(w.first_scalar(), &mut w.values.to_vec())),
        "mad_over_time" => |w| Some(deviation_from_median(w.values)),
        "double_exponential_smoothing" => |w| smooth(w),
        "changes" => |w| Some(count_pairs(w.values, has_changed)),
        "resets" => |w| Some(count_pairs(w.values, |before, after| after < before)),
        "rate" => |w| rate::extrapolated(w, true, true),
        "increase" => |w| rate::extrapolated(w, true, false),
        "delta" => |w| rate::extrapolated(w, false, false),
        "irate" => |w| rate::last_two(w, true),
        "idelta" => |w| rate::last_two(w, false),
        "deriv" => rate::slope,
        "predict_linear" => |w| rate::predict(w, w.first_scalar()),
        _ => return None,
    })
}

fn sum(values: &[f64]) -> f64 {
    let mut sum = Sum::default();
    values.iter().for_each(|&v| sum.add(v));
    sum.value()
}

fn mean(values: &[f64]) -> f64 {
    let mut mean = Mean::default();
    values.iter().for_each(|&v| mean.add(v));
    mean.value()
}

/// The sample that wins against all before it, as seconds and value. A NaN loses to anything.
fn pick(window: &Window<'_>, wins: fn(f64, f64) -> bool) -> Option<(f64, f64)> {
    let mut samples = window.times.iter().zip(window.values);
    let (&first_time, &first_value) = samples.next()?;
    let mut best = (first_time.seconds(), first_value);
    for (time, &value) in samples {
        if wins(value, best.1) || best.1.is_nan() {
            best = (time.seconds(), value);
        }
    }
    Some(best)
}

fn variance(values: &[f64]) -> f64 {
    let (mut count, mut mean, mut squares) = (0.0, Sum::default(), Sum::default());
    for &value in values {
        count += 1.0;
        let distance = value - mean.value();
        mean.add(distance / count);
        squares.add(distance * (value - mean.value()));
    }
    squares.value() / count
}

fn deviation_from_median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    let median = quantile(0.5, &mut values);
    values.iter_mut().for_each(|v| *v = (*v - median).abs());
    quantile(0.5, &mut values)
}

/// Double exponential smoothing (Holt): a level and a trend.
fn smooth(window: &Window<'_>) -> Option<f64> {
    let [smoothing, trending] = *window.scalars else {
        return None;
    };
    let [first, second, ..] = *window.values else {
        return None;
    };
    let (mut before, mut level, mut trend) = (0.0, first, second - first);
    for (i, &value) in window.values.iter().enumerate().skip(1) {
        if i > 1 {
            trend = trending * (level - before) + (1.0 - trending) * trend;
        }
        let next = smoothing * value + (1.0 - smoothing) * (level + trend);
        (before, level) = (level, next);
    }
    Some(level)
}

fn has_changed(before: f64, after: f64) -> bool {
    before != after && !(before.is_nan() && after.is_nan())
}

fn count_pairs(values: &[f64], counts: fn(f64, f64) -> bool) -> f64 {
    values
        .windows(2)
        .filter(|pair| counts(pair[0], pair[1]))
        .count() as f64
}

impl Evaluation<'_> {
    pub(super) async fn over_windows(
        &mut self,
        call: &Call,
        function: OverWindow,
        args: Args,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        let (mut ranges, mut scalars, mut scalar_places) = (None, Vec::new(), Vec::new());
        for (columns, place) in args.0.zip(call.args.iter().map(super::place)) {
            match columns {
                Columns::Ranges(found) => ranges = Some((found, place)),
                other => {
                    scalars.push(other.into_scalar());
                    scalar_places.push(place);
                }
            }
        }
        let (ranges, place) = ranges.expect("the parser checked that one argument is a range");
        let name = call.function.name;
        if !ranges.series.is_empty() {
            self.check_scalars(name, &scalar_places, &scalars)?;
        }
        let Ranges {
            series,
            look,
            range_ms,
        } = ranges;
        let mut columns = Vec::new();
        for series in series {
            self.pace.expect(columns.len() + 1, grid.steps)?;
            let mut values = vec![ABSENT; grid.steps];
            let mut at_step = vec![0.0; scalars.len()];
            let (mut from, mut to) = (0, 0);
            for (step, value) in values.iter_mut().enumerate() {
                let now = grid.at(step);
                let end = look.from(now);
                let start = end.saturating_sub(range_ms);
                let times = &series.samples.timestamps;
                to += times[to..].iter().take_while(|t| t.0 <= end).count();
                from += times[from..to].iter().take_while(|t| t.0 <= start).count();
                self.pace.spend(to - from).await?;
                if from == to {
                    continue;
                }
                for (scalar, all) in at_step.iter_mut().zip(&scalars) {
                    *scalar = all[step];
                }
                let window = Window {
                    times: &times[from..to],
                    values: &series.samples.values[from..to],
                    start,
                    end,
                    now,
                    range_ms,
                    scalars: &at_step,
                };
                *value = function(&window).unwrap_or(ABSENT);
            }
            if values.iter().copied().any(is_present) {
                columns.push(self.window_column(name, place, series, values));
            }
        }
        Ok(Columns::Vector(if self.delayed_names {
            columns
        } else {
            super::super::distinct(columns)?
        }))
    }

    fn window_column(
        &mut self,
        name: &str,
        place: &Expr,
        series: RangeSeries,
        values: Vec<f64>,
    ) -> Column {
        if matches!(name, "rate" | "increase") {
            let metric = series.labels.metric_name();
            self.notes.inform_if_no_counter(self.query, place, metric);
        }
        let mut column = Column {
            labels: series.labels,
            drop_name: series.drop_name,
            values,
        };
        if name != "last_over_time" {
            self.drop_name(&mut column);
        }
        column
    }

    fn check_scalars(
        &mut self,
        name: &str,
        places: &[&Expr],
        scalars: &[Vec<f64>],
    ) -> Result<(), QueryError> {
        match (name, places, scalars) {
            ("quantile_over_time", [place], [quantiles]) => {
                for &q in quantiles {
                    self.notes.warn_quantile(self.query, place, q);
                }
            }
            ("double_exponential_smoothing", _, [smoothing, trending]) => {
                for (what, short, factors) in
                    [("smoothing", "sf", smoothing), ("trend", "tf", trending)]
                {
                    if let Some(factor) = factors.iter().find(|f| !(**f > 0.0 && **f < 1.0)) {
                        return Err(QueryError::Execution(format!(
                            "invalid {what} factor. Expected: 0 < {short} < 1, got: {factor:.6}"
                        )));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// One where no series has a sample in its window.
    pub(super) async fn absent_over_time(
        &mut self,
        place: &Expr,
        ranges: Ranges,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        let mut values = vec![1.0; grid.steps];
        for series in &ranges.series {
            let times = &series.samples.timestamps;
            self.pace.spend(grid.steps).await?;
            for (step, value) in values.iter_mut().enumerate() {
                let end = ranges.look.from(grid.at(step));
                let start = end.saturating_sub(ranges.range_ms);
                let newest = times.partition_point(|t| t.0 <= end);
                if newest > 0 && times[newest - 1].0 > start {
                    *value = ABSENT;
                }
            }
        }
        Ok(Columns::Vector(super::absent::column(place, values)))
    }
}
