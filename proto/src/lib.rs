//! Wire formats: generated types, and the way between them and `model`.
//!
//! The .proto files are compiled by protox at build time; no `protoc` is needed.

pub mod exposition;
pub mod remote;
pub mod wire;

/// Prometheus' remote write 2.0: the generated types, for senders, tests and tools.
pub mod remote_v2 {
    include!(concat!(env!("OUT_DIR"), "/io.prometheus.write.v2.rs"));
}

/// Metrics of the OpenTelemetry protocol: the generated types.
pub mod otlp {
    include!(concat!(env!("OUT_DIR"), "/opentelemetry.metrics.rs"));
}

/// The node-to-node protocol.
pub mod node {
    include!(concat!(env!("OUT_DIR"), "/quorate.node.v1.rs"));
}

/// From a child cluster to its parent.
pub mod federation {
    include!(concat!(env!("OUT_DIR"), "/quorate.federation.v1.rs"));
}
