//! Where a query's data came from: who asked keeps this beside the question, who answers notes it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::fragment::Fragment;
use crate::source::Selection;
use crate::{NodeId, ShardId};

/// What a source was asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// Series as they are.
    Series(Selection),
    /// A part of the query, computed or folded where the series are.
    Part(Fragment),
}

/// What one node told of a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// `None` where it was not known whom the answer came from.
    pub node: Option<NodeId>,
    pub shards: Vec<ShardId>,
    /// Series and samples read there.
    pub series: u64,
    pub samples: u64,
    /// Bytes that came over the network; none from this node itself.
    pub bytes: u64,
    /// From the question to the whole answer, as the asker saw it.
    pub took: Duration,
}

/// The questions of one query, each with what was told, in the order of their beginning.
#[derive(Debug, Default)]
pub struct Trail(Mutex<Vec<(Asked, Vec<Told>)>>);

impl Trail {
    /// A question begins; its number.
    pub fn begin(&self, asked: Asked) -> usize {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((asked, Vec::new()));
        all.len() - 1
    }

    /// One more node has told its part of a question.
    pub fn note(&self, question: usize, told: Told) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, parts)) = all.get_mut(question) {
            parts.push(told);
        }
    }

    /// Everything so far; what was told of a question by its first shard.
    pub fn take(&self) -> Vec<(Asked, Vec<Told>)> {
        let mut all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (_, told) in &mut all {
            told.sort_by_key(|told| told.shards.first().copied());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;
    use crate::source::{Consistency, Take};

    #[test]
    fn what_is_told_stands_with_its_question() {
        let trail = Trail::default();
        let asked = |start| {
            Asked::Series(Selection {
                matchers: Vec::new(),
                start: Timestamp(start),
                end: Timestamp(9),
                take: Take::All,
                consistency: Consistency::Strong,
            })
        };
        let told = |shard| Told {
            node: Some(NodeId(1)),
            shards: vec![ShardId(shard)],
            series: 1,
            samples: 2,
            bytes: 3,
            took: Duration::ZERO,
        };
        let (first, second) = (trail.begin(asked(1)), trail.begin(asked(2)));
        trail.note(second, told(5));
        trail.note(first, told(4));
        trail.note(second, told(3));
        trail.note(9, told(1));
        let all = trail.take();
        assert_eq!(all[0], (asked(1), vec![told(4)]));
        assert_eq!(all[1], (asked(2), vec![told(3), told(5)]));
        assert!(trail.take().is_empty());
    }
}
