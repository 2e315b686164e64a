//! One shard on one disk, as a deterministic replicated state machine. It knows neither Raft nor
//! HTTP.
//!
//! - [`command`]: what the log holds; [`fields`]: what our formats are made of
//! - [`chunk`], [`bits`]: compressed samples
//! - [`series`], [`index`]: label sets, ids, and how matchers find them
//! - [`groups`], [`fences`]: push groups and scrape leases
//! - [`retention`]: when to drop what; [`digest`], [`metrics`]

pub mod bits;
pub mod chunk;
pub mod command;
pub mod digest;
pub mod fences;
pub mod fields;
pub mod groups;
pub mod index;
pub mod metrics;
pub mod retention;
pub mod series;

pub use command::{
    Command, CommandError, PushCommand, RetainCommand, SealCommand, SeriesRef, WriteCommand,
    WriteRows,
};
pub use metrics::Metrics;
