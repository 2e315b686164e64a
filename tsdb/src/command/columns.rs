//! The rows of a write since version 10, column by column, as few bytes as cost nothing to make:
//! series as steps, equal ones as runs since version 11, timestamps as runs, values as decimals where
//! they are some, packed since version 12.
//!
//! Promise: what comes back is the same by bits. A value is written as a decimal only when reading
//! it gives its bits again; everything else stands as it is.

use model::{SeriesId, Timestamp};

use super::{SeriesRef, VERSION_11, VERSION_12, WriteRows, series_code, series_of, values};
use crate::fields::{Fields, Malformed, put_varint, put_zigzag, unzigzag, zigzag};

/// What a decimal is divided by, by kind.
const SCALES: [f64; 3] = [1.0, 100.0, 1e6];
/// Integers below are floats without loss.
const EXACT: f64 = (1u64 << 53) as f64;

/// A value as a whole number of units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decimal {
    pub number: i64,
    pub kind: u8,
}

impl Decimal {
    pub fn of(value: f64) -> Option<Self> {
        SCALES.iter().zip(0..).find_map(|(scale, kind)| {
            let number = whole(value * scale);
            let found = Self {
                number: number as i64,
                kind,
            };
            let same = found.value().to_bits() == value.to_bits();
            (number.abs() < EXACT && same).then_some(found)
        })
    }

    #[inline]
    pub fn value(self) -> f64 {
        self.number as f64 / SCALES[self.kind as usize]
    }
}

/// The nearest whole number. The usual way is a call for each value: where a float has bits left for
/// halves, adding a number so large that it has none rounds as well. Which of two a half becomes does not
/// matter, it is no decimal.
fn whole(value: f64) -> f64 {
    const LARGE: f64 = (3u64 << 51) as f64;
    match value.abs() < (1u64 << 51) as f64 {
        true => value + LARGE - LARGE,
        false => value.round(),
    }
}

/// What the next value of the same series is a step from.
#[derive(Default)]
struct Before(Option<(u64, Decimal)>);

impl Before {
    fn number(&self, series: u64, kind: u8) -> i64 {
        match self.0 {
            Some((of, before)) if of == series && before.kind == kind => before.number,
            _ => 0,
        }
    }
}

pub fn put(out: &mut Vec<u8>, rows: &WriteRows) {
    out.reserve(rows.len() * 6);
    put_varint(out, rows.len() as u64);
    put_series(out, &rows.series);
    put_times(out, &rows.timestamps);
    let codes = rows.series.iter().map(|series| series_code(*series));
    values::put(out, codes, &rows.values);
}

/// Bit 0 of a step's varint: more of the same follow.
const RUN: u64 = 1;

fn put_series(out: &mut Vec<u8>, series: &[SeriesRef]) {
    let mut last = 0;
    let mut steps = series.iter().map(|&series| {
        let code = series_code(series);
        let step = code.wrapping_sub(last) as i64;
        last = code;
        step
    });
    let mut next = steps.next();
    while let Some(step) = next {
        let mut run = 1u64;
        next = steps.find(|later| {
            let same = *later == step;
            run += u64::from(same);
            !same
        });
        let word = zigzag(step) << 1;
        match run {
            1 => put_varint(out, word),
            _ => {
                put_varint(out, word | RUN);
                put_varint(out, run);
            }
        }
    }
}

fn put_times(out: &mut Vec<u8>, times: &[Timestamp]) {
    let mut last = 0i64;
    let mut rest = times;
    while let Some(first) = rest.first() {
        let step = first.0.wrapping_sub(last);
        let steps = rest.iter().take_while(|at| {
            let same = at.0.wrapping_sub(last) == step;
            last = if same { at.0 } else { last };
            same
        });
        let run = steps.count();
        put_varint(out, run as u64);
        put_zigzag(out, step);
        rest = &rest[run..];
    }
}

/// Numbers of which each is `step` behind the one before, wrapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    pub first: u64,
    pub step: u64,
    /// Not zero.
    pub len: usize,
}

impl Steps {
    pub fn iter(self) -> impl Iterator<Item = u64> {
        let numbers = std::iter::successors(Some(self.first), move |last| {
            Some(last.wrapping_add(self.step))
        });
        numbers.take(self.len)
    }

