//! Newest samples as the text format, as Prometheus' `/federate` writes it.
//!
//! Promise: byte for byte Prometheus 3.5 for floats: one `# TYPE name untyped` in front of each run of
//! a name, or what it is told of the family, own timestamps in milliseconds, the external labels a series lacks behind its
//! own, `instance=""` where neither has an instance (so that the parent does not set its own).
//! Native histograms have no text and are left out. Not
//! here: choosing and sorting the series.

use model::labels::METRIC_NAME;
use model::limits::LABELS_MAX;
use model::{Labels, Newest, Timestamp, number};

use crate::escaping::{Escaping, is_plain};
use crate::grouped::FamilyWriter;
use crate::types::Family;

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

/// Writes newest samples that come sorted by metric name, one by one.
pub trait Writer: Send + 'static {
    fn write(&mut self, newest: &Newest, out: &mut Vec<u8>);

    /// What was held back, once nothing comes any more.
    fn finish(&mut self, _out: &mut Vec<u8>) {}
}

/// The text format. Names are escaped once: a family's when it begins, a label's when it is first
/// met.
pub struct Exposition {
    additions: Additions,
    escaping: Escaping,
    /// Name of the family whose TYPE line was written last, as it is stored.
    family: String,
    /// Name of the series that were written last, as it is stored.
    series: String,
    /// How each of their lines begins, up to the first label.
    head: Vec<u8>,
    names: Names,
    /// The last timestamp and its text: a scrape's samples have one.
    at: (Timestamp, Vec<u8>),
    number: String,
}

impl Exposition {
    pub fn new(external: &Labels, escaping: Escaping) -> Self {
        Self {
            additions: Additions::new(external),
            escaping,
            family: String::new(),
            series: String::new(),
            head: Vec::new(),
            names: Names::default(),
            at: (Timestamp(0), b" 0\n".to_vec()),
            number: String::new(),
        }
    }

    fn begin_family(&mut self, family: Family<'_>, out: &mut Vec<u8>) {
        family.name.clone_into(&mut self.family);
        let mut quoted = String::new();
        write_name(&mut quoted, &self.escaping.escape(family.name));
        if !family.help.is_empty() {
            out.extend_from_slice(b"# HELP ");
            out.extend_from_slice(quoted.as_bytes());
            out.push(b' ');
            write_help(out, family.help);
        }
        out.extend_from_slice(b"# TYPE ");
        out.extend_from_slice(quoted.as_bytes());
        out.push(b' ');
        out.extend_from_slice(family.kind.as_str().as_bytes());
        out.push(b'\n');
    }

    fn begin_series(&mut self, name: &str) {
        name.clone_into(&mut self.series);
        let escaped = self.escaping.escape(name);
        let mut quoted = String::new();
        write_name(&mut quoted, &escaped);
        self.head.clear();
        if is_plain(&escaped) {
            self.head.extend_from_slice(quoted.as_bytes());
            self.head.push(b'{');
        } else {
            self.head.push(b'{');
            self.head.extend_from_slice(quoted.as_bytes());
            self.head.push(b',');
        }
    }

    fn write_labels(&mut self, labels: &Labels, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        self.names.begin();
        // Both ascend by name: one walk finds what a series lacks.
        let mut lacking = Vec::new();
        let mut added = self.additions.0.iter().enumerate().peekable();
        for (name, value) in labels.iter_bytes() {
            while let Some((at, _)) = added.next_if(|(_, (n, _))| n.as_bytes() < name) {
                lacking.push(at);
            }
            added.next_if(|(_, (n, _))| n.as_bytes() == name);
            if name != METRIC_NAME.as_bytes() {
                self.names.write(name, self.escaping, out);
                write_value(out, value);
            }
        }
        lacking.extend(added.map(|(at, _)| at));
        for at in lacking {
            let (name, value) = &self.additions.0[at];
            self.names.write(name.as_bytes(), self.escaping, out);
            write_value(out, value.as_bytes());
        }
        // `instance` at least was there: the last label's comma is the end.
        let end = out.last_mut().expect("a label was written");
        *end = b'}';
    }

    fn write_number(&mut self, value: f64, out: &mut Vec<u8>) {
        let whole = value as i64;
        if whole as f64 == value && (-999_999..=999_999).contains(&whole) {
            return write_whole(out, whole);
        }
        self.number.clear();
        number::write_exposition(&mut self.number, value);
        out.extend_from_slice(self.number.as_bytes());
    }
}

