//! Nodes of one cluster in one process, on the real network and disk: they form, replicate, route,
//! come back and make room for another. Faults are the simulation's business.

#![allow(
    clippy::disallowed_methods,
    reason = "a test is an outermost loop: it waits and reads the clock"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::{Answers, AskError, Cluster, Options};
use model::group::{GroupingKey, PushOp};
use model::sink::{Groups, Sink};
use model::source::{Consistency, Selection, Take};
use model::{Batch, Labels, Matcher, Timestamp};

struct Node {
    cluster: Arc<Cluster>,
    _root: Arc<tempfile::TempDir>,
}

async fn start(
    root: &Arc<tempfile::TempDir>,
    listen: &str,
    join: &[String],
    expect: usize,
) -> Node {
    let world = host::world(root.path()).expect("a world");
    let options = Options {
        listen: listen.to_owned(),
        join: join.to_vec(),
        bootstrap_expect: expect,
        shards: 4,
        ..Options::default()
    };
    let catalogue = Arc::new(cluster::catalogue::Memory::default());
    let registry = prometheus::Registry::new();
    let cluster = Cluster::start(world, options, catalogue, &registry)
        .await
        .expect("it starts");
    Node {
        cluster,
        _root: root.clone(),
    }
}

struct Echo;

#[async_trait::async_trait]
impl Answers for Echo {
    async fn answer(&self, _kind: &str, payload: bytes::Bytes) -> Result<bytes::Bytes, String> {
        Ok(payload)
    }
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> Result<(), String>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match done().await {
            Ok(()) => return,
            Err(why) if Instant::now() > deadline => panic!("{what}: {why}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

fn free_addresses(count: usize) -> Vec<String> {
    #[allow(clippy::disallowed_types, reason = "finding free ports")]
    let sockets: Vec<std::net::TcpListener> = (0..count)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    sockets
        .iter()
        .map(|s| s.local_addr().unwrap().to_string())
        .collect()
}

/// One sample a series, `before_ms` ago.
fn batch(world: &model::port::World, before_ms: i64, series: usize) -> Batch {
    let at = world.clock.now().plus_ms(-before_ms);
    let mut batch = Batch::default();
    for n in 0..series {
        let labels = Labels::from_pairs([("__name__", "m".to_owned()), ("n", n.to_string())]);
        batch.add_sample(labels, at, n as f64);
    }
    batch
}

async fn count(cluster: &Cluster) -> Result<usize, String> {
    let selection = Selection {
        matchers: vec![Matcher::equal("__name__", "m")],
        start: Timestamp::MIN,
        end: Timestamp::MAX,
        take: Take::All,
        consistency: Consistency::Strong,
    };
    let mut samples = 0;
    for source in cluster.sources() {
        let series = source.select(&selection).await.map_err(|e| e.to_string())?;
        samples += series.iter().map(|s| s.samples.len()).sum::<usize>();
    }
    Ok(samples)
}

#[tokio::test]
async fn nodes_form_replicate_route_and_come_back() {
    let addresses = free_addresses(4);
    let clock = tempfile::tempdir().unwrap();
    let world = host::world(clock.path()).unwrap();
    let roots: Vec<_> = (0..4)
        .map(|_| Arc::new(tempfile::tempdir().unwrap()))
        .collect();
    let join = addresses[..3].to_vec();
    let mut nodes = Vec::new();
    for n in 0..3 {
        nodes.push(start(&roots[n], &addresses[n], &join, 3).await);
    }
    for node in &nodes {
        until("ready", async || node.cluster.ready()).await;
    }
    let ids: Vec<_> = nodes
        .iter()
        .map(|n| n.cluster.cluster_id().expect("formed"))
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "one cluster");

    // Any node takes any write; each reads all of it.
    for (n, node) in nodes.iter().enumerate() {
        let written = node
            .cluster
            .write(batch(&world, 1_000 * (n as i64 + 1), 50))
            .await
            .unwrap();
        assert_eq!(written.rejected, vec![]);
    }
    for node in &nodes {
        assert_eq!(count(&node.cluster).await, Ok(150));
    }

    // A group pushed here is read and deleted there.
    let key = GroupingKey::new([("job".to_owned(), "j".to_owned())]).unwrap();
    nodes[0]
        .cluster
        .push(key.clone(), PushOp::Put(vec![]))
        .await
        .unwrap();
    assert_eq!(nodes[2].cluster.groups().await.unwrap().len(), 1);
    nodes[1].cluster.push(key, PushOp::Delete).await.unwrap();
    assert_eq!(nodes[0].cluster.groups().await.unwrap().len(), 0);

    // A question reaches the others' programs, and who has none says so.
    nodes[1].cluster.answer_with(Arc::new(Echo));
    let asked = nodes[0].cluster.ask_others("echo", "hello".into()).await;
    assert_eq!(asked.len(), 2);
    for one in asked {
        match one.node == nodes[1].cluster.node_id() {
            true => assert_eq!(one.answer, Ok("hello".into())),
            false => assert!(matches!(one.answer, Err(AskError::Refused(_)))),
        }
    }

    // One node stops; the others go on; it comes back and agrees.
    let stopped = nodes.remove(0);
    stopped.cluster.stop().await;
    drop(stopped);
    until("writing with two of three", async || {
        let written = nodes[0]
            .cluster
            .write(batch(&world, 9_000, 50))
            .await
            .map_err(|e| e.to_string())?;
        assert_eq!(written.rejected, vec![]);
        Ok(())
    })
    .await;
    let back = start(&roots[0], &addresses[0], &join, 3).await;
    until("ready again", async || back.cluster.ready()).await;
    assert_eq!(count(&back.cluster).await, Ok(200));

    // A fourth joins and takes its share of the shards.
    let fourth = start(&roots[3], &addresses[3], &join, 3).await;
    until("the fourth has replicas", async || {
        let own = fourth.cluster.node_id().0;
        let status = fourth.cluster.status();
        let settled = status.state.table.iter().all(|a| a.settled);
        let holds = status
            .state
            .table
            .iter()
            .filter(|a| a.replicas.contains(&own))
            .count();
        match settled && holds >= 3 {
            true => fourth.cluster.ready(),
            false => Err(format!("{holds} replicas, settled: {settled}")),
        }
    })
    .await;
    assert_eq!(count(&fourth.cluster).await, Ok(200));
}
