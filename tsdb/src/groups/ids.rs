//! The ids of additive pushes a shard has seen: a repeated push is known as long as its id is
//! remembered. Bounded in number and bytes; the oldest by log order are forgotten first.

use std::collections::VecDeque;

use model::group::{GroupingKey, PushId};
use model::hash;
use model::limits::{PUSH_IDS_BYTES_MAX, PUSH_IDS_MAX};

/// An id, and which group it was pushed to: the hash of the grouping key's canonical text. Two
/// groups whose hashes meet (one in 2^64) share their ids.
pub type Seen = (u64, PushId);

/// Ids in log order. Cheap to clone.
#[derive(Debug, Default, Clone)]
pub struct Ids {
    by_age: VecDeque<Seen>,
    known: hash::Set<Seen>,
    bytes: usize,
}

/// What is remembered of `key` beside an id.
pub fn group_of(key: &GroupingKey) -> u64 {
    hash::xxh3(0, &key.canonical())
}

impl Ids {
    pub fn contains(&self, seen: &Seen) -> bool {
        self.known.contains(seen)
    }

    /// Remembers an id that is not known, and forgets the oldest ones beyond the bounds.
    pub fn insert(&mut self, seen: Seen) {
        if !self.known.insert(seen.clone()) {
            return;
        }
        self.bytes += seen.1.as_bytes().len();
        self.by_age.push_back(seen);
        while self.by_age.len() > PUSH_IDS_MAX || self.bytes > PUSH_IDS_BYTES_MAX {
            let Some(oldest) = self.by_age.pop_front() else {
                return;
            };
            self.bytes -= oldest.1.as_bytes().len();
            self.known.remove(&oldest);
        }
    }

    /// The oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Seen> {
        self.by_age.iter()
    }

    pub fn len(&self) -> usize {
        self.by_age.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_age.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_first() {
        let mut ids = Ids::default();
        let id = |n: usize| (7, PushId::new(format!("{n:0100}").as_bytes()).unwrap());
        let kept = PUSH_IDS_BYTES_MAX / 100;
        (0..kept + 3).for_each(|n| ids.insert(id(n)));
        assert_eq!(ids.len(), kept);
        assert!(!ids.contains(&id(2)) && ids.contains(&id(3)));
        assert!(!ids.contains(&(8, id(3).1)), "ids belong to their group");
        ids.insert(id(kept));
        assert_eq!(ids.len(), kept, "a known id is no new one");
    }
}
