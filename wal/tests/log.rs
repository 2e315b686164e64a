//! What a replica may rely on, one promise per test.

mod rig;

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::GroupId;
use model::port::Disk;
use proptest::prelude::*;
use rig::*;
use sim_world::{Operation, SimDice, SimDisk};
use wal::{GroupState, Log, Options};

const G: GroupId = GroupId(1);
const H: GroupId = GroupId(2);

#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, Options::default()).await;
    assert_eq!(log.state(G), GroupState::default());
    append(&log, G, vec![entry(1, 0, 10), entry(1, 1, 5000)])
        .await
        .unwrap();
    log.save_vote(H, vote(4)).await.unwrap();
    log.save_committed(G, Some(id(1, 0))).await.unwrap();
    log.closed().await;
    assert_eq!(log.failure(), None);
    drop(log);

    let (log, recovery) = open(&disk, Options::default()).await;
    assert_eq!((recovery.torn_bytes, recovery.segments_scanned), (0, 0));
    let state = log.state(G);
    assert_eq!(state.last, Some(id(1, 1)));
    assert_eq!(state.committed, Some(id(1, 0)), "a clean close flushes it");
    assert_eq!(log.state(H).vote, Some(vote(4)));
    let entries = read(&log, G).await.unwrap();
    assert_eq!(entries, [entry(1, 0, 10), entry(1, 1, 5000)]);
}

#[tokio::test]
async fn all_that_waits_shares_one_flush() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, Options::default()).await;
    append(&log, G, vec![entry(1, 0, 10)]).await.unwrap();
    let before = disk.counters();
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let all = async {
        for group in (10..110).map(GroupId) {
            let acknowledged = acknowledged.clone();
            let done = Box::new(move |result: std::io::Result<()>| {
                result.unwrap();
                acknowledged.fetch_add(1, Ordering::Relaxed);
            });
            log.append(group, vec![entry(1, 0, 100)], done)
                .await
                .unwrap();
            log.save_committed(group, Some(id(1, 0))).await.unwrap();
        }
        log.save_vote(G, vote(2)).await.unwrap();
    };
    // Unconstrained, as tokio would else let the writer go first now and then.
    tokio::task::coop::unconstrained(all).await;
    assert_eq!(acknowledged.load(Ordering::Relaxed), 100);
    let after = disk.counters();
    assert_eq!(after.flushes - before.flushes, 1);
    assert_eq!(after.appends - before.appends, 1);
}

#[tokio::test]
async fn a_committed_mark_alone_costs_no_flush() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, Options::default()).await;
    append(&log, G, vec![entry(1, 0, 10)]).await.unwrap();
    let before = disk.counters();
    for _ in 0..5000 {
        log.save_committed(G, Some(id(1, 0))).await.unwrap();
    }
    assert_eq!(disk.counters(), before);
    append(&log, H, vec![entry(1, 0, 10)]).await.unwrap();
    drop(log);
    disk.crash();
    let (log, _) = open(&disk, Options::default()).await;
    assert_eq!(log.state(G).committed, Some(id(1, 0)));
}

#[tokio::test]
async fn reopening_reads_footers_and_the_last_segment_only() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, small()).await;
    for index in 0..40 {
        append(&log, G, vec![entry(1, index, 50)]).await.unwrap();
    }
    drop(log);
    disk.kill();
    let (log, recovery) = open(&disk, small()).await;
    assert!(recovery.segments > 5, "{recovery:?}");
    assert_eq!(recovery.segments_scanned, 1);
    assert_eq!(read(&log, G).await.unwrap().len(), 40);
}

