//! Raft, by openraft: the only place that names it.
//!
//! - [`types`]: its type parameters, and conversions to the log's and the wire's nouns
//! - [`log_store`]: its log storage over the shared log
//! - [`machine`]: its state machine over a group's own
//! - [`network`], [`commits`], [`append_link`], [`snapshot`]: speaking to another replica
//! - [`transfers`]: snapshots under way, which hold purging back
//! - [`service`]: being spoken to
//! - [`group`]: one running group

pub mod append_link;
pub mod before;
mod commits;
pub mod group;
pub mod log_store;
pub mod machine;
pub mod network;
pub mod service;
pub mod snapshot;
pub mod standing;
pub mod transfers;
pub mod types;
