//! The simulated world behind the traits of `model`: everything in it follows from one seed, and
//! no real clock, dice, disk or socket is touched.
//!
//! What stays true: the same seed and the same calls give the same answers, byte for byte; a
//! [`SimDisk`] outlives the node that uses it, forgets what was not flushed when its power is cut,
//! and never takes a write from a node that has died.
//!
//! In reading order:
//! - [`dice`], [`clock`], [`spawn`], [`net`]: the small ports
//! - [`disk`]: files whose every byte is known to be durable or not, with faults on demand
//! - [`contract`]: what every [`model::port::Disk`] must do, to be run over each implementation

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this crate is one of the two implementations of the ports; tokio's clock and tasks are virtual here"
)]

pub mod clock;
pub mod contract;
pub mod dice;
pub mod disk;
pub mod net;
pub mod spawn;

use std::sync::Arc;

use model::port::World;

pub use clock::SimClock;
pub use dice::SimDice;
pub use disk::{Counters, Operation, SimDisk};
pub use net::SimNet;
pub use spawn::SimSpawn;

/// The ports of one node's life: a crash ends its hold on `disk`, so a restarted node needs a new
/// world. To be used inside a turmoil host.
pub fn world(seed: u64, clock: &SimClock, disk: &SimDisk) -> World {
    World {
        clock: Arc::new(clock.clone()),
        dice: Arc::new(SimDice::new(seed)),
        disk: Arc::new(disk.mount()),
        net: Arc::new(SimNet),
        spawn: Arc::new(SimSpawn),
    }
}
