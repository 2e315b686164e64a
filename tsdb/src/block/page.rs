//! A page: columns of several series that stand together under one checksum
//! (docs/format/block.md).
//!
//! Series that were scraped together have the same timestamps, which a page holds once. What the
//! columns of a page have in common beyond that, as the buckets of a histogram do, zstd finds; a
//! page that it does not make smaller stays as it is.

use std::io;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use model::{Samples, Timestamp};

use crate::chunk::Point;
use crate::column::{COLUMN_SAMPLES_MAX, ints, times, values};
use crate::fields::{Fields, Malformed, put_bytes, put_varint};

/// Columns are gathered until they have so many bytes.
pub const PAGE_BYTES: usize = 64 << 10;
/// And no page has more of them: a reader goes through their lengths.
pub const PAGE_SLOTS: usize = 1024;
/// A page before compression, at most: one column more than it was cut for, and its timestamps.
const RAW_BYTES_MAX: u64 = 1 << 20;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
const ZSTD_LEVEL: i32 = 3;

/// A page being put together.
#[derive(Debug, Default)]
pub struct Builder {
    /// Distinct timestamps, and their bytes.
    times: Vec<(Vec<i64>, Vec<u8>)>,
    times_bytes: usize,
    /// Which timestamps a slot has, and how many bytes of values.
    slots: Vec<(i64, i64)>,
    values: Vec<u8>,
}

impl Builder {
    /// Adds a run of samples, `1 ..= COLUMN_SAMPLES_MAX`, as the next slot.
    pub fn add(&mut self, points: &[Point]) {
        let at: Vec<i64> = points.iter().map(|p| p.at.0).collect();
        let bits: Vec<u64> = points.iter().map(|p| p.bits).collect();
        let known = self.times.iter().rposition(|(times, _)| *times == at);
        let times = known.unwrap_or_else(|| {
            let mut bytes = Vec::new();
            times::encode(&at, &mut bytes);
            self.times_bytes += bytes.len();
            self.times.push((at, bytes));
            self.times.len() - 1
        });
        let before = self.values.len();
        values::encode(&bits, &mut self.values);
        let len = self.values.len() - before;
        self.slots.push((times as i64, len as i64));
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.values.len() + self.times_bytes >= PAGE_BYTES || self.slots.len() >= PAGE_SLOTS
    }

    /// The page's bytes; the builder is empty again.
    pub fn finish(&mut self) -> io::Result<Bytes> {
        let page = std::mem::take(self);
        let mut raw = Vec::with_capacity(page.values.len() + page.times_bytes + 256);
        put_varint(&mut raw, page.times.len() as u64);
        for (times, bytes) in &page.times {
            put_varint(&mut raw, times.len() as u64);
            put_bytes(&mut raw, bytes);
        }
        put_varint(&mut raw, page.slots.len() as u64);
        let (times, lens): (Vec<i64>, Vec<i64>) = page.slots.iter().copied().unzip();
        put_ints(&mut raw, &times);
        put_ints(&mut raw, &lens);
        raw.extend(page.values);
        let small = zstd::bulk::compress(&raw, ZSTD_LEVEL)?;
        let mut out = Vec::with_capacity(raw.len() + 1);
        if small.len() + raw.len() / 16 < raw.len() {
            out.push(ZSTD);
            put_varint(&mut out, raw.len() as u64);
            out.extend(small);
        } else {
            out.push(PLAIN);
            out.extend(raw);
        }
        Ok(out.into())
    }
}

/// Whole numbers with the length of their bytes in front.
pub fn put_ints(out: &mut Vec<u8>, numbers: &[i64]) {
    let mut bytes = Vec::new();
    ints::encode(numbers, &mut bytes);
    put_bytes(out, &bytes);
}

pub fn take_ints(fields: &mut Fields<'_>, count: usize) -> Result<Vec<i64>, Malformed> {
    ints::decode(fields.bytes()?, count)
}

/// A page that was read; columns are decoded when they are asked for.
#[derive(Debug)]
pub struct Page {
    raw: Bytes,
    times: Vec<Times>,
    slots: Vec<Slot>,
    /// Which slots these are, ascending; none where they are all there are.
    numbers: Option<Vec<u16>>,
}

/// One column of a page, apart from it.
#[derive(Debug)]
pub struct Coded {
    count: usize,
    times: Box<[u8]>,
    values: Box<[u8]>,
}

impl Coded {
    pub fn bytes(&self) -> usize {
        self.times.len() + self.values.len()
    }
}

