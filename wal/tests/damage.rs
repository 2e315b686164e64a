//! Bits that rot in what was durable. Each must be reported (quarantine, a read error) or be
//! harmless; nothing acknowledged may vanish in silence.

mod rig;

use std::io::ErrorKind;
use std::path::Path;

use bytes::Bytes;
use model::GroupId;
use model::port::Dice;
use model::port::{Disk, read_all};
use rig::*;
use sim_world::{SimDice, SimDisk};
use wal::{Log, Options, Recovery};

const GROUPS: u64 = 3;
const A: GroupId = GroupId(0);
const B: GroupId = GroupId(1);

/// A disk on which a script ran; `clean` closes the log, else its last segment stays open.
async fn after_script(seed: u64, options: Options, clean: bool) -> (SimDisk, Vec<Twin>) {
    let disk = SimDisk::new(seed);
    let (steps, mut twins) = script(seed, 40, GROUPS);
    let (log, _) = open(&disk, options).await;
    let durable = Durable::default();
    for (number, step) in steps.iter().enumerate() {
        run(&log, number, step, &durable).await.unwrap();
    }
    let last = Step::Vote(A, vote(99));
    let mut twin = twins.last().unwrap().clone();
    twin.apply(&last);
    twins.push(twin);
    run(&log, steps.len(), &last, &durable).await.unwrap();
    if clean {
        log.closed().await;
    }
    drop(log);
    disk.kill();
    (disk, twins)
}

/// Opens a damaged log and compares every group with the twin; true when something was reported.
async fn reported_or_equal(disk: &SimDisk, twin: &Twin, what: &str) -> bool {
    let (log, recovery) = open(disk, small()).await;
    let mut reported = false;
    for group in (0..GROUPS as u32).map(GroupId) {
        if log.quarantined(group).is_some() {
            reported = true;
            assert_eq!(log.state(group), wal::GroupState::default());
            let refused = read(&log, group).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidData, "{what}");
            continue;
        }
        assert_eq!(log.state(group), twin.state(group), "{what}: {recovery:?}");
        for expected in twin.entries(group) {
            let index = expected.id.index;
            match log.read(group, index..index + 1, 0).await {
                Ok(entries) => assert_eq!(entries, [expected], "{what}"),
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::InvalidData, "{what}");
                    assert!(e.to_string().contains(".log offset "), "{what}: {e}");
                    reported = true;
                }
            }
        }
    }
    reported
}

#[tokio::test]
async fn every_flipped_byte_of_a_closed_log_is_reported_or_harmless() {
    let dice = SimDice::new(3);
    let (mut reported, mut harmless) = (0, 0);
    for seed in 0..4 {
        let (disk, twins) = after_script(seed, small(), true).await;
        for path in files(&disk).await {
            for offset in 0..disk.len(&path).await.unwrap() {
                let rotten = disk.fork(0);
                let bit = dice.below(8) as u8;
                rotten.flip_bit(&path, offset, bit).unwrap();
                let what = format!("seed {seed} {} {offset}.{bit}", path.display());
                match reported_or_equal(&rotten, twins.last().unwrap(), &what).await {
                    true => reported += 1,
                    false => harmless += 1,
                }
            }
        }
    }
    assert!(reported > 1000 && harmless > 1000, "{reported} {harmless}");
}

/// Where the last batch of an open segment starts.
async fn last_batch(disk: &SimDisk) -> (std::path::PathBuf, u64) {
    let path = files(disk).await.pop().unwrap();
    let bytes = read_all(disk, &path).await.unwrap();
    let starts = bytes.windows(4).enumerate();
    let mut starts = starts.filter(|(_, window)| window == b"QLB\x02");
    (path, starts.next_back().unwrap().0 as u64)
}

#[tokio::test]
async fn in_an_open_segment_only_the_unproven_last_batch_can_pass_for_torn() {
    let dice = SimDice::new(4);
    let mut reported = 0;
    for seed in 10..14 {
        let one_segment = Options {
            segment_bytes: 1 << 20,
            ..small()
        };
        let (disk, twins) = after_script(seed, one_segment, false).await;
        let (path, last) = last_batch(&disk).await;
        let len = disk.len(&path).await.unwrap();
        for offset in 0..len {
            let rotten = disk.fork(0);
            rotten.flip_bit(&path, offset, dice.below(8) as u8).unwrap();
            let what = format!("seed {seed} offset {offset} of {len}");
            if offset < last {
                reported +=
                    usize::from(reported_or_equal(&rotten, twins.last().unwrap(), &what).await);
            } else {
                let (log, recovery) = open(&rotten, small()).await;
                assert_eq!(recovery.torn_bytes, len - last, "{what}");
                // Marks and purges nobody waited for went into the same batch.
                let held = holds(&log, GROUPS).await.unwrap();
                let mut earlier = twins.iter().rev().skip(1).take(12);
                assert!(earlier.any(|twin| held == held_by(twin, GROUPS)), "{what}");
            }
        }
    }
    assert!(reported > 500, "{reported}");
}

