//! A run of samples of one series, compressed: delta-of-delta timestamps, and values as differences
//! of decimals, or XORed where they are none of few places.
//!
//! The coding is that of "Gorilla: A Fast, Scalable, In-Memory Time Series Database" (Pelkonen et
//! al., VLDB 2015) with wider timestamp buckets, and with [`decimal`] numbers before it; docs/format/chunk.md
//! draws it. All arithmetic on timestamps wraps, so that any two of them have a delta, and values
//! are bits: every NaN stays the NaN it was.
//!
//! A chunk knows its count and its first and last timestamp from whoever stores it; bytes that do
//! not decode to exactly those are an error.

use bytes::Bytes;
use model::{Samples, Timestamp};

use crate::bits::{BitStream, BitWriter, Bits, Together, Words};
use crate::decimal;

/// Samples of a chunk in the head.
pub const HEAD_CHUNK_SAMPLES: u16 = 120;
/// Samples of a chunk in a block: fewer headers, still cheap to decode for one lookup.
pub const BLOCK_CHUNK_SAMPLES: u16 = 480;

/// One sample by its bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    pub at: Timestamp,
    pub bits: u64,
}

impl Point {
    pub fn new(at: Timestamp, value: f64) -> Self {
        Self {
            at,
            bits: value.to_bits(),
        }
    }
}

/// Why bytes are not the chunk they are said to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    #[error("chunk ends early")]
    Truncated,
    #[error("bytes behind the last sample")]
    Trailing,
    #[error("timestamps do not increase")]
    OutOfOrder,
    #[error("count or time range differs from what was noted")]
    NotAsNoted,
}

/// How the values of a chunk are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Each XORed with the one before: in checkpoints before version 4 and blocks before 3.
    Xor,
    /// Decimals for as long as they are some, then XORed.
    Decimal,
}

/// A finished run of samples. Cheap to clone.
///
/// Invariants: `count >= 1`; timestamps strictly increase from `min` to `max`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub min: Timestamp,
    pub max: Timestamp,
    pub count: u16,
    pub coding: Coding,
    pub data: Bytes,
}

impl Chunk {
    /// Decodes and checks everything.
    pub fn decode(&self) -> Result<Vec<Point>, ChunkError> {
        let mut points = Vec::with_capacity(usize::from(self.count));
        self.visit(|point| points.push(point))?;
        Ok(points)
    }

    /// Decodes and checks everything; what lies in `start ..= end` is added to `samples`.
    pub fn decode_into(
        &self,
        start: Timestamp,
        end: Timestamp,
        samples: &mut Samples,
    ) -> Result<(), ChunkError> {
        samples.timestamps.reserve(usize::from(self.count));
        samples.values.reserve(usize::from(self.count));
        self.visit(|point| {
            if point.at >= start && point.at <= end {
                samples.timestamps.push(point.at);
                samples.values.push(f64::from_bits(point.bits));
            }
        })
        .map(drop)
    }

    /// Calls `each` with every sample; on an error it was called with some that are none.
    fn visit(&self, each: impl FnMut(Point)) -> Result<End, ChunkError> {
        let end = walk(&self.data, self.coding, self.count, each)?;
        match (end.first, end.previous.point.at) == (self.min, self.max) {
            true => Ok(end),
            false => Err(ChunkError::NotAsNoted),
        }
    }

    /// Decodes a chunk that this process encoded or has checked when it was loaded.
    pub fn points(&self) -> Vec<Point> {
        self.decode().expect("a chunk in memory decodes")
    }

    /// Whether the chunk's time range meets `start ..= end`.
    pub fn overlaps(&self, start: Timestamp, end: Timestamp) -> bool {
        self.min <= end && self.max >= start
    }
}

/// Cuts points, which must strictly increase, into chunks of at most `samples_max`.
pub fn encode(points: &[Point], samples_max: u16) -> Vec<Chunk> {
    let mut words = Words::default();
    points
        .chunks(usize::from(samples_max))
        .filter_map(|run| {
            let (first, rest) = run.split_first()?;
            Some(Appender::of_all(*first, rest, &mut words).chunk())
        })
        .collect()
}

