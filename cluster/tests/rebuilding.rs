//! A replica whose checkpoint or manifest is damaged gets its state from another one, without anybody's doing.
//! Nodes of one cluster in one process, on the real network and disk.

#![allow(
    clippy::disallowed_methods,
    reason = "a test is an outermost loop: it waits, reads the clock and damages files"
)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cluster::catalogue::{Memory, opened};
use cluster::shard::upkeep::CheckpointPolicy;
use cluster::{Cluster, Options};
use model::sink::Sink;
use model::source::{Consistency, Selection, Take};
use model::{Batch, Labels, MatchOp, Matcher, ShardId, Timestamp};
use support::{free_addresses, until};

const SHARDS: u32 = 2;
const SERIES: usize = 40;

/// Three places where a node may run, and the nodes that do.
struct Three {
    roots: Vec<tempfile::TempDir>,
    addresses: Vec<String>,
    nodes: Vec<Option<Node>>,
    written: usize,
}

struct Node {
    cluster: Arc<Cluster>,
    /// Ends what a process would end: others' connections too.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.runtime.take().expect("once").shutdown_background();
    }
}

impl Three {
    fn new() -> Self {
        Self {
            roots: (0..3).map(|_| tempfile::tempdir().unwrap()).collect(),
            addresses: free_addresses(3),
            nodes: (0..3).map(|_| None).collect(),
            written: 0,
        }
    }

    async fn start(&mut self, nth: usize) {
        let world = host::world(self.roots[nth].path()).expect("a world");
        let options = Options {
            listen: self.addresses[nth].clone(),
            join: self.addresses.clone(),
            bootstrap_expect: 3,
            shards: Some(SHARDS),
            // A checkpoint as soon as nothing comes, and no log behind it.
            checkpoint: CheckpointPolicy {
                quiet: Duration::from_millis(100),
                entries_kept: 0,
                ..CheckpointPolicy::default()
            },
            ..Options::default()
        };
        let catalogue = opened(Arc::new(Memory::default()));
        let registry = prometheus::Registry::new();
        let runtime = tokio::runtime::Runtime::new().expect("threads");
        let started = runtime
            .spawn(async move { Cluster::start(world, options, catalogue, &registry).await });
        let cluster = started.await.expect("no panic").expect("it starts");
        self.nodes[nth] = Some(Node {
            cluster,
            runtime: Some(runtime),
        });
    }

    async fn stop(&mut self, nth: usize) {
        let node = self.nodes[nth].take().expect("it runs");
        node.cluster.stop().await;
    }

    fn node(&self, nth: usize) -> &Arc<Cluster> {
        &self.nodes[nth].as_ref().expect("it runs").cluster
    }

    fn running(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.nodes.iter().flatten().map(|node| &node.cluster)
    }

    async fn ready(&self) {
        for node in self.running() {
            until("ready", async || node.ready()).await;
        }
    }

    /// A sample more of each series.
    async fn write(&mut self) {
        self.written += 1;
        self.write_at(1, "m").await;
    }

    async fn write_at(&self, before_ms: i64, name: &str) {
        let world = host::world(self.roots[0].path()).expect("a world");
        let at = world.clock.now().plus_ms(-before_ms);
        let mut batch = Batch::default();
        for n in 0..SERIES {
            let labels = Labels::from_pairs([("__name__", name.to_owned()), ("n", n.to_string())]);
            batch.add_sample(labels, at, n as f64);
        }
        let node = self.running().next().expect("one runs");
        until("written", async || {
            let written = node.write(batch.clone()).await.map_err(|e| e.to_string())?;
            assert_eq!(written.rejected, vec![]);
            Ok(())
        })
        .await;
    }

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

    /// All nodes that run have all that was written, and the same of it.
    async fn agree(&self) {
        self.ready().await;
        for node in self.running() {
            for consistency in [Consistency::Strong, Consistency::Local] {
                until("all samples", async || {
                    let selection = Selection {
                        matchers: vec![Matcher::equal("__name__", "m")],
                        start: Timestamp::MIN,
                        end: Timestamp::MAX,
                        take: Take::All,
                        consistency,
                    };
                    let source = node.source().ok_or("not formed")?;
                    let found = source.select(&selection).await;
                    let found = found.map_err(|e| e.to_string())?;
                    let count: usize = found.iter().map(|s| s.samples.len()).sum();
                    match count == SERIES * self.written {
                        true => Ok(()),
                        false => {
                            let node = node.node_id();
                            Err(format!("{count} samples of node {node}, {consistency:?}"))
                        }
                    }
                })
                .await;
            }
        }
        for shard in (0..SHARDS).map(ShardId) {
            until("one digest", async || {
                let digests: Vec<_> = self.running().map(|node| node.digest(shard)).collect();
                match digests.iter().all(|d| d.is_some() && *d == digests[0]) {
                    true => Ok(()),
                    false => Err(format!("{digests:?}")),
                }
            })
            .await;
        }
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
    let mut three = Three::new();
    for nth in 0..3 {
        three.start(nth).await;
    }
    three.ready().await;
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
    closed(three.node(0), "g1", &name).await;
    three.start(2).await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    closed(three.node(0), "g1", &name).await;
    assert_eq!(three.node(0).digest(ShardId(0)), None);
    assert!(
        three.node(0).digest(ShardId(1)).is_some(),
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
    let mut three = Three::new();
    for nth in 0..3 {
        three.start(nth).await;
    }
    three.ready().await;
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
    let admin = three.node(1).admin();
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
