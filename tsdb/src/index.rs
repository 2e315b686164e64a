//! The inverted index: label name, value, and the series that carry it.
//!
//! Prometheus' rules: a label that is not set compares as the empty text, so a matcher that
//! matches the empty text also chooses series without the label, and can only take away.

use std::collections::BTreeMap;
use std::ops::Bound;

use model::hash::Map;
use model::matcher::MatchOp;
use model::{Labels, Matcher, SeriesId};

/// Ids in ascending order.
type Postings = Vec<SeriesId>;

/// All registered series by label. Postings are sorted: new ids are above all others.
#[derive(Debug, Default)]
pub struct Index {
    names: BTreeMap<Box<str>, BTreeMap<Box<str>, Held>>,
    all: Postings,
}

/// Postings that are kept, not none. Many values stand on one series alone, as that of a pod's name or an
/// address does: they take no memory apart.
#[derive(Debug, PartialEq)]
enum Held {
    One(SeriesId),
    Many(Postings),
}

impl Held {
    fn ids(&self) -> &[SeriesId] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }

    fn push(&mut self, id: SeriesId) {
        match self {
            Self::One(first) => *self = Self::Many(vec![*first, id]),
            Self::Many(ids) => push(ids, id),
        }
    }

    fn merge(&mut self, ids: &[SeriesId]) {
        match self {
            Self::One(first) => {
                let mut merged = vec![*first];
                merge(&mut merged, ids);
                *self = Self::Many(merged);
            }
            Self::Many(held) => merge(held, ids),
        }
    }

    /// `None` if there are none.
    fn of(mut ids: Postings) -> Option<Self> {
        ids.shrink_to_fit();
        match ids[..] {
            [] => None,
            [id] => Some(Self::One(id)),
            _ => Some(Self::Many(ids)),
        }
    }
}

/// Puts others, which ascend too, where they belong.
fn merge(ids: &mut Postings, others: &[SeriesId]) {
    let Some(first) = others.first() else {
        return;
    };
    if ids.capacity() - ids.len() < others.len() {
        ids.reserve_exact(others.len() + ids.len() / 8);
    }
    let from = ids.partition_point(|id| id < first);
    ids.extend_from_slice(others);
    // Two ascending runs, which the stable sort finds.
    ids[from..].sort();
}

/// Tells of each label that any of these have, with their ids. Neighbours share most of their labels: one that stands
/// in the same place of several is looked up once for all of them.
fn each_label(series: &[(SeriesId, Labels)], mut tell: impl FnMut(&str, &str, &[SeriesId])) {
    let (mut all, mut known) = (Vec::<((&str, &str), Postings)>::new(), Map::default());
    // By place: the one that was met there last.
    let mut last: Vec<usize> = Vec::new();
    for (id, labels) in series {
        for (place, label) in labels.iter().enumerate() {
            let shared = last.get(place).filter(|nth| all[**nth].0 == label);
            let nth = shared.copied().unwrap_or_else(|| {
                *known.entry(label).or_insert_with(|| {
                    all.push((label, Postings::new()));
                    all.len() - 1
                })
            });
            all[nth].1.push(*id);
            match last.get_mut(place) {
                Some(last) => *last = nth,
                None => last.push(nth),
            }
        }
    }
    for ((name, value), ids) in all {
        tell(name, value, &ids);
    }
}

/// Long lists grow by an eighth: there are as many entries in them as series have labels.
fn push(ids: &mut Postings, id: SeriesId) {
    if ids.len() == ids.capacity() {
        ids.reserve_exact(ids.len() / 8 + 2);
    }
    ids.push(id);
}

impl Index {
    pub fn add(&mut self, id: SeriesId, labels: &Labels) {
        self.add_all(&[(id, labels)]);
    }

    /// Adds series by id. Neighbours share most of their labels: one that stands in the same place of several is
    /// looked up once for all of them.
    pub fn add_all(&mut self, new: &[(SeriesId, &Labels)]) {
        let ids: Vec<SeriesId> = new.iter().map(|(id, _)| *id).collect();
        let ends = self.all.last().into_iter().chain(&ids);
        assert!(ends.is_sorted_by(|a, b| a < b), "ids are added in order");
        ids.iter().for_each(|id| push(&mut self.all, *id));
        // By place: a label, and the first of the series that have had it since.
        let mut shared: Vec<((&str, &str), usize)> = Vec::new();
        for (nth, (_, labels)) in new.iter().enumerate() {
            let mut places = 0;
            for label in *labels {
                match shared.get_mut(places) {
                    Some((before, _)) if *before == label => {}
                    Some(before) => {
                        let ((name, value), from) = std::mem::replace(before, (label, nth));
                        self.add_label(name, value, &ids[from..nth]);
                    }
                    None => shared.push((label, nth)),
                }
                places += 1;
            }
            for ((name, value), from) in shared.drain(places..) {
                self.add_label(name, value, &ids[from..nth]);
            }
        }
        for ((name, value), from) in shared {
            self.add_label(name, value, &ids[from..]);
        }
    }