/// What both sides remember between two samples.
#[derive(Debug, Clone, Copy)]
struct Previous {
    point: Point,
    delta: i64,
    /// Of decimals the width of a difference that '10' refers to, otherwise the window of meaningful
    /// bits; `significant` is 0 before the first.
    leading: u8,
    significant: u8,
    /// Of decimals, or [`AS_BITS`].
    places: u8,
    /// Samples so far.
    count: u16,
}

impl Previous {
    fn start(point: Point, places: u8) -> Self {
        Self {
            point,
            delta: 0,
            leading: 0,
            significant: 0,
            places,
            count: 1,
        }
    }

    /// Points later than all before, each than the one before.
    fn put_all(&mut self, points: &[Point], out: &mut impl Bits) {
        let mut digits = self.digits();
        for &point in points {
            assert!(point.at > self.point.at, "a chunk is in order");
            self.put_timestamp(point.at, out);
            match point.bits == self.point.bits {
                true => out.push(0, 1),
                false => digits = self.put_change(point.bits, digits, out),
            }
            self.point = point;
            self.count += 1;
        }
    }

    #[inline]
    fn put_timestamp(&mut self, at: Timestamp, out: &mut impl Bits) {
        let delta = at.0.wrapping_sub(self.point.at.0);
        let change = delta.wrapping_sub(self.delta);
        self.delta = delta;
        if change == 0 {
            return out.push(0, 1);
        }
        match BUCKETS.iter().find(|bucket| bucket.holds(change)) {
            Some(bucket) => {
                out.push(bucket.prefix, bucket.prefix_bits);
                out.push(change as u64, bucket.bits);
            }
            None => {
                out.push(0b1111, 4);
                out.push(change as u64, 64);
            }
        }
    }

    /// Of the sample before, if it is written as a decimal.
    #[inline]
    fn digits(&self) -> Option<i64> {
        match self.places {
            AS_BITS => None,
            places => decimal::digits_of(self.point.bits, places),
        }
    }

    /// A value other than the one before, whose digits are `before`; gives its own.
    #[inline]
    fn put_change(&mut self, bits: u64, before: Option<i64>, out: &mut impl Bits) -> Option<i64> {
        if self.places == AS_BITS {
            self.put_xor(bits ^ self.point.bits, out);
            return None;
        }
        let digits = decimal::digits_of(bits, self.places);
        match (digits, before) {
            (Some(now), Some(before)) => self.put_difference(now - before, out),
            _ => return self.put_with_other_places(bits, out),
        }
        digits
    }

    #[inline]
    fn put_difference(&mut self, difference: i64, out: &mut impl Bits) {
        let word = (difference << 1 ^ difference >> 63) as u64;
        let width = (64 - word.leading_zeros()) as u8;
        let window = &mut self.significant;
        if width <= *window && *window - width < SHRINK_BITS {
            out.push(0b10, 2);
            return out.push(word, u32::from(*window));
        }
        *window = width;
        out.push(0b11 << 6 | u64::from(width), 8);
        out.push(word, u32::from(width));
    }

    /// What has more places than the values before, or is no decimal.
    #[cold]
    fn put_with_other_places(&mut self, bits: u64, out: &mut impl Bits) -> Option<i64> {
        let places = decimal::places_of(bits, self.places + 1);
        let before = |places: &u8| decimal::digits_of(self.point.bits, *places);
        let places = places.filter(|places| before(places).is_some());
        let places = places.unwrap_or(AS_BITS);
        out.push(0b11 << 6 | CHANGE, 8);
        out.push(u64::from(places), 4);
        self.change_places(places);
        self.put_change(bits, self.digits(), out)
    }

