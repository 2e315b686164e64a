//! A node of whose log a part is damaged gets its replicas back without anybody's doing, where the others can do
//! without them. Nodes of one cluster in one process, on the real network and disk.

#![allow(
    clippy::disallowed_methods,
    reason = "a test is an outermost loop: it waits, reads the clock and damages files"
)]

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster::catalogue::{Memory, opened};
use cluster::shard::upkeep::CheckpointPolicy;
use cluster::{Cluster, Options};
use model::sink::Sink;
use model::source::{Consistency, Selection, Take};
use model::{Batch, Labels, Matcher, ShardId, Timestamp};
use support::{free_addresses, until};

const SHARDS: u32 = 2;
const SERIES: usize = 40;

/// Places where nodes may run, and the nodes that do.
struct Nodes {
    roots: Vec<tempfile::TempDir>,
    addresses: Vec<String>,
    nodes: Vec<Option<Node>>,
    written: usize,
}

struct Node {
    cluster: Arc<Cluster>,
    registry: prometheus::Registry,
    /// Ends what a process would end: others' connections too.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.runtime.take().expect("once").shutdown_background();
    }
}

impl Node {
    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metric = &family.expect("registered").get_metric()[0];
        metric.get_gauge().get_value() + metric.get_counter().get_value()
    }

    fn quarantined(&self) -> f64 {
        self.metric("quorate_log_quarantined_groups")
    }
}

impl Nodes {
    async fn start_all(count: usize) -> Self {
        let mut nodes = Self {
            roots: (0..count).map(|_| tempfile::tempdir().unwrap()).collect(),
            addresses: free_addresses(count),
            nodes: (0..count).map(|_| None).collect(),
            written: 0,
        };
        for nth in 0..count {
            nodes.start(nth).await;
        }
        nodes.ready().await;
        nodes
    }

