//! An operator's snapshot: what the replicas on this node hold, as hard links in a directory that
//! nobody changes any more.
//!
//! ```text
//! snapshots/<name>/README                 what this is
//! snapshots/<name>/<shard>/block-…        sealed samples (docs/format/block.md)
//! snapshots/<name>/<shard>/checkpoint-…   the rest, and
//! snapshots/<name>/<shard>/manifest       what makes it a shard's directory: only with the head
//! ```
//!
//! It has another name until it is whole, so there is all of it or none.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::ShardId;
use model::port::World;

use crate::convert::scoped;
use crate::shard::Replica;

/// The directory of all of them, below the node's root.
pub const DIR: &str = "snapshots";
/// How long a replica may take to have what is wanted, on its disk.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// Looks after which a checkpoint is asked for again: one under way began too early.
const LOOKS: usize = 50;

/// A snapshot's name is a plain file name, and no other than it looks.
pub fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let good = (1..=128).contains(&name.len())
        && name.chars().all(plain)
        && !name.starts_with('.')
        && !name.ends_with(".tmp");
    match good {
        true => Ok(()),
        false => Err(format!(
            "{name:?} is no name for a snapshot: letters, digits, '-', '_' and '.', not in front"
        )),
    }
}

/// What this node is to pin.
pub struct Wanted<'a> {
    pub name: &'a str,
    pub with_head: bool,
    /// Said in the README.
    pub cluster: String,
    pub node: u64,
    /// Replicas here, and the log index each must have reached.
    pub replicas: Vec<(Arc<Replica>, u64)>,
}

/// Pins it, durably.
pub async fn export(world: &World, wanted: Wanted<'_>) -> io::Result<()> {
    let disk = &*world.disk;
    check_name(wanted.name).map_err(io::Error::other)?;
    let dir = Path::new(DIR).join(wanted.name);
    let making = Path::new(DIR).join(format!("{}.tmp", wanted.name));
    let known = disk.list(Path::new(DIR)).await?;
    if known.iter().any(|path| path.file_name() == dir.file_name()) {
        let taken = format!("there is a snapshot {:?} already", wanted.name);
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, taken));
    }
    tsdb::file::remove_dir_if_there(disk, &making).await?;
    disk.create_dir_all(&making).await?;
    let mut readme = preface(&wanted);
    for (replica, index) in &wanted.replicas {
        let position = pin(world, replica, *index, &making, wanted.with_head).await?;
        readme += &format!("shard {}: up to log index {position}\n", replica.shard.0);
    }
    let mut file = disk.create(&making.join("README")).await?;
    file.append(vec![Bytes::from(readme)]).await?;
    file.flush().await?;
    drop(file);
    disk.flush_dir(&making).await?;
    disk.rename(&making, &dir).await?;
    disk.flush_dir(Path::new(DIR)).await?;
    disk.flush_dir(Path::new("")).await
}

fn preface(wanted: &Wanted<'_>) -> String {
    let what = match wanted.with_head {
        true => "Each folder is a shard's directory: blocks, a checkpoint and the manifest.",
        false => "Each folder holds a shard's sealed blocks alone.",
    };
    format!(
        "A snapshot of quorate's cluster {}, node {}: the replicas this node held.\n{what}\nThe \
         files are hard links; remove this directory when it is not needed any more.\n\n",
        wanted.cluster, wanted.node
    )
}

/// Pins one replica below `making`, and says up to which log index.
async fn pin(
    world: &World,
    replica: &Replica,
    index: u64,
    making: &Path,
    with_head: bool,
) -> io::Result<u64> {
    reach(world, replica, index).await?;
    let pinned = replica.engine.snapshot().await?;
    let dir: PathBuf = making.join(format!("{:05}", replica.shard.0));
    let linked = pinned.link_into(&dir, with_head).await;
    let reached = pinned.position.index;
    pinned.release().await?;
    linked.map(|()| reached)
}

/// Waits until the replica has a checkpoint that holds everything up to `index`.
async fn reach(world: &World, replica: &Replica, index: u64) -> io::Result<()> {
    let deadline = world.clock.monotonic() + PATIENCE;
    let durable = || {
        replica
            .engine
            .position()
            .map_or(0, |position| position.index)
    };
    let mut looks = 0;
    while durable() < index {
        if world.clock.monotonic() >= deadline {
            let what = format!("shard {} has not reached {index} yet", replica.shard.0);
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
        if looks % LOOKS == 0 && replica.engine.applied_index() >= index {
            let asked = async { replica.raft.trigger().snapshot().await };
            let asked = scoped(&world.dice, asked).await;
            asked.map_err(io::Error::other)?;
            looks = 0;
        }
        if looks > 0 || replica.engine.applied_index() >= index {
            looks += 1;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// The replicas here that a snapshot is to hold, in order.
pub fn chosen(
    replicas: &crate::router::Replicas,
    indexes: &[(ShardId, u64)],
) -> Vec<(Arc<Replica>, u64)> {
    let replicas = replicas.read().expect("not poisoned");
    let here = indexes.iter().filter_map(|(shard, index)| {
        let replica = replicas.get(shard)?;
        Some((replica.clone(), *index))
    });
    here.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_names() {
        for good in ["a", "20250101T000000Z-0123abcd", "x_y.z"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        let long = "x".repeat(129);
        for bad in [
            "", ".", "..", "../x", "a/b", "a\\b", ".x", "x.tmp", "ä", "a\0", &long,
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
