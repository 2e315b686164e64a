//! What was deleted from a sealed block, until the block is rewritten without it: intervals of
//! time by series, sorted and apart.
//!
//! They depend on the commands and on which series the block holds, never on how its samples are
//! laid out, so that they are the same on every replica.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{SeriesId, Timestamp};

use crate::digest::Digest;
use crate::fields::{Fields, Malformed, put_time, put_varint};
use crate::part::Column;

/// First and last instant, both deleted.
pub type Interval = (Timestamp, Timestamp);

/// Sorted; no two meet or touch.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Intervals(Vec<Interval>);

impl Intervals {
    /// Whether `at` is deleted.
    pub fn contain(&self, at: Timestamp) -> bool {
        self.cover(at, at)
    }

    /// Whether all of `start ..= end` is deleted.
    pub fn cover(&self, start: Timestamp, end: Timestamp) -> bool {
        let place = self.0.partition_point(|(_, to)| *to < start);
        let found = self.0.get(place);
        found.is_some_and(|(from, to)| *from <= start && end <= *to)
    }

    /// Adds an interval that is not empty, joining those it meets or touches.
    fn add(&mut self, (mut start, mut end): Interval) {
        let touches = |(from, to): Interval| {
            let from_behind = i128::from(from.0) > i128::from(end.0) + 1;
            let to_before = i128::from(to.0) + 1 < i128::from(start.0);
            !from_behind && !to_before
        };
        let (met, mut apart): (Vec<_>, Vec<_>) = self.0.iter().partition(|i| touches(**i));
        for (from, to) in met {
            start = start.min(from);
            end = end.max(to);
        }
        let place = apart.partition_point(|(from, _)| *from < start);
        apart.insert(place, (start, end));
        self.0 = apart;
    }

    /// Removes the deleted samples of a column.
    pub fn apply(&self, column: &mut Column) {
        column.retain(|at| !self.contain(at));
    }
}

/// One block's deleted samples. Cheap to clone.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tombstones(Arc<BTreeMap<SeriesId, Arc<Intervals>>>);

impl Tombstones {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn of(&self, id: SeriesId) -> Option<&Arc<Intervals>> {
        self.0.get(&id)
    }

    /// Series of which all that is in `start ..= end` is deleted, ascending.
    pub fn covering(&self, start: Timestamp, end: Timestamp) -> impl Iterator<Item = SeriesId> {
        let cover = move |(_, deleted): &(&SeriesId, &Arc<Intervals>)| deleted.cover(start, end);
        self.0.iter().filter(cover).map(|(id, _)| *id)
    }

    /// Adds an interval that is not empty.
    pub fn add(&mut self, id: SeriesId, interval: Interval) {
        let intervals = Arc::make_mut(&mut self.0).entry(id).or_default();
        Arc::make_mut(intervals).add(interval);
    }

    pub fn digest(&self, digest: &mut Digest) {
        for (id, intervals) in &*self.0 {
            digest.word(id.0).word(intervals.0.len() as u64);
            for (start, end) in &intervals.0 {
                digest.time(Some(*start)).time(Some(*end));
            }
        }
    }
}

/// As checkpoints keep them (docs/format/checkpoint.md).
pub fn put_tombstones(out: &mut Vec<u8>, tombstones: &Tombstones) {
    put_varint(out, tombstones.0.len() as u64);
    for (id, intervals) in &*tombstones.0 {
        put_varint(out, id.0);
        put_varint(out, intervals.0.len() as u64);
        for (start, end) in &intervals.0 {
            put_time(out, *start);
            put_time(out, *end);
        }
    }
}

pub fn take_tombstones(fields: &mut Fields<'_>) -> Result<Tombstones, Malformed> {
    let mut series = BTreeMap::new();
    for _ in 0..fields.count(2)? {
        let id = SeriesId(fields.varint()?);
        let intervals = (0..fields.count(16)?)
            .map(|_| Ok((fields.time()?, fields.time()?)))
            .collect::<Result<Vec<_>, Malformed>>()?;
        let apart = intervals.windows(2).all(|w| w[0].1 < w[1].0);
        if !apart || intervals.iter().any(|(start, end)| start > end) {
            return Err(Malformed("intervals out of order"));
        }
        if series.insert(id, Arc::new(Intervals(intervals))).is_some() {
            return Err(Malformed("a series' deletions stand twice"));
        }
    }
    Ok(Tombstones(Arc::new(series)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn interval(from: i64, to: i64) -> Interval {
        (Timestamp(from), Timestamp(to))
    }

    proptest! {
        #[test]
        fn hold_what_a_set_of_instants_holds(added in prop::collection::vec((0i64..60, 0i64..9), 0..12)) {
            let mut tombstones = Tombstones::default();
            let mut set = BTreeSet::new();
            for (from, len) in added {
                tombstones.add(SeriesId(1), interval(from, from + len));
                set.extend(from..=from + len);
            }
            let none = Intervals::default();
            let intervals = tombstones.of(SeriesId(1)).map_or(&none, |i| i);
            let apart = intervals.0.windows(2).all(|w| w[0].1.0 + 1 < w[1].0.0);
            prop_assert!(apart, "{:?}", intervals);
            for at in 0..80 {
                prop_assert_eq!(intervals.contain(Timestamp(at)), set.contains(&at));
                let all = (at..at + 4).all(|at| set.contains(&at));
                prop_assert_eq!(intervals.cover(Timestamp(at), Timestamp(at + 3)), all);
            }
            let mut bytes = Vec::new();
            put_tombstones(&mut bytes, &tombstones);
            prop_assert_eq!(take_tombstones(&mut Fields::new(&bytes)), Ok(tombstones));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = take_tombstones(&mut Fields::new(&bytes));
        }
    }

    #[test]
    fn the_whole_of_time_is_an_interval() {
        let mut all = Intervals::default();
        all.add(interval(3, 4));
        all.add((Timestamp::MIN, Timestamp::MAX));
        all.add((Timestamp::MAX, Timestamp::MAX));
        assert_eq!(all.0, [(Timestamp::MIN, Timestamp::MAX)]);
    }
}
