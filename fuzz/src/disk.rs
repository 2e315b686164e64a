//! What stands in files. Where a checksum guards it, the checksum is put right, as a disk that lies would not.

use std::sync::Arc;

use bytes::Bytes;
use cluster::fuzzed;
use model::Timestamp;
use tsdb::Command;
use tsdb::block::Page;
use tsdb::chunk::{Appender, Chunk, Coding};
use tsdb::column::{ints, times, values};
use tsdb::state::State;

use crate::files::{Files, Loaded};
use crate::in_turn;
use crate::memory::bounded;

/// As many as a page has room for.
const SAMPLES_MAX: usize = 1 << 16;

fn split(bytes: &[u8]) -> Option<(u8, usize, &[u8])> {
    let (&[kind, low, high], rest) = bytes.split_first_chunk()?;
    Some((kind, usize::from(u16::from_le_bytes([low, high])), rest))
}

pub fn chunk(bytes: &[u8]) {
    let Some((kind, count, rest)) = split(bytes) else {
        return;
    };
    let Some((&[a, b, c, d, e, f, g, h], data)) = rest.split_first_chunk() else {
        return;
    };
    let coding = if kind & 1 == 0 {
        Coding::Decimal
    } else {
        Coding::Xor
    };
    let min = i64::from(i32::from_le_bytes([a, b, c, d]));
    let chunk = Chunk {
        min: Timestamp(min),
        max: Timestamp(min + i64::from(u32::from_le_bytes([e, f, g, h]))),
        count: count as u16,
        coding,
        data: Bytes::copy_from_slice(data),
    };
    let (points, appender) = (chunk.decode(), Appender::resume(&chunk));
    assert_eq!(points.is_ok(), appender.is_ok());
    let (Ok(points), Ok(appender)) = (points, appender) else {
        return;
    };
    assert_eq!(appender.chunk().points(), points);
}

pub fn column(bytes: &[u8]) {
    let Some((kind, count, data)) = split(bytes) else {
        return;
    };
    let mut again = Vec::new();
    match kind % 3 {
        0 => {
            if let Ok(numbers) = ints::decode(data, count) {
                ints::encode(&numbers, &mut again);
                assert_eq!(ints::decode(&again, count), Ok(numbers));
            }
        }
        1 => {
            if let Ok(at) = times::decode(data, count) {
                assert_eq!(at.len(), count);
            }
        }
        _ => {
            if let Ok(bits) = values::decode(data, count) {
                values::encode(&bits, &mut again);
                assert_eq!(values::decode(&again, count), Ok(bits));
            }
        }
    }
}

pub fn page(bytes: &[u8]) {
    let Ok(page) = Page::open(Bytes::copy_from_slice(bytes)) else {
        return;
    };
    for slot in 0..page.columns() as u16 {
        if let Ok(points) = page.points(slot) {
            assert!(points.len() <= SAMPLES_MAX);
        }
        let _ = page.values(slot);
        let _ = Page::values_together([(&page, 0), (&page, slot)]);
        let _ = page.coded_column(slot);
    }
}

pub fn directory(bytes: &[u8]) {
    let Some((&version, raw)) = bytes.split_first() else {
        return;
    };
    let from = u64::from(version);
    let _ = tsdb::block::decode_directory(raw, version % 4, from);
    let _ = tsdb::block::Root::decode(raw, 4 + version % 2, from, from + raw.len() as u64);
    let series = usize::from(version);
    let _ = tsdb::block::decode_table(raw, series, from, from + raw.len() as u64);
    let _ = tsdb::block::decode_labels(raw, series);
}

