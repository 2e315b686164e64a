//! Exponentials, circular and hyperbolic functions in the steps of Go's library, which Prometheus calls:
//! the machine's own differ from it in the last digit now and then, and Prometheus' answers are compared as text.
//!
//! Sources: SLEEF (Shibata, 2010) for the exponential, as Go takes it on amd64; the Cephes library (Moshier,
//! 1989) for the circular functions, their inverses and the hyperbolic ones; FreeBSD's msun (Sun
//! Microsystems, 1993) for the inverse hyperbolic ones; Payne and Hanek (1983) for angles far from zero.
//! Checked against Prometheus 3.5.3 on amd64 (`elementary.txt`).

use std::f64::consts::{FRAC_PI_2, FRAC_PI_4, LN_2, LOG2_E, PI};

use super::math::{ln, scale};

/// Also right where the result is no normal number any more.
pub(super) fn exp(value: f64) -> f64 {
    const LN2_HIGH: f64 = 0.693_147_180_559_663;
    const LN2_LOW: f64 = 2.823_529_056_303_157_7e-13;
    const OVERFLOW: f64 = 709.782_712_893_384;
    const UNDERFLOW: f64 = -745.2;
    /// One over the factorials from 8 down to 1.
    const TAYLOR: [f64; 8] = [
        2.480_158_730_158_73e-5,
        0.000_198_412_698_412_698_4,
        0.001_388_888_888_888_889,
        0.008_333_333_333_333_333,
        0.041_666_666_666_666_664,
        0.166_666_666_666_666_66,
        0.5,
        1.0,
    ];
    if !(UNDERFLOW..=OVERFLOW).contains(&value) {
        return value.exp();
    }
    let whole = (value * LOG2_E).round_ties_even();
    let rest = whole.mul_add(-LN2_LOW, whole.mul_add(-LN2_HIGH, value)) * 0.0625;
    let series = TAYLOR
        .iter()
        .skip(1)
        .fold(TAYLOR[0], |sum, factor| sum.mul_add(rest, *factor));
    // What is left of the exponential without its one is squared four times; the one comes back last.
    let mut power = rest * series;
    for _ in 0..3 {
        power *= power + 2.0;
    }
    scale(power.mul_add(power + 2.0, 1.0), whole as i32)
}

pub(super) fn sin(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value.sin();
    }
    let (octant, rest) = octant(value.abs());
    let size = match octant & 3 {
        1 | 2 => near_cosine(rest),
        _ => near_sine(rest),
    };
    negated_if((octant > 3) != (value < 0.0), size)
}

pub(super) fn cos(value: f64) -> f64 {
    if !value.is_finite() {
        return value.cos();
    }
    let (octant, rest) = octant(value.abs());
    let size = match octant & 3 {
        1 | 2 => near_sine(rest),
        _ => near_cosine(rest),
    };
    negated_if((octant > 3) != (octant & 3 > 1), size)
}

pub(super) fn tan(value: f64) -> f64 {
    const P: [f64; 3] = [
        -13_093.693_918_138_373,
        1_153_516.648_385_874_2,
        -17_956_525.197_648_488,
    ];
    const Q: [f64; 5] = [
        1.0,
        13_681.296_347_069_296,
        -1_320_892.344_402_109_7,
        25_008_380.182_335_79,
        -53_869_575.592_945_464,
    ];
    if value == 0.0 || !value.is_finite() {
        return value.tan();
    }
    let (octant, rest) = octant(value.abs());
    let square = rest * rest;
    let mut size = rest;
    if square > 1e-14 {
        size += rest * (square * polynomial(square, &P) / polynomial(square, &Q));
    }
    if octant & 2 == 2 {
        size = -1.0 / size;
    }
    negated_if(value < 0.0, size)
}

fn negated_if(is_negative: bool, value: f64) -> f64 {
    if is_negative { -value } else { value }
}

fn polynomial(at: f64, factors: &[f64]) -> f64 {
    let mut factors = factors.iter();
    let first = factors.next().copied().unwrap_or_default();
    factors.fold(first, |sum, factor| sum * at + factor)
}

