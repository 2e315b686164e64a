//! Sums without an error, so that it does not matter who adds what first.
//!
//! A sum over series is computed in pieces, one a shard, and must not depend on how series lie on
//! shards. So it is kept exactly: three floats for every instant, each the error of adding to the
//! one before (D. E. Knuth, TAOCP vol. 2, 4.2.2, theorem B), and where three do not hold it, as many
//! as it takes. What is handed out is rounded once (J. R. Shewchuk, "Adaptive Precision
//! Floating-Point Arithmetic", 1997).
//!
//! Prometheus adds in the order of the series and corrects by Kahan's method; that is nearly always
//! the exact sum too, see docs/adr/0011-parts-of-queries.md.

use super::is_present;

/// Values beyond this are not taken: a sum of them might overflow on its way.
const LARGE: f64 = 1e290;

/// Whether a value is one that [`Sums::add`] adds as it is: finite, and not too large.
pub(super) fn is_plain(value: f64) -> bool {
    value.abs() <= LARGE
}

/// A finite value is too large to be added exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// Sums of columns of values, instant by instant.
///
/// Invariant: at every instant the planes and the spill add up to exactly the sum of all finite
/// values, and `odd` is the sum of those that are not finite, or zero.
#[derive(Debug, Clone)]
pub(crate) struct Sums {
    planes: [Vec<f64>; 3],
    /// What three planes could not hold, by instant: empty for nearly all data.
    spill: Vec<(usize, f64)>,
    /// Empty until something is not finite.
    odd: Vec<f64>,
    /// What the column added last left over.
    left: Vec<f64>,
}

impl Sums {
    pub fn new(steps: usize) -> Self {
        Self {
            planes: std::array::from_fn(|_| vec![0.0; steps]),
            spill: Vec::new(),
            odd: Vec::new(),
            left: vec![0.0; steps],
        }
    }

    /// Adds the values that are there.
    pub fn add(&mut self, values: &[f64]) -> Result<(), TooLarge> {
        let [s, c, d] = &mut self.planes;
        let planes = s.iter_mut().zip(c).zip(d).zip(&mut self.left);
        let (mut over, mut is_plain) = (0.0, true);
        for (&value, (((s, c), d), left)) in values.iter().zip(planes) {
            // False for NaN too, so for what is absent.
            let is_small = value.abs() <= LARGE;
            is_plain &= is_small;
            let error = add_to(s, if is_small { value } else { 0.0 });
            let error = add_to(c, error);
            *left = add_to(d, error);
            over += left.abs();
        }
        if over != 0.0 {
            let left = self.left.iter().copied().enumerate();
            self.spill.extend(left.filter(|(_, left)| *left != 0.0));
        }
        match is_plain {
            true => Ok(()),
            false => self.add_odd(values),
        }
    }

    fn add_odd(&mut self, values: &[f64]) -> Result<(), TooLarge> {
        for (step, &value) in values.iter().enumerate() {
            if value.abs() <= LARGE || !is_present(value) {
                continue;
            }
            if value.is_finite() {
                return Err(TooLarge);
            }
            self.odd.resize(values.len(), 0.0);
            self.odd[step] += value;
        }
        Ok(())
    }

    /// Columns whose sum, taken by [`Sums::add`], is this one. At least one.
    pub fn into_columns(self) -> Vec<Vec<f64>> {
        let steps = self.left.len();
        let [s, c, d] = self.planes;
        let mut columns = vec![s];
        let rest = [c, d, self.odd].into_iter();
        columns.extend(rest.filter(|column| column.iter().any(|&v| v != 0.0)));
        let spilled = columns.len();
        for (step, value) in self.spill {
            let free = (spilled..columns.len()).find(|&at| columns[at][step] == 0.0);
            let at = free.unwrap_or_else(|| {
                columns.push(vec![0.0; steps]);
                columns.len() - 1
            });
            columns[at][step] = value;
        }
        columns
    }

    /// The sum at every instant as the nearest float, and what is then missing, as the nearest.
    pub fn rounded(&self) -> Vec<(f64, f64)> {
        let mut spill = self.spill.clone();
        spill.sort_by_key(|(step, _)| *step);
        let mut spill = spill.as_slice();
        let [s, c, d] = &self.planes;
        let mut sums = Vec::with_capacity(s.len());
        for step in 0..s.len() {
            let here = spill.partition_point(|(at, _)| *at == step);
            let (extra, later) = spill.split_at(here);
            spill = later;
            let odd = self.odd.get(step).copied().unwrap_or(0.0);
            sums.push(if !odd.is_finite() {
                (odd, 0.0)
            } else if d[step] == 0.0 && extra.is_empty() {
                let mut sum = s[step];
                let error = add_to(&mut sum, c[step]);
                (sum, error)
            } else {
                let extra = extra.iter().map(|(_, value)| *value);
                round([s[step], c[step], d[step]].into_iter().chain(extra))
            });
        }
        sums
    }
}