#[derive(Debug)]
struct Times {
    count: usize,
    bytes: Range<usize>,
    decoded: OnceLock<Arc<[Timestamp]>>,
}

/// The timestamps that were decoded last: the next page of a block often has the same.
#[derive(Debug, Default)]
pub struct LastTimes {
    coded: Box<[u8]>,
    decoded: Arc<[Timestamp]>,
}

#[derive(Debug)]
struct Slot {
    times: usize,
    values: Range<usize>,
}

impl Page {
    /// Takes a page's bytes, whose checksum was looked at.
    pub fn open(bytes: Bytes) -> Result<Self, Malformed> {
        let mut fields = Fields::new(&bytes);
        let raw = match fields.u8()? {
            PLAIN => bytes.slice(1..),
            ZSTD => {
                let len = fields.varint()?;
                if len > RAW_BYTES_MAX {
                    return Err(Malformed("a page too large"));
                }
                let rest = fields.take(fields.remaining())?;
                // Bounded, so room for all of it may be made at once.
                let raw = zstd::bulk::decompress(rest, len as usize).ok();
                let raw = raw.filter(|raw| raw.len() as u64 == len);
                raw.ok_or(Malformed("does not decompress to its length"))?
                    .into()
            }
            _ => return Err(Malformed("unknown form of page")),
        };
        let mut fields = Fields::new(&raw);
        let times = take_times(&mut fields, raw.len())?;
        let slots = take_slots(&mut fields, raw.len(), times.len())?;
        Ok(Self {
            raw,
            times,
            slots,
            numbers: None,
        })
    }

    /// A page of which only these slots, which ascend, are there.
    pub fn of(columns: &[(u16, &Coded)]) -> Self {
        let mut raw = Vec::with_capacity(columns.iter().map(|(_, column)| column.bytes()).sum());
        let mut put = |bytes: &[u8]| {
            raw.extend_from_slice(bytes);
            raw.len() - bytes.len()..raw.len()
        };
        let (mut times, mut slots): (Vec<Times>, Vec<Slot>) = (Vec::new(), Vec::new());
        let mut before: Option<&Coded> = None;
        for &(_, column) in columns {
            let is_same = |b: &Coded| b.count == column.count && b.times == column.times;
            if !before.is_some_and(is_same) {
                times.push(Times {
                    count: column.count,
                    bytes: put(&column.times),
                    decoded: OnceLock::new(),
                });
            }
            before = Some(column);
            slots.push(Slot {
                times: times.len() - 1,
                values: put(&column.values),
            });
        }
        Self {
            raw: raw.into(),
            times,
            slots,
            numbers: Some(columns.iter().map(|(number, _)| *number).collect()),
        }
    }

    /// How many columns are there.
    pub fn columns(&self) -> usize {
        self.slots.len()
    }

    /// Whether a slot is there.
    pub fn has(&self, slot: u16) -> bool {
        self.slot(slot).is_ok()
    }

    fn slot(&self, slot: u16) -> Result<&Slot, Malformed> {
        let place = match &self.numbers {
            None => Some(usize::from(slot)),
            Some(numbers) => numbers.binary_search(&slot).ok(),
        };
        let slot = place.and_then(|place| self.slots.get(place));
        slot.ok_or(Malformed("a slot that is not there"))
    }

    /// A copy of one column's bytes.
    pub fn coded_column(&self, slot: u16) -> Result<Coded, Malformed> {
        let slot = self.slot(slot)?;
        let times = &self.times[slot.times];
        Ok(Coded {
            count: times.count,
            times: self.raw[times.bytes.clone()].into(),
            values: self.raw[slot.values.clone()].into(),
        })
    }

    /// Decodes the timestamps of a slot, unless they are known or the `last` ones.
    pub fn share_times(&self, slot: u16, last: &mut LastTimes) -> Result<(), Malformed> {
        let times = &self.times[self.slot(slot)?.times];
        if times.decoded.get().is_some() {
            return Ok(());
        }
        let coded = &self.raw[times.bytes.clone()];
        if last.decoded.len() == times.count && *last.coded == *coded {
            times.decoded.get_or_init(|| last.decoded.clone());
            return Ok(());
        }
        let decoded = self.times(slot)?.clone();
        *last = LastTimes {
            coded: coded.into(),
            decoded,
        };
        Ok(())
    }

