//! One shard's replica on this node: its engine as a Raft machine, the proposer that merges
//! writes into entries, and the upkeep that seals, checkpoints and purges.

pub mod machine;
pub mod proposer;
pub mod replica;
pub mod upkeep;

pub use replica::Replica;
