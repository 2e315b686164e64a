//! Exemplars of a shard: at most as many as its last write allowed, the oldest by arrival leave
//! first.
//!
//! Which one is kept follows Prometheus 3.5 (`tsdb/exemplar.go`): per series they come in order;
//! one equal to the newest changes nothing; of one instant the value, then the labels must grow;
//! one with labels of more than [`LABEL_CHARS_MAX`] characters is refused. Nobody is told.

use std::collections::{BTreeMap, VecDeque};

use model::{Exemplar, SeriesId, Timestamp};

use crate::digest::Digest;
use crate::fields::{Fields, Malformed, put_bytes, put_time, put_u64, put_varint};

/// Of names and values together (OpenMetrics 1.0, Exemplars).
pub const LABEL_CHARS_MAX: usize = 128;

/// Invariant: `order` holds each series as often as `series` holds exemplars of it; none of the
/// lists is empty.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Exemplars {
    /// Whose exemplar came when, oldest first.
    order: VecDeque<SeriesId>,
    /// In order of arrival, which is order of time.
    series: BTreeMap<SeriesId, VecDeque<Exemplar>>,
}

impl Exemplars {
    pub fn len(&self) -> usize {
        self.order.len()
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Keeps `exemplar` if it may be kept; the oldest then go until no more than `len_max` are left.
    pub fn add(&mut self, id: SeriesId, exemplar: Exemplar, len_max: usize) {
        let newest = self.series.get(&id).and_then(VecDeque::back);
        let follows = newest.is_none_or(|newest| follows(newest, &exemplar));
        if follows && label_chars(&exemplar) <= LABEL_CHARS_MAX {
            self.order.push_back(id);
            self.series.entry(id).or_default().push_back(exemplar);
            self.shrink(len_max);
        }
    }

    fn shrink(&mut self, len_max: usize) {
        while self.order.len() > len_max {
            let id = self.order.pop_front().expect("it is longer than something");
            let list = self
                .series
                .get_mut(&id)
                .expect("every place has its exemplar");
            list.pop_front();
            if list.is_empty() {
                self.series.remove(&id);
            }
        }
    }

    /// The newest of a series.
    pub fn newest(&self, id: SeriesId) -> Option<Timestamp> {
        let newest = self.series.get(&id)?.back();
        newest.map(|exemplar| exemplar.timestamp)
    }

    /// Forgets those of series, by id.
    pub fn remove(&mut self, gone: &[SeriesId]) {
        let before = self.series.len();
        self.series.retain(|id, _| gone.binary_search(id).is_err());
        if self.series.len() < before {
            self.order.retain(|id| self.series.contains_key(id));
        }
    }

    /// Those of one series in `start ..= end`, by time.
    pub fn of(&self, id: SeriesId, start: Timestamp, end: Timestamp) -> Vec<Exemplar> {
        let all = self.series.get(&id).into_iter().flatten();
        let inside = all.filter(|e| e.timestamp >= start && e.timestamp <= end);
        inside.cloned().collect()
    }

    /// All, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (SeriesId, &Exemplar)> {
        let mut next: BTreeMap<SeriesId, usize> = BTreeMap::new();
        self.order.iter().map(move |id| {
            let place = next.entry(*id).or_default();
            *place += 1;
            (*id, &self.series[id][*place - 1])
        })
    }

    pub fn digest(&self, digest: &mut Digest) {
        let mut bytes = Vec::new();
        for (id, exemplar) in self.iter() {
            put_exemplar(&mut bytes, id, exemplar);
        }
        digest.word(self.len() as u64).bytes(&bytes);
    }
}

/// From what a checkpoint kept, oldest first.
impl FromIterator<(SeriesId, Exemplar)> for Exemplars {
    fn from_iter<T: IntoIterator<Item = (SeriesId, Exemplar)>>(kept: T) -> Self {
        let mut exemplars = Self::default();
        for (id, exemplar) in kept {
            exemplars.order.push_back(id);
            exemplars.series.entry(id).or_default().push_back(exemplar);
        }
        exemplars
    }
}

