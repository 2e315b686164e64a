//! Queries that ask for everything: `bench bombs`.
//!
//! One node with some data answers light queries; then, for each of the bombs of the [`table`], two
//! clients throw it again and again while the light queries go on ([`run`]). Each bomb must be
//! answered or refused within twice its timeout, memory must stay within a budget, and the light
//! queries' p99 must not double.

mod run;
mod table;

pub use run::measure;