/// Of an angle within an eighth of the circle around zero.
fn near_sine(angle: f64) -> f64 {
    const FACTORS: [f64; 6] = [
        1.589_623_015_765_465_6e-10,
        -2.505_074_776_285_780_7e-8,
        2.755_731_362_138_572_2e-6,
        -0.000_198_412_698_295_895_4,
        0.008_333_333_333_322_118,
        -0.166_666_666_666_666_3,
    ];
    let square = angle * angle;
    angle + angle * square * polynomial(square, &FACTORS)
}

fn near_cosine(angle: f64) -> f64 {
    const FACTORS: [f64; 6] = [
        -1.135_853_652_138_768_2e-11,
        2.087_570_084_197_473e-9,
        -2.755_731_417_929_674e-7,
        2.480_158_728_885_170_4e-5,
        -0.001_388_888_888_887_305_6,
        0.041_666_666_666_666_595,
    ];
    let square = angle * angle;
    1.0 - 0.5 * square + square * square * polynomial(square, &FACTORS)
}

/// In which eighth of the circle a positive angle lies, made even, and how far from where that begins.
fn octant(angle: f64) -> (u64, f64) {
    /// A quarter of π, in three parts.
    const PARTS: [f64; 3] = [
        0.785_398_125_648_498_5,
        3.774_894_707_930_798e-8,
        2.695_151_429_079_059_5e-15,
    ];
    const FAR: f64 = (1_u64 << 29) as f64;
    if angle >= FAR {
        return far_octant(angle);
    }
    let mut octant = (angle * (4.0 / PI)) as u64;
    octant += octant & 1;
    let rest = PARTS
        .iter()
        .fold(angle, |rest, part| rest - octant as f64 * part);
    (octant & 7, rest)
}

/// The same where the parts above would not do: by as many digits of 4/π as count for the angle.
fn far_octant(angle: f64) -> (u64, f64) {
    let bits = angle.to_bits();
    let place = (bits >> 52) as usize + 61 - 1023 - 52;
    let mantissa = u128::from(bits << 12 >> 12 | 1 << 52);
    let digit = |at: usize| u128::from(FOUR_OVER_PI[place / 64 + at]);
    let digits = |at: usize| ((digit(at) << 64 | digit(at + 1)) << (place % 64)) >> 64;
    let sum = ((digits(0) * mantissa) << 64)
        .wrapping_add(digits(1) * mantissa)
        .wrapping_add((digits(2) * mantissa) >> 64);
    let octant = (sum >> 125) as u64;
    let high = (sum >> 61) as u64;
    let zeros = high.leading_zeros();
    // As Go does, which takes the lower digits as they were before the octant left.
    let fraction = (u128::from(high) << 64 | sum & u128::from(u64::MAX)) << zeros << 1;
    let rest = f64::from_bits((fraction >> 76) as u64 | u64::from(1022 - zeros) << 52);
    match octant & 1 {
        1 => ((octant + 1) & 7, (rest - 1.0) * FRAC_PI_4),
        _ => (octant, rest * FRAC_PI_4),
    }
}

/// 4/π: a whole one, then the digits behind the point.
const FOUR_OVER_PI: [u64; 20] = [
    0x0000_0000_0000_0001,
    0x45f3_06dc_9c88_2a53,
    0xf84e_afa3_ea69_bb81,
    0xb6c5_2b32_7887_2083,
    0xfca2_c757_bd77_8ac3,
    0x6e48_dc74_849b_a5c0,
    0x0c92_5dd4_13a3_2439,
    0xfc3b_d639_6253_4e7d,
    0xd104_6bea_5d76_8909,
    0xd338_e04d_68be_fc82,
    0x7323_ac73_06a6_73e9,
    0x3908_bf17_7bf2_5076,
    0x3ff1_2fff_bc0b_301f,
    0xde5e_2316_b414_da3e,
    0xda6c_fd9e_4f96_136e,
    0x9e8c_7ecd_3cbf_d45a,
    0xea4f_758f_d7cb_e2f6,
    0x7a0e_73ef_14a5_25d4,
    0xd7f6_bf62_3f1a_ba10,
    0xac06_608d_f8f6_d757,
];

