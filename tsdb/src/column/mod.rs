//! A run of samples of one series as two columns, each coded by what fits it best
//! (docs/format/column.md).
//!
//! - [`times`]: timestamps; [`values`]: values, exact by bits; both end in
//! - [`ints`]: whole numbers, predicted, and what remains as
//! - [`pack`]: bits of one width, or [`bins`]: classes by [`rans`] and bits behind them.
//!
//! What is written is a function of the samples alone, the same on every machine: which coding is
//! smallest is reckoned in whole numbers, and of floating point only multiplication, division and
//! rounding are used, which IEEE 754 fixes to the bit. That is why there is no `pco` here: it
//! reckons its bins with `log2`, which differs between machines.
//!
//! Reading never panics and takes no more memory than the count its caller vouches for.

pub mod bins;
pub mod ints;
pub mod pack;
pub mod rans;
pub mod times;
pub mod values;

/// Samples of one column, at most.
pub const COLUMN_SAMPLES_MAX: usize = 4096;

/// `log2(value)` in 1/256, by its leading bits: linear between powers of two, at most 0.086 low.
/// Only to compare sizes.
pub(crate) fn log2_256(value: u64) -> u64 {
    if value == 0 {
        return 0;
    }
    let whole = value.ilog2();
    let fraction = (value << (63 - whole)) << 1;
    (u64::from(whole) << 8) + (fraction >> 56)
}