#[tokio::test]
async fn purging_gives_space_back_and_idle_groups_pin_nothing() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, small()).await;
    // An idle group with a vote, a mark, and one entry that stays.
    append(&log, H, vec![entry(1, 0, 50)]).await.unwrap();
    log.save_vote(H, vote(3)).await.unwrap();
    log.save_vote(GroupId(3), vote(5)).await.unwrap();
    for index in 0..100 {
        append(&log, G, vec![entry(1, index, 50)]).await.unwrap();
        log.purge(G, id(1, index)).await.unwrap();
    }
    append(&log, G, vec![entry(1, 100, 50)]).await.unwrap();
    let files_left = files(&disk).await.len();
    assert!(files_left <= 4, "{files_left} files");
    drop(log);
    disk.crash();
    let (log, recovery) = open(&disk, small()).await;
    assert_eq!(recovery.quarantined, []);
    assert_eq!(read(&log, H).await.unwrap(), [entry(1, 0, 50)]);
    assert_eq!(log.state(H).vote, Some(vote(3)));
    assert_eq!(log.state(GroupId(3)).vote, Some(vote(5)));
    assert_eq!(read(&log, G).await.unwrap(), [entry(1, 100, 50)]);
}

#[tokio::test]
async fn restarts_alone_leave_no_files_behind() {
    let disk = SimDisk::new(1);
    for _ in 0..20 {
        let (log, _) = open(&disk, small()).await;
        log.closed().await;
    }
    assert_eq!(files(&disk).await.len(), 0);
    for term in 1..20 {
        let (log, _) = open(&disk, small()).await;
        log.save_vote(G, vote(term)).await.unwrap();
        drop(log);
        disk.crash();
    }
    let (log, _) = open(&disk, small()).await;
    assert_eq!(log.state(G).vote, Some(vote(19)));
    log.save_vote(G, vote(20)).await.unwrap();
    log.save_vote(G, vote(21)).await.unwrap();
    assert_eq!(files(&disk).await.len(), 1);
}

#[tokio::test]
async fn entries_are_readable_before_they_are_durable() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, small()).await;
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let seen = acknowledged.clone();
    let done = Box::new(move |_| {
        seen.fetch_add(1, Ordering::Relaxed);
    });
    log.append(G, vec![entry(1, 0, 10)], done).await.unwrap();
    assert_eq!(log.state(G).last, Some(id(1, 0)));
    assert_eq!(read(&log, G).await.unwrap(), [entry(1, 0, 10)]);
    assert_eq!(acknowledged.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_gap_is_refused() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, small()).await;
    append(&log, G, vec![entry(1, 5, 10)]).await.unwrap();
    for index in [4, 5, 7] {
        let refused = append(&log, G, vec![entry(1, index, 10)]).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    append(&log, G, vec![entry(1, 6, 10)]).await.unwrap();
    assert_eq!(log.failure(), None);
}

#[tokio::test]
async fn old_entries_are_read_from_disk_side_by_side_in_one_go() {
    let disk = SimDisk::new(1);
    let options = Options {
        cache_bytes_max: 0,
        ..Options::default()
    };
    let (log, _) = open(&disk, options).await;
    let entries: Vec<_> = (0..50).map(|index| entry(1, index, 100)).collect();
    append(&log, G, entries.clone()).await.unwrap();
    let before = disk.counters().reads;
    assert_eq!(read(&log, G).await.unwrap(), entries);
    assert_eq!(disk.counters().reads - before, 1);
    let limited = log.read(G, 10..40, 450).await.unwrap();
    assert_eq!(limited, entries[10..14]);
}

#[tokio::test]
async fn entries_of_others_between_are_read_along_unless_that_fails() {
    let disk = SimDisk::new(1);
    let options = Options {
        cache_bytes_max: 0,
        ..Options::default()
    };
    let (log, _) = open(&disk, options).await;
    let other = GroupId(G.0 + 1);
    let entries: Vec<_> = (0..20).map(|index| entry(1, index, 100)).collect();
    for (index, one) in (0..).zip(&entries) {
        append(&log, G, vec![one.clone()]).await.unwrap();
        let len = if index == 9 { 100_000 } else { 1_000 };
        append(&log, other, vec![entry(1, index, len)])
            .await
            .unwrap();
    }
    let before = disk.counters().reads;
    assert_eq!(read(&log, G).await.unwrap(), entries);
    // Two, because of what is too long to be read for nothing.
    assert_eq!(disk.counters().reads - before, 2);
    let before = disk.counters().reads;
    disk.fail(Operation::Read, 0);
    assert_eq!(read(&log, G).await.unwrap(), entries);
    // The one that failed does not count.
    assert_eq!(disk.counters().reads - before, 10 + 1);
}

