//! Powers of two as Go's `math.Exp2` computes them, to the last bit.
//!
//! The reduction and the polynomial are those of FreeBSD's `e_exp.c` (Sun Microsystems, 1993), which
//! Go follows, but for the first coefficient: Go has a sixth there.

const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
const P1: f64 = 1.666_666_666_666_666_6e-1;
const P2: f64 = -2.777_777_777_701_559_3e-3;
const P3: f64 = 6.613_756_321_437_934e-5;
const P4: f64 = -1.653_390_220_546_525_2e-6;
const P5: f64 = 4.138_136_797_057_238_5e-8;

/// `2^x`.
pub(crate) fn exp2(x: f64) -> f64 {
    if x.is_nan() || x == f64::INFINITY {
        return x;
    }
    if x > 1.023_999_999_999_999_9e3 {
        return f64::INFINITY;
    }
    if x < -1.0740e3 {
        return 0.0;
    }
    let whole = (x + 0.5_f64.copysign(x)).trunc();
    let rest = x - whole;
    let (high, low) = (rest * LN2_HIGH, -rest * LN2_LOW);
    let r = high - low;
    let t = r * r;
    let c = r - t * (P1 + t * (P2 + t * (P3 + t * (P4 + t * P5))));
    let y = 1.0 - ((low - (r * c) / (2.0 - c)) - high);
    crate::eval::scale(y, whole as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_powers_are_exact_and_others_close() {
        for exponent in [-1074, -1022, -1, 0, 1, 52, 1023] {
            let exact = if exponent < -1022 {
                f64::from_bits(1)
            } else {
                2_f64.powi(exponent)
            };
            assert_eq!(exp2(f64::from(exponent)), exact);
        }
        for x in [-3.3, -0.5, 0.1, 0.5, 7.77] {
            assert!((exp2(x) / x.exp2() - 1.0).abs() < 4e-16, "{x}");
        }
        // `histogram_quantile(0.9999, …)` at Prometheus 3.5.3.
        assert_eq!(exp2(2.4996), 5.655286053870951);
        assert_eq!(exp2(1024.0), f64::INFINITY);
        assert_eq!(exp2(f64::NEG_INFINITY), 0.0);
        assert!(exp2(f64::NAN).is_nan());
    }
}
