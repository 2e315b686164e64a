//! Rows of many writes on their way to their series: kept as pieces of the writes' columns, and turned
//! into columns of each series once there are enough.
//!
//! A write has a row for each of many series that were registered one after the other, all of one
//! instant, so a piece stands for many rows, and a value is moved twice: out of the log, and next to the
//! others of its series. Rows that come otherwise are pieces of one row.

use model::{SeriesId, Timestamp};

use crate::chunk::Point;

/// Series side by side whose rows are turned together: their points and the ends of their columns
/// stay in a core's cache.
pub const BUCKET_SERIES: usize = 128;

/// Rows of one write and one instant, of series side by side in one bucket.
pub struct Piece {
    /// Of the first.
    pub id: SeriesId,
    pub at: Timestamp,
    /// Where the value of the first stands, those of the others behind it.
    value: usize,
    /// Which of the run's.
    pub write: u32,
    /// Place of the first series in the bucket.
    slot: u8,
    len: u8,
}

/// A bucket's slots and how many they are are told by a byte.
const _: () = assert!(BUCKET_SERIES <= u8::MAX as usize);

impl Piece {
    /// Whether rows of so many series from a place on, all else as here, go on where this ends.
    fn ends_at(&self, next: &Self) -> bool {
        let len = usize::from(self.len);
        (self.at, self.write) == (next.at, next.write)
            && self.value + len == next.value
            && self.id.0 + len as u64 == next.id.0
            && usize::from(self.slot) + len == usize::from(next.slot)
    }

    fn slots(&self) -> std::ops::Range<usize> {
        let slot = usize::from(self.slot);
        slot..slot + usize::from(self.len)
    }
}

/// Pieces by the place of their series, those of one bucket in the order of the log.
#[derive(Default)]
pub struct Buckets {
    buckets: Vec<Vec<Piece>>,
    pieces: usize,
}

impl Buckets {
    /// How many pieces there are.
    pub fn pieces(&self) -> usize {
        self.pieces
    }

    /// Adds rows of `len` series, whose ids and places follow one another from `id` and `place` on.
    pub fn add(&mut self, mut rows: Stretch, write: u32) {
        while rows.len > 0 {
            let (bucket, slot) = (rows.place / BUCKET_SERIES, rows.place % BUCKET_SERIES);
            let len = rows.len.min(BUCKET_SERIES - slot);
            let piece = Piece {
                id: rows.id,
                at: rows.at,
                value: rows.value,
                write,
                slot: slot as u8,
                len: len as u8,
            };
            self.push(bucket, piece);
            rows = rows.behind(len);
        }
    }

    fn push(&mut self, bucket: usize, piece: Piece) {
        if bucket >= self.buckets.len() {
            self.buckets.resize_with(bucket + 1, Vec::new);
        }
        let bucket = &mut self.buckets[bucket];
        match bucket.last_mut() {
            Some(last) if last.ends_at(&piece) => last.len += piece.len,
            _ => {
                bucket.push(piece);
                self.pieces += 1;
            }
        }
    }

    /// Each bucket with something in it, and the place of its first series; then they are empty.
    pub fn drain(&mut self, mut each: impl FnMut(usize, &[Piece])) {
        let places = (0..).step_by(BUCKET_SERIES);
        for (place, bucket) in places.zip(&mut self.buckets) {
            if !bucket.is_empty() {
                each(place, bucket);
                bucket.clear();
            }
        }
        self.pieces = 0;
    }
}

/// Rows of one instant, of series whose ids and places follow one another.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    pub id: SeriesId,
    pub place: usize,
    pub at: Timestamp,
    /// Where the value of the first stands.
    pub value: usize,
    pub len: usize,
}

impl Stretch {
    fn behind(self, rows: usize) -> Self {
        Self {
            id: SeriesId(self.id.0 + rows as u64),
            place: self.place + rows,
            value: self.value + rows,
            len: self.len - rows,
            ..self
        }
    }
}

/// The rows of one bucket by series. Made to be used again.
pub struct Columns {
    ids: [SeriesId; BUCKET_SERIES],
    /// Behind the last row of each series, which begins where the one before ends.
    ends: [usize; BUCKET_SERIES],
    points: Vec<Point>,
    /// Of each row the number of its write; asked for where a row is judged by itself.
    writes: Vec<u32>,
}

