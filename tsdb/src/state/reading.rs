//! What is read of a shard's state: handles on samples, and what the index says of series.
//!
//! Everything here runs under the state's lock, so nothing decodes a chunk or copies a label set
//! that is not asked for. Which series have samples is told by ranges, as in Prometheus.

use std::cell::Cell;

use model::labels::METRIC_NAME;
use model::source::Take;
use model::{ExemplarSeries, Labels, Matcher, SeriesId, Timestamp};

use super::{Standing, State};
use crate::block::Sealed;
use crate::gathered::{Gathered, Handles, Others};
use crate::head::Newest;
use crate::index::{is_all, select_any};
use crate::part::Part;

/// Takes a value of a label, and what tells whether any series that has it stands.
pub type EachValue<'a> = dyn FnMut(&str, &dyn Fn() -> bool) + 'a;

impl State {
    /// Handles on all samples of the chosen series in `start ..= end`, or on the newest alone.
    pub fn gather(
        &self,
        matchers: &[Matcher],
        start: Timestamp,
        end: Timestamp,
        take: Take,
    ) -> Gathered {
        self.gather_ids(&[matchers.to_vec()], start, end, take)
    }

    /// All samples in `start ..= end` of series that any of the lists chooses, as
    /// [`State::gather`] gives them.
    pub fn gather_any(
        &self,
        any_of: &[Vec<Matcher>],
        start: Timestamp,
        end: Timestamp,
    ) -> Gathered {
        self.gather_ids(any_of, start, end, Take::All)
    }

    fn gather_ids(
        &self,
        any_of: &[Vec<Matcher>],
        start: Timestamp,
        end: Timestamp,
        take: Take,
    ) -> Gathered {
        if start > end {
            return Gathered::nothing();
        }
        let ids = self.select_any(any_of);
        let blocks = self.blocks(start, end);
        let mut gathered = Vec::new();
        for some in ids.chunks(TOUCHED_SERIES) {
            match take {
                Take::All => self.touch_open(some),
                Take::Last => self.touch_newest(some),
            }
            for &id in some {
                let (parts, in_files) = match take {
                    Take::All => (self.parts(&blocks, id, start, end), !blocks.is_empty()),
                    Take::Last => self.newest(&blocks, id, start, end),
                };
                if !parts.is_empty() || in_files {
                    gathered.extend(self.handles(id, parts, in_files));
                }
            }
        }
        let others = self.others(&blocks, any_of, ids);
        self.gathered(gathered, &blocks, (start, end), others)
    }

    pub(super) fn blocks(&self, start: Timestamp, end: Timestamp) -> Vec<&Sealed> {
        let blocks = self.sealed.iter();
        blocks.filter(|block| block.meets(start, end)).collect()
    }

    /// Such series, and those of these ids that rest, with the files in which more of them may stand.
    pub fn gathered_in(
        &self,
        series: Vec<Handles>,
        resting: Vec<SeriesId>,
        (start, end): (Timestamp, Timestamp),
    ) -> Gathered {
        let blocks = self.blocks(start, end);
        self.gathered(series, &blocks, (start, end), Others::These(resting))
    }

    /// As [`State::touch_newest`], at what handles on samples are made of.
    fn touch_open(&self, ids: &[SeriesId]) {
        let seen = ids.iter().map(|&id| {
            let open = self.head.series(id).map_or(0, |series| series.touch_open());
            let labels = self.table.labels(id).map_or(0, Labels::touch);
            open ^ labels
        });
        std::hint::black_box(seen.fold(0, |all, one| all ^ one));
    }

    /// What is in memory.
    pub(super) fn parts(
        &self,
        blocks: &[&Sealed],
        id: SeriesId,
        start: Timestamp,
        end: Timestamp,
    ) -> Vec<Part> {
        let mut parts = Vec::with_capacity(blocks.len() + 1);
        for block in blocks {
            self.frozen_parts(block, id, (start, end), &mut parts);
        }
        if let Some(series) = self.head.series(id) {
            series.parts(start, end, &mut parts);
        }
        parts
    }

    /// Handles among which the newest sample is, and whether files may hold it too; on it alone, when it is
    /// in the head and was the last one there.
    fn newest(
        &self,
        blocks: &[&Sealed],
        id: SeriesId,
        start: Timestamp,
        end: Timestamp,
    ) -> (Vec<Part>, bool) {
        let series = self.head.series(id);
        if let Some(Newest::At(part)) = series.map(|series| series.newest(start, end))
            && blocks.iter().all(|block| block.range().1 < part.range().1)
        {
            return (vec![part], false);
        }
        (self.parts(blocks, id, start, end), !blocks.is_empty())
    }

