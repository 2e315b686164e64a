//! Newest samples as the text format, as Prometheus' `/federate` writes it.
//!
//! Promise: byte for byte Prometheus 3.5 for floats: one `# TYPE name untyped` in front of each
//! run of a name, own timestamps in milliseconds, the external labels a series lacks behind its
//! own, `instance=""` where neither has an instance (so that the parent does not set its own).
//! Text comes in pieces of bounded size. Native histograms have no text and are left out. Not
//! here: choosing and sorting the series.

use std::fmt::Write;
use std::vec;

use bytes::Bytes;
use model::labels::METRIC_NAME;
use model::limits::EXPOSITION_PIECE_BYTES;
use model::{Labels, Series, number};

use crate::escaping::{Escaping, is_plain};
use crate::families::newest_histogram;

/// Labels that every series gets unless it has them: the external ones and `instance`.
pub(crate) struct Additions(Vec<(String, String)>);

impl Additions {
    pub fn new(external: &Labels) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let mut all: Vec<_> = external.iter().map(owned).collect();
        if let Err(at) = all.binary_search_by(|(name, _)| name.as_str().cmp("instance")) {
            all.insert(at, ("instance".to_owned(), String::new()));
        }
        Self(all)
    }
}

/// A series' own labels without its name, then those it gets.
pub(crate) fn labels_of<'a>(
    labels: &'a Labels,
    additions: &'a Additions,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let own = labels.iter().filter(|(n, _)| *n != METRIC_NAME);
    let added = additions.0.iter();
    let added = added.filter(|(n, _)| labels.get(n).is_none());
    own.chain(added.map(|(n, v)| (n.as_str(), v.as_str())))
}

/// Writes series that are sorted by metric name, each with one sample; nameless ones are skipped.
pub struct Exposition {
    series: vec::IntoIter<Series>,
    additions: Additions,
    escaping: Escaping,
    /// Name of the family whose TYPE line was written last.
    family: Option<String>,
}

impl Exposition {
    pub fn new(series: Vec<Series>, external: &Labels, escaping: Escaping) -> Self {
        Self {
            series: series.into_iter(),
            additions: Additions::new(external),
            escaping,
            family: None,
        }
    }

    fn write_series(&mut self, out: &mut String, series: &Series) {
        let name = series.labels.metric_name();
        let Some(sample) = series.samples.last() else {
            return;
        };
        if name.is_empty() || newest_histogram(series).is_some() {
            return;
        }
        if self.family.as_deref() != Some(name) {
            out.push_str("# TYPE ");
            write_name(out, &self.escaping.escape(name));
            out.push_str(" untyped\n");
            self.family = Some(name.to_owned());
        }
        self.write_name_and_labels(out, name, &series.labels);
        out.push(' ');
        number::write_exposition(out, sample.value);
        writeln!(out, " {}", sample.timestamp).expect("a String takes all");
    }

    fn write_name_and_labels(&self, out: &mut String, name: &str, labels: &Labels) {
        let name = self.escaping.escape(name);
        let mut separator = '{';
        if is_plain(&name) {
            out.push_str(&name);
        } else {
            out.push('{');
            write_name(out, &name);
            separator = ',';
        }
        for (label, value) in labels_of(labels, &self.additions) {
            out.push(separator);
            write_name(out, &self.escaping.escape(label));
            out.push_str("=\"");
            write_escaped(out, value);
            out.push('"');
            separator = ',';
        }
        out.push('}');
    }
}

/// Pieces of whole lines, each little longer than [`EXPOSITION_PIECE_BYTES`] at most.
impl Iterator for Exposition {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut out = String::with_capacity(EXPOSITION_PIECE_BYTES);
        while out.len() < EXPOSITION_PIECE_BYTES {
            let Some(series) = self.series.next() else {
                break;
            };
            self.write_series(&mut out, &series);
        }
        (!out.is_empty()).then(|| Bytes::from(out))
    }
}

/// A metric's or label's name, in quotes where it must be.
fn write_name(out: &mut String, name: &str) {
    if is_plain(name) {
        return out.push_str(name);
    }
    out.push('"');
    write_escaped(out, name);
    out.push('"');
}

