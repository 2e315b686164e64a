//! The register of series: label set to id, id to label set, and the index over them.
//!
//! Ids count up from zero in log order and are never given to another label set. One that only blocks hold rests: it
//! leaves the register and comes back under its id.

use std::sync::{Arc, Mutex};

use model::hash::Map;
use model::kept::kept;
use model::memo::Giver;
use model::{Labels, Matcher, SeriesId};

use crate::by_id::ById;
use crate::index::Index;
use crate::kinds::Kinds;
use crate::order::Order;

#[derive(Debug, Default)]
pub struct SeriesTable {
    labels: ById<Labels>,
    ids: Map<Labels, SeriesId>,
    index: Index,
    /// Made when it is first asked for. Nothing that is replicated.
    order: Mutex<Arc<Order>>,
    /// The same holds of it.
    kinds: Mutex<Arc<Kinds>>,
    /// Ids stand as memos beside the label sets they were asked for.
    giver: Giver,
}

impl SeriesTable {
    /// As a checkpoint kept it; `None` if a label set stands twice.
    pub fn restore(mut labels: ById<Labels>) -> Option<Self> {
        let mut table = Self::default();
        for (id, labels) in labels.iter_mut() {
            *labels = kept(std::mem::take(labels));
            table.ids.insert(labels.clone(), id);
            table.index.add(id, labels);
        }
        table.labels = labels;
        (table.ids.len() == table.labels.len()).then_some(table)
    }

    /// The id of `labels`, and whether it was given just now.
    pub fn register(&mut self, labels: &Labels) -> (SeriesId, bool) {
        self.register_all(std::slice::from_ref(labels))[0]
    }

    /// As [`SeriesTable::register`] of one after the other.
    pub fn register_all(&mut self, all: &[Labels]) -> Vec<(SeriesId, bool)> {
        let given: Vec<_> = all.iter().map(|labels| self.give(labels)).collect();
        let new = given.iter().filter(|(_, new)| *new);
        let labels = |(id, _): &(SeriesId, bool)| Some((*id, self.labels.get(*id)?));
        let new: Vec<(SeriesId, &Labels)> = new.filter_map(labels).collect();
        self.index.add_all(&new);
        given
    }

    /// All of [`SeriesTable::register`] but the index.
    fn give(&mut self, labels: &Labels) -> (SeriesId, bool) {
        if let Some(&id) = self.ids.get(labels) {
            return (id, false);
        }
        let labels = kept(labels.clone());
        let id = self.labels.push(labels.clone());
        self.ids.insert(labels, id);
        (id, true)
    }

    /// Takes in label sets that rested, by id.
    pub fn put_back(&mut self, back: &[(SeriesId, Labels)]) {
        if back.is_empty() {
            return;
        }
        let keep = |(id, labels): &(SeriesId, Labels)| (*id, kept(labels.clone()));
        let back: Vec<(SeriesId, Labels)> = back.iter().map(keep).collect();
        self.index.put_back(&back);
        let ids = back.iter().map(|(id, labels)| (labels.clone(), *id));
        self.ids.extend(ids);
        let ids: Vec<SeriesId> = back.iter().map(|(id, _)| *id).collect();
        self.labels.put_back(back);
        let places: Vec<usize> = ids.iter().filter_map(|id| self.labels.place(*id)).collect();
        let order = self.order.get_mut().expect("sorting does not panic");
        *order = Arc::new(order.with(&places, self.labels.entries()));
        *self.kinds.get_mut().expect("counting does not panic") = Arc::default();
    }

    pub fn resolve(&self, labels: &Labels) -> Option<SeriesId> {
        if let Some(id) = labels.memo(self.giver) {
            return Some(SeriesId(u64::from(id)));
        }
        let id = self.ids.get(labels).copied()?;
        if let Ok(number) = u32::try_from(id.0) {
            labels.set_memo(self.giver, number);
        }
        Some(id)
    }

    pub fn labels(&self, id: SeriesId) -> Option<&Labels> {
        self.labels.get(id)
    }

    pub fn all(&self) -> &ById<Labels> {
        &self.labels
    }

    /// Takes out those of `gone`, which ascend.
    pub fn remove(&mut self, gone: &[SeriesId]) -> Vec<(SeriesId, Labels)> {
        let known = |id: &SeriesId| Some((*id, self.labels.place(*id)?));
        let (gone, places): (Vec<_>, Vec<_>) = gone.iter().filter_map(known).unzip();
        if gone.is_empty() {
            return Vec::new();
        }
        let order = self.order.get_mut().expect("sorting does not panic");
        *order = Arc::new(order.without(&places));
        *self.kinds.get_mut().expect("counting does not panic") = Arc::default();
        let labels = self.labels.remove(&gone);
        labels.iter().for_each(|labels| {
            self.ids.remove(labels);
        });
        self.ids.shrink_to(2 * self.ids.len());
        // What stands beside label sets out there is true no longer.
        self.giver = Giver::new();
        let gone: Vec<_> = gone.into_iter().zip(labels).collect();
        self.index.remove(&gone);
        gone
    }

