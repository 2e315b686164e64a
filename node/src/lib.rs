//! The binary: configuration, wiring, HTTP, gRPC, telemetry

pub mod config;
pub mod flags;
mod nearest;