/// One open segment: the head, a batch for A, one for B, one for A and B, one more for B.
async fn four_batches() -> SimDisk {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, Options::default()).await;
    append(&log, A, vec![entry(1, 0, 50)]).await.unwrap();
    append(&log, B, vec![entry(1, 0, 50)]).await.unwrap();
    let both = [A, B].map(|group| append(&log, group, vec![entry(1, 1, 50)]));
    futures::future::join_all(both).await;
    log.save_vote(B, vote(3)).await.unwrap();
    log.save_vote(B, vote(4)).await.unwrap();
    drop(log);
    disk.kill();
    disk
}

/// Flips a bit of the `n`th batch (0 is the head), `offset` bytes into it.
async fn hit(disk: &SimDisk, n: usize, offset: u64) {
    let path = files(disk).await.pop().unwrap();
    let bytes = read_all(disk, &path).await.unwrap();
    let starts = bytes.windows(4).enumerate();
    let starts = starts.filter(|(_, window)| window == b"QLB\x02");
    let start = starts.map(|(at, _)| at as u64).nth(n).unwrap();
    disk.flip_bit(&path, start + offset, 3).unwrap();
}

fn victims(recovery: &Recovery) -> Vec<GroupId> {
    recovery.quarantined.iter().map(|q| q.group).collect()
}

#[tokio::test]
async fn damage_is_put_down_to_the_groups_it_concerns() {
    const HEADER: u64 = 20;
    const TABLE: u64 = 64 + 5;
    const SECOND_PAYLOAD: u64 = 64 + 2 * 40 + 50 + 5;
    for (batch, offset, expected) in [
        (0, HEADER, vec![]),
        (1, HEADER, vec![A]),
        (1, TABLE, vec![A]),
        (1, TABLE + 60, vec![A]),
        (2, HEADER, vec![B]),
        (3, HEADER, vec![A, B]),
        (3, TABLE, vec![A, B]),
        (3, SECOND_PAYLOAD, vec![B]),
        (4, HEADER, vec![B]),
    ] {
        let disk = four_batches().await;
        hit(&disk, batch, offset).await;
        let (log, recovery) = open(&disk, Options::default()).await;
        let what = format!("batch {batch} offset {offset}: {recovery:?}");
        assert_eq!(victims(&recovery), expected, "{what}");
        assert_eq!(
            (recovery.damage.len(), recovery.torn_bytes),
            (1, 0),
            "{what}"
        );
        if !expected.contains(&A) {
            let entries = read(&log, A).await.unwrap();
            assert_eq!(entries, [entry(1, 0, 50), entry(1, 1, 50)], "{what}");
        }
    }
}

#[tokio::test]
async fn a_group_whose_only_record_is_lost_is_in_quarantine_though_never_seen() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, Options::default()).await;
    log.save_vote(A, vote(3)).await.unwrap();
    log.save_vote(B, vote(4)).await.unwrap();
    log.save_vote(A, vote(5)).await.unwrap();
    drop(log);
    disk.kill();
    hit(&disk, 2, 20).await;
    let (log, recovery) = open(&disk, Options::default()).await;
    assert!(recovery.unseen_quarantined, "{recovery:?}");
    assert!(log.quarantined(B).is_some());
    assert_eq!(log.quarantined(A), None);
    assert_eq!(log.quarantined(GroupId(2)), None);
    assert!(log.save_vote(B, vote(1)).await.is_err());
}

