//! The page of a Pushgateway: all groups as one exposition in the text format.
//!
//! Laid out as client_golang does: families by name, metrics of a family by number of labels and
//! then by label values, a metric's `le` or `quantile` behind its other labels. What two groups
//! say differently is settled here, by group key order and never by an error: the first HELP
//! stays, so does the first of a series that two have, a family that groups give different types is
//! shown `untyped`, and one whose name is a part of a histogram or summary is left out, which a comment
//! says: readers would take its lines for the other's. Not here: whether that is an error ([`super::contradictions`]).
//!
//! Names outside the legacy alphabet are quoted, unless the reader's scheme has another form of
//! them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use model::group::{Family, FamilyKind, FamilySample, Group};
use model::labels::is_legacy_name;
use model::{Histogram, Timestamp, number};

use super::check::{bound_label, collision};

const PUSH_TIME: (&str, &str) = (
    "push_time_seconds",
    "Last Unix time when changing this group in the Pushgateway succeeded.",
);
const PUSH_FAILURE_TIME: (&str, &str) = (
    "push_failure_time_seconds",
    "Last Unix time when changing this group in the Pushgateway failed.",
);

const PUSH_EXPIRES: (&str, &str) = (
    "push_expires_seconds",
    "Unix time when this group is removed unless it is pushed again.",
);

/// The families the store keeps for a group itself.
fn times_of(group: &Group) -> impl Iterator<Item = (&'static str, &'static str, Timestamp)> {
    let times = [
        (PUSH_TIME, Some(group.push_time)),
        (PUSH_FAILURE_TIME, Some(group.push_failure_time)),
        (PUSH_EXPIRES, group.expires),
    ];
    let times = times.into_iter();
    times.filter_map(|((name, help), at)| at.map(|at| (name, help, at)))
}

/// The same as families of their own, with the group's labels.
pub fn time_families(group: &Group) -> Vec<Family> {
    let labels = group.key.labels();
    let family = |(name, help, at): (&str, &str, Timestamp)| Family {
        name: name.to_owned(),
        help: Some(help.to_owned()),
        kind: FamilyKind::Gauge,
        samples: vec![FamilySample {
            suffix: "",
            labels: labels.clone(),
            value: at.seconds(),
            rare: None,
        }],
    };
    times_of(group).map(family).collect()
}

/// What becomes of a name.
pub type Escape<'a> = &'a dyn for<'n> Fn(&'n str) -> Cow<'n, str>;

/// Writes the exposition of all groups, names as `shown` has them.
pub fn render(groups: &[Group], shown: Escape<'_>) -> String {
    let mut out = String::new();
    let mut taken: BTreeMap<&str, FamilyKind> = BTreeMap::new();
    for (name, family) in &mut merge(groups) {
        match collision(name, |other| taken.get(other).copied()) {
            Some(problem) => out.push_str(&format!("# left out: {}\n", escape(&problem, false))),
            None => {
                taken.insert(name, family.kind);
                family.write(name, shown, &mut out);
            }
        }
    }
    out
}

/// The families of all groups by name, their metrics in the order of the groups' keys.
pub(super) fn merge(groups: &[Group]) -> BTreeMap<&str, Merged<'_>> {
    let mut sorted: Vec<&Group> = groups.iter().collect();
    sorted.sort_by(|a, b| a.key.cmp(&b.key));
    let mut page: BTreeMap<&str, Merged<'_>> = BTreeMap::new();
    for group in sorted {
        for family in &group.families {
            page.entry(&family.name)
                .or_insert_with(|| Merged::new(family.kind))
                .add(family, group);
        }
        for (name, help, time) in times_of(group) {
            let family = page
                .entry(name)
                .or_insert_with(|| Merged::new(FamilyKind::Gauge));
            family.help = Some(help);
            let mut labels = BTreeMap::new();
            group_labels(&mut labels, group);
            family.metrics.push(Metric {
                kind: FamilyKind::Gauge,
                labels,
                lines: vec![Line {
                    suffix: "",
                    bound: None,
                    value: time.seconds(),
                    implied: false,
                    native: None,
                }],
            });
        }
    }
    page
}

/// A family over all groups.
pub(super) struct Merged<'a> {
    help: Option<&'a str>,
    kind: FamilyKind,
    pub metrics: Vec<Metric<'a>>,
}

