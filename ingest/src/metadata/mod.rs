//! What a write request says of its families: types, helps and units, each once.
//!
//! Senders say the same in every request, so a word is only copied out of one that has not said it
//! yet; whether the cluster knows it is for [`told`] to say. Bounded: what is longer than
//! [`METADATA_ENTRY_BYTES_MAX`], or beyond [`METADATA_REQUEST_BYTES_MAX`], is not kept.

pub mod told;

use model::hash::{Set, xxh3};
use model::limits::{METADATA_ENTRY_BYTES_MAX, METADATA_REQUEST_BYTES_MAX};
use model::{FamilyMetadata, MetricKind};

/// Of one request.
#[derive(Debug, Default, PartialEq)]
pub struct Gathered {
    seen: Set<u64>,
    families: Vec<FamilyMetadata>,
    bytes: usize,
}

impl Gathered {
    /// A word about a family. One without a name, or that says nothing, is none.
    pub fn add(&mut self, name: &str, kind: MetricKind, help: &str, unit: &str) {
        let says_nothing = kind == MetricKind::Unknown && help.is_empty() && unit.is_empty();
        let bytes = name.len() + help.len() + unit.len();
        let has_room =
            bytes <= METADATA_ENTRY_BYTES_MAX && self.bytes + bytes <= METADATA_REQUEST_BYTES_MAX;
        if name.is_empty() || says_nothing || !has_room {
            return;
        }
        if !self.seen.insert(hash(0, name, kind, help, unit)) {
            return;
        }
        self.bytes += bytes;
        self.families.push(FamilyMetadata {
            name: name.to_owned(),
            kind,
            help: help.to_owned(),
            unit: unit.to_owned(),
        });
    }

    /// In the order in which they were said.
    pub fn families(&self) -> &[FamilyMetadata] {
        &self.families
    }
}

fn hash(seed: u64, name: &str, kind: MetricKind, help: &str, unit: &str) -> u64 {
    let seed = xxh3(seed, &[kind.number()]);
    let texts = [name, help, unit];
    texts
        .iter()
        .fold(seed, |seed, text| xxh3(seed, text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_kept_once_and_only_if_it_says_something() {
        let mut gathered = Gathered::default();
        let long = "h".repeat(METADATA_ENTRY_BYTES_MAX);
        for (name, kind, help) in [
            ("a", MetricKind::Gauge, "h"),
            ("a", MetricKind::Gauge, "h"),
            ("a", MetricKind::Counter, "h"),
            ("b", MetricKind::Unknown, ""),
            ("", MetricKind::Gauge, "h"),
            ("c", MetricKind::Unknown, &long),
            ("d", MetricKind::Unknown, "h"),
        ] {
            gathered.add(name, kind, help, "");
        }
        let names = gathered
            .families()
            .iter()
            .map(|f| (f.name.as_str(), f.kind));
        let names: Vec<_> = names.collect();
        let gauge = ("a", MetricKind::Gauge);
        assert_eq!(
            names,
            [
                gauge,
                ("a", MetricKind::Counter),
                ("d", MetricKind::Unknown)
            ]
        );
    }

    #[test]
    fn a_request_says_no_more_than_its_limit() {
        let mut gathered = Gathered::default();
        let help = "h".repeat(METADATA_ENTRY_BYTES_MAX - 10);
        for n in 0..2000 {
            gathered.add(&format!("m{n:04}"), MetricKind::Gauge, &help, "");
        }
        assert!(gathered.bytes <= METADATA_REQUEST_BYTES_MAX);
        assert!(gathered.families().len() > 1000);
    }
}
