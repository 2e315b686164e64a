//! Files and commands of earlier versions: a disk of before opens and goes on.
//!
//! `fixtures/version-1` is a shard's directory and the commands behind it, written by the last
//! program that knew only version 1.

mod support;

use std::path::Path;

use support::replica::{DIR, Replica, run, world};
use tsdb::Command;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/version-1");
/// What that program said of the shard.
const DIGEST: u64 = 0xb774_ba4e_499a_4aed;

#[allow(clippy::disallowed_methods, reason = "a test reads its fixtures")]
fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(FIXTURES).join(name)).expect("a fixture")
}

const FILES: [&str; 4] = [
    "block-00000000000000000002-6a0669df",
    "block-00000000000000000006-4057d550",
    "checkpoint-00000000000000000007-b2b1a90e",
    "manifest",
];

fn commands() -> Vec<Command> {
    let bytes = (1..=7).map(|n| fixture(&format!("command-{n}")));
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
    run(async {
        let disk = sim_world::SimDisk::new(1);
        let own = world(&disk).disk;
        own.create_dir_all(Path::new(DIR)).await.unwrap();
        for name in FILES {
            let mut file = own.create(&Path::new(DIR).join(name)).await.unwrap();
            file.append(vec![fixture(name).into()]).await.unwrap();
            file.flush().await.unwrap();
        }
        own.flush_dir(Path::new(DIR)).await.unwrap();
        own.flush_dir(Path::new("")).await.unwrap();
        let old = Replica::on(disk).await.expect("opens");
        old.shard.verify().await.expect("verifies");
        assert_eq!(old.shard.digest(), DIGEST);

        let mut new = Replica::new(2).await;
        new.catch_up(&commands()).await.unwrap();
        assert_eq!(
            new.shard.digest(),
            DIGEST,
            "version 1's commands mean what they meant"
        );
        assert_eq!(old.everything().await, new.everything().await);

        // What is written now lies beside the old blocks.
        old.shard.advance(8);
        old.shard
            .checkpoint(support::replica::opaque)
            .await
            .unwrap();
        let expected = old.everything().await;
        assert_eq!(old.shard.files().await.len(), 3);
        old.disk.crash();
        let again = Replica::on(old.disk).await.expect("opens again");
        assert_eq!(again.everything().await, expected);
        assert_eq!(again.shard.digest(), DIGEST);
    });
}
