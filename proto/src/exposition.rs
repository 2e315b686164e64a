//! Prometheus' exposition as protobuf (`io.prometheus.client`): the generated types.

include!(concat!(env!("OUT_DIR"), "/io.prometheus.client.rs"));
