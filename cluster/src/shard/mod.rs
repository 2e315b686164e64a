//! One shard's replica on this node: its engine as a Raft machine, the proposers that merge writes and
//! pushes into entries, what is told of metrics, the upkeep that seals, compacts, checkpoints and purges, the scrub, how
//! what rotted is had from others, and the comparison with the other replicas, and
//! how a replica is forgotten.

pub mod comparing;
pub mod describing;
pub mod leaving;
pub mod machine;
pub mod mending;
pub mod proposer;
pub mod pushes;
pub mod rebuilding;
pub mod replica;
pub mod room;
pub mod scrub;
pub mod upkeep;

pub use replica::Replica;
