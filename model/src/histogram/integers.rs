//! The integers of a histogram whose floats do not tell them.
//!
//! What stays true: they stand beside the floats only where one of them is no float, and each float
//! is the one nearest to its integer. So whoever computes with floats need not know of them, and whoever
//! changes the floats of a histogram takes its integers away.

use super::{Histogram, InvalidHistogram};

/// Counts as they came; those of buckets are absolute, one for each bucket of the spans.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Integers {
    pub count: u64,
    pub zero_count: u64,
    pub positive_buckets: Vec<i64>,
    pub negative_buckets: Vec<i64>,
}

impl Integers {
    /// Whether floats tell every one of them.
    fn are_floats(&self) -> bool {
        let mut buckets = self.positive_buckets.iter().chain(&self.negative_buckets);
        is_float(self.count)
            && is_float(self.zero_count)
            && buckets.all(|count| is_float(count.unsigned_abs()))
    }

    fn len(&self) -> usize {
        self.positive_buckets.len() + self.negative_buckets.len()
    }
}

impl Histogram {
    /// Makes these its counts.
    pub fn set_integers(&mut self, integers: Integers) {
        self.is_integer = true;
        self.count = integers.count as f64;
        self.zero_count = integers.zero_count as f64;
        // Lists of integers become lists of floats in their place, but not those to be kept.
        let kept = (!integers.are_floats()).then(|| Box::new(integers.clone()));
        self.positive_buckets = floats(integers.positive_buckets);
        self.negative_buckets = floats(integers.negative_buckets);
        self.integers = kept;
    }

    /// How much it counts, of an integer histogram.
    pub fn whole_count(&self) -> u64 {
        let kept = self.integers.as_ref().map(|integers| integers.count);
        kept.unwrap_or(self.count as u64)
    }

    /// How much its zero bucket counts, of an integer histogram.
    pub fn whole_zero_count(&self) -> u64 {
        let kept = self.integers.as_ref().map(|integers| integers.zero_count);
        kept.unwrap_or(self.zero_count as u64)
    }

    /// What the buckets above zero count, of an integer histogram.
    pub fn whole_positive(&self) -> impl Iterator<Item = i64> {
        let kept = self.integers.as_deref().map(|i| &i.positive_buckets[..]);
        whole(kept, &self.positive_buckets)
    }

    /// What the buckets below zero count, of an integer histogram.
    pub fn whole_negative(&self) -> impl Iterator<Item = i64> {
        let kept = self.integers.as_deref().map(|i| &i.negative_buckets[..]);
        whole(kept, &self.negative_buckets)
    }

    /// Checks what stays true of integers and floats.
    pub(super) fn validate_integers(&self) -> Result<(), InvalidHistogram> {
        let Some(integers) = &self.integers else {
            return Ok(());
        };
        let same = |kept: &[i64], floats: &[f64]| {
            kept.len() == floats.len() && kept.iter().zip(floats).all(|(k, f)| *k as f64 == *f)
        };
        let agree = self.is_integer
            && integers.count as f64 == self.count
            && integers.zero_count as f64 == self.zero_count
            && same(&integers.positive_buckets, &self.positive_buckets)
            && same(&integers.negative_buckets, &self.negative_buckets);
        match agree && !integers.are_floats() {
            true => Ok(()),
            false => Err(InvalidHistogram("integers beside other floats")),
        }
    }

    /// What integers beside the floats hold in memory, in bytes, about.
    pub(super) fn integers_size(&self) -> usize {
        let size = |integers: &Integers| size_of::<Integers>() + 8 * integers.len();
        self.integers.as_deref().map_or(0, size)
    }
}

/// Whether a float has this value: its bits from the first to the last one set are no more than fit.
fn is_float(value: u64) -> bool {
    value == 0 || value.leading_zeros() + value.trailing_zeros() >= u64::BITS - f64::MANTISSA_DIGITS
}

fn floats(integers: Vec<i64>) -> Vec<f64> {
    integers.into_iter().map(|count| count as f64).collect()
}

/// One of the lists is as long as the other, or there is no `kept`.
fn whole<'a>(kept: Option<&'a [i64]>, floats: &'a [f64]) -> impl Iterator<Item = i64> + 'a {
    let floats = floats.iter().enumerate();
    floats.map(move |(at, float)| {
        let kept = kept.and_then(|kept| kept.get(at)).copied();
        kept.unwrap_or(*float as i64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_told_from_what_is_between_them() {
        let exact = 1u64 << 53;
        for value in [0, 1, exact - 1, exact, exact + 2, 1 << 63, u64::MAX << 11] {
            assert!(is_float(value), "{value}");
        }
        for value in [
            exact + 1,
            exact + 3,
            (1 << 63) + 1,
            u64::MAX,
            u64::MAX << 10,
        ] {
            assert!(!is_float(value), "{value}");
        }
    }

    #[test]
    fn integers_are_kept_where_floats_do_not_tell_them() {
        let integers = |count| Integers {
            count,
            zero_count: 3,
            positive_buckets: vec![1, i64::MAX],
            negative_buckets: vec![(1 << 53) + 1],
        };
        let mut histogram = Histogram::default();
        histogram.set_integers(integers(u64::MAX));
        assert_eq!(histogram.integers.as_deref(), Some(&integers(u64::MAX)));
        assert_eq!(histogram.count, 2f64.powi(64));
        assert_eq!(histogram.positive_buckets, [1.0, 2f64.powi(63)]);
        assert_eq!(histogram.whole_count(), u64::MAX);
        assert_eq!(histogram.whole_zero_count(), 3);
        assert!(histogram.whole_positive().eq([1, i64::MAX]));
        assert!(histogram.whole_negative().eq([(1 << 53) + 1]));
        assert_eq!(histogram.validate_integers(), Ok(()));

        histogram.count = 1.0;
        assert!(histogram.validate_integers().is_err());
        histogram.set_integers(Integers {
            count: 1 << 60,
            zero_count: 0,
            positive_buckets: vec![1 << 60],
            negative_buckets: Vec::new(),
        });
        assert_eq!(histogram.integers, None);
        assert!(histogram.whole_positive().eq([1 << 60]));
    }
}
