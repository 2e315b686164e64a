//! Series that are written no more leave the register: those that blocks hold rest, others are forgotten.
//!
//! What becomes of one depends on the log alone: on samples in the head, on which series each block holds,
//! on the newest instant of a series. No layout, no file.

use std::collections::BTreeSet;

use model::limits::COLLECT_LOOKS_MAX;
use model::{SeriesId, Timestamp};

use super::State;
use crate::command::{CollectCommand, SeriesRef, WriteCommand};

enum Fate {
    /// Blocks hold it.
    Rests,
    /// Nothing of it is stored.
    Gone,
}

impl State {
    /// Whether every series that a write names by its id is registered.
    pub(super) fn knows(&self, write: &WriteCommand) -> bool {
        let known = |series: SeriesRef| match series {
            SeriesRef::Known(id) => self.head.series(id).is_some(),
            SeriesRef::New(_) => true,
        };
        let mut exemplars = write.exemplars.iter();
        write.rows.series.iter().all(|series| known(*series))
            && exemplars.all(|(series, _)| known(*series))
    }

    /// How many of the command's series leave the register.
    pub(super) fn collect(&mut self, collect: &CollectCommand) -> u64 {
        let (mut leaving, mut resting) = (Vec::new(), BTreeSet::new());
        for &id in &collect.series {
            match self.fate(id, collect.before) {
                Some(Fate::Rests) if collect.rest => {
                    leaving.push(id);
                    resting.insert(id);
                }
                Some(Fate::Gone) => leaving.push(id),
                Some(Fate::Rests) | None => {}
            }
        }
        let left = self.table.remove(&leaving);
        for (id, labels) in &left {
            self.sums.remove_series(*id, labels);
        }
        self.head.remove_series(&leaving);
        self.exemplars.remove(&leaving);
        self.running.remove(&leaving);
        let rests = left.into_iter().filter(|(id, _)| resting.contains(id));
        self.lay_down(rests.collect());
        leaving.len() as u64
    }

    /// Looks at some series from `from` on: up to `idle_max` that would leave, and where to go on, if
    /// there is more.
    pub fn look_for_idle(
        &self,
        before: Timestamp,
        from: SeriesId,
        idle_max: usize,
    ) -> (Vec<SeriesId>, Option<SeriesId>) {
        let mut ids = self.head.ids_from(from);
        let looked_at = ids.by_ref().take(COLLECT_LOOKS_MAX);
        let idle = looked_at.filter(|id| self.fate(*id, before).is_some());
        let idle = idle.take(idle_max).collect();
        (idle, ids.next())
    }

    /// What a series that is written no more has left memory for; nothing, if it stays.
    fn fate(&self, id: SeriesId, before: Timestamp) -> Option<Fate> {
        let series = self.head.series(id)?;
        let recent = |at: Option<Timestamp>| at.is_some_and(|at| at >= before);
        if !series.is_empty() || recent(series.last()) {
            return None;
        }
        let (exemplar, total) = (self.exemplars.newest(id), self.running.get(id));
        if self.is_sealed(id, series.last()) {
            // What blocks do not hold would be lost.
            return (exemplar.is_none() && total.is_none()).then_some(Fate::Rests);
        }
        let adds_up = recent(total.map(|total| total.told));
        (!recent(exemplar) && !adds_up).then_some(Fate::Gone)
    }

    /// Whether a block holds samples of a series whose newest one ever was at `last`.
    fn is_sealed(&self, id: SeriesId, last: Option<Timestamp>) -> bool {
        let Some(last) = last else { return false };
        let mut blocks = self.sealed.iter();
        blocks.any(|block| block.range().0 <= last && block.has(id))
    }
}
