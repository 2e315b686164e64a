//! What senders said of families: type, help and unit, as the log has it.
//!
//! Of one family there may be several words, of several senders. Each is kept once, in the order in
//! which it was last told, and the oldest leave: of one family beyond
//! [`METADATA_VARIANTS_MAX`], of all beyond [`METADATA_KEPT_MAX`] words or
//! [`METADATA_KEPT_BYTES_MAX`] bytes. So every replica keeps the same. Cloning is cheap: clones share
//! all until one changes.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use model::hash::xxh3;
use model::limits::{METADATA_KEPT_BYTES_MAX, METADATA_KEPT_MAX, METADATA_VARIANTS_MAX};
use model::{FamilyMetadata, Timestamp};

use crate::command::{DescribeCommand, put_metadata, take_metadata};
use crate::digest::Digest;
use crate::fields::{Fields, Malformed, put_time};

/// Beside the texts of a word.
const WORD_BYTES: usize = 160;

/// All that is kept.
#[derive(Debug, Default, Clone)]
pub struct Descriptions(Arc<Table>);

/// Invariant: both maps hold the same words, under each other's keys.
#[derive(Debug, Default, Clone)]
struct Table {
    words: BTreeMap<Arc<FamilyMetadata>, Told>,
    by_age: BTreeMap<u64, Arc<FamilyMetadata>>,
    bytes: usize,
}

/// When a word was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    /// Its place in the order.
    order: u64,
    at: Timestamp,
}

impl Descriptions {
    /// What a command says becomes the newest.
    pub fn apply(&mut self, describe: &DescribeCommand) {
        let table = Arc::make_mut(&mut self.0);
        for family in &describe.families {
            table.note(family, describe.proposed_at);
        }
    }

    /// Those of `families` that were not told at `since` or later.
    pub fn untold(&self, families: &[FamilyMetadata], since: Timestamp) -> Vec<FamilyMetadata> {
        let is_told = |family: &&FamilyMetadata| {
            let told = self.0.words.get(*family);
            told.is_some_and(|told| told.at >= since)
        };
        let untold = families.iter().filter(|family| !is_told(family));
        untold.cloned().collect()
    }

    /// Of all families, or of one; by name.
    pub fn of(&self, family: Option<&str>) -> impl Iterator<Item = &FamilyMetadata> {
        let from = FamilyMetadata {
            name: family.unwrap_or_default().to_owned(),
            ..FamilyMetadata::default()
        };
        let range = (Bound::Included(from), Bound::Unbounded);
        let words = self.0.words.range::<FamilyMetadata, _>(range);
        let words = words.map(|(word, _)| &**word);
        words.take_while(move |word| family.is_none_or(|family| word.name == family))
    }

    pub fn is_empty(&self) -> bool {
        self.0.words.is_empty()
    }

    pub fn digest(&self, digest: &mut Digest) {
        let mut bytes = Vec::new();
        for (word, at) in self.by_age() {
            bytes.clear();
            put_word(&mut bytes, word, at);
            digest.word(xxh3(0, &bytes));
        }
    }

    /// The one told longest ago first.
    pub fn by_age(&self) -> impl Iterator<Item = (&FamilyMetadata, Timestamp)> {
        let words = self.0.by_age.values();
        words.map(|word| (&**word, self.0.words[word].at))
    }
}

/// In order of age.
impl FromIterator<(FamilyMetadata, Timestamp)> for Descriptions {
    fn from_iter<I: IntoIterator<Item = (FamilyMetadata, Timestamp)>>(words: I) -> Self {
        let mut table = Table::default();
        for (word, at) in words {
            table.note(&word, at);
        }
        Self(Arc::new(table))
    }
}

impl Table {
    fn note(&mut self, family: &FamilyMetadata, at: Timestamp) {
        let order = self.by_age.last_key_value().map_or(0, |(last, _)| last + 1);
        let word = match self.words.get_key_value(family) {
            Some((word, told)) => {
                self.by_age.remove(&told.order);
                word.clone()
            }
            None => {
                self.make_room(&family.name);
                self.bytes += size_of_word(family);
                Arc::new(family.clone())
            }
        };
        let before = self.words.get(&word).map(|told| told.at);
        let at = before.map_or(at, |before| before.max(at));
        self.by_age.insert(order, word.clone());
        self.words.insert(word, Told { order, at });
        while self.words.len() > METADATA_KEPT_MAX || self.bytes > METADATA_KEPT_BYTES_MAX {
            let Some((&oldest, _)) = self.by_age.first_key_value() else {
                return;
            };
            self.forget(oldest);
        }
    }

