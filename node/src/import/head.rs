//! The head of a Prometheus: what is in no block yet. `wal/` with its checkpoint, `wbl/` (what came
//! late), `chunks_head/` (chunks put on the disk already).
//!
//! What Prometheus itself would find when it starts: a sample of the log that is not behind its
//! series' newest was refused when it came, and one older than the newest block is in a block.
//! The chunks hold nothing that the logs lack; they are read first because they are smaller, and where
//! one is damaged the log tells the rest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use model::hash::Map;
use model::labels::METRIC_NAME;
use proto::remote::metric_metadata::MetricType;
use proto::remote::{Exemplar, Label, MetricMetadata};

use super::block::{check_magic, covers, numbered};
use super::chunk::{self, Samples};
use super::input::{Broken, Cursor, Input};
use super::log::Records;
use super::records::{self, Record};
use super::send::Sender;

const CHUNKS_MAGIC: u32 = 0x0130_BC91;
/// In front of a file's chunks.
const HEADER_BYTES: u64 = 8;
/// Series, first and last instant, encoding.
const CHUNK_HEADER_BYTES: u64 = 8 + 8 + 8 + 1;
const CHUNK_BYTES_MAX: u64 = 16 << 20;
/// Set on the encoding of chunks of late samples.
const LATE: u8 = 0x80;
/// Samples gathered before they are sent.
const GATHERED_MAX: usize = 200_000;

/// Where the parts of a head are; each may be missing.
#[derive(Debug, Default)]
pub struct Places {
    pub wal: Option<PathBuf>,
    pub late: Option<PathBuf>,
    pub chunks: Option<PathBuf>,
}

impl Places {
    /// Those of a data directory.
    pub fn of(dir: &Path) -> Self {
        let there = |name| Some(dir.join(name)).filter(|path| path.is_dir());
        Self {
            wal: there("wal"),
            late: there("wbl"),
            chunks: there("chunks_head"),
        }
    }
}

/// One series of the head.
struct Series {
    labels: Vec<Label>,
    /// The newest sample that came in order.
    last: Option<i64>,
    deleted: Vec<(i64, i64)>,
    gathered: Samples,
    exemplars: Vec<Exemplar>,
    /// What was said last.
    said: Option<MetricMetadata>,
}

/// What is known while the head is read.
struct Head<'s> {
    sender: &'s mut Sender,
    /// Older samples are in blocks.
    oldest: i64,
    /// By what the logs call them; several names may mean one.
    references: Map<u64, usize>,
    series: Vec<Series>,
    gathered: usize,
    /// Samples of series that no record names.
    unknown: u64,
}

/// Sends all that the head holds from `oldest` on.
pub async fn import(places: &Places, oldest: i64, sender: &mut Sender) -> anyhow::Result<()> {
    let mut logs = Vec::new();
    if let Some(dir) = &places.wal {
        logs.extend(log_files(dir)?.into_iter().map(|path| (path, false)));
    }
    if let Some(dir) = &places.late {
        logs.extend(log_files(dir)?.into_iter().map(|path| (path, true)));
    }
    let mut head = Head {
        sender,
        oldest,
        references: Map::default(),
        series: Vec::new(),
        gathered: 0,
        unknown: 0,
    };
    head.name_series(&logs)?;
    if let Some(dir) = &places.chunks {
        head.send_chunks(dir).await?;
    }
    for (place, (path, late)) in logs.iter().enumerate() {
        let is_last = is_last(&logs, place);
        let mut records = Records::open(path, is_last)?;
        while let Some((at, record)) = records.next()? {
            head.take(decoded(path, at, &record)?, *late).await?;
        }
    }
    head.flush().await?;
    head.describe().await?;
    if head.unknown > 0 {
        eprintln!(
            "{} samples of series that the log does not name are left out",
            head.unknown
        );
    }
    Ok(())
}

