//! Types and helps of families, and which series belong to which, for an exposition that tells them.
//!
//! Promise: a family has a type only where everybody who speaks of it says the same; a series
//! belongs to a histogram or summary only if it has the label that makes it a part. Kinds that the
//! text format has no word for are untyped.

use std::collections::BTreeMap;

use model::group::FamilyKind;
use model::{MetricKind, Newest};

/// What is known of each family, by name.
#[derive(Debug, Default)]
pub struct Types(BTreeMap<String, Word>);

#[derive(Debug)]
struct Word {
    kind: MetricKind,
    help: String,
}

/// What one `# TYPE` line stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family<'a> {
    pub name: &'a str,
    pub kind: FamilyKind,
    /// Empty if there is none.
    pub help: &'a str,
}

impl<'a> Family<'a> {
    /// Nothing is known of it.
    pub fn untyped(name: &'a str) -> Self {
        Self {
            name,
            kind: FamilyKind::Untyped,
            help: "",
        }
    }
}

impl Types {
    /// Of what anybody said: family, type, help. The first help stays.
    pub fn new<'w>(words: impl IntoIterator<Item = (&'w str, MetricKind, &'w str)>) -> Self {
        let mut all: BTreeMap<String, Word> = BTreeMap::new();
        for (name, kind, help) in words {
            match all.get_mut(name) {
                None => {
                    let help = help.to_owned();
                    all.insert(name.to_owned(), Word { kind, help });
                }
                Some(known) if known.kind != kind => known.kind = MetricKind::Unknown,
                Some(_) => {}
            }
        }
        Self(all)
    }

    /// The family that a series belongs to. Native histograms bring their type along.
    pub fn family<'a>(&'a self, newest: &'a Newest) -> Family<'a> {
        let name = newest.labels.metric_name();
        if let Some(word) = self.0.get(name) {
            return word.of_its_own_name(name, newest);
        }
        let mut parts = ["_bucket", "_count", "_sum", "_total"].into_iter();
        let part = parts.find_map(|end| Some((name.strip_suffix(end)?, end)));
        let known = part.and_then(|(base, end)| Some((base, end, self.0.get(base)?)));
        let Some((base, end, word)) = known else {
            return Family::untyped(name);
        };
        let (name, kind) = match (word.kind, end) {
            (MetricKind::Histogram, "_bucket") if has_number(newest, "le") => {
                (base, FamilyKind::Histogram)
            }
            (MetricKind::Histogram, "_count" | "_sum") => (base, FamilyKind::Histogram),
            (MetricKind::Summary, "_count" | "_sum") => (base, FamilyKind::Summary),
            // OpenMetrics' name of the family; in the text format it is the series'.
            (MetricKind::Counter, "_total") => (name, FamilyKind::Counter),
            _ => return Family::untyped(name),
        };
        let help = &word.help;
        Family { name, kind, help }
    }
}

impl Word {
    fn of_its_own_name<'a>(&'a self, name: &'a str, newest: &Newest) -> Family<'a> {
        let kind = match self.kind {
            MetricKind::Counter => FamilyKind::Counter,
            MetricKind::Gauge => FamilyKind::Gauge,
            MetricKind::Summary if has_number(newest, "quantile") => FamilyKind::Summary,
            _ => FamilyKind::Untyped,
        };
        let help = &self.help;
        Family { name, kind, help }
    }
}

/// Whether a label is there and a number: `+Inf` is one.
fn has_number(newest: &Newest, label: &str) -> bool {
    number(newest, label).is_some()
}

/// The number that a label is.
pub(crate) fn number(newest: &Newest, label: &str) -> Option<f64> {
    newest.labels.get(label)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use model::{Labels, Timestamp};

    use super::*;

    #[test]
    fn a_series_belongs_where_its_name_and_labels_say() {
        let types = Types::new([
            ("h", MetricKind::Histogram, "H."),
            ("s", MetricKind::Summary, ""),
            ("c", MetricKind::Counter, "C."),
            ("h_count", MetricKind::Gauge, ""),
            ("two", MetricKind::Gauge, "first"),
            ("two", MetricKind::Counter, "second"),
            ("i", MetricKind::Info, "I."),
        ]);
        for (pairs, family, kind, help) in [
            (
                &[("__name__", "h_bucket"), ("le", "+Inf")][..],
                "h",
                FamilyKind::Histogram,
                "H.",
            ),
            (
                &[("__name__", "h_bucket"), ("le", "x")],
                "h_bucket",
                FamilyKind::Untyped,
                "",
            ),
            (
                &[("__name__", "h_bucket")],
                "h_bucket",
                FamilyKind::Untyped,
                "",
            ),
            (&[("__name__", "h_sum")], "h", FamilyKind::Histogram, "H."),
            (&[("__name__", "h_count")], "h_count", FamilyKind::Gauge, ""),
            (&[("__name__", "h")], "h", FamilyKind::Untyped, "H."),
            (
                &[("__name__", "s"), ("quantile", "0.5")],
                "s",
                FamilyKind::Summary,
                "",
            ),
            (&[("__name__", "s")], "s", FamilyKind::Untyped, ""),
            (&[("__name__", "s_count")], "s", FamilyKind::Summary, ""),
            (
                &[("__name__", "s_bucket"), ("le", "1")],
                "s_bucket",
                FamilyKind::Untyped,
                "",
            ),
            (
                &[("__name__", "c_total")],
                "c_total",
                FamilyKind::Counter,
                "C.",
            ),
            (&[("__name__", "c_sum")], "c_sum", FamilyKind::Untyped, ""),
            (&[("__name__", "two")], "two", FamilyKind::Untyped, "first"),
            (&[("__name__", "i")], "i", FamilyKind::Untyped, "I."),
            (&[("__name__", "_sum")], "_sum", FamilyKind::Untyped, ""),
        ] {
            let newest = Newest {
                labels: Labels::from_pairs(pairs.iter().copied()),
                at: Timestamp(1),
                value: 1.0,
                histogram: None,
            };
            let name = family;
            assert_eq!(
                types.family(&newest),
                Family { name, kind, help },
                "{pairs:?}"
            );
        }
    }
}