    pub fn last(self) -> u64 {
        self.nth(self.len - 1)
    }

    fn nth(self, n: usize) -> u64 {
        let steps = self.step.wrapping_mul(n as u64);
        self.first.wrapping_add(steps)
    }

    /// The first `len`, of as many or more, and the others.
    pub fn split_at(self, len: usize) -> (Self, Option<Self>) {
        let behind = (len < self.len).then(|| Self {
            first: self.nth(len),
            len: self.len - len,
            ..self
        });
        (Self { len, ..self }, behind)
    }

    /// Of codes of series: the first one's id, if they are ids that follow one another.
    pub fn ids_from(self) -> Option<SeriesId> {
        let follow = self.len == 1 || self.step == 2;
        (self.first & 1 == 0 && follow).then_some(SeriesId(self.first >> 1))
    }

    /// Of codes of series that were checked: what they mean.
    pub fn refs(self) -> impl Iterator<Item = SeriesRef> {
        self.iter().map(|code| match code & 1 {
            0 => SeriesRef::Known(SeriesId(code >> 1)),
            _ => SeriesRef::New((code >> 1) as u32),
        })
    }
}

/// Rows as they stand in the log. Made to be used again: what it has grown to stays.
#[derive(Debug, Default)]
pub struct Rows {
    /// What the rows' series are called, see [`series_of`]; of the write taken last.
    pub series: Vec<Steps>,
    /// Their instants; of the write taken last.
    pub times: Vec<Steps>,
    /// Of all writes taken since it was cleared.
    pub values: Vec<f64>,
    unpacked: values::Unpacked,
}

impl Rows {
    /// The rows of a write of version 10 or later that has so many labels of its own; how many they are.
    pub fn take(
        &mut self,
        fields: &mut Fields<'_>,
        labels: usize,
        version: u8,
    ) -> Result<usize, Malformed> {
        let count = take_count(fields, version)?;
        self.series.clear();
        match version {
            VERSION_11.. => take_codes(fields, count, &mut self.series)?,
            _ => take_single_codes(fields, count, &mut self.series)?,
        }
        self.series.iter().try_for_each(|run| check(*run, labels))?;
        self.times.clear();
        take_times(fields, count, &mut self.times)?;
        self.take_values(fields, count, version)?;
        Ok(count)
    }

    fn take_values(
        &mut self,
        fields: &mut Fields<'_>,
        count: usize,
        version: u8,
    ) -> Result<(), Malformed> {
        let values = &mut self.values;
        if version >= VERSION_12 && !repeats(&self.series) {
            return self.unpacked.take(fields, count, values);
        }
        let codes: Vec<u64> = self.series.iter().flat_map(|run| run.iter()).collect();
        match version {
            VERSION_12.. => values::take(fields, &codes, values),
            _ => take_single_values(fields, &codes, values),
        }
    }
}

/// Whether a row is of the same series as the one before.
fn repeats(series: &[Steps]) -> bool {
    let within = |run: &Steps| run.step == 0 && run.len > 1;
    let between = |pair: &[Steps]| pair[0].last() == pair[1].first;
    series.iter().any(within) || series.windows(2).any(between)
}

/// Whether all codes of a run mean a series.
fn check(run: Steps, labels: usize) -> Result<(), Malformed> {
    let are_known = (run.first | run.step) & 1 == 0;
    if !are_known {
        let mut codes = run.iter();
        return codes.try_for_each(|code| series_of(code, labels).map(drop));
    }
    let way = i128::from(run.step as i64) * (run.len as i128 - 1);
    let last = u64::try_from(i128::from(run.first) + way);
    let last = last.map_err(|_| Malformed("series ids below zero"))?;
    series_of(run.first.max(last), labels).map(drop)
}

/// Of version 10 or later.
pub fn take(fields: &mut Fields<'_>, labels: usize, version: u8) -> Result<WriteRows, Malformed> {
    let mut rows = Rows::default();
    let count = rows.take(fields, labels, version)?;
    let mut taken = WriteRows {
        series: Vec::with_capacity(count),
        timestamps: Vec::with_capacity(count),
        values: rows.values,
        histograms: Vec::new(),
    };
    let series = rows.series.iter().flat_map(|run| run.refs());
    taken.series.extend(series);
    for run in &rows.times {
        let times = run.iter().map(|at| Timestamp(at as i64));
        taken.timestamps.extend(times);
    }
    Ok(taken)
}

