//! What earlier versions of the program left: a disk, and the commands behind it.

use std::path::Path;

use tsdb::Command;

use super::replica::{DIR, Replica, world};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

#[allow(clippy::disallowed_methods, reason = "a test reads its fixtures")]
pub fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(FIXTURES).join(name)).expect("a fixture")
}

/// What a program left.
pub struct Before {
    pub dir: &'static str,
    pub files: &'static [&'static str],
    /// What that program said of the shard.
    pub digest: u64,
    /// How many commands there are behind it.
    pub applied: u64,
}

pub const VERSION_1: Before = Before {
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

pub const VERSION_3: Before = Before {
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

pub const VERSION_4: Before = Before {
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

pub fn commands(applied: u64) -> Vec<Command> {
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

impl Before {
    /// On a disk of its own.
    pub async fn open(&self) -> Replica {
        let disk = sim_world::SimDisk::new(1);
        let own = world(&disk).disk;
        own.create_dir_all(Path::new(DIR)).await.unwrap();
        for name in self.files {
            let mut file = own.create(&Path::new(DIR).join(name)).await.unwrap();
            let bytes = fixture(&format!("{}/{name}", self.dir));
            file.append(vec![bytes.into()]).await.unwrap();
            file.flush().await.unwrap();
        }
        own.flush_dir(Path::new(DIR)).await.unwrap();
        own.flush_dir(Path::new("")).await.unwrap();
        Replica::on(disk).await.expect("opens")
    }
}
