//! The ids of a block's series: runs of neighbours, as ids are given one after the other.

use model::SeriesId;
use model::limits::SERIES_IDS_MAX;

use crate::fields::Malformed;

/// Ascending, none twice. Takes 16 bytes for each gap.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Ids {
    /// The first id of each run, and how many stand before it.
    runs: Vec<(u64, usize)>,
    len: usize,
}

impl Ids {
    /// Adds an id above all others.
    pub fn push(&mut self, id: SeriesId) -> Result<(), Malformed> {
        if id.0 >= SERIES_IDS_MAX {
            return Err(Malformed("an id that no shard gives"));
        }
        match self.last() {
            Some(last) if id <= last => return Err(Malformed("a series stands twice")),
            Some(last) if id.0 == last.0 + 1 => {}
            _ => self.runs.push((id.0, self.len)),
        }
        self.len += 1;
        Ok(())
    }

    pub fn count(&self) -> usize {
        self.len
    }

    pub fn last(&self) -> Option<SeriesId> {
        let (first, before) = self.runs.last()?;
        Some(SeriesId(first + (self.len - before) as u64 - 1))
    }

    /// How many ids stand before this one, if it is among them.
    pub fn place(&self, id: SeriesId) -> Option<usize> {
        let run = self.runs.partition_point(|(first, _)| *first <= id.0);
        let (first, before) = self.runs[run.checked_sub(1)?];
        let end = self.runs.get(run).map_or(self.len, |(_, before)| *before);
        let step = usize::try_from(id.0 - first).ok()?;
        (step < end - before).then_some(before + step)
    }

    /// The ids before which so many stand, of which there are more: these ascend.
    pub fn at(&self, places: impl Iterator<Item = usize>) -> impl Iterator<Item = SeriesId> {
        let mut run = 0;
        places.map(move |place| {
            let is_behind = |run: usize| self.runs.get(run + 1).is_some_and(|r| r.1 <= place);
            if is_behind(run) {
                run += self.runs[run + 1..].partition_point(|(_, before)| *before <= place);
            }
            let (first, before) = self.runs[run];
            SeriesId(first + (place - before) as u64)
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = SeriesId> + '_ {
        let ends = self.runs.iter().skip(1).map(|(_, before)| *before);
        let runs = self.runs.iter().zip(ends.chain([self.len]));
        runs.flat_map(|(&(first, before), end)| {
            (first..first + (end - before) as u64).map(SeriesId)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn places_are_those_in_a_list(steps in prop::collection::vec(1u64..4, 0..60)) {
            let sum = |sum: &mut u64, step| { *sum += step; Some(*sum) };
            let list: Vec<SeriesId> = steps.into_iter().scan(0, sum).map(SeriesId).collect();
            let mut ids = Ids::default();
            list.iter().for_each(|id| ids.push(*id).unwrap());
            prop_assert_eq!(ids.iter().collect::<Vec<_>>(), list.clone());
            prop_assert_eq!(ids.count(), list.len());
            for id in 0..200 {
                let place = list.binary_search(&SeriesId(id)).ok();
                prop_assert_eq!(ids.place(SeriesId(id)), place);
            }
            for step in 1..5 {
                let places = (0..list.len()).step_by(step);
                let some: Vec<SeriesId> = list.iter().copied().step_by(step).collect();
                prop_assert_eq!(ids.at(places).collect::<Vec<_>>(), some);
            }
        }
    }

    #[test]
    fn ids_that_do_not_ascend_are_refused() {
        let mut ids = Ids::default();
        ids.push(SeriesId(7)).unwrap();
        assert!(ids.push(SeriesId(7)).is_err() && ids.push(SeriesId(6)).is_err());
        ids.push(SeriesId(SERIES_IDS_MAX - 1)).unwrap();
        assert!(ids.push(SeriesId(SERIES_IDS_MAX)).is_err());
        assert_eq!(ids.place(SeriesId(SERIES_IDS_MAX - 1)), Some(1));
        assert_eq!(ids.place(SeriesId(8)), None);
    }
}
