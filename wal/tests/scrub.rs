//! Sealed segments read again: whole ones are whole, and one flipped bit anywhere is found.

mod rig;

use std::path::Path;

use model::GroupId;
use model::port::{Disk, read_all, replace};
use rig::{append, entry, files, open, small};
use sim_world::SimDisk;
use wal::{Check, Checked, SegmentedLog};

async fn run(log: &SegmentedLog, mut check: Check) -> Checked {
    loop {
        match log.check_piece(&mut check).await.unwrap() {
            Checked::More => {}
            checked => return checked,
        }
    }
}

async fn filled(disk: &SimDisk) -> std::sync::Arc<SegmentedLog> {
    let (log, _) = open(disk, small()).await;
    for index in 1..40 {
        let group = GroupId(1 + index % 3);
        let entries = vec![entry(1, index.div_ceil(3).into(), 60)];
        append(&log, group, entries).await.unwrap();
    }
    log
}

#[tokio::test]
async fn every_flipped_bit_of_a_sealed_segment_is_found() {
    let disk = SimDisk::new(1);
    let log = filled(&disk).await;
    let sealed = log.sealed().await.unwrap();
    assert!(sealed.len() > 2, "{sealed:?}");
    assert_eq!(sealed.len() + 1, files(&disk).await.len());
    for check in &sealed {
        assert_eq!(run(&log, check.clone()).await, Checked::Whole);
    }
    let mut paths = files(&disk).await;
    paths.sort();
    let path: &Path = &paths[1];
    let whole = read_all(&disk, path).await.unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 1 << (at % 8);
        replace(&disk, path, bytes.into()).await.unwrap();
        let found = run(&log, sealed[1].clone()).await;
        assert!(matches!(found, Checked::Damaged(_)), "byte {at}: {found:?}");
    }
    replace(&disk, path, whole).await.unwrap();
    assert_eq!(run(&log, sealed[1].clone()).await, Checked::Whole);
    disk.remove(path).await.unwrap();
    assert_eq!(run(&log, sealed[1].clone()).await, Checked::Gone);
}
