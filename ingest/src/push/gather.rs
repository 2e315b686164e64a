//! What makes the groups of an unchecked Pushgateway no exposition.
//!
//! Promise: says so whenever client_golang's gathering would, and in its words: a metric of another
//! type than its family, a name that a histogram or summary takes by suffix, a series twice. Whose
//! type and which of two series stands is a matter of order: ours is that of the groups' keys and of
//! the families' names, the original's is random. A differing HELP is no error. Costs what is
//! stored, in time and memory. Not here: whether anybody wants to know ([`super::render`] settles
//! the same without an error).

use std::collections::{BTreeMap, BTreeSet};

use model::group::{FamilyKind, Group};

use super::check::{Problems, collision, described};
use super::render::{Merged, Metric, merge};

/// What contradicts, or nothing when the groups are one exposition.
pub fn contradictions(groups: &[Group]) -> Option<String> {
    let mut problems = Problems::default();
    let mut taken: BTreeMap<&str, FamilyKind> = BTreeMap::new();
    for (name, family) in &merge(groups) {
        let Some(kind) = family.metrics.first().map(|metric| metric.kind) else {
            continue;
        };
        match collision(name, |other| taken.get(other).copied()) {
            // The original looks no further into a family whose name is taken.
            Some(problem) => problems.add(|| problem),
            None => {
                taken.insert(name, kind);
                in_family(name, kind, family, &mut problems);
            }
        }
    }
    problems.joined()
}

fn in_family(name: &str, kind: FamilyKind, family: &Merged<'_>, problems: &mut Problems) {
    let mut seen: BTreeSet<&BTreeMap<&str, &str>> = BTreeSet::new();
    for metric in &family.metrics {
        if metric.kind != kind {
            let kind = kind.as_str().to_uppercase();
            problems.add(|| format!("{} is not a {kind}", describe(name, metric)));
            continue;
        }
        let again = usize::from(!seen.insert(&metric.labels));
        for _ in 0..again + metric.repeated() {
            problems.add(|| {
                format!(
                    "{} was collected before with the same name and label values",
                    describe(name, metric)
                )
            });
        }
    }
}

fn describe(name: &str, metric: &Metric<'_>) -> String {
    let last = |suffix: &str| {
        let mut lines = metric.lines.iter().rev();
        lines.find(|line| line.suffix == suffix).map(|l| l.value)
    };
    let (value, count) = match metric.kind {
        FamilyKind::Histogram | FamilyKind::Summary => (last("_sum"), last("_count")),
        _ => (last(""), None),
    };
    let value = value.unwrap_or_default();
    described(name, metric.kind, &metric.labels, value, count)
}

impl Metric<'_> {
    /// How often its labels are said again right behind it, which makes one metric of both.
    fn repeated(&self) -> usize {
        let counts = self.lines.iter().filter(|line| line.suffix == "_count");
        counts.count().saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use model::Timestamp;

    use super::*;
    use crate::push::{Names, Rules, parse, path, render};

    fn group(path: &str, body: &str) -> Group {
        let key = path::parse(&format!("/metrics/job/{path}"), Names::Legacy).unwrap();
        let rules = Rules {
            names: Names::Legacy,
            unchecked: true,
        };
        let families = parse(body.as_bytes(), &key, rules).unwrap();
        Group {
            push_time: Timestamp(1),
            families,
            ..Group::new(key)
        }
    }

    fn of(groups: &[(&str, &str)]) -> String {
        let groups: Vec<Group> = groups
            .iter()
            .map(|(path, body)| group(path, body))
            .collect();
        contradictions(&groups).unwrap_or_default()
    }

    /// Pushgateway 1.11.2 with `--push.disable-consistency-check`: the same pushes, then
    /// `curl :9091/metrics` (where the order is random, as often as it took).
    #[test]
    fn what_contradicts_is_said_in_pushgateways_words() {
        let label =
            |name: &str, value: &str| format!("label:{{name:\"{name}\"  value:\"{value}\"}}  ");
        let of_job = |job: &str| label("instance", "") + &label("job", job);
        let again = "was collected before with the same name and label values";
        for (groups, expected) in [
            (
                &[("a", "# TYPE m counter\nm 1\n"), ("b", "# TYPE m gauge\nm 1\n")][..],
                format!(
                    "collected metric \"m\" {{ {}gauge:{{value:1}}}} is not a COUNTER",
                    of_job("b")
                ),
            ),
            (
                &[("a", "m{x=\"1\"} 1\nm{x=\"1\"} 2\n")],
                format!(
                    "collected metric \"m\" {{ {}{}untyped:{{value:2}}}} {again}",
                    of_job("a"),
                    label("x", "1")
                ),
            ),
            (
                &[("a", "m{instance=\"x\"} 1\n"), ("a/instance/x", "m 1\n")],
                format!(
                    "collected metric \"m\" {{ {}{}untyped:{{value:1}}}} {again}",
                    label("instance", "x"),
                    label("job", "a")
                ),
            ),
            (
                &[("a", "m{job=\"b\"} 1\nm{job=\"c\"} 2\nm{job=\"d\"} 2\n")],
                format!(
                    "2 error(s) occurred:\n* {0}\n* {0}",
                    format_args!(
                        "collected metric \"m\" {{ {}untyped:{{value:2}}}} {again}",
                        of_job("a")
                    )
                ),
            ),
            (
                &[
                    ("a", "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_count 1\n"),
                    ("b", "h_count 1\nh_sum 2\n"),
                ],
                "2 error(s) occurred:\n\
                 * collected metric named \"h_count\" collides with previously collected histogram named \"h\"\n\
                 * collected metric named \"h_sum\" collides with previously collected histogram named \"h\""
                    .to_owned(),
            ),
        ] {
            assert_eq!(of(groups), expected, "{groups:?}");
        }
    }

    /// Pushgateway 1.11.2 shows all of these.
    #[test]
    fn what_does_not_contradict_is_nothing() {
        for groups in [
            &[][..],
            &[("a", "# HELP m one\nm 1\n"), ("b", "# HELP m two\nm 1\n")],
            &[
                ("a", "m 1\nm{x=\"2\"} 1\n"),
                ("a/x/1", "m 1\n"),
                ("a/zone/", "m 1\n"),
            ],
            &[(
                "a",
                "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"1\"} 1\n",
            )],
            &[
                ("a", "# TYPE s summary\ns_count 1\n"),
                ("b", "s_bucket 1\n"),
            ],
        ] {
            assert_eq!(of(groups), "", "{groups:?}");
        }
    }

    /// Labels of the group make one metric of two histograms.
    #[test]
    fn a_histogram_twice_is_told() {
        let body = "# TYPE h histogram\nh_sum{job=\"b\"} 1\nh_sum{job=\"c\"} 2\n";
        let text = of(&[("a", body)]);
        assert!(text.starts_with("collected metric \"h\" { label"), "{text}");
        assert!(text.contains("histogram:{sample_count:0  sample_sum:2}} was collected"));
    }

    /// One that was checked when it was pushed may stand beside another for a moment.
    #[test]
    fn what_contradicts_can_still_be_rendered() {
        let groups = [
            group("a", "# TYPE m counter\nm 1\n"),
            group("b", "# TYPE m gauge\nm 1\n"),
        ];
        assert!(contradictions(&groups).is_some());
        assert!(render(&groups, &|name| name.into()).contains("# TYPE m untyped\n"));
    }
}