fn take_count(fields: &mut Fields<'_>, version: u8) -> Result<usize, Malformed> {
    if version < VERSION_12 {
        // A row is at least one byte of value.
        return fields.count(1);
    }
    let count = usize::try_from(fields.varint()?).ok();
    count
        .filter(|count| count.div_ceil(4) <= fields.remaining())
        .ok_or(Malformed("count larger than the bytes left"))
}

fn take_codes(
    fields: &mut Fields<'_>,
    count: usize,
    codes: &mut Vec<Steps>,
) -> Result<(), Malformed> {
    let beyond = Malformed("a run of series beyond the rows");
    take_runs(count, codes, beyond, || {
        let word = fields.varint()?;
        let len = match word & RUN {
            RUN => fields.varint()?,
            _ => 1,
        };
        Ok((unzigzag(word >> 1) as u64, len))
    })
}

/// Adds runs of `count` numbers together. `next` gives the step from the number before and between those of a
/// run, and how many they are, which is `beyond` if they are none or more than are left.
fn take_runs(
    count: usize,
    runs: &mut Vec<Steps>,
    beyond: Malformed,
    mut next: impl FnMut() -> Result<(u64, u64), Malformed>,
) -> Result<(), Malformed> {
    let (mut last, mut left) = (0u64, count);
    while left > 0 {
        let (step, len) = next()?;
        let len = usize::try_from(len).ok();
        let Some(len) = len.filter(|len| (1..=left).contains(len)) else {
            return Err(beyond);
        };
        let first = last.wrapping_add(step);
        let run = Steps { first, step, len };
        (last, left) = (run.last(), left - len);
        runs.push(run);
    }
    Ok(())
}

fn take_single_codes(
    fields: &mut Fields<'_>,
    count: usize,
    codes: &mut Vec<Steps>,
) -> Result<(), Malformed> {
    let mut last = 0u64;
    for _ in 0..count {
        let step = fields.zigzag()? as u64;
        last = last.wrapping_add(step);
        codes.push(Steps {
            first: last,
            step: 0,
            len: 1,
        });
    }
    Ok(())
}

fn take_times(
    fields: &mut Fields<'_>,
    count: usize,
    times: &mut Vec<Steps>,
) -> Result<(), Malformed> {
    let beyond = Malformed("a run of timestamps beyond the rows");
    take_runs(count, times, beyond, || {
        let len = fields.varint()?;
        Ok((fields.zigzag()? as u64, len))
    })
}

fn take_single_values(
    fields: &mut Fields<'_>,
    codes: &[u64],
    values: &mut Vec<f64>,
) -> Result<(), Malformed> {
    let mut before = Before::default();
    for series in codes {
        values.push(take_value(fields, *series, &mut before)?);
    }
    Ok(())
}