/// Of its directory: only there a record may be torn.
fn is_last(logs: &[(PathBuf, bool)], place: usize) -> bool {
    let parent = |place: usize| logs.get(place).and_then(|(path, _)| path.parent());
    let in_checkpoint = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("checkpoint.")
    };
    parent(place) != parent(place + 1) && parent(place).is_some_and(|dir| !in_checkpoint(dir))
}

fn decoded(path: &Path, at: u64, record: &[u8]) -> Result<Record, Broken> {
    records::decode(record).map_err(|bad| Broken {
        file: path.to_owned(),
        offset: at,
        what: format!("{} at byte {} of the record", bad.what, bad.at),
    })
}

/// The files of the newest checkpoint, then those of the log behind it.
fn log_files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut newest: Option<(u64, PathBuf)> = None;
    let attempt = || format!("read {}", dir.display());
    for entry in std::fs::read_dir(dir).with_context(attempt)? {
        let entry = entry.with_context(attempt)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let number = name.strip_prefix("checkpoint.").map(str::parse);
        if let Some(Ok(number)) = number {
            newest = newest.max(Some((number, entry.path())));
        }
    }
    let mut files = Vec::new();
    let mut behind = None;
    if let Some((number, checkpoint)) = newest {
        files.extend(numbered(&checkpoint)?.into_iter().map(|(_, path)| path));
        behind = Some(number);
    }
    let mut before: Option<u64> = behind;
    for (number, path) in numbered(dir)? {
        if behind.is_some_and(|behind| number <= behind) {
            continue;
        }
        if before.is_some_and(|before| number != before + 1) {
            anyhow::bail!(
                "{}: the file of the log before it is missing",
                path.display()
            );
        }
        before = Some(number);
        files.push(path);
    }
    Ok(files)
}