    /// Those of `chosen`, which ascend, that have a name, in the order of an exposition.
    pub fn sorted_by_name(&self, chosen: &[SeriesId]) -> Vec<SeriesId> {
        let place = |id: &SeriesId| Some((*id, self.labels.place(*id)?));
        let (ids, places): (Vec<_>, Vec<_>) = chosen.iter().filter_map(place).unzip();
        let sorted = self.by_name().sorted(&places);
        sorted.into_iter().map(|nth| ids[nth]).collect()
    }

    fn by_name(&self) -> Arc<Order> {
        let mut order = self.order.lock().expect("sorting does not panic");
        if order.series() < self.labels.len() {
            *order = Arc::new(order.extended(self.labels.entries()));
        }
        order.clone()
    }

    /// What is known of the series' names, by [`SeriesTable::place`].
    pub fn kinds(&self) -> Arc<Kinds> {
        let mut kinds = self.kinds.lock().expect("counting does not panic");
        if kinds.series() < self.labels.len() {
            Arc::make_mut(&mut kinds).extend(self.labels.entries());
        }
        kinds.clone()
    }

    /// Where a series stands among all.
    pub fn place(&self, id: SeriesId) -> Option<usize> {
        self.labels.place(id)
    }

    /// How many ids were given ever.
    pub fn given(&self) -> u64 {
        self.labels.next()
    }

    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Ids that all `matchers` choose, ascending.
    pub fn select(&self, matchers: &[Matcher]) -> Vec<SeriesId> {
        self.index.select(matchers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_order_of_registration() {
        let mut table = SeriesTable::default();
        let (a, b) = (
            Labels::from_pairs([("a", "1")]),
            Labels::from_pairs([("b", "1")]),
        );
        assert_eq!(table.register(&b), (SeriesId(0), true));
        assert_eq!(table.register(&a), (SeriesId(1), true));
        assert_eq!(table.register(&b), (SeriesId(0), false));
        assert_eq!(table.resolve(&a), Some(SeriesId(1)));
        assert_eq!(table.resolve(&a), Some(SeriesId(1)), "by its memo");
        let mut other = SeriesTable::default();
        assert_eq!(other.resolve(&a), None, "another table's memo");
        other.register(&a);
        assert_eq!(other.resolve(&a), Some(SeriesId(0)));
        assert_eq!(table.resolve(&a), Some(SeriesId(1)));
        assert_eq!(table.labels(SeriesId(1)), Some(&a));
        assert_eq!(table.labels(SeriesId(2)), None);
        let chosen = table.select(&[Matcher::equal("b", "1")]);
        assert_eq!(chosen, vec![SeriesId(0)]);
    }

    #[test]
    fn what_is_removed_is_known_nowhere_until_it_is_put_back() {
        let mut table = SeriesTable::default();
        let named = |name: &str| Labels::from_pairs([("__name__", name), ("job", "x")]);
        let all = ["d", "c", "b", "a"].map(named);
        let ids: Vec<SeriesId> = all.iter().map(|labels| table.register(labels).0).collect();
        let by_name = |table: &SeriesTable| table.sorted_by_name(&table.select(&[]));
        assert_eq!(by_name(&table), [3, 2, 1, 0].map(SeriesId));
        assert_eq!(table.resolve(&all[1]), Some(ids[1]), "now beside it");
        assert_eq!(table.resolve(&all[3]), Some(ids[3]));
        let removed = table.remove(&[SeriesId(1), SeriesId(2), SeriesId(9)]);
        assert_eq!(
            removed,
            [(ids[1], all[1].clone()), (ids[2], all[2].clone())]
        );
        assert_eq!((table.len(), table.given()), (2, 4));
        assert_eq!(table.resolve(&all[1]), None, "whatever stands beside it");
        assert_eq!(table.resolve(&all[3]), Some(ids[3]));
        assert_eq!(
            (table.labels(ids[1]), table.labels(ids[0])),
            (None, Some(&all[0]))
        );
        assert_eq!(by_name(&table), [3, 0].map(SeriesId));
        assert_eq!(table.select(&[Matcher::equal("__name__", "c")]), []);
        assert_eq!((table.kinds().series(), table.place(ids[3])), (2, Some(1)));
        assert_eq!(table.index().value_count("__name__"), 2);
        assert_eq!(table.register(&all[1]), (SeriesId(4), true));
        assert_eq!(by_name(&table), [3, 4, 0].map(SeriesId));
        assert_eq!(
            table.select(&[Matcher::equal("job", "x")]),
            [0, 3, 4].map(SeriesId)
        );
        let again = SeriesTable::restore(table.all().clone()).expect("each once");
        assert_eq!(by_name(&again), by_name(&table));
        assert_eq!(again.given(), 5);
        table.put_back(&[(ids[2], all[2].clone())]);
        assert_eq!(table.resolve(&all[2]), Some(ids[2]));
        assert_eq!(by_name(&table), [3, 2, 4, 0].map(SeriesId));
        assert_eq!(
            table.select(&[Matcher::equal("job", "x")]),
            [0, 2, 3, 4].map(SeriesId)
        );
        assert_eq!((table.len(), table.given()), (4, 5));
        assert!(table.remove(&[SeriesId(1)]).is_empty());
    }
}
