//! How far back each recent entry of the log reached: from a log index to the oldest instant that
//! anything written after it may have.
//!
//! It is what lets a reader who has everything up to an index come back for the rest: late samples
//! included, and no more than that is read again. A pure function of the log and part of the
//! checkpoint, so that every replica gives the same answer, restarted ones too. No part of the
//! digest: replicas that came from an older checkpoint know less, which costs a reader repetitions
//! and no sample.

use std::collections::VecDeque;

use model::Timestamp;
use model::limits::TOUCHED_SPANS_MAX;

/// Spans of the log, each with its oldest stored sample.
///
/// Invariants: `floor` is below all spans; their ends increase.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Touched {
    /// Nothing is known of entries up to this index.
    floor: u64,
    /// Last index of the span, and the oldest instant written in it.
    spans: VecDeque<(u64, Timestamp)>,
}

impl Touched {
    /// Knows nothing of what was applied up to `floor`.
    pub fn from(floor: u64) -> Self {
        Self {
            floor,
            spans: VecDeque::new(),
        }
    }

    /// From a checkpoint; `None` unless it keeps the invariants.
    pub fn restore(floor: u64, spans: Vec<(u64, Timestamp)>) -> Option<Self> {
        let ends = std::iter::once(floor).chain(spans.iter().map(|span| span.0));
        let spans = VecDeque::from(spans.clone());
        let whole = ends.is_sorted_by(|a, b| a < b) && spans.len() <= TOUCHED_SPANS_MAX;
        whole.then_some(Self { floor, spans })
    }

    pub fn floor(&self) -> u64 {
        self.floor
    }

    pub fn spans(&self) -> impl Iterator<Item = (u64, Timestamp)> + '_ {
        self.spans.iter().copied()
    }

    /// The entry at `index` wrote samples, the oldest of them at `oldest`. When there is no room
    /// each two neighbours become one: the past is told more coarsely the longer it is.
    pub fn note(&mut self, index: u64, oldest: Timestamp) {
        if self.spans.len() >= TOUCHED_SPANS_MAX {
            let spans = std::mem::take(&mut self.spans);
            let mut spans = spans.into_iter();
            while let Some(first) = spans.next() {
                self.spans.push_back(match spans.next() {
                    Some(second) => (second.0, first.1.min(second.1)),
                    None => first,
                });
            }
        }
        self.spans.push_back((index, oldest));
    }

    /// The oldest instant that anything written after `index` has; `None` when nothing was.
    pub fn since(&self, index: u64) -> Option<Timestamp> {
        if index < self.floor {
            return Some(Timestamp::MIN);
        }
        let from = self.spans.partition_point(|span| span.0 <= index);
        self.spans.range(from..).map(|span| span.1).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_written_after_an_index_is_older_than_told(
            entries in prop::collection::vec((1u64..4, -50i64..50), 0..3 * TOUCHED_SPANS_MAX),
            floor in 0u64..40,
            asked in 0u64..(7 * TOUCHED_SPANS_MAX as u64),
        ) {
            let mut touched = Touched::from(floor);
            let mut log = Vec::new();
            let mut index = floor;
            for (step, oldest) in entries {
                index += step;
                touched.note(index, Timestamp(oldest));
                log.push((index, Timestamp(oldest)));
            }
            let exact = log.iter().filter(|entry| entry.0 > asked).map(|entry| entry.1).min();
            let told = touched.since(asked);
            match asked < floor {
                true => prop_assert_eq!(told, Some(Timestamp::MIN)),
                false => {
                    prop_assert_eq!(told.is_some(), exact.is_some());
                    prop_assert!(told <= exact);
                }
            }
            let spans: Vec<_> = touched.spans().collect();
            prop_assert!(spans.len() <= TOUCHED_SPANS_MAX);
            prop_assert_eq!(Touched::restore(floor, spans), Some(touched));
        }
    }

    #[test]
    fn a_recent_index_is_told_exactly() {
        let mut touched = Touched::from(0);
        (1..=10).for_each(|n| touched.note(n, Timestamp(n as i64 * 100)));
        assert_eq!(touched.since(7), Some(Timestamp(800)));
        assert_eq!(touched.since(10), None);
        assert_eq!(Touched::restore(5, vec![(5, Timestamp(1))]), None);
    }
}