#[tokio::test]
async fn a_quarantine_lasts_until_the_group_is_removed() {
    let disk = four_batches().await;
    hit(&disk, 2, 64 + 40 + 5).await;
    for _ in 0..3 {
        let (log, recovery) = open(&disk, Options::default()).await;
        assert_eq!(victims(&recovery), [B]);
        let refused = log.save_vote(B, vote(7)).await.unwrap_err();
        assert!(
            refused.to_string().contains("g1 is in quarantine"),
            "{refused}"
        );
        assert!(append(&log, B, vec![entry(1, 2, 5)]).await.is_err());
        assert!(log.truncate_after(B, None).await.is_err());
        assert!(log.purge(B, id(1, 1)).await.is_err());
        assert!(log.save_committed(B, None).await.is_err());
        // Others go on, and make new segments that must still know.
        let next = log.state(A).last.unwrap().index + 1;
        append(&log, A, vec![entry(1, next, 5)]).await.unwrap();
        log.closed().await;
    }
    let (log, _) = open(&disk, Options::default()).await;
    log.remove_group(B).await.unwrap();
    assert_eq!(log.quarantined(B), None);
    append(&log, B, vec![entry(9, 40, 5)]).await.unwrap();
    drop(log);
    disk.crash();
    let (log, recovery) = open(&disk, Options::default()).await;
    assert_eq!(victims(&recovery), []);
    assert_eq!(read(&log, B).await.unwrap(), [entry(9, 40, 5)]);
    assert_eq!(read(&log, A).await.unwrap().len(), 5);
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_puts_its_group_in_quarantine() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, Options::default()).await;
    append(&log, A, vec![entry(1, 0, 50)]).await.unwrap();
    append(&log, B, vec![entry(1, 0, 50)]).await.unwrap();
    log.closed().await;
    drop(log);
    disk.kill();
    hit(&disk, 1, 64 + 40 + 5).await;
    let (log, recovery) = open(&disk, Options::default()).await;
    assert!(recovery.quarantined.is_empty());
    assert_eq!(log.quarantined(A), None);
    assert_eq!(
        read(&log, A).await.unwrap_err().kind(),
        ErrorKind::InvalidData
    );
    let why = log.quarantined(A).expect("it is lost");
    assert!(why.contains("entry 0 of g0"), "{why}");
    assert_eq!(log.state(A), wal::GroupState::default());
    assert!(log.save_vote(A, vote(3)).await.is_err());
    assert!(append(&log, A, vec![entry(1, 1, 5)]).await.is_err());
    assert_eq!(read(&log, B).await.unwrap(), [entry(1, 0, 50)]);
    log.remove_group(A).await.unwrap();
    assert_eq!(log.quarantined(A), None);
    append(&log, A, vec![entry(9, 40, 5)]).await.unwrap();
    drop(log);
    disk.kill();
    let (log, recovery) = open(&disk, Options::default()).await;
    assert!(recovery.quarantined.is_empty());
    assert_eq!(read(&log, A).await.unwrap(), [entry(9, 40, 5)]);
}

#[tokio::test]
async fn damage_to_what_was_purged_is_harmless() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, small()).await;
    // B keeps the first segment, so A's purged entries stay on disk.
    append(&log, B, vec![entry(1, 0, 10)]).await.unwrap();
    append(&log, A, vec![entry(1, 0, 200)]).await.unwrap();
    for index in 1..10 {
        append(&log, A, vec![entry(1, index, 200)]).await.unwrap();
    }
    log.purge(A, id(1, 9)).await.unwrap();
    log.save_vote(A, vote(2)).await.unwrap();
    drop(log);
    disk.kill();
    let path = files(&disk).await.remove(0);
    let len = disk.len(&path).await.unwrap();
    let bytes = read_all(&disk, &path).await.unwrap();
    let needle = b"1/0;1/0;1/0;1/0;";
    let starts = bytes.windows(needle.len()).enumerate();
    let mut starts = starts.filter(|(_, window)| window == needle);
    let at = starts.next_back().unwrap().0;
    disk.flip_bit(&path, at as u64, 0).unwrap();
    // And the trailer, so that the footer cannot hide it.
    disk.flip_bit(&path, len - 1, 0).unwrap();
    let (log, recovery) = open(&disk, small()).await;
    assert_eq!(recovery.damage.len(), 1, "{recovery:?}");
    assert_eq!(victims(&recovery), []);
    assert_eq!(log.state(A).vote, Some(vote(2)));
    assert_eq!(read(&log, B).await.unwrap(), [entry(1, 0, 10)]);
}

#[tokio::test]
async fn a_lost_segment_file_is_noticed_when_its_entries_are_needed() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, small()).await;
    log.save_vote(B, vote(2)).await.unwrap();
    for index in 0..20 {
        append(&log, A, vec![entry(1, index, 100)]).await.unwrap();
    }
    drop(log);
    disk.kill();
    let middle = files(&disk).await.remove(2);
    disk.remove(&middle).await.unwrap();
    let (log, recovery) = open(&disk, small()).await;
    assert_eq!(victims(&recovery), [A]);
    assert_eq!(log.state(B).vote, Some(vote(2)));
}

/// The segment behind it was begun, so its end is not torn: the next opening must not take it for that either.
#[tokio::test]
async fn damage_lasts_though_the_segment_behind_it_was_torn() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, small()).await;
    for index in 0..20 {
        append(&log, A, vec![entry(1, index, 100)]).await.unwrap();
    }
    drop(log);
    disk.kill();
    let mut names = files(&disk).await;
    let (last, before) = (names.pop().unwrap(), names.pop().unwrap());
    let whole = read_all(&disk, &before).await.unwrap();
    for (path, bytes) in [
        (before, whole.slice(..whole.len() - 300)),
        (last, Bytes::from_static(b"QLB")),
    ] {
        disk.remove(&path).await.unwrap();
        let mut file = disk.create(&path).await.unwrap();
        file.append(vec![bytes]).await.unwrap();
    }
    for _ in 0..3 {
        let (log, recovery) = open(&disk, small()).await;
        assert_eq!(victims(&recovery), [A]);
        log.settled().await.unwrap();
        drop(log);
        disk.kill();
    }
}

