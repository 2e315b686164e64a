//! Writes that come faster than a shard's leader takes them: what waits is bounded, the rest is told
//! at once and may come again.

#![allow(
    clippy::disallowed_methods,
    reason = "a test is an outermost loop: it waits and reads the clock"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::{Cluster, Options};
use futures::future::join_all;
use model::limits::PROPOSER_QUEUE_BYTES_MAX;
use model::sink::{Sink, WriteError};
use model::{Batch, Labels, Timestamp};

/// A node of its own, with one shard, and the time.
async fn start(root: &tempfile::TempDir) -> (Arc<Cluster>, Timestamp) {
    let world = host::world(root.path()).expect("a world");
    let now = world.clock.now();
    let options = Options {
        listen: "127.0.0.1:0".to_owned(),
        bootstrap_expect: 1,
        shards: 1,
        ..Options::default()
    };
    let catalogue = Arc::new(cluster::catalogue::Memory::default());
    let registry = prometheus::Registry::new();
    let cluster = Cluster::start(world, options, catalogue, &registry)
        .await
        .expect("it starts");
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(why) = cluster.ready() {
        assert!(Instant::now() < deadline, "not ready: {why}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (cluster, now)
}

/// One series whose labels take about a megabyte.
fn large(number: usize, at: Timestamp) -> Batch {
    let value = "x".repeat(60_000);
    let mut labels = Labels::from_pairs((0..16).map(|n| (format!("l{n}"), &value))).to_builder();
    labels.set("__name__", "large");
    labels.set("number", &number.to_string());
    let mut batch = Batch::default();
    batch.add_sample(labels.build(), at, number as f64);
    batch
}

#[tokio::test]
async fn what_finds_no_room_is_told_at_once_and_may_come_again() {
    let root = tempfile::tempdir().unwrap();
    let (cluster, now) = start(&root).await;
    let batches: Vec<Batch> = (0..100).map(|number| large(number, now)).collect();
    let size: usize = batches[0].series[0].as_canonical().len();
    assert!(batches.len() * size > 2 * PROPOSER_QUEUE_BYTES_MAX);

    let written = join_all(batches.iter().map(|batch| cluster.write(batch.clone()))).await;
    let mut again = Vec::new();
    for (batch, outcome) in batches.iter().zip(written) {
        match outcome {
            Ok(written) => assert_eq!(written.rejected, []),
            Err(WriteError::Overloaded(_)) => again.push(batch),
            Err(other) => panic!("{other}"),
        }
    }
    let taken = batches.len() - again.len();
    assert!(
        taken * size >= PROPOSER_QUEUE_BYTES_MAX / 2,
        "{taken} taken"
    );
    assert!(!again.is_empty(), "everything was taken at once");
    for batch in again {
        assert_eq!(cluster.write(batch.clone()).await.unwrap().rejected, []);
    }
    cluster.stop().await;
}
