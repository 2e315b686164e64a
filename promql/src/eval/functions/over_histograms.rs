//! Functions of windows that have histograms, alone or among floats.

use std::sync::Arc;

use model::{Histogram, Timestamp};

use super::super::Evaluation;
use super::super::Point;
use super::over_time::{OverRanges, Window, has_changed};
use super::rate::{Kind, extrapolation};
use crate::ast::Expr;
use crate::error::QueryError;
use crate::native::{self, Incompatible, Sum, detects_reset};
use model::histogram::ResetHint;

/// A window with at least one histogram.
pub(super) struct Mixed<'a> {
    window: &'a Window<'a>,
    /// Index of the window's first sample in its series, by which histograms are numbered.
    from: usize,
    histograms: &'a [(u32, Arc<Histogram>)],
}

/// What a window function makes of a sample.
enum Seen<'a> {
    Float(f64),
    Histogram(&'a Histogram),
}

impl<'a> Mixed<'a> {
    pub fn new(
        window: &'a Window<'a>,
        from: usize,
        histograms: &'a [(u32, Arc<Histogram>)],
    ) -> Self {
        Self {
            window,
            from,
            histograms,
        }
    }

    fn has_floats(&self) -> bool {
        self.window.values.len() > self.histograms.len()
    }

    /// Every sample, oldest first.
    fn samples(&self) -> impl Iterator<Item = (Timestamp, Seen<'a>)> + use<'a> {
        let (window, from) = (self.window, self.from);
        let mut histograms = self.histograms.iter().peekable();
        let samples = window.times.iter().zip(window.values).enumerate();
        samples.map(move |(at, (&time, &value))| {
            let histogram = histograms.next_if(|(index, _)| *index as usize == from + at);
            match histogram {
                Some((_, histogram)) => (time, Seen::Histogram(histogram)),
                None => (time, Seen::Float(value)),
            }
        })
    }

    fn floats(&self) -> (Vec<Timestamp>, Vec<f64>) {
        self.samples()
            .filter_map(|(time, seen)| match seen {
                Seen::Float(value) => Some((time, value)),
                Seen::Histogram(_) => None,
            })
            .unzip()
    }

    fn all(&self) -> impl Iterator<Item = &'a Histogram> + use<'a> {
        self.histograms.iter().map(|(_, histogram)| &**histogram)
    }
}

impl Evaluation<'_> {
    pub(super) fn over_histograms(
        &mut self,
        over: &OverRanges<'_>,
        mixed: &Mixed<'_>,
        metric: &str,
    ) -> Result<Option<Point>, QueryError> {
        let place = over.place;
        let point = match over.name {
            "count_over_time" => Some(Point::Float(mixed.window.values.len() as f64)),
            "present_over_time" => Some(Point::Float(1.0)),
            "ts_of_first_over_time" => mixed
                .window
                .times
                .first()
                .map(|t| Point::Float(t.seconds())),
            "ts_of_last_over_time" => mixed.window.times.last().map(|t| Point::Float(t.seconds())),
            "first_over_time" => first(mixed),
            "last_over_time" => last(mixed),
            "changes" => Some(Point::Float(count_pairs(mixed, changed))),
            "resets" => Some(Point::Float(count_pairs(mixed, was_reset))),
            "sum_over_time" | "avg_over_time" | "rate" | "increase" | "delta"
                if mixed.has_floats() =>
            {
                self.notes.warn_mixed(place, metric);
                None
            }
            "sum_over_time" => self.folded(place, metric, sum(mixed)),
            "avg_over_time" => self.folded(place, metric, mean(mixed)),
            "rate" => self.histogram_rate(place, metric, mixed, Kind::Rate),
            "increase" => self.histogram_rate(place, metric, mixed, Kind::Increase),
            "delta" => self.histogram_rate(place, metric, mixed, Kind::Delta),
            "irate" => self.last_two_histograms(place, metric, mixed, true),
            "idelta" => self.last_two_histograms(place, metric, mixed, false),
            _ => self.without_histograms(over, mixed, metric)?,
        };
        Ok(point)
    }