impl Head<'_> {
    /// Reads which series there are and what of them is deleted.
    fn name_series(&mut self, logs: &[(PathBuf, bool)]) -> anyhow::Result<()> {
        let mut by_labels: Map<Vec<u8>, usize> = Map::default();
        for (place, (path, _)) in logs.iter().enumerate() {
            let mut records = Records::open(path, is_last(logs, place))?;
            while let Some((at, record)) = records.next()? {
                match decoded(path, at, &record)? {
                    Record::Series(all) => {
                        for (reference, labels) in all {
                            let key = key_of(&labels);
                            let place = *by_labels.entry(key).or_insert_with(|| {
                                self.series.push(Series {
                                    labels,
                                    last: None,
                                    deleted: Vec::new(),
                                    gathered: Samples::default(),
                                    exemplars: Vec::new(),
                                    said: None,
                                });
                                self.series.len() - 1
                            });
                            self.references.insert(reference, place);
                        }
                    }
                    Record::Tombstones(all) => {
                        for (reference, min, max) in all {
                            if let Some(place) = self.references.get(&reference) {
                                self.series[*place].deleted.push((min, max));
                            }
                        }
                    }
                    Record::Metadata(all) => {
                        for (reference, said) in all {
                            if let Some(place) = self.references.get(&reference) {
                                self.series[*place].said = Some(said);
                            }
                        }
                    }
                    Record::Floats(_)
                    | Record::Histograms(_)
                    | Record::Exemplars(_)
                    | Record::Other => {}
                }
            }
        }
        Ok(())
    }

    /// One record of a log.
    async fn take(&mut self, record: Record, late: bool) -> anyhow::Result<()> {
        match record {
            Record::Floats(all) => {
                for (reference, sample) in all {
                    if let Some(series) = self.wanted(reference, sample.timestamp, late) {
                        series.gathered.floats.push(sample);
                        self.gathered += 1;
                    }
                }
            }
            Record::Histograms(all) => {
                for (reference, sample) in all {
                    if let Some(series) = self.wanted(reference, sample.timestamp, late) {
                        series.gathered.histograms.push(sample);
                        self.gathered += 1;
                    }
                }
            }
            Record::Exemplars(all) => {
                for (reference, exemplar) in all {
                    if let Some(place) = self.references.get(&reference) {
                        self.series[*place].exemplars.push(exemplar);
                        self.gathered += 1;
                    }
                }
            }
            Record::Series(_) | Record::Tombstones(_) | Record::Metadata(_) | Record::Other => {}
        }
        if self.gathered >= GATHERED_MAX {
            self.flush().await?;
        }
        Ok(())
    }

    /// The series, if the sample counts.
    fn wanted(&mut self, reference: u64, at: i64, late: bool) -> Option<&mut Series> {
        let Some(place) = self.references.get(&reference) else {
            self.unknown += 1;
            return None;
        };
        let series = &mut self.series[*place];
        if !late {
            if at < self.oldest || series.last.is_some_and(|last| at <= last) {
                return None;
            }
            series.last = Some(at);
        }
        (!covers(&series.deleted, at)).then_some(series)
    }

    /// Samples, and once they are stored the exemplars, which need a series.
    async fn flush(&mut self) -> anyhow::Result<()> {
        for series in &mut self.series {
            if !series.gathered.is_empty() {
                let samples = std::mem::take(&mut series.gathered);
                self.sender.push(&series.labels, samples).await?;
            }
        }
        if self
            .series
            .iter()
            .any(|series| !series.exemplars.is_empty())
        {
            self.sender.flush().await?;
        }
        for series in &mut self.series {
            let exemplars = std::mem::take(&mut series.exemplars);
            self.sender
                .push_exemplars(&series.labels, exemplars)
                .await?;
        }
        self.gathered = 0;
        Ok(())
    }

    /// What was said of the metrics, each once.
    async fn describe(&mut self) -> anyhow::Result<()> {
        let mut families = BTreeMap::new();
        for series in &mut self.series {
            if let Some(said) = series.said.take()
                && let Some(name) = family_of(&series.labels, said.r#type())
            {
                families.insert(name.to_owned(), said);
            }
        }
        for (metric_family_name, said) in families {
            let said = MetricMetadata {
                metric_family_name,
                ..said
            };
            self.sender.push_metadata(&said).await?;
        }
        Ok(())
    }

    async fn send_chunks(&mut self, dir: &Path) -> anyhow::Result<()> {
        for (_, path) in numbered(dir)? {
            let input = Input::open(&path)?;
            if input.len() == 0 {
                continue;
            }
            let read = self.send_file(&input).await;
            match read.map_err(|error| error.downcast::<Broken>()) {
                Ok(()) => {}
                Err(Ok(broken)) => {
                    eprintln!("{broken}: the rest of the chunks is taken from the log");
                    return Ok(());
                }
                Err(Err(error)) => return Err(error),
            }
        }
        Ok(())
    }

    async fn send_file(&mut self, input: &Input) -> anyhow::Result<()> {
        check_magic(
            input,
            CHUNKS_MAGIC,
            "not a file of the head's chunks of Prometheus",
        )?;
        let mut at = HEADER_BYTES;
        while at < input.len() {
            let Some((chunk, next)) = read_chunk(input, at)? else {
                break;
            };
            at = next;
            self.send_chunk(chunk).await?;
        }
        Ok(())
    }

    async fn send_chunk(&mut self, chunk: HeadChunk) -> anyhow::Result<()> {
        let Some(place) = self.references.get(&chunk.reference) else {
            self.unknown += chunk.samples.len() as u64;
            return Ok(());
        };
        let series = &mut self.series[*place];
        let mut samples = chunk.samples;
        if !chunk.late {
            samples.retain(|at| at >= self.oldest);
            series.last = series.last.max(Some(chunk.max));
        }
        samples.retain(|at| !covers(&series.deleted, at));
        let labels = &series.labels;
        self.sender.push(labels, samples).await
    }
}

/// The log says of series what a scrape said of their family.
fn family_of(labels: &[Label], kind: MetricType) -> Option<&str> {
    let name = labels.iter().find(|label| label.name == METRIC_NAME)?;
    let parts: &[&str] = match kind {
        MetricType::Histogram | MetricType::Gaugehistogram => &["_bucket", "_count", "_sum"],
        MetricType::Summary => &["_count", "_sum"],
        _ => &[],
    };
    let mut families = parts
        .iter()
        .filter_map(|part| name.value.strip_suffix(part));
    Some(families.next().unwrap_or(&name.value))
}