    /// For one more word about a family.
    fn make_room(&mut self, name: &str) {
        let from = FamilyMetadata {
            name: name.to_owned(),
            ..FamilyMetadata::default()
        };
        let same = self.words.range::<FamilyMetadata, _>(from..);
        let same = same.take_while(|(word, _)| word.name == name);
        let mut orders: Vec<u64> = same.map(|(_, told)| told.order).collect();
        if orders.len() >= METADATA_VARIANTS_MAX {
            orders.sort_unstable();
            self.forget(orders[0]);
        }
    }

    fn forget(&mut self, order: u64) {
        if let Some(word) = self.by_age.remove(&order) {
            self.words.remove(&word);
            self.bytes -= size_of_word(&word);
        }
    }
}

fn size_of_word(word: &FamilyMetadata) -> usize {
    WORD_BYTES + word.text_bytes()
}

/// The form in which checkpoints keep one.
pub fn put_word(out: &mut Vec<u8>, word: &FamilyMetadata, at: Timestamp) {
    put_time(out, at);
    put_metadata(out, word);
}

pub fn take_word(fields: &mut Fields<'_>) -> Result<(FamilyMetadata, Timestamp), Malformed> {
    let at = fields.time()?;
    Ok((take_metadata(fields)?, at))
}

#[cfg(test)]
mod tests {
    use model::MetricKind;

    use super::*;

    fn word(name: &str, help: &str) -> FamilyMetadata {
        FamilyMetadata {
            name: name.to_owned(),
            kind: MetricKind::Counter,
            help: help.to_owned(),
            unit: String::new(),
        }
    }

    fn describe(descriptions: &mut Descriptions, at: i64, families: &[FamilyMetadata]) {
        descriptions.apply(&DescribeCommand {
            proposed_at: Timestamp(at),
            families: families.to_vec(),
        });
    }

    fn helps<'a>(descriptions: &'a Descriptions, family: &str) -> Vec<&'a str> {
        let words = descriptions.of(Some(family));
        words.map(|word| word.help.as_str()).collect()
    }

    fn digest(descriptions: &Descriptions) -> u64 {
        let mut digest = Digest::default();
        descriptions.digest(&mut digest);
        digest.finish()
    }

    #[test]
    fn the_newest_words_of_a_family_stay() {
        let mut all = Descriptions::default();
        let words: Vec<_> = (0..METADATA_VARIANTS_MAX)
            .map(|n| word("a", &n.to_string()))
            .collect();
        describe(&mut all, 1, &words);
        // Told again, so the second is the oldest now.
        describe(&mut all, 2, &[word("a", "0"), word("a.b", "x")]);
        describe(&mut all, 3, &[word("a", "new")]);
        assert_eq!(helps(&all, "a"), ["0", "2", "3", "new"]);
        assert_eq!(helps(&all, "a.b"), ["x"]);
        assert_eq!(all.of(None).count(), 5);
        let asked = [word("a", "0"), word("a", "1"), word("a", "2")];
        let untold = all.untold(&asked, Timestamp(2));
        assert_eq!(untold, [word("a", "1"), word("a", "2")]);
    }

    #[test]
    fn what_was_told_longest_ago_leaves() {
        let mut all = Descriptions::default();
        let help = "h".repeat(100_000);
        let fit = METADATA_KEPT_BYTES_MAX / (help.len() + WORD_BYTES + 3);
        for n in 0..fit {
            describe(&mut all, 1, &[word(&format!("{n:03}"), &help)]);
        }
        describe(&mut all, 2, &[word("000", &help), word("new", &help)]);
        assert_eq!(all.of(None).count(), fit);
        assert_eq!(helps(&all, "000").len(), 1);
        assert!(helps(&all, "001").is_empty());
        let small: Vec<_> = (0..METADATA_KEPT_MAX + 2)
            .map(|n| word(&format!("s{n}"), ""))
            .collect();
        describe(&mut all, 3, &small);
        assert_eq!(all.of(None).count(), METADATA_KEPT_MAX);
        assert!(helps(&all, "s1").is_empty() && !helps(&all, "s2").is_empty());
    }

    #[test]
    fn a_copy_by_age_is_the_same_and_order_counts() {
        let mut all = Descriptions::default();
        describe(&mut all, 5, &[word("b", ""), word("a", "")]);
        describe(&mut all, 4, &[word("b", "")]);
        let owned = |(word, at): (&FamilyMetadata, Timestamp)| (word.clone(), at);
        let copy: Descriptions = all.by_age().map(owned).collect();
        assert_eq!(digest(&copy), digest(&all));
        let seen: Vec<_> = copy
            .by_age()
            .map(|(w, at)| (w.name.as_str(), at.0))
            .collect();
        assert_eq!(seen, [("a", 5), ("b", 5)]);
        describe(&mut all, 5, &[word("a", "")]);
        assert_ne!(digest(&copy), digest(&all), "another one leaves first");
    }
}