    fn put_xor(&mut self, xor: u64, out: &mut impl Bits) {
        let leading = xor.leading_zeros().min(31) as u8;
        let trailing = xor.trailing_zeros() as u8;
        let window = self;
        let window_trailing = 64 - window.leading - window.significant;
        if window.significant > 0 && leading >= window.leading && trailing >= window_trailing {
            out.push(0b10, 2);
            let significant = u32::from(window.significant);
            return out.push(xor >> window_trailing, significant);
        }
        window.leading = leading;
        window.significant = 64 - leading - trailing;
        let significant = window.significant;
        out.push(0b11, 2);
        out.push(u64::from(leading), 5);
        out.push(u64::from(significant - 1), 6);
        out.push(xor >> trailing, u32::from(significant));
    }

    /// From here on values are those of so many places, or none.
    fn change_places(&mut self, places: u8) {
        self.places = places;
        if places == AS_BITS {
            (self.leading, self.significant) = (0, 0);
        }
    }
}

/// In the place of how many places values have: they are XORed.
const AS_BITS: u8 = 15;
/// In the place of a difference's width: the number of places changes.
const CHANGE: u64 = 63;
/// A difference between decimals, its sign included.
const WIDTH_MAX: u32 = 52;
/// In front of nearly every sample: a timestamp as far from the one before as that was, and a decimal
/// whose difference is as wide as the window. Taken in one, the next sample does not wait until
/// three things of this one are known.
const USUAL: u64 = 0b010;
const USUAL_BITS: u32 = 3;
/// By so many bits a difference is shorter than the window before the window shrinks.
const SHRINK_BITS: u8 = 7;

/// A chunk that still grows.
#[derive(Debug, Clone)]
pub struct Appender {
    writer: BitWriter,
    min: Timestamp,
    previous: Previous,
}

impl Appender {
    pub fn new(first: Point) -> Self {
        let places = decimal::places_of(first.bits, 0).unwrap_or(AS_BITS);
        let mut writer = BitWriter::default();
        writer.push(first.at.0 as u64, 64);
        writer.push(first.bits, 64);
        writer.push(u64::from(places), 4);
        Self {
            writer,
            min: first.at,
            previous: Previous::start(first, places),
        }
    }

    /// As [`Appender::new`] and then [`Appender::append_all`].
    pub fn of_all(first: Point, rest: &[Point], words: &mut Words) -> Self {
        let places = decimal::places_of(first.bits, 0).unwrap_or(AS_BITS);
        let mut writer = BitWriter::default();
        let mut previous = Previous::start(first, places);
        words.begin(&writer);
        words.push(first.at.0 as u64, 64);
        words.push(first.bits, 64);
        words.push(u64::from(places), 4);
        previous.put_all(rest, words);
        words.end(&mut writer);
        Self {
            writer,
            min: first.at,
            previous,
        }
    }

    /// Goes on with a finished chunk, in the present coding.
    pub fn resume(chunk: &Chunk) -> Result<Self, ChunkError> {
        if chunk.coding == Coding::Xor {
            let points = chunk.decode()?;
            let (first, rest) = points.split_first().ok_or(ChunkError::NotAsNoted)?;
            return Ok(Self::of_all(*first, rest, &mut Words::default()));
        }
        let end = chunk.visit(|_| ())?;
        let writer = BitWriter::resume(&chunk.data, end.position).ok_or(ChunkError::Trailing)?;
        Ok(Self {
            writer,
            min: chunk.min,
            previous: end.previous,
        })
    }

    pub fn count(&self) -> u16 {
        self.previous.count
    }

    pub fn min(&self) -> Timestamp {
        self.min
    }

    pub fn last(&self) -> Point {
        self.previous.point
    }

    pub fn bytes_len(&self) -> usize {
        self.writer.bytes_len()
    }

    /// Reads a byte of each cache line, for whoever will copy many.
    pub fn touch(&self) -> u8 {
        let lines = self.writer.words().iter().step_by(64);
        lines.fold(0, |all, byte| all ^ byte)
    }

    /// Reads where the next sample goes, and what it goes on from.
    pub fn touch_end(&self) -> u8 {
        self.writer.touch() ^ self.previous.count as u8
    }

