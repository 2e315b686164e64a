//! A shard's leader forgets series of which nothing is stored: they make room for others, and what
//! was looked up before they went is not lost. Before that, it seals what it is about to drop.

#![allow(
    clippy::disallowed_methods,
    reason = "a test is an outermost loop: it waits and reads the clock"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::Timing;
use cluster::journal::Journal;
use cluster::peer::Peers;
use cluster::raft::group;
use cluster::raft::transfers::Transfers;
use cluster::shard::Replica;
use cluster::shard::machine::checkpoint_turns;
use cluster::shard::mending::Mender;
use cluster::shard::proposer::Windows;
use cluster::shard::replica::Setup;
use cluster::shard::upkeep::{Ages, fit, forget, tidy_up};
use model::port::{Clock, World};
use model::sink::{Reason, Rejection};
use model::{Batch, Labels, SeriesId, ShardId, Timestamp};
use tokio::sync::watch;
use tsdb::collecting::Look;
use tsdb::{CollectCommand, Command, RetainCommand, SealCommand};

type Seeded = openraft_rt::deterministic_rng::DeterministicRng<openraft_rt_tokio::TokioRuntime>;

const HOUR_MS: i64 = 3_600_000;
const SERIES_MAX: u64 = 3;

struct Wide;

impl Windows for Wide {
    fn out_of_order_ms(&self) -> i64 {
        24 * HOUR_MS
    }

    fn in_order_ms(&self) -> i64 {
        HOUR_MS
    }

    fn exemplars_max(&self) -> u64 {
        0
    }

    fn series_max(&self) -> u64 {
        SERIES_MAX
    }
}

/// The only replica of a shard, which leads it.
async fn lead(world: &World) -> Replica {
    let registry = prometheus::Registry::new();
    let metrics = wal::Metrics::new(&registry).expect("an empty registry");
    let options = wal::Options::default();
    let log = wal::SegmentedLog::open(world, Path::new("log"), options, metrics);
    let (log, _) = log.await.expect("an empty disk opens");
    let peers = Arc::new(Peers::new(world.clone()));
    let (_, view) = watch::channel(Arc::default());
    let mender = Mender::new(1, world.clone(), peers.clone(), view);
    let replica = Replica::open(Setup {
        world: world.clone(),
        node: 1,
        shard: ShardId(0),
        log,
        peers,
        transfers: Arc::new(Transfers::new(world.clock.clone())),
        timing: Timing::default(),
        windows: Arc::new(Wide),
        shards: 1,
        metrics: Arc::new(tsdb::Metrics::new()),
        tables: Arc::default(),
        journal: Arc::new(Journal::default()),
        checkpoint_turns: checkpoint_turns(),
        mender: Arc::new(mender),
    });
    let replica = replica.await.expect("an empty disk opens");
    let voters = BTreeMap::from([(1, "127.0.0.1:1".to_owned())]);
    group::initialize(&replica.raft, &voters)
        .await
        .expect("begins");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !replica.leads() {
        assert!(Instant::now() < deadline, "no leader");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    replica
}

fn labels(number: u64) -> Labels {
    Labels::from_pairs([("__name__", "one"), ("n", &*number.to_string())])
}

/// Writes one row; the reason why it was refused, if it was.
async fn write(replica: &Replica, number: u64, at: Timestamp, value: f64) -> Option<Reason> {
    let mut batch = Batch::default();
    batch.add_sample(labels(number), at, value);
    let written = replica.write(Arc::new(batch)).await.expect("it leads");
    match written.rejected.as_slice() {
        [] => None,
        [Rejection { row: 0, reason }] => Some(*reason),
        more => panic!("one row, {more:?}"),
    }
}

async fn propose(replica: &Replica, command: Command) {
    let proposed = group::propose(&replica.raft, command.encode()).await;
    proposed.expect("committed");
}

/// Runs a test on a machine of its own.
fn on_a_machine(test: impl AsyncFnOnce(World)) {
    let root = tempfile::tempdir().expect("a directory");
    let world = host::world(root.path()).expect("a world");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    // What asks openraft has a seeded source of dice.
    let seed = world.dice.roll();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, Seeded::scope(seed, test(world)));
}

