//! Nodes of one cluster in one process, on the real network and disk: they form, replicate, route,
//! come back and make room for another. Faults are the simulation's business.

#![allow(
    clippy::disallowed_methods,
    reason = "a test is an outermost loop: it waits and reads the clock"
)]

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster::catalogue::{Memory, opened};
use cluster::{Answers, AskError, Cluster, Options};
use futures::StreamExt;
use model::batch::DeltaSpan;
use model::group::{Family, FamilyKind, GroupingKey, PushOp, PushOptions};
use model::limits::NEWEST_PAGE_SERIES;
use model::sink::{Groups, Reason, Sink, WriteError};
use model::source::{Consistency, MetadataSelection, Selection, Source, Take};
use model::trail::{Asked, Told, Trail};
use model::{
    Batch, Exemplar, ExemplarSeries, FamilyMetadata, Histogram, Labels, MatchOp, Matcher,
    MetadataStore, MetricKind, NewestSelection, Series, ShardId, Timestamp,
};
use support::{free_addresses, until};

struct Node {
    cluster: Arc<Cluster>,
    _root: Arc<tempfile::TempDir>,
    /// Ends what a process would end: others' connections too.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.runtime.take().expect("once").shutdown_background();
    }
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
        shards: Some(4),
        exemplars_max: 100,
        scrub_every: Duration::from_secs(2),
        ..Options::default()
    };
    let catalogue = opened(Arc::new(Memory::default()));
    let registry = prometheus::Registry::new();
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let started =
        runtime.spawn(async move { Cluster::start(world, options, catalogue, &registry).await });
    let cluster = started.await.expect("no panic").expect("it starts");
    Node {
        cluster,
        _root: root.clone(),
        runtime: Some(runtime),
    }
}

struct Echo;

#[async_trait::async_trait]
impl Answers for Echo {
    async fn answer(&self, _kind: &str, payload: bytes::Bytes) -> Result<bytes::Bytes, String> {
        Ok(payload)
    }
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

async fn exemplars(cluster: &Cluster) -> Result<Vec<ExemplarSeries>, String> {
    let selection = MetadataSelection {
        any_of: vec![],
        start: Timestamp::MIN,
        end: Timestamp::MAX,
        consistency: Consistency::Strong,
    };
    let mut found = Vec::new();
    if let Some(source) = cluster.source() {
        found.extend(
            source
                .exemplars(&selection)
                .await
                .map_err(|e| e.to_string())?,
        );
    }
    Ok(found)
}

async fn select(cluster: &Cluster, name: &str) -> Result<Vec<Series>, String> {
    let selection = all_of(name);
    let mut found = Vec::new();
    if let Some(source) = cluster.source() {
        found.extend(source.select(&selection).await.map_err(|e| e.to_string())?);
    }
    Ok(found)
}

async fn count(cluster: &Cluster) -> Result<usize, String> {
    let series = select(cluster, "m").await?;
    Ok(series.iter().map(|s| s.samples.len()).sum())
}

/// Whoever asks for the newest samples of many series gets them in bounded pages, in order: of all
/// shards and of each.
async fn page_by_page(cluster: &Cluster, world: &model::port::World) {
    let mut many = Batch::default();
    let at = world.clock.now();
    let count = 3 * NEWEST_PAGE_SERIES;
    for n in 0..count {
        let labels = Labels::from_pairs([("__name__", "many".to_owned()), ("n", n.to_string())]);
        many.add_sample(labels, at, n as f64);
    }
    cluster.write(many).await.unwrap();
    let selection = NewestSelection {
        any_of: vec![vec![Matcher::equal("__name__", "many")]],
        start: at,
        end: at,
        consistency: Consistency::Strong,
    };
    let all = cluster.source().expect("formed");
    for sources in [vec![all], cluster.shard_sources()] {
        let mut found = 0;
        for source in sources {
            let pages = source.newest(&selection).await.unwrap();
            let pages: Vec<_> = pages.map(Result::unwrap).collect().await;
            assert!(!pages.is_empty());
            let lengths = pages.iter().map(Vec::len);
            assert!(
                lengths
                    .into_iter()
                    .all(|n| (1..=NEWEST_PAGE_SERIES).contains(&n))
            );
            let pages = pages.concat();
            assert!(pages.is_sorted_by(|a, b| a.labels.cmp_by_name(&b.labels).is_lt()));
            found += pages.len();
        }
        assert_eq!(found, count);
    }
}

/// Every sample of a name, as everybody must give it.
fn all_of(name: &str) -> Selection {
    Selection {
        matchers: vec![Matcher::equal("__name__", name)],
        start: Timestamp::MIN,
        end: Timestamp::MAX,
        take: Take::All,
        consistency: Consistency::Strong,
    }
}

/// The source of a node that notes who answers what.
fn noted(cluster: &Cluster) -> (Arc<dyn Source>, Arc<Trail>) {
    let trail = Arc::new(Trail::default());
    let source = cluster.source().expect("formed").noting(trail.clone());
    (source.expect("all shards know whom they ask"), trail)
}

/// Whoever wants to know is told which node answered for which shards, and what that moved.
async fn explain(cluster: &Cluster) {
    let selection = all_of("m");
    let (source, trail) = noted(cluster);
    until("every leader answers", async || {
        source.select(&selection).await.map_err(|e| e.to_string())?;
        let mut all = trail.take();
        let (asked, told) = all.pop().expect("a question");
        assert_eq!((asked, all.len()), (Asked::Series(selection.clone()), 0));
        let mut shards: Vec<u32> = told.iter().flat_map(|t| &t.shards).map(|s| s.0).collect();
        shards.sort_unstable();
        assert_eq!(shards, [0, 1, 2, 3]);
        let read = |told: &Told| (told.series, told.samples);
        let read = told.iter().map(read);
        let read = read.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
        assert_eq!(read, (50, 150));
        let is_near = |told: &&Told| told.node == Some(cluster.node_id());
        assert!(told.iter().filter(is_near).all(|near| near.bytes == 0));
        // A shard may have changed its leader just now, and was then looked for.
        let mut far = told.iter().filter(|told| !is_near(told));
        match far.all(|far| far.node.is_some() && far.bytes > 0) {
            true => Ok(()),
            false => Err(format!("{told:?}")),
        }
    })
    .await;
}

/// Once a node has applied all there is, its own replicas answer, and nothing travels.
async fn near(cluster: &Cluster) {
    let selection = all_of("m");
    let (source, trail) = noted(cluster);
    until("the replicas here answer", async || {
        source.select(&selection).await.map_err(|e| e.to_string())?;
        let (_, told) = trail.take().pop().expect("a question");
        match told.as_slice() {
            [near] if near.node == Some(cluster.node_id()) => {
                assert_eq!((near.shards.len(), near.bytes), (4, 0));
                assert_eq!((near.series, near.samples), (50, 150));
                Ok(())
            }
            told => Err(format!("{told:?}")),
        }
    })
    .await;
}

/// Block files in a snapshot, by node and shard.
async fn blocks_of(root: &Arc<tempfile::TempDir>, name: &str) -> usize {
    let world = host::world(root.path()).expect("a world");
    let dir = std::path::Path::new("snapshots").join(name);
    let mut blocks = 0;
    for shard in world.disk.list(&dir).await.unwrap() {
        let shard = dir.join(shard.file_name().unwrap());
        let files = world.disk.list(&shard).await.unwrap_or_default();
        let is_block = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("block-")
        };
        blocks += files.iter().filter(|path| is_block(path)).count();
    }
    blocks
}

