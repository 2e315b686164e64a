//! Bytes that rot, vanish or change places: an error that names the file, or no effect; never
//! another answer.

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::source::{Source, Take};
use model::{Labels, SeriesId, Timestamp};
use sim_world::SimDisk;
use support::blocks::{answers, series};
use support::replica::{DIR, Replica, content, run, selection, world};
use support::twin::Content;
use support::{Row, Step, Windows, command, labels};
use tsdb::block::Reader;
use tsdb::file::FileKind;
use tsdb::manifest::Manifest;
use tsdb::{Command, StorageError};

fn rows(series: std::ops::Range<u8>, from: i64, step: i64, count: u8) -> Command {
    let rows = series
        .map(|series| Row {
            series,
            from,
            step,
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
    command(&Step::Write(rows, windows, None), |_| None).unwrap()
}

fn log() -> Vec<Command> {
    let seal = |before| command(&Step::Seal(before), |_| None).unwrap();
    let put = model::group::PushOp::Put(vec![]);
    let push = command(&Step::Push("a".into(), 5, put), |_| None).unwrap();
    vec![
        rows(0..3, 0, 10, 130),
        seal(1_250),
        push,
        rows(1..4, 1_300, 7, 20),
        rows(0..1, 1_301, 7, 5),
        seal(1_350),
    ]
}

/// A durable shard with two blocks, its files, and what it answers.
struct Whole {
    disk: SimDisk,
    files: Vec<PathBuf>,
    content: Content,
    digest: u64,
}

async fn whole() -> Whole {
    let mut replica = Replica::new(1).await;
    replica.catch_up(&log()).await.unwrap();
    replica.checkpoint().await.unwrap();
    let files = replica.shard.files().await;
    assert_eq!(files.len(), 3, "two blocks and a checkpoint");
    let names = files.iter().map(|file| file.name.as_str());
    Whole {
        files: names
            .chain(["manifest"])
            .map(|n| Path::new(DIR).join(n))
            .collect(),
        content: replica.everything().await,
        digest: replica.shard.digest(),
        disk: replica.disk,
    }
}

/// The same with the two blocks made one, with and without a file of its own.
async fn whole_compacted(merged: bool) -> Whole {
    let mut replica = Replica::new(1).await;
    replica.catch_up(&log()).await.unwrap();
    replica.checkpoint().await.unwrap();
    let candidates = replica.shard.candidates();
    let blocks = candidates.iter().map(|block| block.id).collect();
    let compact = Command::Compact(tsdb::CompactCommand { blocks });
    let index = replica.shard.applied_index() + 1;
    replica.shard.apply(index, &compact).await.unwrap();
    if merged {
        assert!(replica.shard.merge_one().await.unwrap());
    }
    replica.checkpoint().await.unwrap();
    let files = replica.shard.files().await;
    assert_eq!(files.len(), if merged { 2 } else { 3 });
    let names = files.iter().map(|file| file.name.as_str());
    Whole {
        files: names
            .chain(["manifest"])
            .map(|n| Path::new(DIR).join(n))
            .collect(),
        content: replica.everything().await,
        digest: replica.shard.digest(),
        disk: replica.disk,
    }
}

/// What a damaged disk answers: the truth, or an error by which the damage is known.
async fn look(whole: &Whole, disk: SimDisk) -> Result<(), StorageError> {
    let replica = Replica::on(disk).await?;
    assert_eq!(replica.shard.digest(), whole.digest);
    let everything = selection(&[], Timestamp::MIN, Timestamp::MAX, Take::All);
    if let Ok(answer) = replica.shard.select(&everything).await {
        assert_eq!(content(&answer), whole.content);
    }
    replica.shard.verify().await
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    run(async {
        let wholes = [
            whole().await,
            whole_compacted(false).await,
            whole_compacted(true).await,
        ];
        assert_eq!(wholes[1].content, wholes[0].content);
        assert_eq!(wholes[2].content, wholes[0].content);
        for whole in &wholes {
            flip_everywhere(whole).await;
        }
    });
}

/// The blocks of a shard, by their files.
async fn readers(disk: &SimDisk) -> Result<Vec<Reader>, StorageError> {
    let own = world(disk).disk;
    let mut readers = Vec::new();
    let manifest = Manifest::read(&*own, Path::new(DIR)).await?;
    for file in manifest.unwrap_or_default().files {
        if let Some(FileKind::Block(_)) = file.kind() {
            let dir = Path::new(DIR);
            readers.push(Reader::open(own.clone(), dir, file, &Arc::default()).await?);
        }
    }
    Ok(readers)
}

/// What an undamaged block has and says.
struct Known {
    series: Vec<(SeriesId, Labels)>,
    answers: Vec<String>,
}

async fn known(disk: &SimDisk) -> Vec<Known> {
    let mut known = Vec::new();
    for reader in readers(disk).await.expect("undamaged") {
        let series = series(&reader).await.expect("undamaged");
        let answers = answers(&reader, &series).await.into_iter();
        let answers = answers.map(|answer| answer.expect("undamaged")).collect();
        known.push(Known { series, answers });
    }
    known
}

/// Which parts of blocks are said to be damaged by those that do not answer; all others answer as before.
async fn ask(whole: &[Known], damaged: &SimDisk) -> BTreeSet<&'static str> {
    let mut damaged_parts = BTreeSet::new();
    let Ok(found) = readers(damaged).await else {
        return damaged_parts;
    };
    assert_eq!(whole.len(), found.len());
    for (known, found) in whole.iter().zip(&found) {
        let now = answers(found, &known.series).await;
        assert_eq!(now.len(), known.answers.len());
        for (before, now) in known.answers.iter().zip(now) {
            match now {
                Ok(now) => assert_eq!(now, *before),
                Err(StorageError::Corrupt { section, .. }) => {
                    damaged_parts.insert(section);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    damaged_parts
}

async fn flip_everywhere(whole: &Whole) {
    look(whole, whole.disk.fork(0)).await.expect("undamaged");
    let known = known(&whole.disk).await;
    assert_eq!(ask(&known, &whole.disk.fork(0)).await.len(), 0);
    let mut damaged_parts = BTreeSet::new();
    let disk = world(&whole.disk).disk;
    for path in &whole.files {
        let len = disk.len(path).await.unwrap();
        assert!(len > 0);
        for offset in 0..len {
            let damaged = whole.disk.fork(0);
            let bit = (offset % 8) as u8;
            damaged.flip_bit(path, offset, bit).unwrap();
            if path.to_string_lossy().contains("block-") {
                damaged_parts.append(&mut ask(&known, &damaged).await);
            }
            match look(whole, damaged).await {
                Err(StorageError::Corrupt { file, .. }) => {
                    assert!(path.ends_with(&file), "{path:?} is not {file}");
                }
                other => panic!("{path:?} byte {offset} bit {bit}: {other:?}"),
            }
        }
    }
    assert_eq!(damaged_parts, BTreeSet::from(["index", "labels"]));
}

#[test]
fn cut_lengthened_lost_and_swapped_files_are_found() {
    run(async {
        let whole = whole().await;
        for path in &whole.files {
            for damage in ["cut", "lengthened", "empty", "lost"] {
                let damaged = whole.disk.fork(0);
                let disk = world(&damaged).disk;
                let len = disk.len(path).await.unwrap();
                let mut file = disk.open(path).await.unwrap();
                match damage {
                    "cut" => file.truncate(len - 1).await.unwrap(),
                    "lengthened" => file.append(vec![b"x"[..].into()]).await.unwrap(),
                    "empty" => file.truncate(0).await.unwrap(),
                    _ => disk.remove(path).await.unwrap(),
                }
                let seen = look(&whole, damaged).await;
                assert!(seen.is_err(), "{path:?} {damage}");
            }
        }
        let damaged = whole.disk.fork(0);
        let disk = world(&damaged).disk;
        let [one, other] = [&whole.files[0], &whole.files[1]];
        disk.rename(one, Path::new("aside")).await.unwrap();
        disk.rename(other, one).await.unwrap();
        disk.rename(Path::new("aside"), other).await.unwrap();
        assert!(look(&whole, damaged).await.is_err(), "swapped blocks");
    });
}

#[test]
fn a_late_row_over_a_rotten_chunk_stops_the_replica() {
    run(async {
        let whole = whole().await;
        let damaged = whole.disk.fork(0);
        // The first chunk follows the magic: the histograms of series 1. The page comes behind.
        damaged.flip_bit(&whole.files[0], 20, 3).unwrap();
        let replica = Replica::on(damaged)
            .await
            .expect("chunks are read on demand");
        let index = replica.shard.applied_index() + 1;
        let late = rows(1..2, 10, 10, 1);
        let error = replica.shard.apply(index, &late).await.unwrap_err();
        assert!(matches!(error, StorageError::Corrupt { .. }), "{error}");
        assert_eq!(replica.shard.applied_index(), index - 1);
        let others: Vec<Labels> = [0, 2, 3].map(labels).into();
        for labels in others {
            let instance = labels.get("instance").unwrap();
            let matcher = model::Matcher::equal("instance", instance);
            let found = replica
                .select(&[matcher], Timestamp::MIN, Timestamp::MAX, Take::All)
                .await;
            assert_eq!(found.get(&labels), whole.content.get(&labels));
        }
    });
}

#[test]
fn a_damaged_snapshot_is_not_installed() {
    run(async {
        let mut leader = Replica::new(1).await;
        leader.catch_up(&log()).await.unwrap();
        leader.checkpoint().await.unwrap();
        let snapshot = leader.shard.snapshot().await.unwrap();
        let mut follower = Replica::new(2).await;
        follower.catch_up(&log()[..2]).await.unwrap();
        let before = follower.shard.digest();
        let staged = Path::new("staged");
        for file in &snapshot.files {
            follower.receive(&leader, &snapshot, staged).await.unwrap();
            let path = staged.join(&file.name);
            follower.disk.flip_bit(&path, file.len / 2, 1).unwrap();
            let position = snapshot.position.clone();
            let installed = follower.shard.install(staged, &snapshot.files, position);
            let error = installed.await.unwrap_err();
            assert!(error.to_string().starts_with(&file.name), "{error}");
            assert_eq!(follower.shard.digest(), before);
            assert_eq!(follower.shard.position(), None);
        }
        let mut evil = snapshot.files.clone();
        evil[0].name = "../evil".into();
        let position = snapshot.position.clone();
        let refused = follower.shard.install(staged, &evil, position).await;
        assert!(refused.is_err());
        follower.receive(&leader, &snapshot, staged).await.unwrap();
        let wrong = tsdb::Position {
            index: snapshot.position.index + 1,
            opaque: Default::default(),
        };
        let refused = follower.shard.install(staged, &snapshot.files, wrong).await;
        assert!(refused.is_err());
        follower.reopen(&log()).await.unwrap();
        assert_eq!(follower.shard.digest(), leader.shard.digest());
    });
}

#[test]
fn a_file_that_rotted_is_found_and_mended_from_a_peer() {
    use tsdb::scrub::Check;
    run(async {
        let whole = whole().await;
        let peer = Replica::on(whole.disk.fork(0)).await.unwrap();
        let replica = Replica::on(whole.disk.fork(1)).await.unwrap();
        let check = async |entry: &tsdb::FileEntry| {
            let mut check = Check::of(entry.clone());
            while !replica.shard.check_piece(&mut check).await? {}
            Ok::<(), StorageError>(())
        };
        replica.shard.check_manifest().await.expect("whole");
        for entry in replica.shard.files().await {
            check(&entry).await.expect("whole");
            let path = Path::new(DIR).join(&entry.name);
            replica.disk.flip_bit(&path, entry.len / 2, 3).unwrap();
            let found = check(&entry).await.unwrap_err();
            assert!(matches!(found, StorageError::Corrupt { .. }), "{found}");
            assert_eq!(replica.shard.take_suspects().join(","), entry.name);

            // A damaged copy does not take its place, the right one does.
            let staged = Path::new("fetched");
            let disk = &*replica.world.disk;
            for damage in [true, false] {
                tsdb::file::remove_dir_if_there(disk, staged).await.unwrap();
                disk.create_dir_all(staged).await.unwrap();
                let (from, _) = peer.shard.path_of(&entry.name).await.expect("held");
                let bytes = model::port::read_all(&*peer.world.disk, &from)
                    .await
                    .unwrap();
                let mut file = disk.create(&staged.join(&entry.name)).await.unwrap();
                file.append(vec![bytes]).await.unwrap();
                drop(file);
                if damage {
                    let path = staged.join(&entry.name);
                    replica.disk.flip_bit(&path, 9, 3).unwrap();
                }
                let repaired = replica.shard.repair(staged, &entry).await;
                assert_eq!(repaired.is_err(), damage);
                assert_eq!(check(&entry).await.is_err(), damage);
            }
            replica.shard.take_suspects();
        }
        let manifest = Path::new(DIR).join("manifest");
        replica.disk.flip_bit(&manifest, 11, 0).unwrap();
        assert!(replica.shard.check_manifest().await.is_err());
        replica.shard.check_manifest().await.expect("written anew");
        assert_eq!(replica.everything().await, whole.content);
        replica.shard.verify().await.unwrap();
        assert_eq!(peer.shard.path_of("block-1").await, None);
    });
}

#[test]
fn a_block_that_keeps_a_shard_closed_is_replaced() {
    use tsdb::scrub;
    run(async {
        let whole = whole().await;
        let damaged = whole.disk.fork(0);
        let disk = world(&damaged).disk;
        // Behind the footer's magic nothing of a block is read before this.
        let path = &whole.files[0];
        let len = disk.len(path).await.unwrap();
        damaged.flip_bit(path, len - 1, 0).unwrap();
        let Err(StorageError::Corrupt { file, .. }) = Replica::on(damaged.clone()).await else {
            panic!("opens with a damaged footer");
        };
        let dir = Path::new(DIR);
        let entry = scrub::find(&*disk, dir, &file).await.unwrap();
        let entry = entry.expect("the manifest names it");
        assert_eq!(scrub::find(&*disk, dir, "block-1").await.unwrap(), None);

        let staged = Path::new("fetched");
        disk.create_dir_all(staged).await.unwrap();
        let replaced = scrub::replace(&*disk, dir, staged, &entry).await;
        assert!(replaced.is_err(), "nothing was fetched");
        let good = world(&whole.disk).disk;
        let good = model::port::read_all(&*good, path).await.unwrap();
        let mut copy = disk.create(&staged.join(&file)).await.unwrap();
        copy.append(vec![good]).await.unwrap();
        drop(copy);
        scrub::replace(&*disk, dir, staged, &entry).await.unwrap();
        // Also behind a power cut.
        let replica = Replica::on(damaged.fork(3)).await.expect("opens");
        assert_eq!(replica.everything().await, whole.content);
        replica.shard.verify().await.unwrap();
    });
}

#[test]
fn a_merge_of_a_damaged_block_is_taken_from_a_peer_that_has_done_it() {
    run(async {
        let done = Replica::on(whole_compacted(true).await.disk).await.unwrap();
        let whole = whole_compacted(false).await;
        // A chunk: the first byte behind the magic of a block.
        whole.disk.flip_bit(&whole.files[0], 20, 3).unwrap();
        let replica = Replica::on(whole.disk.clone()).await.unwrap();
        let merged = replica.shard.merge_one().await;
        assert!(matches!(merged, Err(StorageError::Corrupt { .. })));
        let (id, bytes) = replica.shard.wanted_merge().expect("it is not written");
        assert!(bytes > 0);

        let (from, entry) = done.shard.path_of_block(id).await.expect("it is there");
        let good = model::port::read_all(&*done.world.disk, &from);
        let good = good.await.unwrap();
        let staged = Path::new("fetched");
        let disk = &*replica.world.disk;
        let stage = async |entry: &tsdb::FileEntry, bytes: Vec<u8>| {
            tsdb::file::remove_dir_if_there(disk, staged).await.unwrap();
            disk.create_dir_all(staged).await.unwrap();
            let mut file = disk.create(&staged.join(&entry.name)).await.unwrap();
            file.append(vec![bytes.into()]).await.unwrap();
        };
        // Bytes that only their own name vouches for.
        let mut bad = good.to_vec();
        bad[20] ^= 8;
        let forged = tsdb::FileEntry::of_block(id, entry.len, crc32c::crc32c(&bad));
        stage(&forged, bad).await;
        let adopted = replica.shard.adopt_merged(staged, &forged).await;
        assert!(matches!(adopted, Err(StorageError::Corrupt { .. })));
        assert!(replica.shard.wanted_merge().is_some());

        stage(&entry, good.to_vec()).await;
        replica.shard.adopt_merged(staged, &entry).await.unwrap();
        assert_eq!(replica.shard.wanted_merge(), None);
        assert_eq!(replica.everything().await, whole.content);
        assert_eq!(replica.shard.digest(), whole.digest);
        replica.shard.verify().await.unwrap();
    });
}
