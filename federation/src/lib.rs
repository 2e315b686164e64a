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
//! - [`format`]: the form a reader asked for
//! - [`exposition`], [`families`]: those samples as text or as protobuf, piece by piece
//! - [`read`]: remote read, for a Prometheus that has us as its storage

pub mod escaping;
pub mod exposition;
pub mod families;
pub mod fanout;
pub mod federate;
pub mod format;
pub mod merge;
mod prototext;
pub mod read;

pub use escaping::Escaping;
pub use exposition::Exposition;
pub use families::Families;
pub use fanout::FanOut;
pub use federate::{Federate, newest};
pub use format::{Encoding, Format};