    /// Appends a point later than all before.
    pub fn append(&mut self, point: Point) {
        let previous = &mut self.previous;
        assert!(point.at > previous.point.at, "a chunk is in order");
        let mut together = Together::new(&mut self.writer);
        previous.put_timestamp(point.at, &mut together);
        match point.bits == previous.point.bits {
            true => together.push(0, 1),
            false => drop(previous.put_change(point.bits, previous.digits(), &mut together)),
        }
        together.flush();
        previous.point = point;
        previous.count += 1;
    }

    /// As [`Appender::append`] for one point after the other, in less time the more they are.
    pub fn append_all(&mut self, points: &[Point], words: &mut Words) {
        words.begin(&self.writer);
        self.previous.put_all(points, words);
        words.end(&mut self.writer);
    }

    /// As [`Appender::append_all`] and then [`Appender::chunk`], for a chunk that grows no more: its bytes are
    /// put together where they stay.
    pub fn close(&mut self, points: &[Point], words: &mut Words) -> Chunk {
        words.begin(&self.writer);
        self.previous.put_all(points, words);
        Chunk {
            min: self.min,
            max: self.previous.point.at,
            count: self.count(),
            coding: Coding::Decimal,
            data: words.behind(&self.writer).into(),
        }
    }

    /// The chunk so far, as a copy.
    pub fn chunk(&self) -> Chunk {
        Chunk {
            min: self.min,
            max: self.previous.point.at,
            count: self.count(),
            coding: Coding::Decimal,
            data: self.writer.to_bytes().into(),
        }
    }
}

/// A range of delta-of-deltas with its own prefix: signed numbers of `bits` bits.
struct Bucket {
    prefix: u64,
    prefix_bits: u32,
    bits: u32,
}

impl Bucket {
    fn holds(&self, change: i64) -> bool {
        let half = 1i64 << (self.bits - 1);
        (-half..half).contains(&change)
    }
}

const BUCKETS: [Bucket; 3] = [
    Bucket {
        prefix: 0b10,
        prefix_bits: 2,
        bits: 12,
    },
    Bucket {
        prefix: 0b110,
        prefix_bits: 3,
        bits: 17,
    },
    Bucket {
        prefix: 0b1110,
        prefix_bits: 4,
        bits: 32,
    },
];

/// What is known once all samples of a chunk were walked.
struct End {
    first: Timestamp,
    previous: Previous,
    /// Bits of all samples.
    position: usize,
}

/// Calls `each` with `count` samples; checks that they are in order, and that nothing but zero
/// padding follows.
#[inline(always)]
fn walk(
    data: &[u8],
    coding: Coding,
    count: u16,
    mut each: impl FnMut(Point),
) -> Result<End, ChunkError> {
    let mut bits = BitStream::new(data);
    if count == 0 {
        return Err(ChunkError::NotAsNoted);
    }
    let at = Timestamp(bits.read(64).ok_or(ChunkError::Truncated)? as i64);
    let value = bits.read(64).ok_or(ChunkError::Truncated)?;
    let first = Point { at, bits: value };
    each(first);
    let places = match coding {
        Coding::Xor => Some(AS_BITS),
        Coding::Decimal => read_places(&mut bits),
    };
    let places = places.ok_or(ChunkError::Truncated)?;
    let mut previous = Previous::start(first, places);
    let digits = match places {
        AS_BITS => Some(0),
        places => decimal::digits_of(value, places),
    };
    let mut digits = digits.ok_or(ChunkError::Truncated)?;
    for _ in 1..count {
        let usual = match previous.places {
            AS_BITS => None,
            _ => bits.read_behind(USUAL, USUAL_BITS, u32::from(previous.significant)),
        };
        let (change, value) = match usual {
            Some(word) => (0, add_difference(word, &previous, &mut digits)),
            None => {
                let change = read_change(&mut bits).ok_or(ChunkError::Truncated)?;
                let value = match previous.places {
                    AS_BITS => read_xor(&mut bits, &mut previous),
                    _ => read_decimal(&mut bits, &mut previous, &mut digits),
                };
                (change, value)
            }
        };
        let value = value.ok_or(ChunkError::Truncated)?;
        previous.delta = previous.delta.wrapping_add(change);
        let before = previous.point;
        let point = Point {
            at: Timestamp(before.at.0.wrapping_add(previous.delta)),
            bits: value,
        };
        if point.at <= before.at {
            return Err(ChunkError::OutOfOrder);
        }
        previous.point = point;
        each(point);
    }
    previous.count = count;
    let position = bits.position();
    match bits.is_padding() {
        true => Ok(End {
            first: first.at,
            previous,
            position,
        }),
        false => Err(ChunkError::Trailing),
    }
}

