//! What the replicated log holds for a shard, and its bytes (docs/format/command.md).
//!
//! Everything that is a decision (times, windows, cuts) was made by the proposer and stands in the
//! command, so that applying it needs nothing else. Decoding checks what the engine relies on:
//! columns of one length, references into the command's own tables in range.

mod add;
mod admin;
mod annex;
mod columns;
mod describe;
mod labels;
mod packed;
pub mod runs;
mod values;

use std::ops::Range;

use bytes::Bytes;
use model::batch::{DeltaSpan, Fence};
use model::group::{
    Family, FamilyKind, FamilySample, GroupingKey, PushId, PushOp, PushOptions, Rare,
};
use model::{Exemplar, FamilyMetadata, Histogram, Labels, Matcher, SeriesId, Timestamp};

use crate::chunk::Point;
use crate::fields::{Fields, Malformed, put_bytes, put_u32, put_u64, put_varint, put_zigzag};
use crate::histogram;

pub use columns::{Rows, Steps};
pub(crate) use describe::{put_metadata, take_metadata};

const VERSION_1: u8 = 1;
const VERSION_2: u8 = 2;
/// Pushes with a time to live, additive ones, and expiry.
const VERSION_3: u8 = 3;
/// Writes with compact columns; other kinds do not have it.
const VERSION_10: u8 = 10;
/// The same, equal steps of series as runs.
const VERSION_11: u8 = 11;
/// The same, values packed.
const VERSION_12: u8 = 12;
/// The same, labels of new series compressed together.
const VERSION_13: u8 = 13;

const WRITE: u8 = 1;
const PUSH: u8 = 2;
const SEAL: u8 = 3;
const RETAIN: u8 = 4;
const DELETE: u8 = 5;
const CLEAN: u8 = 6;
const WIPE: u8 = 7;
/// Several pushes at one index.
const PUSHES: u8 = 8;
const DESCRIBE: u8 = 10;
const ADD: u8 = 11;
const COMPACT: u8 = 20;
const COLLECT: u8 = 21;
const COLLECT_AND_REST: u8 = 22;

/// One entry of the shard's log.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Write(WriteCommand),
    Push(PushCommand),
    /// In this order, two or more.
    Pushes(Vec<PushCommand>),
    Seal(SealCommand),
    Retain(RetainCommand),
    Delete(DeleteCommand),
    Clean(CleanCommand),
    Wipe(WipeCommand),
    Compact(CompactCommand),
    Describe(DescribeCommand),
    Add(AddCommand),
    Collect(CollectCommand),
}

/// Rows of one or several requests.
///
/// Invariants, checked by [`Command::decode`]: the columns of `rows` have one length; every
/// [`SeriesRef::New`] is an index of `labels`; fences lie within the rows.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct WriteCommand {
    pub proposed_at: Timestamp,
    /// Rows older than the shard's newest sample by more than this are refused; below zero is zero.
    pub out_of_order_window_ms: i64,
    /// But one that is later than its series' newest sample is refused only beyond this; below zero
    /// is zero.
    pub in_order_window_ms: i64,
    /// Rows later than `proposed_at` by more than this are refused; zero or below: no limit.
    pub future_window_ms: i64,
    /// Series the proposer could not resolve. They are registered in this order; one that is known
    /// by the time of applying keeps its id.
    pub labels: Vec<Labels>,
    pub rows: WriteRows,
    /// Leases under which ranges of rows were scraped.
    pub fences: Vec<(Range<u32>, Fence)>,
    /// Of series with a sample, stored before or by this command.
    pub exemplars: Vec<(SeriesRef, Exemplar)>,
    /// How many exemplars the shard may then keep; without exemplars it says nothing.
    pub exemplars_max: u32,
}

/// Columns of equal length.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct WriteRows {
    pub series: Vec<SeriesRef>,
    pub timestamps: Vec<Timestamp>,
    /// Of a histogram's row: its sum, which applying does not look at.
    pub values: Vec<f64>,
    /// Row and canonical bytes, by row. Nearly always empty.
    pub histograms: Vec<(u32, Bytes)>,
}

impl WriteRows {
    pub fn len(&self) -> usize {
        self.series.len()
    }

    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    pub fn push(&mut self, series: SeriesRef, timestamp: Timestamp, value: f64) {
        self.series.push(series);
        self.timestamps.push(timestamp);
        self.values.push(value);
    }

