//! The values of a write's rows since version 12: how each is written, then what is written alike together,
//! so that numbers of one size lie side by side.
//!
//! A value is a whole number of units where that gives its bits again; else it stands as it is. Of
//! several in a row of one series in the same units the first stands as it is and the others as steps.

use super::columns::Decimal;
use super::packed;
use crate::fields::{Fields, Malformed, put_u64};

/// The kind of a value that is no decimal; those below are units.
pub const PLAIN: u8 = 3;
/// Rows in a byte of kinds.
const KINDS_IN_BYTE: usize = 4;

/// `codes` name the series of each row, `values` are as many.
pub fn put(out: &mut Vec<u8>, codes: impl Iterator<Item = u64>, values: &[f64]) {
    let mut kinds = vec![0u8; values.len().div_ceil(KINDS_IN_BYTE)];
    let mut words = Vec::with_capacity(values.len());
    let mut counts = [0usize; STREAMS];
    let mut before = None;
    for (row, (code, &value)) in codes.zip(values).enumerate() {
        let decimal = Decimal::of(value);
        let kind = decimal.map_or(PLAIN, |decimal| decimal.kind);
        kinds[row / KINDS_IN_BYTE] |= kind << (row % KINDS_IN_BYTE * 2);
        let (stream, word) = match (decimal, before) {
            (None, _) => (PLAINLY, value.to_bits() as i64),
            (Some(now), Some((of, last))) if is_step((of, last), (code, kind)) => {
                (STEPS, now.number.wrapping_sub(last.number))
            }
            (Some(now), _) => (usize::from(kind), now.number),
        };
        words.push((stream as u8, word));
        counts[stream] += 1;
        before = decimal.map(|decimal| (code, decimal));
    }
    out.extend_from_slice(&kinds);
    let by_stream = ByStream::of(&words, counts);
    for stream in [0, 1, 2, STEPS] {
        packed::put(out, by_stream.stream(stream));
    }
    let plain = by_stream.stream(PLAINLY).iter();
    plain.for_each(|bits| put_u64(out, *bits as u64));
}

/// Words of one stream side by side, each stream's in their order.
struct ByStream {
    words: Vec<i64>,
    ends: [usize; STREAMS],
}

impl ByStream {
    /// `words` are told with their streams, of which there are so many each.
    fn of(words: &[(u8, i64)], counts: [usize; STREAMS]) -> Self {
        let mut ends = [0; STREAMS];
        for stream in 1..STREAMS {
            ends[stream] = ends[stream - 1] + counts[stream - 1];
        }
        let mut sorted = vec![0; words.len()];
        for &(stream, word) in words {
            let end = &mut ends[usize::from(stream)];
            sorted[*end] = word;
            *end += 1;
        }
        Self {
            words: sorted,
            ends,
        }
    }

    fn stream(&self, stream: usize) -> &[i64] {
        let start = stream.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.words[start..self.ends[stream]]
    }
}

/// Whether a row of such a series and kind stands as a step from the decimal before it.
fn is_step((of, last): (u64, Decimal), (code, kind): (u64, u8)) -> bool {
    of == code && last.kind == kind
}

/// Values of which none is of the same series as the one before, so that there are no steps. Made to be
/// used again.
#[derive(Debug, Default)]
pub struct Unpacked {
    numbers: Vec<i64>,
    /// By kind, those of one in the order of the rows.
    values: Vec<f64>,
}