/// Opens each shard of a snapshot as the engine would, and counts the samples of a name.
async fn count_in(root: &Arc<tempfile::TempDir>, name: &str, metric: &str) -> usize {
    let world = host::world(root.path()).expect("a world");
    let selection = Selection {
        consistency: Consistency::Local,
        ..all_of(metric)
    };
    let mut samples = 0;
    for shard in 0..4 {
        let dir = PathBuf::from(format!("snapshots/{name}/{shard:05}"));
        let metrics = Arc::new(tsdb::Metrics::new());
        let shard = tsdb::Shard::open(&world, dir, metrics, Arc::default())
            .await
            .expect("opens");
        shard.verify().await.expect("verifies");
        let found = shard.select(&selection).await.unwrap();
        samples += found.iter().map(|s| s.samples.len()).sum::<usize>();
    }
    samples
}

/// Damages a block of each node's first shard and the node's identity, one node after the other, and waits
/// until both are whole again, the block from another node.
async fn rot_and_mend(roots: &[Arc<tempfile::TempDir>]) {
    for root in roots {
        let dir = root.path().join("shards/00000/engine");
        let mut files = std::fs::read_dir(&dir).unwrap().map(|f| f.unwrap().path());
        let block = files.find(|path| path.display().to_string().contains("block-"));
        for file in [block.expect("a block"), root.path().join("identity.json")] {
            let whole = std::fs::read(&file).unwrap();
            let mut rotten = whole.clone();
            let middle = rotten.len() / 2;
            rotten[middle] ^= 4;
            std::fs::write(&file, rotten).unwrap();
            until("the file is whole again", async || {
                match std::fs::read(&file).ok() == Some(whole.clone()) {
                    true => Ok(()),
                    false => Err(file.display().to_string()),
                }
            })
            .await;
        }
    }
}