    pub fn push_histogram(&mut self, series: SeriesRef, at: Timestamp, histogram: &Histogram) {
        let row = self.len() as u32;
        self.push(series, at, histogram.sum);
        self.histograms.push((row, histogram::canonical(histogram)));
    }

    /// Puts instants and values of some rows, none of which is a histogram, into `points` alone.
    pub fn points(&self, of: Range<usize>, points: &mut Vec<Point>) {
        let rows = self.timestamps[of.clone()].iter().zip(&self.values[of]);
        points.clear();
        points.extend(rows.map(|(at, value)| Point::new(*at, *value)));
    }
}

/// Which series a row belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeriesRef {
    /// Registered by an earlier entry of the log, and perhaps collected by a later one.
    Known(SeriesId),
    /// An index of [`WriteCommand::labels`].
    New(u32),
}

/// One push on one group.
///
/// Invariant, checked by [`Command::decode`]: the options are valid.
#[derive(Debug, Clone, PartialEq)]
pub struct PushCommand {
    pub proposed_at: Timestamp,
    pub key: GroupingKey,
    pub op: PushOp,
    pub options: PushOptions,
}

impl PushCommand {
    /// Whether version 1 has no word for it.
    fn is_new(&self) -> bool {
        let new_op = matches!(self.op, PushOp::Add { .. } | PushOp::Expire);
        new_op || self.options.ttl_ms.is_some()
    }
}

/// Moves every head sample with `t < before` into an immutable block whose id is the log index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealCommand {
    pub before: Timestamp,
}

/// Drops every sealed block whose newest sample has `t < before`. It is a command because what is
/// stored decides whether a late row is a duplicate: replicas must forget at the same log index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetainCommand {
    pub before: Timestamp,
}

/// Forgets samples with `start <= t <= end` of series that any of the matcher lists chooses; of no
/// series when there is no list.
#[derive(Debug, Clone, PartialEq)]
pub struct DeleteCommand {
    pub any_of: Vec<Vec<Matcher>>,
    pub start: Timestamp,
    pub end: Timestamp,
}

/// Replaces a block of which something was deleted by one without it, whose id is the log index.
/// Any other block is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanCommand {
    pub block: u64,
}

/// Removes every push group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WipeCommand {
    pub proposed_at: Timestamp,
}

/// Makes blocks one, whose id is the log index; what is stored does not change. Does nothing unless
/// all of them are there, two at least, and nothing of them is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactCommand {
    pub blocks: Vec<u64>,
}

/// What senders said of families, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeCommand {
    pub proposed_at: Timestamp,
    /// Each with a name.
    pub families: Vec<FamilyMetadata>,
}

/// Rows that are differences to what their series stood at.
///
/// Invariant, checked by [`Command::decode`]: there is one span for each row.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct AddCommand {
    /// The instant of a row is that of the end of its span.
    pub write: WriteCommand,
    pub deltas: Vec<DeltaSpan>,
    /// Totals not told at this instant or later are forgotten first.
    pub stale_before: Timestamp,
    /// How many totals the shard may keep.
    pub totals_max: u32,
}

/// Registered series that are written no more leave the register: those of `series` that have no sample in the
/// head and whose newest one was before `before`. One that no block holds is forgotten, if it has no exemplar from
/// then on; others rest. The rest are left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectCommand {
    pub before: Timestamp,
    /// Ascending.
    pub series: Vec<SeriesId>,
    /// Whether those that blocks hold rest. If not, they stay: programs of before knew no other.
    pub rest: bool,
}

/// Why bytes are not a command of a version this program knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("command of unknown version {0}")]
    UnknownVersion(u8),
    #[error("malformed command: {0}")]
    Malformed(#[from] Malformed),
}

impl Command {
    /// The oldest version that can say it; a write is always of the newest.
    fn version(&self) -> u8 {
        match self {
            Self::Write(_) | Self::Add(_) => VERSION_13,
            Self::Delete(_) | Self::Clean(_) | Self::Compact(_) | Self::Collect(_) => VERSION_2,
            Self::Push(push) if push.is_new() => VERSION_3,
            Self::Wipe(_) | Self::Pushes(_) | Self::Describe(_) => VERSION_3,
            _ => VERSION_1,
        }
    }

