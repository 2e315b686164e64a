//! What steps of a plan yield: values of series at the instants of a grid, and ranges of samples.

use std::ops::Range;
use std::sync::Arc;

use model::sample::{Histograms, STALE_NAN, histogram_at, is_stale};
use model::{Histogram, Labels, Samples, Series, Timestamp, Value};

use crate::native;
use crate::plan::{Grid, Look};

/// What stands in a column where the series has no value. No computation yields these bits:
/// staleness markers are never selected, and arithmetic makes quiet NaNs.
pub(super) const ABSENT: f64 = STALE_NAN;

pub(super) fn is_present(value: f64) -> bool {
    !is_stale(value)
}

/// A float, or a histogram: what a series has at an instant.
#[derive(Debug, Clone)]
pub(super) enum Point {
    Float(f64),
    Histogram(Arc<Histogram>),
}

impl Point {
    pub fn of(histogram: Histogram) -> Self {
        Self::Histogram(Arc::new(histogram))
    }
}

/// One series at every instant of a grid.
///
/// Where it has a histogram, `histograms` holds it by the index of the instant, ascending, and
/// `values` its sum. Whoever knows floats only calls [`Column::drop_histograms`] first.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub labels: Labels,
    /// The metric name goes when the result is handed out (delayed name removal only).
    pub(super) drop_name: bool,
    pub values: Vec<f64>,
    pub histograms: Histograms,
}

impl Column {
    /// A column of floats.
    pub fn new(labels: Labels, drop_name: bool, values: Vec<f64>) -> Self {
        Self {
            labels,
            drop_name,
            values,
            histograms: Histograms::new(),
        }
    }

    pub fn has_values(&self) -> bool {
        self.values.iter().copied().any(is_present)
    }

    /// At how many instants it has a value.
    pub fn present(&self) -> usize {
        self.values.iter().filter(|v| is_present(**v)).count()
    }

    pub fn histogram(&self, step: usize) -> Option<&Arc<Histogram>> {
        histogram_at(&self.histograms, step)
    }

    /// What it has at `step`.
    pub(super) fn point(&self, step: usize) -> Option<Point> {
        let value = self.values.get(step).copied().filter(|&v| is_present(v))?;
        Some(match self.histogram(step) {
            Some(histogram) => Point::Histogram(histogram.clone()),
            None => Point::Float(value),
        })
    }

    /// Puts a point at `step`, which is behind all histograms so far.
    pub(super) fn set(&mut self, step: usize, point: Point) {
        match point {
            Point::Float(value) => self.values[step] = value,
            Point::Histogram(histogram) => {
                // A sum of marker bits would make the point absent.
                let sum = histogram.sum;
                self.values[step] = if is_present(sum) { sum } else { f64::NAN };
                self.histograms.push((index(step), histogram));
            }
        }
    }

    /// Keeps the floats only.
    pub fn drop_histograms(&mut self) {
        for (step, _) in std::mem::take(&mut self.histograms) {
            self.values[step as usize] = ABSENT;
        }
    }

    /// Forgets histograms where the value was taken away.
    pub fn drop_masked(&mut self) {
        let values = &self.values;
        self.histograms
            .retain(|(step, _)| is_present(values[*step as usize]));
    }

    /// Adds to the count of points at each instant of `steps`.
    pub fn count_points(&self, steps: Range<usize>, points: &mut [u64]) {
        let values = self.values.get(steps).unwrap_or_default();
        for (points, &value) in points.iter_mut().zip(values) {
            *points += u64::from(is_present(value));
        }
    }

    /// The same of samples, a histogram counting for several.
    pub fn count_samples(&self, steps: Range<usize>, samples: &mut [u64]) {
        self.count_points(steps.clone(), samples);
        for (step, histogram) in self.histograms_within(&steps) {
            samples[*step as usize - steps.start] += native::weight(histogram) as u64 - 1;
        }
    }

    /// The same of histograms that count for one more in a vector.
    pub fn count_rounded(&self, steps: Range<usize>, rounded: &mut [u64]) {
        for (step, histogram) in self.histograms_within(&steps) {
            rounded[*step as usize - steps.start] += u64::from(native::is_rounded(histogram));
        }
    }

    fn histograms_within(&self, steps: &Range<usize>) -> &[(u32, Arc<Histogram>)] {
        match self.histograms.is_empty() {
            true => &[],
            false => histograms_within(&self.histograms, steps.start, steps.end),
        }
    }

    /// The instants from the first to the last value, if there is one.
    pub fn used(&self) -> Option<Range<usize>> {
        let first = self.values.iter().position(|v| is_present(*v))?;
        let last = self.values.iter().rposition(|v| is_present(*v))?;
        Some(first..last + 1)
    }

    /// What a result shows at `step`.
    pub fn value_at(&self, step: usize) -> Option<Value> {
        Some(match self.point(step)? {
            Point::Float(value) => Value::Float(value),
            Point::Histogram(histogram) => Value::Histogram(histogram),
        })
    }
}

/// A step as histograms are numbered by.
pub(super) fn index(step: usize) -> u32 {
    u32::try_from(step).expect("a grid has far fewer than 2^32 instants")
}

