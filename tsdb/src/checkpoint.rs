//! Everything of a shard that is not in blocks, as one file: series, head, groups, fences,
//! metadata, and which blocks belong to it (docs/format/checkpoint.md).
//!
//! The file is a row of sections, each with its checksum. The last one says that the file is
//! whole; sizes named in the first are held against what was found.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use bytes::Bytes;
use model::kept::kept;
use model::limits::SERIES_IDS_MAX;
use model::port::Disk;
use model::{Labels, SeriesId, Timestamp};

use crate::block::decompress;
use crate::by_id::ById;
use crate::chunk::{Chunk, Coding, Point};
use crate::descriptions::{Descriptions, put_word, take_word};
use crate::digest::Sums;
use crate::exemplars::{Exemplars, put_exemplar, take_exemplar};
use crate::fences::Fences;
use crate::fields::{
    Fields, Malformed, put_bytes, put_optional_time, put_time, put_u32, put_u64, put_varint,
};
use crate::file::{FileEntry, FileKind, FileWriter};
use crate::groups::{Groups, put_group, put_seen, take_group, take_seen};
use crate::head::HeadImage;
use crate::histogram::HistogramPoint;
use crate::running::{Running, put_total, take_total};
use crate::tombstones::{Tombstones, put_tombstones, take_tombstones};
use crate::touched::Touched;

pub const MAGIC: [u8; 6] = *b"qckpt\x00";
/// Histograms, exemplars and tombstones came with version 2; expiry, push ids, compressed sections and
/// merged blocks with 3; values as decimals with 4.
const VERSION: u8 = 4;
/// The oldest version we read.
const VERSION_MIN: u8 = 1;

const META: u8 = 1;
const SERIES: u8 = 2;
const GROUPS: u8 = 3;
const FENCES: u8 = 4;
const END: u8 = 5;
const EXEMPLARS: u8 = 6;
const TOMBSTONES: u8 = 7;
const PUSH_IDS: u8 = 8;
const TOUCHED: u8 = 20;
const MERGED: u8 = 21;
/// Only where there is something to say.
const DESCRIPTIONS: u8 = 22;
const TOTALS: u8 = 23;
const IDS: u8 = 24;

/// How a chunk's values are written.
const XOR: u8 = 0;
const DECIMAL: u8 = 1;

/// Records gathered before a section is cut.
const SECTION_BYTES: usize = 1 << 20;
/// Labels shrink to a tenth with the fastest, and samples hardly with the slowest.
const ZSTD_LEVEL: i32 = 1;

/// A shard's state beside its blocks, as a copy.
#[derive(Debug, Default, Clone)]
pub struct Image {
    pub applied_index: u64,
    pub max_time: Option<Timestamp>,
    pub sealed_before: Option<Timestamp>,
    pub sums: Sums,
    pub labels: ById<Labels>,
    /// Of the series in `labels`, by id.
    pub head: Vec<HeadImage>,
    pub groups: Groups,
    pub fences: Fences,
    pub exemplars: Exemplars,
    pub descriptions: Descriptions,
    pub running: Running,
    /// By block.
    pub tombstones: BTreeMap<u64, Tombstones>,
    pub touched: Touched,
    /// Blocks that count as one whose file is not written, by its id.
    pub merged: BTreeMap<u64, Vec<u64>>,
}

/// Where a checkpoint's bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{section}: {malformed}")]
pub struct Damage {
    pub section: &'static str,
    #[source]
    pub malformed: Malformed,
}

