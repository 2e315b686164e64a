//! What stands in Prometheus' files, for imports.

use node::import::fuzzed;

use crate::memory::bounded;
use crate::scratch;

/// A sample of a chunk takes four bits, and a histogram in memory some hundred bytes.
const TIMES: usize = 8 << 10;

pub fn meta(bytes: &[u8]) {
    bounded(bytes, TIMES, fuzzed::meta);
}

pub fn index(bytes: &[u8]) {
    bounded(bytes, TIMES, |bytes| fuzzed::index(scratch(), bytes));
}

pub fn chunk(bytes: &[u8]) {
    bounded(bytes, TIMES, fuzzed::chunk);
}

pub fn block(bytes: &[u8]) {
    fuzzed::block(scratch(), bytes);
}

pub fn head(bytes: &[u8]) {
    bounded(bytes, TIMES, |bytes| fuzzed::head(scratch(), bytes));
}

/// What a record decompresses to has a bound of its own.
pub fn log(bytes: &[u8]) {
    fuzzed::log(scratch(), bytes);
}

pub fn record(bytes: &[u8]) {
    bounded(bytes, TIMES, fuzzed::record);
}