    /// Functions of floats: histograms beside them are left out, which is told.
    fn without_histograms(
        &mut self,
        over: &OverRanges<'_>,
        mixed: &Mixed<'_>,
        metric: &str,
    ) -> Result<Option<Point>, QueryError> {
        let (times, values) = mixed.floats();
        if over.name == "double_exponential_smoothing" {
            self.check_scalars(over, mixed.window.scalars)?;
        }
        if values.is_empty() {
            return Ok(None);
        }
        let place = over.first_place;
        self.notes.inform_ignored_in_range(place, metric);
        let window = Window {
            times: &times,
            values: &values,
            ..*mixed.window
        };
        Ok(self.over_floats(over, &window)?.map(Point::Float))
    }

    fn folded(
        &mut self,
        place: &Expr,
        metric: &str,
        folded: Result<Histogram, Incompatible>,
    ) -> Option<Point> {
        match folded {
            Ok(histogram) => Some(Point::of(histogram)),
            Err(why) => {
                self.notes.warn_incompatible(place, metric, why);
                None
            }
        }
    }

    fn histogram_rate(
        &mut self,
        place: &Expr,
        metric: &str,
        mixed: &Mixed<'_>,
        kind: Kind,
    ) -> Option<Point> {
        let all: Vec<&Histogram> = mixed.all().collect();
        let (&first, true) = (all.first()?, all.len() > 1) else {
            return None;
        };
        let mut growth = match growth(&all, kind) {
            Ok(growth) => growth,
            Err(failure) => {
                if failure.keeps_kind_warning && is_gauge(first, &all) {
                    self.notes.warn_not_counter(place, metric);
                }
                let why = failure.why;
                self.notes.warn_incompatible(place, metric, why);
                return None;
            }
        };
        if kind.is_counter() {
            if all.iter().any(|h| h.reset_hint == ResetHint::Gauge) {
                self.notes.warn_not_counter(place, metric);
            }
        } else if is_no_gauge(&all) {
            self.notes.warn_not_gauge(place, metric);
        }
        // Unlike floats, histograms are extrapolated beyond the instant at which they were zero.
        growth.multiply(extrapolation(mixed.window, kind));
        Some(Point::of(growth.into_histogram()))
    }

    fn last_two_histograms(
        &mut self,
        place: &Expr,
        metric: &str,
        mixed: &Mixed<'_>,
        is_counter: bool,
    ) -> Option<Point> {
        let mut samples: Vec<_> = mixed.samples().collect();
        let (last_time, last) = samples.pop()?;
        let (before_time, before) = samples.pop()?;
        let (before, last) = match (before, last) {
            (Seen::Histogram(before), Seen::Histogram(last)) => (before, last),
            (Seen::Float(before), Seen::Float(last)) => {
                let window = Window {
                    times: &[before_time, last_time],
                    values: &[before, last],
                    ..*mixed.window
                };
                return super::rate::last_two(&window, is_counter).map(Point::Float);
            }
            _ => {
                self.notes.warn_mixed(place, metric);
                return None;
            }
        };
        let gauges = [before, last].map(|h| h.reset_hint == ResetHint::Gauge);
        if is_counter && gauges.contains(&true) {
            self.notes.warn_not_counter(place, metric);
        }
        if !is_counter && gauges.contains(&false) {
            self.notes.warn_not_gauge(place, metric);
        }
        let mut growth = Sum::from(last);
        if (!is_counter || !detects_reset(last, before))
            && let Err(why) = growth.subtract(&Sum::from(before))
        {
            self.notes.warn_incompatible(place, metric, why);
            return None;
        }
        growth.hint = ResetHint::Gauge;
        if is_counter {
            growth.divide((last_time.0 - before_time.0) as f64 / 1000.0);
        }
        Some(Point::of(growth.into_histogram()))
    }
}

fn first(mixed: &Mixed<'_>) -> Option<Point> {
    at(mixed, 0, mixed.histograms.first())
}

fn last(mixed: &Mixed<'_>) -> Option<Point> {
    at(
        mixed,
        mixed.window.values.len() - 1,
        mixed.histograms.last(),
    )
}

/// The sample at a place of the window: the histogram, if that is where it stands.
fn at(mixed: &Mixed<'_>, place: usize, histogram: Option<&(u32, Arc<Histogram>)>) -> Option<Point> {
    match histogram {
        Some((index, histogram)) if *index as usize == mixed.from + place => {
            Some(Point::Histogram(histogram.clone()))
        }
        _ => mixed.window.values.get(place).copied().map(Point::Float),
    }
}