/// Whether `next` is behind `newest` of the same series.
fn follows(newest: &Exemplar, next: &Exemplar) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    match next.timestamp.cmp(&newest.timestamp) {
        Greater => return true,
        Less => return false,
        Equal => {}
    }
    match next.value.partial_cmp(&newest.value) {
        Some(Less) => false,
        Some(Equal) => next.labels > newest.labels,
        // Where one is no number it is not smaller: as the original compares.
        Some(Greater) | None => true,
    }
}

fn label_chars(exemplar: &Exemplar) -> usize {
    let chars = |(name, value): (&str, &str)| name.chars().count() + value.chars().count();
    exemplar.labels.into_iter().map(chars).sum()
}

/// As commands and checkpoints write one.
pub fn put_exemplar(out: &mut Vec<u8>, id: SeriesId, exemplar: &Exemplar) {
    put_varint(out, id.0);
    put_content(out, exemplar);
}

pub fn take_exemplar(fields: &mut Fields<'_>) -> Result<(SeriesId, Exemplar), Malformed> {
    Ok((SeriesId(fields.varint()?), take_content(fields)?))
}

pub fn put_content(out: &mut Vec<u8>, exemplar: &Exemplar) {
    put_bytes(out, exemplar.labels.as_canonical());
    put_time(out, exemplar.timestamp);
    put_u64(out, exemplar.value.to_bits());
}

pub fn take_content(fields: &mut Fields<'_>) -> Result<Exemplar, Malformed> {
    Ok(Exemplar {
        labels: fields.labels()?,
        timestamp: fields.time()?,
        value: f64::from_bits(fields.u64()?),
    })
}

#[cfg(test)]
mod tests {
    use model::Labels;

    use super::*;

    fn exemplar(trace: &str, at: i64, value: f64) -> Exemplar {
        Exemplar {
            labels: Labels::from_pairs([("trace_id", trace)]),
            value,
            timestamp: Timestamp(at),
        }
    }

    fn kept(exemplars: &Exemplars, id: u64) -> Vec<(i64, f64)> {
        let all = exemplars.of(SeriesId(id), Timestamp::MIN, Timestamp::MAX);
        all.iter().map(|e| (e.timestamp.0, e.value)).collect()
    }

    #[test]
    fn per_series_they_come_in_order_and_once() {
        let mut exemplars = Exemplars::default();
        for (trace, at, value) in [
            ("a", 10, 1.0),
            ("a", 10, 1.0),
            ("b", 9, 5.0),
            ("b", 10, 0.5),
            ("b", 10, 1.0),
            ("a", 10, 2.0),
            ("a", 11, 0.0),
        ] {
            exemplars.add(SeriesId(1), exemplar(trace, at, value), 9);
        }
        let expected = [(10, 1.0), (10, 1.0), (10, 2.0), (11, 0.0)];
        assert_eq!(kept(&exemplars, 1), expected);
        let long = "x".repeat(LABEL_CHARS_MAX - "trace_id".len());
        exemplars.add(SeriesId(2), exemplar(&long, 1, 1.0), 9);
        exemplars.add(SeriesId(2), exemplar(&(long + "x"), 2, 1.0), 9);
        assert_eq!(kept(&exemplars, 2), [(1, 1.0)]);
    }

    #[test]
    fn the_oldest_of_all_leave_first() {
        let mut exemplars = Exemplars::default();
        for n in 0..6 {
            exemplars.add(SeriesId(n % 2), exemplar("t", n as i64, 0.0), 3);
        }
        assert_eq!(exemplars.len(), 3);
        assert_eq!(kept(&exemplars, 0), [(4, 0.0)]);
        assert_eq!(kept(&exemplars, 1), [(3, 0.0), (5, 0.0)]);
        let again: Exemplars = exemplars.iter().map(|(id, e)| (id, e.clone())).collect();
        assert_eq!(again, exemplars);
        assert_eq!(exemplars.newest(SeriesId(1)), Some(Timestamp(5)));
        exemplars.remove(&[SeriesId(1), SeriesId(7)]);
        assert_eq!(exemplars.len(), 1);
        assert_eq!(kept(&exemplars, 0), [(4, 0.0)]);
        assert_eq!(exemplars.newest(SeriesId(1)), None);
        exemplars.shrink(0);
        assert_eq!(exemplars, Exemplars::default());
    }
}
