//! HTTP as Prometheus and Pushgateway speak it.
//!
//! What stays true: bytes from outside never panic and never cost more memory than a named bound.
//!
//! In reading order:
//! - [`body`], [`instant`]: what came in
//! - [`encoding`]: compression and cross-origin headers; [`serve`]: a listener and its connections

pub mod body;
pub mod encoding;
pub mod instant;
pub mod serve;

pub use serve::serve;