fn count_pairs(mixed: &Mixed<'_>, counts: fn(&Seen<'_>, &Seen<'_>) -> bool) -> f64 {
    let mut before = None;
    let mut count = 0;
    for (_, seen) in mixed.samples() {
        if before.is_some_and(|before| counts(&before, &seen)) {
            count += 1;
        }
        before = Some(seen);
    }
    f64::from(count)
}

fn changed(before: &Seen<'_>, after: &Seen<'_>) -> bool {
    match (before, after) {
        (Seen::Float(before), Seen::Float(after)) => has_changed(*before, *after),
        (Seen::Histogram(before), Seen::Histogram(after)) => !native::counted_same(after, before),
        _ => true,
    }
}

fn was_reset(before: &Seen<'_>, after: &Seen<'_>) -> bool {
    match (before, after) {
        (Seen::Float(before), Seen::Float(after)) => after < before,
        (Seen::Histogram(before), Seen::Histogram(after)) => detects_reset(after, before),
        _ => true,
    }
}

fn sum(mixed: &Mixed<'_>) -> Result<Histogram, Incompatible> {
    let mut all = mixed.all();
    let mut sum = Sum::from(all.next().expect("a mixed window has a histogram"));
    for histogram in all {
        sum.add(&Sum::from(histogram))?;
    }
    Ok(sum.into_histogram())
}

fn mean(mixed: &Mixed<'_>) -> Result<Histogram, Incompatible> {
    let mut all = mixed.all();
    let mut mean = Sum::from(all.next().expect("a mixed window has a histogram"));
    for (histogram, count) in all.zip(2..) {
        native::move_mean(&mut mean, histogram, f64::from(count))?;
    }
    Ok(mean.into_histogram())
}

/// Why histograms in a window have no growth.
struct Failure {
    why: Incompatible,
    /// Whether what was found before about the first and last histogram is told too.
    keeps_kind_warning: bool,
}

/// The last histogram less the first, and every one before a reset added.
fn growth(all: &[&Histogram], kind: Kind) -> Result<Sum, Failure> {
    let (first, second, last) = (all[0], all[1], all[all.len() - 1]);
    let is_counter = kind.is_counter();
    // If the counter was reset right after the first sample, that one's buckets do not matter.
    let (mut before, mut is_custom, mut schema) =
        (Some(first), first.uses_custom_buckets(), first.schema);
    if is_counter && detects_reset(second, first) {
        (before, is_custom, schema) = (None, second.uses_custom_buckets(), second.schema);
    }
    if last.uses_custom_buckets() != is_custom {
        return Err(Failure {
            why: Incompatible::Schema,
            keeps_kind_warning: is_counter,
        });
    }
    schema = schema.min(last.schema);
    if is_counter {
        for between in &all[1..all.len() - 1] {
            schema = schema.min(between.schema);
            if between.uses_custom_buckets() != is_custom {
                return Err(Incompatible::Schema.into());
            }
        }
    }
    let mut growth = Sum::from(last);
    growth.reduce_to(schema);
    let nothing = match before {
        Some(before) => Sum::from(before),
        None => Sum::empty_like(second),
    };
    growth.subtract(&nothing)?;
    if is_counter {
        for &current in &all[1..] {
            // Nothing was lost since nothing was counted.
            if let Some(before) = before
                && detects_reset(current, before)
            {
                growth.add(&Sum::from(before))?;
            }
            before = Some(current);
        }
    }
    growth.hint = ResetHint::Gauge;
    Ok(growth)
}

impl From<Incompatible> for Failure {
    fn from(why: Incompatible) -> Self {
        Self {
            why,
            keeps_kind_warning: false,
        }
    }
}

/// Whether an end of the window is a gauge.
fn is_gauge(first: &Histogram, all: &[&Histogram]) -> bool {
    let last = all.last().map(|h| h.reset_hint);
    first.reset_hint == ResetHint::Gauge || last == Some(ResetHint::Gauge)
}

/// Whether an end of the window is no gauge.
fn is_no_gauge(all: &[&Histogram]) -> bool {
    let ends = [all.first(), all.last()];
    let mut ends = ends.into_iter().flatten();
    ends.any(|h| h.reset_hint != ResetHint::Gauge)
}