/// Writes `image` with the names of its blocks, and makes the bytes durable; the caller flushes
/// the directory.
pub async fn write(
    disk: &dyn Disk,
    dir: &Path,
    image: &Image,
    blocks: &[FileEntry],
) -> io::Result<FileEntry> {
    let kind = FileKind::Checkpoint(image.applied_index);
    let mut writer = Sections {
        file: FileWriter::create(disk, dir, kind).await?,
        payload: Vec::new(),
    };
    writer.file.append(header(VERSION).into()).await?;
    put_meta(&mut writer.payload, image, blocks);
    writer.cut(META).await?;
    for (labels, head) in image.labels.entries().iter().zip(&image.head) {
        put_series(&mut writer.payload, labels, head);
        writer.cut_when_full(SERIES).await?;
    }
    writer.cut(SERIES).await?;
    for group in image.groups.iter() {
        put_group(&mut writer.payload, group);
        writer.cut_when_full(GROUPS).await?;
    }
    writer.cut(GROUPS).await?;
    for (target, epoch) in image.fences.iter() {
        put_u64(&mut writer.payload, target);
        put_u64(&mut writer.payload, epoch);
        writer.cut_when_full(FENCES).await?;
    }
    writer.cut(FENCES).await?;
    for (id, exemplar) in image.exemplars.iter() {
        put_exemplar(&mut writer.payload, id, exemplar);
        writer.cut_when_full(EXEMPLARS).await?;
    }
    writer.cut(EXEMPLARS).await?;
    for (block, tombstones) in &image.tombstones {
        put_u64(&mut writer.payload, *block);
        put_tombstones(&mut writer.payload, tombstones);
        writer.cut_when_full(TOMBSTONES).await?;
    }
    writer.cut(TOMBSTONES).await?;
    for seen in image.groups.ids().iter() {
        put_seen(&mut writer.payload, seen);
        writer.cut_when_full(PUSH_IDS).await?;
    }
    writer.cut(PUSH_IDS).await?;
    put_touched(&mut writer.payload, &image.touched);
    writer.cut(TOUCHED).await?;
    for (id, blocks) in &image.merged {
        put_u64(&mut writer.payload, *id);
        put_varint(&mut writer.payload, blocks.len() as u64);
        blocks.iter().for_each(|&b| put_u64(&mut writer.payload, b));
    }
    writer.cut(MERGED).await?;
    for (word, at) in image.descriptions.by_age() {
        put_word(&mut writer.payload, word, at);
        writer.cut_when_full(DESCRIPTIONS).await?;
    }
    if !writer.payload.is_empty() {
        writer.cut(DESCRIPTIONS).await?;
    }
    for (id, total) in image.running.iter() {
        put_total(&mut writer.payload, id, total);
        writer.cut_when_full(TOTALS).await?;
    }
    if !writer.payload.is_empty() {
        writer.cut(TOTALS).await?;
    }
    for (gone, held) in runs(&image.labels) {
        put_varint(&mut writer.payload, gone);
        put_varint(&mut writer.payload, held);
        writer.cut_when_full(IDS).await?;
    }
    if !writer.payload.is_empty() {
        writer.cut(IDS).await?;
    }
    writer.cut(END).await?;
    writer.file.finish().await
}

/// Cuts records into sections.
struct Sections<'d> {
    file: FileWriter<'d>,
    payload: Vec<u8>,
}

impl Sections<'_> {
    async fn cut_when_full(&mut self, kind: u8) -> io::Result<()> {
        match self.payload.len() >= SECTION_BYTES {
            true => self.cut(kind).await,
            false => Ok(()),
        }
    }

    async fn cut(&mut self, kind: u8) -> io::Result<()> {
        let raw_len = self.payload.len() as u64;
        let mut payload = Vec::new();
        if raw_len > 0 {
            put_varint(&mut payload, raw_len);
            payload.extend(zstd::bulk::compress(&self.payload, ZSTD_LEVEL)?);
        }
        self.payload.clear();
        let mut section = Vec::with_capacity(payload.len() + 13);
        section.push(kind);
        put_u64(&mut section, payload.len() as u64);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&section), &payload);
        put_u32(&mut section, crc);
        section.append(&mut payload);
        self.file.append(section.into()).await
    }
}

