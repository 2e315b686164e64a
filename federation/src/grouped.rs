//! Puts the parts of histograms and summaries together, and tells each series' family.
//!
//! Series come sorted by name, so `x_bucket`, `x_count` and `x_sum` come with others between them
//! (`x_bucket_size`, `x_created`): those wait until the family is whole. What waits is bounded by
//! [`FAMILY_BYTES_MAX`]; a family around which there is more ends early, and the rest of its series
//! are untyped. So are all series of a family that begins without its first part, or one of whose
//! series stands already under the same name: no name has two TYPE lines.

use std::collections::BTreeSet;

use model::Newest;
use model::group::FamilyKind;
use model::limits::FAMILY_BYTES_MAX;

use crate::exposition::Writer;
use crate::types::{Family, Types};

/// Writes newest samples, each under its family; all of a family come together.
pub trait FamilyWriter: Writer {
    fn write_as(&mut self, newest: &Newest, family: Family<'_>, out: &mut Vec<u8>);
}

/// A writer that knows of types.
pub struct Grouped<W> {
    types: Types,
    writer: W,
    /// Base name of the histogram or summary that is being written.
    open: Option<String>,
    /// What came meanwhile and is not of it, in order, and its bytes.
    waiting: Vec<Newest>,
    waiting_bytes: usize,
    /// Families with parts whose series are untyped, while more of them may come.
    untyped: BTreeSet<String>,
}

impl<W: FamilyWriter> Grouped<W> {
    pub fn new(types: Types, writer: W) -> Self {
        Self {
            types,
            writer,
            open: None,
            waiting: Vec::new(),
            waiting_bytes: 0,
            untyped: BTreeSet::new(),
        }
    }

    /// Ends the open family and writes what waited for that.
    fn end(&mut self, out: &mut Vec<u8>) {
        self.open = None;
        self.waiting_bytes = 0;
        for newest in std::mem::take(&mut self.waiting) {
            self.write(&newest, out);
        }
    }

    /// Ends the open family, which is whole. All that waited is whole too: each of its families
    /// would have ended before this one.
    fn end_whole(&mut self, out: &mut Vec<u8>) {
        while self.open.is_some() {
            self.end(out);
        }
    }

    /// Notes that a family's series are untyped from here on.
    fn give_up(&mut self, base: &str) {
        self.untyped.retain(|other| is_before_end(base, other));
        self.untyped.insert(base.to_owned());
    }

    fn wait(&mut self, newest: &Newest, out: &mut Vec<u8>) {
        self.waiting_bytes += size_of::<Newest>() + newest.labels.as_canonical().len();
        self.waiting_bytes += newest
            .histogram
            .as_deref()
            .map_or(0, model::Histogram::size);
        self.waiting.push(newest.clone());
        if self.waiting_bytes > FAMILY_BYTES_MAX
            && let Some(base) = self.open.clone()
        {
            self.give_up(&base);
            self.end(out);
        }
    }

    /// Writes what belongs to no open family, which may open one.
    fn write_next(&mut self, newest: &Newest, out: &mut Vec<u8>) {
        let name = newest.labels.metric_name();
        let family = self.types.family(newest);
        let has_parts = family.kind.has_parts();
        let is_first = match family.kind {
            FamilyKind::Histogram => name.ends_with("_bucket"),
            _ => true,
        };
        if has_parts && is_first && !self.untyped.contains(family.name) {
            self.open = Some(family.name.to_owned());
            return self.writer.write_as(newest, family, out);
        }
        // Or a float where a histogram or summary of the name may follow.
        let is_float = family.kind == FamilyKind::Untyped && newest.histogram.is_none();
        let given_up = (has_parts || is_float).then(|| family.name.to_owned());
        let shown = match has_parts {
            true => Family::untyped(name),
            false => family,
        };
        self.writer.write_as(newest, shown, out);
        if let Some(base) = given_up.filter(|base| !self.untyped.contains(base)) {
            self.give_up(&base);
        }
    }
}

/// Whether series of the family `base` may still come once `name` has.
fn is_before_end(name: &str, base: &str) -> bool {
    let rest = name.strip_prefix(base);
    name <= base || rest.is_some_and(|rest| rest <= "_sum")
}

impl<W: FamilyWriter> Writer for Grouped<W> {
    fn write(&mut self, newest: &Newest, out: &mut Vec<u8>) {
        let name = newest.labels.metric_name();
        if name.is_empty() {
            return;
        }
        let Some(base) = &self.open else {
            return self.write_next(newest, out);
        };
        let mut family = self.types.family(newest);
        if name == base {
            // Of a summary, without a quantile: the name has its TYPE line.
            family.kind = FamilyKind::Summary;
        }
        if family.kind.has_parts() && family.name == base {
            return self.writer.write_as(newest, family, out);
        }
        if is_before_end(name, base) {
            return self.wait(newest, out);
        }
        self.end_whole(out);
        self.write_next(newest, out);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.end_whole(out);
        self.writer.finish(out);
    }
}

#[cfg(test)]
mod tests {
    use model::{Labels, MetricKind, Timestamp};

