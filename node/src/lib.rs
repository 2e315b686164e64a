//! The binary: configuration, wiring, HTTP, gRPC, telemetry