/// Adds `value`; the error of doing so. Exact for any finite floats that do not overflow.
fn add_to(sum: &mut f64, value: f64) -> f64 {
    let total = *sum + value;
    let added = total - *sum;
    let error = (*sum - (total - added)) + (value - added);
    *sum = total;
    error
}

/// The nearest float to the exact sum, and the nearest to what is then missing.
fn round(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let mut parts = expand(values);
    let sum = nearest(&parts);
    parts = expand(parts.into_iter().chain([-sum]));
    (sum, nearest(&parts))
}

/// The sum as floats whose bits do not overlap, smallest first (Shewchuk's GROW-EXPANSION).
fn expand(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut parts: Vec<f64> = Vec::new();
    for mut value in values {
        let mut kept = 0;
        for at in 0..parts.len() {
            let error = add_to(&mut value, parts[at]);
            if error != 0.0 {
                parts[kept] = error;
                kept += 1;
            }
        }
        parts.truncate(kept);
        parts.push(value);
    }
    parts
}

/// Rounds what [`expand`] made.
fn nearest(parts: &[f64]) -> f64 {
    let Some((&(mut sum), mut rest)) = parts.split_last() else {
        return 0.0;
    };
    let mut error = 0.0;
    while let Some((&next, smaller)) = rest.split_last() {
        rest = smaller;
        error = add_to(&mut sum, next);
        if error != 0.0 {
            break;
        }
    }
    // Halfway between two floats what comes further down decides.
    if let Some(&next) = rest.last()
        && (error > 0.0) == (next > 0.0)
    {
        let double = error * 2.0;
        let up = sum + double;
        if up - sum == double {
            return up;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ABSENT;
    use super::*;

    fn one(values: &[f64]) -> (f64, f64) {
        let mut sums = Sums::new(1);
        for &value in values {
            sums.add(&[value]).unwrap();
        }
        sums.rounded()[0]
    }

    #[test]
    fn nothing_is_lost() {
        assert_eq!(one(&[1.0, 1e100, 1.0, -1e100]).0, 2.0);
        assert_eq!(
            one(&[1e200, 1e100, 1.0, 1e-100, -1e200, -1e100, -1.0]).0,
            1e-100
        );
        assert_eq!(one(&[0.1; 10]).0, 1.0);
        assert_eq!(
            one(&[1.0, 2f64.powi(-53), 2f64.powi(-106)]).0,
            1.0 + f64::EPSILON
        );
        assert_eq!(one(&[1.0, 2f64.powi(-53)]), (1.0, 2f64.powi(-53)));
        assert_eq!(one(&[-0.0]).0.to_bits(), 0);
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        assert_eq!(one(&[1.0, f64::INFINITY]).0, f64::INFINITY);
        assert!(one(&[f64::NEG_INFINITY, f64::INFINITY]).0.is_nan());
        assert!(one(&[1.0, f64::NAN]).0.is_nan());
        assert_eq!(one(&[1.0, ABSENT]).0, 1.0);
        assert_eq!(Sums::new(1).add(&[1e300]), Err(TooLarge));
    }

    fn values() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => -1e6..1e6,
            2 => (any::<i32>(), -900i32..900).prop_map(|(m, e)| f64::from(m) * 2f64.powi(e)),
            1 => Just(f64::INFINITY),
            1 => Just(ABSENT),
        ]
    }

    proptest! {
        #[test]
        fn any_order_and_any_cut_gives_the_same_bits(
            mut columns in prop::collection::vec(prop::collection::vec(values(), 3), 1..30),
            cut in 0usize..30,
        ) {
            let whole = |columns: &[Vec<f64>]| {
                let mut sums = Sums::new(3);
                columns.iter().for_each(|c| sums.add(c).unwrap());
                sums
            };
            let bits = |sums: &Sums| -> Vec<_> {
                sums.rounded().iter().map(|(a, b)| (a.to_bits(), b.to_bits())).collect()
            };
            let expected = bits(&whole(&columns));
            let (left, right) = columns.split_at(cut.min(columns.len()));
            let mut parts = whole(left).into_columns();
            parts.extend(whole(right).into_columns());
            prop_assert_eq!(bits(&whole(&parts)), expected.clone());
            columns.reverse();
            prop_assert_eq!(bits(&whole(&columns)), expected);
        }
    }
}