fn take_value(fields: &mut Fields<'_>, series: u64, before: &mut Before) -> Result<f64, Malformed> {
    let word = fields.varint()?;
    let kind = (word & 3) as u8;
    if kind == values::PLAIN {
        before.0 = None;
        return match word >> 2 {
            0 => fields.u64().map(f64::from_bits),
            _ => Err(Malformed("a value of no kind")),
        };
    }
    let step = unzigzag(word >> 2);
    let decimal = Decimal {
        number: before.number(series, kind).wrapping_add(step),
        kind,
    };
    before.0 = Some((series, decimal));
    Ok(decimal.value())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::VERSION_10;
    use super::*;

    fn value() -> impl Strategy<Value = u64> {
        prop_oneof![
            any::<u64>(),
            any::<f64>().prop_map(f64::to_bits),
            any::<i64>().prop_map(|n| (n as f64).to_bits()),
            (-1_000_000i64..1_000_000).prop_map(|n| (n as f64 / 100.0).to_bits()),
            (-1_000_000i64..1_000_000).prop_map(|n| (n as f64 / 1e6).to_bits()),
            Just((-0.0f64).to_bits()),
            Just(EXACT.to_bits()),
            Just((-EXACT).to_bits()),
        ]
    }

    /// How far the next id is; mostly one.
    fn far() -> impl Strategy<Value = u64> {
        prop_oneof![8 => Just(1), 2 => 0u64..4, 1 => any::<u64>()]
    }

    /// The obvious way.
    fn decimal_of(value: f64) -> Option<Decimal> {
        let kinds = SCALES.iter().zip(0..);
        let mut decimals = kinds.map(|(scale, kind)| Decimal {
            number: (value * scale).round() as i64,
            kind,
        });
        decimals.find(|decimal| {
            let is_exact = (decimal.number as f64).abs() < EXACT;
            is_exact && decimal.value().to_bits() == value.to_bits()
        })
    }

    proptest! {
        #[test]
        fn a_run_of_series_holds_ids_that_can_be_written(
            first in prop_oneof![any::<u64>(), 0u64..9, (1u64 << 62) - 9..1u64 << 62],
            step in prop_oneof![any::<i64>(), -3i64..4],
            len in 1usize..6,
        ) {
            let (first, step) = (first & !1, step & !1);
            let codes = (0..len as i128).map(|n| i128::from(first) + n * i128::from(step));
            let are_ids = codes.into_iter().all(|code| (0..1i128 << 62).contains(&code));
            let run = Steps { first, step: step as u64, len };
            prop_assert_eq!(check(run, 0).is_ok(), are_ids);
        }

        #[test]
        fn decimals_are_those_of_the_obvious_way(bits in value()) {
            let value = f64::from_bits(bits);
            prop_assert_eq!(Decimal::of(value), decimal_of(value));
        }

        #[test]
        fn rows_come_back_bit_by_bit(
            rows in prop::collection::vec((far(), prop_oneof![Just(15_000i64), any::<i64>()], value()), 0..40),
        ) {
            let mut written = WriteRows::default();
            let (mut at, mut id) = (0i64, 0u64);
            for (far, step, bits) in rows {
                id = id.wrapping_add(far) % (1 << 61);
                at = at.wrapping_add(step);
                written.push(SeriesRef::Known(SeriesId(id)), Timestamp(at), f64::from_bits(bits));
            }
            let mut out = Vec::new();
            put(&mut out, &written);
            let mut fields = Fields::new(&out);
            let read = take(&mut fields, 0, VERSION_12).unwrap();
            prop_assert_eq!(fields.end(), Ok(()));
            let bits = |rows: &WriteRows| rows.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&read), bits(&written));
            prop_assert_eq!((read.series, read.timestamps), (written.series, written.timestamps));
        }
    }

    #[test]
    fn what_senders_send_takes_few_bytes() {
        let bytes = |value: fn(u64) -> f64| {
            let mut rows = WriteRows::default();
            for n in 0..100 {
                let at = Timestamp(1_700_000_000_000);
                rows.push(SeriesRef::Known(SeriesId(1_000 + n)), at, value(n));
            }
            let mut out = Vec::new();
            put(&mut out, &rows);
            out.len()
        };
        assert!(bytes(|n| n as f64 * 1_000.0) < 100 * 4);
        assert!(bytes(|n| n as f64 / 100.0) < 100 * 3);
        assert!(bytes(|n| 1.0 / (3.0 + n as f64)) < 100 * 10);
    }

    #[test]
    fn steps_of_version_10_are_read() {
        let bytes = [3, 20, 0, 0, 3, 0, 8, 8, 8];
        let read = take(&mut Fields::new(&bytes), 0, VERSION_10).unwrap();
        let ids = [5, 5, 5].map(|id| SeriesRef::Known(SeriesId(id)));
        assert_eq!(
            (read.series, read.values),
            (ids.to_vec(), vec![1.0, 2.0, 3.0])
        );
    }

    #[test]
    fn runs_beyond_the_rows_are_refused() {
        let run = |n: u8| [2, 4 << 1 | 1, n, 2, 0, 0, 0];
        assert!(take(&mut Fields::new(&run(2)), 0, VERSION_11).is_ok());
        assert!(take(&mut Fields::new(&run(3)), 0, VERSION_11).is_err());
        assert!(take(&mut Fields::new(&run(0)), 0, VERSION_11).is_err());
    }
}