    pub fn encode(&self) -> Bytes {
        let mut out = vec![self.version()];
        match self {
            Self::Write(write) => {
                out.push(WRITE);
                put_write(&mut out, write);
                annex::put(&mut out, write);
            }
            Self::Push(push) => {
                out.push(PUSH);
                put_push(&mut out, push, self.version());
            }
            Self::Pushes(pushes) => {
                out.push(PUSHES);
                put_varint(&mut out, pushes.len() as u64);
                for push in pushes {
                    put_push(&mut out, push, VERSION_3);
                }
            }
            Self::Seal(seal) => {
                out.push(SEAL);
                put_zigzag(&mut out, seal.before.0);
            }
            Self::Retain(retain) => {
                out.push(RETAIN);
                put_zigzag(&mut out, retain.before.0);
            }
            Self::Delete(delete) => {
                out.push(DELETE);
                admin::put_delete(&mut out, delete);
            }
            Self::Clean(clean) => {
                out.push(CLEAN);
                put_varint(&mut out, clean.block);
            }
            Self::Wipe(wipe) => {
                out.push(WIPE);
                put_zigzag(&mut out, wipe.proposed_at.0);
            }
            Self::Compact(compact) => {
                out.push(COMPACT);
                admin::put_compact(&mut out, compact);
            }
            Self::Add(add) => {
                out.push(ADD);
                put_write(&mut out, &add.write);
                annex::put(&mut out, &add.write);
                add::put(&mut out, add);
            }
            Self::Describe(command) => {
                out.push(DESCRIBE);
                describe::put_describe(&mut out, command);
            }
            Self::Collect(collect) => {
                out.push(match collect.rest {
                    true => COLLECT_AND_REST,
                    false => COLLECT,
                });
                admin::put_collect(&mut out, collect);
            }
        }
        // It stays in the cache of the log, which counts what it says and not what it grew to.
        out.shrink_to_fit();
        out.into()
    }

    pub fn decode(bytes: Bytes) -> Result<Self, CommandError> {
        let mut fields = Fields::new(&bytes);
        let version = fields.u8()?;
        if !matches!(version, VERSION_1..=VERSION_3 | VERSION_10..=VERSION_13) {
            return Err(CommandError::UnknownVersion(version));
        }
        let command = match fields.u8()? {
            WRITE => {
                let mut write = take_write(&mut fields, version)?;
                if version != VERSION_1 {
                    let rows = write.rows.len();
                    annex::take(&mut fields, &mut write, rows)?;
                }
                Self::Write(write)
            }
            DELETE if version == VERSION_2 => Self::Delete(admin::take_delete(&mut fields)?),
            CLEAN if version == VERSION_2 => Self::Clean(CleanCommand {
                block: fields.varint()?,
            }),
            WIPE if version == VERSION_3 => Self::Wipe(WipeCommand {
                proposed_at: Timestamp(fields.zigzag()?),
            }),
            COMPACT if version == VERSION_2 => Self::Compact(admin::take_compact(&mut fields)?),
            ADD if version >= VERSION_10 => {
                let mut write = take_write(&mut fields, version)?;
                let rows = write.rows.len();
                annex::take(&mut fields, &mut write, rows)?;
                Self::Add(add::take(&mut fields, write)?)
            }
            DESCRIBE if version == VERSION_3 => {
                Self::Describe(describe::take_describe(&mut fields)?)
            }
            COLLECT if version == VERSION_2 => {
                Self::Collect(admin::take_collect(&mut fields, false)?)
            }
            COLLECT_AND_REST if version == VERSION_2 => {
                Self::Collect(admin::take_collect(&mut fields, true)?)
            }
            PUSHES if version == VERSION_3 => {
                // Time, key with a job, operation and time to live.
                let count = fields.count(9)?;
                let pushes = (0..count).map(|_| take_push(&mut fields, version));
                Self::Pushes(pushes.collect::<Result<_, _>>()?)
            }
            PUSH if version != VERSION_2 => Self::Push(take_push(&mut fields, version)?),
            _ if version != VERSION_1 => return Err(Malformed("unknown kind of command").into()),
            SEAL => Self::Seal(SealCommand {
                before: Timestamp(fields.zigzag()?),
            }),
            RETAIN => Self::Retain(RetainCommand {
                before: Timestamp(fields.zigzag()?),
            }),
            _ => return Err(Malformed("unknown kind of command").into()),
        };
        fields.end()?;
        Ok(command)
    }
}