pub fn index(bytes: &[u8]) {
    let Some((&series, raw)) = bytes.split_first() else {
        return;
    };
    let Ok(page) = tsdb::block::IndexPage::decode(raw, u32::from(series) * 256) else {
        return;
    };
    assert!(page.first().is_some());
    for (name, values) in page.names() {
        let mut places = Vec::new();
        for value in values {
            assert_eq!(page.find(name, page.value(value)), Some(value));
            let _ = page.add_places(value, &mut places);
            let _ = page.retain(value, &mut (0..series.into()).collect());
            let _ = page.weight(value);
        }
        assert!(places.len() <= usize::from(series) * 256);
    }
}

pub fn histograms(bytes: &[u8]) {
    let Some((_, count, data)) = split(bytes) else {
        return;
    };
    let Ok(points) = tsdb::histogram::decode(data, count as u16) else {
        return;
    };
    for point in points {
        if let Ok(histogram) = point.decode() {
            let again = tsdb::histogram::HistogramPoint::of(point.at, &histogram);
            assert_eq!(
                again.decode().as_ref().map_err(ToString::to_string),
                Ok(&histogram)
            );
        }
    }
}

/// The sections of a checkpoint: of each its kind, its length in two bytes, its records.
pub fn checkpoint(bytes: &[u8]) {
    let Some((&version, mut rest)) = bytes.split_first() else {
        return;
    };
    let version = 1 + version % 4;
    let mut file = [&tsdb::checkpoint::MAGIC[..], &[version, b'\n']].concat();
    while let Some((kind, len, behind)) = split(rest) {
        let (records, behind) = behind.split_at(len.min(behind.len()));
        rest = behind;
        let mut payload = Vec::new();
        if version > 2 && !records.is_empty() {
            tsdb::fields::put_varint(&mut payload, records.len() as u64);
            payload.extend(zstd::bulk::compress(records, 1).expect("memory takes it"));
        } else {
            payload.extend(records);
        }
        let begin = file.len();
        file.push(kind % 32);
        file.extend((payload.len() as u64).to_le_bytes());
        let sum = crc32c::crc32c_append(crc32c::crc32c(&file[begin..]), &payload);
        file.extend(sum.to_le_bytes());
        file.extend(payload);
    }
    if let Ok((image, _)) = tsdb::checkpoint::decode(&file) {
        let _ = State::restore(image, Vec::new()).map(|state| state.digest());
    }
}

pub fn command(bytes: &[u8]) {
    let Ok(command) = Command::decode(Bytes::copy_from_slice(bytes)) else {
        return;
    };
    let again = command.encode();
    let read = Command::decode(again.clone()).expect("what was written can be read");
    assert_eq!(read.encode(), again);
}

pub fn records(bytes: &[u8]) {
    wal::fuzzed::records(bytes);
}

pub fn segment(bytes: &[u8]) {
    wal::fuzzed::segment(bytes);
}

pub fn summary(bytes: &[u8]) {
    bounded(bytes, 64, wal::fuzzed::summary);
}

pub fn recovery(bytes: &[u8]) {
    in_turn(wal::fuzzed::recovery(&Files::default(), &Loaded, bytes));
}

pub fn manifest(bytes: &[u8]) {
    bounded(bytes, 64, tsdb::fuzzed::manifest);
}

pub fn block(bytes: &[u8]) {
    in_turn(tsdb::fuzzed::block(Arc::new(Files::default()), bytes));
}

pub fn identity(bytes: &[u8]) {
    bounded(bytes, 256, fuzzed::identity);
}

pub fn mark(bytes: &[u8]) {
    bounded(bytes, 1024, fuzzed::mark);
}

pub fn payload(bytes: &[u8]) {
    bounded(bytes, 1024, fuzzed::payload);
}

pub fn meta(bytes: &[u8]) {
    bounded(bytes, 1024, fuzzed::meta);
}

pub fn view(bytes: &[u8]) {
    bounded(bytes, 1024, fuzzed::view);
}

pub fn left(bytes: &[u8]) {
    bounded(bytes, 64, fuzzed::left);
}

pub fn active(bytes: &[u8]) {
    bounded(bytes, 256, node::fuzzed::active);
}
