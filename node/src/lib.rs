//! The binary: configuration, wiring, HTTP, gRPC, telemetry

pub mod config;
pub mod flags;
pub mod logging;
mod nearest;
pub mod promtool;
pub mod web;