impl Default for Columns {
    fn default() -> Self {
        Self {
            ids: [SeriesId(0); BUCKET_SERIES],
            ends: [0; BUCKET_SERIES],
            points: Vec::new(),
            writes: Vec::new(),
        }
    }
}

impl Columns {
    /// Takes the rows of `pieces`, whose values stand in `values`.
    pub fn fill(&mut self, pieces: &[Piece], values: &[f64]) {
        let rows = self.count(pieces);
        let nothing = Point {
            at: Timestamp(0),
            bits: 0,
        };
        self.points.resize(rows.max(self.points.len()), nothing);
        self.writes.clear();
        let (points, mut next) = (&mut self.points[..rows], starts(&self.ends));
        for piece in pieces {
            let values = &values[piece.value..][..usize::from(piece.len)];
            for (next, value) in next[piece.slots()].iter_mut().zip(values) {
                let (at, bits) = (piece.at, value.to_bits());
                points[*next] = Point { at, bits };
                *next += 1;
            }
        }
    }

    /// Finds out where each series' rows begin and end; how many there are.
    fn count(&mut self, pieces: &[Piece]) -> usize {
        self.ends.fill(0);
        for piece in pieces {
            let slots = piece.slots();
            self.ends[slots.clone()]
                .iter_mut()
                .for_each(|end| *end += 1);
            let ids = (piece.id.0..).map(SeriesId);
            let places = self.ids[slots].iter_mut().zip(ids);
            places.for_each(|(place, id)| *place = id);
        }
        let mut rows = 0;
        for end in &mut self.ends {
            rows += *end;
            *end = rows;
        }
        rows
    }

    pub fn rows(&self) -> usize {
        self.ends[BUCKET_SERIES - 1]
    }

    /// The id of a series that has rows.
    pub fn id(&self, slot: usize) -> SeriesId {
        self.ids[slot]
    }

    /// Which rows are those of a series.
    pub fn of(&self, slot: usize) -> std::ops::Range<usize> {
        let start = slot.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[slot]
    }

    /// Of all rows, by series, those of one in the order of the log.
    pub fn points(&self) -> &[Point] {
        &self.points[..self.rows()]
    }

    /// The write of each row; `pieces` are those it was filled from.
    pub fn writes(&mut self, pieces: &[Piece]) -> &[u32] {
        if self.writes.is_empty() {
            self.writes.resize(self.rows(), 0);
            let mut next = starts(&self.ends);
            for piece in pieces {
                for next in &mut next[piece.slots()] {
                    self.writes[*next] = piece.write;
                    *next += 1;
                }
            }
        }
        &self.writes
    }
}

fn starts(ends: &[usize; BUCKET_SERIES]) -> [usize; BUCKET_SERIES] {
    let mut starts = [0; BUCKET_SERIES];
    starts[1..].copy_from_slice(&ends[..BUCKET_SERIES - 1]);
    starts
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_series_has_its_rows_in_their_order(
            stretches in prop::collection::vec((0usize..400, 1usize..300, 0i64..5), 0..30),
        ) {
            let (mut buckets, mut values, mut twin) = (Buckets::default(), Vec::new(), BTreeMap::<_, Vec<_>>::new());
            for (write, (place, len, at)) in (0u32..).zip(stretches) {
                let (id, at) = (SeriesId(place as u64 + 7), Timestamp(at));
                buckets.add(Stretch { id, place, at, value: values.len(), len }, write);
                for place in place..place + len {
                    let point = Point::new(at, values.len() as f64);
                    twin.entry(place).or_default().push((place as u64 + 7, write, point));
                    values.push(values.len() as f64);
                }
            }
            let (mut columns, mut found) = (Columns::default(), BTreeMap::<_, Vec<_>>::new());
            buckets.drain(|first, pieces| {
                columns.fill(pieces, &values);
                let writes = columns.writes(pieces).to_vec();
                for slot in 0..BUCKET_SERIES {
                    for row in columns.of(slot) {
                        let row = (columns.id(slot).0, writes[row], columns.points()[row]);
                        found.entry(first + slot).or_default().push(row);
                    }
                }
            });
            prop_assert_eq!(found, twin);
            prop_assert_eq!(buckets.pieces(), 0);
        }
    }
}