/// The next delta-of-delta.
#[inline(always)]
fn read_change(bits: &mut BitStream<'_>) -> Option<i64> {
    let ones = bits.read_ones(4)?;
    let Some(bucket) = ones.checked_sub(1) else {
        return Some(0);
    };
    match BUCKETS.get(bucket as usize) {
        None => bits.read(64).map(|raw| raw as i64),
        Some(bucket) => {
            let unused = 64 - bucket.bits;
            bits.read(bucket.bits)
                .map(|raw| (raw << unused) as i64 >> unused)
        }
    }
}

/// How many places follow, or [`AS_BITS`].
fn read_places(bits: &mut BitStream<'_>) -> Option<u8> {
    let places = bits.read(4)? as u8;
    (places <= decimal::PLACES_MAX || places == AS_BITS).then_some(places)
}

/// The bits of the next value, given the digits of the one before.
#[inline(always)]
fn read_decimal(
    bits: &mut BitStream<'_>,
    previous: &mut Previous,
    digits: &mut i64,
) -> Option<u64> {
    match bits.read_ones(2)? {
        0 => return Some(previous.point.bits),
        1 => {}
        _ => match bits.read(6)? {
            CHANGE => return read_with_other_places(bits, previous, digits),
            width => previous.significant = width as u8,
        },
    }
    read_difference(bits, previous, digits)
}

#[inline(always)]
fn read_difference(bits: &mut BitStream<'_>, previous: &Previous, digits: &mut i64) -> Option<u64> {
    // A window that a writer never makes.
    let width = u32::from(previous.significant);
    if width == 0 || width > WIDTH_MAX {
        return None;
    }
    let word = bits.read(width)?;
    add_difference(word, previous, digits)
}

#[inline(always)]
fn add_difference(word: u64, previous: &Previous, digits: &mut i64) -> Option<u64> {
    *digits += (word >> 1) as i64 ^ -((word & 1) as i64);
    decimal::bits_of(*digits, previous.places)
}

#[cold]
fn read_with_other_places(
    bits: &mut BitStream<'_>,
    previous: &mut Previous,
    digits: &mut i64,
) -> Option<u64> {
    let places = read_places(bits).filter(|places| *places > previous.places)?;
    previous.change_places(places);
    if places == AS_BITS {
        return read_xor(bits, previous);
    }
    *digits = decimal::digits_of(previous.point.bits, places)?;
    // One change for a value.
    match bits.read_ones(2)? {
        0 => Some(previous.point.bits),
        ones => {
            if ones == 2 {
                previous.significant = bits.read(6)? as u8;
            }
            read_difference(bits, previous, digits)
        }
    }
}

/// The bits of the next value, that is not a decimal.
#[inline(always)]
fn read_xor(bits: &mut BitStream<'_>, window: &mut Previous) -> Option<u64> {
    match bits.read_ones(2)? {
        0 => return Some(window.point.bits),
        1 => {}
        _ => {
            let both = bits.read(11)?;
            window.leading = (both >> 6) as u8;
            window.significant = (both & 0x3f) as u8 + 1;
        }
    }
    // A window that a writer never makes: none yet, or wider than a word.
    if window.significant == 0 || window.leading + window.significant > 64 {
        return None;
    }
    let xor = bits.read(u32::from(window.significant))?;
    Some(window.point.bits ^ xor << (64 - window.leading - window.significant))
}

#[cfg(test)]
mod tests {
    use model::sample::STALE_NAN;
    use proptest::prelude::*;

    use super::*;

