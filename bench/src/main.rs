//! Side by side with Prometheus.
fn main() {}
