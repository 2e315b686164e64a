//! The cluster as one source, and what `/federate` shows of it.
//!
//! What stays true: an answer is whole or an error, never half; every series stands in it once;
//! the exposition is byte for byte what Prometheus 3.5 writes for the same samples.
//!
//! In reading order:
//! - [`merge`]: answers of several members into one
//! - [`fanout`]: many sources as one
//! - [`escaping`]: names for readers that cannot take UTF-8, and which scheme a reader asked for
//! - [`newest`]: the newest samples of several members, in one order
//! - [`federate`]: an exposition of them, piece by piece
//! - [`format`]: the form a reader asked for
//! - [`exposition`], [`families`]: the samples as text or as protobuf
//! - [`types`], [`grouped`]: whose series are whose, and histograms and summaries put together
//! - [`stream`]: every sample since a position, for a parent
//! - [`read`]: remote read, for a Prometheus that has us as its storage

pub mod escaping;
pub mod exposition;
pub mod families;
pub mod fanout;
pub mod federate;
pub mod format;
pub mod grouped;
pub mod merge;
pub mod newest;
mod parts;
mod prototext;
pub mod read;
pub mod stream;
pub mod types;

pub use escaping::Escaping;
pub use exposition::{Exposition, Writer};
pub use families::Families;
pub use fanout::FanOut;
pub use format::{Encoding, Format};
pub use grouped::Grouped;
pub use types::Types;
