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

    fn over(self, count: usize) -> f64 {
        let count = count as f64;
        self.sum / count + self.error / count
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
    pub fn run_on(mut self, values: &[f64]) -> Option<Self> {
        values.iter().for_each(|&value| self.add_finite(value));
        (self.sum.is_finite() && self.error.is_finite()).then_some(self)
    }

    #[inline]
    fn add_finite(&mut self, value: f64) {
        let total = self.sum + value;
        let part = total - self.sum;
        self.error += (self.sum - (total - part)) + (value - part);
        self.sum = total;
    }

    /// [`Self::run_on`] of as many sums as there are lanes.
    fn run_lanes(mut sums: [Self; LANES], values: [&[f64]; LANES]) -> [Option<Self>; LANES] {
        let shortest = values.iter().map(|values| values.len()).min();
        let shortest = shortest.unwrap_or_default();
        let heads = values.map(|values| &values[..shortest]);
        for at in 0..shortest {
            for (sum, head) in sums.iter_mut().zip(heads) {
                sum.add_finite(head[at]);
            }
        }
        std::array::from_fn(|lane| sums[lane].run_on(&values[lane][shortest..]))
    }

    /// [`Self::of`] each of `values`, side by side.
    pub fn of_lanes(values: [&[f64]; LANES]) -> [Self; LANES] {
        let sums = Self::run_lanes(Default::default(), values);
        std::array::from_fn(|lane| sums[lane].unwrap_or_else(|| Self::of(values[lane])))
    }
}

/// Sums taken side by side: one waits for the addition before it, others need not.
pub(crate) const LANES: usize = 4;

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
            return sum.over(values.len());
        }
        let mut mean = Self::default();
        values.iter().for_each(|&v| mean.add(v));
        mean.value()
    }

    /// [`Self::of`] each of `values`, side by side.
    pub fn of_lanes(values: [&[f64]; LANES]) -> [f64; LANES] {
        let first = values.map(|values| Sum::beginning(values[0]));
        let sums = Sum::run_lanes(first, values.map(|values| &values[1..]));
        std::array::from_fn(|lane| match sums[lane] {
            Some(sum) => sum.over(values[lane].len()),
            None => Self::of(values[lane]),
        })
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

        #[test]
        fn side_by_side_is_as_alone(
            all in prop::array::uniform4(prop::collection::vec(values(), 1..40)),
        ) {
            let all = all.each_ref().map(|values| &values[..]);
            let bits = |value: f64| if value.is_nan() { 0 } else { value.to_bits() };
            let sums = Sum::of_lanes(all).map(|sum| bits(sum.value()));
            prop_assert_eq!(sums, all.map(|values| bits(Sum::of(values).value())));
            let means = Mean::of_lanes(all).map(bits);
            prop_assert_eq!(means, all.map(|values| bits(Mean::of(values))));
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
