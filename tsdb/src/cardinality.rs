//! How many series of the head carry which labels.

use std::collections::BTreeMap;

use model::Timestamp;

use crate::state::State;

/// Of series with a sample in the head.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Cardinality {
    pub series: u64,
    pub chunks: u64,
    /// First and last instant in the head.
    pub range: Option<(Timestamp, Timestamp)>,
    /// Label name, value, and how many series carry the pair.
    pub labels: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Cardinality {
    /// Walks all series: for an operator's question, not for every write.
    pub fn of(state: &State) -> Self {
        let mut counted = Self {
            range: state.head().stats().range,
            ..Self::default()
        };
        for (id, labels) in state.table().all().iter() {
            let series = state.head().series(id);
            let Some(series) = series.filter(|series| !series.is_empty()) else {
                continue;
            };
            counted.series += 1;
            counted.chunks += series.chunk_count();
            for (name, value) in labels {
                counted.add(name, value);
            }
        }
        counted
    }

    /// Without allocating a name or value that is there.
    fn add(&mut self, name: &str, value: &str) {
        if !self.labels.contains_key(name) {
            self.labels.insert(name.to_owned(), BTreeMap::new());
        }
        let values = self.labels.get_mut(name).expect("just made sure");
        match values.get_mut(value) {
            Some(count) => *count += 1,
            None => drop(values.insert(value.to_owned(), 1)),
        }
    }
}