/// A node of which a shard's checkpoint is damaged, and another one's manifest, gets both from the others.
fn checkpoint_rots(root: &Arc<tempfile::TempDir>) {
    let dir_of = |shard: u32| root.path().join(format!("shards/{shard:05}/engine"));
    let mut files = std::fs::read_dir(dir_of(1)).unwrap();
    let checkpoint = files.find_map(|file| {
        let path = file.unwrap().path();
        path.display()
            .to_string()
            .contains("checkpoint-")
            .then_some(path)
    });
    for damaged in [
        checkpoint.expect("a checkpoint"),
        dir_of(2).join("manifest"),
    ] {
        let mut bytes = std::fs::read(&damaged).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        std::fs::write(&damaged, bytes).unwrap();
    }
}

/// All replicas of a shard stand at one index with the same content.
async fn level(nodes: &[&Node], shard: u32) {
    until("one digest", async || {
        let digests = nodes.iter().map(|node| node.cluster.digest(ShardId(shard)));
        let digests: Vec<_> = digests.collect();
        match digests.iter().all(|d| d.is_some() && *d == digests[0]) {
            true => Ok(()),
            false => Err(format!("{digests:?}")),
        }
    })
    .await;
}

/// Deletes, cleans, pins and counts through different nodes.
async fn administrate(nodes: &[Node], roots: &[Arc<tempfile::TempDir>]) {
    let statistics = nodes[1].cluster.admin().head_statistics(2).await.unwrap();
    assert!(statistics.series >= 51, "{statistics:?}");
    assert_eq!(statistics.series_by_metric_name[0].value, 50);
    assert_eq!(statistics.values_by_label_name[0].name, "n");
    assert_eq!(statistics.values_by_label_name[0].value, 50);

    let mut tries = 0;
    until("the old samples are sealed", async || {
        tries += 1;
        let name = format!("blocks-{tries}");
        let pinned = nodes[2].cluster.admin().snapshot(&name, false).await;
        pinned.map_err(|e| e.to_string())?;
        for root in &roots[..3] {
            let blocks = blocks_of(root, &name).await;
            if blocks < 4 {
                return Err(format!("{blocks} blocks"));
            }
        }
        Ok(())
    })
    .await;

    rot_and_mend(&roots[..3]).await;
    let chosen = vec![
        Matcher::equal("__name__", "old"),
        Matcher::new(MatchOp::Regex, "n", "1.").unwrap(),
    ];
    let admin = nodes[1].cluster.admin();
    let deleted = admin.delete_series(vec![chosen], Timestamp::MIN, Timestamp::MAX);
    deleted.await.unwrap();
    for node in nodes {
        assert_eq!(select(&node.cluster, "old").await.unwrap().len(), 40);
    }
    nodes[0].cluster.admin().clean_tombstones().await.unwrap();
    nodes[2]
        .cluster
        .admin()
        .snapshot("whole", true)
        .await
        .unwrap();
    for (node, root) in nodes.iter().zip(roots) {
        assert_eq!(select(&node.cluster, "old").await.unwrap().len(), 40);
        assert_eq!(count_in(root, "whole", "old").await, 40);
        assert_eq!(count_in(root, "whole", "m").await, 150);
    }
    let again = nodes[0].cluster.admin().snapshot("whole", true).await;
    let Err(WriteError::Failed(why)) = again else {
        panic!("{again:?}");
    };
    for node in nodes {
        assert!(why.contains(&node.cluster.node_id().0.to_string()), "{why}");
    }
    let bad = nodes[0].cluster.admin().snapshot("../x", true).await;
    assert!(matches!(bad, Err(WriteError::Invalid(_))));
}

/// Differences of one series to all nodes, each of them twice, are one sum.
async fn add_up(nodes: &[Node], now: Timestamp) {
    let mut expected = Vec::new();
    let mut sum = 0.0;
    for n in 0..6u32 {
        let at = now.plus_ms(i64::from(n));
        let value = f64::from(n) + 0.5;
        let mut batch = Batch::default();
        batch.add_sample(Labels::from_pairs([("__name__", "delta")]), at, value);
        let end_ns = at.0 as u64 * 1_000_000;
        batch.deltas.push(DeltaSpan {
            start_ns: end_ns - 1_000_000,
            end_ns,
        });
        for node in [n as usize % nodes.len(), (n as usize + 1) % nodes.len()] {
            let written = nodes[node].cluster.write(batch.clone()).await.unwrap();
            assert_eq!(written.rejected, vec![]);
        }
        sum += value;
        expected.push(sum);
    }
    for node in nodes {
        let found = select(&node.cluster, "delta").await.unwrap();
        assert_eq!(found[0].samples.values, expected);
    }
}

