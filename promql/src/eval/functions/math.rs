//! Functions of single values.
//!
//! Where the standard library leaves the last bit to the platform (`log2`, `pow`, …) the steps are
//! those of Go's library, which Prometheus calls; see also [`elementary`].

use std::f64::consts::{FRAC_1_SQRT_2, LOG2_E, LOG10_E, PI};

use super::{ABSENT, Args, Columns, Evaluation, elementary, is_present};
use crate::error::QueryError;
use crate::plan::Grid;

/// Functions of one value and nothing else.
pub(super) fn of_one_value(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "ceil" => f64::ceil,
        "floor" => f64::floor,
        "exp" => elementary::exp,
        "ln" => ln,
        "log2" => log2,
        "log10" => |v| ln(v) * LOG10_E,
        "sqrt" => f64::sqrt,
        "sgn" => |v| {
            if v < 0.0 {
                -1.0
            } else if v > 0.0 {
                1.0
            } else {
                v
            }
        },
        "sin" => elementary::sin,
        "cos" => elementary::cos,
        "tan" => elementary::tan,
        "asin" => elementary::asin,
        "acos" => elementary::acos,
        "atan" => elementary::atan,
        "sinh" => elementary::sinh,
        "cosh" => elementary::cosh,
        "tanh" => elementary::tanh,
        "asinh" => elementary::asinh,
        "acosh" => elementary::acosh,
        "atanh" => elementary::atanh,
        "rad" => |v| v * PI / 180.0,
        "deg" => |v| v * 180.0 / PI,
        _ => return None,
    })
}

/// The natural logarithm in the steps of FreeBSD's `e_log.c` (Sun Microsystems, 1993), which Go
/// follows: the library's differs in the last bit now and then.
pub(super) fn ln(value: f64) -> f64 {
    const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    const L1: f64 = 6.666_666_666_666_735e-1;
    const L2: f64 = 3.999_999_999_940_942e-1;
    const L3: f64 = 2.857_142_874_366_239e-1;
    const L4: f64 = 2.222_219_843_214_978_4e-1;
    const L5: f64 = 1.818_357_216_161_805e-1;
    const L6: f64 = 1.531_383_769_920_937_3e-1;
    const L7: f64 = 1.479_819_860_511_658_6e-1;
    if !(value > 0.0 && value.is_finite()) {
        return value.ln();
    }
    let (mut fraction, mut exponent) = split(value);
    if fraction < FRAC_1_SQRT_2 {
        (fraction, exponent) = (fraction * 2.0, exponent - 1);
    }
    let (f, k) = (fraction - 1.0, f64::from(exponent));
    let s = f / (2.0 + f);
    let s2 = s * s;
    let s4 = s2 * s2;
    let odd = s2 * (L1 + s4 * (L3 + s4 * (L5 + s4 * L7)));
    let even = s4 * (L2 + s4 * (L4 + s4 * L6));
    let half_square = 0.5 * f * f;
    k * LN2_HIGH - ((half_square - (s * (half_square + (odd + even)) + k * LN2_LOW)) - f)
}

/// Exact for powers of two.
pub(crate) fn log2(value: f64) -> f64 {
    let (fraction, exponent) = split(value);
    if fraction == 0.5 {
        return f64::from(exponent - 1);
    }
    ln(fraction) * LOG2_E + f64::from(exponent)
}

/// `value = fraction · 2^exponent` with the fraction's magnitude in `0.5 .. 1`; zero, infinities
/// and NaN are their own fraction.
fn split(value: f64) -> (f64, i32) {
    if value == 0.0 || !value.is_finite() {
        return (value, 0);
    }
    let is_subnormal = value.abs() < f64::MIN_POSITIVE;
    let (value, shift) = if is_subnormal {
        (value * 2_f64.powi(52), -52)
    } else {
        (value, 0)
    };
    let bits = value.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32 - 1022;
    let fraction = f64::from_bits((bits & !(0x7ff << 52)) | (1022 << 52));
    (fraction, exponent + shift)
}

/// `fraction · 2^exponent`, in steps that do not overflow on the way.
pub(crate) fn scale(mut fraction: f64, mut exponent: i32) -> f64 {
    while exponent > 1000 && fraction.is_finite() && fraction != 0.0 {
        fraction *= 2_f64.powi(1000);
        exponent -= 1000;
    }
    if exponent < -1000 {
        let (own, shift) = split(fraction);
        if exponent + shift < -1100 {
            return 0.0_f64.copysign(fraction);
        }
        // One rounding only, at the last multiplication.
        return own * 2_f64.powi(exponent + shift + 200) * 2_f64.powi(-200);
    }
    fraction * 2_f64.powi(exponent)
}