#[tokio::test]
async fn the_first_failed_operation_poisons_the_log() {
    for operation in [Operation::Append, Operation::Flush] {
        let disk = SimDisk::new(1);
        let (log, _) = open(&disk, Options::default()).await;
        append(&log, G, vec![entry(1, 0, 10)]).await.unwrap();
        disk.fail(operation, 0);
        let queued: Vec<_> = (0..3u32)
            .map(|n| {
                let log = log.clone();
                async move { append(&log, GroupId(10 + n), vec![entry(1, 0, 10)]).await }
            })
            .collect();
        let results = futures::future::join_all(queued).await;
        assert!(results.iter().all(Result::is_err), "{results:?}");
        let why = log.failed().await;
        assert!(why.contains("wal/0000000001.log"), "{why}");
        assert_eq!(log.failure(), Some(why));
        // The disk would work again; the log must not.
        let flushes = disk.counters().flushes;
        assert!(append(&log, G, vec![entry(1, 1, 10)]).await.is_err());
        assert!(log.save_vote(G, vote(1)).await.is_err());
        assert!(log.save_committed(G, None).await.is_err());
        assert!(log.purge(G, id(1, 0)).await.is_err());
        assert!(log.remove_group(G).await.is_err());
        assert!(read(&log, G).await.is_err());
        log.closed().await;
        assert_eq!(disk.counters().flushes, flushes);
        drop(log);
        disk.crash();
        let (log, _) = open(&disk, Options::default()).await;
        assert_eq!(read(&log, G).await.unwrap(), [entry(1, 0, 10)]);
    }
}

/// The system shows what a failed flush left, and may never write it.
#[tokio::test]
async fn what_a_failed_flush_left_is_durable_before_anybody_is_told_anything() {
    for settles in [true, false] {
        let disk = SimDisk::new(1);
        let (log, _) = open(&disk, Options::default()).await;
        append(&log, G, vec![entry(1, 0, 10)]).await.unwrap();
        disk.fail(Operation::Flush, 0);
        assert!(append(&log, G, vec![entry(1, 1, 10)]).await.is_err());
        drop(log);
        disk.kill();
        let (log, _) = try_open(&disk, Options::default()).await.unwrap();
        let seen = read(&log, G).await.unwrap();
        assert_eq!(seen, [entry(1, 0, 10), entry(1, 1, 10)]);
        // Until then it is only seen.
        let (cut, _) = open(&disk.fork(1), Options::default()).await;
        assert_eq!(read(&cut, G).await.unwrap(), seen[..1]);
        match settles {
            true => log.settled().await.unwrap(),
            false => log.save_vote(G, vote(9)).await.unwrap(),
        }
        drop(log);
        disk.crash();
        let (log, _) = open(&disk, Options::default()).await;
        assert_eq!(read(&log, G).await.unwrap(), seen);
    }
}

#[tokio::test]
async fn a_log_that_cannot_be_written_again_does_not_settle() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, Options::default()).await;
    append(&log, G, vec![entry(1, 0, 10)]).await.unwrap();
    drop(log);
    disk.kill();
    for operation in [Operation::Append, Operation::Flush] {
        disk.fail(operation, 0);
        let (log, _) = try_open(&disk, Options::default()).await.unwrap();
        assert!(log.settled().await.is_err());
        assert!(log.failure().is_some());
        assert!(append(&log, G, vec![entry(1, 1, 10)]).await.is_err());
    }
    let (log, _) = open(&disk, Options::default()).await;
    assert_eq!(read(&log, G).await.unwrap(), [entry(1, 0, 10)]);
}

#[tokio::test]
async fn a_full_disk_poisons_and_loses_nothing() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, small()).await;
    append(&log, G, vec![entry(1, 0, 10)]).await.unwrap();
    disk.limit_bytes(Some(450));
    let mut index = 1;
    while append(&log, G, vec![entry(1, index, 10)]).await.is_ok() {
        index += 1;
    }
    assert!(log.failure().is_some());
    drop(log);
    disk.crash();
    disk.limit_bytes(None);
    let (log, _) = open(&disk, small()).await;
    assert_eq!(read(&log, G).await.unwrap().len() as u64, index);
}