fn put_write(out: &mut Vec<u8>, write: &WriteCommand) {
    let rows = &write.rows;
    assert!(
        rows.timestamps.len() == rows.len() && rows.values.len() == rows.len(),
        "columns of one length"
    );
    put_zigzag(out, write.proposed_at.0);
    put_zigzag(out, write.out_of_order_window_ms);
    put_zigzag(out, write.future_window_ms);
    put_zigzag(out, write.in_order_window_ms);
    labels::put(out, &write.labels);
    columns::put(out, rows);
    put_varint(out, write.fences.len() as u64);
    for (range, fence) in &write.fences {
        put_u32(out, range.start);
        put_u32(out, range.end);
        put_u64(out, fence.target);
        put_u64(out, fence.epoch);
    }
}

fn take_write(fields: &mut Fields<'_>, version: u8) -> Result<WriteCommand, Malformed> {
    let mut write = take_head(fields, version)?;
    write.rows = match version {
        VERSION_10.. => columns::take(fields, write.labels.len(), version)?,
        _ => take_rows(fields, write.labels.len())?,
    };
    write.fences = take_fences(fields, write.rows.len())?;
    Ok(write)
}

/// What stands in front of a write's rows.
fn take_head(fields: &mut Fields<'_>, version: u8) -> Result<WriteCommand, Malformed> {
    let proposed_at = Timestamp(fields.zigzag()?);
    let out_of_order_window_ms = fields.zigzag()?;
    let future_window_ms = fields.zigzag()?;
    let in_order_window_ms = match version {
        VERSION_10.. => fields.zigzag()?,
        _ => 0,
    };
    let labels = labels::take(fields, version)?;
    Ok(WriteCommand {
        proposed_at,
        out_of_order_window_ms,
        in_order_window_ms,
        future_window_ms,
        labels,
        ..WriteCommand::default()
    })
}

fn take_fences(
    fields: &mut Fields<'_>,
    rows: usize,
) -> Result<Vec<(Range<u32>, Fence)>, Malformed> {
    (0..fields.count(24)?)
        .map(|_| take_fence(fields, rows))
        .collect()
}

/// Rows as versions 1 and 2 have them.
fn take_rows(fields: &mut Fields<'_>, labels: usize) -> Result<WriteRows, Malformed> {
    // A row is at least one byte of series, one of time, and eight of value.
    let count = fields.count(10)?;
    let series = (0..count)
        .map(|_| take_series_ref(fields, labels))
        .collect::<Result<_, _>>()?;
    let mut last = 0i64;
    let timestamps = (0..count)
        .map(|_| {
            last = last.wrapping_add(fields.zigzag()?);
            Ok(Timestamp(last))
        })
        .collect::<Result<_, _>>()?;
    let values = (0..count)
        .map(|_| fields.u64().map(f64::from_bits))
        .collect::<Result<_, _>>()?;
    Ok(WriteRows {
        series,
        timestamps,
        values,
        histograms: Vec::new(),
    })
}

fn put_series_ref(out: &mut Vec<u8>, series: SeriesRef) {
    put_varint(out, series_code(series));
}

/// Ids are below it: a difference of two leaves a bit of its zigzag free.
const SERIES_ID_END: u64 = 1 << 61;

fn series_code(series: SeriesRef) -> u64 {
    let (kind, index) = match series {
        SeriesRef::Known(id) => (0, id.0),
        SeriesRef::New(index) => (1, u64::from(index)),
    };
    assert!(index < SERIES_ID_END, "series ids count from zero");
    index << 1 | kind
}

fn take_series_ref(fields: &mut Fields<'_>, labels: usize) -> Result<SeriesRef, Malformed> {
    series_of(fields.varint()?, labels)
}

fn series_of(raw: u64, labels: usize) -> Result<SeriesRef, Malformed> {
    let index = raw >> 1;
    if index >= SERIES_ID_END {
        return Err(Malformed("a series id that is none"));
    }
    if raw & 1 == 0 {
        return Ok(SeriesRef::Known(SeriesId(index)));
    }
    if index >= labels as u64 {
        return Err(Malformed("a row points behind the new series"));
    }
    let index = u32::try_from(index).map_err(|_| Malformed("too many new series"))?;
    Ok(SeriesRef::New(index))
}