    /// Takes out series with their labels, by id.
    pub fn remove(&mut self, gone: &[(SeriesId, Labels)]) {
        let ids: Vec<SeriesId> = gone.iter().map(|(id, _)| *id).collect();
        self.all = subtract(&self.all, &ids);
        each_label(gone, |name, value, ids| {
            self.remove_postings(name, value, ids);
        });
    }

    /// Adds series that were taken out, with their labels, by id.
    pub fn put_back(&mut self, back: &[(SeriesId, Labels)]) {
        let ids: Vec<SeriesId> = back.iter().map(|(id, _)| *id).collect();
        merge(&mut self.all, &ids);
        each_label(back, |name, value, ids| {
            let held = self
                .names
                .get_mut(name)
                .and_then(|values| values.get_mut(value));
            match held {
                Some(held) => held.merge(ids),
                None => self.add_label(name, value, ids),
            }
        });
    }

    fn remove_postings(&mut self, name: &str, value: &str, ids: &[SeriesId]) {
        let Some(values) = self.names.get_mut(name) else {
            return;
        };
        let Some(postings) = values.get_mut(value) else {
            return;
        };
        match Held::of(subtract(postings.ids(), ids)) {
            Some(left) => *postings = left,
            None => drop(values.remove(value)),
        }
        if values.is_empty() {
            self.names.remove(name);
        }
    }

    /// Without allocating the name or value when it is there, as it nearly always is.
    fn add_label(&mut self, name: &str, value: &str, ids: &[SeriesId]) {
        let Some((first, others)) = ids.split_first() else {
            return;
        };
        let Some(values) = self.names.get_mut(name) else {
            let values = BTreeMap::from([(value.into(), Held::One(*first))]);
            self.names.insert(name.into(), values);
            return self.add_label(name, value, others);
        };
        if let Some(held) = values.get_mut(value) {
            return ids.iter().for_each(|id| held.push(*id));
        }
        values.insert(value.into(), Held::One(*first));
        self.add_label(name, value, others);
    }

    /// Names of labels, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(|name| &**name)
    }

    /// Values of a label, sorted, with the series that have them, ascending and not none.
    pub fn values(&self, name: &str) -> impl Iterator<Item = (&str, &[SeriesId])> {
        let values = self.names.get(name).into_iter().flatten();
        values.map(|(value, held)| (&**value, held.ids()))
    }

    pub fn value_count(&self, name: &str) -> usize {
        self.names.get(name).map_or(0, BTreeMap::len)
    }

    /// Ids that all `matchers` choose, ascending; every id when there is no matcher.
    pub fn select(&self, matchers: &[Matcher]) -> Vec<SeriesId> {
        let (taking, choosing): (Vec<_>, Vec<_>) = matchers.iter().partition(|m| m.matches_empty());
        let mut chosen: Option<Postings> = None;
        for matcher in choosing {
            let postings = self.chosen_by(matcher);
            chosen = Some(match chosen {
                Some(before) => intersect(&before, &postings),
                None => postings,
            });
        }
        let mut chosen = chosen.unwrap_or_else(|| self.all.clone());
        for matcher in taking {
            if chosen.is_empty() {
                break;
            }
            let postings = self.union(matcher, |value| !matcher.matches(value));
            chosen = subtract(&chosen, &postings);
        }
        chosen
    }

    /// Series that a matcher chooses which does not choose the empty text. What the pattern says of
    /// its values spares looking at all of them.
    fn chosen_by(&self, matcher: &Matcher) -> Postings {
        let (Some(literals), Some(values)) =
            (matcher.literals(), self.names.get(matcher.name.as_str()))
        else {
            return self.union(matcher, |value| matcher.matches(value));
        };
        if let [value] = literals {
            return held(values.get(value.as_str()));
        }
        let found = literals
            .iter()
            .filter_map(|value| values.get(value.as_str()));
        let mut ids: Postings = found.flat_map(Held::ids).copied().collect();
        // Ascending runs, which the stable sort finds.
        ids.sort();
        ids
    }

    /// Series whose value of the matcher's label satisfies `wanted`.
    fn union(&self, matcher: &Matcher, wanted: impl Fn(&str) -> bool) -> Postings {
        let Some(values) = self.names.get(matcher.name.as_str()) else {
            return Vec::new();
        };
        // One value decides: `="x"` wants it, `!="x"` (which matches empty) takes it away.
        let single =
            matches!(matcher.op, MatchOp::Equal | MatchOp::NotEqual) && !matcher.value.is_empty();
        if single {
            return held(values.get(matcher.value.as_str()));
        }
        // Of a matcher that takes away, wanted are the values it does not match: the prefix is empty.
        let prefix = match matcher.matches_empty() {
            true => "",
            false => matcher.prefix(),
        };
        let mut ids: Postings = values
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(value, _)| value.starts_with(prefix))
            .filter(|(value, _)| wanted(value))
            .flat_map(|(_, held)| held.ids())
            .copied()
            .collect();
        // Ascending runs, which the stable sort finds.
        ids.sort();
        ids
    }
}

