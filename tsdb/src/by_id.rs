//! Things by the id of their series, of which some are gone.
//!
//! Ids are given one after the other and never to another, so after some time few of them stand for
//! anything. What is held stands close together, in the order of the ids; a table in pages says
//! where. A page of ids of which none is left costs one word, so that what is held is bounded by
//! what there is, but for an eighth of a bit for each id ever given.
//!
//! Finding one takes two steps and no hash. Removing some, or bringing some back, moves all behind them: many at once.

use model::SeriesId;
use model::limits::SERIES_IDS_MAX;

/// Ids in a page.
const PAGE: usize = 512;
/// The place of an id that is gone.
const NOWHERE: u32 = u32::MAX;

type Page = Box<[u32; PAGE]>;

/// Invariant: every id below `next` has the place of its entry, ascending, or none; no page is
/// without a place.
#[derive(Debug, Clone)]
pub struct ById<T> {
    pages: Vec<Option<Page>>,
    entries: Vec<T>,
    next: u64,
}

impl<T> Default for ById<T> {
    fn default() -> Self {
        Self {
            pages: Vec::new(),
            entries: Vec::new(),
            next: 0,
        }
    }
}

impl<T> ById<T> {
    /// Adds an entry under the next id.
    pub fn push(&mut self, entry: T) -> SeriesId {
        let id = SeriesId(self.next);
        self.put(id, entry);
        id
    }

    /// Adds an entry under an id that is not below the next one; those between are gone.
    ///
    /// # Panics
    /// When the id is below it, or is none of [`SERIES_IDS_MAX`].
    pub fn put(&mut self, id: SeriesId, entry: T) {
        assert!(id.0 >= self.next, "ids come in order");
        assert!(id.0 < SERIES_IDS_MAX, "a shard does not give so many ids");
        let place = u32::try_from(self.entries.len());
        *self.slot(id) = place.expect("fewer entries than 2^32 fit into memory");
        self.entries.push(entry);
        self.next = id.0 + 1;
    }

    /// Adds entries under ids that were given and are gone, ascending. Moves all behind them: many at once.
    ///
    /// # Panics
    /// When one of the ids was never given, or is there.
    pub fn put_back(&mut self, back: Vec<(SeriesId, T)>) {
        for (id, _) in &back {
            assert!(id.0 < self.next, "an id that was given");
            let slot = self.slot(*id);
            assert_eq!(*slot, NOWHERE, "an id that is gone");
            *slot = 0;
        }
        self.renumber();
        let mut entries = Vec::with_capacity(self.entries.len() + back.len());
        let mut held = std::mem::take(&mut self.entries).into_iter();
        for (id, entry) in back {
            let place = self.place(id).expect("it was just given one");
            entries.extend(held.by_ref().take(place - entries.len()));
            entries.push(entry);
        }
        entries.extend(held);
        self.entries = entries;
    }

    /// Where the place of an id stands.
    fn slot(&mut self, id: SeriesId) -> &mut u32 {
        let (page, slot) = place_in_pages(id);
        if self.pages.len() <= page {
            self.pages.resize(page + 1, None);
        }
        let page = self.pages[page].get_or_insert_with(|| Box::new([NOWHERE; PAGE]));
        &mut page[slot]
    }

    /// Ids below `next` are not given any more.
    pub fn skip_to(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// The id given next: how many were given ever.
    pub fn next(&self) -> u64 {
        self.next
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// By id.
    pub fn entries(&self) -> &[T] {
        &self.entries
    }

    /// The entry at a place, as [`ById::place`] tells it.
    pub fn entry_mut(&mut self, place: usize) -> &mut T {
        &mut self.entries[place]
    }

    /// Where among the entries one stands.
    pub fn place(&self, id: SeriesId) -> Option<usize> {
        let (page, slot) = place_in_pages(id);
        let place = self.pages.get(page)?.as_ref()?[slot];
        (place != NOWHERE).then_some(place as usize)
    }

    pub fn get(&self, id: SeriesId) -> Option<&T> {
        self.place(id).map(|place| &self.entries[place])
    }

    pub fn get_mut(&mut self, id: SeriesId) -> Option<&mut T> {
        self.place(id).map(|place| &mut self.entries[place])
    }

    /// The ids from `from` on, ascending.
    pub fn ids_from(&self, from: SeriesId) -> impl Iterator<Item = SeriesId> + '_ {
        ids_in(&self.pages, from)
    }

    /// Ids ascending.
    pub fn iter(&self) -> impl Iterator<Item = (SeriesId, &T)> {
        self.ids_from(SeriesId(0)).zip(&self.entries)
    }

    /// Ids ascending.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (SeriesId, &mut T)> {
        ids_in(&self.pages, SeriesId(0)).zip(&mut self.entries)
    }

    /// Takes out those of `gone`, which ascend.
    pub fn remove(&mut self, gone: &[SeriesId]) -> Vec<T> {
        let places: Vec<usize> = gone.iter().filter_map(|id| self.place(*id)).collect();
        let Some(first) = places.first().copied() else {
            return Vec::new();
        };
        let (mut at, mut next) = (first, places.iter().peekable());
        let is_gone = |_: &mut T| {
            at += 1;
            next.next_if(|place| **place == at - 1).is_some()
        };
        let removed = self.entries.extract_if(first.., is_gone).collect();
        self.entries.shrink_to(2 * self.entries.len());
        for id in gone {
            let (page, slot) = place_in_pages(*id);
            if let Some(Some(page)) = self.pages.get_mut(page) {
                page[slot] = NOWHERE;
            }
        }
        self.renumber();
        removed
    }

