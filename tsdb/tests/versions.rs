//! Files and commands of earlier versions: a disk of before opens and goes on.
//!
//! `fixtures/version-1` is a shard's directory and the commands behind it, written by the last
//! program that knew only version 1 of blocks, `fixtures/version-3` what the last program that wrote version 3 made of
//! those commands and of two more, `fixtures/version-4` what the last one that wrote version 4 made of all of them,
//! and a block of two stretches beside.

mod support;

use std::path::Path;
use std::sync::Arc;

use model::Timestamp;
use model::port::Disk;
use support::blocks::{answers, series};
use support::replica::{DIR, Replica, run, world};
use tsdb::block::{IndexCheck, Reader, Writer};
use tsdb::chunk::Point;
use tsdb::part::Column;
use tsdb::{Command, FileEntry};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

#[allow(clippy::disallowed_methods, reason = "a test reads its fixtures")]
fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(FIXTURES).join(name)).expect("a fixture")
}

/// What a program left.
struct Before {
    dir: &'static str,
    files: &'static [&'static str],
    /// What that program said of the shard.
    digest: u64,
    /// How many commands there are behind it.
    applied: u64,
}

const VERSION_1: Before = Before {
    dir: "version-1",
    files: &[
        "block-00000000000000000002-6a0669df",
        "block-00000000000000000006-4057d550",
        "checkpoint-00000000000000000007-b2b1a90e",
        "manifest",
    ],
    digest: 0xb774_ba4e_499a_4aed,
    applied: 7,
};

const VERSION_3: Before = Before {
    dir: "version-3",
    files: &[
        "block-00000000000000000002-4dd8c1cc",
        "block-00000000000000000006-c1df4bad",
        "block-00000000000000000009-5635eb02",
        "checkpoint-00000000000000000009-84b97233",
        "manifest",
    ],
    digest: 0x0b52_6979_7227_8212,
    applied: 9,
};

const VERSION_4: Before = Before {
    dir: "version-4",
    files: &[
        "block-00000000000000000002-1b1cead3",
        "block-00000000000000000006-fd3362d5",
        "block-00000000000000000009-84ad679a",
        "checkpoint-00000000000000000009-0ce800e9",
        "manifest",
    ],
    digest: 0x0b52_6979_7227_8212,
    applied: 9,
};

fn commands(applied: u64) -> Vec<Command> {
    let bytes = (1..=applied).map(|n| match n {
        1..=7 => fixture(&format!("version-1/command-{n}")),
        _ => fixture(&format!("version-3/command-{n}")),
    });
    bytes
        .map(|bytes| {
            let command = Command::decode(bytes.clone().into()).expect("decodes");
            let again = command.encode();
            // A write is always written as the newest version; it says the same.
            match command {
                Command::Write(_) => {
                    let read = Command::decode(again).expect("decodes");
                    assert_eq!(format!("{read:?}"), format!("{command:?}"));
                }
                _ => assert_eq!(again, bytes, "what version 1 can say stays version 1"),
            }
            command
        })
        .collect()
}

#[test]
fn a_directory_of_version_1_opens_and_goes_on() {
    goes_on(&VERSION_1);
}

#[test]
fn a_directory_of_version_3_opens_and_goes_on() {
    goes_on(&VERSION_3);
}

#[test]
fn a_directory_of_version_4_opens_and_goes_on() {
    goes_on(&VERSION_4);
}