impl Unpacked {
    /// Adds the values of so many rows.
    pub fn take(
        &mut self,
        fields: &mut Fields<'_>,
        rows: usize,
        values: &mut Vec<f64>,
    ) -> Result<(), Malformed> {
        let kinds = Kinds(fields.take(rows.div_ceil(KINDS_IN_BYTE))?);
        if kinds.rest(rows) != 0 {
            return Err(Malformed("kinds of values behind the last row"));
        }
        let counts = kinds.count(rows);
        self.values.clear();
        let are_alike = counts.contains(&rows);
        let unpacked = match are_alike {
            true => &mut *values,
            false => &mut self.values,
        };
        for kind in 0..PLAIN {
            self.numbers.clear();
            packed::take(fields, counts[usize::from(kind)], &mut self.numbers)?;
            let numbers = self.numbers.iter();
            let decimals = numbers.map(|&number| Decimal { number, kind }.value());
            unpacked.extend(decimals);
        }
        let plain = fields.take(counts[PLAINLY] * size_of::<u64>())?;
        let (plain, _) = plain.as_chunks();
        let plain = plain
            .iter()
            .map(|bits| f64::from_bits(u64::from_le_bytes(*bits)));
        unpacked.extend(plain);
        if are_alike {
            return Ok(());
        }
        let mut next = [0, counts[0], counts[0] + counts[1], rows - counts[PLAINLY]];
        values.extend((0..rows).map(|row| {
            let next = &mut next[usize::from(kinds.of(row))];
            *next += 1;
            self.values[*next - 1]
        }));
        Ok(())
    }
}

/// Adds the values of rows of these series.
pub fn take(
    fields: &mut Fields<'_>,
    codes: &[u64],
    values: &mut Vec<f64>,
) -> Result<(), Malformed> {
    let kinds = Kinds(fields.take(codes.len().div_ceil(KINDS_IN_BYTE))?);
    let mut counts = [0usize; PLAIN as usize + 2];
    for row in 0..codes.len() {
        counts[kinds.stream(row, codes)] += 1;
    }
    if kinds.rest(codes.len()) != 0 {
        return Err(Malformed("kinds of values behind the last row"));
    }
    let mut numbers = Vec::new();
    for stream in [0, 1, 2, STEPS] {
        let mut of_stream = Vec::new();
        packed::take(fields, counts[stream], &mut of_stream)?;
        numbers.push(of_stream.into_iter());
    }
    let mut steps = numbers.pop().expect("it was pushed last");
    let mut number = 0i64;
    values.reserve(codes.len());
    for row in 0..codes.len() {
        let missing = Malformed("fewer values than rows");
        let kind = kinds.of(row);
        values.push(match kinds.stream(row, codes) {
            PLAINLY => f64::from_bits(fields.u64()?),
            STEPS => {
                number = number.wrapping_add(steps.next().ok_or(missing)?);
                Decimal { number, kind }.value()
            }
            first => {
                number = numbers[first].next().ok_or(missing)?;
                Decimal { number, kind }.value()
            }
        });
    }
    Ok(())
}

/// Streams, besides one for the firsts of each kind.
const PLAINLY: usize = PLAIN as usize;
const STEPS: usize = PLAINLY + 1;
const STREAMS: usize = STEPS + 1;

/// Two bits for each row, the first in the lowest.
struct Kinds<'a>(&'a [u8]);

impl Kinds<'_> {
    #[inline]
    fn of(&self, row: usize) -> u8 {
        self.0[row / KINDS_IN_BYTE] >> (row % KINDS_IN_BYTE * 2) & 3
    }

    /// How many rows are of each kind.
    fn count(&self, rows: usize) -> [usize; PLAINLY + 1] {
        const LOW: u64 = 0x5555_5555_5555_5555;
        let mut counts = [0; PLAINLY + 1];
        for bytes in self.0.chunks(size_of::<u64>()) {
            let mut word = [0; size_of::<u64>()];
            word[..bytes.len()].copy_from_slice(bytes);
            let word = u64::from_le_bytes(word);
            let (low, high) = (word & LOW, word >> 1 & LOW);
            counts[1] += (low & !high).count_ones() as usize;
            counts[2] += (high & !low).count_ones() as usize;
            counts[3] += (high & low).count_ones() as usize;
        }
        counts[0] = rows - counts[1] - counts[2] - counts[3];
        counts
    }

    /// Where the value of a row stands.
    fn stream(&self, row: usize, codes: &[u64]) -> usize {
        let kind = self.of(row);
        let is_step =
            kind != PLAIN && row > 0 && codes[row - 1] == codes[row] && self.of(row - 1) == kind;
        if is_step { STEPS } else { usize::from(kind) }
    }

    /// The bits behind the last row.
    fn rest(&self, rows: usize) -> u8 {
        match rows % KINDS_IN_BYTE {
            0 => 0,
            used => self.0[rows / KINDS_IN_BYTE] >> (used * 2),
        }
    }
}
