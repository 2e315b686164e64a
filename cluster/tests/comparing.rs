//! Three nodes of which one holds another state than the two others: it is found and stops, and they go on.

#![allow(
    clippy::disallowed_methods,
    reason = "a test is an outermost loop: it waits and reads the clock"
)]

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster::catalogue::{Memory, opened};
use cluster::raft::types::Mark;
use cluster::{CheckpointPolicy, Cluster, Options};
use model::sink::Sink;
use model::source::{Consistency, Selection, Take};
use model::{Batch, Labels, Matcher, ShardId, Timestamp};
use prometheus::Registry;
use support::{free_addresses, until};
use tokio::runtime::Builder;

const SERIES: usize = 50;
const SHARD: ShardId = ShardId(0);

struct Node {
    cluster: Arc<Cluster>,
    registry: Registry,
}

async fn start(root: PathBuf, listen: String, join: Vec<String>) -> Node {
    let world = host::world(&root).expect("a world");
    let options = Options {
        listen,
        join,
        bootstrap_expect: 3,
        shards: Some(1),
        compare_every: Duration::from_millis(200),
        // Only when somebody asks for one.
        checkpoint: CheckpointPolicy {
            age_max: Duration::from_secs(3600),
            quiet: Duration::from_secs(3600),
            ..CheckpointPolicy::default()
        },
        ..Options::default()
    };
    let catalogue = opened(Arc::new(Memory::default()));
    let registry = Registry::new();
    let cluster = Cluster::start(world, options, catalogue, &registry).await;
    Node {
        cluster: cluster.expect("it starts"),
        registry,
    }
}

/// One sample of each series.
async fn write(node: &Node, at: Timestamp) -> Result<(), String> {
    let mut batch = Batch::default();
    for n in 0..SERIES {
        let labels = Labels::from_pairs([("__name__", "m".to_owned()), ("n", n.to_string())]);
        batch.add_sample(labels, at, n as f64);
    }
    let written = node.cluster.write(batch).await;
    let written = written.map_err(|e| e.to_string())?;
    assert_eq!(written.rejected, vec![]);
    Ok(())
}

async fn samples(node: &Node) -> Result<usize, String> {
    let selection = Selection {
        matchers: vec![Matcher::equal("__name__", "m")],
        start: Timestamp::MIN,
        end: Timestamp::MAX,
        take: Take::All,
        consistency: Consistency::Strong,
    };
    let source = node.cluster.source().ok_or("no shards")?;
    let found = source.select(&selection).await;
    let found = found.map_err(|e| e.to_string())?;
    Ok(found.iter().map(|series| series.samples.len()).sum())
}

/// A counter, over these nodes.
fn counted(nodes: &[Node], name: &str) -> f64 {
    let families = nodes.iter().flat_map(|node| node.registry.gather());
    let ours = families.filter(|family| family.name() == name);
    ours.map(|family| family.get_metric()[0].get_counter().get_value())
        .sum()
}

/// Makes the replica's checkpoint, at which it is not any more, one of `index`, as if what was committed up
/// to there had changed nothing: the state of a replica that lost some of the log on its way.
async fn skip_to(root: &tempfile::TempDir, index: u64) {
    let world = host::world(root.path()).expect("a world");
    let dir = PathBuf::from("shards/00000/engine");
    let metrics = Arc::new(tsdb::Metrics::new());
    let shard = tsdb::Shard::open(&world, dir, metrics, Arc::default()).await;
    let shard = shard.expect("it opens");
    let position = shard.position().expect("a checkpoint");
    assert!(position.index < index, "there is something to skip");
    let mut mark = Mark::decode(&position.opaque).expect("a mark");
    mark.log_id.as_mut().expect("an entry").index = index;
    shard.advance(index);
    shard
        .checkpoint(|_| mark.encode())
        .await
        .expect("it is written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_differs_from_two_stops() {
    let addresses = free_addresses(3);
    let roots = [(); 3].map(|()| tempfile::tempdir().unwrap());
    // What is left of a node after its end goes with its process, or with a runtime of its own.
    let first_life = Builder::new_multi_thread().enable_all().build().unwrap();
    let begin = |n: usize| {
        let root = roots[n].path().to_owned();
        start(root, addresses[n].clone(), addresses.clone())
    };
    let mut nodes = vec![begin(0).await, begin(1).await];
    nodes.push(first_life.spawn(begin(2)).await.unwrap());
    for node in &nodes {
        until("ready", async || node.cluster.ready()).await;
    }
    let now = host::world(roots[0].path()).unwrap().clock.now();
    until("written", async || write(&nodes[0], now).await).await;
    until("compared", async || {
        let compared = counted(&nodes, "quorate_shard_comparisons_total");
        if compared > 0.0 {
            Ok(())
        } else {
            Err("never".to_owned())
        }
    })
    .await;
    let pinned = nodes[0].cluster.admin().snapshot("now", true).await;
    pinned.expect("every replica has a checkpoint");
    until("written", async || {
        write(&nodes[1], now.plus_ms(1000)).await
    })
    .await;
    let digest = |node: &Node| node.cluster.digest(SHARD).ok_or("no replica".to_owned());
    until("level", async || {
        let all: Result<Vec<_>, _> = nodes.iter().map(digest).collect();
        let all = all?;
        match all.iter().all(|one| *one == all[0]) {
            true => Ok(()),
            false => Err(format!("{all:?}")),
        }
    })
    .await;
    assert_eq!(counted(&nodes, "quorate_shard_mismatches_total"), 0.0);

    let (applied, _) = digest(&nodes[2]).unwrap();
    let third = nodes.pop().expect("three");
    let stop = async move { third.cluster.stop().await };
    first_life.spawn(stop).await.unwrap();
    first_life.shutdown_background();
    skip_to(&roots[2], applied).await;
    nodes.push(begin(2).await);
    until("the third stops", async || match nodes[2].cluster.ready() {
        Err(why) if why.contains("group g1 does not run: its state at log index") => Ok(()),
        other => Err(format!(
            "{other:?}, digests {:?}, alike {}, not {}",
            nodes.iter().map(digest).collect::<Vec<_>>(),
            counted(&nodes, "quorate_shard_comparisons_total"),
            counted(&nodes, "quorate_shard_mismatches_total"),
        )),
    })
    .await;
    assert_eq!(nodes[2].cluster.digest(SHARD), None);
    assert!(counted(&nodes, "quorate_shard_mismatches_total") > 0.0);
    until("written by two", async || {
        write(&nodes[0], now.plus_ms(2000)).await
    })
    .await;
    for node in &nodes {
        until("answered", async || match samples(node).await? {
            150 => Ok(()),
            other => Err(format!("{other} samples")),
        })
        .await;
    }
    for node in &nodes[..2] {
        assert_eq!(node.cluster.ready(), Ok(()));
    }
}
