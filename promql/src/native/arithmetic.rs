//! Adding, subtracting and scaling histograms, also of different resolution and zero buckets.
//!
//! Operations and their order are Prometheus' (`FloatHistogram`), so results agree to the bit.

use model::Histogram;
use model::histogram::ResetHint;

use super::bounds;
use super::buckets::{indexed, spanned};

/// Why two histograms cannot be computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Incompatible {
    /// One has exponential buckets, the other custom ones.
    Schema,
    /// The custom bounds differ.
    Bounds,
}

/// A histogram being computed with: counts by index of their bucket instead of spans.
#[derive(Debug, Clone)]
pub(crate) struct Sum {
    pub hint: ResetHint,
    schema: i32,
    zero_threshold: f64,
    zero_count: f64,
    pub count: f64,
    sum: f64,
    positive: Vec<(i32, f64)>,
    negative: Vec<(i32, f64)>,
    custom_values: Vec<f64>,
}

impl From<&Histogram> for Sum {
    fn from(histogram: &Histogram) -> Self {
        Self {
            hint: histogram.reset_hint,
            schema: histogram.schema,
            zero_threshold: histogram.zero_threshold,
            zero_count: histogram.zero_count,
            count: histogram.count,
            sum: histogram.sum,
            positive: indexed(&histogram.positive_spans, &histogram.positive_buckets),
            negative: indexed(&histogram.negative_spans, &histogram.negative_buckets),
            custom_values: histogram.custom_values.clone(),
        }
    }
}

impl Sum {
    /// The result, without empty buckets.
    pub fn into_histogram(self) -> Histogram {
        let (positive_spans, positive_buckets) = spanned(&self.positive);
        let (negative_spans, negative_buckets) = spanned(&self.negative);
        Histogram {
            is_integer: false,
            reset_hint: self.hint,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count,
            count: self.count,
            sum: self.sum,
            positive_spans,
            positive_buckets,
            negative_spans,
            negative_buckets,
            custom_values: self.custom_values,
            integers: None,
        }
    }

    /// Nothing counted, with the buckets of `other`.
    pub fn empty_like(other: &Histogram) -> Self {
        Self {
            hint: ResetHint::Unknown,
            schema: other.schema,
            zero_threshold: 0.0,
            zero_count: 0.0,
            count: 0.0,
            sum: 0.0,
            positive: Vec::new(),
            negative: Vec::new(),
            custom_values: other.custom_values.clone(),
        }
    }

    pub fn add(&mut self, other: &Self) -> Result<(), Incompatible> {
        self.check(other)?;
        self.hint = hint_of_sum(self.hint, other.hint);
        self.combine(other, |a, b| a + b);
        Ok(())
    }

    /// Keeps its own reset hint.
    pub fn subtract(&mut self, other: &Self) -> Result<(), Incompatible> {
        self.check(other)?;
        self.combine(other, |a, b| a - b);
        Ok(())
    }

    /// Multiplies every count and the sum.
    pub fn multiply(&mut self, factor: f64) {
        self.each(|value| value * factor);
    }

    /// Divides every count and the sum. Nothing is left of buckets that were divided by zero.
    pub fn divide(&mut self, divisor: f64) {
        self.each(|value| value / divisor);
        if divisor == 0.0 {
            self.positive.clear();
            self.negative.clear();
        }
    }

    /// Joins buckets until the schema is `schema`, if it is finer now.
    pub fn reduce_to(&mut self, schema: i32) {
        if self.schema > schema {
            self.positive = reduced(&self.positive, self.schema, schema);
            self.negative = reduced(&self.negative, self.schema, schema);
            self.schema = schema;
        }
    }

    fn each(&mut self, f: impl Fn(f64) -> f64) {
        self.zero_count = f(self.zero_count);
        self.count = f(self.count);
        self.sum = f(self.sum);
        for (_, count) in self.positive.iter_mut().chain(&mut self.negative) {
            *count = f(*count);
        }
    }

    fn is_custom(&self) -> bool {
        self.schema == model::histogram::CUSTOM_SCHEMA
    }

