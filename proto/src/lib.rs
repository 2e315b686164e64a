//! Wire formats: generated types, and the way between them and `model`.
//!
//! The .proto files are compiled by protox at build time; no `protoc` is needed.

pub mod exposition;
pub mod remote;
pub mod wire;

/// The node-to-node protocol.
pub mod node {
    include!(concat!(env!("OUT_DIR"), "/quorate.node.v1.rs"));
}

/// From a child cluster to its parent.
pub mod federation {
    include!(concat!(env!("OUT_DIR"), "/quorate.federation.v1.rs"));
}
