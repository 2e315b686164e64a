//! What a node has told the cluster of families already, so that saying it again costs a look.
//!
//! A word is told again after [`REPEAT`], so that the cluster, which forgets what was told longest
//! ago, keeps what is still said. Words are known by a hash: of two that share one (in a table of a
//! quarter of a million, one chance in 10^8) the second is not told while the first is known.
//! Bounded by [`METADATA_TOLD_MAX`]: of two generations the older one is forgotten when the younger
//! is full.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::FamilyMetadata;
use model::hash::Map;
use model::limits::METADATA_TOLD_MAX;

use super::hash;

/// How long a word is not told again.
pub const REPEAT: Duration = Duration::from_secs(3600);

/// What a node remembers between requests.
pub struct Told {
    seed: u64,
    words: Mutex<Words>,
}

/// When each was told, by its hash.
#[derive(Default)]
struct Words {
    young: Map<u64, Duration>,
    old: Map<u64, Duration>,
}

impl Told {
    /// `seed` keeps senders from choosing words whose hashes are the same.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            words: Mutex::default(),
        }
    }

    /// Those of `families` to tell at `now`, on the monotonic clock.
    pub fn untold(&self, families: &[FamilyMetadata], now: Duration) -> Vec<FamilyMetadata> {
        let words = self.lock();
        let untold = families.iter().filter(|family| {
            let told = words.get(self.hash(family));
            told.is_none_or(|at| now.saturating_sub(at) >= REPEAT)
        });
        untold.cloned().collect()
    }

    /// The cluster has stored these.
    pub fn note(&self, families: &[FamilyMetadata], now: Duration) {
        let mut words = self.lock();
        for family in families {
            words.insert(self.hash(family), now);
        }
    }

    fn hash(&self, family: &FamilyMetadata) -> u64 {
        let FamilyMetadata {
            name,
            kind,
            help,
            unit,
        } = family;
        hash(self.seed, name, *kind, help, unit)
    }

    fn lock(&self) -> MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Words {
    fn get(&self, hash: u64) -> Option<Duration> {
        self.young
            .get(&hash)
            .or_else(|| self.old.get(&hash))
            .copied()
    }

    fn insert(&mut self, hash: u64, at: Duration) {
        if self.young.len() >= METADATA_TOLD_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_told_again_after_a_while_and_what_changed_at_once() {
        let told = Told::new(1);
        let word = |help: &str| FamilyMetadata {
            name: "a".to_owned(),
            help: help.to_owned(),
            ..FamilyMetadata::default()
        };
        let (one, two) = ([word("1")], [word("1"), word("2")]);
        let start = Duration::from_secs(50);
        assert_eq!(told.untold(&one, start), one, "an error leaves it untold");
        assert_eq!(told.untold(&one, start), one);
        told.note(&one, start);
        assert_eq!(told.untold(&two, start), [word("2")]);
        assert_eq!(told.untold(&one, start + REPEAT), one);
    }

    #[test]
    fn so_many_words_are_remembered() {
        let told = Told::new(1);
        let word = |n: usize| FamilyMetadata {
            name: n.to_string(),
            ..FamilyMetadata::default()
        };
        let all: Vec<_> = (0..METADATA_TOLD_MAX + 10).map(word).collect();
        told.note(&all, Duration::ZERO);
        let words = told.lock();
        assert!(words.young.len() + words.old.len() <= METADATA_TOLD_MAX);
        drop(words);
        assert!(
            told.untold(&all[METADATA_TOLD_MAX..], Duration::ZERO)
                .is_empty()
        );
    }
}
