//! A block whose bytes are under right checksums and whose index does not say what its labels say, as a program with a
//! fault would write it: the shard that has it finds it.

mod support;

use std::path::Path;

use model::port::read_all;
use model::{Labels, SeriesId, Timestamp};
use support::replica::{DIR, Replica, run, world};
use tsdb::block::{Root, Writer};
use tsdb::checkpoint;
use tsdb::chunk::Point;
use tsdb::file::FileKind;
use tsdb::manifest::Manifest;
use tsdb::part::Column;
use tsdb::scrub::Check;
use tsdb::{Command, FileEntry, SealCommand, SeriesRef, StorageError, WriteCommand};

/// Of two tables.
const SERIES: u64 = 1_100;
const AT: Timestamp = Timestamp(1_000);

fn labels(n: u64) -> Labels {
    let (name, pod) = (format!("m{}", n % 7), format!("pod-{n}"));
    Labels::from_pairs([("__name__", &*name), ("pod", &pod)])
}

/// A block's file and what it ends with.
struct Block {
    entry: FileEntry,
    bytes: Vec<u8>,
    root: Root,
}

/// What a shard would write of the series if these were their labels.
async fn block(id: u64, labels: impl Fn(u64) -> Labels) -> Block {
    let disk = world(&sim_world::SimDisk::new(7)).disk;
    let dir = Path::new("alone");
    disk.create_dir_all(dir).await.unwrap();
    let mut writer = Writer::create(&*disk, dir, id).await.unwrap();
    for n in 0..SERIES {
        let column = Column {
            floats: vec![Point::new(AT, n as f64)],
            ..Column::default()
        };
        let added = writer.add(SeriesId(n), labels(n), &column).await;
        added.unwrap();
    }
    let (entry, _, root) = writer.finish().await.unwrap();
    let bytes = read_all(&*disk, &dir.join(&entry.name)).await.unwrap();
    Block {
        bytes: bytes.to_vec(),
        entry,
        root,
    }
}

const FOOTER_BYTES: usize = 88;
const ROOT_FIELDS_BYTES: usize = 28;

impl Block {
    fn ends(&self) -> (usize, usize) {
        let last = self.root.stretches.last().expect("not empty");
        let labels = last.labels.section;
        let footer = &self.bytes[self.bytes.len() - FOOTER_BYTES..];
        let root = u64::from_le_bytes(footer[..8].try_into().unwrap());
        (labels.offset as usize + labels.len as usize, root as usize)
    }

    /// What stands before the index.
    fn series(&self) -> &[u8] {
        &self.bytes[..self.ends().0]
    }

    fn index(&self) -> &[u8] {
        let (from, to) = self.ends();
        &self.bytes[from..to]
    }

    /// The same samples and labels with another index and root, under checksums of their own.
    fn with(&self, index: &[u8], root: &Root) -> (FileEntry, Vec<u8>) {
        let mut bytes = [self.series(), index].concat();
        let raw = root.encode();
        let packed = zstd::bulk::compress(&raw, 9).unwrap();
        let offset = bytes.len();
        bytes.extend_from_slice(&packed);
        let old = &self.bytes[self.bytes.len() - FOOTER_BYTES..];
        let words = [offset, packed.len(), raw.len()].map(|word| (word as u64).to_le_bytes());
        let checksum = crc32c::crc32c(&packed).to_le_bytes();
        let mut footer = [&words.concat(), &checksum[..], &old[ROOT_FIELDS_BYTES..]].concat();
        let end = FOOTER_BYTES - 12;
        let checksum = crc32c::crc32c(&footer[..end]).to_le_bytes();
        footer[end..end + 4].copy_from_slice(&checksum);
        bytes.extend_from_slice(&footer);
        let checksum = crc32c::crc32c(&bytes);
        let entry = FileEntry::of_block(id_of(&self.entry), bytes.len() as u64, checksum);
        (entry, bytes)
    }
}

fn id_of(block: &FileEntry) -> u64 {
    match block.kind() {
        Some(FileKind::Block(id)) => id,
        other => panic!("{other:?}"),
    }
}

