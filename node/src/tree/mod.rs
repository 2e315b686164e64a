//! Clusters of clusters: this one as a child, whose samples a parent streams, and as a parent, which
//! streams those of its children.
//!
//! ```text
//! child: shards --changes since--> frames --HTTP--> parent: rows --Sink--> then the cursor --Raft
//! ```
//!
//! Promise: every sample a child accepted is stored at the parent once, whatever fails between. The
//! cursor moves only after the rows it covers are stored; rows are written once, so what comes
//! again changes nothing (docs/adr/0012-federation-cursors.md).
//!
//! - [`child`]: what a child is, from the configuration
//! - [`place`]: where a child's nodes are
//! - [`pull`]: one stream, from the cursor to its end
//! - [`run`]: the loops of all children
//! - [`origins`]: whose samples pass here, so that loops are seen

pub mod child;
pub mod origins;
pub mod place;
pub mod pull;
pub mod run;

pub use child::Child;
pub use run::Tree;