fn take_fence(fields: &mut Fields<'_>, rows: usize) -> Result<(Range<u32>, Fence), Malformed> {
    let range = fields.u32()?..fields.u32()?;
    if range.start > range.end || range.end as usize > rows {
        return Err(Malformed("a fence reaches beyond the rows"));
    }
    let (target, epoch) = (fields.u64()?, fields.u64()?);
    Ok((range, Fence { target, epoch }))
}

/// Also the form in which checkpoints keep a grouping key.
pub(crate) fn put_key(out: &mut Vec<u8>, key: &GroupingKey) {
    put_varint(out, key.iter().count() as u64);
    for (name, value) in key.iter() {
        put_bytes(out, name.as_bytes());
        put_bytes(out, value.as_bytes());
    }
}

pub(crate) fn take_key(fields: &mut Fields<'_>) -> Result<GroupingKey, Malformed> {
    let pairs = (0..fields.count(2)?)
        .map(|_| Ok((fields.text()?.to_owned(), fields.text()?.to_owned())))
        .collect::<Result<Vec<_>, Malformed>>()?;
    GroupingKey::new(pairs).ok_or(Malformed("a grouping key has no job"))
}

fn put_push(out: &mut Vec<u8>, push: &PushCommand, version: u8) {
    put_zigzag(out, push.proposed_at.0);
    put_key(out, &push.key);
    put_op(out, &push.op);
    if version == VERSION_3 {
        put_varint(out, push.options.ttl_ms.unwrap_or(0));
    }
}

fn take_push(fields: &mut Fields<'_>, version: u8) -> Result<PushCommand, Malformed> {
    let mut push = PushCommand {
        proposed_at: Timestamp(fields.zigzag()?),
        key: take_key(fields)?,
        op: take_op(fields, version)?,
        options: PushOptions::default(),
    };
    if version == VERSION_3 {
        let ttl_ms = fields.varint()?;
        push.options.ttl_ms = (ttl_ms > 0).then_some(ttl_ms);
    }
    match push.options.is_valid() {
        true => Ok(push),
        false => Err(Malformed("a time to live too long")),
    }
}

/// Also the form in which checkpoints keep a push id.
pub(crate) fn take_push_id(fields: &mut Fields<'_>) -> Result<PushId, Malformed> {
    PushId::new(fields.bytes()?).ok_or(Malformed("a push id of wrong length"))
}

fn put_op(out: &mut Vec<u8>, op: &PushOp) {
    match op {
        PushOp::Put(families) => {
            out.push(1);
            put_families(out, families);
        }
        PushOp::Post(families) => {
            out.push(2);
            put_families(out, families);
        }
        PushOp::Delete => out.push(3),
        PushOp::Reject => out.push(4),
        PushOp::Add { families, id } => {
            out.push(5);
            put_families(out, families);
            put_bytes(out, id.as_bytes());
        }
        PushOp::Expire => out.push(6),
    }
}

fn take_op(fields: &mut Fields<'_>, version: u8) -> Result<PushOp, Malformed> {
    match fields.u8()? {
        1 => take_families(fields).map(PushOp::Put),
        2 => take_families(fields).map(PushOp::Post),
        3 => Ok(PushOp::Delete),
        4 => Ok(PushOp::Reject),
        5 if version >= VERSION_3 => Ok(PushOp::Add {
            families: take_families(fields)?,
            id: take_push_id(fields)?,
        }),
        6 if version >= VERSION_3 => Ok(PushOp::Expire),
        _ => Err(Malformed("unknown push operation")),
    }
}

const KINDS: [FamilyKind; 5] = [
    FamilyKind::Counter,
    FamilyKind::Gauge,
    FamilyKind::Histogram,
    FamilyKind::Summary,
    FamilyKind::Untyped,
];
const SUFFIXES: [&str; 4] = ["", "_bucket", "_sum", "_count"];