#[tokio::test]
async fn a_closed_log_refuses() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, small()).await;
    log.closed().await;
    log.closed().await;
    assert!(log.save_vote(G, vote(1)).await.is_err());
    assert!(append(&log, G, vec![entry(1, 0, 1)]).await.is_err());
    assert_eq!(log.failure(), None, "closing is no failure");
}

#[tokio::test]
async fn a_batch_keeps_to_its_bytes_and_the_queue_to_its_bounds() {
    let disk = SimDisk::new(1);
    let options = Options {
        batch_bytes_max: 1000,
        ..Options::default()
    };
    let (log, _) = open(&disk, options).await;
    append(&log, G, vec![entry(1, 0, 10)]).await.unwrap();
    let before = disk.counters();
    let appends = (10..30).map(|group| append(&log, GroupId(group), vec![entry(1, 0, 300)]));
    let results = futures::future::join_all(appends).await;
    assert!(results.iter().all(Result::is_ok));
    let batches = disk.counters().flushes - before.flushes;
    assert_eq!(batches, 10, "two of 340 bytes fit into 1000, three do not");
    append(&log, H, vec![entry(1, 0, 5000)]).await.unwrap();
}

#[tokio::test]
async fn segments_of_two_logs_are_not_mixed() {
    let [one, two] = [SimDisk::new(1), SimDisk::new(2)];
    let world = sim_world::world(77, &sim_world::SimClock::new(), &two);
    let dir = std::path::Path::new(DIR);
    let (other, _) = wal::SegmentedLog::open(&world, dir, Options::default(), metrics())
        .await
        .unwrap();
    other.save_vote(G, vote(1)).await.unwrap();
    other.closed().await;
    let (log, _) = open(&one, Options::default()).await;
    log.save_vote(G, vote(1)).await.unwrap();
    log.closed().await;
    let foreign = model::port::read_all(&two, &files(&two).await[0])
        .await
        .unwrap();
    let mut file = one.create(&dir.join("0000000002.log")).await.unwrap();
    file.append(vec![foreign]).await.unwrap();
    let refused = try_open(&one, Options::default()).await.err().unwrap();
    assert!(
        matches!(refused, wal::OpenError::Foreign { .. }),
        "{refused}"
    );
}

/// How a script's life ends before the log is opened again.
#[derive(Debug, Clone, Copy)]
enum End {
    Close,
    Kill,
}

fn twin_run(seed: u64, lives: Vec<(usize, End)>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(async {
        let groups = 3;
        let dice = SimDice::new(seed);
        let disk = SimDisk::new(seed);
        let mut twin = Twin::default();
        for (steps, end) in lives {
            let (log, recovery) = open(&disk, small()).await;
            assert_eq!(
                (&recovery.quarantined[..], &recovery.damage[..]),
                (&[][..], &[][..])
            );
            assert_eq!(holds(&log, groups).await.unwrap(), held_by(&twin, groups));
            let durable = Durable::default();
            for number in 0..steps {
                let step = twin.step(&dice, groups);
                twin.apply(&step);
                run(&log, number, &step, &durable).await.unwrap();
                let held = holds(&log, groups).await.unwrap();
                assert_eq!(held, held_by(&twin, groups), "after {step:?}");
            }
            match end {
                End::Close => log.closed().await,
                // All that was asked is made durable by a vote: the log is in order.
                End::Kill => {
                    let last = Step::Vote(GroupId(0), vote(1000));
                    twin.apply(&last);
                    run(&log, steps, &last, &durable).await.unwrap();
                    drop(log);
                    disk.kill();
                }
            }
        }
    });
}

/// A segment whose entries were overwritten is deleted; the head behind it still names them, which
/// must not cast doubt on the entries from before.
#[test]
fn a_deleted_segment_of_overwritten_entries_is_not_missed() {
    let lives = vec![(15, End::Close), (17, End::Close), (0, End::Close)];
    twin_run(6_476_228_994_123_501_222, lives);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn a_log_does_what_its_twin_does(
        seed in any::<u64>(),
        lives in proptest::collection::vec(
            (0..60usize, prop_oneof![Just(End::Close), Just(End::Kill)]), 1..5),
    ) {
        twin_run(seed, lives);
    }
}