pub(super) fn atan(value: f64) -> f64 {
    if value == 0.0 || value.is_nan() {
        return value;
    }
    positive_atan(value.abs()).copysign(value)
}

pub(in crate::eval) fn atan2(y: f64, x: f64) -> f64 {
    let is_special = |value: f64| value == 0.0 || !value.is_finite();
    if is_special(x) || is_special(y) {
        return y.atan2(x);
    }
    match atan(y / x) {
        angle if x > 0.0 => angle,
        angle if angle <= 0.0 => angle + PI,
        angle => angle - PI,
    }
}

pub(super) fn asin(value: f64) -> f64 {
    let size = value.abs();
    if value == 0.0 || size.is_nan() || size > 1.0 {
        return value.asin();
    }
    let root = (1.0 - size * size).sqrt();
    let angle = match size > 0.7 {
        true => FRAC_PI_2 - positive_atan(root / size),
        false => positive_atan(size / root),
    };
    angle.copysign(value)
}

pub(super) fn acos(value: f64) -> f64 {
    FRAC_PI_2 - asin(value)
}

fn positive_atan(value: f64) -> f64 {
    /// What π/2 is more than its float.
    const MORE: f64 = 6.123_233_995_736_766e-17;
    const TAN_3_PI_8: f64 = 2.414_213_562_373_095;
    if value <= 0.66 {
        near_atan(value)
    } else if value > TAN_3_PI_8 {
        FRAC_PI_2 - near_atan(1.0 / value) + MORE
    } else {
        FRAC_PI_4 + near_atan((value - 1.0) / (value + 1.0)) + 0.5 * MORE
    }
}

fn near_atan(value: f64) -> f64 {
    const P: [f64; 5] = [
        -0.875_060_860_003_190_4,
        -16.157_537_187_333_652,
        -75.008_557_923_147_05,
        -122.886_668_449_013_61,
        -64.850_219_049_420_25,
    ];
    const Q: [f64; 6] = [
        1.0,
        24.858_464_901_423_062,
        165.027_009_831_698_85,
        432.881_060_491_290_27,
        485.390_399_635_913_7,
        194.550_657_148_261_4,
    ];
    let square = value * value;
    value * (square * polynomial(square, &P) / polynomial(square, &Q)) + value
}

/// From where on the other exponential no longer counts. Half of the one overflows before the function does.
const HALF_IS_ALL: f64 = 21.0;

pub(super) fn sinh(value: f64) -> f64 {
    const P: [f64; 4] = [
        -26.305_632_133_974_97,
        -2_894.211_355_989_564,
        -89_912.720_220_395_09,
        -630_767.364_049_771_7,
    ];
    const Q: [f64; 4] = [
        1.0,
        -173.678_953_558_233_7,
        15_215.173_787_900_19,
        -630_767.364_049_771_7,
    ];
    let size = value.abs();
    let result = if size > HALF_IS_ALL {
        exp(size) * 0.5
    } else if size > 0.5 {
        let power = exp(size);
        (power - 1.0 / power) * 0.5
    } else {
        let square = size * size;
        polynomial(square, &P) * size / polynomial(square, &Q)
    };
    result.copysign(value)
}

pub(super) fn cosh(value: f64) -> f64 {
    let power = exp(value.abs());
    match value.abs() > HALF_IS_ALL {
        true => power * 0.5,
        false => (power + 1.0 / power) * 0.5,
    }
}