/// Reads a checkpoint's bytes, and the names of the blocks that belong to it.
pub fn decode(bytes: &[u8]) -> Result<(Image, Vec<String>), Damage> {
    let mut fields = Fields::new(bytes);
    let version = take_version(&mut fields).map_err(damage("magic"))?;
    let (kind, payload) = take_section(&mut fields).map_err(damage("section"))?;
    if kind != META {
        return Err(damage("meta")(Malformed("not in front")));
    }
    let payload = expand(payload, version).map_err(damage("meta"))?;
    let mut meta = Fields::new(&payload);
    let (mut image, counts) = take_meta(&mut meta).map_err(damage("meta"))?;
    let blocks = take_blocks(&mut meta).map_err(damage("meta"))?;
    let mut groups = Vec::new();
    let mut fences = Vec::new();
    let mut seen = Vec::new();
    let mut exemplars = Vec::new();
    let mut labels = Vec::new();
    let mut runs = Vec::new();
    let mut words = Vec::new();
    let mut totals = Vec::new();
    image.touched = Touched::from(image.applied_index);
    loop {
        let (kind, payload) = take_section(&mut fields).map_err(damage("section"))?;
        let payload = expand(payload, version).map_err(damage("section"))?;
        let mut records = Fields::new(&payload);
        let (name, taken) = match kind {
            SERIES => (
                "series",
                take_all(&mut records, |r| {
                    let (of_series, head) = take_series(r, version)?;
                    labels.push(of_series);
                    image.head.push(head);
                    Ok(())
                }),
            ),
            GROUPS => (
                "groups",
                take_all(&mut records, |r| {
                    groups.push(take_group(r, version > 2)?);
                    Ok(())
                }),
            ),
            FENCES => (
                "fences",
                take_all(&mut records, |r| {
                    fences.push((r.u64()?, r.u64()?));
                    Ok(())
                }),
            ),
            EXEMPLARS if version > 1 => (
                "exemplars",
                take_all(&mut records, |r| {
                    exemplars.push(take_exemplar(r)?);
                    Ok(())
                }),
            ),
            TOMBSTONES if version > 1 => (
                "tombstones",
                take_all(&mut records, |r| {
                    let (block, tombstones) = (r.u64()?, take_tombstones(r)?);
                    match image.tombstones.insert(block, tombstones) {
                        None => Ok(()),
                        Some(_) => Err(Malformed("a block stands twice")),
                    }
                }),
            ),
            PUSH_IDS if version > 2 => (
                "push ids",
                take_all(&mut records, |r| {
                    seen.push(take_seen(r)?);
                    Ok(())
                }),
            ),
            TOUCHED if version > 1 => (
                "touched",
                take_touched(&mut records).map(|touched| image.touched = touched),
            ),
            MERGED if version > 2 => (
                "merged",
                take_all(&mut records, |r| {
                    let id = r.u64()?;
                    let blocks = (0..r.count(8)?).map(|_| r.u64());
                    let blocks = blocks.collect::<Result<_, _>>()?;
                    match image.merged.insert(id, blocks) {
                        None => Ok(()),
                        Some(_) => Err(Malformed("a block stands twice")),
                    }
                }),
            ),
            DESCRIPTIONS if version > 2 => (
                "descriptions",
                take_all(&mut records, |r| {
                    words.push(take_word(r)?);
                    Ok(())
                }),
            ),
            TOTALS if version > 2 => (
                "totals",
                take_all(&mut records, |r| {
                    totals.push(take_total(r)?);
                    Ok(())
                }),
            ),
            IDS if version > 2 => (
                "ids",
                take_all(&mut records, |r| {
                    runs.push((r.varint()?, r.varint()?));
                    Ok(())
                }),
            ),
            END => {
                records.end().and(fields.end()).map_err(damage("end"))?;
                break;
            }
            _ => ("section", Err(Malformed("unknown kind"))),
        };
        taken.map_err(damage(name))?;
    }
    image.exemplars = exemplars.into_iter().collect();
    image.labels = by_id(labels, &runs).map_err(damage("ids"))?;
    image.running = totals.into_iter().collect();
    image.descriptions = words.into_iter().collect();
    let found = [image.labels.len(), groups.len(), fences.len()];
    image.groups = Groups::new(image.groups.floor(), groups, seen);
    image.fences = fences.into_iter().collect();
    let distinct = [image.labels.len(), image.groups.len(), image.fences.len()];
    if counts != found.map(|n| n as u64) || distinct != found {
        return Err(damage("meta")(Malformed("counts differ from what follows")));
    }
    Ok((image, blocks))
}