fn key_of(labels: &[Label]) -> Vec<u8> {
    let mut key = Vec::new();
    for label in labels {
        for text in [&label.name, &label.value] {
            key.extend((text.len() as u64).to_le_bytes());
            key.extend(text.as_bytes());
        }
    }
    key
}

pub(super) struct HeadChunk {
    reference: u64,
    max: i64,
    late: bool,
    pub(super) samples: Samples,
}

/// A chunk and where the next begins; `None` where zeros fill the file up.
pub(super) fn read_chunk(input: &Input, at: u64) -> Result<Option<(HeadChunk, u64)>, Broken> {
    let head = input.read_upto(at, CHUNK_HEADER_BYTES + 10)?;
    if head.iter().all(|byte| *byte == 0) {
        let rest = input.read(at, input.len() - at)?;
        return match rest.iter().all(|byte| *byte == 0) {
            true => Ok(None),
            false => Err(input.broken(at, "a chunk of no series")),
        };
    }
    let mut cursor = Cursor::new(&head);
    let fields = (|| {
        let reference = cursor.be64()?;
        let _min = cursor.be64()?;
        let max = cursor.be64()? as i64;
        Ok((reference, max, cursor.u8()?, cursor.uvarint()?))
    })();
    let (reference, max, encoding, len) = fields.map_err(|bad| input.bad(at, &bad))?;
    let data_at = cursor.at();
    if len > CHUNK_BYTES_MAX {
        return Err(input.broken(at, format!("a chunk of {len} bytes")));
    }
    let whole = data_at as u64 + len + 4;
    let bytes = input.read(at, whole)?;
    let (content, sum) = bytes.split_at(bytes.len() - 4);
    if crc32c::crc32c(content).to_be_bytes() != sum {
        return Err(input.broken(at, "wrong checksum of a chunk"));
    }
    let mut samples = Samples::default();
    let decoded = chunk::decode(encoding & !LATE, &content[data_at..], &mut samples);
    decoded.map_err(|bad| input.bad(at + data_at as u64, &bad))?;
    let late = encoding & LATE != 0;
    let chunk = HeadChunk {
        reference,
        max,
        late,
        samples,
    };
    Ok(Some((chunk, at + whole)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_are_a_chunk_of_the_head_or_told(
            encoding: u8,
            data in prop::collection::vec(any::<u8>(), 0..60),
            len in 0u8..70,
            is_summed: bool,
        ) {
            let content = [&[7; 24][..], &[encoding, len], &data].concat();
            let sum = match is_summed {
                true => crc32c::crc32c(&content),
                false => 0,
            };
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("000001");
            std::fs::write(&path, [&content[..], &sum.to_be_bytes()].concat()).unwrap();
            let input = Input::open(&path).unwrap();
            if let Ok(Some((chunk, next))) = read_chunk(&input, 0) {
                prop_assert!(is_summed || usize::from(len) != data.len());
                prop_assert_eq!(chunk.reference, u64::from_be_bytes([7; 8]));
                prop_assert!(next <= input.len());
            }
        }
    }

    #[test]
    fn a_family_is_what_its_series_are_parts_of() {
        let family = |name: &str, kind| {
            let label = Label {
                name: METRIC_NAME.to_owned(),
                value: name.to_owned(),
            };
            family_of(&[label], kind).map(str::to_owned)
        };
        for (name, kind, expected) in [
            ("h_bucket", MetricType::Histogram, "h"),
            ("h", MetricType::Histogram, "h"),
            ("s_sum", MetricType::Summary, "s"),
            ("s_bucket", MetricType::Summary, "s_bucket"),
            ("c_count", MetricType::Counter, "c_count"),
        ] {
            assert_eq!(family(name, kind).as_deref(), Some(expected));
        }
        assert_eq!(family_of(&[], MetricType::Gauge), None);
    }
}
