//! PromQL: text to tree to vectors, over any [`model::source::Source`].
//!
//! Results are those of Prometheus 3.5, to the bit where the order of float operations can be the
//! same. Nothing here knows storage or network, reads a clock but the one handed in, or does half
//! an answer: what is not supported yet is an error that says so.
//!
//! In reading order:
//! - [`ast`], [`duration`], [`function`], [`error`]: the tree, the functions' signatures, what can go wrong
//! - `lexer`, [`parser`], `parsed`, `printer`, `quote`: text to tree and back
//! - `selectors`: what a tree reads; [`pretty`], [`tree`]: it over several lines, and as JSON
//! - `lengths`: whether durations have values; `plan`: what to select, and the order of computing; `local`: what shards compute
//! - [`native`], `histogram`: computing with native histograms, with classic ones
//! - `eval`: columns of values to columns of values
//! - [`engine`]: a query from text to answer, under limits; [`fragment`]: a shard's half of it

pub mod ast;
pub mod duration;
pub mod engine;
pub mod error;
mod eval;
pub mod fragment;
pub mod function;
mod histogram;
mod in_order;
mod lengths;
mod lexer;
mod local;
mod matrix;
pub mod native;
mod parsed;
pub mod parser;
mod plan;
pub mod pretty;
mod printer;
mod selectors;
pub mod tree;

pub use ast::Expr;
pub use engine::{
    Engine, EngineOptions, QueryParams, QueryResult, Stats, Timings, Value, VectorSample,
};
pub use error::{ParseError, Position, QueryError, Span};
pub use matrix::{IntoSeries, Matrix};
pub use parser::{ParseOptions, parse, parse_matchers, parse_with};
pub use pretty::format_query;
pub use selectors::selectors;
pub use tree::{parse_tree_json, tree_json};
