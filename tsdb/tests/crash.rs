//! Power cuts at every change of the disk: what opens afterwards is the old state or the new one,
//! and with the log's tail it is always the whole.

mod support;

use std::path::{Path, PathBuf};

use model::{SeriesId, Timestamp};
use support::replica::{DIR, Replica, opaque, run};
use support::{Row, Step, Windows, command};
use tsdb::manifest::Manifest;
use tsdb::{CleanCommand, CollectCommand, Command, CompactCommand, Position, StorageError, scrub};

fn rows(series: std::ops::Range<u8>, from: i64, count: u8) -> Step {
    let rows = series
        .map(|series| Row {
            series,
            from,
            step: 10,
            count,
            value: series,
            histograms: series % 2 == 1,
        })
        .collect();
    let windows = Windows {
        proposed_at: 0,
        out_of_order_ms: 10_000,
        in_order_ms: 0,
        future_ms: 0,
    };
    Step::Write(rows, windows, None)
}

/// With a series that ends where the others go on.
fn ending(step: Step) -> Step {
    let Step::Write(mut rows, windows, fence) = step else {
        unreachable!("it is a write")
    };
    rows.push(Row {
        series: ENDING,
        count: 50,
        ..rows[0].clone()
    });
    Step::Write(rows, windows, fence)
}

/// The series that ends, is collected and comes back.
const ENDING: u8 = 7;

/// A log with seals, late samples, a push, a drop, a deletion and a collection, in three parts.
fn log() -> [Vec<Command>; 3] {
    use model::group::PushOp;
    let parts = [
        vec![
            ending(rows(0..5, 0, 200)),
            Step::Push("a".into(), 5, PushOp::Put(vec![])),
            Step::Seal(1_000),
        ],
        vec![
            rows(0..6, 2_000, 100),
            rows(2..4, 505, 50),
            Step::Seal(2_500),
            Step::Seal(2_700),
            Step::Delete(2, false, 2_050, 2_200),
        ],
        vec![
            Step::Retain(1_000),
            rows(0..3, 5_000, 10),
            Step::Push("b".into(), 5, PushOp::Reject),
            Step::Seal(5_020),
        ],
    ];
    let as_command = |step: &Step| command(step, |_| None).expect("goes through the log");
    let mut log: [Vec<Command>; 3] = parts.map(|steps| steps.iter().map(as_command).collect());
    let block = SEALED_AT;
    log[2].insert(0, Command::Clean(CleanCommand { block }));
    let blocks = COMPACTED.to_vec();
    log[2].push(Command::Compact(CompactCommand { blocks }));
    log[2].push(Command::Collect(CollectCommand {
        before: Timestamp(2_000),
        series: (0..9).map(SeriesId).collect(),
        rest: true,
    }));
    log[2].push(as_command(&rows(ENDING..ENDING + 1, 5_030, 3)));
    log
}

/// The block behind it, and what is left of it once it is cleaned.
const COMPACTED: [u64; 2] = [7, 9];

/// Where in the log the block is made of which something is deleted later.
const SEALED_AT: u64 = 6;

/// All parts up to `end` as one log.
fn joined(end: usize) -> Vec<Command> {
    log()[..end].concat()
}

async fn applied(seed: u64, end: usize) -> Replica {
    let mut replica = Replica::new(seed).await;
    replica.catch_up(&joined(end)).await.unwrap();
    replica
}

fn position(index: u64) -> Position {
    Position {
        index,
        opaque: opaque(index),
    }
}

/// What one power cut may leave: the seeds of as many disks.
const AFTERMATHS: u64 = 32;