/// How many ids are gone and how many then stand for series, again and again until all that were
/// ever given are told; nothing if none is gone.
fn runs(labels: &ById<Labels>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let mut next = 0;
    if labels.len() as u64 == labels.next() {
        return runs;
    }
    for SeriesId(id) in labels.ids_from(SeriesId(0)) {
        match runs.last_mut() {
            Some((_, held)) if id == next => *held += 1,
            _ => runs.push((id - next, 1)),
        }
        next = id + 1;
    }
    if labels.next() > next {
        runs.push((labels.next() - next, 0));
    }
    runs
}

/// Label sets under the ids that `runs` leave them.
fn by_id(labels: Vec<Labels>, runs: &[(u64, u64)]) -> Result<ById<Labels>, Malformed> {
    let whole = [(0, labels.len() as u64)];
    let runs = if runs.is_empty() { &whole } else { runs };
    let mut held = ById::default();
    let mut labels = labels.into_iter();
    for (gone, count) in runs {
        let given = held.next().checked_add(*gone);
        let end = given.and_then(|given| given.checked_add(*count));
        end.filter(|end| *end <= SERIES_IDS_MAX)
            .ok_or(Malformed("more ids than are ever given"))?;
        held.skip_to(held.next() + gone);
        for labels in labels.by_ref().take(*count as usize) {
            held.push(labels);
        }
        if Some(held.next()) != end {
            return Err(Malformed("more ids than series"));
        }
    }
    match labels.next() {
        None => Ok(held),
        Some(_) => Err(Malformed("fewer ids than series")),
    }
}

fn put_touched(out: &mut Vec<u8>, touched: &Touched) {
    put_u64(out, touched.floor());
    for (index, oldest) in touched.spans() {
        put_u64(out, index);
        put_time(out, oldest);
    }
}

fn take_touched(fields: &mut Fields<'_>) -> Result<Touched, Malformed> {
    let floor = fields.u64()?;
    let mut spans = Vec::new();
    while !fields.is_empty() {
        spans.push((fields.u64()?, fields.time()?));
    }
    Touched::restore(floor, spans).ok_or(Malformed("spans out of order"))
}

fn header(version: u8) -> Vec<u8> {
    [&MAGIC[..], &[version, b'\n']].concat()
}

fn take_version(fields: &mut Fields<'_>) -> Result<u8, Malformed> {
    let magic = fields.take(MAGIC.len())?;
    let version = fields.u8()?;
    let known = (VERSION_MIN..=VERSION).contains(&version);
    match magic == MAGIC && fields.u8()? == b'\n' && known {
        true => Ok(version),
        false => Err(Malformed("not a checkpoint of a known version")),
    }
}

fn damage(section: &'static str) -> impl Fn(Malformed) -> Damage {
    move |malformed| Damage { section, malformed }
}

fn take_section<'a>(fields: &mut Fields<'a>) -> Result<(u8, &'a [u8]), Malformed> {
    let header = fields.clone().take(9)?;
    let kind = fields.u8()?;
    let len = usize::try_from(fields.u64()?).map_err(|_| Malformed("too long"))?;
    let expected = fields.u32()?;
    let payload = fields.take(len)?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(header), payload);
    match crc == expected {
        true => Ok((kind, payload)),
        false => Err(Malformed("wrong checksum")),
    }
}

/// A section's records: from version 3 on compressed, with their length in front.
fn expand(payload: &[u8], version: u8) -> Result<Cow<'_, [u8]>, Malformed> {
    if version < 3 || payload.is_empty() {
        return Ok(Cow::Borrowed(payload));
    }
    let mut fields = Fields::new(payload);
    let raw_len = fields.varint()?;
    let raw = decompress(fields.take(fields.remaining())?, raw_len);
    let raw = raw.ok_or(Malformed("does not decompress to its length"))?;
    Ok(Cow::Owned(raw))
}

