//! The binary: configuration, wiring, HTTP, gRPC, telemetry

pub mod web;