    use super::*;
    use crate::{Escaping, Exposition};

    fn newest(name: &str, more: &[(&str, &str)]) -> Newest {
        let pairs = [&[("__name__", name)], more].concat();
        Newest {
            labels: Labels::from_pairs(pairs),
            at: Timestamp(7),
            value: 1.0,
            histogram: None,
        }
    }

    fn types() -> Types {
        Types::new([
            ("h", MetricKind::Histogram, "H\\ and\nmore."),
            ("h_bucket_size", MetricKind::Histogram, ""),
            ("s", MetricKind::Summary, "S."),
            ("c", MetricKind::Counter, "C."),
            ("g", MetricKind::Gauge, ""),
        ])
    }

    /// Without `instance=""`.
    fn text(all: &[Newest]) -> String {
        let writer = Exposition::new(&Labels::default(), Escaping::Underscores);
        let mut writer = Grouped::new(types(), writer);
        let mut out = Vec::new();
        all.iter().for_each(|newest| writer.write(newest, &mut out));
        writer.finish(&mut out);
        let text = String::from_utf8(out).unwrap();
        text.replace(",instance=\"\"", "")
            .replace("instance=\"\"", "")
    }

    #[test]
    fn parts_come_together_and_what_was_between_them_after() {
        let le = |le| [("le", le)];
        let all = [
            newest("c_total", &[]),
            newest("g", &[("a", "1")]),
            newest("h_bucket", &le("+Inf")),
            newest("h_bucket", &le("1")),
            newest("h_bucket", &[("x", "no le")]),
            newest("h_bucket_size_bucket", &le("+Inf")),
            newest("h_bucket_size_count", &[]),
            newest("h_bucket_size_created", &[]),
            newest("h_bucket_size_sum", &[]),
            newest("h_count", &[]),
            newest("h_created", &[]),
            newest("h_sum", &[]),
            newest("i", &[]),
            newest("s", &[("quantile", "0.5")]),
            newest("s", &[("z", "no quantile")]),
            newest("s:rule", &[]),
            newest("s_count", &[]),
            newest("s_sum", &[]),
        ];
        let expected = r#"# HELP c_total C.
# TYPE c_total counter
c_total{} 1 7
# TYPE g gauge
g{a="1"} 1 7
# HELP h H\\ and\nmore.
# TYPE h histogram
h_bucket{le="+Inf"} 1 7
h_bucket{le="1"} 1 7
h_count{} 1 7
h_sum{} 1 7
# TYPE h_bucket untyped
h_bucket{x="no le"} 1 7
# TYPE h_bucket_size histogram
h_bucket_size_bucket{le="+Inf"} 1 7
h_bucket_size_count{} 1 7
h_bucket_size_sum{} 1 7
# TYPE h_bucket_size_created untyped
h_bucket_size_created{} 1 7
# TYPE h_created untyped
h_created{} 1 7
# TYPE i untyped
i{} 1 7
# HELP s S.
# TYPE s summary
s{quantile="0.5"} 1 7
s{z="no quantile"} 1 7
s_count{} 1 7
s_sum{} 1 7
# TYPE s:rule untyped
s:rule{} 1 7
"#;
        assert_eq!(text(&all), expected);
    }

    #[test]
    fn a_family_without_its_first_part_or_with_another_of_its_name_is_untyped() {
        let without_buckets = text(&[newest("h_count", &[]), newest("h_sum", &[])]);
        assert_eq!(
            without_buckets,
            "# TYPE h_count untyped\nh_count{} 1 7\n# TYPE h_sum untyped\nh_sum{} 1 7\n"
        );
        let named_like_it = [
            newest("h", &[]),
            newest("h_bucket", &[("le", "1")]),
            newest("h_count", &[]),
        ];
        let lines = text(&named_like_it);
        let types: Vec<_> = lines.lines().filter(|l| l.starts_with("# TYPE")).collect();
        let untyped = [
            "# TYPE h untyped",
            "# TYPE h_bucket untyped",
            "# TYPE h_count untyped",
        ];
        assert_eq!(types, untyped);
    }

    #[test]
    fn too_much_in_between_ends_a_family_and_loses_nothing() {
        let long = "x".repeat(FAMILY_BYTES_MAX / 100);
        let mut all = vec![newest("h_bucket", &[("le", "1")])];
        let between = (0..250).map(|n| newest(&format!("h_c{n:03}"), &[("l", &long)]));
        all.extend(between);
        all.extend([newest("h_count", &[]), newest("h_sum", &[])]);
        let lines = text(&all);
        let series = lines.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(series, all.len());
        assert!(lines.starts_with("# HELP h H"));
        assert!(lines.ends_with("# TYPE h_sum untyped\nh_sum{} 1 7\n"));
        assert_eq!(lines.matches("# TYPE h histogram").count(), 1);
    }
}
