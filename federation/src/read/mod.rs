//! Remote read: the cluster's samples for another program, in Prometheus' protocol.
//!
//! Format: prometheus.io/docs/prometheus/latest/querying/remote_read_api; messages in
//! proto/proto/remote.proto. What stays true: series leave sorted as the source sorted them, with
//! the external labels they lack; a frame or an answer is never cut in the middle; a reader finds
//! in chunks exactly the samples that were selected.
//!
//! In reading order:
//! - [`request`]: a body to queries
//! - [`external`]: external labels, out of matchers and into answers
//! - [`markers`]: markers behind histograms
//! - [`sequence`]: what each histogram of a series is to the one before it
//! - [`results`], [`kept`]: what was selected, until it is read
//! - [`samples`]: an answer of plain samples
//! - [`bits`], [`xor`], [`histogram`], [`chunk`]: samples as Prometheus' chunks
//! - [`frame`]: chunks as a stream of checked frames

pub mod bits;
pub mod chunk;
pub mod external;
pub mod frame;
pub mod histogram;
pub mod kept;
pub mod markers;
pub mod request;
pub mod results;
pub mod samples;
pub mod sequence;
pub mod xor;

#[cfg(test)]
mod twin;

pub use chunk::Chunks;
pub use external::External;
pub use frame::Frames;
pub use request::{Answer, Query, ReadError, Request, decode};
pub use results::{Body, Results, TooManySamples};
pub use samples::SamplesBody;
