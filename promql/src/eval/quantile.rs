//! The φ-quantile of plain values.

use std::cmp::Ordering;

/// Interpolates between the two values next to the rank. NaNs count as smallest.
pub(crate) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    let rank = match Rank::of(q, values.len()) {
        Ok(rank) => rank,
        Err(whatever) => return whatever,
    };
    match values.iter().any(|value| value.is_nan()) {
        true => values.sort_by(nan_first),
        // The same order by one comparison.
        false => values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal)),
    }
    rank.between(values[rank.lower], values[rank.upper])
}

/// The two values, by their places in order, between which a quantile lies.
pub(crate) struct Rank {
    pub lower: usize,
    pub upper: usize,
    weight: f64,
}

impl Rank {
    /// Of so many values; where none is looked at, the quantile.
    pub fn of(q: f64, len: usize) -> Result<Self, f64> {
        if len == 0 || q.is_nan() {
            return Err(f64::NAN);
        }
        if q < 0.0 {
            return Err(f64::NEG_INFINITY);
        }
        if q > 1.0 {
            return Err(f64::INFINITY);
        }
        let last = (len - 1) as f64;
        let rank = q * last;
        let lower = rank.floor().max(0.0);
        Ok(Self {
            lower: lower as usize,
            upper: (lower + 1.0).min(last) as usize,
            weight: rank - rank.floor(),
        })
    }

    /// The quantile, of the values at these places.
    pub fn between(&self, lower: f64, upper: f64) -> f64 {
        lower * (1.0 - self.weight) + upper * self.weight
    }
}

/// Ascending, NaNs before all.
pub(crate) fn nan_first(a: &f64, b: &f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_between_values_are_interpolated() {
        assert_eq!(quantile(0.5, &mut [4.0, 0.0, 1.0]), 1.0);
        assert_eq!(quantile(0.75, &mut [4.0, 0.0, 1.0]), 2.5);
        assert_eq!(quantile(1.0, &mut [7.0]), 7.0);
        assert_eq!(quantile(-1.0, &mut [7.0]), f64::NEG_INFINITY);
        assert_eq!(quantile(1.1, &mut [7.0]), f64::INFINITY);
        assert!(quantile(0.5, &mut []).is_nan());
        assert!(quantile(0.0, &mut [1.0, f64::NAN]).is_nan());
    }
}
