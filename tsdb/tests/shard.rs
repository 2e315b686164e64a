//! The shard's promises one by one.

mod support;

use std::sync::Arc;
use std::time::Duration;

use model::batch::Fence;
use model::limits::COLLECT_SERIES_MAX;
use model::matcher::MatchOp;
use model::sink::Reason;
use model::source::{Consistency, Source, Take};
use model::{FamilyMetadata, Labels, Matcher, MetricKind, NewestSelection, SeriesId, Timestamp};
use support::replica::{DIR, Replica, opaque, run};
use tsdb::collecting::Look;
use tsdb::{
    CleanCommand, CollectCommand, Command, DeleteCommand, DescribeCommand, Outcome, RetainCommand,
    SealCommand, SeriesRef, WriteCommand, WriteRows, retention,
};

const WINDOW_MS: i64 = 100;

/// A write of `(timestamp, value)` to one series.
fn write(labels: &Labels, points: &[(i64, f64)]) -> Command {
    let mut rows = WriteRows::default();
    for &(at, value) in points {
        rows.push(SeriesRef::New(0), Timestamp(at), value);
    }
    Command::Write(WriteCommand {
        proposed_at: Timestamp(1_000),
        out_of_order_window_ms: WINDOW_MS,
        future_window_ms: 10_000,
        labels: vec![labels.clone()],
        rows,
        ..WriteCommand::default()
    })
}

fn seal(before: i64) -> Command {
    Command::Seal(SealCommand {
        before: Timestamp(before),
    })
}

fn up() -> Labels {
    Labels::from_pairs([("__name__", "up")])
}

