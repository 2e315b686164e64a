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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::sync::Mutex;
    use std::time::Duration;

    use futures::FutureExt;
    use model::port::read_all;

    /// A node that appends what its dice roll, killed by a power cut every second; returns what
    /// each life found on the disk and when, and the disk's digest.
    fn lives(seed: u64) -> (Vec<String>, u64) {
        let (clock, disk) = (SimClock::new(), SimDisk::new(seed));
        disk.set_latency(Some(Duration::ZERO..Duration::from_millis(3)));
        let found = Arc::new(Mutex::new(Vec::new()));
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .simulation_duration(Duration::from_secs(60))
            .build();
        let (node_disk, node_found) = (disk.clone(), found.clone());
        sim.host("node", move || {
            let world = world(seed, &clock, &node_disk);
            let found = node_found.clone();
            async move {
                let path = Path::new("log");
                let left = read_all(&*world.disk, path).await;
                let left = left.map_err(|e| e.kind());
                found
                    .lock()
                    .unwrap()
                    .push(format!("{} {left:?}", world.clock.now()));
                let mut file = match left {
                    Ok(_) => world.disk.open(path).await?,
                    Err(_) => world.disk.create(path).await?,
                };
                let dice = world.dice.clone();
                let writes = async move {
                    loop {
                        let word = dice.roll().to_le_bytes().to_vec();
                        file.append(vec![word.into()]).await.unwrap();
                        file.flush().await.unwrap();
                    }
                };
                let _task = world.spawn.spawn("writes", writes.boxed());
                std::future::pending().await
            }
        });
        for _ in 0..8 {
            for _ in 0..1000 {
                sim.step().unwrap();
            }
            sim.crash("node");
            disk.crash();
            sim.bounce("node");
        }
        let found = found.lock().unwrap().clone();
        assert_eq!(found.len(), 8);
        (found, disk.digest())
    }

    #[test]
    fn the_same_seed_gives_the_same_lives() {
        assert_eq!(lives(1), lives(1));
        assert_ne!(lives(1), lives(2));
    }
}
