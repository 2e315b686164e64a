//! Writes and pushes that come faster than a shard's leader takes them: what waits is bounded, the
//! rest is told at once and may come again; what waits together is committed together. And series
//! that are more than may be.

#![allow(
    clippy::disallowed_methods,
    reason = "a test is an outermost loop: it waits and reads the clock"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::catalogue::{Memory, opened};
use cluster::{Cluster, Options};
use futures::future::join_all;
use model::group::{Family, FamilySample, GroupingKey, PushOp, PushOptions};
use model::limits::{PROPOSER_QUEUE_BYTES_MAX, PUSH_QUEUE_BYTES_MAX};
use model::sink::{Groups, Reason, Rejection, Sink, WriteError};
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
        shards: Some(1),
        series_max,
        ..Options::default()
    };
    let catalogue = opened(Arc::new(Memory::default()));
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

fn key(number: usize) -> GroupingKey {
    let pairs = [("job", "j".to_owned()), ("number", number.to_string())];
    GroupingKey::new(pairs.map(|(name, value)| (name.to_owned(), value))).expect("a job")
}

/// One family with one sample, its value.
fn put(value: usize, help_bytes: usize) -> PushOp {
    PushOp::Put(vec![Family {
        name: "pushed".to_owned(),
        help: Some("x".repeat(help_bytes)),
        samples: vec![FamilySample {
            suffix: "",
            labels: Labels::default(),
            value: value as f64,
            rare: None,
        }],
        ..Family::default()
    }])
}

fn unchecked() -> PushOptions {
    PushOptions {
        unchecked: true,
        ..PushOptions::default()
    }
}

#[tokio::test]
async fn pushes_that_find_no_room_are_told_at_once_and_change_nothing() {
    const BYTES: usize = 1 << 20;
    let root = tempfile::tempdir().unwrap();
    let (cluster, _) = start(&root).await;
    let count = 3 * PUSH_QUEUE_BYTES_MAX / 2 / BYTES;
    let pushes = (0..count).map(|n| cluster.push(key(n), put(n, BYTES), unchecked()));
    let mut taken = 0;
    let mut refused = Vec::new();
    for (n, outcome) in join_all(pushes).await.into_iter().enumerate() {
        match outcome {
            Ok(_) => taken += 1,
            Err(WriteError::Overloaded(_)) => refused.push(n),
            Err(other) => panic!("{other}"),
        }
    }
    assert!(taken * BYTES >= PUSH_QUEUE_BYTES_MAX / 2, "{taken} taken");
    assert!(!refused.is_empty(), "everything was taken at once");
    assert_eq!(cluster.groups().await.unwrap().len(), taken);
    let again = cluster.push(key(refused[0]), put(0, 1), unchecked()).await;
    assert_eq!(again.unwrap().before, None);
    cluster.stop().await;
}

/// Each push replaced what another one left, none was lost, and the last of each group stands there.
#[tokio::test]
async fn pushes_that_wait_together_form_one_order() {
    const GROUPS: usize = 3;
    let root = tempfile::tempdir().unwrap();
    let (cluster, _) = start(&root).await;
    let pushes = (0..300).map(|n| cluster.push(key(n % GROUPS), put(n, 1), unchecked()));
    let done: Vec<_> = join_all(pushes)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let together = done.windows(2 * GROUPS).any(|w| w[0].at == w[GROUPS].at);
    assert!(together, "no two pushes to one group shared an entry");
    let groups = cluster.groups().await.unwrap();
    for (n, group) in groups.iter().enumerate() {
        let own = || done.iter().skip(n).step_by(GROUPS);
        let replaced = |state| own().filter(|p| p.before.as_deref() == state).count();
        assert_eq!(replaced(None), 1, "one began the group");
        for pushed in own() {
            let after = pushed.after.as_deref();
            assert_eq!(replaced(after), usize::from(after != Some(group)));
        }
    }
    assert_eq!(groups.len(), GROUPS);
    cluster.stop().await;
}