fn take_all(
    records: &mut Fields<'_>,
    mut take: impl FnMut(&mut Fields<'_>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !records.is_empty() {
        take(records)?;
    }
    Ok(())
}

fn put_meta(out: &mut Vec<u8>, image: &Image, blocks: &[FileEntry]) {
    put_u64(out, image.applied_index);
    put_optional_time(out, image.max_time);
    put_optional_time(out, image.sealed_before);
    put_u64(out, image.sums.series);
    put_u64(out, image.sums.samples);
    put_time(out, image.groups.floor());
    let counts = [image.labels.len(), image.groups.len(), image.fences.len()];
    counts.iter().for_each(|&n| put_u64(out, n as u64));
    put_varint(out, blocks.len() as u64);
    for block in blocks {
        put_bytes(out, block.name.as_bytes());
    }
}

fn take_meta(fields: &mut Fields<'_>) -> Result<(Image, [u64; 3]), Malformed> {
    let image = Image {
        applied_index: fields.u64()?,
        max_time: fields.optional_time()?,
        sealed_before: fields.optional_time()?,
        sums: Sums {
            series: fields.u64()?,
            samples: fields.u64()?,
        },
        groups: Groups::new(fields.time()?, [], []),
        ..Image::default()
    };
    let counts = [fields.u64()?, fields.u64()?, fields.u64()?];
    Ok((image, counts))
}

fn take_blocks(fields: &mut Fields<'_>) -> Result<Vec<String>, Malformed> {
    let names = (0..fields.count(1)?)
        .map(|_| fields.text().map(str::to_owned))
        .collect::<Result<_, _>>()?;
    fields.end()?;
    Ok(names)
}

fn put_series(out: &mut Vec<u8>, labels: &Labels, head: &HeadImage) {
    put_bytes(out, labels.as_canonical());
    put_optional_time(out, head.last);
    put_varint(out, head.chunks.len() as u64);
    for chunk in &head.chunks {
        put_varint(out, u64::from(chunk.count));
        out.push(match chunk.coding {
            Coding::Xor => XOR,
            Coding::Decimal => DECIMAL,
        });
        put_time(out, chunk.min);
        put_time(out, chunk.max);
        put_bytes(out, &chunk.data);
    }
    put_varint(out, head.late.len() as u64);
    head.late.iter().for_each(|&point| put_point(out, point));
    put_varint(out, head.histograms.len() as u64);
    for point in &head.histograms {
        put_time(out, point.at);
        put_bytes(out, &point.bytes);
    }
}

fn take_series(fields: &mut Fields<'_>, version: u8) -> Result<(Labels, HeadImage), Malformed> {
    let labels = kept(fields.labels()?);
    let last = fields.optional_time()?;
    let chunks = (0..fields.count(18)?)
        .map(|_| take_chunk(fields, version))
        .collect::<Result<_, _>>()?;
    let late = (0..fields.count(16)?)
        .map(|_| take_point(fields))
        .collect::<Result<_, _>>()?;
    let histograms = match version {
        1 => Vec::new(),
        _ => take_histograms(fields)?,
    };
    let head = HeadImage {
        last,
        chunks,
        late,
        histograms,
    };
    Ok((labels, head))
}

fn take_histograms(fields: &mut Fields<'_>) -> Result<Vec<HistogramPoint>, Malformed> {
    let one = |fields: &mut Fields<'_>| {
        Ok(HistogramPoint {
            at: fields.time()?,
            bytes: Bytes::copy_from_slice(fields.bytes()?),
        })
    };
    (0..fields.count(9)?).map(|_| one(fields)).collect()
}

