//! Series to shard to replicas: one Raft group per shard, log store, state machine, transport, membership, placement, Consul

pub mod consul;