impl Writer for Exposition {
    fn write(&mut self, newest: &Newest, out: &mut Vec<u8>) {
        let name = newest.labels.metric_name();
        if !name.is_empty() {
            self.write_as(newest, Family::untyped(name), out);
        }
    }
}

impl FamilyWriter for Exposition {
    fn write_as(&mut self, newest: &Newest, family: Family<'_>, out: &mut Vec<u8>) {
        if newest.histogram.is_some() {
            return;
        }
        if self.family != family.name {
            self.begin_family(family, out);
        }
        let name = newest.labels.metric_name();
        if self.series != name {
            self.begin_series(name);
        }
        self.write_labels(&newest.labels, out);
        out.push(b' ');
        self.write_number(newest.value, out);
        if self.at.0 != newest.at {
            let text = format!(" {}\n", newest.at);
            self.at = (newest.at, text.into_bytes());
        }
        out.extend_from_slice(&self.at.1);
    }
}

/// A name, and how it is written.
type Escaped = (Box<[u8]>, Box<[u8]>);

/// Names of labels as they are written, each with what follows: `name="`.
#[derive(Default)]
struct Names {
    known: Vec<Escaped>,
    /// Where the next one is looked for first: series of a family have the same names.
    next: usize,
}

impl Names {
    fn begin(&mut self) {
        self.next = 0;
    }

    fn write(&mut self, name: &[u8], escaping: Escaping, out: &mut Vec<u8>) {
        let expected = self.known.get(self.next).is_some_and(|(n, _)| **n == *name);
        let at = match expected {
            true => self.next,
            false => match self.known.iter().position(|(n, _)| **n == *name) {
                Some(at) => at,
                None => self.learn(name, escaping),
            },
        };
        self.next = at + 1;
        out.extend_from_slice(&self.known[at].1);
    }

    fn learn(&mut self, name: &[u8], escaping: Escaping) -> usize {
        if self.known.len() >= LABELS_MAX {
            self.known.clear();
        }
        let mut text = String::new();
        write_name(&mut text, &escaping.escape(&String::from_utf8_lossy(name)));
        text.push_str("=\"");
        self.known.push((name.into(), text.into_bytes().into()));
        self.known.len() - 1
    }
}

/// A metric's or label's name, in quotes where it must be.
fn write_name(out: &mut String, name: &str) {
    if is_plain(name) {
        return out.push_str(name);
    }
    out.push('"');
    for c in name.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' => out.push_str("\\\""),
            _ => out.push(c),
        }
    }
    out.push('"');
}

/// A help text and the end of its line.
fn write_help(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            byte => out.push(byte),
        }
    }
    out.push(b'\n');
}

/// A label's value, the quote behind it and a comma.
fn write_value(out: &mut Vec<u8>, text: &[u8]) {
    let special = |byte: &u8| matches!(byte, b'\\' | b'\n' | b'"');
    let mut rest = text;
    while let Some(at) = rest.iter().position(special) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(match rest[at] {
            b'\n' => b"\\n",
            b'"' => b"\\\"",
            _ => b"\\\\",
        });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(b"\",");
}

fn write_whole(out: &mut Vec<u8>, value: i64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(pairs: &[(&str, &str)], at: i64, value: f64) -> Newest {
        Newest {
            labels: Labels::from_pairs(pairs.iter().copied()),
            at: Timestamp(at),
            value,
            histogram: None,
        }
    }

    fn text(all: Vec<Newest>, external: &Labels, escaping: Escaping) -> String {
        let mut writer = Exposition::new(external, escaping);
        let mut out = Vec::new();
        all.iter().for_each(|newest| writer.write(newest, &mut out));
        writer.finish(&mut out);
        String::from_utf8(out).unwrap()
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
    fn what_a_series_lacks_stands_behind_its_own_labels() {
        let external = Labels::from_pairs([("A", "1"), ("m", "2"), ("z", "3")]);
        let input = vec![
            series(&[("__name__", "a"), ("m", "own"), ("n", "x")], 5, -3.0),
            series(&[("A", "own"), ("__name__", "a"), ("z", "own")], -6, 1e6),
        ];
        assert_eq!(
            text(input, &external, Escaping::Underscores),
            "# TYPE a untyped\n\
             a{m=\"own\",n=\"x\",A=\"1\",instance=\"\",z=\"3\"} -3 5\n\
             a{A=\"own\",z=\"own\",instance=\"\",m=\"2\"} 1e+06 -6\n"
        );
    }
}