/// The histograms at `from .. to` of a column.
pub(super) fn histograms_within(
    histograms: &Histograms,
    from: usize,
    to: usize,
) -> &[(u32, Arc<Histogram>)] {
    let place = |at: usize| histograms.partition_point(|(index, _)| (*index as usize) < at);
    &histograms[place(from)..place(to)]
}

/// Adds values at the instants of `grid` from `first` on to samples before them; histograms are
/// numbered from the beginning of the grid.
pub(crate) fn put_samples(
    values: &[f64],
    histograms: &Histograms,
    first: usize,
    grid: Grid,
    samples: &mut Samples,
) {
    let count = values.iter().filter(|v| is_present(**v)).count();
    samples.timestamps.reserve(count);
    samples.values.reserve(count);
    let steps = first..first + values.len();
    let mut histograms = histograms_within(histograms, steps.start, steps.end)
        .iter()
        .peekable();
    for (step, &value) in steps.zip(values) {
        if !is_present(value) {
            continue;
        }
        let at = Timestamp(grid.at(step));
        match histograms.next_if(|(index, _)| *index as usize == step) {
            Some((_, histogram)) => samples.push_histogram(at, histogram.clone()),
            None => samples.push(at, value),
        }
    }
}

/// What histograms count for beyond one sample each.
pub(super) fn extra(histograms: &[(u32, Arc<Histogram>)]) -> u64 {
    let extra = |histogram: &Histogram| native::weight(histogram) as u64 - 1;
    histograms.iter().map(|(_, h)| extra(h)).sum()
}

/// Samples of series, cut to a window at each instant.
#[derive(Debug)]
pub(crate) struct Ranges {
    pub(super) series: Vec<RangeSeries>,
    pub(super) look: Look,
    pub(super) range_ms: i64,
}

#[derive(Debug)]
pub(super) struct RangeSeries {
    pub labels: Labels,
    pub drop_name: bool,
    pub samples: Samples,
}

impl Ranges {
    /// How many samples the window sees from `now`, histograms counting for several.
    pub fn window_samples(&self, now: i64) -> u64 {
        let end = self.look.from(now);
        let start = end.saturating_sub(self.range_ms);
        let of_series = |samples: &Samples| {
            let (from, to) = (
                samples.timestamps.partition_point(|t| t.0 <= start),
                samples.timestamps.partition_point(|t| t.0 <= end),
            );
            (to - from) as u64 + extra(histograms_within(&samples.histograms, from, to))
        };
        self.series.iter().map(|s| of_series(&s.samples)).sum()
    }

    /// What the window sees from `now`; series it sees nothing of are left out.
    pub fn cut(self, now: i64) -> Vec<Series> {
        let end = self.look.from(now);
        let start = end.saturating_sub(self.range_ms);
        let cut = |samples: &Samples| {
            let mut kept = Samples::default();
            let inside = |at: &usize| (start + 1..=end).contains(&samples.timestamps[*at].0);
            let all = (0..samples.len()).filter(inside);
            all.for_each(|at| kept.push_from(samples, at));
            kept
        };
        let series = self.series.into_iter().map(|series| Series {
            samples: cut(&series.samples),
            labels: series.labels,
        });
        series.filter(|s| !s.samples.is_empty()).collect()
    }
}

/// What a step yields.
#[derive(Debug)]
pub(crate) enum Columns {
    /// A value at every instant.
    Scalar(Vec<f64>),
    String {
        text: String,
        not_utf8: Option<Vec<u8>>,
    },
    Vector(Vec<Column>),
    Ranges(Ranges),
}

impl Columns {
    /// About how many bytes its values and labels take.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Scalar(values) => 8 * values.len(),
            Self::String { text, .. } => text.len(),
            Self::Vector(columns) => columns
                .iter()
                .map(|c| {
                    let labels = c.labels.as_canonical().len();
                    labels + 8 * c.values.len() + histogram_bytes(&c.histograms)
                })
                .sum(),
            Self::Ranges(ranges) => ranges
                .series
                .iter()
                .map(|s| samples_bytes(&s.samples))
                .sum(),
        }
    }

    pub fn into_scalar(self) -> Vec<f64> {
        match self {
            Self::Scalar(values) => values,
            other => unreachable!("the parser checked that this is a scalar: {other:?}"),
        }
    }

    pub fn into_vector(self) -> Vec<Column> {
        match self {
            Self::Vector(columns) => columns,
            other => unreachable!("the parser checked that this is a vector: {other:?}"),
        }
    }

    pub fn into_ranges(self) -> Ranges {
        match self {
            Self::Ranges(ranges) => ranges,
            other => unreachable!("the parser checked that this is a range: {other:?}"),
        }
    }

    pub fn into_string(self) -> (String, Option<Vec<u8>>) {
        match self {
            Self::String { text, not_utf8 } => (text, not_utf8),
            other => unreachable!("the parser checked that this is a string: {other:?}"),
        }
    }
}

/// What histograms take in memory, as if none were shared.
pub(super) fn histogram_bytes(histograms: &Histograms) -> usize {
    histograms.iter().map(|(_, h)| 16 + h.size()).sum()
}

pub(crate) fn samples_bytes(samples: &Samples) -> usize {
    16 * samples.len() + histogram_bytes(&samples.histograms)
}
