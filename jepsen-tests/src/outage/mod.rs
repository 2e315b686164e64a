//! A parent that is away while its children take data and lose a leader: `federation-outage`.
//!
//! Two child clusters (one of three nodes, one of one) and a parent of three. [`feed`] writes to the
//! children, late samples among them. The parent is killed as a whole; one child's busiest leader is
//! killed meanwhile and comes back; when the parent is back it loses a node in the middle of
//! catching up. [`check`] then holds what the parent has against what the children acknowledged:
//! every sample once, and nothing else.

pub mod check;
pub mod command;
pub mod feed;

pub use command::{USAGE, outage};

/// The metric that is written.
pub const METRIC: &str = "outage_sample";
/// Series of each child.
pub const SERIES: usize = 40;
