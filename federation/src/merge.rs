//! Answers of several members into one.
//!
//! Promise: the result is sorted and names everything once. Where two members hold a sample of one
//! series at one timestamp, the earlier member's stays. Not here: asking anybody.

use model::source::Take;
use model::{ExemplarSeries, Samples, Series};

/// Sorted lists into one sorted list without repetitions.
///
/// Each list is one ascending run, which the standard stable sort finds and merges.
pub fn merge_sorted<T: Ord>(lists: Vec<Vec<T>>) -> Vec<T> {
    let mut all: Vec<T> = lists.into_iter().flatten().collect();
    all.sort();
    all.dedup();
    all
}

/// Series lists, each sorted by labels, into one.
pub fn merge_series(lists: Vec<Vec<Series>>, take: Take) -> Vec<Series> {
    let mut all: Vec<Series> = lists.into_iter().flatten().collect();
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    let mut merged: Vec<Series> = Vec::with_capacity(all.len());
    for series in all {
        match merged.last_mut() {
            Some(last) if last.labels == series.labels => {
                last.samples = merge_samples(&last.samples, &series.samples);
                if take == Take::Last {
                    keep_newest(&mut last.samples);
                }
            }
            _ => merged.push(series),
        }
    }
    merged
}

/// Exemplars of series, each list sorted by labels, into one; those of one series by time.
pub fn merge_exemplars(lists: Vec<Vec<ExemplarSeries>>) -> Vec<ExemplarSeries> {
    let mut all: Vec<ExemplarSeries> = lists.into_iter().flatten().collect();
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    let mut merged: Vec<ExemplarSeries> = Vec::with_capacity(all.len());
    for series in all {
        match merged.last_mut() {
            Some(last) if last.labels == series.labels => {
                last.exemplars.extend(series.exemplars);
                last.exemplars.sort_by_key(|exemplar| exemplar.timestamp);
                last.exemplars.dedup();
            }
            _ => merged.push(series),
        }
    }
    merged
}

/// Two columns by timestamp; at an equal timestamp the first column's value.
fn merge_samples(first: &Samples, second: &Samples) -> Samples {
    let mut merged = Samples::default();
    let (mut left, mut right) = (0, 0);
    loop {
        match (first.timestamps.get(left), second.timestamps.get(right)) {
            (None, None) => return merged,
            (None, Some(_)) => {
                merged.push_from(second, right);
                right += 1;
            }
            (Some(l), Some(r)) if r < l => {
                merged.push_from(second, right);
                right += 1;
            }
            (Some(l), r) => {
                right += usize::from(r == Some(l));
                merged.push_from(first, left);
                left += 1;
            }
        }
    }
}

fn keep_newest(samples: &mut Samples) {
    if let Some(newest) = samples.len().checked_sub(1) {
        let all = std::mem::take(samples);
        samples.push_from(&all, newest);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::{Labels, Timestamp};
    use proptest::prelude::*;

    use super::*;

    fn series(name: &str, samples: &[(i64, f64)]) -> Series {
        let mut columns = Samples::default();
        for &(t, v) in samples {
            columns.push(Timestamp(t), v);
        }
        Series {
            labels: Labels::from_pairs([("__name__", name)]),
            samples: columns,
        }
    }

    #[test]
    fn of_one_series_in_two_members_the_first_value_stays() {
        let merged = merge_series(
            vec![
                vec![series("a", &[(1, 1.0), (3, 3.0)]), series("c", &[(1, 9.0)])],
                vec![series("a", &[(1, 7.0), (2, 2.0)]), series("b", &[(1, 8.0)])],
            ],
            Take::All,
        );
        let expected = vec![
            series("a", &[(1, 1.0), (2, 2.0), (3, 3.0)]),
            series("b", &[(1, 8.0)]),
            series("c", &[(1, 9.0)]),
        ];
        assert_eq!(merged, expected);
    }

    #[test]
    fn of_the_newest_samples_the_newest_stays() {
        let merged = merge_series(
            vec![
                vec![series("a", &[(1, 1.0)])],
                vec![series("a", &[(2, 2.0)])],
            ],
            Take::Last,
        );
        assert_eq!(merged, vec![series("a", &[(2, 2.0)])]);
    }

    proptest! {
        #[test]
        fn merging_is_the_union_that_prefers_earlier_members(
            members in prop::collection::vec(
                prop::collection::btree_map(
                    "[a-c]",
                    prop::collection::btree_map(0i64..6, 0u8..9, 1..4),
                    0..3,
                ),
                0..4,
            )
        ) {
            let mut slow: BTreeMap<&String, BTreeMap<i64, u8>> = BTreeMap::new();
            for member in &members {
                for (name, samples) in member {
                    let union = slow.entry(name).or_default();
                    for (&t, &v) in samples {
                        union.entry(t).or_insert(v);
                    }
                }
            }
            let as_series = |(name, samples): (&String, &BTreeMap<i64, u8>)| {
                let columns: Vec<_> = samples.iter().map(|(&t, &v)| (t, f64::from(v))).collect();
                series(name, &columns)
            };
            let expected: Vec<_> = slow.iter().map(|(n, s)| as_series((n, s))).collect();
            let lists = members.iter().map(|m| m.iter().map(as_series).collect()).collect();
            prop_assert_eq!(merge_series(lists, Take::All), expected);
        }
    }
}
