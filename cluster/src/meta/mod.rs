//! The meta group: members, placement, leases. Small, on every node, rarely written.
//!
//! - [`state`]: the replicated state and its commands, as pure functions of the log
//! - [`machine`]: that state under Raft, with its checkpoint file and its view in the catalogue

pub mod machine;
pub mod state;

pub use machine::MetaMachine;
pub use state::{Assignment, Command, Cursor, Member, Outcome, State};
