//! The binary: configuration, wiring, HTTP, telemetry.
//!
//! What stays true: this is the one crate that knows all others, and only tests know it; a
//! configuration is in force as a whole or not at all.
//!
//! In reading order:
//! - [`flags`], [`config`]: what the user asks for; [`promtool`]: the same, checked only
//! - [`logging`]: what is told
//! - [`web`]: Prometheus' and Pushgateway's HTTP
//! - [`scrape`]: targets and their loops

pub mod config;
pub mod flags;
pub mod logging;
mod nearest;
pub mod promtool;
pub mod scrape;
pub mod web;
