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
    pub fn add(&mut self, value: f64) {
        self.count += 1.0;
        if !self.is_incremental {
            let mut sum = self.sum;
            sum.add(value);
            if self.count == 1.0 {
                // The first value is the sum, whatever it is.
                self.sum = Sum {
                    sum: value,
                    error: 0.0,
                };
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
    use super::*;

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