    fn check(&self, other: &Self) -> Result<(), Incompatible> {
        if self.is_custom() != other.is_custom() {
            return Err(Incompatible::Schema);
        }
        if self.custom_values != other.custom_values {
            return Err(Incompatible::Bounds);
        }
        Ok(())
    }

    fn combine(&mut self, other: &Self, op: fn(f64, f64) -> f64) {
        if !self.is_custom() {
            let zero_count = self.reconcile_zero(other);
            self.zero_count = op(self.zero_count, zero_count);
        }
        self.count = op(self.count, other.count);
        self.sum = op(self.sum, other.sum);
        self.reduce_to(other.schema);
        let skip = self.skipped();
        if other.schema > self.schema {
            let positive = reduced(&other.positive, other.schema, self.schema);
            let negative = reduced(&other.negative, other.schema, self.schema);
            merge(&mut self.positive, &positive, skip, op);
            merge(&mut self.negative, &negative, skip, op);
        } else {
            merge(&mut self.positive, &other.positive, skip, op);
            merge(&mut self.negative, &other.negative, skip, op);
        }
    }

    /// How a bucket of the other histogram that lies inside the zero bucket is told by its index.
    fn skipped(&self) -> impl Fn(i32) -> bool + Copy + use<> {
        let (threshold, schema, is_custom) = (self.zero_threshold, self.schema, self.is_custom());
        move |index| !is_custom && bounds::exponential(index, schema) <= threshold
    }

    /// Widens the zero bucket until it fits both; what the other one's would count then.
    fn reconcile_zero(&mut self, other: &Self) -> f64 {
        let (mut count, mut threshold) = (other.zero_count, other.zero_threshold);
        while threshold != self.zero_threshold {
            if self.zero_threshold > threshold {
                (count, threshold) = other.zero_bucket(self.zero_threshold);
            }
            if threshold > self.zero_threshold {
                (self.zero_count, self.zero_threshold) = self.zero_bucket(threshold);
                self.trim_zero();
            }
            if threshold.is_nan() || self.zero_threshold.is_nan() {
                break;
            }
        }
        count
    }

    /// Count and threshold of a zero bucket that reaches at least to `threshold`, and to the end of
    /// any bucket it would cut.
    fn zero_bucket(&self, mut threshold: f64) -> (f64, f64) {
        if threshold <= self.zero_threshold {
            return (self.zero_count, threshold);
        }
        'again: loop {
            let mut total = self.zero_count;
            for (is_negative, side) in [(false, &self.positive), (true, &self.negative)] {
                for &(index, count) in side {
                    if bounds::exponential(index.saturating_sub(1), self.schema) >= threshold {
                        break;
                    }
                    total += count;
                    let upper = bounds::exponential(index, self.schema);
                    if upper > threshold {
                        if count != 0.0 {
                            threshold = upper;
                            if is_negative {
                                continue 'again;
                            }
                        }
                        break;
                    }
                }
            }
            return (total, threshold);
        }
    }

    /// Removes the buckets that are inside the zero bucket now.
    fn trim_zero(&mut self) {
        let (threshold, schema) = (self.zero_threshold, self.schema);
        for side in [&mut self.positive, &mut self.negative] {
            side.retain(|&(index, count)| {
                count != 0.0 && bounds::exponential(index.saturating_sub(1), schema) >= threshold
            });
        }
    }

    /// What a counter that held `self` would have in a zero bucket up to `threshold`, and how far
    /// that would have to reach; for [`super::detects_reset`].
    pub(super) fn zero_up_to(histogram: &Histogram, threshold: f64) -> (f64, f64) {
        if threshold == histogram.zero_threshold {
            return (histogram.zero_count, threshold);
        }
        Self::from(histogram).zero_bucket(threshold)
    }
}