pub(super) fn tanh(value: f64) -> f64 {
    const P: [f64; 3] = [
        -0.964_399_179_425_052_3,
        -99.287_723_100_191_85,
        -1_614.687_684_417_084_5,
    ];
    const Q: [f64; 4] = [
        1.0,
        112.811_678_491_632_93,
        2_235.488_390_601_004_5,
        4_844.063_053_251_255,
    ];
    const IS_ONE: f64 = 44.014_845_965_556_525;
    let size = value.abs();
    if size > IS_ONE {
        1_f64.copysign(value)
    } else if size >= 0.625 {
        (1.0 - 2.0 / (exp(2.0 * size) + 1.0)).copysign(value)
    } else if value == 0.0 {
        value
    } else {
        let square = value * value;
        value + value * square * polynomial(square, &P) / polynomial(square, &Q)
    }
}

/// From where on a square is no different without its one; below the inverse, the function from its argument.
const LARGE: f64 = (1_u64 << 28) as f64;

pub(super) fn asinh(value: f64) -> f64 {
    if !value.is_finite() {
        return value;
    }
    let size = value.abs();
    let root = (size * size + 1.0).sqrt();
    let result = if size > LARGE {
        ln(size) + LN_2
    } else if size > 2.0 {
        ln(2.0 * size + 1.0 / (root + size))
    } else if size < 1.0 / LARGE {
        size
    } else {
        (size + size * size / (1.0 + root)).ln_1p()
    };
    result.copysign(value)
}

pub(super) fn acosh(value: f64) -> f64 {
    if value.is_nan() || value <= 1.0 {
        return value.acosh();
    }
    if value >= LARGE {
        return ln(value) + LN_2;
    }
    if value > 2.0 {
        return ln(2.0 * value - 1.0 / (value + (value * value - 1.0).sqrt()));
    }
    let beyond = value - 1.0;
    (beyond + (2.0 * beyond + beyond * beyond).sqrt()).ln_1p()
}

pub(super) fn atanh(value: f64) -> f64 {
    let size = value.abs();
    if size.is_nan() || size >= 1.0 {
        return value.atanh();
    }
    let double = size + size;
    let result = if size < 1.0 / LARGE {
        size
    } else if size < 0.5 {
        0.5 * (double + double * size / (1.0 - size)).ln_1p()
    } else {
        0.5 * (double / (1.0 - size)).ln_1p()
    };
    result.copysign(value)
}

#[cfg(test)]
mod tests {
    use super::super::math::{of_one_value, pow};
    use super::*;

    /// The function, its arguments, and what Prometheus 3.5.3 says to `vector(…)` of them, on amd64.
    #[test]
    fn results_are_those_of_prometheus_to_the_last_digit() {
        let lines = include_str!("elementary.txt").lines().skip(1);
        let mut asked = 0;
        for line in lines {
            let (name, numbers) = line.split_once(' ').expect("a function's name");
            let numbers: Vec<f64> = numbers.split(' ').map(|n| n.parse().unwrap()).collect();
            let (result, expected) = match (name, numbers.as_slice()) {
                ("atan2", &[y, x, expected]) => (atan2(y, x), expected),
                ("pow", &[base, exponent, expected]) => (pow(base, exponent), expected),
                (name, &[value, expected]) => (of_one_value(name).unwrap()(value), expected),
                _ => panic!("{line}"),
            };
            let is_same = result == expected || result.is_nan() && expected.is_nan();
            assert!(is_same, "{line}, not {result}");
            asked += 1;
        }
        assert!(asked > 500, "only {asked}");
    }

    #[test]
    fn ends_are_those_of_the_machine() {
        for value in [
            0.0,
            -0.0,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
            1.0,
            -1.0,
            5e-324,
            f64::MAX,
        ] {
            type Pair = (fn(f64) -> f64, fn(f64) -> f64);
            let pairs: [Pair; 7] = [
                (exp, f64::exp),
                (atan, f64::atan),
                (asin, f64::asin),
                (sinh, f64::sinh),
                (cosh, f64::cosh),
                (tanh, f64::tanh),
                (atanh, f64::atanh),
            ];
            for (ours, other) in pairs {
                let (ours, other) = (ours(value), other(value));
                let is_near = (ours - other).abs() <= other.abs() * 1e-15;
                assert!(
                    ours.to_bits() == other.to_bits() || is_near || ours.is_nan() && other.is_nan()
                );
            }
        }
    }
}
