//! The binary: configuration, wiring, HTTP, gRPC, telemetry

pub mod config;
mod nearest;