/// Applies `op` bucket by bucket; a bucket only `other` has is added to `own`.
fn merge(
    own: &mut Vec<(i32, f64)>,
    other: &[(i32, f64)],
    skip: impl Fn(i32) -> bool,
    op: fn(f64, f64) -> f64,
) {
    let first = other.iter().take_while(|(index, _)| skip(*index)).count();
    let other = &other[first..];
    let same_layout = own.len() == other.len() && own.iter().zip(other).all(|(a, b)| a.0 == b.0);
    if same_layout {
        for ((_, own), (_, other)) in own.iter_mut().zip(other) {
            *own = op(*own, *other);
        }
        return;
    }
    let mut merged = Vec::with_capacity(own.len() + other.len());
    let (mut own_left, mut other_left) = (own.iter().peekable(), other.iter().peekable());
    loop {
        let order = match (own_left.peek(), other_left.peek()) {
            (Some(own), Some(other)) => own.0.cmp(&other.0),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => break,
        };
        let own = if order.is_le() { own_left.next() } else { None };
        let other = if order.is_ge() {
            other_left.next()
        } else {
            None
        };
        merged.extend(match (own, other) {
            (Some(&(index, own)), Some(&(_, other))) => Some((index, op(own, other))),
            (Some(&own), None) => Some(own),
            (None, Some(&(index, other))) => Some((index, op(0.0, other))),
            (None, None) => None,
        });
    }
    *own = merged;
}

/// The buckets of a coarser schema.
pub(super) fn reduced(side: &[(i32, f64)], from: i32, to: i32) -> Vec<(i32, f64)> {
    let mut reduced: Vec<(i32, f64)> = Vec::with_capacity(side.len());
    for &(index, count) in side {
        let index = (index.saturating_sub(1) >> (from - to)) + 1;
        match reduced.last_mut() {
            Some(last) if last.0 == index => last.1 += count,
            _ => reduced.push((index, count)),
        }
    }
    reduced
}

fn hint_of_sum(a: ResetHint, b: ResetHint) -> ResetHint {
    match (a, b) {
        (a, b) if a == b => a,
        (ResetHint::Gauge, _) | (_, ResetHint::Gauge) => ResetHint::Gauge,
        _ => ResetHint::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use model::histogram::Span;

    use super::*;

    fn of(schema: i32, offset: i32, counts: &[f64]) -> Sum {
        let histogram = Histogram {
            schema,
            count: counts.iter().sum(),
            positive_spans: vec![Span {
                offset,
                length: counts.len() as u32,
            }],
            positive_buckets: counts.to_vec(),
            ..Histogram::default()
        };
        Sum::from(&histogram)
    }

    #[test]
    fn sums_have_the_coarser_schema() {
        let mut sum = of(1, 1, &[1.0, 2.0, 4.0]);
        sum.add(&of(0, 2, &[1.0])).unwrap();
        assert_eq!(sum.schema, 0);
        assert_eq!(sum.positive, [(1, 3.0), (2, 5.0)]);
        assert_eq!(sum.count, 8.0);
    }

    #[test]
    fn a_zero_bucket_grows_to_the_end_of_what_it_cuts() {
        let mut wide = Sum {
            zero_threshold: 3.0,
            zero_count: 5.0,
            ..of(0, 3, &[1.0])
        };
        // Buckets up to 1, 2, 4: 3 is inside the last one, so zero reaches to 4.
        wide.add(&of(0, 0, &[1.0, 1.0, 1.0])).unwrap();
        assert_eq!((wide.zero_threshold, wide.zero_count), (4.0, 8.0));
        assert_eq!(wide.positive, [(3, 1.0)]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let custom = |bounds: &[f64]| Sum {
            custom_values: bounds.to_vec(),
            ..of(model::histogram::CUSTOM_SCHEMA, 0, &[1.0])
        };
        let mut sum = of(0, 0, &[1.0]);
        assert_eq!(sum.add(&custom(&[1.0])), Err(Incompatible::Schema));
        let mut sum = custom(&[1.0]);
        assert_eq!(sum.subtract(&custom(&[2.0])), Err(Incompatible::Bounds));
        assert_eq!(sum.subtract(&custom(&[1.0])), Ok(()));
        assert_eq!(sum.into_histogram().positive_buckets, [0.0; 0]);
    }
}
