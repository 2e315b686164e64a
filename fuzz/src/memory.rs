//! How much a target allocates.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// For buffers of a fixed size, and the most buckets that a histogram may have.
const FIXED_BYTES: usize = 8 << 20;

/// Does `work` on `bytes`, which may allocate so many times their length, all it gives back meanwhile included.
pub fn bounded(bytes: &[u8], times: usize, work: impl FnOnce(&[u8])) {
    let region = Region::new(ALLOCATOR);
    work(bytes);
    let change = region.change();
    let allocated = change.bytes_allocated;
    let most = FIXED_BYTES + times * bytes.len();
    assert!(
        allocated <= most,
        "{allocated} bytes for {} of input",
        bytes.len()
    );
}