/// Whether no list chooses fewer than all series.
pub fn is_all(any_of: &[Vec<Matcher>]) -> bool {
    any_of.is_empty() || any_of.iter().any(Vec::is_empty)
}

/// Ids that any of the lists chooses, ascending; all, when there is none.
pub fn select_any(index: &Index, any_of: &[Vec<Matcher>]) -> Vec<SeriesId> {
    match any_of {
        [] => index.select(&[]),
        [matchers] => index.select(matchers),
        several => {
            let lists = several.iter().map(|matchers| index.select(matchers));
            let mut ids: Vec<SeriesId> = lists.flatten().collect();
            ids.sort();
            ids.dedup();
            ids
        }
    }
}

/// A copy; none if there are none.
fn held(postings: Option<&Held>) -> Postings {
    postings.map_or_else(Vec::new, |held| held.ids().to_vec())
}

/// How many times shorter a list must be for each of its ids to be searched in the other.
const MUCH_SHORTER: usize = 16;

/// What is in both of two lists, which ascend.
pub(crate) fn intersect<I: Copy + Ord>(a: &[I], b: &[I]) -> Vec<I> {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    let mut kept = Vec::with_capacity(short.len());
    keep(short, long, |id, is_in| {
        if is_in {
            kept.push(id);
        }
    });
    kept
}

/// What is in the first of two lists alone, which ascend.
pub(crate) fn subtract<I: Copy + Ord>(from: &[I], what: &[I]) -> Vec<I> {
    let mut kept = Vec::with_capacity(from.len());
    keep(from, what, |id, is_in| {
        if !is_in {
            kept.push(id);
        }
    });
    kept
}

/// Tells of each id whether it is in `other`.
fn keep<I: Copy + Ord>(ids: &[I], mut other: &[I], mut tell: impl FnMut(I, bool)) {
    let searches = ids.len() * MUCH_SHORTER < other.len();
    for &id in ids {
        let skipped = match searches {
            true => other.partition_point(|o| *o < id),
            false => other.iter().take_while(|o| **o < id).count(),
        };
        other = &other[skipped..];
        tell(id, other.first() == Some(&id));
    }
}

#[cfg(test)]
pub mod tests {
    use model::matcher::matches_all;
    use proptest::prelude::*;

    use super::*;

    fn series() -> impl Strategy<Value = Vec<Labels>> {
        let labels = prop::collection::btree_map("[abc]", "[xyz]{0,2}", 0..3)
            .prop_map(|pairs| Labels::from_pairs(&pairs));
        prop::collection::vec(labels, 0..40)
    }

    pub fn op() -> impl Strategy<Value = MatchOp> {
        prop_oneof![
            Just(MatchOp::Equal),
            Just(MatchOp::NotEqual),
            Just(MatchOp::Regex),
            Just(MatchOp::NotRegex),
        ]
    }

    fn matcher() -> impl Strategy<Value = Matcher> {
        let value = prop_oneof![
            Just(""),
            Just("x"),
            Just("xy"),
            Just("x|y"),
            Just(".*"),
            Just(".+"),
            Just("x.*"),
            Just("|z"),
        ];
        (op(), "[abcd]", value).prop_map(|(op, name, value)| Matcher::new(op, name, value).unwrap())
    }

    proptest! {
        #[test]
        fn chooses_what_a_walk_over_all_series_chooses(
            series in series(),
            matchers in prop::collection::vec(matcher(), 0..4),
            gone in prop::collection::vec(any::<bool>(), 40),
            piece in 1usize..40,
        ) {
            let mut index = Index::default();
            for (id, labels) in series.iter().enumerate() {
                index.add(SeriesId(id as u64), labels);
            }
            let mut in_pieces = Index::default();
            let numbered: Vec<_> = (0u64..).map(SeriesId).zip(&series).collect();
            numbered.chunks(piece).for_each(|piece| in_pieces.add_all(piece));
            prop_assert_eq!(&in_pieces.all, &index.all);
            prop_assert_eq!(&in_pieces.names, &index.names);
            let walked: Vec<_> = (0..series.len())
                .filter(|&id| matches_all(&matchers, &series[id]))
                .map(|id| SeriesId(id as u64))
                .collect();
            prop_assert_eq!(index.select(&matchers), walked);

            let numbered = (0u64..).map(SeriesId).zip(series);
            let (gone, left): (Vec<_>, Vec<_>) = numbered.partition(|(id, _)| gone[id.0 as usize]);
            index.remove(&gone);
            let mut expected = Index::default();
            left.iter().for_each(|(id, labels)| expected.add(*id, labels));
            prop_assert_eq!(&index.all, &expected.all);
            prop_assert_eq!(&index.names, &expected.names);
            index.put_back(&gone);
            prop_assert_eq!(&index.all, &in_pieces.all);
            prop_assert_eq!(&index.names, &in_pieces.names);
        }
    }
}