/// One label set and the lines it takes.
pub(super) struct Metric<'a> {
    /// What its own group says that it is.
    pub kind: FamilyKind,
    pub labels: BTreeMap<&'a str, &'a str>,
    pub lines: Vec<Line<'a>>,
}

pub(super) struct Line<'a> {
    pub suffix: &'static str,
    /// `le` or `quantile` with its value.
    pub bound: Option<(&'static str, &'a str)>,
    pub value: f64,
    /// Whether it was not pushed itself.
    pub implied: bool,
    pub native: Option<&'a Histogram>,
}

impl<'a> Merged<'a> {
    fn new(kind: FamilyKind) -> Self {
        Self {
            help: None,
            kind,
            metrics: Vec::new(),
        }
    }

    fn add(&mut self, family: &'a Family, group: &'a Group) {
        self.help = self.help.or(family.help.as_deref());
        if self.kind != family.kind {
            self.kind = FamilyKind::Untyped;
        }
        let bound_label = bound_label(family.kind);
        let same_metric = |a: &FamilySample, b: &FamilySample| {
            bound_label.is_some_and(|bound| same_without(a, b, bound))
        };
        for samples in family.samples.chunk_by(same_metric) {
            let mut labels: BTreeMap<_, _> = samples
                .iter()
                .flat_map(|s| s.labels.iter())
                .filter(|(name, _)| Some(*name) != bound_label)
                .collect();
            let empty = samples.first().map_or(&[][..], FamilySample::empty_labels);
            labels.extend(empty.iter().map(|name| (name.as_str(), "")));
            group_labels(&mut labels, group);
            let lines = samples.iter().map(|s| Line {
                suffix: s.suffix,
                bound: bound_label.and_then(|name| Some((name, s.labels.get(name)?))),
                value: s.value,
                implied: s.is_implied(),
                native: s.native().map(Arc::as_ref),
            });
            self.metrics.push(Metric {
                kind: family.kind,
                labels,
                lines: lines.collect(),
            });
        }
    }

    /// What the first group that says anything says of it.
    pub fn help(&self) -> Option<&str> {
        self.help
    }

    /// By number of labels, then by their values. Of a series that two groups hold the first one's
    /// stays: a page with one twice is none.
    pub fn sort(&mut self) {
        self.metrics.sort_by(|a, b| {
            let by_count = a.labels.len().cmp(&b.labels.len());
            let by_values = by_count.then_with(|| a.labels.values().cmp(b.labels.values()));
            by_values.then_with(|| a.labels.keys().cmp(b.labels.keys()))
        });
        self.metrics.dedup_by(|later, first| later.repeats(first));
    }

    fn write(&mut self, name: &str, escaped: Escape<'_>, out: &mut String) {
        let name = &*escaped(name);
        let shown = match is_legacy_name(name, true) {
            true => name.to_owned(),
            false => format!("\"{}\"", escape(name, true)),
        };
        if let Some(help) = self.help {
            out.push_str(&format!("# HELP {shown} {}\n", escape(help, false)));
        }
        out.push_str(&format!("# TYPE {shown} {}\n", self.kind.as_str()));
        self.sort();
        for metric in &self.metrics {
            metric.write(name, escaped, out);
        }
    }
}

impl Metric<'_> {
    /// Whether a line of it is one of the other's.
    fn repeats(&self, other: &Self) -> bool {
        let has = |line: &Line<'_>| {
            let mut lines = other.lines.iter();
            lines.any(|l| (l.suffix, l.bound) == (line.suffix, line.bound))
        };
        self.labels == other.labels && self.lines.iter().any(has)
    }

    fn write(&self, family: &str, escaped: Escape<'_>, out: &mut String) {
        for line in &self.lines {
            let legacy = is_legacy_name(family, true);
            let mut comma = "";
            if legacy {
                out.push_str(family);
                out.push_str(line.suffix);
                out.push('{');
            } else {
                let name = escape(family, true);
                out.push_str(&format!("{{\"{name}{}\"", line.suffix));
                comma = ",";
            }
            // A label of the group's may have the bound's name: a page with one name twice is none.
            let bound = line.bound.map(|(name, _)| name);
            for (name, value) in self.labels.iter().filter(|(n, _)| Some(**n) != bound) {
                out.push_str(comma);
                write_label(&escaped(name), value, out);
                comma = ",";
            }
            if let Some((name, value)) = line.bound {
                out.push_str(comma);
                let number = number::parse(value).map(number::exposition);
                write_label(name, number.as_deref().unwrap_or(value), out);
            }
            out.push_str("} ");
            number::write_exposition(out, line.value);
            out.push('\n');
        }
    }
}

