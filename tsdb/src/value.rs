//! What a sample holds as the engine compares it: by bits, floats and histograms alike.

use bytes::Bytes;

/// One stored value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// The bits of a float.
    Float(u64),
    /// The canonical bytes of a histogram.
    Histogram(Bytes),
}