fn take_chunk(fields: &mut Fields<'_>, version: u8) -> Result<Chunk, Malformed> {
    let count = u16::try_from(fields.varint()?).map_err(|_| Malformed("chunk too large"))?;
    let coding = if version < 4 { XOR } else { fields.u8()? };
    Ok(Chunk {
        count,
        coding: match coding {
            XOR => Coding::Xor,
            DECIMAL => Coding::Decimal,
            _ => return Err(Malformed("unknown coding of a chunk")),
        },
        min: fields.time()?,
        max: fields.time()?,
        data: Bytes::copy_from_slice(fields.bytes()?),
    })
}

fn put_point(out: &mut Vec<u8>, point: Point) {
    put_time(out, point.at);
    put_u64(out, point.bits);
}

fn take_point(fields: &mut Fields<'_>) -> Result<Point, Malformed> {
    Ok(Point {
        at: fields.time()?,
        bits: fields.u64()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A section with its right checksum, so that random payloads reach the record decoders.
    fn section(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut section = vec![kind];
        put_u64(&mut section, payload.len() as u64);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&section), payload);
        put_u32(&mut section, crc);
        [&section, payload].concat()
    }

    fn empty_meta() -> Vec<u8> {
        let mut meta = Vec::new();
        put_meta(&mut meta, &Image::default(), &[]);
        section(META, &meta)
    }

    /// As a version 3 writer compresses it.
    fn compressed(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, payload.len() as u64);
        out.extend(zstd::bulk::compress(payload, ZSTD_LEVEL).unwrap());
        out
    }

    #[test]
    fn the_smallest_checkpoint_decodes() {
        let bytes = [&header(1)[..], &empty_meta(), &section(END, &[])].concat();
        assert!(decode(&bytes).is_ok());
        let unfinished = [&header(2)[..], &empty_meta()].concat();
        assert!(decode(&unfinished).is_err());
        let trailing = [&bytes[..], &[0]].concat();
        assert!(decode(&trailing).is_err());
    }

    proptest! {
        #[test]
        fn ids_come_back(held in prop::collection::vec(0u64..3_000, 0..60), end in 0u64..4_000) {
            let mut labels: ById<Labels> = ById::default();
            let held: std::collections::BTreeSet<u64> = held.into_iter().collect();
            let of = |id: &u64| Labels::from_pairs([("id", id.to_string())]);
            held.iter().for_each(|id| labels.put(SeriesId(*id), of(id)));
            labels.skip_to(end);
            let runs = runs(&labels);
            prop_assert_eq!(runs.is_empty(), labels.len() as u64 == labels.next());
            let again = by_id(labels.entries().to_vec(), &runs).unwrap();
            prop_assert_eq!(again.next(), labels.next());
            prop_assert!(again.iter().eq(labels.iter()));
            if !runs.is_empty() {
                let mut more = labels.entries().to_vec();
                more.push(of(&end));
                prop_assert!(by_id(more.clone(), &runs).is_err());
                more.truncate(labels.len().saturating_sub(1));
                prop_assert_eq!(by_id(more, &runs).is_err(), !labels.is_empty());
            }
            for bad in [(SERIES_IDS_MAX, 1), (u64::MAX, 0), (0, u64::MAX)] {
                prop_assert!(by_id(vec![of(&0)], &[(0, 1), bad]).is_err());
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(kind in prop_oneof![0u8..10, 20u8..26], payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&payload);
            for version in [2, 3, VERSION] {
                let _ = decode(&[&header(version)[..], &payload].concat());
                let _ = decode(&[&header(version)[..], &section(META, &payload), &section(END, &[])].concat());
            }
            let bytes = [&header(2)[..], &empty_meta(), &section(kind, &payload), &section(END, &[])];
            let _ = decode(&bytes.concat());
            let mut meta = Vec::new();
            put_meta(&mut meta, &Image::default(), &[]);
            let meta = section(META, &compressed(&meta));
            let bytes = [&header(VERSION)[..], &meta, &section(kind, &compressed(&payload)), &section(END, &[])];
            let _ = decode(&bytes.concat());
        }
    }
}
