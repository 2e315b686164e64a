//! What fuzzers may reach, built for them only. `dir` is theirs to write into.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proto::remote::{BucketSpan, Histogram};

use super::block::{Block, Meta};
use super::chunk::{self, Samples};
use super::head::read_chunk;
use super::index::{Reader, Series};
use super::input::{Broken, Input};
use super::log::Records;
use super::{laid_out, native, records};
use crate::blocks::index as written;

/// `meta.json` of a block.
pub fn meta(bytes: &[u8]) {
    if let Ok(meta) = Meta::read(bytes) {
        let _ = meta.is_of_late_samples();
    }
}

/// An index: the symbols, then series by series. What is read of it is written and read again.
pub fn index(dir: &Path, bytes: &[u8]) {
    let mut parts = parts(bytes);
    let symbols = parts.next().unwrap_or_default();
    let series: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
    let Ok(all) = series_of(dir, &laid_out::index(symbols, &series)) else {
        return;
    };
    let all: written::Series = all.into_iter().map(keyed).collect();
    let again = series_of(dir, &written::encode(&all));
    let again = again.expect("what was written can be read");
    assert_eq!(
        again.into_iter().map(keyed).collect::<written::Series>(),
        all
    );
}

fn keyed(series: Series) -> (Vec<(String, String)>, Vec<written::Chunk>) {
    let labels = series.labels.into_iter();
    let chunks = series.chunks.into_iter().map(|chunk| written::Chunk {
        min: chunk.min,
        max: chunk.max,
        place: chunk.place,
    });
    (
        labels.map(|label| (label.name, label.value)).collect(),
        chunks.collect(),
    )
}

fn series_of(dir: &Path, file: &[u8]) -> Result<Vec<Series>, Broken> {
    let mut reader = Reader::open(&put(dir, "index", file))?;
    std::iter::from_fn(|| reader.next().transpose()).collect()
}

