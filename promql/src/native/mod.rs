//! Computing with native histograms.
//!
//! - [`buckets()`]: bounds and counts, as the HTTP API shows them
//! - `arithmetic`: sums and differences, whatever the resolution
//! - [`detects_reset`], `equal`, `counted_same`
//! - `statistics`: quantile, fraction, variance
//! - `text`: the one line `count_values` makes of a histogram

mod arithmetic;
mod bounds;
mod buckets;
mod exp2;
mod reset;
mod statistics;
mod text;

pub use buckets::{Bucket, buckets};
pub use reset::detects_reset;

pub(crate) use arithmetic::{Incompatible, Sum};
pub(crate) use reset::{counted_same, equal};
pub(crate) use statistics::{Nans, fraction, quantile, variance};
pub(crate) use text::text;

use model::Histogram;

/// How many samples a histogram counts for, as Prometheus sees it: one for every 16 bytes its own
/// struct would take, timestamp and pointer included.
pub(crate) fn weight(histogram: &Histogram) -> usize {
    const STRUCT_BYTES: usize = 160;
    const POINT_BYTES: usize = 16;
    (STRUCT_BYTES + POINT_BYTES + 8 * elements(histogram)) / 16
}

/// Whether it counts for one more in a vector, where labels stand beside it instead of a timestamp.
pub(crate) fn is_rounded(histogram: &Histogram) -> bool {
    !elements(histogram).is_multiple_of(2)
}

/// Spans and numbers in lists.
fn elements(histogram: &Histogram) -> usize {
    histogram.positive_spans.len()
        + histogram.negative_spans.len()
        + histogram.positive_buckets.len()
        + histogram.negative_buckets.len()
        + histogram.custom_values.len()
}

/// Moves the mean of all before to one that takes `histogram`, the `count`-th, in too.
pub(crate) fn move_mean(
    mean: &mut Sum,
    histogram: &Histogram,
    count: f64,
) -> Result<(), Incompatible> {
    let mut step = Sum::from(histogram);
    step.divide(count);
    let mut share = mean.clone();
    share.divide(count);
    step.subtract(&share)?;
    mean.add(&step)
}

/// `histogram` with every count and the sum multiplied; its layout stays.
pub(crate) fn scaled(histogram: &Histogram, factor: f64) -> Histogram {
    let mut scaled = histogram.clone();
    (scaled.is_integer, scaled.integers) = (false, None);
    for value in [&mut scaled.zero_count, &mut scaled.count, &mut scaled.sum]
        .into_iter()
        .chain(&mut scaled.positive_buckets)
        .chain(&mut scaled.negative_buckets)
    {
        *value *= factor;
    }
    scaled
}