    fn odd_value() -> impl Strategy<Value = u64> {
        prop_oneof![
            any::<u64>(),
            (-1000i32..1000).prop_map(|v| f64::from(v).to_bits()),
            (0u32..100_000).prop_map(|v| (f64::from(v) / 10.0).to_bits()),
            (-9_999i32..9_999, 0..10)
                .prop_map(|(v, places)| (f64::from(v) / 10f64.powi(places)).to_bits()),
            (0u64..1 << 52).prop_map(|v| (v as f64).to_bits()),
            Just(STALE_NAN.to_bits()),
            Just(0xfff8_0000_dead_beef),
            Just(f64::INFINITY.to_bits()),
            Just(f64::NEG_INFINITY.to_bits()),
            Just((-0.0f64).to_bits()),
            Just(1u64),
        ]
    }

    fn coding() -> impl Strategy<Value = Coding> {
        prop_oneof![Just(Coding::Xor), Just(Coding::Decimal)]
    }

    fn odd_time() -> impl Strategy<Value = i64> {
        prop_oneof![
            any::<i64>(),
            (0i64..1000).prop_map(|n| n * 15_000),
            0i64..100_000,
            Just(i64::MIN),
            Just(i64::MAX),
        ]
    }

    fn points() -> impl Strategy<Value = Vec<Point>> {
        prop::collection::btree_map(odd_time(), odd_value(), 1..300).prop_map(|map| {
            map.into_iter()
                .map(|(at, bits)| Point {
                    at: Timestamp(at),
                    bits,
                })
                .collect()
        })
    }

    fn decode_all(chunks: &[Chunk]) -> Vec<Point> {
        chunks.iter().flat_map(Chunk::points).collect()
    }

    proptest! {
        #[test]
        fn decodes_to_what_was_encoded(points in points(), samples_max in 1u16..200) {
            let chunks = encode(&points, samples_max);
            prop_assert_eq!(decode_all(&chunks), points);
        }

        #[test]
        fn a_resumed_appender_writes_the_same_bytes(points in points(), at in any::<prop::sample::Index>()) {
            let cut = 1 + at.index(points.len());
            let whole = encode(&points, 400).remove(0);
            let half = encode(&points[..cut], 400).remove(0);
            let mut resumed = Appender::resume(&half).unwrap();
            points[cut..].iter().for_each(|&p| resumed.append(p));
            prop_assert_eq!(resumed.chunk(), whole.clone());
            let mut resumed = Appender::resume(&half).unwrap();
            let (some, rest) = points[cut..].split_at((points.len() - cut) / 2);
            let mut words = Words::default();
            resumed.append_all(some, &mut words);
            resumed.append_all(rest, &mut words);
            prop_assert_eq!(resumed.chunk(), whole);
        }

        #[test]
        fn arbitrary_bytes_never_panic(data in prop::collection::vec(any::<u8>(), 0..200), count in any::<u16>(), coding in coding()) {
            let chunk = Chunk { min: Timestamp(0), max: Timestamp(1), count, coding, data: data.into() };
            prop_assert!(chunk.decode().is_err() || count > 0);
            prop_assert!(Appender::resume(&chunk).is_err() || count > 0);
        }

        #[test]
        fn a_chunk_cut_or_extended_is_refused(points in points()) {
            let chunk = encode(&points, 400).remove(0);
            let mut longer = chunk.clone();
            longer.data = [&chunk.data[..], &[0]].concat().into();
            prop_assert_eq!(longer.decode(), Err(ChunkError::Trailing));
            let mut shorter = chunk.clone();
            shorter.data = chunk.data.slice(..chunk.data.len() - 1);
            prop_assert!(shorter.decode().is_err());
        }
    }

    #[test]
    fn regular_samples_take_two_bits_each() {
        let points: Vec<_> = (0..120)
            .map(|n| Point::new(Timestamp(1_700_000_000_000 + n * 15_000), 1.0))
            .collect();
        let chunk = encode(&points, 120).remove(0);
        // 16 bytes and 4 bits for the first, 21 for the second, two for each other.
        assert_eq!(chunk.data.len(), 16 + 33);
    }