    async fn start(&mut self, nth: usize) {
        let world = host::world(self.roots[nth].path()).expect("a world");
        let options = Options {
            listen: self.addresses[nth].clone(),
            join: self.addresses.clone(),
            bootstrap_expect: self.addresses.len(),
            shards: Some(SHARDS),
            // All of the log is needed.
            checkpoint: CheckpointPolicy {
                quiet: Duration::from_secs(3600),
                ..CheckpointPolicy::default()
            },
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

    async fn stop(&mut self, nth: usize) {
        let node = self.nodes[nth].take().expect("it runs");
        node.cluster.stop().await;
    }

    fn node(&self, nth: usize) -> &Node {
        self.nodes[nth].as_ref().expect("it runs")
    }

    fn running(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.nodes.iter().flatten().map(|node| &node.cluster)
    }

    /// All that run can do their part, and nothing moves.
    async fn ready(&self) {
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

    /// Moves of replicas that the cluster remembers: of shard, and how many there were then.
    fn moves(&self) -> Vec<(u32, usize)> {
        let node = self.running().next().expect("one runs");
        let history = &node.status().state.history;
        history.iter().map(|m| (m.shard, m.to.len())).collect()
    }

    /// A sample more of each series.
    async fn write(&mut self) {
        self.written += 1;
        let world = host::world(self.roots[0].path()).expect("a world");
        let at = world.clock.now().plus_ms(-1);
        let mut batch = Batch::default();
        for n in 0..SERIES {
            let labels = Labels::from_pairs([("__name__", "m".to_owned()), ("n", n.to_string())]);
            batch.add_sample(labels, at, n as f64);
        }
        let node = self.running().next().expect("one runs");
        until("written", async || {
            let written = node.write(batch.clone()).await.map_err(|e| e.to_string())?;
            assert_eq!(written.rejected, vec![]);
            Ok(())
        })
        .await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    async fn write_some(&mut self) {
        for _ in 0..10 {
            self.write().await;
        }
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
                        false => Err(format!("{count} of node {}", node.node_id())),
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

    fn segments(&self, nth: usize) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.roots[nth].path().join("log")).unwrap();
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        files
    }

    /// Turns a bit of an entry of the group, in the newest segment, and of the footer, which tells where entries
    /// lie, if they are to be looked for.
    fn rot(&self, nth: usize, group: u32, found: Found) {
        let path = self.segments(nth).pop().expect("a segment");
        let mut bytes = std::fs::read(&path).unwrap();
        let (entries, footer) = entries(&bytes, group);
        bytes[entries[entries.len() / 2]] ^= 4;
        if found == Found::Opening {
            bytes[footer] ^= 4;
        }
        std::fs::write(&path, bytes).unwrap();
    }
}

/// When damage is found.
#[derive(Clone, Copy, PartialEq)]
enum Found {
    Opening,
    Reading,
}

const HEADER: usize = 64;
const RECORD: usize = 40;

/// Where payloads of a group's entries, but for the smallest, lie in a segment, and its footer, as docs/format/log.md has it.
fn entries(bytes: &[u8], group: u32) -> (Vec<usize>, usize) {
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (mut found, mut footer, mut at) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        assert_eq!(&bytes[at..at + 3], b"QLB");
        let fill = u32_at(at + 4) >> 16;
        let (kind, index, payloads) = (bytes[at + 4], u32_at(at + 48), u32_at(at + 56));
        let records = at + HEADER;
        let mut payload = records + index as usize;
        at = payload + payloads as usize + fill as usize;
        if kind != 2 {
            footer = records;
            continue;
        }
        for record in (records..records + index as usize).step_by(RECORD) {
            let len = u32_at(record + 32) as usize;
            if bytes[record] == 1 {
                if u32_at(record + 4) == group && len > 30 {
                    found.push(payload + len / 2);
                }
                payload += len;
            }
        }
    }
    (found, footer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_whose_log_is_damaged_leave_and_come_back() {
    let mut three = Nodes::start_all(3).await;
    three.write_some().await;

    // Found when the log is opened. The others go on meanwhile.
    three.stop(0).await;
    three.rot(0, 1, Found::Opening);
    three.write().await;
    three.start(0).await;
    assert_eq!(three.node(0).quarantined(), 1.0);
    three.write().await;
    until("it came back", async || match three.moves()[..] {
        [(0, 2), (0, 3)] => Ok(()),
        ref moves => Err(format!("{moves:?}")),
    })
    .await;
    three.agree().await;
    assert_eq!(three.node(0).quarantined(), 0.0);

    // It votes: the others are stopped in turn.
    for nth in [1, 2] {
        three.stop(nth).await;
        three.write_some().await;
        three.start(nth).await;
        three.agree().await;
    }

    // Found when it is read, and of both shards at once.
    three.stop(0).await;
    three.rot(0, 1, Found::Reading);
    three.rot(0, 2, Found::Reading);
    three.start(0).await;
    three.write().await;
    until("both came back", async || {
        let mut moves = three.moves().split_off(2);
        moves.sort_unstable();
        match moves[..] {
            [(0, 2), (0, 3), (1, 2), (1, 3)] => Ok(()),
            ref moves => Err(format!("{moves:?}")),
        }
    })
    .await;
    three.agree().await;
    assert_eq!(three.node(0).quarantined(), 0.0);

    // What came back is whole when it is opened again.
    three.stop(0).await;
    three.write().await;
    three.start(0).await;
    three.agree().await;
    assert_eq!(three.node(0).quarantined(), 0.0);
    three.stop(1).await;
    three.write().await;
    three.agree().await;
    assert_eq!(three.moves().len(), 6, "nothing else moved");
    let relieved = three.nodes.iter().flatten();
    let relieved = relieved.map(|node| node.metric("quorate_shard_relieved_total"));
    assert!(relieved.sum::<f64>() <= 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_another_one_needs_stays_in_quarantine() {
    let mut two = Nodes::start_all(2).await;
    two.write_some().await;
    two.stop(0).await;
    two.rot(0, 1, Found::Opening);
    two.start(0).await;
    let closed = async || match two.node(0).cluster.ready() {
        Err(why) if why.contains("group g1 does not run: the log is damaged") => Ok(()),
        other => Err(format!("{other:?}")),
    };
    until("g1 is in quarantine", closed).await;
    // The meta leader has asked some times by then.
    tokio::time::sleep(Duration::from_secs(7)).await;
    closed().await.unwrap();
    assert_eq!(two.moves(), []);
    assert_eq!(two.node(0).quarantined(), 1.0);
}
