//! Native histograms on their way in: what is refused, and what a scrape does to their buckets.
//!
//! - [`check`]: refusals, in the words of Prometheus 3.5
//! - [`buckets`]: compaction and lower resolution
//! - [`classic`], [`convert`]: a classic histogram's series as one histogram with custom bounds

pub mod buckets;
pub mod check;
pub mod classic;
pub mod convert;