/// A shard of one block, with a file.
async fn replica() -> Replica {
    let mut write = WriteCommand {
        proposed_at: AT,
        ..WriteCommand::default()
    };
    for n in 0..SERIES {
        write.labels.push(labels(n));
        write.rows.push(SeriesRef::New(n as u32), AT, n as f64);
    }
    let before = Timestamp(AT.0 + 1);
    let log = [Command::Write(write), Command::Seal(SealCommand { before })];
    let mut replica = Replica::new(1).await;
    replica.catch_up(&log).await.unwrap();
    replica.checkpoint().await.unwrap();
    replica
}

/// The shard opened again with another file in the place of its block's.
async fn opened_with(before: &Replica, (entry, bytes): &(FileEntry, Vec<u8>)) -> Replica {
    let fork = before.disk.fork(0);
    let (disk, dir) = (world(&fork).disk, Path::new(DIR));
    let mut manifest = Manifest::read(&*disk, dir).await.unwrap().unwrap();
    let mut image = None;
    for old in std::mem::take(&mut manifest.files) {
        let path = dir.join(&old.name);
        if let Some(FileKind::Checkpoint(_)) = old.kind() {
            let bytes = read_all(&*disk, &path).await.unwrap();
            image = Some(checkpoint::decode(&bytes).expect("whole").0);
        }
        disk.remove(&path).await.unwrap();
    }
    let image = image.expect("a checkpoint");
    let blocks = std::slice::from_ref(entry);
    let written = checkpoint::write(&*disk, dir, &image, blocks).await;
    manifest.files = vec![entry.clone(), written.unwrap()];
    let mut file = disk.create(&dir.join(&entry.name)).await.unwrap();
    file.append(vec![bytes.clone().into()]).await.unwrap();
    file.flush().await.unwrap();
    manifest.write(&*disk, dir).await.unwrap();
    Replica::on(fork).await.expect("opens")
}

#[test]
fn an_index_of_other_labels_is_found_and_named() {
    run(async {
        let whole = replica().await;
        let files = whole.shard.files().await;
        let is_block = |entry: &&FileEntry| entry.name.starts_with("block");
        let written = files.iter().find(is_block).expect("a block").clone();
        let id = id_of(&written);
        let own = block(id, labels).await;
        assert_eq!(own.entry, written, "as the shard writes it");
        // A series that it does not have, one of those that it has under another's place.
        let renamed = block(id, |n| match n {
            1_030 => labels(SERIES),
            n => labels(n),
        });
        let swapped = block(id, |n| match n {
            3 => labels(1_030),
            1_030 => labels(3),
            n => labels(n),
        });
        let (renamed, swapped) = (renamed.await, swapped.await);
        let (same, filter) = (own.root.clone(), |of: &Block| {
            of.root.index.clone().expect("it has one").filter
        });
        assert_eq!(filter(&swapped), filter(&own));
        let mut other_filter = own.root.clone();
        let index = other_filter.index.as_mut().expect("it has one");
        index.filter = filter(&renamed);
        let mut other_index = own.root.clone();
        other_index.index.clone_from(&swapped.root.index);
        let mut both = own.root.clone();
        both.index.clone_from(&renamed.root.index);

        let told = own.with(own.index(), &same);
        assert_eq!(told, (own.entry.clone(), own.bytes.clone()));
        opened_with(&whole, &told)
            .await
            .shard
            .verify()
            .await
            .unwrap();
        for (index, root) in [
            (own.index(), &other_filter),
            (swapped.index(), &other_index),
            (renamed.index(), &both),
        ] {
            let forged = own.with(index, root);
            let replica = opened_with(&whole, &forged).await;
            let mut check = Check::of(forged.0.clone());
            while !replica.shard.check_piece(&mut check).await.expect("whole") {}
            assert_eq!(replica.everything().await, whole.everything().await);
            assert!(replica.shard.take_suspects().is_empty());
            let Err(StorageError::Corrupt { file, section, .. }) = replica.shard.verify().await
            else {
                panic!("it is not found");
            };
            assert_eq!((&*file, section), (&*forged.0.name, "index"));
            assert_eq!(replica.shard.take_suspects(), [file]);
        }
    });
}