fn write_escaped(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' => out.push_str("\\\""),
            _ => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{Samples, Timestamp};

    use super::*;

    fn series(pairs: &[(&str, &str)], at: i64, value: f64) -> Series {
        let mut samples = Samples::default();
        samples.push(Timestamp(at), value);
        Series {
            labels: Labels::from_pairs(pairs.iter().copied()),
            samples,
        }
    }

    fn text(series: Vec<Series>, external: &Labels, escaping: Escaping) -> String {
        let pieces = Exposition::new(series, external, escaping);
        pieces
            .map(|piece| String::from_utf8(piece.to_vec()).unwrap())
            .collect()
    }

    /// Prometheus 3.5.3 with `external_labels: {region: eu, zone: 'z"1'}` after a scrape with
    /// honor_labels of 127.0.0.1:21992:
    /// `curl -G :9090/federate --data-urlencode 'match[]={__name__=~"t.*"}'`.
    #[test]
    fn bytes_are_those_of_prometheus() {
        let external = Labels::from_pairs([("region", "eu"), ("zone", "z\"1")]);
        let own = ("instance", "127.0.0.1:21992");
        let exp = ("job", "exp");
        let at = 1_795_233_378_555;
        let name = |n| ("__name__", n);
        let input = vec![
            series(
                &[name("t.utf8"), own, ("job", "u"), ("la.bel", "v")],
                at,
                3.0,
            ),
            series(&[name("t_big"), own, exp], at, 1e21),
            series(&[name("t_big2"), own, exp], at, 123_456_789.0),
            series(
                &[name("t_gauge"), ("a", "b"), own, exp, ("region", "us")],
                at,
                f64::NAN,
            ),
            series(&[name("t_gauge"), ("a", "c"), own], at, f64::INFINITY),
            series(
                &[name("t_gauge"), ("a", "d"), own, exp],
                at,
                f64::NEG_INFINITY,
            ),
            series(&[name("t_gauge"), ("a", "x\\y\"z\nw"), exp], at, 1.5),
            series(&[name("t_neg"), own, exp], at, -0.0),
            series(&[name("t_small"), own, exp], at, 1e-7),
        ];
        let expected = r##"# TYPE t_utf8 untyped
t_utf8{instance="127.0.0.1:21992",job="u",la_bel="v",region="eu",zone="z\"1"} 3 1795233378555
# TYPE t_big untyped
t_big{instance="127.0.0.1:21992",job="exp",region="eu",zone="z\"1"} 1e+21 1795233378555
# TYPE t_big2 untyped
t_big2{instance="127.0.0.1:21992",job="exp",region="eu",zone="z\"1"} 1.23456789e+08 1795233378555
# TYPE t_gauge untyped
t_gauge{a="b",instance="127.0.0.1:21992",job="exp",region="us",zone="z\"1"} NaN 1795233378555
t_gauge{a="c",instance="127.0.0.1:21992",region="eu",zone="z\"1"} +Inf 1795233378555
t_gauge{a="d",instance="127.0.0.1:21992",job="exp",region="eu",zone="z\"1"} -Inf 1795233378555
t_gauge{a="x\\y\"z\nw",job="exp",instance="",region="eu",zone="z\"1"} 1.5 1795233378555
# TYPE t_neg untyped
t_neg{instance="127.0.0.1:21992",job="exp",region="eu",zone="z\"1"} 0 1795233378555
# TYPE t_small untyped
t_small{instance="127.0.0.1:21992",job="exp",region="eu",zone="z\"1"} 1e-07 1795233378555
"##;
        assert_eq!(text(input, &external, Escaping::Underscores), expected);
    }

    /// The same Prometheus, `-H 'Accept: text/plain;escaping=…'`.
    #[test]
    fn names_in_utf8_are_quoted_or_escaped() {
        let one = || vec![series(&[("__name__", "t.utf8"), ("la.bel", "v")], 5, 3.0)];
        let none = Labels::default();
        assert_eq!(
            text(one(), &none, Escaping::AllowUtf8),
            "# TYPE \"t.utf8\" untyped\n{\"t.utf8\",\"la.bel\"=\"v\",instance=\"\"} 3 5\n"
        );
        assert_eq!(
            text(one(), &none, Escaping::Values),
            "# TYPE U__t_2e_utf8 untyped\nU__t_2e_utf8{U__la_2e_bel=\"v\",instance=\"\"} 3 5\n"
        );
    }

    #[test]
    fn the_instance_may_itself_be_an_external_label() {
        let external = Labels::from_pairs([("instance", "child")]);
        assert_eq!(
            text(
                vec![series(&[("__name__", "a")], -5, 1.0)],
                &external,
                Escaping::Dots
            ),
            "# TYPE a untyped\na{instance=\"child\"} 1 -5\n"
        );
    }

    #[test]
    fn nameless_series_are_skipped() {
        let input = vec![series(&[("a", "b")], 5, 1.0)];
        assert_eq!(text(input, &Labels::default(), Escaping::Dots), "");
    }

    #[test]
    fn pieces_are_bounded_and_whole_lines() {
        let value = "v".repeat(1000);
        let input: Vec<_> = (0..200)
            .map(|i| series(&[("__name__", "a"), ("b", &value)], i, 1.0))
            .collect();
        let pieces: Vec<_> = Exposition::new(input, &Labels::default(), Escaping::Dots).collect();
        assert!(pieces.len() > 1);
        for piece in pieces {
            assert!(piece.len() < EXPOSITION_PIECE_BYTES + 2000);
            assert!(piece.ends_with(b"\n"));
        }
    }
}