fn write_label(name: &str, value: &str, out: &mut String) {
    match is_legacy_name(name, false) {
        true => out.push_str(name),
        false => out.push_str(&format!("\"{}\"", escape(name, true))),
    }
    out.push_str(&format!("=\"{}\"", escape(value, true)));
}

/// The group's labels over whatever stands there, and the `instance=""` that tells a scraper to
/// leave that label alone.
fn group_labels<'a>(labels: &mut BTreeMap<&'a str, &'a str>, group: &'a Group) {
    labels.extend(group.key.iter());
    labels.entry("instance").or_insert("");
}

fn same_without(a: &FamilySample, b: &FamilySample, name: &str) -> bool {
    let rest = |sample: &FamilySample| sample.labels.without(name);
    rest(a) == rest(b) && a.empty_labels() == b.empty_labels()
}

fn escape(text: &str, quotes: bool) -> String {
    let text = text.replace('\\', r"\\").replace('\n', r"\n");
    match quotes {
        true => text.replace('"', "\\\""),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use model::group::GroupingKey;
    use proptest::prelude::*;

    use super::*;

    fn render(groups: &[Group]) -> String {
        super::render(groups, &|name| name.into())
    }
    use crate::push::{Names, parse, path};

    fn group(path: &str, body: &str) -> Group {
        let key = path::parse(&format!("/metrics/job/{path}"), Names::Utf8).unwrap();
        let families = parse(body.as_bytes(), &key, Names::Utf8).unwrap();
        Group {
            key,
            families,
            push_time: Timestamp(1_795_233_497_814),
            push_failure_time: Timestamp(0),
            expires: None,
        }
    }

    /// StatsD's group is checked by nobody, and nor are groups of a node that does not check.
    #[test]
    fn a_name_that_is_part_of_a_histogram_is_left_out() {
        let groups = [
            group("a", "# TYPE h histogram\nh_bucket{le=\"2\"} 1\n"),
            group("b", "# TYPE h_count counter\nh_count 7\n"),
            group("c", "# TYPE h_total counter\nh_total 8\n"),
        ];
        let page = render(&groups);
        let lines = page.lines().take_while(|line| !line.contains("push_"));
        let lines: Vec<&str> = lines.skip(1).collect();
        assert_eq!(
            lines,
            [
                r#"h_bucket{instance="",job="a",le="2"} 1"#,
                r#"h_bucket{instance="",job="a",le="+Inf"} 0"#,
                r#"h_sum{instance="",job="a"} 0"#,
                r#"h_count{instance="",job="a"} 0"#,
                r#"# left out: collected metric named "h_count" collides with previously collected histogram named "h""#,
                "# TYPE h_total counter",
                r#"h_total{instance="",job="c"} 8"#,
            ]
        );
    }

    /// As pushgateway 1.11.2 shows the same pushes, but for the type of `n`: it refuses the second.
    #[test]
    fn groups_merge_into_one_exposition() {
        let groups = [
            group("b", "# TYPE h histogram\nh_bucket{le=\"2\"} 1\n"),
            group(
                "a/instance/i1",
                "# HELP g first\n# TYPE g gauge\ng{z=\"1\",a=\"q\\\"\\n\"} 1.5e6\ng -0\n\
                 # TYPE h histogram\nh_bucket{le=\"5\"} 1\nh_sum 4\nh_count 2\n\
                 # TYPE n counter\nn 3\n",
            ),
            group("A/zone/", "# HELP g second\n# TYPE g gauge\ng 2\nn 1\n"),
        ];
        let expected = r#"# HELP g first
# TYPE g gauge
g{instance="i1",job="a"} 0
g{instance="",job="A",zone=""} 2
g{a="q\"\n",instance="i1",job="a",z="1"} 1.5e+06
# TYPE h histogram
h_bucket{instance="",job="b",le="2"} 1
h_bucket{instance="",job="b",le="+Inf"} 0
h_sum{instance="",job="b"} 0
h_count{instance="",job="b"} 0
h_bucket{instance="i1",job="a",le="5"} 1
h_bucket{instance="i1",job="a",le="+Inf"} 2
h_sum{instance="i1",job="a"} 4
h_count{instance="i1",job="a"} 2
# TYPE n untyped
n{instance="i1",job="a"} 3
n{instance="",job="A",zone=""} 1
# HELP push_failure_time_seconds Last Unix time when changing this group in the Pushgateway failed.
# TYPE push_failure_time_seconds gauge
push_failure_time_seconds{instance="",job="b"} 0
push_failure_time_seconds{instance="i1",job="a"} 0
push_failure_time_seconds{instance="",job="A",zone=""} 0
# HELP push_time_seconds Last Unix time when changing this group in the Pushgateway succeeded.
# TYPE push_time_seconds gauge
push_time_seconds{instance="",job="b"} 1.795233497814e+09
push_time_seconds{instance="i1",job="a"} 1.795233497814e+09
push_time_seconds{instance="",job="A",zone=""} 1.795233497814e+09
"#;
        assert_eq!(render(&groups), expected);
    }

    /// Pushgateway 1.11.2 writes `le` twice.
    #[test]
    fn a_label_of_the_group_does_not_hide_a_bound() {
        let body = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_count 2\n";
        let page = render(&[group("a/le/x", body)]);
        assert!(
            page.contains(
                "h_bucket{instance=\"\",job=\"a\",le=\"1\"} 1\n\
                 h_bucket{instance=\"\",job=\"a\",le=\"+Inf\"} 2\n\
                 h_sum{instance=\"\",job=\"a\",le=\"x\"} 0\n"
            ),
            "{page}"
        );
    }

    #[test]
    fn names_beyond_the_legacy_alphabet_are_quoted() {
        let page = render(&[group("a", "{\"a.b\",\"c d\"=\"e\"} 1\n")]);
        assert!(page.contains(
            "# TYPE \"a.b\" untyped\n{\"a.b\",\"c d\"=\"e\",instance=\"\",job=\"a\"} 1\n"
        ));
    }

    fn family_text() -> impl Strategy<Value = String> {
        let samples = prop::collection::btree_map("[a-c]{1,2}", "\\PC{1,5}|\"|\\\\|\n", 0..3);
        (
            "[a-f]{1,3}(\\.x)?",
            prop_oneof![
                Just("gauge"),
                Just("counter"),
                Just("histogram"),
                Just("summary")
            ],
            prop::collection::vec((samples, any::<f64>()), 1..5),
        )
            .prop_map(|(name, kind, samples)| {
                let mut text = format!("# TYPE \"{name}\" {kind}\n");
                for (labels, value) in samples {
                    let pairs: String = labels
                        .iter()
                        .map(|(n, v)| format!(",{n}=\"{}\"", escape(v, true)))
                        .collect();
                    let value = number::exposition(value);
                    text.push_str(&match kind {
                        "histogram" => format!("{{\"{name}_sum\"{pairs}}} {value}\n"),
                        "summary" => {
                            format!("{{\"{name}\"{pairs},quantile=\"0.5\"}} {value}\n")
                        }
                        _ => format!("{{\"{name}\"{pairs}}} {value}\n"),
                    });
                }
                text
            })
    }

    proptest! {
        /// The page of a push, pushed to the same group, is the same page.
        #[test]
        fn what_is_rendered_parses_back(text in family_text()) {
            let key = GroupingKey::new([("job".to_owned(), "j".to_owned())]).unwrap();
            let Ok(families) = parse(text.as_bytes(), &key, Names::Utf8) else {
                return Ok(()); // one series twice, or the like
            };
            let group = |families| Group {
                key: key.clone(),
                families,
                push_time: Timestamp(1),
                push_failure_time: Timestamp(0),
                expires: None,
            };
            let page = render(&[group(families)]);
            let again = parse(page.as_bytes(), &key, Names::Utf8);
            prop_assert!(again.is_ok(), "{:?}\n{}", again, page);
            prop_assert_eq!(render(&[group(again.unwrap())]), page);
        }
    }
}
