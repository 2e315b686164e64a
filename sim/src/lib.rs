//! A three-node cluster in one thread from one seed: the production code above the ports, with
//! power cuts, kills, partitions, loss, delay and failing disks while clients write and read.
//!
//! What stays true: the seed decides everything, so the same seed gives the same trace, line by
//! line; whatever was acknowledged is checked against every node after the faults are healed, and
//! once more after the power of all nodes was cut.
//!
//! # Replaying a failure
//!
//! A batch prints, for each seed that fails, why and the command that repeats it:
//!
//! ```text
//! cargo run -p sim -- --seed 17 --trace /tmp/17.trace --log cluster=debug,openraft=info
//! ```
//!
//! The trace has a line for each start and end of an operation, each fault, each leader seen and
//! each digest, with the virtual time in front; `--log` adds what the nodes themselves say, to
//! standard error, with the same virtual time. A seed's meaning belongs to one commit: a change
//! of the cluster or of the simulation gives it another run.
//!
//! # What makes it repeatable
//!
//! Our own code sees time, dice, disk, network and tasks through `model::port` alone. Of our
//! dependencies, tokio's `select!` and std's hash maps draw from the system's random source, and
//! h2 reads the monotonic clock; [`determinism`] puts the seed and the virtual time in their
//! place for the whole process. That is why one process runs one seed.
//!
//! In reading order:
//! - [`swarm`]: what one seed is about
//! - [`history`]: what clients saw, and whether a correct store may have shown it
//! - [`trace`], [`record`]: every event, hashed
//! - [`workload`], [`senders`], [`deletions`], [`node`]: the clients, and the life of a node
//! - [`scene`], `rot`, [`nemesis`], [`run`]: the machines, what is done to them, one whole run
//! - [`determinism`], [`batch`]: one process, many processes

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the outermost loop of the simulation: it makes the world the ports stand for"
)]

pub mod batch;
pub mod deletions;
pub mod determinism;
pub mod history;
pub mod nemesis;
pub mod node;
pub mod record;
mod rot;
pub mod run;
pub mod scene;
pub mod senders;
pub mod swarm;
pub mod trace;
pub mod workload;
