//! Floats that are decimals of few places, as whole numbers.
//!
//! What is measured is mostly counted or has few places. A float `v` has the digits `d` at so many
//! places when `d / 10^places`, one IEEE division, gives the bits of `v`: nothing is lost, and every
//! machine finds the same. Digits are below 2^50 in amount: then `v * 10^places` is nearer than a
//! quarter to them, so that there are no others.

/// More than seconds have down to nanoseconds.
pub const PLACES_MAX: u8 = 9;
const DIGITS_MAX: u64 = 1 << 50;

const POWERS: [f64; PLACES_MAX as usize + 1] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// The digits of a float, if it is a decimal of so many places, at most [`PLACES_MAX`].
#[inline]
pub fn digits_of(bits: u64, places: u8) -> Option<i64> {
    let scaled = f64::from_bits(bits) * POWERS[usize::from(places)];
    let digits = (scaled + 0.5f64.copysign(scaled)) as i64;
    (bits_of(digits, places)? == bits).then_some(digits)
}

/// The float of these digits; `None` if they are too many.
#[inline]
pub fn bits_of(digits: i64, places: u8) -> Option<u64> {
    let value = digits as f64 / POWERS[usize::from(places)];
    (digits.unsigned_abs() < DIGITS_MAX).then_some(value.to_bits())
}

/// The fewest places, `from` or more, of which a float is a decimal.
pub fn places_of(bits: u64, from: u8) -> Option<u8> {
    (from..=PLACES_MAX).find(|places| digits_of(bits, *places).is_some())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals_are_told_from_other_numbers() {
        for (value, places) in [
            (0.0, Some(0)),
            (-17.0, Some(0)),
            (1e15, Some(0)),
            (0.3, Some(1)),
            (-1_234.56, Some(2)),
            (1e-9, Some(9)),
            (0.1 + 0.2, None),
            (-0.0, None),
            (2e15, None),
            (1e-10, None),
            (f64::NAN, None),
            (f64::INFINITY, None),
            (f64::NEG_INFINITY, None),
        ] {
            assert_eq!(places_of(value.to_bits(), 0), places, "{value}");
        }
        assert_eq!(places_of(0.3f64.to_bits(), 2), Some(2), "more do as well");
        assert_eq!(bits_of(1 << 50, 0), None);
    }

    proptest! {
        #[test]
        fn digits_come_back(digits in -(1i64 << 50) + 1..1 << 50, bits in 0u32..51, places in 0..=PLACES_MAX) {
            let digits = digits >> bits;
            let bits = bits_of(digits, places).unwrap();
            prop_assert_eq!(digits_of(bits, places), Some(digits));
        }
    }
}
