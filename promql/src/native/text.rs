//! A histogram on one line, as Prometheus writes it into labels.

use std::fmt::Write;

use model::Histogram;

use super::buckets::{Bucket, overlapping};
use crate::eval::short_float;

/// `{count:4, sum:5, (0.5,1]:1, …}`, without empty buckets.
pub(crate) fn text(histogram: &Histogram) -> String {
    let mut text = format!(
        "{{count:{}, sum:{}",
        short_float(histogram.count),
        short_float(histogram.sum)
    );
    for bucket in overlapping(histogram).iter().filter(|b| b.count != 0.0) {
        text.push_str(", ");
        write(&mut text, bucket);
    }
    text.push('}');
    text
}

fn write(text: &mut String, bucket: &Bucket) {
    let open = if bucket.lower_inclusive { '[' } else { '(' };
    let close = if bucket.upper_inclusive { ']' } else { ')' };
    let (lower, upper) = (short_float(bucket.lower), short_float(bucket.upper));
    let count = short_float(bucket.count);
    let written = write!(text, "{open}{lower},{upper}{close}:{count}");
    written.expect("a string takes anything");
}
