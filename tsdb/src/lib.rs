//! One shard on one disk, as a deterministic replicated state machine.
//!
//! The replicated log is the write-ahead log. [`Shard::apply`] changes memory only and is a pure
//! function of the log: no clock, no dice, no order of a hash map, no local setting. From time to
//! time [`Shard::checkpoint`] writes sealed blocks, the head and a manifest that carries the
//! applied index; the log up to there may then be purged. A restart loads the manifest's files and
//! the caller applies the log's tail again.
//!
//! What stays true:
//! - (series, timestamp) is written once: the first value in log order stays, compared by bits,
//!   until it is deleted or dropped.
//! - Series ids are assigned in log order and never given to another. A series that is written no more leaves memory
//!   by a command of the log: one that blocks hold rests, and comes back under its id; one of which nothing is stored
//!   is forgotten, and comes back under another.
//! - Two replicas at one log index have one [`Shard::digest`], whatever their files look like.
//! - Bytes from a disk are checked before they are believed: a wrong one is an error that names
//!   file and section, never another answer.
//!
//! It knows neither Raft nor HTTP. In reading order:
//! - [`command`]: what the log holds; [`state`]: what applying it does
//! - [`head`], [`chunk`], [`bits`], [`histogram`], [`value`]: recent samples in memory
//! - [`series`], [`index`], [`kinds`], [`by_id`]: label sets, ids, and how matchers find them
//! - [`groups`], [`fences`], [`exemplars`]: push groups, scrape leases, what traces left
//! - [`column`]: how a series' samples are coded once they are sealed
//! - [`block`], [`checkpoint`], [`manifest`], [`mod@file`], [`fields`]: what stands on the disk
//! - [`tombstones`]: what was deleted of blocks
//! - [`part`], [`gathered`], [`resting`], `pieces`, [`select`], [`chosen`]: reading across head and blocks
//! - [`order`], [`newest`]: the newest sample of each series, by name
//! - [`touched`], [`changes`]: what was written after an index of the log
//! - [`shard`], `preparing`, `loading`, [`snapshot`], [`scrub`]: the whole, with its locks and files
//! - [`sealing`], [`compaction`], [`retention`], [`collecting`]: when to seal, to make blocks one, to
//!   drop what, which series leave memory; [`digest`], [`cardinality`],
//!   [`metrics`], [`error`]

pub mod bits;
pub mod block;
pub mod by_id;
pub mod cardinality;
pub mod changes;
pub mod checkpoint;
pub mod chosen;
pub mod chunk;
pub mod collecting;
pub mod column;
pub mod command;
pub mod compaction;
pub mod decimal;
pub mod descriptions;
pub mod digest;
pub mod error;
pub mod exemplars;
pub mod fences;
pub mod fields;
pub mod file;
#[cfg(fuzzing)]
pub mod fuzzed;
pub mod gathered;
pub mod groups;
pub mod head;
pub mod histogram;
pub mod index;
pub mod kinds;
pub mod live;
mod loading;
pub mod manifest;
pub mod metrics;
pub mod newest;
pub mod order;
pub mod part;
mod pieces;
mod preparing;
pub mod resting;
pub mod retention;
pub mod running;
pub mod scrub;
pub mod sealing;
pub mod select;
pub mod series;
pub mod shard;
pub mod snapshot;
pub mod state;
pub mod tombstones;
pub mod touched;
pub mod value;

pub use block::Tables;
pub use chosen::Chosen;
pub use command::{
    AddCommand, CleanCommand, CollectCommand, Command, CommandError, CompactCommand, DeleteCommand,
    DescribeCommand, PushCommand, RetainCommand, SealCommand, SeriesRef, WipeCommand, WriteCommand,
    WriteRows,
};
pub use error::{ApplyError, InstallError, OpenError, StorageError};
pub use file::FileEntry;
pub use groups::Wiped;
pub use metrics::Metrics;
pub use shard::{Position, Shard, Stats};
pub use snapshot::SnapshotFiles;
pub use state::Outcome;
