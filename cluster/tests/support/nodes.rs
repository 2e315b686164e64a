//! Nodes of one cluster in one process, on the real network and disk, that are stopped and started again.

use std::sync::Arc;
use std::time::Duration;

use cluster::catalogue::{Memory, opened};
use cluster::shard::upkeep::CheckpointPolicy;
use cluster::{Cluster, Options};
use model::sink::Sink;
use model::source::{Consistency, Selection, Take};
use model::{Batch, Labels, Matcher, ShardId, Timestamp};

use crate::support::{free_addresses, until};

pub const SHARDS: u32 = 2;
const SERIES: usize = 40;

/// Places where nodes may run, and the nodes that do.
pub struct Nodes {
    pub roots: Vec<tempfile::TempDir>,
    addresses: Vec<String>,
    pub nodes: Vec<Option<Node>>,
    checkpoint: CheckpointPolicy,
    written: usize,
}

pub struct Node {
    pub cluster: Arc<Cluster>,
    #[allow(dead_code, reason = "not all tests look at figures")]
    pub registry: prometheus::Registry,
    /// Ends what a process would end: others' connections too.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.runtime.take().expect("once").shutdown_background();
    }
}

impl Nodes {
    pub async fn start_all(count: usize, checkpoint: CheckpointPolicy) -> Self {
        let mut nodes = Self {
            roots: (0..count).map(|_| tempfile::tempdir().unwrap()).collect(),
            addresses: free_addresses(count),
            nodes: (0..count).map(|_| None).collect(),
            checkpoint,
            written: 0,
        };
        for nth in 0..count {
            nodes.start(nth).await;
        }
        nodes.ready().await;
        nodes
    }

    pub async fn start(&mut self, nth: usize) {
        let world = host::world(self.roots[nth].path()).expect("a world");
        let options = Options {
            listen: self.addresses[nth].clone(),
            join: self.addresses.clone(),
            bootstrap_expect: self.addresses.len(),
            shards: Some(SHARDS),
            checkpoint: self.checkpoint,
            ..Options::default()
        };
        let catalogue = opened(Arc::new(Memory::default()));
        let registry = prometheus::Registry::new();
        let runtime = tokio::runtime::Runtime::new().expect("threads");
        let figures = registry.clone();
        let started =
            runtime.spawn(async move { Cluster::start(world, options, catalogue, &figures).await });
        let cluster = started.await.expect("no panic").expect("it starts");
        self.nodes[nth] = Some(Node {
            cluster,
            registry,
            runtime: Some(runtime),
        });
    }

    pub async fn stop(&mut self, nth: usize) {
        let node = self.nodes[nth].take().expect("it runs");
        node.cluster.stop().await;
    }

    pub fn node(&self, nth: usize) -> &Node {
        self.nodes[nth].as_ref().expect("it runs")
    }

    pub fn running(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.nodes.iter().flatten().map(|node| &node.cluster)
    }

    /// All that run can do their part, and nothing moves.
    pub async fn ready(&self) {
        for node in self.running() {
            until("ready", async || {
                let table = &node.status().state.table;
                match table.iter().find(|assignment| !assignment.settled) {
                    None => node.ready(),
                    Some(moving) => Err(format!("{moving:?}")),
                }
            })
            .await;
        }
    }

    /// A sample more of each series.
    pub async fn write(&mut self) {
        self.written += 1;
        self.write_at(1, "m").await;
        // The next one is later.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    pub async fn write_at(&self, before_ms: i64, name: &str) {
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

    /// All nodes that run have all that was written, and the same of it.
    pub async fn agree(&self) {
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
