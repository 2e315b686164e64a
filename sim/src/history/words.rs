//! What clients told of families: nothing acknowledged is lost, nothing is invented.
//!
//! No family is told more words of than the store keeps, so that none has to go.

use std::collections::{BTreeMap, BTreeSet};

use model::FamilyMetadata;
use model::limits::METADATA_VARIANTS_MAX;

use super::{Violation, violation};

/// Words that are told of one family at most: the store keeps as many.
pub const OF_FAMILY: u64 = METADATA_VARIANTS_MAX as u64;

/// All words, and whether they were acknowledged.
#[derive(Debug, Default)]
pub struct Words(BTreeMap<FamilyMetadata, bool>);

impl Words {
    pub fn told(&mut self, word: &FamilyMetadata) {
        self.0.entry(word.clone()).or_insert(false);
    }

    pub fn acknowledged(&mut self, word: &FamilyMetadata) {
        self.0.insert(word.clone(), true);
    }

    /// What a read that begins now must show.
    pub fn known(&self) -> BTreeSet<FamilyMetadata> {
        let known = self.0.iter().filter(|(_, known)| **known);
        known.map(|(word, _)| word.clone()).collect()
    }

    /// Checks what a read found, of families whose names begin with `prefix`, that had to show
    /// `known`.
    pub fn shown(
        &self,
        prefix: &str,
        known: &BTreeSet<FamilyMetadata>,
        found: &[FamilyMetadata],
    ) -> Result<(), Violation> {
        if !found.is_sorted_by(|a, b| a < b) {
            return violation("words out of order or twice".to_owned());
        }
        let invented = found.iter().filter(|word| word.name.starts_with(prefix));
        if let Some(word) = { invented }.find(|word| !self.0.contains_key(word)) {
            return violation(format!("phantom: {word:?}"));
        }
        match known.iter().find(|word| found.binary_search(word).is_err()) {
            Some(word) => violation(format!("lost: {word:?}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_or_invented_is_found() {
        let word = |help: &str| FamilyMetadata {
            name: "sim_f".to_owned(),
            help: help.to_owned(),
            ..FamilyMetadata::default()
        };
        let mut words = Words::default();
        words.told(&word("a"));
        words.told(&word("b"));
        words.acknowledged(&word("a"));
        let known = words.known();
        let check = |found: &[&str]| {
            let found: Vec<_> = found.iter().map(|help| word(help)).collect();
            words.shown("sim_", &known, &found).is_ok()
        };
        assert!(check(&["a"]) && check(&["a", "b"]));
        assert!(!check(&[]) && !check(&["b"]));
        assert!(!check(&["a", "c"]) && !check(&["a", "a"]));
    }
}
