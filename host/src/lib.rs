//! The outermost loop: the real clock, dice, disk, network and threads behind the traits of
//! `model`.
//!
//! What stays true: this is the only crate that calls the system for them, so that everything
//! else runs the same in the simulation; bytes a flush answered for are on the medium; a panic in
//! any task ends the process; two processes never share a data directory.
//!
//! In reading order:
//! - [`clock`], [`dice`], [`spawn`], [`net`]: the small ports
//! - [`disk`]: files below one directory
//! - [`lock`]: who owns that directory

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the one crate in which the real machine is asked"
)]

pub mod clock;
pub mod dice;
pub mod disk;
pub mod lock;
pub mod net;
pub mod spawn;

use std::io;
use std::path::Path;
use std::sync::Arc;

use model::port::World;

pub use clock::SystemClock;
pub use dice::SystemDice;
pub use disk::HostDisk;
pub use lock::{Lock, lock};
pub use net::HostNet;
pub use spawn::TokioSpawn;

/// The ports of a process whose files live below `root`, which is created if need be.
pub fn world(root: &Path) -> io::Result<World> {
    Ok(World {
        clock: Arc::new(SystemClock::new()),
        dice: Arc::new(SystemDice::new()),
        disk: Arc::new(HostDisk::new(root)?),
        net: Arc::new(HostNet),
        spawn: Arc::new(TokioSpawn),
    })
}