#[test]
fn series_that_ended_make_room_for_others() {
    on_a_machine(async |world| {
        let clock: &dyn Clock = &*world.clock;
        let replica = lead(&world).await;
        let now = clock.now();
        for number in 0..2 {
            let at = now.plus_ms(-10 * HOUR_MS);
            assert_eq!(write(&replica, number, at, 1.0).await, None);
        }
        assert_eq!(write(&replica, 2, now, 1.0).await, None);
        let refused = write(&replica, 3, now, 1.0).await;
        assert_eq!(refused, Some(Reason::SeriesLimit));
        let ages = Ages {
            out_of_order_window_ms: 24 * HOUR_MS,
            in_order_window_ms: HOUR_MS,
            retention: Some(Duration::from_secs(3_600)),
            block_bytes_max: u64::MAX,
        };
        for busy in ["a seal", "a drop"] {
            assert!(!tidy_up(&replica, clock, ages, None).await, "{busy}");
        }
        assert!(tidy_up(&replica, clock, ages, None).await);
        assert!(forget(&replica, ages).await);
        assert_eq!(replica.engine.series_count(), 1);
        let index = replica.engine.applied_index();
        assert!(!forget(&replica, ages).await, "once a block");
        assert_eq!(
            replica.engine.applied_index(),
            index,
            "nothing is left to do"
        );
        assert_eq!(write(&replica, 3, now, 1.0).await, None);
        assert_eq!(write(&replica, 0, now, 1.0).await, None, "it comes back");
        let refused = write(&replica, 4, now, 1.0).await;
        assert_eq!(refused, Some(Reason::SeriesLimit));
        assert_eq!(replica.engine.resolve(&labels(0)), Some(SeriesId(4)));
    });
}

#[test]
fn what_spans_a_day_is_sealed_in_one_round_and_dropped_in_pieces() {
    on_a_machine(async |world| {
        let clock: &dyn Clock = &*world.clock;
        let replica = Arc::new(lead(&world).await);
        let now = clock.now();
        for hours in (0..24).rev() {
            let at = now.plus_ms(-hours * HOUR_MS);
            assert_eq!(write(&replica, 0, at, 1.0).await, None);
        }
        let ages = |hours: u64| Ages {
            out_of_order_window_ms: 24 * HOUR_MS,
            in_order_window_ms: HOUR_MS,
            retention: Some(Duration::from_secs(hours * 3_600)),
            block_bytes_max: u64::MAX,
        };
        assert!(!tidy_up(&replica, clock, ages(48), None).await);
        let blocks = replica.engine.stats().blocks;
        assert!((2..=3).contains(&blocks), "{blocks} windows of 12 h");
        assert!(tidy_up(&replica, clock, ages(48), None).await);
        assert!(!tidy_up(&replica, clock, ages(12), None).await, "a drop");
        let left = replica.engine.stats();
        assert!(left.blocks < blocks && left.blocks > 0, "{left:?}");
        replica
            .raft
            .trigger()
            .snapshot()
            .await
            .expect("a checkpoint");
        let deadline = Instant::now() + Duration::from_secs(60);
        while replica.engine.held().other_bytes == 0 {
            assert!(Instant::now() < deadline, "no checkpoint");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let replicas = [replica];
        assert_eq!(fit(&replicas, None), [None]);
        assert_eq!(fit(&replicas, Some(1 << 20)), [None]);
        let cut = fit(&replicas, Some(1));
        assert!(!tidy_up(&replicas[0], clock, ages(48), cut[0]).await);
        assert_eq!(replicas[0].engine.stats().blocks, 0);
    });
}

#[test]
fn a_write_that_was_on_its_way_to_a_forgotten_series_is_stored() {
    on_a_machine(async |world| {
        let replica = lead(&world).await;
        let now = world.clock.now();
        let mut raced = 0;
        for round in 0..20 {
            let before = now.plus_ms((round - 40) * HOUR_MS / 2);
            assert_eq!(write(&replica, 7, before.plus_ms(-1), 1.0).await, None);
            propose(&replica, Command::Seal(SealCommand { before })).await;
            propose(&replica, Command::Retain(RetainCommand { before })).await;
            let from = SeriesId(0);
            let (series, next) = replica.engine.idle_series(Look { before, from }).await;
            assert_eq!((series.len(), next), (1, None));
            let index = replica.engine.applied_index();
            let rest = true;
            let collect = CollectCommand {
                before,
                series,
                rest,
            };
            let (_, stored) = futures::join!(
                propose(&replica, Command::Collect(collect)),
                write(&replica, 7, before, 2.0)
            );
            assert_eq!(stored, None);
            raced += usize::from(replica.engine.applied_index() == index + 3);
            let other = write(&replica, 7, before, 3.0).await;
            assert_eq!(other, Some(Reason::Duplicate), "the first is stored");
        }
        assert!(raced > 0, "no write was looked up before the collection");
    });
}
