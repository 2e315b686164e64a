//! Sums and means that do not lose what is small, in the order of operations Prometheus uses.
//!
//! Kahan's compensated summation with Neumaier's improvement (A. Neumaier, 1974): the error of
//! every addition is kept beside the sum.

/// A sum and the error it has gathered.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Sum {
    pub sum: f64,
    pub error: f64,
}

impl Sum {
    pub fn add(&mut self, value: f64) {
        let total = self.sum + value;
        if total.is_infinite() {
            self.error = 0.0;
        } else if self.sum.abs() >= value.abs() {
            self.error += (self.sum - total) + value;
        } else {
            self.error += (value - total) + self.sum;
        }
        self.sum = total;
    }

    pub fn value(self) -> f64 {
        self.sum + self.error
    }

    fn beginning(first: f64) -> Self {
        Self {
            sum: first,
            error: 0.0,
        }
    }

    /// What adding all of `values` to nothing gives.
    pub fn of(values: &[f64]) -> Self {
        Self::default().run_on(values).unwrap_or_else(|| {
            let mut sum = Self::default();
            values.iter().for_each(|&v| sum.add(v));
            sum
        })
    }

    /// As adding one by one, without a branch: the error of an addition is the same number however
    /// it is found (D. E. Knuth, TAOCP vol. 2, 4.2.2, theorem B). `None` where something is not
    /// finite, or was on the way: then the order of operations tells.
    pub fn run_on(self, values: &[f64]) -> Option<Self> {
        let Self { mut sum, mut error } = self;
        for &value in values {
            let total = sum + value;
            let part = total - sum;
            error += (sum - (total - part)) + (value - part);
            sum = total;
        }
        (sum.is_finite() && error.is_finite()).then_some(Self { sum, error })
    }
}

/// A mean: the sum over the count, or, once the sum would overflow, a mean moved by every value.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Mean {
    count: f64,
    sum: Sum,
    /// Whether `sum` holds the mean itself.
    is_incremental: bool,
}

impl Mean {
    /// The mean of `values`, of which there is one at least.
    pub fn of(values: &[f64]) -> f64 {
        if let Some((&first, rest)) = values.split_first()
            && let Some(sum) = Sum::beginning(first).run_on(rest)
        {
            let count = values.len() as f64;
            return sum.sum / count + sum.error / count;
        }
        let mut mean = Self::default();
        values.iter().for_each(|&v| mean.add(v));
        mean.value()
    }

    pub fn add(&mut self, value: f64) {
        self.count += 1.0;
        if !self.is_incremental {
            let mut sum = self.sum;
            sum.add(value);
            if self.count == 1.0 {
                // The first value is the sum, whatever it is.
                self.sum = Sum::beginning(value);
                return;
            }
            if !sum.sum.is_infinite() {
                self.sum = sum;
                return;
            }
            self.is_incremental = true;
            self.sum.sum /= self.count - 1.0;
            self.sum.error /= self.count - 1.0;
        }
        let weight = (self.count - 1.0) / self.count;
        self.sum.sum *= weight;
        self.sum.error *= weight;
        self.sum.add(value / self.count);
    }

    pub fn value(self) -> f64 {
        if self.is_incremental {
            return self.sum.value();
        }
        self.sum.sum / self.count + self.sum.error / self.count
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> impl Strategy<Value = f64> {
        prop_oneof![
            8 => -1e6..1e6,
            4 => (any::<i32>(), -900i32..900).prop_map(|(m, e)| f64::from(m) * 2f64.powi(e)),
            2 => (0u32..50).prop_map(f64::from),
            1 => prop_oneof![Just(f64::MAX), Just(-f64::MAX), Just(-0.0), Just(f64::MIN_POSITIVE)],
            1 => prop_oneof![Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(f64::NAN)],
        ]
    }

    proptest! {
        #[test]
        fn many_at_once_are_as_one_by_one(values in prop::collection::vec(values(), 1..60)) {
            let (mut sum, mut mean) = (Sum::default(), Mean::default());
            for &value in &values {
                sum.add(value);
                mean.add(value);
            }
            let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            prop_assert!(same(Sum::of(&values).value(), sum.value()));
            prop_assert!(same(Mean::of(&values), mean.value()));
        }
    }

    #[test]
    fn small_values_survive_large_ones() {
        let mut sum = Sum::default();
        [1.0, 1e100, 1.0, -1e100]
            .into_iter()
            .for_each(|v| sum.add(v));
        assert_eq!(sum.value(), 2.0);
    }

    #[test]
    fn a_mean_survives_a_sum_that_overflows() {
        let mut mean = Mean::default();
        [f64::MAX; 3].into_iter().for_each(|v| mean.add(v));
        assert!((mean.value() / f64::MAX - 1.0).abs() < 1e-15);
        let mut mean = Mean::default();
        [f64::INFINITY, 1.0].into_iter().for_each(|v| mean.add(v));
        assert_eq!(mean.value(), f64::INFINITY);
    }
}
