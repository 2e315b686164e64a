//! Cardinality of all shards' heads into one answer: summed exactly, then cut.

use std::collections::BTreeMap;

use model::Timestamp;
use model::admin::{Count, HeadStatistics};
use model::labels::METRIC_NAME;
use model::limits::STATISTICS_BYTES_MAX;
use tsdb::cardinality::Cardinality;

/// What an entry takes beside its text, about.
const ENTRY_BYTES: usize = 64;

/// The sum so far.
#[derive(Debug, Default)]
pub struct Statistics {
    sum: Cardinality,
    /// What the values in `sum` take.
    bytes: usize,
}

/// More different names and values than may be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

impl Statistics {
    /// Adds a shard's head, or a piece of it.
    pub fn add(&mut self, shard: Cardinality) -> Result<(), TooMany> {
        self.sum.series += shard.series;
        self.sum.chunks += shard.chunks;
        self.sum.range = wider(self.sum.range, shard.range);
        for (name, values) in shard.labels {
            self.add_label(name, values)?;
        }
        Ok(())
    }

    fn add_label(&mut self, name: String, values: BTreeMap<String, u64>) -> Result<(), TooMany> {
        let own = self.sum.labels.entry(name).or_default();
        for (value, count) in values {
            let bytes = value.len() + ENTRY_BYTES;
            let own = own.entry(value).or_insert_with(|| {
                self.bytes += bytes;
                0
            });
            *own += count;
        }
        match self.bytes <= STATISTICS_BYTES_MAX {
            true => Ok(()),
            false => Err(TooMany),
        }
    }

    /// Every list cut to `limit`.
    pub fn finish(&self, limit: usize) -> HeadStatistics {
        let labels = &self.sum.labels;
        let none = BTreeMap::new();
        let metrics = labels.get(METRIC_NAME).unwrap_or(&none);
        let values = labels
            .iter()
            .map(|(name, values)| (name.clone(), values.len() as u64));
        HeadStatistics {
            series: self.sum.series,
            label_pairs: labels.values().map(|values| values.len() as u64).sum(),
            chunks: self.sum.chunks,
            min_time: self.sum.range.map(|range| range.0),
            max_time: self.sum.range.map(|range| range.1),
            series_by_metric_name: largest(metrics.iter().map(|(n, c)| (n.clone(), *c)), limit),
            values_by_label_name: largest(values, limit),
            memory_by_label_name: self.memory(limit),
            series_by_label_pair: largest(
                labels.iter().flat_map(|(name, values)| {
                    let pair =
                        move |(value, count): (&String, &u64)| (format!("{name}={value}"), *count);
                    values.iter().map(pair)
                }),
                limit,
            ),
        }
    }

    fn memory(&self, limit: usize) -> Vec<Count> {
        let of_label = |(name, values): (&String, &BTreeMap<String, u64>)| {
            let of_pair = |(value, series): (&String, &u64)| {
                (text_bytes(name) + text_bytes(value)).saturating_mul(*series)
            };
            (name.clone(), values.iter().map(of_pair).sum())
        };
        largest(self.sum.labels.iter().map(of_label), limit)
    }
}

/// A text with its length as a varint in front, as a label block holds it.
fn text_bytes(text: &str) -> u64 {
    let bits = (usize::BITS - text.len().leading_zeros()).max(1);
    u64::from(bits.div_ceil(7)) + text.len() as u64
}

fn wider(
    a: Option<(Timestamp, Timestamp)>,
    b: Option<(Timestamp, Timestamp)>,
) -> Option<(Timestamp, Timestamp)> {
    match (a, b) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (one, other) => one.or(other),
    }
}

/// By value, largest first, then by name; never holds more than twice the limit.
fn largest(counts: impl Iterator<Item = (String, u64)>, limit: usize) -> Vec<Count> {
    let order = |a: &Count, b: &Count| b.value.cmp(&a.value).then_with(|| a.name.cmp(&b.name));
    let mut kept: Vec<Count> = Vec::new();
    for (name, value) in counts {
        kept.push(Count { name, value });
        if kept.len() > limit.saturating_mul(2) {
            kept.sort_unstable_by(order);
            kept.truncate(limit);
        }
    }
    kept.sort_unstable_by(order);
    kept.truncate(limit);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(series: u64, pairs: &[(&str, &str, u64)], range: (i64, i64)) -> Cardinality {
        let mut shard = Cardinality {
            series,
            chunks: series * 2,
            range: Some((Timestamp(range.0), Timestamp(range.1))),
            ..Cardinality::default()
        };
        for (name, value, count) in pairs {
            let values = shard.labels.entry((*name).to_owned()).or_default();
            values.insert((*value).to_owned(), *count);
        }
        shard
    }

    fn counts(list: &[Count]) -> Vec<(&str, u64)> {
        list.iter().map(|c| (c.name.as_str(), c.value)).collect()
    }

    #[test]
    fn a_value_in_two_shards_counts_once_and_lists_are_cut_at_the_end() {
        let mut statistics = Statistics::default();
        let one = [("__name__", "up", 2), ("__name__", "a", 1), ("job", "x", 3)];
        let other = [("__name__", "up", 1), ("__name__", "b", 3), ("job", "x", 1)];
        statistics.add(shard(3, &one, (5, 9))).unwrap();
        statistics.add(shard(4, &other, (2, 7))).unwrap();
        statistics.add(Cardinality::default()).unwrap();
        let answer = statistics.finish(2);
        assert_eq!(
            (answer.series, answer.chunks, answer.label_pairs),
            (7, 14, 4)
        );
        assert_eq!(answer.min_time, Some(Timestamp(2)));
        assert_eq!(answer.max_time, Some(Timestamp(9)));
        assert_eq!(counts(&answer.series_by_metric_name), [("b", 3), ("up", 3)]);
        assert_eq!(
            counts(&answer.values_by_label_name),
            [("__name__", 3), ("job", 1)]
        );
        assert_eq!(
            counts(&answer.memory_by_label_name),
            [("__name__", 80), ("job", 24)]
        );
        let pairs = [("job=x", 4), ("__name__=b", 3)];
        assert_eq!(counts(&answer.series_by_label_pair), pairs);
        assert!(statistics.finish(0).series_by_label_pair.is_empty());
    }

    #[test]
    fn more_than_may_be_held_is_refused() {
        let mut statistics = Statistics::default();
        let long = "x".repeat(STATISTICS_BYTES_MAX);
        let pairs = [("a", long.as_str(), 1)];
        assert_eq!(statistics.add(shard(1, &pairs, (0, 0))), Err(TooMany));
    }
}
