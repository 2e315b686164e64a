//! A replica whose checkpoint or manifest is damaged gets its state from another one, without anybody's doing.
//! Nodes of one cluster in one process, on the real network and disk.

#![allow(
    clippy::disallowed_methods,
    reason = "a test is an outermost loop: it waits, reads the clock and damages files"
)]

#[path = "support/nodes.rs"]
mod nodes;
mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster::Cluster;
use cluster::shard::upkeep::CheckpointPolicy;
use model::{MatchOp, Matcher, ShardId, Timestamp};
use nodes::{Node, Nodes, SHARDS};
use support::until;

/// Three that take a checkpoint as soon as nothing comes, and keep no log behind it.
async fn start_three() -> Nodes {
    let checkpoint = CheckpointPolicy {
        quiet: Duration::from_millis(100),
        entries_kept: 0,
        ..CheckpointPolicy::default()
    };
    Nodes::start_all(3, checkpoint).await
}

impl Nodes {
    /// Every running node has a checkpoint of all that was written, and no log behind it.
    async fn settle(&self) {
        for (nth, node) in self.nodes.iter().enumerate() {
            let Some(Node { cluster: node, .. }) = node else {
                continue;
            };
            until("checkpoints", async || {
                for shard in 0..SHARDS {
                    let (applied, _) = node.digest(ShardId(shard)).ok_or("closed")?;
                    let (index, _) = self.checkpoint(nth, shard).ok_or("no checkpoint")?;
                    if index < applied {
                        return Err(format!("{index} of {applied}"));
                    }
                }
                Ok(())
            })
            .await;
        }
        // The round that purges is another one than that which asked for the checkpoint.
        tokio::time::sleep(Duration::from_secs(5)).await;
    }

    fn dir(&self, nth: usize, shard: u32) -> PathBuf {
        let root = self.roots[nth].path();
        root.join(format!("shards/{shard:05}/engine"))
    }

    fn blocks(&self, nth: usize, shard: u32) -> Vec<String> {
        let files = std::fs::read_dir(self.dir(nth, shard)).unwrap();
        let names = files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("block-")).collect()
    }

    /// The newest one, and up to where it goes.
    fn checkpoint(&self, nth: usize, shard: u32) -> Option<(u64, PathBuf)> {
        let files = std::fs::read_dir(self.dir(nth, shard)).ok()?;
        let files = files.filter_map(|file| {
            let path = file.ok()?.path();
            let name = path.file_name()?.to_string_lossy().into_owned();
            let (index, _) = name.strip_prefix("checkpoint-")?.split_once('-')?;
            Some((index.parse().ok()?, path))
        });
        files.max()
    }
}

fn flip_bit(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

/// The group that does not run, and why.
async fn closed(node: &Cluster, group: &str, why: &str) {
    until("the shard is closed", async || match node.ready() {
        Err(told)
            if told.contains(&format!("group {group} does not run")) && told.contains(why) =>
        {
            Ok(())
        }
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_state_comes_from_peers() {
    let mut three = start_three().await;
    three.write().await;
    three.settle().await;

    // Rotten; the others go on meanwhile.
    three.stop(0).await;
    three.write().await;
    flip_bit(&three.checkpoint(0, 0).unwrap().1);
    flip_bit(&three.dir(0, 1).join("manifest"));
    three.start(0).await;
    three.agree().await;
    three.settle().await;

    // Gone.
    three.stop(0).await;
    three.write().await;
    std::fs::remove_file(three.checkpoint(0, 0).unwrap().1).unwrap();
    std::fs::remove_dir_all(three.dir(0, 1)).unwrap();
    three.start(0).await;
    three.agree().await;
    three.settle().await;

    // A peer whose state ends before what is purged here is of no use; the next one is.
    three.stop(2).await;
    three.write().await;
    three.settle().await;
    three.stop(0).await;
    three.stop(1).await;
    let (_, checkpoint) = three.checkpoint(0, 0).unwrap();
    flip_bit(&checkpoint);
    three.start(0).await;
    let name = checkpoint.file_name().unwrap().to_string_lossy();
    closed(&three.node(0).cluster, "g1", &name).await;
    three.start(2).await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    closed(&three.node(0).cluster, "g1", &name).await;
    assert_eq!(three.node(0).cluster.digest(ShardId(0)), None);
    assert!(
        three.node(0).cluster.digest(ShardId(1)).is_some(),
        "the other one runs"
    );
    three.start(1).await;
    three.agree().await;
    let staging = |shard: u32| three.dir(0, shard).with_file_name("rebuilt");
    assert!(!staging(0).exists() && !staging(1).exists());
    three.write().await;
    three.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_no_peer_has_any_more_comes_with_its_state() {
    let mut three = start_three().await;
    // Old enough to be sealed once something newer comes.
    three.write_at(5 * 3_600_000, "old").await;
    three.write().await;
    until("sealed", async || {
        let blocks = (0..3).map(|nth| three.blocks(nth, 0).len());
        match blocks.clone().all(|count| count > 0) {
            true => Ok(()),
            false => Err(format!("{:?}", blocks.collect::<Vec<_>>())),
        }
    })
    .await;

    three.stop(0).await;
    let admin = three.node(1).cluster.admin();
    let chosen = vec![
        Matcher::equal("__name__", "old"),
        Matcher::new(MatchOp::Regex, "n", "1.").unwrap(),
    ];
    until("deleted", async || {
        let deleted = admin.delete_series(vec![chosen.clone()], Timestamp::MIN, Timestamp::MAX);
        deleted.await.map_err(|e| e.to_string())?;
        admin.clean_tombstones().await.map_err(|e| e.to_string())
    })
    .await;
    three.write().await;
    let stale = three.blocks(0, 0);
    until("the others have another block", async || {
        let others = [1, 2].map(|nth| three.blocks(nth, 0));
        let is_left = |name| others.iter().any(|names| names.contains(name));
        match stale.iter().any(is_left) {
            true => Err(format!("{stale:?} {others:?}")),
            false => Ok(()),
        }
    })
    .await;
    for name in stale {
        let path = three.dir(0, 0).join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 4;
        std::fs::write(path, bytes).unwrap();
    }
    three.start(0).await;
    three.agree().await;
    three.write().await;
    three.agree().await;
}