/// What is told to any node is known to all, and what a pushed group says too.
async fn describe(nodes: &[Node]) {
    let word = |name: &str, help: &str| FamilyMetadata {
        name: name.to_owned(),
        kind: MetricKind::Gauge,
        help: help.to_owned(),
        unit: String::new(),
    };
    let mut all: Vec<_> = (0..20).map(|n| word(&format!("f{n:02}"), "h")).collect();
    for (n, node) in nodes.iter().enumerate() {
        all.push(word("g", &n.to_string()));
        node.cluster.describe(all.clone()).await.unwrap();
    }
    let key = GroupingKey::new([("job".to_owned(), "d".to_owned())]).unwrap();
    let pushed = Family {
        name: "pushed".to_owned(),
        help: Some("p".to_owned()),
        kind: FamilyKind::Untyped,
        samples: Vec::new(),
    };
    let options = PushOptions::default;
    let push = nodes[0]
        .cluster
        .push(key.clone(), PushOp::Put(vec![pushed]), options());
    push.await.unwrap();
    all.push(FamilyMetadata {
        kind: MetricKind::Unknown,
        ..word("pushed", "p")
    });
    for node in nodes {
        assert_eq!(node.cluster.described(None).await.unwrap(), all);
        let of_one = node.cluster.described(Some("g")).await.unwrap();
        assert_eq!(of_one.len(), nodes.len());
        assert_eq!(node.cluster.described(Some("f")).await.unwrap(), []);
    }
    let delete = nodes[1].cluster.push(key, PushOp::Delete, options());
    delete.await.unwrap();
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

    // Old enough to be sealed once something newer comes.
    let old_ms = 5 * 3_600_000;
    let mut old = batch(&world, old_ms, 50);
    for labels in &mut old.series {
        let mut named = labels.to_builder();
        named.set("__name__", "old");
        *labels = named.build();
    }
    nodes[0].cluster.write(old).await.unwrap();

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

    explain(&nodes[1].cluster).await;
    for node in &nodes {
        near(&node.cluster).await;
    }

    // Histograms and exemplars take the same ways.
    let mixed = Labels::from_pairs([("__name__", "mixed")]);
    let at = world.clock.now();
    let mut both = Batch::default();
    let series = both.add_series(mixed.clone());
    both.rows.push(series, at, 1.0);
    let histogram = Arc::new(Histogram {
        sum: 7.0,
        ..Histogram::default()
    });
    both.rows
        .push_histogram(series, at.plus_ms(1), histogram.clone());
    both.rows.push_histogram(
        series,
        at.plus_ms(2),
        Arc::new(Histogram {
            schema: 99,
            ..Histogram::default()
        }),
    );
    let exemplar = Exemplar {
        labels: Labels::from_pairs([("trace_id", "t")]),
        value: 0.5,
        timestamp: at,
    };
    both.exemplars.push((series, exemplar.clone()));
    // Kept, it would keep out what comes after it.
    let early = Exemplar {
        timestamp: at.plus_ms(24 * 3_600_000),
        ..exemplar.clone()
    };
    both.exemplars.insert(0, (series, early));
    for node in &nodes {
        let written = node.cluster.write(both.clone()).await.unwrap();
        let bad = (2, Reason::BadHistogram);
        let rejected = written.rejected.iter().map(|r| (r.row, r.reason));
        assert_eq!(rejected.collect::<Vec<_>>(), [bad]);
    }
    for node in &nodes {
        let found = select(&node.cluster, "mixed").await.unwrap();
        assert_eq!(found.len(), 1);
        let samples = &found[0].samples;
        assert_eq!(samples.values, [1.0, 7.0]);
        assert_eq!(samples.histograms, [(1, histogram.clone())]);
        let found = exemplars(&node.cluster).await.unwrap();
        let expected = ExemplarSeries {
            labels: mixed.clone(),
            exemplars: vec![exemplar.clone()],
        };
        assert_eq!(found, [expected]);
    }

    // A group pushed here is read and deleted there.
    let key = GroupingKey::new([("job".to_owned(), "j".to_owned())]).unwrap();
    nodes[0]
        .cluster
        .push(key.clone(), PushOp::Put(vec![]), PushOptions::default())
        .await
        .unwrap();
    assert_eq!(nodes[2].cluster.groups().await.unwrap().len(), 1);
    let options = PushOptions::default();
    nodes[1]
        .cluster
        .push(key, PushOp::Delete, options)
        .await
        .unwrap();
    assert_eq!(nodes[0].cluster.groups().await.unwrap().len(), 0);

    describe(&nodes).await;
    add_up(&nodes, world.clock.now()).await;
    administrate(&nodes, &roots).await;
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
    checkpoint_rots(&roots[0]);
    let back = start(&roots[0], &addresses[0], &join, 3).await;
    until("ready again", async || back.cluster.ready()).await;
    assert_eq!(count(&back.cluster).await, Ok(200));
    for shard in 0..4 {
        level(&[&back, &nodes[0], &nodes[1]], shard).await;
    }

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
    // It leads some shards and asks others for the rest.
    page_by_page(&fourth.cluster, &world).await;
}
