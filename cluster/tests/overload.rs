//! Writes that come faster than a shard's leader takes them: what waits is bounded, the rest is told
//! at once and may come again. And series that are more than may be.

#![allow(
    clippy::disallowed_methods,
    reason = "a test is an outermost loop: it waits and reads the clock"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::{Cluster, Options};
use futures::future::join_all;
use model::limits::PROPOSER_QUEUE_BYTES_MAX;
use model::sink::{Reason, Rejection, Sink, WriteError};
use model::{Batch, Labels, Timestamp};

/// A node of its own, with one shard, and the time.
async fn start(root: &tempfile::TempDir) -> (Arc<Cluster>, Timestamp) {
    start_with(root, 0).await
}

/// The same, which registers so many series.
async fn start_with(root: &tempfile::TempDir, series_max: u64) -> (Arc<Cluster>, Timestamp) {
    let world = host::world(root.path()).expect("a world");
    let now = world.clock.now();
    let options = Options {
        listen: "127.0.0.1:0".to_owned(),
        bootstrap_expect: 1,
        shards: 1,
        series_max,
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

/// A row each of series of these numbers.
fn rows(numbers: &[usize], at: Timestamp) -> Batch {
    let mut batch = Batch::default();
    for number in numbers {
        let labels = Labels::from_pairs([("__name__", "one"), ("n", &*number.to_string())]);
        batch.add_sample(labels, at, *number as f64);
    }
    batch
}

#[tokio::test]
async fn series_beyond_the_limit_are_refused_and_known_ones_taken() {
    let root = tempfile::tempdir().unwrap();
    let (cluster, now) = start_with(&root, 3).await;
    let refused = |rows: &[u32]| -> Vec<Rejection> {
        let all = rows.iter().map(|row| Rejection {
            row: *row,
            reason: Reason::SeriesLimit,
        });
        all.collect()
    };
    let written = cluster.write(rows(&[1, 2], now)).await.unwrap();
    assert_eq!(written.rejected, []);
    let later = now.plus_ms(1_000);
    let mixed = rows(&[7, 1, 8, 2, 9], later);
    let written = cluster.write(mixed.clone()).await.unwrap();
    assert_eq!(written.rejected, refused(&[2, 4]));
    // Repeated it says the same, and another value of a known series is told under its own row.
    let mut repeated = mixed;
    repeated.rows.values[3] = 99.0;
    let written = cluster.write(repeated).await.unwrap();
    let duplicate = Rejection {
        row: 3,
        reason: Reason::Duplicate,
    };
    let mut expected = refused(&[2, 4]);
    expected.insert(1, duplicate);
    assert_eq!(written.rejected, expected);
    let next = rows(&[1, 2, 7], later.plus_ms(1_000));
    assert_eq!(cluster.write(next).await.unwrap().rejected, []);
    cluster.stop().await;
}