    /// Gives the ids that are left their places, and pages without any back.
    fn renumber(&mut self) {
        let mut places = 0..;
        for page in &mut self.pages {
            let Some(slots) = page else { continue };
            let mut left = false;
            for slot in slots.iter_mut().filter(|slot| **slot != NOWHERE) {
                *slot = places.next().expect("counts without end");
                left = true;
            }
            if !left {
                *page = None;
            }
        }
    }
}

fn place_in_pages(id: SeriesId) -> (usize, usize) {
    let page = usize::try_from(id.0 / PAGE as u64).unwrap_or(usize::MAX);
    (page, (id.0 % PAGE as u64) as usize)
}

fn ids_in(pages: &[Option<Page>], from: SeriesId) -> impl Iterator<Item = SeriesId> + '_ {
    let first = place_in_pages(from).0;
    let pages = (0u64..).zip(pages).skip(first);
    let held = pages.filter_map(|(number, page)| Some((number, page.as_ref()?)));
    let ids = held.flat_map(|(number, page)| {
        let slots = (number * PAGE as u64..).zip(page.iter());
        let held = slots.filter(|(_, place)| **place != NOWHERE);
        held.map(|(id, _)| SeriesId(id))
    });
    ids.skip_while(move |id| *id < from)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push(u16),
        Skip(u64),
        /// Every id but those that leave this rest when divided by the other.
        Keep(u64, u64),
        /// Every gone id that leaves this rest.
        Back(u64, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u16..900).prop_map(Step::Push),
            (0u64..3_000).prop_map(Step::Skip),
            (0u64..4, 1u64..9).prop_map(|(rest, by)| Step::Keep(rest, by)),
            (0u64..4, 1u64..9).prop_map(|(rest, by)| Step::Back(rest, by)),
            Just(Step::Keep(9, 9)),
        ]
    }

    fn check(found: &ById<u64>, expected: &BTreeMap<u64, u64>, next: u64) {
        let all: Vec<(u64, u64)> = found.iter().map(|(id, entry)| (id.0, *entry)).collect();
        assert_eq!(all, expected.clone().into_iter().collect::<Vec<_>>());
        assert_eq!((found.len(), found.next()), (expected.len(), next));
        for id in 0..next + 2 {
            assert_eq!(found.get(SeriesId(id)), expected.get(&id));
        }
        let from = next / 2;
        let ids: Vec<u64> = found.ids_from(SeriesId(from)).map(|id| id.0).collect();
        let behind = expected.range(from..).map(|(id, _)| *id);
        assert_eq!(ids, behind.collect::<Vec<_>>());
        let pages = found.pages.iter().flatten().count();
        assert!(pages <= expected.len(), "a page without a place");
    }

    proptest! {
        #[test]
        fn finds_what_a_map_finds(steps in prop::collection::vec(step(), 1..9)) {
            let mut found = ById::default();
            let (mut expected, mut next) = (BTreeMap::new(), 0);
            for step in steps {
                match step {
                    Step::Push(count) => for _ in 0..count {
                        prop_assert_eq!(found.push(next * 7), SeriesId(next));
                        expected.insert(next, next * 7);
                        next += 1;
                    },
                    Step::Skip(by) => {
                        next += by;
                        found.skip_to(next);
                        found.skip_to(next / 2);
                    }
                    Step::Keep(rest, by) => {
                        let gone: Vec<SeriesId> = (0..next).filter(|id| id % by != rest).map(SeriesId).collect();
                        let removed = found.remove(&gone);
                        let taken = expected.extract_if(.., |id, _| id % by != rest);
                        prop_assert_eq!(removed, taken.map(|(_, entry)| entry).collect::<Vec<_>>());
                    }
                    Step::Back(rest, by) => {
                        let gone = (0..next).filter(|id| !expected.contains_key(id));
                        let back: Vec<u64> = gone.filter(|id| id % by == rest).collect();
                        found.put_back(back.iter().map(|id| (SeriesId(*id), id * 9)).collect());
                        expected.extend(back.into_iter().map(|id| (id, id * 9)));
                    }
                }
                check(&found, &expected, next);
            }
            let mut again = ById::default();
            for (id, entry) in found.iter() {
                again.put(id, *entry);
            }
            again.skip_to(found.next());
            check(&again, &expected, next);
        }
    }

    #[test]
    fn no_id_is_out_of_reach() {
        let mut held = ById::default();
        held.push('a');
        assert_eq!(held.get(SeriesId(u64::MAX)), None);
        assert_eq!(held.ids_from(SeriesId(u64::MAX)).count(), 0);
        assert!(held.remove(&[SeriesId(u64::MAX)]).is_empty());
        assert_eq!(held.remove(&[SeriesId(0)]), ['a']);
        assert_eq!(held.push('b'), SeriesId(1), "never given to another");
        held.put_back(vec![(SeriesId(0), 'a')]);
        assert_eq!(held.entries(), ['a', 'b']);
    }
}
