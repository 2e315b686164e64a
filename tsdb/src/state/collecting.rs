//! Forgetting registered series of which nothing is stored.
//!
//! What is dead depends on the log alone: on samples in the head, on which series each block holds,
//! on the newest instant of a series. No layout, no file.

use model::limits::COLLECT_LOOKS_MAX;
use model::{SeriesId, Timestamp};

use super::State;
use crate::command::{CollectCommand, SeriesRef, WriteCommand};

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

    /// How many of the command's series are forgotten.
    pub(super) fn collect(&mut self, collect: &CollectCommand) -> u64 {
        let dead = |id: &SeriesId| self.is_dead(*id, collect.before);
        let gone: Vec<SeriesId> = collect.series.iter().copied().filter(dead).collect();
        for (id, labels) in self.table.remove(&gone) {
            self.sums.remove_series(id, &labels);
        }
        self.head.remove_series(&gone);
        self.exemplars.remove(&gone);
        self.running.remove(&gone);
        gone.len() as u64
    }

    /// Looks at some series from `from` on: up to `dead_max` that are dead, and where to go on, if
    /// there is more.
    pub fn look_for_dead(
        &self,
        before: Timestamp,
        from: SeriesId,
        dead_max: usize,
    ) -> (Vec<SeriesId>, Option<SeriesId>) {
        let mut ids = self.head.ids_from(from);
        let looked_at = ids.by_ref().take(COLLECT_LOOKS_MAX);
        let dead = looked_at.filter(|id| self.is_dead(*id, before));
        let dead = dead.take(dead_max).collect();
        (dead, ids.next())
    }

    fn is_dead(&self, id: SeriesId, before: Timestamp) -> bool {
        let Some(series) = self.head.series(id) else {
            return false;
        };
        let newest = series.last().max(self.exemplars.newest(id));
        let recent = newest.is_some_and(|at| at >= before);
        let adds_up = self
            .running
            .get(id)
            .is_some_and(|total| total.told >= before);
        !recent && !adds_up && series.is_empty() && !self.is_sealed(id, series.last())
    }

    /// Whether a block holds samples of a series whose newest one ever was at `last`.
    fn is_sealed(&self, id: SeriesId, last: Option<Timestamp>) -> bool {
        let Some(last) = last else { return false };
        let mut blocks = self.sealed.iter();
        blocks.any(|block| block.range().0 <= last && block.has(id))
    }
}
