//! The named series of a shard in the order of an exposition: by name, then by labels.
//!
//! Kept because sorting a million label sets takes a second; four bytes a series.

use model::{Labels, SeriesId};

/// Ids in that order.
#[derive(Debug, Default)]
pub struct Order {
    ids: Vec<u32>,
    /// Series that were looked at, named or not: all ids below.
    series: usize,
}

impl Order {
    pub fn series(&self) -> usize {
        self.series
    }

    /// The order of all `labels`, of which the first [`Order::series`] are in this one.
    pub fn extended(&self, labels: &[Labels]) -> Self {
        let number = |id: usize| u32::try_from(id).expect("a shard has fewer than 2^32 series");
        let new = self.series..labels.len();
        let mut ids = self.ids.clone();
        ids.extend(
            new.filter(|id| !labels[*id].metric_name().is_empty())
                .map(number),
        );
        let by_name = |a: &u32, b: &u32| labels[*a as usize].cmp_by_name(&labels[*b as usize]);
        // A run that is in order already and the new ones: the standard sort merges such runs.
        ids[self.ids.len()..].sort_by(by_name);
        ids.sort_by(by_name);
        Self {
            ids,
            series: labels.len(),
        }
    }

    /// Those of `chosen`, which ascend, in this order.
    pub fn sorted(&self, chosen: impl IntoIterator<Item = SeriesId>) -> Vec<u32> {
        let mut wanted = vec![0u64; self.series.div_ceil(64)];
        for SeriesId(id) in chosen {
            if let Some(word) = usize::try_from(id / 64)
                .ok()
                .and_then(|at| wanted.get_mut(at))
            {
                *word |= 1 << (id % 64);
            }
        }
        let is_wanted = |id: &&u32| wanted[**id as usize / 64] & (1 << (**id % 64)) != 0;
        self.ids.iter().filter(is_wanted).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_series_find_their_places() {
        let names = ["b", "", "a", "c", "a", "b"];
        let label = |(n, name): (usize, &&str)| {
            Labels::from_pairs([("__name__", *name), ("n", &*(9 - n).to_string())])
        };
        let labels: Vec<Labels> = names.iter().enumerate().map(label).collect();
        let whole = Order::default().extended(&labels);
        assert_eq!(whole.ids, [4, 2, 5, 0, 3]);
        let grown = Order::default().extended(&labels[..3]).extended(&labels);
        assert_eq!((&grown.ids, grown.series()), (&whole.ids, 6));
        let chosen = [0, 1, 2, 3, 99].map(SeriesId);
        assert_eq!(whole.sorted(chosen), [2, 0, 3]);
    }
}
