//! The cluster as one source, and what `/federate` shows of it.
//!
//! What stays true: an answer is whole or an error, never half; every series stands in it once;
//! the exposition is byte for byte what Prometheus 3.5 writes for the same samples.
//!
//! In reading order:
//! - [`merge`]: answers of several members into one
//! - [`fanout`]: many sources as one
//! - [`escaping`]: names for readers that cannot take UTF-8, and which scheme a reader asked for
//! - [`federate`]: the newest sample of every chosen series
//! - [`exposition`]: those samples as text, piece by piece

pub mod escaping;
pub mod exposition;
pub mod fanout;
pub mod federate;
pub mod merge;

pub use escaping::Escaping;
pub use exposition::Exposition;
pub use fanout::FanOut;
pub use federate::{Federate, newest};