/// `base` to the power of `exponent`: the fraction by exponential and logarithm, the whole part
/// by repeated squaring.
pub(in crate::eval) fn pow(base: f64, exponent: f64) -> f64 {
    let is_special = base == 0.0 || base == 1.0 || !base.is_finite();
    if is_special || exponent == 0.0 || exponent.abs() >= 1e9 || exponent.is_nan() {
        return base.powf(exponent);
    }
    let (mut whole, mut fraction) = (exponent.abs().trunc(), exponent.abs().fract());
    if exponent.abs() == 0.5 {
        let root = base.sqrt();
        return if exponent > 0.0 { root } else { 1.0 / root };
    }
    if fraction != 0.0 && base < 0.0 {
        return f64::NAN;
    }
    let (mut result, mut result_exponent) = (1.0, 0_i32);
    if fraction != 0.0 {
        if fraction > 0.5 {
            (whole, fraction) = (whole + 1.0, fraction - 1.0);
        }
        result = elementary::exp(fraction * ln(base));
    }
    let (mut square, mut square_exponent) = split(base);
    let mut left = whole as u64;
    while left != 0 {
        if square_exponent.abs() > 1 << 12 {
            // Far beyond what a float holds, either way.
            result_exponent += square_exponent;
            break;
        }
        if left & 1 == 1 {
            result *= square;
            result_exponent += square_exponent;
        }
        square *= square;
        square_exponent <<= 1;
        if square < 0.5 {
            square += square;
            square_exponent -= 1;
        }
        left >>= 1;
    }
    if exponent < 0.0 {
        result = 1.0 / result;
        result_exponent = -result_exponent;
    }
    scale(result, result_exponent)
}

/// The greater one; infinity beats NaN, and positive zero negative.
fn greater(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { b } else { a }
    } else {
        a.max(b)
    }
}

/// The smaller one; negative infinity beats NaN, and negative zero positive.
fn smaller(a: f64, b: f64) -> f64 {
    -greater(-a, -b)
}

impl Evaluation<'_> {
    pub(super) async fn clamp(
        &mut self,
        name: &str,
        mut args: Args,
    ) -> Result<Columns, QueryError> {
        let mut columns = args.vector();
        let first = args.scalar();
        let (least, most) = match name {
            "clamp_min" => (Some(first), None),
            "clamp_max" => (None, Some(first)),
            _ => (Some(first), Some(args.scalar())),
        };
        for column in &mut columns {
            column.drop_histograms();
            let bounded = self.pace.each(&mut column.values, |step, value| {
                let bound = |bounds: &Option<Vec<f64>>| bounds.as_ref().map(|b| b[step]);
                if is_present(*value) {
                    *value = clamped(*value, bound(&least), bound(&most));
                }
            });
            bounded.await?;
            self.drop_name(column);
        }
        columns.retain(super::Column::has_values);
        Ok(Columns::Vector(
            super::super::merge(columns, &mut self.pace).await?,
        ))
    }

    pub(super) async fn round(
        &mut self,
        mut args: Args,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        let mut columns = args.vector();
        let nearest = match args.maybe_scalar() {
            Some(nearest) => nearest,
            None => self.pace.filled(1.0, grid.steps).await?,
        };
        for column in &mut columns {
            column.drop_histograms();
            let rounded = self.pace.each(&mut column.values, |step, value| {
                if is_present(*value) {
                    // Multiplying by the inverse and dividing by it again keeps decimal steps
                    // like 0.1 accurate.
                    let inverse = 1.0 / nearest[step];
                    *value = (*value * inverse + 0.5).floor() / inverse;
                }
            });
            rounded.await?;
            self.drop_name(column);
        }
        Ok(Columns::Vector(
            super::super::merge(columns, &mut self.pace).await?,
        ))
    }
}

fn clamped(value: f64, least: Option<f64>, most: Option<f64>) -> f64 {
    match (least, most) {
        (Some(least), Some(most)) if most < least => ABSENT,
        (Some(least), Some(most)) => greater(least, smaller(most, value)),
        (Some(least), None) => greater(least, value),
        (None, Some(most)) => smaller(most, value),
        (None, None) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_of_powers_of_two_are_exact() {
        for exponent in [-1074, -1022, -1, 0, 1, 52, 1023] {
            assert_eq!(log2(scale(1.0, exponent)), f64::from(exponent));
        }
        assert_eq!(log2(0.0), f64::NEG_INFINITY);
        assert!(log2(-1.0).is_nan());
        assert_eq!(log2(f64::INFINITY), f64::INFINITY);
    }

    #[test]
    fn whole_powers_are_those_of_repeated_multiplication() {
        assert_eq!(pow(3.0, 4.0), 81.0);
        assert_eq!(pow(-2.0, 3.0), -8.0);
        assert_eq!(pow(2.0, -1074.0), 5e-324);
        assert_eq!(pow(10.0, -3.0), 0.001);
        assert_eq!(pow(2.0, 1023.0), 2_f64.powi(1023));
        assert_eq!(pow(2.0, 5000.0), f64::INFINITY);
        assert_eq!(pow(2.0, -5000.0), 0.0);
        assert_eq!(pow(-3.0, 9999.0), f64::NEG_INFINITY);
        assert_eq!(pow(1e-300, 123_456.0), 0.0);
        assert_eq!(pow(2.0, 0.5), 2_f64.sqrt());
        assert_eq!(pow(4.0, 1.5), 8.0);
        assert_eq!(pow(0.0, -1.0), f64::INFINITY);
        assert_eq!(pow(f64::NAN, 0.0), 1.0);
        assert!(pow(-8.0, 1.0 / 3.0).is_nan());
    }

    #[test]
    fn bounds_treat_nan_and_infinity_as_go_does() {
        assert_eq!(clamped(f64::NAN, Some(f64::INFINITY), None), f64::INFINITY);
        assert!(clamped(f64::NAN, Some(0.0), Some(1.0)).is_nan());
        assert_eq!(clamped(5.0, Some(0.0), Some(1.0)), 1.0);
        assert!(!is_present(clamped(5.0, Some(1.0), Some(0.0))));
    }
}
