//! Files and commands of earlier versions: a disk of before opens and goes on.
//!
//! `fixtures/version-1` is a shard's directory and the commands behind it, written by the last
//! program that knew only version 1 of blocks, `fixtures/version-3` what the last program that wrote version 3 made of
//! those commands and of two more, `fixtures/version-4` what the last one that wrote version 4 made of all of them,
//! and a block of two stretches beside.

mod support;

use std::path::Path;
use std::sync::Arc;

use model::port::Disk;
use model::{Labels, Timestamp};
use support::before::{Before, VERSION_1, VERSION_3, VERSION_4, commands, fixture};
use support::blocks::{answers, series};
use support::replica::{Replica, run, world};
use tsdb::FileEntry;
use tsdb::block::{IndexCheck, Reader, Writer};
use tsdb::chunk::Point;
use tsdb::part::Column;

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
        let old = before.open().await;
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
            let sought: Vec<&Labels> = all.iter().rev().map(|(_, labels)| labels).collect();
            let sought = [&[&other, sought[0]], &sought[..]].concat();
            for reader in [&old, &new] {
                let mut found = reader.find_all(&sought).await.unwrap();
                found.sort_by_key(|(id, _)| *id);
                let found = found.into_iter().map(|(id, labels)| (id, labels.clone()));
                assert!(found.eq(all.iter().cloned()));
            }
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