/// Also the form in which checkpoints keep a group's families.
pub(crate) fn put_families(out: &mut Vec<u8>, families: &[Family]) {
    put_varint(out, families.len() as u64);
    for family in families {
        put_bytes(out, family.name.as_bytes());
        out.push(u8::from(family.help.is_some()));
        if let Some(help) = &family.help {
            put_bytes(out, help.as_bytes());
        }
        let kind = KINDS.iter().position(|kind| *kind == family.kind);
        out.push(kind.expect("every kind has a number") as u8);
        put_varint(out, family.samples.len() as u64);
        for sample in &family.samples {
            let suffix = SUFFIXES.iter().position(|text| *text == sample.suffix);
            let suffix = suffix.expect("a suffix is one of four") as u8;
            out.push(suffix | if sample.rare.is_some() { RARE } else { 0 });
            put_bytes(out, sample.labels.as_canonical());
            put_u64(out, sample.value.to_bits());
            if let Some(rare) = &sample.rare {
                put_rare(out, rare);
            }
        }
    }
}

/// Beside the suffix: the sample says more. Readers before this bit refuse it as a suffix.
const RARE: u8 = 0x80;

fn put_rare(out: &mut Vec<u8>, rare: &Rare) {
    out.push(u8::from(rare.implied));
    put_varint(out, rare.empty.len() as u64);
    for name in &rare.empty {
        put_bytes(out, name.as_bytes());
    }
    let mut native = Vec::new();
    if let Some(histogram) = &rare.native {
        histogram.encode(&mut native);
    }
    put_bytes(out, &native);
}

fn take_rare(fields: &mut Fields<'_>) -> Result<Box<Rare>, Malformed> {
    let implied = fields.flag()?;
    let empty = (0..fields.count(1)?)
        .map(|_| fields.text().map(str::to_owned))
        .collect::<Result<_, _>>()?;
    let native = match fields.bytes()? {
        [] => None,
        bytes => {
            let histogram = Histogram::decode(bytes);
            let histogram = histogram.map_err(|_| Malformed("native histogram of a push"))?;
            Some(std::sync::Arc::new(histogram))
        }
    };
    Ok(Box::new(Rare {
        empty,
        native,
        implied,
    }))
}

pub(crate) fn take_families(fields: &mut Fields<'_>) -> Result<Vec<Family>, Malformed> {
    (0..fields.count(4)?).map(|_| take_family(fields)).collect()
}

fn take_family(fields: &mut Fields<'_>) -> Result<Family, Malformed> {
    let name = fields.text()?.to_owned();
    let help = match fields.flag()? {
        true => Some(fields.text()?.to_owned()),
        false => None,
    };
    let kind = KINDS
        .get(usize::from(fields.u8()?))
        .ok_or(Malformed("unknown kind of family"))?;
    let samples = (0..fields.count(10)?)
        .map(|_| take_family_sample(fields))
        .collect::<Result<_, _>>()?;
    Ok(Family {
        name,
        help,
        kind: *kind,
        samples,
    })
}