/// Applies behind what was applied before, and returns the reasons by row.
async fn apply(replica: &Replica, command: Command) -> Vec<(u32, Reason)> {
    let index = replica.shard.applied_index() + 1;
    match replica.shard.apply(index, &command).await.unwrap() {
        Outcome::Written { rejected } => rejected.iter().map(|r| (r.row, r.reason)).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn an_old_sample_again_is_stored_another_value_a_duplicate_wherever_it_lies() {
    run(async {
        let replica = Replica::new(1).await;
        apply(&replica, write(&up(), &[(0, 1.0), (10, 2.0)])).await;
        apply(&replica, write(&up(), &[(5_000, 1.0)])).await;
        let again = || write(&up(), &[(0, 1.0), (10, 9.0), (11, 1.0), (10, 2.0)]);
        let expected = [(1, Reason::Duplicate), (2, Reason::TooOld)];
        assert_eq!(apply(&replica, again()).await, expected, "in the head");
        apply(&replica, seal(100)).await;
        assert_eq!(apply(&replica, again()).await, expected, "sealed in memory");
        replica.checkpoint().await.unwrap();
        assert_eq!(apply(&replica, again()).await, expected, "in a block file");
        apply(&replica, retain(11)).await;
        let gone = [0, 1, 2, 3].map(|row| (row, Reason::TooOld));
        assert_eq!(apply(&replica, again()).await, gone, "dropped");
    });
}

/// Once the newest sample was not looked up in blocks, because the series remembered it; but a row
/// before it in the same command had made the series forget, and it was stored a second time.
#[test]
fn the_newest_sealed_sample_comes_again_behind_a_newer_one() {
    run(async {
        let replica = Replica::new(1).await;
        apply(&replica, write(&up(), &[(1_000, 1.0)])).await;
        apply(&replica, seal(1_001)).await;
        let again = write(&up(), &[(1_050, 1.0), (1_000, 1.0), (1_000, 2.0)]);
        assert_eq!(apply(&replica, again).await, [(2, Reason::Duplicate)]);
        let stored = replica.everything().await;
        assert_eq!(stored[&up()].len(), 2);
        replica.shard.verify().await.unwrap();
    });
}

/// Once a series remembered the value of its newest sample after retention had dropped it, and
/// called a repetition stored that no query could find.
#[test]
fn what_retention_dropped_is_not_called_stored() {
    run(async {
        let replica = Replica::new(1).await;
        apply(&replica, write(&up(), &[(1_000, 1.0)])).await;
        apply(&replica, seal(1_001)).await;
        apply(&replica, retain(1_001)).await;
        assert!(replica.everything().await.is_empty());
        let again = write(&up(), &[(1_000, 2.0)]);
        assert_eq!(apply(&replica, again).await, [], "inside the window: taken");
        assert_eq!(replica.everything().await[&up()].len(), 1);
    });
}

fn collect(before: i64, series: std::ops::Range<u64>) -> Command {
    Command::Collect(CollectCommand {
        before: Timestamp(before),
        series: series.map(SeriesId).collect(),
        rest: false,
    })
}

/// A write that names the series by the id it had when its proposer looked.
fn to_id(id: u64, at: i64) -> Command {
    let Command::Write(mut write) = write(&up(), &[(at, 1.0)]) else {
        unreachable!("it is a write")
    };
    write.labels = vec![Labels::from_pairs([("__name__", "another")])];
    write.rows.series = vec![SeriesRef::Known(SeriesId(id))];
    write.fences = vec![(
        0..1,
        Fence {
            target: 1,
            epoch: 9,
        },
    )];
    Command::Write(write)
}

#[test]
fn a_series_is_kept_while_anything_of_it_is() {
    run(async {
        let replica = Replica::new(1).await;
        let shard = &replica.shard;
        let dead = async |before: i64| {
            let look = Look {
                before: Timestamp(before),
                from: SeriesId(0),
            };
            shard.idle_series(look).await.0
        };
        apply(&replica, write(&up(), &[(1_000, 1.0)])).await;
        let nobody = collect(i64::MAX, 0..9);
        apply(&replica, nobody.clone()).await;
        assert_eq!(shard.series_count(), 1, "in the head");
        apply(&replica, seal(1_001)).await;
        for stored in [false, true] {
            apply(&replica, nobody.clone()).await;
            assert_eq!(shard.series_count(), 1, "in a block, with a file: {stored}");
            replica.checkpoint().await.unwrap();
        }
        let delete = DeleteCommand {
            any_of: vec![vec![]],
            start: Timestamp::MIN,
            end: Timestamp::MAX,
        };
        apply(&replica, Command::Delete(delete)).await;
        apply(&replica, nobody.clone()).await;
        assert_eq!(shard.series_count(), 1, "not cleaned yet");
        let block = shard.unclean_blocks()[0];
        apply(&replica, Command::Clean(CleanCommand { block })).await;
        assert_eq!(dead(1_000).await, []);
        apply(&replica, collect(1_000, 0..9)).await;
        assert_eq!(shard.series_count(), 1, "its newest sample is remembered");
        assert_eq!(dead(1_001).await, [SeriesId(0)]);
        apply(&replica, collect(1_001, 0..9)).await;
        assert_eq!(shard.series_count(), 0);
        assert_eq!(shard.resolve(&up()), None);
        shard.verify().await.unwrap();
    });
}

#[test]
fn more_than_fit_into_a_command_are_found_piece_by_piece() {
    run(async {
        let replica = Replica::new(1).await;
        let count = COLLECT_SERIES_MAX + 3;
        let named = |n: usize| Labels::from_pairs([("n", n.to_string())]);
        let mut too_old = write(&up(), &[(1_000, 1.0)]);
        apply(&replica, too_old.clone()).await;
        if let Command::Write(write) = &mut too_old {
            write.labels = (0..count).map(named).collect();
            let series = (0..count as u32).map(SeriesRef::New);
            write.rows = WriteRows::default();
            series.for_each(|series| write.rows.push(series, Timestamp(0), 1.0));
        }
        assert_eq!(apply(&replica, too_old).await.len(), count);
        let before = Timestamp(0);
        let mut look = Look {
            before,
            from: SeriesId(0),
        };
        let mut found = Vec::new();
        loop {
            let (series, next) = replica.shard.idle_series(look).await;
            found.push(series.len());
            let rest = true;
            let collect = CollectCommand {
                before,
                series,
                rest,
            };
            apply(&replica, Command::Collect(collect)).await;
            let Some(from) = next else { break };
            look.from = from;
        }
        assert_eq!(found, [COLLECT_SERIES_MAX, 3]);
        assert_eq!(replica.shard.series_count(), 1);
    });
}

#[test]
fn a_write_to_a_forgotten_series_is_not_taken_in_part() {
    run(async {
        let replica = Replica::new(1).await;
        apply(&replica, write(&up(), &[(1_000, 1.0)])).await;
        apply(&replica, seal(1_001)).await;
        apply(&replica, retain(1_001)).await;
        apply(&replica, collect(2_000, 0..1)).await;
        let digest = replica.shard.digest();
        for id in [0, 1, u64::MAX >> 1] {
            let index = replica.shard.applied_index() + 1;
            let outcome = replica.shard.apply(index, &to_id(id, 1_010)).await;
            assert_eq!(outcome.unwrap(), Outcome::NotRegistered);
            assert_eq!(replica.shard.digest(), digest, "neither fence nor series");
        }
        apply(&replica, write(&up(), &[(1_010, 1.0)])).await;
        assert_eq!(
            replica.shard.resolve(&up()),
            Some(SeriesId(1)),
            "another id"
        );
        assert_eq!(apply(&replica, to_id(1, 1_020)).await, []);
        assert_eq!(replica.everything().await[&up()].len(), 2);
    });
}

/// What a real Prometheus 3.5.3 answered of two series like these.
#[test]
fn metadata_goes_by_chunks_and_blocks() {
    run(async {
        let replica = Replica::new(1).await;
        let (a, b) = (
            Labels::from_pairs([("__name__", "a"), ("k", "va")]),
            Labels::from_pairs([("__name__", "b"), ("k", "vb")]),
        );
        apply(&replica, write(&a, &[(600, 1.0), (620, 1.0), (640, 1.0)])).await;
        apply(&replica, write(&b, &[(700, 1.0), (760, 1.0)])).await;
        let answer = async |start, end, choose: Vec<Vec<Matcher>>| {
            let selection = support::replica::metadata(choose, start, end);
            let series = replica.shard.series(&selection).await.unwrap();
            let names = series.iter().map(|labels| labels.metric_name().to_owned());
            let values = replica.shard.label_values("k", &selection).await.unwrap();
            let labels = replica.shard.label_names(&selection).await.unwrap();
            assert_eq!(labels.is_empty(), values.is_empty());
            (names.collect::<Vec<_>>().join(""), values.join(","))
        };
        let expect = |series: &str, values: &str| (series.to_owned(), values.to_owned());
        for sealed in [false, true] {
            assert_eq!(answer(0, 9_999, vec![]).await, expect("ab", "va,vb"));
            assert_eq!(answer(0, 599, vec![]).await, expect("", ""), "before all");
            assert_eq!(
                answer(761, 9_999, vec![]).await,
                expect("", ""),
                "after all"
            );
            assert_eq!(
                answer(601, 619, vec![]).await,
                expect("a", "va,vb"),
                "in a chunk"
            );
            assert_eq!(
                answer(650, 690, vec![]).await,
                expect("", "va,vb"),
                "between them"
            );
            let only_a = vec![vec![Matcher::equal("k", "va")]];
            assert_eq!(answer(710, 720, only_a).await, expect("", "va"));
            if !sealed {
                apply(&replica, seal(1_000)).await;
                replica.checkpoint().await.unwrap();
            }
        }
    });
}

fn delete(start: i64, end: i64) -> Command {
    Command::Delete(DeleteCommand {
        any_of: vec![vec![Matcher::equal("__name__", "up")]],
        start: Timestamp(start),
        end: Timestamp(end),
    })
}

/// Where chunks begin and end, and whether they are in a file, does not show.
#[test]
fn a_series_is_not_told_of_a_range_in_which_all_of_it_is_deleted() {
    run(async {
        let mut replica = Replica::new(1).await;
        let log = vec![
            write(&up(), &[(0, 1.0), (10, 2.0), (20, 3.0)]),
            seal(30),
            delete(10, 25),
        ];
        replica.catch_up(&log).await.unwrap();
        for _ in ["in memory", "in a file"] {
            let told = async |start, end| {
                let selection = support::replica::metadata(vec![], start, end);
                replica.shard.series(&selection).await.unwrap().len()
            };
            assert_eq!(told(10, 40).await, 0);
            assert_eq!(told(5, 40).await, 1, "as far as a chunk tells");
            assert_eq!(told(0, 40).await, 1);
            replica.checkpoint().await.unwrap();
        }
    });
}

#[test]
fn a_deleted_sample_is_nowhere_and_may_be_written_again() {
    run(async {
        let mut replica = Replica::new(1).await;
        let mut log = vec![
            write(&up(), &[(0, 1.0), (10, 2.0), (20, 3.0)]),
            seal(15),
            delete(10, 20),
        ];
        replica.catch_up(&log).await.unwrap();
        let times = async |replica: &Replica| -> Vec<i64> {
            let found = replica.everything().await;
            found
                .get(&up())
                .map_or(vec![], |s| s.keys().copied().collect())
        };
        assert_eq!(times(&replica).await, [0]);
        let (from, to) = (Timestamp(5), Timestamp(40));
        assert!(replica.select(&[], from, to, Take::Last).await.is_empty());
        let selection = support::replica::metadata(vec![], 11, 25);
        assert!(replica.shard.series(&selection).await.unwrap().is_empty());

        // Other values take the places of the deleted ones, in the head and behind the seal.
        log.push(write(&up(), &[(10, 8.0), (20, 9.0), (0, 1.0)]));
        replica.reopen(&log).await.unwrap();
        assert_eq!(times(&replica).await, [0, 10, 20]);
        assert_eq!(
            apply(&replica, write(&up(), &[(10, 2.0)])).await,
            [(0, Reason::Duplicate)]
        );
        replica.shard.verify().await.unwrap();
        let before = replica.everything().await;

        replica.checkpoint().await.unwrap();
        let digest = replica.shard.digest();
        replica.reopen(&[]).await.unwrap();
        assert_eq!(
            (replica.shard.digest(), replica.everything().await),
            (digest, before.clone())
        );
        apply(&replica, Command::Clean(CleanCommand { block: 2 })).await;
        assert_ne!(replica.shard.digest(), digest, "the block is another");
        assert_eq!(replica.everything().await, before);
        assert_eq!(replica.shard.stats().block_samples, 1);
        replica.shard.verify().await.unwrap();
        replica.checkpoint().await.unwrap();
        let digest = replica.shard.digest();
        replica.reopen(&[]).await.unwrap();
        assert_eq!(
            (replica.shard.digest(), replica.everything().await),
            (digest, before)
        );
        assert_eq!(
            replica.shard.files().await.len(),
            2,
            "the old block's file is gone"
        );

        apply(&replica, delete(i64::MIN, i64::MAX)).await;
        let block = replica.shard.unclean_blocks()[0];
        apply(&replica, Command::Clean(CleanCommand { block })).await;
        assert_eq!(replica.shard.stats().blocks, 0);
        assert!(replica.everything().await.is_empty());
        replica.shard.verify().await.unwrap();
    });
}

#[test]
fn windows_hold_at_their_edges_and_within_one_command() {
    run(async {
        let replica = Replica::new(1).await;
        apply(&replica, write(&up(), &[(5_000, 1.0)])).await;
        let other = Labels::from_pairs([("__name__", "other")]);
        let edges = write(
            &other,
            &[(4_900, 1.0), (4_899, 1.0), (11_000, 1.0), (11_001, 1.0)],
        );
        let expected = [(1, Reason::TooOld), (3, Reason::TooNew)];
        assert_eq!(apply(&replica, edges).await, expected);
        // The newest sample of a command does not push the others of the command out.
        let late = Labels::from_pairs([("__name__", "late")]);
        let falling = write(&late, &[(10_990, 1.0), (10_950, 1.0), (10_900, 1.0)]);
        assert_eq!(apply(&replica, falling).await, []);
    });
}

#[test]
fn samples_behind_a_seal_but_inside_the_window_are_taken() {
    run(async {
        let replica = Replica::new(1).await;
        apply(
            &replica,
            write(&up(), &[(900, 1.0), (950, 1.0), (1_000, 1.0)]),
        )
        .await;
        apply(&replica, seal(1_000)).await;
        assert_eq!(apply(&replica, write(&up(), &[(925, 2.0)])).await, []);
        apply(&replica, seal(1_000)).await;
        replica.checkpoint().await.unwrap();
        assert_eq!(replica.shard.stats().blocks, 2, "they overlap");
        let found = replica.everything().await;
        assert_eq!(
            found[&up()].keys().copied().collect::<Vec<_>>(),
            [900, 925, 950, 1_000]
        );
        let (from, to) = (Timestamp(0), Timestamp(940));
        let last = replica.select(&[], from, to, Take::Last).await;
        assert_eq!(last[&up()].keys().copied().collect::<Vec<_>>(), [925]);
    });
}

#[test]
fn a_former_lease_holder_is_fenced() {
    run(async {
        let replica = Replica::new(1).await;
        let scraped = |epoch, at| {
            let Command::Write(mut write) = write(&up(), &[(at, 1.0), (at + 1, 1.0)]) else {
                unreachable!()
            };
            write.fences.push((0..1, Fence { target: 9, epoch }));
            Command::Write(write)
        };
        assert_eq!(apply(&replica, scraped(2, 10)).await, []);
        assert_eq!(apply(&replica, scraped(1, 20)).await, [(0, Reason::Fenced)]);
        assert_eq!(apply(&replica, scraped(2, 30)).await, []);
    });
}

#[test]
fn a_pinned_snapshot_outlives_what_it_was_made_of() {
    run(async {
        let replica = Replica::new(1).await;
        let missing = replica.shard.snapshot().await.unwrap_err();
        assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
        apply(&replica, write(&up(), &[(0, 1.0), (1_000, 2.0)])).await;
        apply(&replica, seal(500)).await;
        replica.checkpoint().await.unwrap();
        let one = replica.shard.snapshot().await.unwrap();
        let other = replica.shard.snapshot().await.unwrap();
        assert_ne!(one.dir, other.dir);
        apply(&replica, retain(500)).await;
        replica.checkpoint().await.unwrap();
        let disk = &*replica.world.disk;
        let here = disk.list(DIR.as_ref()).await.unwrap();
        assert_eq!(here.len(), 3, "checkpoint, manifest, pins: {here:?}");
        for file in &one.files {
            file.verify(disk, &one.dir).await.unwrap();
        }
        let dirs = [one.dir.clone(), other.dir.clone()];
        one.release().await.unwrap();
        assert_eq!(disk.list(&dirs[0]).await.unwrap().len(), 0);
        assert_eq!(disk.list(&dirs[1]).await.unwrap().len(), 2);
        drop(other);
        replica.checkpoint().await.unwrap();
        assert_eq!(disk.list(&dirs[1]).await.unwrap().len(), 0);
    });
}

/// Runs a future on a runtime with timers, which a slow disk needs.
fn run_slow<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

const SLOW: Option<std::ops::Range<Duration>> =
    Some(Duration::from_micros(50)..Duration::from_micros(200));

fn retain(before: i64) -> Command {
    Command::Retain(RetainCommand {
        before: Timestamp(before),
    })
}

#[test]
fn a_block_dropped_while_a_checkpoint_names_it_stays_until_the_next() {
    run_slow(async {
        let mut replica = Replica::new(1).await;
        let mut log = vec![write(&up(), &[(0, 1.0), (1_000, 2.0)]), seal(500)];
        replica.catch_up(&log).await.unwrap();
        replica.checkpoint().await.unwrap();
        log.push(write(&up(), &[(1_001, 1.0)]));
        replica.catch_up(&log).await.unwrap();
        replica.disk.set_latency(SLOW);
        let dropping = async {
            tokio::task::yield_now().await;
            apply(&replica, retain(500)).await;
        };
        let (position, ()) = tokio::join!(replica.checkpoint(), dropping);
        assert_eq!(position.unwrap().index, 3);
        replica.disk.set_latency(None);
        for file in replica.shard.files().await {
            let whole = file.verify(&*replica.world.disk, DIR.as_ref()).await;
            whole.expect("what the manifest names is there");
        }
        log.push(retain(500));
        let expected = replica.shard.digest();
        replica
            .reopen(&log)
            .await
            .expect("the manifest's block is there");
        assert_eq!(replica.shard.digest(), expected);
        replica.checkpoint().await.unwrap();
        assert_eq!(replica.shard.files().await.len(), 1);
        let here = replica.world.disk.list(DIR.as_ref()).await.unwrap();
        assert_eq!(here.len(), 2, "checkpoint and manifest: {here:?}");
    });
}

#[test]
fn a_selection_reads_on_in_a_block_that_is_dropped_meanwhile() {
    run_slow(async {
        let replica = Replica::new(1).await;
        for n in 0..200 {
            let labels = Labels::from_pairs([("__name__", format!("m{n}").as_str())]);
            apply(&replica, write(&labels, &[(n, 1.0), (n + 1, 2.0)])).await;
        }
        apply(&replica, seal(500)).await;
        replica.checkpoint().await.unwrap();
        let expected = replica.everything().await;
        assert_eq!(expected.len(), 200);
        replica.disk.set_latency(SLOW);
        let dropping = async {
            tokio::task::yield_now().await;
            apply(&replica, retain(500)).await;
            replica.checkpoint().await.unwrap();
        };
        let (found, ()) = tokio::join!(replica.everything(), dropping);
        assert_eq!(found, expected);
        replica.disk.set_latency(None);
        replica.checkpoint().await.unwrap();
        let here = replica.world.disk.list(DIR.as_ref()).await.unwrap();
        assert_eq!(
            here.len(),
            2,
            "the block's file goes once nobody reads: {here:?}"
        );
    });
}

#[test]
fn applying_goes_on_while_a_checkpoint_is_written() {
    run_slow(async {
        let mut replica = Replica::new(1).await;
        let mut log = Vec::new();
        for n in 0..300 {
            log.push(write(&up(), &[(n * 10, n as f64)]));
        }
        log.push(seal(1_000));
        replica.catch_up(&log).await.unwrap();
        replica.disk.set_latency(SLOW);
        let begun_at = log.len() as u64;
        let checkpoint = async { replica.shard.checkpoint(opaque).await.unwrap() };
        let go_on = async {
            let mut more = Vec::new();
            let mut before_durable = 0;
            while before_durable < 20 || replica.shard.position().is_none() {
                let n = 300 + more.len() as i64;
                let commands = [write(&up(), &[(n * 10, 1.0)]), seal(n * 10 - 50)];
                for command in commands {
                    apply(&replica, command.clone()).await;
                    more.push(command);
                }
                before_durable += i32::from(replica.shard.position().is_none());
                tokio::task::yield_now().await;
            }
            more
        };
        let (position, more) = tokio::join!(checkpoint, go_on);
        assert_eq!(position.index, begun_at);
        log.extend(more);
        replica.disk.set_latency(None);
        let expected = (replica.shard.digest(), replica.everything().await);
        replica.shard.verify().await.unwrap();
        replica.reopen(&log).await.unwrap();
        assert_eq!(
            (replica.shard.digest(), replica.everything().await),
            expected
        );
    });
}

#[test]
fn retention_proposes_what_then_drops() {
    run(async {
        let replica = Replica::new(1).await;
        for hour in 1..4 {
            apply(&replica, write(&up(), &[(hour * 1_000, 1.0)])).await;
            apply(&replica, seal(hour * 1_000 + 1)).await;
        }
        replica.checkpoint().await.unwrap();
        let policy = retention::Policy {
            keep_from: Some(Timestamp(2_500)),
            fits_from: None,
        };
        let choose = || retention::choose(&replica.shard.block_ranges(), &policy);
        let before = choose().expect("two blocks are too old");
        apply(&replica, Command::Retain(RetainCommand { before })).await;
        assert_eq!(choose(), None);
        assert_eq!(replica.shard.stats().blocks, 1);
        let bytes = replica.shard.stats().block_bytes;
        replica.checkpoint().await.unwrap();
        let files = replica.shard.files().await;
        assert_eq!(files.len(), 2);
        assert_eq!(replica.shard.stats().block_bytes, bytes);
        let disk = &*replica.world.disk;
        assert_eq!(disk.list(DIR.as_ref()).await.unwrap().len(), 3);
    });
}

#[test]
#[should_panic(expected = "the log is applied in order")]
fn an_index_is_applied_once() {
    run(async {
        let replica = Replica::new(1).await;
        apply(&replica, seal(0)).await;
        replica.shard.advance(5);
        assert_eq!(replica.shard.applied_index(), 5);
        let _ = replica.shard.apply(5, &seal(0)).await;
    });
}

/// The log's owner runs these on tasks of its own; that they may move between threads is part of
/// the interface.
#[test]
fn all_that_waits_can_be_spawned() {
    fn spawnable<T: Send>(future: T) -> T {
        future
    }
    run(async {
        let replica = Replica::new(1).await;
        let shard = &replica.shard;
        spawnable(shard.apply(1, &seal(0))).await.unwrap();
        let position = spawnable(shard.checkpoint(opaque)).await.unwrap();
        let snapshot = spawnable(shard.snapshot()).await.unwrap();
        let dir = snapshot.dir.clone();
        spawnable(shard.install(&dir, &snapshot.files, position))
            .await
            .unwrap();
        spawnable(snapshot.release()).await.unwrap();
        spawnable(shard.verify()).await.unwrap();
        spawnable(support::replica::open(&replica.world))
            .await
            .unwrap();
    });
}

#[test]
fn newest_samples_since_an_index_are_those_written_behind_it() {
    run(async {
        let shard = Arc::new(Replica::new(1).await.shard);
        let apply = async |command: Command| {
            let index = shard.applied_index() + 1;
            shard.apply(index, &command).await.unwrap()
        };
        let named = |name: &str| Labels::from_pairs([("__name__", name)]);
        for (name, at) in [("a", 1_000), ("b", 1_010), ("c", 1_020)] {
            apply(write(&named(name), &[(at, 1.0)])).await;
        }
        let selection = NewestSelection {
            any_of: vec![vec![
                Matcher::new(MatchOp::Regex, "__name__", ".+").unwrap(),
            ]],
            start: Timestamp(900),
            end: Timestamp(2_000),
            consistency: Consistency::Local,
        };
        let since = async |index: Option<u64>| {
            let mut pages = shard.newest_since(&selection, index);
            let mut names = String::new();
            while let Some(page) = pages.next().await.unwrap() {
                page.iter()
                    .for_each(|newest| names += newest.labels.metric_name());
            }
            (names, pages.whole, pages.index)
        };
        let (names, whole, index) = since(None).await;
        assert_eq!((&*names, whole), ("abc", true));
        let nothing = (String::new(), false, index);
        assert_eq!(since(Some(index)).await, nothing);
        apply(write(&named("b"), &[(1_030, 2.0)])).await;
        assert_eq!(since(Some(index)).await, ("b".to_owned(), false, index + 1));
        // A late sample: what was written after its instant is told again, and nothing is missed.
        apply(write(&named("d"), &[(1_015, 1.0)])).await;
        assert_eq!(since(Some(index)).await.0, "bcd");
        let strange = since(Some(index + 99)).await;
        assert_eq!(strange, ("abcd".to_owned(), true, index + 2));
    });
}

#[test]
fn what_was_told_of_families_outlives_checkpoints_and_shows_in_the_digest() {
    run(async {
        let mut replica = Replica::new(9).await;
        let word = |help: &str| FamilyMetadata {
            name: "up".to_owned(),
            kind: MetricKind::Gauge,
            help: help.to_owned(),
            unit: String::new(),
        };
        let describe = |at, help| {
            Command::Describe(DescribeCommand {
                proposed_at: Timestamp(at),
                families: vec![word(help)],
            })
        };
        let log = [describe(5, "old"), describe(7, "new"), describe(8, "old")];
        let mut digests = vec![replica.shard.digest()];
        for command in &log {
            apply(&replica, command.clone()).await;
            digests.push(replica.shard.digest());
        }
        for pair in digests.windows(2) {
            assert_ne!(pair[0], pair[1], "what is told, and when, is content");
        }
        assert_eq!(replica.shard.described(None), [word("new"), word("old")]);
        assert_eq!(replica.shard.described(Some("upper")), []);
        replica.checkpoint().await.unwrap();
        replica.reopen(&log).await.unwrap();
        assert_eq!(replica.shard.digest(), digests[3]);
        assert_eq!(replica.shard.described(Some("up")).len(), 2);
        let both = [word("new"), word("old")];
        assert_eq!(replica.shard.untold(&both, Timestamp(8)), [word("new")]);
    });
}