fn goes_on(before: &Before) {
    run(async {
        let disk = sim_world::SimDisk::new(1);
        let own = world(&disk).disk;
        own.create_dir_all(Path::new(DIR)).await.unwrap();
        for name in before.files {
            let mut file = own.create(&Path::new(DIR).join(name)).await.unwrap();
            let bytes = fixture(&format!("{}/{name}", before.dir));
            file.append(vec![bytes.into()]).await.unwrap();
            file.flush().await.unwrap();
        }
        own.flush_dir(Path::new(DIR)).await.unwrap();
        own.flush_dir(Path::new("")).await.unwrap();
        let old = Replica::on(disk).await.expect("opens");
        old.shard.verify().await.expect("verifies");
        assert_eq!(old.shard.digest(), before.digest);

        let mut new = Replica::new(2).await;
        new.catch_up(&commands(before.applied)).await.unwrap();
        assert_eq!(
            new.shard.digest(),
            before.digest,
            "commands of before mean what they meant"
        );
        assert_eq!(old.everything().await, new.everything().await);

        // What is written now lies beside the old blocks.
        old.shard.advance(before.applied + 1);
        old.shard
            .checkpoint(support::replica::opaque)
            .await
            .unwrap();
        let expected = old.everything().await;
        assert_eq!(old.shard.files().await.len(), before.files.len() - 1);
        old.disk.crash();
        let again = Replica::on(old.disk).await.expect("opens again");
        assert_eq!(again.everything().await, expected);
        assert_eq!(again.shard.digest(), before.digest);
    });
}

/// A file of more than one stretch.
const ALONE: &str = "version-4/block-00000000000000000077-b631c533";

#[test]
fn a_block_without_an_index_answers_as_one_that_has_it() {
    run(async {
        let mut blocks = vec![ALONE.to_owned()];
        for before in [&VERSION_1, &VERSION_3, &VERSION_4] {
            let names = before.files.iter().filter(|n| n.starts_with("block"));
            blocks.extend(names.map(|name| format!("{}/{name}", before.dir)));
        }
        assert_eq!(blocks.len(), 9);
        let sim = sim_world::SimDisk::new(1);
        let disk: Arc<dyn Disk> = world(&sim).disk;
        for (block, number) in blocks.iter().zip(0..) {
            let (path, dir) = (Path::new(block), format!("dir-{number}"));
            let dir = Path::new(&dir);
            disk.create_dir_all(dir).await.unwrap();
            let bytes = fixture(block);
            let entry = FileEntry {
                name: path.file_name().unwrap().to_str().unwrap().to_owned(),
                len: bytes.len() as u64,
                crc32c: crc32c::crc32c(&bytes),
            };
            let mut file = disk.create(&dir.join(&entry.name)).await.unwrap();
            file.append(vec![bytes.into()]).await.unwrap();
            let open = async |entry| Reader::open(disk.clone(), dir, entry, &Arc::default()).await;
            let old = open(entry).await.unwrap();
            let all = series(&old).await.unwrap();
            assert!(!all.is_empty());

            let mut writer = Writer::create(&*disk, dir, 1).await.unwrap();
            for (id, labels) in &all {
                let floats = vec![Point::new(Timestamp(1), 1.0)];
                let histograms = Vec::new();
                let column = Column { floats, histograms };
                writer.add(*id, labels.clone(), &column).await.unwrap();
            }
            let new = open(writer.finish().await.unwrap().0).await.unwrap();
            let other = all[0].1.to_builder().set("other", "x").build();
            assert!(old.may_have(&other) && !new.may_have(&other));
            let answers_of = async |reader: &Reader| -> Vec<String> {
                let answers = answers(reader, &all).await.into_iter();
                answers.map(|answer| answer.unwrap()).collect()
            };
            let (before, now) = (answers_of(&old).await, answers_of(&new).await);
            assert_eq!(before.len(), now.len());
            for (before, now) in before.into_iter().zip(now) {
                assert_eq!(now, before);
            }
            assert!(!old.may_have(&other), "known once all were read");
            assert!(all.iter().all(|(_, labels)| old.may_have(labels)));
            for reader in [&old, &new] {
                let mut check = IndexCheck::new(reader);
                let labels: Vec<_> = all.iter().map(|(_, labels)| labels.clone()).collect();
                for some in labels.chunks(1024) {
                    check.add(some).await.unwrap();
                }
            }
        }
    });
}