/// Cuts the power after each change that `act` makes, until it gets through, and opens what each
/// cut may have left.
async fn cut_everywhere(
    prepare: impl AsyncFn() -> Replica,
    act: impl AsyncFn(&Replica) -> bool,
    may_stand_at: [Option<Position>; 2],
) {
    let whole = applied(0, 3).await;
    let stats = whole.shard.stats();
    assert_eq!(
        (stats.series, stats.series_ever),
        (7, 8),
        "one was collected and came back"
    );
    let expected = (whole.shard.digest(), whole.everything().await);
    let mut seen = [false; 2];
    for cut in 0.. {
        let replica = prepare().await;
        replica.disk.crash_after(cut);
        let succeeded = act(&replica).await;
        let through = !replica.disk.is_dark();
        assert!(succeeded || !through, "without a cut it succeeds");
        for seed in 0..AFTERMATHS {
            let disk = replica.disk.fork(cut * AFTERMATHS + seed);
            let mut left = Replica::on(disk).await.expect("opens after a cut");
            let stands_at = left.shard.position();
            let which = may_stand_at.iter().position(|p| *p == stands_at);
            let which = which.unwrap_or_else(|| panic!("cut {cut}: {stands_at:?}"));
            assert!(!succeeded || which == 1, "cut {cut}: success was durable");
            seen[which] = true;
            left.catch_up(&joined(3)).await.unwrap();
            assert_eq!((left.shard.digest(), left.everything().await), expected);
            left.shard.verify().await.expect("verifies");
            if seed == 0 {
                // What the cut left must not be in the way of the next checkpoint.
                left.checkpoint().await.expect("a checkpoint");
                left.reopen(&[]).await.expect("opens");
                assert_eq!(left.shard.digest(), expected.0, "cut {cut}");
            }
        }
        if through {
            assert!(cut > 10, "only {cut} cuts");
            assert_eq!(seen, [true; 2], "both states were left by some cut");
            return;
        }
    }
}

#[test]
fn a_first_checkpoint_is_whole_or_was_never_there() {
    run(async {
        let last = joined(3).len() as u64;
        cut_everywhere(
            async || applied(0, 3).await,
            async |replica| replica.checkpoint().await.is_ok(),
            [None, Some(position(last))],
        )
        .await;
    });
}

#[test]
fn a_later_checkpoint_is_whole_or_the_old_one_stands() {
    run(async {
        let (first, last) = (joined(2).len() as u64, joined(3).len() as u64);
        cut_everywhere(
            async || {
                let mut replica = applied(0, 2).await;
                replica.checkpoint().await.unwrap();
                replica.catch_up(&joined(3)).await.unwrap();
                replica
            },
            async |replica| replica.checkpoint().await.is_ok(),
            [Some(position(first)), Some(position(last))],
        )
        .await;
    });
}

#[test]
fn a_cleaned_block_is_whole_or_the_old_one_stands() {
    run(async {
        let (first, last) = (joined(2).len() as u64, joined(3).len() as u64);
        cut_everywhere(
            async || {
                let replica = applied(0, 2).await;
                assert_eq!(replica.shard.unclean_blocks(), [SEALED_AT]);
                replica.checkpoint().await.unwrap();
                replica
            },
            async |replica| {
                for (index, command) in (1..).zip(&joined(3)).skip(first as usize) {
                    if replica.shard.apply(index, command).await.is_err() {
                        return false;
                    }
                }
                assert!(replica.shard.unclean_blocks().is_empty());
                replica.checkpoint().await.is_ok()
            },
            [Some(position(first)), Some(position(last))],
        )
        .await;
    });
}

#[test]
fn a_merged_block_is_whole_or_the_old_ones_stand() {
    run(async {
        let (first, last) = (joined(2).len() as u64, joined(3).len() as u64);
        cut_everywhere(
            async || {
                let replica = applied(0, 2).await;
                replica.checkpoint().await.unwrap();
                replica
            },
            async |replica| {
                for (index, command) in (1..).zip(&joined(3)).skip(first as usize) {
                    if replica.shard.apply(index, command).await.is_err() {
                        return false;
                    }
                }
                // What is made one has a file of its own first.
                let written = replica.checkpoint().await.is_ok();
                written
                    && matches!(replica.shard.merge_one().await, Ok(true))
                    && replica.checkpoint().await.is_ok()
            },
            [Some(position(first)), Some(position(last))],
        )
        .await;
    });
}

#[test]
fn an_installed_snapshot_is_whole_or_the_old_state_stands() {
    run(async {
        let (first, last) = (joined(1).len() as u64, joined(3).len() as u64);
        let leader = applied(100, 3).await;
        leader.checkpoint().await.unwrap();
        let snapshot = leader.shard.snapshot().await.unwrap();
        let staged = Path::new("staged");
        cut_everywhere(
            async || {
                let replica = applied(0, 1).await;
                replica.checkpoint().await.unwrap();
                replica.receive(&leader, &snapshot, staged).await.unwrap();
                replica
            },
            async |replica| {
                let position = snapshot.position.clone();
                let shard = &replica.shard;
                let installed = shard.install(staged, &snapshot.files, position).await;
                let stands_at = shard.applied_index();
                assert!(stands_at == last || (installed.is_err() && stands_at == first));
                installed.is_ok()
            },
            [Some(position(first)), Some(position(last))],
        )
        .await;
    });
}

