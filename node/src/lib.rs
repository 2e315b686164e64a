//! The binary: configuration, wiring, HTTP, telemetry.
//!
//! What stays true: this is the one crate that knows all others, and only tests know it; a
//! configuration is in force as a whole or not at all.
//!
//! In reading order:
//! - [`flags`], [`config`]: what the user asks for; [`promtool`]: the same, checked only
//! - [`logging`]: what is told
//! - [`queries`]: queries under limits they share
//! - [`web`]: Prometheus' and Pushgateway's HTTP
//! - [`access`]: who may reach the listeners
//! - [`lines`]: Graphite and StatsD over TCP and UDP
//! - [`scrape`]: targets and their loops
//! - [`source`], [`discovery`], [`process`], [`telemetry`]: the cluster and the process, for them
//! - [`neighbours`]: what nodes ask each other for their pages
//! - [`configuration`], [`status`]: what is in force, and what can be told
//! - [`run`]: all of it put together

pub mod access;
pub mod blocks;
pub mod config;
pub mod configuration;
pub mod discovery;
pub mod flags;
#[cfg(fuzzing)]
pub mod fuzzed;
pub mod import;
pub mod lines;
pub mod logging;
mod nearest;
pub mod neighbours;
pub mod process;
pub mod promtool;
pub mod queries;
pub mod run;
pub mod scrape;
pub mod source;
pub mod status;
pub mod telemetry;
pub mod tree;
pub mod web;