/// The lost file held a truncation and what was appended then. The entries from before, which
/// would fill the hole seamlessly, must not come back.
#[tokio::test]
async fn a_lost_segment_file_does_not_bring_back_what_it_had_overwritten() {
    let disk = SimDisk::new(1);
    let one_batch = Options {
        segment_bytes: 300,
        ..small()
    };
    let (log, _) = open(&disk, one_batch.clone()).await;
    let first = (0..4).map(|index| entry(1, index, 50)).collect();
    append(&log, A, first).await.unwrap();
    assert_eq!(files(&disk).await.len(), 1);
    log.truncate_after(A, Some(id(1, 0))).await.unwrap();
    let second = (1..4).map(|index| entry(2, index, 50)).collect();
    append(&log, A, second).await.unwrap();
    assert_eq!(files(&disk).await.len(), 2);
    append(&log, A, vec![entry(2, 4, 50)]).await.unwrap();
    log.closed().await;
    disk.kill();
    let lost = files(&disk).await.remove(1);
    disk.remove(&lost).await.unwrap();
    let (_, recovery) = open(&disk, one_batch).await;
    assert_eq!(victims(&recovery), [A]);
}

/// What a crash can leave behind the last batch, besides what the simulated disk makes up.
#[tokio::test]
async fn strange_tails_are_cut() {
    let whole = {
        let disk = four_batches().await;
        let path = files(&disk).await.pop().unwrap();
        read_all(&disk, &path).await.unwrap()
    };
    let old_batch = whole.slice(whole.len() - 104..);
    for (name, tail) in [
        ("zeros", vec![0; 5000]),
        (
            "garbage",
            (0..5000u32).map(|i| ((i * 7919) >> 3) as u8).collect(),
        ),
        ("a header cut short", whole[..40].to_vec()),
        ("magic alone", b"QLB\x02".to_vec()),
        ("an older batch again", old_batch.to_vec()),
        ("the whole segment again", whole.to_vec()),
    ] {
        let disk = SimDisk::new(1);
        let path = Path::new(DIR).join("0000000001.log");
        disk.create_dir_all(Path::new(DIR)).await.unwrap();
        let mut file = disk.create(&path).await.unwrap();
        file.append(vec![whole.clone(), tail.clone().into()])
            .await
            .unwrap();
        drop(file);
        disk.kill();
        let (log, recovery) = open(&disk, Options::default()).await;
        assert_eq!(recovery.torn_bytes, tail.len() as u64, "{name}");
        assert_eq!(victims(&recovery), [], "{name}");
        assert_eq!(log.state(B).vote, Some(vote(4)), "{name}");
        assert_eq!(read(&log, A).await.unwrap().len(), 2, "{name}");
    }
}

#[tokio::test]
async fn a_directory_of_noise_opens_or_refuses_but_never_panics() {
    let dice = SimDice::new(9);
    let (donor, _) = after_script(5, small(), true).await;
    let mut donors = Vec::new();
    for path in files(&donor).await {
        donors.push((path.clone(), read_all(&donor, &path).await.unwrap()));
    }
    for _ in 0..300 {
        let disk = SimDisk::new(dice.roll());
        disk.create_dir_all(Path::new(DIR)).await.unwrap();
        for (path, bytes) in &donors {
            let mut bytes = bytes.to_vec();
            match dice.below(5) {
                0 => bytes.truncate(dice.below(bytes.len() as u64) as usize),
                1 => bytes = (0..dice.below(200)).map(|_| dice.roll() as u8).collect(),
                2 => {
                    for _ in 0..dice.below(20) {
                        let at = dice.below(bytes.len() as u64) as usize;
                        bytes[at] = dice.roll() as u8;
                    }
                }
                3 => continue,
                _ => {}
            }
            let mut file = disk.create(path).await.unwrap();
            file.append(vec![bytes.into()]).await.unwrap();
        }
        if let Ok((log, _)) = try_open(&disk, small()).await {
            for group in (0..GROUPS as u32).map(GroupId) {
                if let Err(e) = read(&log, group).await {
                    assert_eq!(e.kind(), ErrorKind::InvalidData);
                }
            }
            log.remove_group(A).await.unwrap();
            append(&log, A, vec![entry(1, 0, 10)]).await.unwrap();
        }
    }
}
