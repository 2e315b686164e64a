//! Additive pushes: what a family holds after another one was added to it.
//!
//! By series. Counters add up, and so do the sums and counts of classic histograms; whatever else
//! is pushed takes the place of what stood there, and series that are not named stay. A family of
//! another type replaces the one there was, as a POST does.
//!
//! Histograms of one label set may have other bounds than before. The result has the bounds of
//! both; at a bound that one of them lacks, that one counts with what it is known to hold there:
//! its value at the next bound below. Equal bounds give exact sums, and buckets never decrease.
//!
//! A sum is one of series: [`Rare`](super::Rare) things of what is added are not kept.

use std::collections::BTreeMap;

use super::{Family, FamilyKind, FamilySample};
use crate::{Labels, number};

const BOUND: &str = "le";

/// `old` with `new` added to it.
pub fn add(old: &Family, new: &Family) -> Family {
    if old.kind != new.kind {
        return first(new);
    }
    let samples = match old.kind {
        FamilyKind::Histogram => add_histograms(&old.samples, &new.samples),
        FamilyKind::Counter => merge(&old.samples, &new.samples, |a, b| a + b),
        FamilyKind::Gauge | FamilyKind::Summary | FamilyKind::Untyped => {
            merge(&old.samples, &new.samples, |_, new| new)
        }
    };
    Family {
        name: old.name.clone(),
        help: new.help.clone().or_else(|| old.help.clone()),
        kind: old.kind,
        samples,
    }
}

/// `new` where there was nothing to add it to.
pub fn first(new: &Family) -> Family {
    let samples = new.samples.iter().map(plain).collect();
    Family {
        samples,
        ..new.clone()
    }
}

fn plain(sample: &FamilySample) -> FamilySample {
    FamilySample {
        rare: None,
        ..sample.clone()
    }
}

/// The old samples in their order, then those that are new.
fn merge(
    old: &[FamilySample],
    new: &[FamilySample],
    both: impl Fn(f64, f64) -> f64,
) -> Vec<FamilySample> {
    let mut places: BTreeMap<(&str, &Labels), usize> = BTreeMap::new();
    let mut merged: Vec<FamilySample> = Vec::with_capacity(old.len().max(new.len()));
    for (from_new, sample) in old
        .iter()
        .map(|s| (false, s))
        .chain(new.iter().map(|s| (true, s)))
    {
        match places.get(&(sample.suffix, &sample.labels)) {
            Some(&at) if from_new => merged[at].value = both(merged[at].value, sample.value),
            Some(&at) => merged[at].value = sample.value,
            None => {
                places.insert((sample.suffix, &sample.labels), merged.len());
                merged.push(plain(sample));
            }
        }
    }
    merged
}

/// A histogram's buckets by bound.
#[derive(Default)]
struct Buckets<'a> {
    /// Sorted by bound; a bound is written once.
    values: Vec<(f64, &'a FamilySample)>,
}

impl Buckets<'_> {
    /// What is known to lie at or below `bound`.
    fn at(&self, bound: f64) -> f64 {
        let above = self.values.partition_point(|(own, _)| *own <= bound);
        above.checked_sub(1).map_or(0.0, |i| self.values[i].1.value)
    }
}

fn add_histograms(old: &[FamilySample], new: &[FamilySample]) -> Vec<FamilySample> {
    let (ours, theirs) = (buckets(old), buckets(new));
    let none = Buckets::default();
    let mut sets: Vec<Labels> = Vec::new();
    for sample in old.iter().chain(new) {
        let set = without_bound(sample);
        if !sets.contains(&set) {
            sets.push(set);
        }
    }
    let rest = |samples: &[FamilySample]| -> Vec<FamilySample> {
        let rest = samples.iter().filter(|s| s.suffix != "_bucket");
        rest.cloned().collect()
    };
    let rest = merge(&rest(old), &rest(new), |a, b| a + b);
    let mut merged = Vec::with_capacity(old.len().max(new.len()));
    for set in &sets {
        let own = ours.get(set).unwrap_or(&none);
        let other = theirs.get(set).unwrap_or(&none);
        let mut all: Vec<_> = own.values.iter().chain(&other.values).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        all.dedup_by(|a, b| a.0 == b.0);
        merged.extend(all.into_iter().map(|(bound, sample)| FamilySample {
            value: own.at(*bound) + other.at(*bound),
            ..plain(sample)
        }));
        merged.extend(rest.iter().filter(|s| s.labels == *set).cloned());
    }
    merged
}

fn buckets(samples: &[FamilySample]) -> BTreeMap<Labels, Buckets<'_>> {
    let mut found: BTreeMap<Labels, Buckets<'_>> = BTreeMap::new();
    for sample in samples.iter().filter(|s| s.suffix == "_bucket") {
        let bound = sample.labels.get(BOUND).and_then(number::parse);
        let set = found.entry(without_bound(sample)).or_default();
        set.values.push((bound.unwrap_or(f64::INFINITY), sample));
    }
    for set in found.values_mut() {
        set.values.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    found
}

fn without_bound(sample: &FamilySample) -> Labels {
    match sample.suffix {
        "_bucket" => {
            let own = sample.labels.iter().filter(|(name, _)| *name != BOUND);
            Labels::from_pairs(own)
        }
        _ => sample.labels.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(kind: FamilyKind, samples: &[(&'static str, &str, f64)]) -> Family {
        let sample = |&(suffix, label, value): &(&'static str, &str, f64)| FamilySample {
            suffix,
            labels: Labels::from_pairs([(if suffix == "_bucket" { "le" } else { "x" }, label)]),
            value,
            rare: None,
        };
        Family {
            name: "f".into(),
            kind,
            samples: samples.iter().map(sample).collect(),
            ..Family::default()
        }
    }

    fn values(family: &Family) -> Vec<f64> {
        family.samples.iter().map(|s| s.value).collect()
    }

    #[test]
    fn counters_add_and_gauges_replace_by_series() {
        let samples = [("", "1", 1.0), ("", "2", 2.0)];
        let later = [("", "2", 5.0), ("", "3", 1.0)];
        let sum = |kind| add(&family(kind, &samples), &family(kind, &later));
        assert_eq!(values(&sum(FamilyKind::Counter)), [1.0, 7.0, 1.0]);
        assert_eq!(values(&sum(FamilyKind::Gauge)), [1.0, 5.0, 1.0]);
        let other = add(
            &family(FamilyKind::Counter, &samples),
            &family(FamilyKind::Gauge, &later),
        );
        assert_eq!(other, family(FamilyKind::Gauge, &later));
    }

    #[test]
    fn histograms_add_bucket_by_bucket() {
        let kind = FamilyKind::Histogram;
        let one = family(
            kind,
            &[
                ("_bucket", "1", 1.0),
                ("_bucket", "+Inf", 3.0),
                ("_sum", "", 9.0),
                ("_count", "", 3.0),
            ],
        );
        assert_eq!(values(&add(&one, &one)), [2.0, 6.0, 18.0, 6.0]);
        let other = family(
            kind,
            &[
                ("_bucket", "0.5", 2.0),
                ("_bucket", "2", 4.0),
                ("_bucket", "+Inf", 4.0),
            ],
        );
        // Bounds 0.5, 1, 2, +Inf.
        assert_eq!(values(&add(&one, &other)), [2.0, 3.0, 5.0, 7.0, 9.0, 3.0]);
    }
}
