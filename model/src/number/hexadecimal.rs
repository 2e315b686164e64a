//! Hexadecimal floats, as C and Go write them: `1.8p3` is 12.
//!
//! Promise: rounded once, to the nearest, ties to even, subnormal numbers too. Not here: the sign, the
//! `0x` in front, separators.

/// Bits of a float's mantissa, and the exponent of the smallest float.
const MANTISSA_BITS: i32 = 53;
const EXPONENT_MIN: i32 = -1074;
/// Larger exponents are as good as this one.
const EXPONENT_MAX: i32 = 100_000;

/// The exponent must be there. `None` for texts of other shapes and for what is too large.
pub(super) fn parse(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once(['p', 'P'])?;
    let (bits, scale) = digits(mantissa)?;
    let exponent = exponent_of(exponent)?;
    let value = rounded(bits, exponent.checked_add(scale)?);
    value.is_finite().then_some(value)
}

/// The number without its point, and the exponent that makes up for it. Digits that do not fit leave
/// a mark: whether any was not zero.
fn digits(text: &str) -> Option<(u128, i32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (mut bits, mut scale) = (0_u128, 0_i32);
    for (is_fraction, part) in [(false, whole), (true, fraction)] {
        for byte in part.chars() {
            let digit = u128::from(byte.to_digit(16)?);
            if bits >> 120 == 0 {
                bits = bits << 4 | digit;
                scale -= if is_fraction { 4 } else { 0 };
            } else {
                bits |= u128::from(digit != 0);
                scale = scale.checked_add(if is_fraction { 0 } else { 4 })?;
            }
        }
    }
    Some((bits, scale))
}

fn exponent_of(text: &str) -> Option<i32> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Too many digits to count are a large exponent.
    let size = digits.parse().unwrap_or(EXPONENT_MAX).min(EXPONENT_MAX);
    Some(if text.starts_with('-') { -size } else { size })
}

/// `bits · 2^exponent`.
fn rounded(bits: u128, exponent: i32) -> f64 {
    if bits == 0 {
        return 0.0;
    }
    let length = 128 - bits.leading_zeros() as i32;
    let last = (exponent.saturating_add(length - MANTISSA_BITS)).max(EXPONENT_MIN);
    if last.saturating_add(MANTISSA_BITS) > 1025 {
        return f64::INFINITY;
    }
    let kept = match last.saturating_sub(exponent) {
        dropped @ 1.. => half_to_even(bits, dropped as u32),
        added => (bits as u64) << -added,
    };
    // Both halves and what they make are floats: nothing is rounded again.
    kept as f64 * power(last / 2) * power(last - last / 2)
}

fn half_to_even(bits: u128, dropped: u32) -> u64 {
    if dropped > 127 {
        return 0;
    }
    let (kept, rest, half) = (
        bits >> dropped,
        bits & ((1 << dropped) - 1),
        1 << (dropped - 1),
    );
    let is_up = rest > half || rest == half && kept & 1 == 1;
    kept as u64 + u64::from(is_up)
}

/// `2^exponent` of a normal float.
fn power(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `strconv.ParseFloat` of Go, as Prometheus 3.5.3 shows it.
    #[test]
    fn values_are_those_of_go() {
        for (text, value) in [
            ("1p0", 1.0),
            ("1.8p1", 3.0),
            (".8P+1", 1.0),
            ("1.p-1", 0.5),
            ("0p99999999999", 0.0),
            ("1.fffffffffffffp1023", f64::MAX),
            ("1p-1074", 5e-324),
            ("1p-1075", 0.0),
            ("1.8p-1075", 5e-324),
            ("1p-99999999999", 0.0),
            ("20000000000001p0", 9_007_199_254_740_992.0),
            ("20000000000003p0", 9_007_199_254_740_996.0),
            (
                "20000000000001.0000000000000000000000000000001p0",
                9_007_199_254_740_994.0,
            ),
            ("100000000000000000000000000000000000p0", 2_f64.powi(140)),
        ] {
            assert_eq!(parse(text), Some(value), "{text}");
        }
        for text in [
            "", "1", "p1", ".p1", "1p", "1p+", "1p1.5", "1.1.1p1", "gp1", "1p1024", "1p99999",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_float_is_read_back(bits in any::<u64>()) {
            let value = f64::from_bits(bits & !(1 << 63));
            prop_assume!(value.is_finite());
            let (fraction, biased) = (bits & ((1 << 52) - 1), (bits >> 52 & 0x7ff) as i32);
            let text = match biased {
                0 => format!("0.{fraction:013x}p-1022"),
                _ => format!("1.{fraction:013x}p{}", biased - 1023),
            };
            prop_assert_eq!(parse(&text), Some(value), "{}", text);
        }
    }
}