    /// Looks at what an answer says of these series, so that a core waits for all of it as long as for
    /// one.
    pub fn touch_newest(&self, ids: &[SeriesId]) {
        let seen = ids.iter().map(|&id| {
            let last = self
                .head
                .series(id)
                .map_or(0, |series| series.touch_newest());
            let labels = self.table.labels(id).map_or(0, Labels::touch);
            last ^ labels
        });
        std::hint::black_box(seen.fold(0, |all, one| all ^ one));
    }

    /// The newest of a series' samples up to `end`, if it is not before `start`.
    pub fn standing(&self, id: SeriesId, start: Timestamp, end: Timestamp) -> Standing {
        let Some(series) = self.head.series(id) else {
            return Standing::Among(self.parts(&self.blocks(start, end), id, start, end));
        };
        let Some(last) = series.last().filter(|last| *last >= start && start <= end) else {
            return Standing::Nowhere;
        };
        if last <= end
            && let Some((at, value)) = series.latest()
            && at == last
        {
            return Standing::Here(at, value);
        }
        // Sealed already, deleted, or behind a sample that is too new.
        Standing::Among(self.parts(&self.blocks(start, end), id, start, end))
    }

    /// Label sets of series that any of the lists chooses and that may have a sample in `start ..= end`: those of which
    /// one is in memory, and of the others where it may stand.
    pub fn series(
        &self,
        any_of: &[Vec<Matcher>],
        start: Timestamp,
        end: Timestamp,
    ) -> (Vec<Labels>, Gathered) {
        if start > end {
            return (Vec::new(), Gathered::nothing());
        }
        let blocks = self.blocks(start, end);
        let in_memory = |id| {
            let series = self.head.series(id);
            let mut parts = Vec::new();
            series.is_some_and(|series| series.may_have(start, end)) || {
                for block in &blocks {
                    self.frozen_parts(block, id, (start, end), &mut parts);
                }
                !parts.is_empty()
            }
        };
        let (mut found, mut others) = (Vec::new(), Vec::new());
        let ids = self.select_any(any_of);
        for &id in &ids {
            match in_memory(id) {
                true => found.extend(self.labels(id).cloned()),
                false if blocks.is_empty() => {}
                false => others.extend(self.handles(id, Vec::new(), true)),
            }
        }
        let resting = self.others(&blocks, any_of, ids);
        (found, self.gathered(others, &blocks, (start, end), resting))
    }

    /// Names of labels on the chosen registered series that stand in a block, or in the head, whose range
    /// meets `start ..= end`: what Prometheus looks at. Sorted, each once.
    pub fn each_label_name(
        &self,
        any_of: &[Vec<Matcher>],
        (start, end): (Timestamp, Timestamp),
        each: &mut dyn FnMut(&str),
    ) {
        let places = self.places(start, end);
        if places.is_empty() {
            return;
        }
        if is_all(any_of) {
            let index = self.table.index();
            let stands = |name: &&str| {
                let mut ids = index.values(name).flat_map(|(_, postings)| postings);
                ids.any(|&id| places.have(id))
            };
            return index.names().filter(stands).for_each(each);
        }
        let kinds = self.table.kinds();
        let can_choose = |kind| {
            any_of
                .iter()
                .any(|matchers| chooses(matchers, kinds.metric(kind)))
        };
        let mut wanted: Vec<bool> = (0..kinds.count()).map(can_choose).collect();
        let mut left = wanted.iter().filter(|is_wanted| **is_wanted).count();
        // Those that no kind is known of come last.
        let all_known = kinds.series() == self.table.len();
        let mut names: Vec<&str> = Vec::new();
        for id in self.select_registered(any_of) {
            if left == 0 && all_known {
                break;
            }
            let kind = self.table.place(id).and_then(|place| kinds.at(place));
            if kind.is_some_and(|kind| !wanted[kind]) || !places.have(id) {
                continue;
            }
            match (kind, self.table.labels(id)) {
                (Some(kind), _) => {
                    wanted[kind] = false;
                    left -= 1;
                    names.extend(kinds.names(kind));
                }
                (None, Some(labels)) => names.extend(labels.iter().map(|(name, _)| name)),
                (None, None) => {}
            }
        }
        distinct(names).into_iter().for_each(each);
    }