/// A chunk: its encoding, its data. Floats in order are written and read again.
pub fn chunk(bytes: &[u8]) {
    let Some((&encoding, data)) = bytes.split_first() else {
        return;
    };
    let mut samples = Samples::default();
    if chunk::decode(encoding % 4, data, &mut samples).is_err() {
        return;
    }
    samples.histograms.iter_mut().for_each(compacted);
    let mut sent = model::Samples::default();
    for sample in &samples.floats {
        let at = model::Timestamp(sample.timestamp);
        if sent.timestamps.last().is_some_and(|last| at <= *last) {
            return;
        }
        sent.push(at, sample.value);
    }
    let mut again = Samples::default();
    for chunk in federation::read::Chunks::new(&sent) {
        chunk::decode(chunk.r#type as u8, &chunk.data, &mut again)
            .expect("what was written can be read");
    }
    let bits = |samples: &Samples| -> Vec<(i64, u64)> {
        let floats = samples.floats.iter();
        floats.map(|s| (s.timestamp, s.value.to_bits())).collect()
    };
    assert_eq!(bits(&again), bits(&samples));
}

/// A block: symbols, tombstones, a file of chunks, which stand there one behind the other as they do here, and
/// then its series.
pub fn block(dir: &Path, bytes: &[u8]) {
    let mut parts = parts(bytes);
    let symbols = parts.next().unwrap_or_default();
    let deleted = parts.next().unwrap_or_default();
    let chunks = self::parts(parts.next().unwrap_or_default());
    let series: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
    std::fs::create_dir_all(dir.join("chunks")).expect("a directory of the fuzzer's");
    put(dir, "index", &laid_out::index(symbols, &series));
    put(dir, "chunks/000001", &laid_out::segment(chunks));
    put(dir, "tombstones", &laid_out::tombstones(deleted));
    let Ok(mut block) = Block::open(dir) else {
        return;
    };
    let mut found = 0;
    while let Ok(Some(_)) = block.next() {
        found += 1;
    }
    assert!(found <= series.len());
}

/// A file of the head's chunks, each with its checksum.
pub fn head(dir: &Path, bytes: &[u8]) {
    let mut file = vec![0; 8];
    for part in parts(bytes) {
        file.extend(part);
        file.extend(crc32c::crc32c(part).to_be_bytes());
    }
    let input = Input::open(&put(dir, "head", &file)).expect("a file of the fuzzer's");
    let mut at = 8;
    while let Ok(Some((mut chunk, next))) = read_chunk(&input, at) {
        assert!(at < next && next <= input.len());
        at = next;
        chunk.samples.histograms.iter_mut().for_each(compacted);
    }
}

/// A file of the log: of each piece its kind, then its data, with checksums. As the last file it says no less.
pub fn log(dir: &Path, bytes: &[u8]) {
    let mut file = Vec::new();
    for part in parts(bytes) {
        let Some((&kind, data)) = part.split_first() else {
            continue;
        };
        file.push(kind);
        file.extend((data.len() as u16).to_be_bytes());
        file.extend(crc32c::crc32c(data).to_be_bytes());
        file.extend(data);
    }
    let path = put(dir, "log", &file);
    let within = records_of(&path, false);
    let last = records_of(&path, true);
    if let Ok(within) = within {
        assert_eq!(last, Ok(within));
    }
}

fn records_of(path: &Path, is_last: bool) -> Result<Vec<(u64, Vec<u8>)>, Broken> {
    let mut records = Records::open(path, is_last)?;
    std::iter::from_fn(|| records.next().transpose()).collect()
}

/// A record of the log.
pub fn record(bytes: &[u8]) {
    if let Ok(records::Record::Histograms(mut all)) = records::decode(bytes) {
        all.iter_mut()
            .for_each(|(_, histogram)| compacted(histogram));
    }
}

/// Without its empty buckets a histogram counts the same.
fn compacted(histogram: &mut Histogram) {
    let before = counted(histogram);
    native::compact(histogram);
    assert_eq!(counted(histogram), before);
}

/// Buckets that count something, by side and place: their counts, those of floats as bits. Empty where spans do not fit.
fn counted(histogram: &Histogram) -> BTreeMap<(bool, i64), u64> {
    let h = histogram;
    let sides = [
        (
            true,
            &h.positive_spans,
            &h.positive_deltas,
            &h.positive_counts,
        ),
        (
            false,
            &h.negative_spans,
            &h.negative_deltas,
            &h.negative_counts,
        ),
    ];
    let mut all = BTreeMap::new();
    for (side, spans, deltas, counts) in sides {
        let described: u64 = spans.iter().map(|span| u64::from(span.length)).sum();
        if described != (deltas.len() + counts.len()) as u64 {
            continue;
        }
        let mut count = 0i64;
        let integers = deltas.iter().map(|delta| {
            count = count.wrapping_add(*delta);
            count as u64
        });
        let floats = counts.iter().map(|count| match *count == 0.0 {
            true => 0,
            false => count.to_bits(),
        });
        let counts = places(spans).zip(integers.chain(floats));
        all.extend(
            counts
                .filter(|(_, count)| *count != 0)
                .map(|(place, count)| ((side, place), count)),
        );
    }
    all
}

fn places(spans: &[BucketSpan]) -> impl Iterator<Item = i64> {
    let mut end = 0;
    spans.iter().flat_map(move |span| {
        let begin = end + i64::from(span.offset);
        end = begin + i64::from(span.length);
        begin..end
    })
}

/// Two bytes of length each, and so many.
fn parts(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (&[low, high], rest) = bytes.split_first_chunk()?;
        let len = usize::from(u16::from_le_bytes([low, high]));
        let (part, behind) = rest.split_at(len.min(rest.len()));
        bytes = behind;
        Some(part)
    })
}

fn put(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).expect("a directory of the fuzzer's");
    path
}
