//! What a target says of its metrics: `# TYPE`, `# HELP` and `# UNIT`.
//!
//! As Prometheus keeps it: by family, the newest word of each, until ten scrapes after the family
//! was last seen; a failed scrape takes nothing away. Bounded by
//! [`limits::METADATA_BYTES_MAX`]: beyond it new families are not noted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::limits;

use crate::exposition::{Entry, MetricKind};

/// Scrapes a family is remembered for after it was last seen.
const SCRAPES_KEPT: u64 = 10;

/// What is known of one metric family.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct MetricMetadata {
    pub kind: MetricKind,
    pub help: String,
    pub unit: String,
}

/// The metadata of a target that a loop writes and the API reads. Clones share it.
#[derive(Debug, Default, Clone)]
pub struct MetadataCell(Arc<Mutex<Cache>>);

#[derive(Debug, Default)]
struct Cache {
    families: BTreeMap<String, (MetricMetadata, u64)>,
    scrapes: u64,
    bytes: usize,
}

impl MetadataCell {
    /// One metric's, if it is known.
    pub fn get(&self, metric: &str) -> Option<MetricMetadata> {
        let cache = self.lock();
        cache.families.get(metric).map(|(known, _)| known.clone())
    }

    /// Every metric's, by name.
    pub fn list(&self) -> Vec<(String, MetricMetadata)> {
        let cache = self.lock();
        let families = cache.families.iter();
        let families = families.map(|(name, (known, _))| (name.clone(), known.clone()));
        families.collect()
    }

    /// How many metrics are known, and the bytes of their names and texts.
    pub fn size(&self) -> (usize, usize) {
        let cache = self.lock();
        (cache.families.len(), cache.bytes)
    }

    /// A scrape begins.
    pub(super) fn begin(&self) {
        self.lock().scrapes += 1;
    }

    /// Notes what an entry that is no sample says.
    pub(super) fn note(&self, entry: &Entry<'_>) {
        let mut cache = self.lock();
        match entry {
            Entry::Type { name, kind } => cache.note(name, 0, |known| known.kind = *kind),
            Entry::Help { name, help } => cache.note(name, help.len(), |known| {
                known.help.clear();
                known.help.push_str(help);
            }),
            Entry::Unit { name, unit } => cache.note(name, unit.len(), |known| {
                known.unit.clear();
                known.unit.push_str(unit);
            }),
            Entry::Sample(_) | Entry::Histogram(_) => {}
        }
    }

    /// A scrape went well: forgets what was not seen for long.
    pub(super) fn forget(&self) {
        let mut cache = self.lock();
        let scrapes = cache.scrapes;
        let kept = |seen: u64| scrapes - seen <= SCRAPES_KEPT;
        cache.families.retain(|_, (_, seen)| kept(*seen));
        let sizes = cache.families.iter();
        cache.bytes = sizes.map(|(name, (known, _))| size(name, known)).sum();
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    /// `bytes`: how much longer the family may become.
    fn note(&mut self, name: &str, bytes: usize, change: impl FnOnce(&mut MetricMetadata)) {
        let scrapes = self.scrapes;
        let room = limits::METADATA_BYTES_MAX.saturating_sub(self.bytes);
        match self.families.get_mut(name) {
            Some((known, seen)) => {
                *seen = scrapes;
                let before = size(name, known);
                if bytes <= room {
                    change(known);
                    self.bytes = self.bytes + size(name, known) - before;
                }
            }
            None if name.len() + bytes + OVERHEAD_BYTES <= room => {
                let mut known = MetricMetadata::default();
                change(&mut known);
                self.bytes += size(name, &known);
                self.families.insert(name.to_owned(), (known, scrapes));
            }
            None => {}
        }
    }
}

/// What an entry takes besides its texts, about.
const OVERHEAD_BYTES: usize = size_of::<(String, MetricMetadata, u64)>();

fn size(name: &str, known: &MetricMetadata) -> usize {
    OVERHEAD_BYTES + name.len() + known.help.len() + known.unit.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(cell: &MetadataCell, name: &str, text: &str) {
        cell.note(&Entry::Help {
            name: name.into(),
            help: text.into(),
        });
    }

    #[test]
    fn the_newest_word_stays_until_ten_scrapes_after() {
        let cell = MetadataCell::default();
        cell.begin();
        help(&cell, "a", "old");
        help(&cell, "a", "new");
        let name = "a".into();
        let unit = "seconds";
        cell.note(&Entry::Unit { name, unit });
        let (name, kind) = ("a".into(), MetricKind::Gauge);
        cell.note(&Entry::Type { name, kind });
        let expected = MetricMetadata {
            kind: MetricKind::Gauge,
            help: "new".to_owned(),
            unit: "seconds".to_owned(),
        };
        assert_eq!(cell.list(), [("a".to_owned(), expected)]);
        for _ in 0..10 {
            cell.begin();
            cell.forget();
        }
        assert!(cell.get("a").is_some());
        cell.begin();
        cell.forget();
        assert_eq!(cell.get("a"), None);
        assert_eq!(cell.size(), (0, 0));
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let cell = MetadataCell::default();
        cell.begin();
        let long = "x".repeat(1 << 20);
        for i in 0..40 {
            help(&cell, &format!("m{i}"), &long);
        }
        let (metrics, bytes) = cell.size();
        assert!(
            bytes <= limits::METADATA_BYTES_MAX && metrics >= 14,
            "{metrics}"
        );
        help(&cell, "m0", "short");
        help(&cell, "late", "short");
        assert!(cell.get("late").is_some(), "room was made");
    }
}
