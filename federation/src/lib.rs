//! The cluster as one source, and what `/federate` shows of it.
//!
//! What stays true: an answer is whole or an error, never half; every series stands in it once.
//!
//! In reading order:
//! - [`merge`]: answers of several members into one
//! - [`fanout`]: many sources as one

pub mod fanout;
pub mod merge;

pub use fanout::FanOut;