/// A process that is killed leaves what a power cut may still take back.
async fn kill_everywhere(
    prepare: impl AsyncFn(u64) -> Replica,
    may_stand_at: [Option<Position>; 2],
) {
    let mut seen = [false; 2];
    for change in 0.. {
        let replica = prepare(change).await;
        replica.disk.crash_after(change);
        drop(replica.checkpoint().await);
        let through = !replica.disk.is_dark();
        replica.disk.kill();
        let opened = Replica::on(replica.disk.mount()).await;
        let opened = opened.expect("opens after a kill");
        let stands_at = opened.shard.position();
        let which = may_stand_at.iter().position(|p| *p == stands_at);
        seen[which.unwrap_or_else(|| panic!("killed at {change}: {stands_at:?}"))] = true;
        let left = |seed| Replica::on(opened.disk.fork(seed));
        for seed in 0..AFTERMATHS {
            left(seed)
                .await
                .expect("opens, whether names were kept or not");
        }
        opened.shard.keep_names().await.unwrap();
        for seed in 0..AFTERMATHS {
            let left = left(seed).await.expect("opens after a cut");
            assert_eq!(left.shard.position(), stands_at, "killed at {change}");
        }
        if through {
            assert_eq!(seen, [true; 2], "both states were left by some kill");
            return;
        }
    }
}

#[test]
fn a_power_cut_behind_a_kill_takes_nothing_back_that_was_opened() {
    run(async {
        let (first, last) = (joined(2).len() as u64, joined(3).len() as u64);
        let fresh = async |seed| applied(seed, 3).await;
        kill_everywhere(fresh, [None, Some(position(last))]).await;
        let later = async |seed| {
            let mut replica = applied(seed, 2).await;
            replica.checkpoint().await.unwrap();
            replica.catch_up(&joined(3)).await.unwrap();
            replica
        };
        kill_everywhere(later, [Some(position(first)), Some(position(last))]).await;
    });
}

#[test]
fn a_cut_while_opening_leaves_a_directory_that_opens() {
    run(async {
        let whole = applied(0, 1).await;
        for cut in 0.. {
            let disk = sim_world::SimDisk::new(cut);
            disk.crash_after(cut);
            let opened = Replica::on(disk.clone()).await;
            let through = !disk.is_dark();
            assert_eq!(opened.is_ok(), through);
            disk.crash();
            let mut replica = Replica::on(disk).await.expect("opens after a cut");
            replica.catch_up(&joined(1)).await.unwrap();
            assert_eq!(replica.shard.digest(), whole.shard.digest());
            if through {
                assert!(cut > 3, "only {cut} cuts");
                return;
            }
        }
    });
}

#[test]
fn a_failed_flush_or_append_is_an_error_and_loses_nothing_older() {
    use sim_world::Operation;
    run(async {
        for operation in [
            Operation::Append,
            Operation::Flush,
            Operation::FlushDir,
            Operation::Rename,
            Operation::Create,
        ] {
            let mut replica = applied(3, 2).await;
            let old = replica.checkpoint().await.unwrap();
            replica.catch_up(&joined(3)).await.unwrap();
            let digest = replica.shard.digest();
            replica.disk.fail(operation, 0);
            let failed = replica.checkpoint().await;
            assert!(failed.is_err(), "{operation:?}");
            assert_eq!(replica.shard.position(), Some(old.clone()));
            replica.reopen(&joined(3)).await.unwrap();
            assert_eq!(replica.shard.digest(), digest, "{operation:?}");
        }
    });
}

/// Of what a state stands on, what may be damaged.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Checkpoint,
    CheckpointMissing,
    Manifest,
    ManifestMissing,
}

impl Damage {
    async fn strike(self, replica: &Replica) {
        let is = |start: &str| {
            let in_dir = move |(path, _): &(PathBuf, u64)| path.starts_with(DIR);
            let mut files = replica.disk.files().into_iter().filter(in_dir);
            let found = files.find(|(path, _)| path.to_string_lossy().contains(start));
            found.expect("it has one")
        };
        let disk = &*replica.world.disk;
        let (path, len) = match self {
            Self::Checkpoint | Self::CheckpointMissing => is("/checkpoint-"),
            Self::Manifest | Self::ManifestMissing => is("/manifest"),
        };
        match self {
            Self::Checkpoint | Self::Manifest => {
                replica.disk.flip_bit(&path, len / 2, 3).unwrap();
            }
            Self::CheckpointMissing | Self::ManifestMissing => {
                disk.remove(&path).await.unwrap();
                disk.flush_dir(Path::new(DIR)).await.unwrap();
            }
        }
    }
}

