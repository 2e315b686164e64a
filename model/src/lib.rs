//! The nouns and the ports of quorate: what every crate speaks of and what each may ask of the
//! outside world. No I/O happens here.
//!
//! What stays true: values of these types are valid by construction (a [`Labels`] is sorted and
//! has no name twice, a [`Matcher`] has a compiled expression), ids and times are types that
//! cannot be swapped, and nothing here depends on the iteration order of a random hash.
//!
//! In reading order:
//! - [`id`], [`time`], [`number`], [`limits`]: names, instants, floats as text, bounds
//! - [`quote`]: texts in quotes as Go prints them; [`regex`]: patterns with Go's meaning
//! - [`labels`], [`matcher`], [`histogram`], [`sample`], [`batch`]: what is stored and how it is
//!   chosen
//! - [`group`]: Pushgateway's groups; [`metadata`]: what metrics mean
//! - [`sink`], [`source`]: the two traits that carry the system; [`admin`]: what operators do to it
//! - [`newest`]: the newest sample of each series, page by page
//! - [`fragment`]: parts of a query that are computed where the series are
//! - [`port`]: clock, dice, disk, network, tasks
//! - [`hash`]: hashing that is the same in every process and every version
//! - [`memo`]: a number remembered beside what it was given to; [`kept`]: label sets that stand in
//!   memory once

#![allow(async_fn_in_trait)]

pub mod admin;
pub mod batch;
pub mod fragment;
pub mod group;
pub mod hash;
pub mod histogram;
pub mod id;
pub mod kept;
pub mod labels;
pub mod limits;
pub mod matcher;
pub mod memo;
pub mod metadata;
pub mod newest;
pub mod number;
pub mod port;
pub mod quote;
pub mod regex;
pub mod sample;
pub mod sink;
pub mod source;
pub mod time;
pub mod trail;

pub use batch::Batch;
pub use histogram::Histogram;
pub use id::{ClusterId, GroupId, NodeId, SeriesId, ShardId};
pub use labels::{Labels, LabelsBuilder};
pub use matcher::{MatchOp, Matcher};
pub use metadata::{FamilyMetadata, MetadataStore, MetricKind};
pub use newest::{Newest, NewestSelection};
pub use sample::{Exemplar, ExemplarSeries, Sample, Samples, Series, Value};
pub use time::Timestamp;