fn take_family_sample(fields: &mut Fields<'_>) -> Result<FamilySample, Malformed> {
    let first = fields.u8()?;
    let suffix = SUFFIXES
        .get(usize::from(first & !RARE))
        .ok_or(Malformed("unknown suffix"))?;
    Ok(FamilySample {
        suffix,
        labels: fields.labels()?,
        value: f64::from_bits(fields.u64()?),
        rare: match first & RARE {
            0 => None,
            _ => Some(take_rare(fields)?),
        },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels() -> impl Strategy<Value = Labels> {
        prop::collection::btree_map("[a-c_]{1,6}", "[a-z]{0,5}", 0..4)
            .prop_map(|pairs| Labels::from_pairs(&pairs))
    }

    fn rare() -> impl Strategy<Value = Option<Box<Rare>>> {
        let native = prop::option::weighted(
            0.1,
            any::<u32>().prop_map(|count| {
                let count = f64::from(count);
                std::sync::Arc::new(Histogram {
                    count,
                    zero_count: count,
                    ..Histogram::default()
                })
            }),
        );
        let empty = prop::collection::vec("[a-z]{1,3}", 0..2);
        (native, empty, any::<bool>()).prop_map(|(native, empty, implied)| {
            Rare {
                empty,
                native,
                implied,
            }
            .boxed()
        })
    }

    fn labels_and_time() -> impl Strategy<Value = (Labels, i64)> {
        (labels(), any::<i64>())
    }

    fn write() -> impl Strategy<Value = Command> {
        let sample = (any::<u64>(), prop::bool::weighted(0.2));
        let row = (any::<bool>(), 0u64..1 << 40, any::<i64>(), sample);
        let fence = (any::<u32>(), any::<u32>(), any::<u64>(), any::<u64>());
        (
            any::<(i64, i64, i64, i64)>(),
            prop::collection::vec(labels(), 0..5),
            prop::collection::vec(row, 0..50),
            prop::collection::vec(fence, 0..3),
            prop::collection::vec((0u64..9, labels_and_time()), 0..3),
        )
            .prop_map(|(times, labels, raw_rows, raw_fences, raw_exemplars)| {
                let mut rows = WriteRows::default();
                for (new, id, at, (bits, is_histogram)) in raw_rows {
                    let series = match new && !labels.is_empty() {
                        true => SeriesRef::New((id % labels.len() as u64) as u32),
                        false => SeriesRef::Known(SeriesId(id)),
                    };
                    let value = f64::from_bits(bits);
                    if is_histogram {
                        let histogram = Histogram {
                            sum: value,
                            ..Histogram::default()
                        };
                        rows.push_histogram(series, Timestamp(at), &histogram);
                    } else {
                        rows.push(series, Timestamp(at), value);
                    }
                }
                let len = rows.len() as u32 + 1;
                let fences = raw_fences
                    .into_iter()
                    .map(|(a, b, target, epoch)| {
                        let (a, b) = (a % len, b % len);
                        (a.min(b)..a.max(b), Fence { target, epoch })
                    })
                    .collect();
                let exemplars: Vec<_> = raw_exemplars
                    .into_iter()
                    .map(|(id, (labels, at))| {
                        let exemplar = Exemplar {
                            labels,
                            value: 0.5,
                            timestamp: Timestamp(at),
                        };
                        (SeriesRef::Known(SeriesId(id)), exemplar)
                    })
                    .collect();
                Command::Write(WriteCommand {
                    exemplars_max: exemplars.len() as u32 * 7,
                    exemplars,
                    proposed_at: Timestamp(times.0),
                    out_of_order_window_ms: times.1,
                    in_order_window_ms: times.3,
                    future_window_ms: times.2,
                    labels,
                    rows,
                    fences,
                })
            })
    }

    fn push() -> impl Strategy<Value = Command> {
        let sample =
            (0usize..4, labels(), any::<u64>(), rare()).prop_map(|(suffix, labels, bits, rare)| {
                FamilySample {
                    suffix: SUFFIXES[suffix],
                    labels,
                    value: f64::from_bits(bits),
                    rare,
                }
            });
        let samples = prop::collection::vec(sample, 0..4);
        let family = ("[a-z]{1,8}", any::<Option<String>>(), 0usize..5, samples).prop_map(
            |(name, help, kind, samples)| Family {
                name,
                help,
                kind: KINDS[kind],
                samples,
            },
        );
        let families = prop::collection::vec(family, 0..4);
        let ttl_ms = prop::option::of(1u64..1 << 30);
        (
            any::<i64>(),
            "[a-z]{1,5}",
            any::<String>(),
            0..6,
            families,
            ttl_ms,
        )
            .prop_map(|(at, job, other, op, families, ttl_ms)| {
                let pairs = [("job".to_owned(), job), ("x".to_owned(), other)];
                Command::Push(PushCommand {
                    proposed_at: Timestamp(at),
                    key: GroupingKey::new(pairs).unwrap(),
                    op: match op {
                        0 => PushOp::Put(families),
                        1 => PushOp::Post(families),
                        2 => PushOp::Delete,
                        3 => PushOp::Add {
                            families,
                            id: PushId::new(b"id").unwrap(),
                        },
                        4 => PushOp::Expire,
                        _ => PushOp::Reject,
                    },
                    options: PushOptions {
                        ttl_ms,
                        ..PushOptions::default()
                    },
                })
            })
    }

    fn command() -> impl Strategy<Value = Command> {
        let seal = any::<i64>().prop_map(|t| {
            Command::Seal(SealCommand {
                before: Timestamp(t),
            })
        });
        let retain = any::<i64>().prop_map(|t| {
            Command::Retain(RetainCommand {
                before: Timestamp(t),
            })
        });
        let wipe = any::<i64>().prop_map(|t| {
            Command::Wipe(WipeCommand {
                proposed_at: Timestamp(t),
            })
        });
        prop_oneof![write(), push(), seal, retain, wipe]
    }

    proptest! {
        #[test]
        fn commands_come_back_bit_by_bit(command in command()) {
            let bytes = command.encode();
            let decoded = Command::decode(bytes.clone()).unwrap();
            // Compared as bytes and as text: NaN is not equal to itself.
            prop_assert_eq!(decoded.encode(), bytes);
            prop_assert_eq!(format!("{decoded:?}"), format!("{command:?}"));
        }

        #[test]
        fn damaged_commands_are_refused_or_valid(command in command(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = command.encode().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(Command::Write(write)) = Command::decode(bytes.clone().into()) {
                prop_assert_eq!(write.rows.timestamps.len(), write.rows.len());
                prop_assert_eq!(write.rows.values.len(), write.rows.len());
            }
            bytes.truncate(at);
            prop_assert!(Command::decode(bytes.into()).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), version in prop_oneof![1u8..=3, 10u8..=13], kind in prop_oneof![0u8..13, 20u8..23]) {
            let _ = Command::decode(bytes.clone().into());
            bytes.splice(0..0, [version, kind]);
            let _ = Command::decode(bytes.into());
        }
    }

    #[test]
    fn the_bytes_are_fixed() {
        let mut rows = WriteRows::default();
        rows.push(SeriesRef::New(0), Timestamp(10), 1.0);
        rows.push(SeriesRef::Known(SeriesId(3)), Timestamp(9), 0.0);
        let mut write = WriteCommand {
            proposed_at: Timestamp(5),
            out_of_order_window_ms: 1,
            future_window_ms: 0,
            labels: vec![Labels::from_pairs([("a", "b")])],
            rows,
            fences: vec![(
                0..2,
                Fence {
                    target: 7,
                    epoch: 1,
                },
            )],
            ..WriteCommand::default()
        };
        let old = [
            &[1, 1, 10, 2, 0][..],
            &[1, 4, 1, b'a', 1, b'b'],
            &[2, 1, 6, 20, 1],
            &1f64.to_le_bytes(),
            &[0; 8],
            &[1, 0, 0, 0, 0, 2, 0, 0, 0],
            &[7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        let decoded = Command::decode(old.clone().into());
        assert_eq!(decoded, Ok(Command::Write(write.clone())));
        // Series 1 and 6; a run of one step of 10 and one of -1; 1 and 0 as integers.
        let of_version = |version: u8, series: [u8; 2], values: &[u8]| {
            [
                &[version, 1, 10, 2, 0, 0][..],
                &[1, 4, 1, b'a', 1, b'b'],
                &[2],
                &series,
                &[1, 20, 1, 1],
                values,
                &[1, 0, 0, 0, 0, 2, 0, 0, 0],
                &[7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
                &[0, 0, 0],
            ]
            .concat()
        };
        for (version, series) in [(10, [2, 10]), (11, [4, 20])] {
            let decoded = Command::decode(of_version(version, series, &[8, 0]).into());
            assert_eq!(decoded, Ok(Command::Write(write.clone())));
        }
        // Both of kind 0; in one bit each above 0; no steps.
        let mut bytes = of_version(12, [4, 20], &[0, 1, 0, 0b01]);
        let decoded = Command::decode(bytes.clone().into());
        assert_eq!(decoded, Ok(Command::Write(write.clone())));
        // One label set, which is too short to be packed.
        (bytes[0], bytes[6]) = (13, 1 << 1);
        assert_eq!(Command::Write(write.clone()).encode(), bytes);
        let histogram = Histogram::default();
        write
            .rows
            .push_histogram(SeriesRef::Known(SeriesId(3)), Timestamp(9), &histogram);
        write.exemplars_max = 9;
        let exemplar = Exemplar {
            labels: Labels::from_pairs([("t", "x")]),
            value: 1.0,
            timestamp: Timestamp(2),
        };
        write.exemplars.push((SeriesRef::New(0), exemplar));
        let canonical = histogram::canonical(&histogram);
        let annex = [
            &[1, 2, canonical.len() as u8][..],
            &canonical,
            &[9, 1, 1, 4, 1, b't', 1, b'x', 2, 0, 0, 0, 0, 0, 0, 0],
            &1f64.to_le_bytes(),
        ]
        .concat();
        assert!(Command::Write(write).encode().ends_with(&annex));
        let later = [&[9], &old[1..]].concat();
        assert_eq!(
            Command::decode(later.into()),
            Err(CommandError::UnknownVersion(9))
        );
    }
}
