//! What fuzzers may reach, built for them only.

use std::path::Path;

use bytes::{Bytes, BytesMut};
use model::GroupId;
use model::port::{Dice, Disk};

use crate::batch::{HEADER_BYTES, Kind, Stamp, lay_out, mask};
use crate::record::{Change, RECORD_BYTES, Record};
use crate::recovery::{Recovered, recover};
use crate::segment::{encode_trailer, path_of, scan};
use crate::summary::Summary;

const DIR: &str = "log";
const LOG: u64 = 7;
/// Of one entry: where its bytes lie matters, not what they are.
const PAYLOAD_BYTES_MAX: u32 = 40;
const SEGMENT: u32 = 1;

/// Reads records for as long as they are some; each reads as what it was written from.
pub fn records(mut bytes: &[u8]) {
    while let Some(record) = Record::decode(&mut bytes) {
        let mut written = BytesMut::new();
        record.encode(&mut written);
        assert_eq!(Record::decode(&mut &written[..]), Some(record));
    }
}

/// Cuts a segment into pieces, which stand one behind the other.
pub fn segment(bytes: &[u8]) {
    let pieces = scan(bytes, SEGMENT, 1, 0);
    assert!(pieces.windows(2).all(|pair| pair[0].at < pair[1].at));
}

/// The index of a footer, whose front is that of a head: what was read is read again from what it is written as.
pub fn summary(bytes: &[u8]) {
    let read = |bytes: &[u8]| Summary::decode(bytes, SEGMENT, u64::from(u32::MAX));
    if let Some(summary) = read(bytes) {
        let mut written = BytesMut::new();
        summary.encode(&mut written);
        assert_eq!(read(&written), Some(summary));
    }
}

/// Opens a log of any batches with right checksums, some of them missing or damaged. Opened again it holds the same.
///
/// Of each batch: kind, what happens to it, length of its index, index.
pub async fn recovery(disk: &dyn Disk, dice: &dyn Dice, mut bytes: &[u8]) {
    let mut segments = vec![Vec::new()];
    let (mut lsn, mut groups_before) = (0, 0);
    while let Some((&[kind, fate, low, high], rest)) = bytes.split_first_chunk() {
        let len = usize::from(u16::from_le_bytes([low, high]));
        let (index, behind) = rest.split_at(len.min(rest.len()));
        bytes = behind;
        lsn += 1;
        if fate & 1 != 0 {
            segments.push(Vec::new());
        }
        let Some(segment) = segments.last_mut() else {
            return;
        };
        let kind = [Kind::Data, Kind::Head, Kind::Footer][usize::from(kind % 3)];
        let (index, payloads, groups) = match kind {
            Kind::Data => data(index),
            Kind::Head => (index.to_vec(), Vec::new(), 0),
            Kind::Footer => {
                let trailer = encode_trailer(segment.len() as u64);
                (index.to_vec(), vec![trailer], 0)
            }
        };
        let stamp = Stamp {
            kind,
            log: LOG,
            lsn,
            groups,
            groups_before,
            fill_at: (fate & 2 != 0).then_some(segment.len() as u64),
        };
        groups_before = groups;
        let begin = segment.len();
        if fate & 4 == 0 {
            let pieces = lay_out(&stamp, &index, payloads).0;
            pieces
                .iter()
                .for_each(|piece| segment.extend_from_slice(piece));
        }
        if fate & 8 != 0 {
            let place = begin + usize::from(fate >> 4) * HEADER_BYTES / 4;
            segment
                .get_mut(place)
                .into_iter()
                .for_each(|byte| *byte ^= 1);
        }
    }
    put(disk, segments).await;
    let Ok(first) = recover(disk, dice, Path::new(DIR)).await else {
        return;
    };
    let told = held(&first);
    if let Some(rewrite) = first.rewrite {
        rewrite.run(disk).await.expect("a disk that works");
    }
    let second = recover(disk, dice, Path::new(DIR)).await;
    let second = second.expect("what was opened opens again");
    assert_eq!(held(&second), told);
    assert_eq!(second.report.torn_bytes, 0);
}

/// Records with their payloads, which are zeros, and the groups' bits.
fn data(mut index: &[u8]) -> (Vec<u8>, Vec<Bytes>, u64) {
    let (mut written, mut payloads, mut groups) = (BytesMut::new(), Vec::new(), 0);
    while let Some(mut record) = Record::decode(&mut index) {
        if let Change::Append { len, crc, .. } = &mut record.change {
            *len %= PAYLOAD_BYTES_MAX;
            let payload = Bytes::from(vec![0; *len as usize]);
            *crc = crc32c::crc32c(&payload);
            payloads.push(payload);
        }
        groups |= mask(record.group);
        record.encode(&mut written);
    }
    debug_assert!(written.len().is_multiple_of(RECORD_BYTES));
    (written.to_vec(), payloads, groups)
}

async fn put(disk: &dyn Disk, segments: Vec<Vec<u8>>) {
    let dir = Path::new(DIR);
    disk.create_dir_all(dir).await.expect("a disk that works");
    for (number, bytes) in (1..).zip(segments) {
        let file = disk.create(&path_of(dir, number)).await;
        let mut file = file.expect("a disk that works");
        let appended = file.append(vec![bytes.into()]).await;
        appended.expect("a disk that works");
    }
}

/// What a log holds, as text.
fn held(recovered: &Recovered) -> String {
    let damaged = recovered.states.groups.iter();
    let damaged: Vec<GroupId> = damaged
        .filter(|(_, state)| state.damaged.is_some())
        .map(|(group, _)| *group)
        .collect();
    let whole = recovered.states.groups.iter();
    let whole: Vec<_> = whole.filter(|(_, state)| state.damaged.is_none()).collect();
    format!(
        "{:?} {damaged:?} {whole:?} {:?}",
        recovered.states.lost, recovered.runs
    )
}
