//! Prometheus' remote write 1.0 and remote read: the generated types.
//!
//! They are the plain, slow twin: for senders, answers, tests and tools. What decodes many samples
//! a second walks the [`Fields`] of a message instead. Not here: snappy, limits, what makes a label
//! set valid.

include!(concat!(env!("OUT_DIR"), "/prometheus.rs"));

pub use crate::wire::{Field, Fields, Value, WireError};