    /// As [`State::each_label_name`], the values of one label; whether one of them stands anywhere
    /// is looked up when `each` asks, which it need not where it knows the value already.
    pub fn each_label_value(
        &self,
        name: &str,
        any_of: &[Vec<Matcher>],
        (start, end): (Timestamp, Timestamp),
        each: &mut EachValue<'_>,
    ) {
        let places = self.places(start, end);
        if places.is_empty() {
            return;
        }
        let mut values = self.table.index().values(name);
        if is_all(any_of) {
            // Of the next values about as many will be asked for as of the last ones: all, or none.
            let (is_asked, mut was_asked) = (Cell::new(false), false);
            let stands = |postings: &[SeriesId]| {
                is_asked.set(true);
                postings.iter().any(|&id| places.have(id))
            };
            while let Some(some) = touched_values(&mut values, was_asked) {
                let some = some.into_iter();
                some.for_each(|(value, postings)| each(value, &|| stands(postings)));
                was_asked = is_asked.replace(false);
            }
            return;
        }
        let mut chosen = self.select_registered(any_of);
        chosen.retain(|&id| places.have(id));
        // Few values on many series: each is soon met. Many values: the series are fewer.
        if self.table.index().value_count(name) * VALUES_ARE_FEW < chosen.len() {
            let met = |postings: &[SeriesId]| {
                let mut found = postings.iter().map(|id| chosen.binary_search(id).is_ok());
                found.any(|found| found)
            };
            values.for_each(|(value, postings)| each(value, &|| met(postings)));
            return;
        }
        let labels = chosen.into_iter().filter_map(|id| self.table.labels(id));
        let values = distinct(labels.filter_map(|labels| labels.get(name)).collect());
        values.into_iter().for_each(|value| each(value, &|| true));
    }

    /// Exemplars in `start ..= end` of series that any of the lists chooses (all, when there is
    /// none), by series id.
    pub fn gather_exemplars(
        &self,
        any_of: &[Vec<Matcher>],
        start: Timestamp,
        end: Timestamp,
    ) -> Vec<ExemplarSeries> {
        let chosen = self.select_registered(any_of).into_iter().map(|id| {
            let labels = self.table.labels(id).cloned().unwrap_or_default();
            let exemplars = self.exemplars.of(id, start, end);
            ExemplarSeries { labels, exemplars }
        });
        chosen.filter(|found| !found.exemplars.is_empty()).collect()
    }

    /// Ids of registered series that any of the lists chooses, ascending; all, when there is none.
    pub fn select_registered(&self, any_of: &[Vec<Matcher>]) -> Vec<SeriesId> {
        select_any(self.table.index(), any_of)
    }

    fn places(&self, start: Timestamp, end: Timestamp) -> Places<'_> {
        match start > end {
            true => Places {
                state: self,
                head: false,
                blocks: Vec::new(),
            },
            false => Places {
                state: self,
                head: self.head.meets(start, end),
                blocks: self.blocks(start, end),
            },
        }
    }

    /// Whether a block holds anything of a series that is not deleted for certain.
    pub(super) fn stands_in(&self, block: &Sealed, id: SeriesId) -> bool {
        let is_deleted = || {
            let (min, max) = block.range();
            let deleted = self.tombstones.get(&block.id())?.of(id)?;
            Some(deleted.cover(min, max))
        };
        block.has(id) && is_deleted() != Some(true)
    }
}

/// Series that are fetched from memory together: about as many as a core waits for at once.
const TOUCHED_SERIES: usize = 16;

/// The next values, fetched from memory together, with their series if those are `wanted`.
fn touched_values<'a>(
    values: &mut impl Iterator<Item = (&'a str, &'a [SeriesId])>,
    wanted: bool,
) -> Option<Vec<(&'a str, &'a [SeriesId])>> {
    let some: Vec<_> = values.take(TOUCHED_SERIES).collect();
    let seen = some.iter().map(|(value, postings)| {
        let first = postings.first().filter(|_| wanted).map_or(0, |id| id.0);
        first ^ u64::from(value.as_bytes().first().copied().unwrap_or_default())
    });
    std::hint::black_box(seen.fold(0, |all, one| all ^ one));
    (!some.is_empty()).then_some(some)
}

/// How many chosen series a value must have on average for it to be looked up by itself.
const VALUES_ARE_FEW: usize = 32;

/// The head and the blocks that a range of time meets.
struct Places<'a> {
    state: &'a State,
    head: bool,
    blocks: Vec<&'a Sealed>,
}

impl Places<'_> {
    fn is_empty(&self) -> bool {
        !self.head && self.blocks.is_empty()
    }

    fn have(&self, id: SeriesId) -> bool {
        let state = self.state;
        let in_head = || {
            let series = state.head.series(id);
            series.is_some_and(|series| !series.is_empty())
        };
        let mut blocks = self.blocks.iter();
        (self.head && in_head()) || blocks.any(|block| state.stands_in(block, id))
    }
}

/// Whether what a list says of the metric holds of this one.
fn chooses(matchers: &[Matcher], metric: &str) -> bool {
    let mut of_metric = matchers.iter().filter(|m| m.name == METRIC_NAME);
    of_metric.all(|matcher| matcher.matches(metric))
}

fn distinct(mut texts: Vec<&str>) -> Vec<&str> {
    texts.sort_unstable();
    texts.dedup();
    texts
}
