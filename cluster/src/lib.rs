//! Series to shard to replicas: one Raft group per shard, one more for the cluster itself.
//!
//! What stays true:
//! - A write or a push is acknowledged only after a majority of its shard's replicas hold it
//!   flushed and the leader has applied it.
//! - A strong read contains everything acknowledged before it began; a missing shard is an error.
//! - A node promises once to be formed into a cluster, and a data directory belongs to one
//!   cluster for its life.
//! - Only [`raft`] names the Raft library.
//!
//! In reading order:
//! - [`cluster`]: the node assembled; [`control`]: its loop
//! - [`identity`], [`formation`], [`membership`]: who a node is, and how nodes become a cluster
//! - [`meta`], [`placement`], [`catalogue`]: what the cluster agrees on about itself
//! - [`shard`], [`raft`]: a shard's replica, and the groups beneath
//! - [`router`], [`history`], [`journal`]: any request on any node; push groups as history
//! - [`reads`]: one question to all shards; [`evaluate`]: parts of queries, computed where the
//!   series are
//! - [`newest`], [`changes`]: the newest samples of a shard, and what was written since an index
//! - [`peer`], [`link`], [`write_link`], [`dictionary`], [`shards_service`], [`convert`], [`refusal`]: the wire
//! - [`admin`], [`export`], [`statistics`]: deleting, cleaning, snapshots, the head in numbers
//! - [`ask`]: what the programs above ask each other
//! - [`consul`]: registered there, and peers found there
//! - [`status`], [`metrics`]: what a node can tell

pub mod admin;
pub mod ask;
pub mod catalogue;
pub mod changes;
pub mod cluster;
pub mod consul;
pub mod control;
pub mod convert;
pub mod dictionary;
pub mod evaluate;
pub mod export;
pub mod formation;
#[cfg(fuzzing)]
pub mod fuzzed;
pub mod history;
pub mod identity;
pub mod incoming;
pub mod journal;
pub mod link;
pub mod membership;
pub mod meta;
pub mod metrics;
pub mod newest;
pub mod node_files;
pub mod peer;
pub mod placement;
pub mod raft;
pub mod reads;
pub mod refusal;
pub mod router;
pub mod shard;
pub mod shards_service;
pub mod statistics;
pub mod status;
pub mod write_link;

pub use ask::{Answers, AskError, Asked};
pub use changes::{Changes, Question};
pub use cluster::{Cluster, Options, StartError};
pub use meta::Cursor;
pub use raft::group::Timing;
pub use shard::upkeep::CheckpointPolicy;
pub use status::Status;
