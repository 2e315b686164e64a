//! Running totals of series that come as differences (OTLP's delta temporality).
//!
//! Of each such series: since when it is counted, up to when, and what it stands at. One not heard of
//! for as long as a command says is forgotten, and there are no more than a command says; both are the
//! proposer's decisions. Cloning is cheap: clones share all until one changes.

mod sum;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use model::batch::DeltaSpan;
use model::hash::xxh3;
use model::{Histogram, SeriesId, Timestamp};

use crate::digest::Digest;
use crate::fields::{Fields, Malformed, put_bytes, put_time, put_u64, put_varint};
use crate::value::Value;

pub use sum::add;

/// A series' total.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Total {
    /// From the start of the first difference to the end of the last.
    pub span: DeltaSpan,
    pub value: Value,
    /// When the last difference was proposed.
    pub told: Timestamp,
}

/// All totals of a shard.
#[derive(Debug, Default, Clone)]
pub struct Running(Arc<Table>);

/// Invariant: `by_age` has each total's `told` and series.
#[derive(Debug, Default, Clone)]
struct Table {
    totals: BTreeMap<SeriesId, Total>,
    by_age: BTreeSet<(Timestamp, SeriesId)>,
}

impl Running {
    pub fn get(&self, id: SeriesId) -> Option<&Total> {
        self.0.totals.get(&id)
    }

    pub fn len(&self) -> usize {
        self.0.totals.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.totals.is_empty()
    }

    pub fn set(&mut self, id: SeriesId, total: Total) {
        let table = Arc::make_mut(&mut self.0);
        table.by_age.insert((total.told, id));
        let told = total.told;
        if let Some(before) = table.totals.insert(id, total)
            && before.told != told
        {
            table.by_age.remove(&(before.told, id));
        }
    }

    pub fn remove(&mut self, gone: &[SeriesId]) {
        if !gone.iter().any(|id| self.0.totals.contains_key(id)) {
            return;
        }
        let table = Arc::make_mut(&mut self.0);
        for id in gone {
            if let Some(total) = table.totals.remove(id) {
                table.by_age.remove(&(total.told, *id));
            }
        }
    }

    /// Forgets what was told before `before`.
    pub fn forget(&mut self, before: Timestamp) {
        let is_old = |table: &Table| table.by_age.first().is_some_and(|(told, _)| *told < before);
        if !is_old(&self.0) {
            return;
        }
        let table = Arc::make_mut(&mut self.0);
        while is_old(table)
            && let Some((_, id)) = table.by_age.pop_first()
        {
            table.totals.remove(&id);
        }
    }

    /// By series.
    pub fn iter(&self) -> impl Iterator<Item = (SeriesId, &Total)> {
        self.0.totals.iter().map(|(id, total)| (*id, total))
    }

    pub fn digest(&self, digest: &mut Digest) {
        let mut bytes = Vec::new();
        for (id, total) in self.iter() {
            bytes.clear();
            put_total(&mut bytes, id, total);
            digest.word(xxh3(0, &bytes));
        }
    }
}

impl FromIterator<(SeriesId, Total)> for Running {
    fn from_iter<I: IntoIterator<Item = (SeriesId, Total)>>(totals: I) -> Self {
        let mut running = Self::default();
        totals
            .into_iter()
            .for_each(|(id, total)| running.set(id, total));
        running
    }
}

/// The form in which checkpoints keep one.
pub fn put_total(out: &mut Vec<u8>, id: SeriesId, total: &Total) {
    put_varint(out, id.0);
    put_u64(out, total.span.start_ns);
    put_u64(out, total.span.end_ns);
    put_time(out, total.told);
    match &total.value {
        Value::Float(bits) => {
            out.push(0);
            put_u64(out, *bits);
        }
        Value::Histogram(bytes) => {
            out.push(1);
            put_bytes(out, bytes);
        }
    }
}

pub fn take_total(fields: &mut Fields<'_>) -> Result<(SeriesId, Total), Malformed> {
    let id = SeriesId(fields.varint()?);
    let span = DeltaSpan {
        start_ns: fields.u64()?,
        end_ns: fields.u64()?,
    };
    let told = fields.time()?;
    let value = match fields.flag()? {
        false => Value::Float(fields.u64()?),
        true => {
            let bytes = fields.bytes()?;
            Histogram::decode(bytes).map_err(|_| Malformed("not a histogram"))?;
            Value::Histogram(Bytes::copy_from_slice(bytes))
        }
    };
    Ok((id, Total { span, value, told }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(told: i64, value: f64) -> Total {
        Total {
            span: DeltaSpan {
                start_ns: 1,
                end_ns: 2,
            },
            value: Value::Float(value.to_bits()),
            told: Timestamp(told),
        }
    }

    #[test]
    fn what_was_not_told_for_long_is_forgotten() {
        let mut running = Running::default();
        running.set(SeriesId(1), total(5, 1.0));
        running.set(SeriesId(2), total(5, 1.0));
        running.set(SeriesId(1), total(7, 2.0));
        let before = running.clone();
        running.forget(Timestamp(5));
        assert_eq!(running.len(), 2);
        running.forget(Timestamp(7));
        assert_eq!(running.get(SeriesId(2)), None);
        let mut less = running.clone();
        less.remove(&[SeriesId(0), SeriesId(1)]);
        less.forget(Timestamp(9));
        assert!(less.is_empty());
        assert_eq!(running.get(SeriesId(1)), Some(&total(7, 2.0)));
        assert_eq!(before.len(), 2, "a copy stays as it was");
        running.forget(Timestamp(8));
        assert!(running.is_empty());
    }

    #[test]
    fn bytes_come_back() {
        let histogram = Value::Histogram(crate::histogram::canonical(&Histogram::default()));
        for value in [Value::Float(7), histogram] {
            let one = Total {
                value,
                ..total(-3, 0.0)
            };
            let mut bytes = Vec::new();
            put_total(&mut bytes, SeriesId(300), &one);
            let mut fields = Fields::new(&bytes);
            assert_eq!(take_total(&mut fields), Ok((SeriesId(300), one)));
            assert!(fields.is_empty());
        }
    }
}