    /// The bytes of a slot's values, and how many they are.
    fn coded(&self, slot: u16) -> Result<(&[u8], usize), Malformed> {
        let slot = self.slot(slot)?;
        let count = self.times[slot.times].count;
        Ok((&self.raw[slot.values.clone()], count))
    }

    fn times(&self, slot: u16) -> Result<&Arc<[Timestamp]>, Malformed> {
        let times = &self.times[self.slot(slot)?.times];
        if let Some(decoded) = times.decoded.get() {
            return Ok(decoded);
        }
        let decoded = times::decode(&self.raw[times.bytes.clone()], times.count)?;
        Ok(times.decoded.get_or_init(|| decoded.into()))
    }

    /// The bits of the values of a slot.
    pub fn values(&self, slot: u16) -> Result<Vec<u64>, Malformed> {
        let (bytes, count) = self.coded(slot)?;
        values::decode(bytes, count)
    }

    /// The same of slots of several pages together, which takes less than one by one.
    pub fn values_together<const N: usize>(
        slots: [(&Self, u16); N],
    ) -> Result<[Vec<u64>; N], Malformed> {
        let mut columns = [(&[][..], 0); N];
        for (column, (page, slot)) in columns.iter_mut().zip(slots) {
            *column = page.coded(slot)?;
        }
        let mut all: [Vec<u64>; N] = std::array::from_fn(|_| Vec::new());
        let decoded = values::decode_together(columns);
        for (values, decoded) in all.iter_mut().zip(decoded) {
            *values = decoded?;
        }
        Ok(all)
    }

    /// All samples of a slot.
    pub fn points(&self, slot: u16) -> Result<Vec<Point>, Malformed> {
        let (times, values) = (self.times(slot)?, self.values(slot)?);
        let points = times.iter().zip(values);
        Ok(points.map(|(&at, bits)| Point { at, bits }).collect())
    }

    /// Adds the samples of a slot that lie in `start ..= end`, and says what the slot holds in
    /// all: first and last instant, and how many. `values` are those of the slot.
    pub fn read_into(
        &self,
        slot: u16,
        values: &[u64],
        (start, end): (Timestamp, Timestamp),
        samples: &mut Samples,
    ) -> Result<(Timestamp, Timestamp, usize), Malformed> {
        let times = self.times(slot)?;
        if times.len() != values.len() {
            return Err(Malformed("not the values of this slot"));
        }
        let from = times.partition_point(|at| *at < start);
        let to = times.partition_point(|at| *at <= end).max(from);
        samples.timestamps.extend_from_slice(&times[from..to]);
        let inside = values[from..to].iter();
        samples
            .values
            .extend(inside.map(|&bits| f64::from_bits(bits)));
        match (times.first(), times.last()) {
            (Some(&first), Some(&last)) => Ok((first, last, times.len())),
            _ => Err(Malformed("a slot without samples")),
        }
    }
}

fn take_times(fields: &mut Fields<'_>, whole: usize) -> Result<Vec<Times>, Malformed> {
    let mut all = Vec::new();
    for _ in 0..fields.count(2)? {
        let count = usize::try_from(fields.varint()?).unwrap_or(usize::MAX);
        if !(1..=COLUMN_SAMPLES_MAX).contains(&count) {
            return Err(Malformed("a column of an impossible length"));
        }
        let len = fields.bytes()?.len();
        let end = whole - fields.remaining();
        all.push(Times {
            count,
            bytes: end - len..end,
            decoded: OnceLock::new(),
        });
    }
    Ok(all)
}

