//! What fuzzers may reach, built for them only.

use std::path::Path;
use std::sync::Arc;

use model::Timestamp;
use model::port::Disk;

use crate::block::fuzzed::{Words, lay_out};
use crate::block::{Reader, Tables};
use crate::fields::put_u32;
use crate::file::{FileEntry, FileKind};
use crate::manifest::{MAGIC, Manifest};

/// A manifest with the right magic and checksum is read again from what it is written as.
pub fn manifest(body: &[u8]) {
    let mut file = [&MAGIC[..], body].concat();
    let sum = crc32c::crc32c(&file);
    put_u32(&mut file, sum);
    let Ok(manifest) = Manifest::decode(&file) else {
        return;
    };
    for entry in &manifest.files {
        if let Some(kind) = entry.kind() {
            assert_eq!(FileKind::of_name(&entry.name), Some(kind));
            assert!(!entry.name.contains('/'));
        }
    }
    let written = manifest.encode();
    assert!(written.len() <= file.len());
    assert_eq!(Manifest::decode(&written), Ok(manifest));
}

/// A block's file whose footer and checksums fit the rest: opened, and read as far as it can be.
///
/// Version, length of the directory, directory, what stands in front of it.
pub async fn block(disk: Arc<dyn Disk>, bytes: &[u8]) {
    let Some((&[version, low, high], rest)) = bytes.split_first_chunk() else {
        return;
    };
    let len = usize::from(u16::from_le_bytes([low, high]));
    let (directory, data) = rest.split_at(len.min(rest.len()));
    let Some(bytes) = lay_out(Words {
        version,
        directory,
        data,
    }) else {
        return;
    };
    let sum = crc32c::crc32c(&bytes);
    let entry = FileEntry::of_block(7, bytes.len() as u64, sum);
    let file = disk.create(Path::new(&entry.name)).await;
    let mut file = file.expect("a disk that works");
    let appended = file.append(vec![bytes.into()]).await;
    appended.expect("a disk that works");
    let tables = Arc::new(Tables::default());
    let Ok(reader) = Reader::open(disk, Path::new(""), entry, &tables).await else {
        return;
    };
    for nth in 0..reader.tables() {
        let Ok(table) = reader.table(nth).await else {
            continue;
        };
        for chunk in table.all() {
            let meta = reader.meta();
            assert!(meta.min <= chunk.min && chunk.max <= meta.max);
            if let Ok(column) = reader.read(chunk).await {
                let times = column.floats.iter().map(|point| point.at);
                let times: Vec<Timestamp> = times.collect();
                assert!(times.iter().all(|at| chunk.min <= *at && *at <= chunk.max));
            }
        }
    }
}
