//! Which names the label sets of a shard have: many label sets, few sets of names. Those of one metric
//! mostly have the same, and are asked about together, so a kind is of one metric.
//!
//! Made when it is first asked for, a bounded part at a time; nothing that is replicated.

use model::Labels;
use model::hash::Map;

/// Label sets that are looked at before one answer, at most: it is given under the shard's lock.
const LOOKED_AT_MAX: usize = 64 << 10;

/// Invariant: `of` says of each of the first series which of `kinds` has its names and its metric, no
/// two of which have the same.
#[derive(Debug, Default, Clone)]
pub struct Kinds {
    of: Vec<u32>,
    kinds: Vec<Labels>,
    by_names: Map<Vec<u8>, u32>,
}

impl Kinds {
    /// Of how many series the kind is known.
    pub fn series(&self) -> usize {
        self.of.len()
    }

    /// How many kinds there are.
    pub fn count(&self) -> usize {
        self.kinds.len()
    }

    /// The kind of the series at `place`, if it is known.
    pub fn at(&self, place: usize) -> Option<usize> {
        self.of.get(place).map(|&kind| kind as usize)
    }

    /// The metric that a kind is of, or the empty text.
    pub fn metric(&self, kind: usize) -> &str {
        self.kinds[kind].metric_name()
    }

    /// The names that a kind stands for.
    pub fn names(&self, kind: usize) -> impl Iterator<Item = &str> {
        self.kinds[kind].iter().map(|(name, _)| name)
    }

    /// Gets to know more of `entries`, which begin with those that it knows.
    pub fn extend(&mut self, entries: &[Labels]) {
        let mut before = None;
        for labels in entries.iter().skip(self.of.len()).take(LOOKED_AT_MAX) {
            let kind = match before {
                Some((same, kind)) if is_of_kind(labels, same) => kind,
                _ => self.kind_of(labels),
            };
            before = Some((labels, kind));
            self.of.push(kind);
        }
    }

    fn kind_of(&mut self, labels: &Labels) -> u32 {
        let mut names = labels.metric_name().as_bytes().to_vec();
        names.push(0xff);
        for (name, _) in labels {
            // No byte of UTF-8.
            names.extend_from_slice(name.as_bytes());
            names.push(0xff);
        }
        let next = u32::try_from(self.kinds.len()).expect("no more kinds than series");
        *self.by_names.entry(names).or_insert_with(|| {
            self.kinds.push(labels.clone());
            next
        })
    }
}

fn is_of_kind(labels: &Labels, same: &Labels) -> bool {
    labels.has_names_of(same) && labels.metric_name() == same.metric_name()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_a_metric_and_a_set_of_names() {
        let of = |metric, other| Labels::from_pairs([("__name__", metric), (other, "1")]);
        let entries = [of("x", "a"), of("x", "b"), of("y", "a"), of("x", "a")];
        let mut kinds = Kinds::default();
        kinds.extend(&entries);
        let found: Vec<_> = (0..4).filter_map(|place| kinds.at(place)).collect();
        assert_eq!(found, [0, 1, 2, 0]);
        let metrics: Vec<_> = (0..3).map(|kind| kinds.metric(kind)).collect();
        assert_eq!(metrics, ["x", "x", "y"]);
    }

    #[test]
    fn a_kind_is_a_set_of_names() {
        let entries = [
            Labels::from_pairs([("a", "1"), ("b", "1")]),
            Labels::from_pairs([("a", "2"), ("b", "2")]),
            Labels::from_pairs([("a", "1")]),
            Labels::from_pairs([("ab", "1")]),
            Labels::from_pairs([("a", "3"), ("b", "3")]),
            Labels::default(),
        ];
        let mut kinds = Kinds::default();
        kinds.extend(&entries[..3]);
        assert_eq!((kinds.series(), kinds.at(3)), (3, None));
        kinds.extend(&entries);
        let found: Vec<_> = (0..6).filter_map(|place| kinds.at(place)).collect();
        assert_eq!(found, [0, 0, 1, 2, 0, 3]);
        let names = |kind| kinds.names(kind).collect::<Vec<_>>();
        assert_eq!(names(0), ["a", "b"]);
        assert_eq!((names(2), names(3)), (vec!["ab"], Vec::new()));
        assert_eq!(kinds.count(), 4);
    }

    #[test]
    fn no_more_are_looked_at_than_the_bound_says() {
        let entries = vec![Labels::from_pairs([("a", "1")]); LOOKED_AT_MAX + 1];
        let mut kinds = Kinds::default();
        kinds.extend(&entries);
        assert_eq!(kinds.series(), LOOKED_AT_MAX);
        kinds.extend(&entries);
        assert_eq!((kinds.series(), kinds.count()), (LOOKED_AT_MAX + 1, 1));
    }
}