    #[test]
    fn decimals_take_what_they_differ_by() {
        let gauge = |n: i64| 1_000.0 + (n * 7 % 10) as f64 / 10.0;
        let at = |n| Timestamp(1_700_000_000_000 + n * 15_000);
        let points: Vec<_> = (0..120).map(|n| Point::new(at(n), gauge(n))).collect();
        let chunk = encode(&points, 120).remove(0);
        // The second sample takes its delta, a change of places and a width. Each other takes a bit
        // of time and six of value.
        let bits: usize = 4 + (20 + 12 + 12) + 118 * 7;
        assert_eq!(chunk.data.len(), 16 + bits.div_ceil(8));
        // As numbers of seconds come, at first whole.
        let points = [1.0, 1.5, 1.25, 1e-9, 0.1 + 0.2, 7.0, STALE_NAN];
        let points = (0..).zip(points).map(|(n, value)| Point::new(at(n), value));
        let points: Vec<_> = points.collect();
        assert_eq!(decode_all(&encode(&points, 120)), points);
    }

    /// Bytes after the first timestamp and value, as text of bits.
    fn bytes(first: (u64, f64), bits: &str) -> Vec<u8> {
        let mut bytes = [first.0.to_be_bytes(), first.1.to_bits().to_be_bytes()].concat();
        let padded = format!("{bits:0<width$}", width = bits.len().next_multiple_of(8));
        let byte = |at| u8::from_str_radix(&padded[at..at + 8], 2).unwrap();
        bytes.extend((0..padded.len()).step_by(8).map(byte));
        bytes
    }

    #[test]
    fn the_bytes_are_fixed() {
        let points = [
            (1_000, 1.0),
            (2_000, 1.0),
            (3_000, 3.0),
            (2_003_000, 3.5),
            (4_003_000, 1.0 / 3.0),
        ];
        let points = points.map(|(at, value)| Point::new(Timestamp(at), value));
        let chunk = encode(&points, 120).remove(0);
        let bits = concat!(
            "0000",         // whole numbers
            "10",           // the first delta
            "001111101000", //
            "0",            // the same value
            "0",            // the same delta
            "11",           // a difference
            "000011",       // of three bits
            "100",          // which is 2
            "1110",         // the delta changes by 1999000
            "00000000000111101000000010011000",
            "11",     // from here on
            "111111", // numbers have
            "0001",   // one place
            "11",     // a difference
            "000100", // of four bits
            "1010",   // which is 5
            "0",      // the same delta
            "11",     // from here on
            "111111", // numbers
            "1111",   // are bits
            "11",     // a window
            "00001",  // behind so many zeros: 1
            "111110", // of so many bits: 63
            "111111111011001010101010101010101010101010101010101010101010101",
        );
        assert_eq!(chunk.data, bytes((1_000, 1.0), bits));
        assert_eq!(chunk.points(), points);
    }

    #[test]
    fn what_was_written_before_decimals_is_read_and_gone_on_with() {
        let points = [(1_000, 1.0), (2_000, 1.0), (3_000, 3.0), (2_003_000, 3.0)];
        let points = points.map(|(at, value)| Point::new(Timestamp(at), value));
        // 10 + 12 bits of 1000, same value; 0, xor of 1.0 and 3.0 with 1 leading zero and 12
        // bits; 1110 + 32 bits of 1999000, same value.
        let bits = concat!(
            "10",
            "001111101000",
            "0",
            "0",
            "11",
            "00001",
            "001011",
            "111111111111",
            "1110",
            "00000000000111101000000010011000",
            "0",
        );
        let chunk = Chunk {
            min: Timestamp(1_000),
            max: Timestamp(2_003_000),
            count: 4,
            coding: Coding::Xor,
            data: bytes((1_000, 1.0), bits).into(),
        };
        assert_eq!(chunk.points(), points);
        let mut resumed = Appender::resume(&chunk).unwrap();
        resumed.append(Point::new(Timestamp(2_004_000), 4.0));
        let again = resumed.chunk();
        assert_eq!(again.points()[..4], points);
        assert_eq!((again.coding, again.count), (Coding::Decimal, 5));
    }
}