#[test]
fn a_rebuilt_state_is_whole_or_the_damaged_one_stands() {
    run(async {
        let (first, last) = (joined(1).len() as u64, joined(3).len() as u64);
        let leader = applied(100, 3).await;
        leader.checkpoint().await.unwrap();
        let snapshot = leader.shard.snapshot().await.unwrap();
        let manifest = Manifest {
            position: Some(snapshot.position.clone()),
            files: snapshot.files.clone(),
        };
        let (dir, staged) = (Path::new(DIR), Path::new("staged"));
        let expected = (leader.shard.digest(), leader.everything().await);
        for damage in [
            Damage::Checkpoint,
            Damage::CheckpointMissing,
            Damage::Manifest,
            Damage::ManifestMissing,
        ] {
            let mut seen = [false; 2];
            for cut in 0.. {
                let replica = applied(0, 1).await;
                replica.checkpoint().await.unwrap();
                replica.receive(&leader, &snapshot, staged).await.unwrap();
                damage.strike(&replica).await;
                let disk = &replica.world.disk;
                let reached = scrub::reached(&**disk, dir).await.unwrap();
                assert_eq!(
                    reached, first,
                    "by the manifest or by the checkpoint's name"
                );
                replica.disk.crash_after(cut);
                let rebuilt = scrub::rebuild(disk, dir, staged, &manifest).await;
                let through = !replica.disk.is_dark();
                assert!(rebuilt.is_ok() || !through, "{damage:?}: {rebuilt:?}");
                for seed in 0..AFTERMATHS {
                    let left = replica.disk.fork(cut * AFTERMATHS + seed);
                    match Replica::on(left).await {
                        Ok(left) => {
                            assert_eq!(left.shard.position(), Some(position(last)));
                            let found = (left.shard.digest(), left.everything().await);
                            assert_eq!(found, expected);
                            left.shard.verify().await.expect("verifies");
                            seen[1] = true;
                        }
                        Err(StorageError::Corrupt { .. }) => {
                            assert!(rebuilt.is_err(), "{damage:?}, cut {cut}: it was durable");
                            seen[0] = true;
                        }
                        Err(error) => panic!("{damage:?}, cut {cut}: {error}"),
                    }
                }
                if through {
                    assert!(cut > 5, "only {cut} cuts");
                    assert_eq!(seen, [true; 2], "both states were left by some cut");
                    break;
                }
            }
        }
    });
}

#[test]
fn damaged_files_are_not_made_a_state() {
    run(async {
        let leader = applied(100, 3).await;
        leader.checkpoint().await.unwrap();
        let snapshot = leader.shard.snapshot().await.unwrap();
        let manifest = Manifest {
            position: Some(snapshot.position.clone()),
            files: snapshot.files.clone(),
        };
        let (dir, staged) = (Path::new(DIR), Path::new("staged"));
        for entry in &manifest.files {
            let replica = applied(0, 1).await;
            replica.checkpoint().await.unwrap();
            replica.receive(&leader, &snapshot, staged).await.unwrap();
            Damage::Manifest.strike(&replica).await;
            let staged_file = staged.join(&entry.name);
            let own = dir.join(&entry.name);
            let fetched = replica
                .disk
                .files()
                .iter()
                .any(|(path, _)| *path == staged_file);
            let path = if fetched { staged_file } else { own };
            replica.disk.flip_bit(&path, entry.len / 2, 1).unwrap();
            let rebuilt = scrub::rebuild(&replica.world.disk, dir, staged, &manifest).await;
            let Err(StorageError::Corrupt { file, .. }) = rebuilt else {
                panic!("{rebuilt:?} although {} is damaged", entry.name);
            };
            assert_eq!(file, entry.name);
            assert!(Replica::on(replica.disk.fork(1)).await.is_err());
        }
        // Nor does one that lacks a file.
        let replica = applied(0, 1).await;
        replica.checkpoint().await.unwrap();
        Damage::Checkpoint.strike(&replica).await;
        let rebuilt = scrub::rebuild(&replica.world.disk, dir, staged, &manifest).await;
        assert!(rebuilt.is_err());
    });
}