fn take_slots(
    fields: &mut Fields<'_>,
    whole: usize,
    times_count: usize,
) -> Result<Vec<Slot>, Malformed> {
    let count = usize::try_from(fields.varint()?).unwrap_or(usize::MAX);
    if count > PAGE_SLOTS {
        return Err(Malformed("too many slots"));
    }
    let times = take_ints(fields, count)?;
    let lens = take_ints(fields, count)?;
    let mut slots = Vec::with_capacity(count);
    for (times, len) in times.into_iter().zip(lens) {
        let times = usize::try_from(times).ok().filter(|at| *at < times_count);
        let times = times.ok_or(Malformed("timestamps that are not there"))?;
        let len = usize::try_from(len).map_err(|_| Malformed("a length below zero"))?;
        fields.take(len)?;
        let end = whole - fields.remaining();
        slots.push(Slot {
            times,
            values: end - len..end,
        });
    }
    fields.end()?;
    Ok(slots)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run() -> impl Strategy<Value = Vec<Point>> {
        let step = prop_oneof![Just(15_000i64), 1i64..30_000];
        let some = prop::collection::vec((step, prop_oneof![0u64..50, any::<u64>()]), 1..60);
        let regular = (0i64..3, 1usize..200)
            .prop_map(|(value, count)| vec![(15_000, (value as f64).to_bits()); count]);
        prop_oneof![some, regular].prop_map(|steps| {
            let points = steps.into_iter().scan(0, |at, (step, bits)| {
                *at += step;
                Some(Point {
                    at: Timestamp(*at),
                    bits,
                })
            });
            points.collect()
        })
    }

    proptest! {
        #[test]
        fn runs_come_back(runs in prop::collection::vec(run(), 1..40), start in 0i64..2_000_000) {
            let mut builder = Builder::default();
            runs.iter().for_each(|run| builder.add(run));
            let bytes = builder.finish().unwrap();
            prop_assert!(builder.is_empty());
            let page = Page::open(bytes).unwrap();
            let range = (Timestamp(start), Timestamp(start + 600_000));
            for (slot, run) in runs.iter().enumerate() {
                prop_assert_eq!(&page.points(slot as u16).unwrap(), run);
                let mut samples = Samples::default();
                let values = page.values(slot as u16).unwrap();
                let whole = page.read_into(slot as u16, &values, range, &mut samples).unwrap();
                prop_assert_eq!(whole, (run[0].at, run[run.len() - 1].at, run.len()));
                let inside = run.iter().filter(|p| p.at >= range.0 && p.at <= range.1);
                let inside: Vec<_> = inside.map(|p| (p.at, p.bits)).collect();
                let found: Vec<_> = samples.timestamps.iter().zip(&samples.values).map(|(at, v)| (*at, v.to_bits())).collect();
                prop_assert_eq!(found, inside);
            }
            prop_assert!(page.points(runs.len() as u16).is_err());
            prop_assert!(Page::values_together([(&page, 0), (&page, runs.len() as u16)]).is_err());
            let last = (runs.len() - 1) as u16;
            let both = Page::values_together([(&page, 0), (&page, last)]).unwrap();
            prop_assert_eq!(both, [page.values(0).unwrap(), page.values(last).unwrap()]);
        }

        #[test]
        fn arbitrary_bytes_never_panic(form in 0u8..3, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Page::open(bytes.clone().into());
            if let Ok(page) = Page::open([&[form][..], &bytes].concat().into()) {
                let _ = page.points(0);
            }
        }

        #[test]
        fn a_flipped_byte_never_panics(runs in prop::collection::vec(run(), 1..6), at in any::<prop::sample::Index>(), flip in 1u8..) {
            let mut builder = Builder::default();
            runs.iter().for_each(|run| builder.add(run));
            let mut bytes = builder.finish().unwrap().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            if let Ok(page) = Page::open(bytes.into()) {
                for slot in 0..runs.len() as u16 {
                    let _ = page.points(slot);
                }
            }
        }
    }

    #[test]
    fn pages_of_the_same_timestamps_share_them() {
        let page = |shift: i64, values: f64| {
            let point = |n: i64| Point::new(Timestamp(n * 15_000 + shift), values);
            let mut builder = Builder::default();
            builder.add(&(0..100).map(point).collect::<Vec<_>>());
            Page::open(builder.finish().unwrap()).unwrap()
        };
        let (pages, mut last) = (
            [page(0, 1.0), page(0, 2.0), page(7, 2.0)],
            LastTimes::default(),
        );
        for page in &pages {
            page.share_times(0, &mut last).unwrap();
        }
        let times = pages.each_ref().map(|page| page.times(0).unwrap().clone());
        assert!(Arc::ptr_eq(&times[0], &times[1]));
        assert_eq!(times[1][99], Timestamp(99 * 15_000));
        assert_eq!(times[2][99], Timestamp(99 * 15_000 + 7));
        assert!(pages[0].share_times(1, &mut last).is_err());
    }

    #[test]
    fn timestamps_that_many_series_share_are_held_once() {
        let mut builder = Builder::default();
        let mut at = 0;
        let times: Vec<i64> = (0..480i64)
            .map(|n| {
                at += 15_000 + n * n % 7;
                at
            })
            .collect();
        for _ in 0..100 {
            let points: Vec<_> = times
                .iter()
                .map(|&t| Point::new(Timestamp(t), 1.0))
                .collect();
            builder.add(&points);
        }
        assert!(builder.finish().unwrap().len() < 2_000);
    }
}
