//! The register of series: label set to id, id to label set, and the index over them.
//!
//! Ids count up from zero in log order and are never used again.

use std::sync::{Arc, Mutex};

use model::hash::Map;
use model::memo::Giver;
use model::{Labels, Matcher, SeriesId};

use crate::index::Index;
use crate::order::Order;

#[derive(Debug, Default)]
pub struct SeriesTable {
    labels: Vec<Labels>,
    ids: Map<Labels, SeriesId>,
    index: Index,
    /// Made when it is first asked for. Nothing that is replicated.
    order: Mutex<Arc<Order>>,
    /// Ids stand as memos beside the label sets they were asked for.
    giver: Giver,
}

impl SeriesTable {
    /// The id of `labels`, and whether it was given just now.
    pub fn register(&mut self, labels: &Labels) -> (SeriesId, bool) {
        if let Some(&id) = self.ids.get(labels) {
            return (id, false);
        }
        let id = SeriesId(self.labels.len() as u64);
        self.labels.push(labels.clone());
        self.ids.insert(labels.clone(), id);
        self.index.add(id, labels);
        (id, true)
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
        self.labels.get(usize::try_from(id.0).ok()?)
    }

    /// By id.
    pub fn all(&self) -> &[Labels] {
        &self.labels
    }

    /// All named series in the order of an exposition.
    pub fn by_name(&self) -> Arc<Order> {
        let mut order = self.order.lock().expect("sorting does not panic");
        if order.series() < self.labels.len() {
            *order = Arc::new(order.extended(&self.labels));
        }
        order.clone()
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
}
