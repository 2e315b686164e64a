//! What the exposition formats have in common: the entries a body is cut into, and for the two
//! that are text a cursor over the body and the label set of a sample line.
//!
//! Text borrows from the body. A sample's labels are only cut out while it is read; they become a
//! [`Labels`] when asked for, so that a scrape that knows the line from last time pays for none of
//! it.

use std::borrow::Cow;

use model::labels::METRIC_NAME;
/// What `# TYPE` says, in both formats.
pub use model::metadata::MetricKind;
use model::{Histogram, Labels, Timestamp, number};

use crate::histogram::convert::Converter;
use crate::{exemplar, openmetrics, protobuf, text};

/// One line that means something.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry<'a> {
    Sample(SampleLine<'a>),
    Histogram(HistogramLine<'a>),
    Type {
        name: Cow<'a, str>,
        kind: MetricKind,
    },
    Help {
        name: Cow<'a, str>,
        help: Cow<'a, str>,
    },
    Unit {
        name: Cow<'a, str>,
        unit: &'a str,
    },
}

/// A sample line; its labels are asked from the parser while it is the last entry read.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleLine<'a> {
    /// Name and labels as they stand in the body: equal texts under one type are equal series.
    pub series: Cow<'a, str>,
    pub value: f64,
    pub timestamp: Option<Timestamp>,
}

/// A native histogram; what is said of a sample line holds here too. Not yet checked.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramLine<'a> {
    pub series: Cow<'a, str>,
    pub histogram: Histogram,
    pub timestamp: Option<Timestamp>,
}

/// An exemplar as exposed.
#[derive(Debug, Clone, PartialEq)]
pub struct ExemplarSeen {
    pub labels: Labels,
    pub value: f64,
    pub timestamp: Option<Timestamp>,
}

/// A body that breaks its format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: expected {expected}, found {found}")]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    pub expected: String,
    pub found: String,
}

/// A body that breaks its format, whichever that is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error(transparent)]
    Text(#[from] ParseError),
    #[error(transparent)]
    Protobuf(#[from] protobuf::Malformed),
}

/// A sample line whose labels are no label set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("label name {name:?} is not unique in {series}")]
pub struct NotUnique {
    pub name: String,
    pub series: String,
}

/// Any format's parser.
pub enum Parser<'a> {
    Text(text::Parser<'a>),
    OpenMetrics(openmetrics::Parser<'a>),
    Protobuf(Box<protobuf::Parser<'a>>),
    /// One of the others, with classic histograms turned into native ones.
    Converter(Box<Converter<'a>>),
}

impl<'a> Parser<'a> {
    /// The next entry; `None` at the end. After an error there is nothing more to ask.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'a>>, BodyError> {
        Ok(match self {
            Self::Text(parser) => parser.next_entry()?,
            Self::OpenMetrics(parser) => parser.next_entry()?,
            Self::Protobuf(parser) => parser.next_entry()?,
            Self::Converter(parser) => parser.next_entry()?,
        })
    }

    /// The labels of the sample or histogram read last, its name among them.
    pub fn labels(&self) -> Result<Labels, NotUnique> {
        match self {
            Self::Text(parser) => parser.labels(),
            Self::OpenMetrics(parser) => parser.labels(),
            Self::Protobuf(parser) => parser.labels(),
            Self::Converter(parser) => parser.labels(),
        }
    }

    /// Type and unit that hold for the sample or histogram read last. As in Prometheus those of text
    /// are what was said last, whichever family it was said of.
    pub fn kind_and_unit(&self) -> (MetricKind, &'a str) {
        match self {
            Self::Text(parser) => (parser.kind(), ""),
            Self::OpenMetrics(parser) => parser.kind_and_unit(),
            Self::Protobuf(parser) => parser.kind_and_unit(),
            Self::Converter(parser) => parser.kind_and_unit(),
        }
    }

    /// Whether the sample line read last gives the label an empty value. A label set does not
    /// tell that from no label, but a job that honours labels does.
    pub fn sets_empty(&self, name: &str) -> bool {
        match self {
            Self::Text(parser) => parser.sets_empty(name),
            Self::OpenMetrics(parser) => parser.sets_empty(name),
            Self::Protobuf(parser) => parser.sets_empty(name),
            Self::Converter(parser) => parser.sets_empty(name),
        }
    }

    /// Exemplars of the sample or histogram read last.
    pub fn exemplars(&self) -> Vec<ExemplarSeen> {
        match self {
            Self::Text(_) => Vec::new(),
            Self::OpenMetrics(parser) => parser.exemplar().into_iter().collect(),
            Self::Protobuf(parser) => parser.exemplars(),
            Self::Converter(parser) => parser.exemplars(),
        }
    }
}

/// The body as text; an error names the line of the first byte that is none.
pub(crate) fn decode(body: &[u8]) -> Result<&str, ParseError> {
    std::str::from_utf8(body).map_err(|e| {
        let (valid, rest) = body.split_at(e.valid_up_to());
        ParseError {
            line: 1 + valid.iter().filter(|&&b| b == b'\n').count(),
            expected: "UTF-8".to_owned(),
            found: format!("byte {:#04x}", rest.first().copied().unwrap_or_default()),
        }
    })
}

/// A place in the body. Everything it stops at is ASCII, so it never stands inside a character.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    body: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(body: &'a str) -> Self {
        Self { body, at: 0 }
    }

    pub fn position(&self) -> usize {
        self.at
    }

    pub fn peek(&self) -> Option<u8> {
        self.body.as_bytes().get(self.at).copied()
    }

    /// The text between an earlier position and here.
    pub fn since(&self, start: usize) -> &'a str {
        self.body.get(start..self.at).unwrap_or_default()
    }

    pub fn rest(&self) -> &'a str {
        self.body.get(self.at..).unwrap_or_default()
    }

    /// Steps over `byte` (ASCII) if it is next.
    pub fn eat(&mut self, byte: u8) -> bool {
        let next = self.peek() == Some(byte);
        self.at += usize::from(next);
        next
    }

    /// Steps over `prefix` if it is next.
    pub fn eat_text(&mut self, prefix: &str) -> bool {
        let next = self.rest().starts_with(prefix);
        self.at += if next { prefix.len() } else { 0 };
        next
    }

    /// Steps over bytes while `wanted` holds and returns them. `wanted` must hold for all bytes
    /// of a character that is not ASCII, or for none.
    pub fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a str {
        let start = self.at;
        let rest = self.body.as_bytes().get(start..).unwrap_or_default();
        let len = rest.iter().position(|&b| !wanted(b));
        self.at += len.unwrap_or(rest.len());
        self.since(start)
    }

    /// Steps to the end of the line, not over it.
    pub fn take_line(&mut self) -> &'a str {
        self.take_while(|b| b != b'\n')
    }

    /// A name of letters, digits, `_` and, with `colon`, `:`. Empty when none stands here.
    pub fn take_name(&mut self, colon: bool) -> &'a str {
        match self.peek() {
            Some(b) if b.is_ascii_alphabetic() || b == b'_' || (colon && b == b':') => {
                self.take_while(|b| b.is_ascii_alphanumeric() || b == b'_' || (colon && b == b':'))
            }
            _ => "",
        }
    }

    /// A text in double quotes, still escaped and without them; the cursor stands on the opening
    /// quote. The text format lets it run over the end of a line, OpenMetrics does not.
    pub fn take_quoted(&mut self, over_lines: bool) -> Result<&'a str, ParseError> {
        let open = self.at;
        self.at += 1;
        let start = self.at;
        loop {
            self.take_while(|b| b != b'"' && b != b'\\' && (over_lines || b != b'\n'));
            match self.peek() {
                Some(b'"') => {
                    let text = self.since(start);
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => {
                    self.at += 1;
                    let escaped = self.rest().chars().next();
                    self.at += escaped.map_or(0, char::len_utf8);
                }
                Some(_) | None => {
                    self.at = open;
                    return Err(self.expected("a closing quote"));
                }
            }
        }
    }

    /// An error at this place.
    pub fn expected(&self, expected: &str) -> ParseError {
        let word: String = self
            .rest()
            .chars()
            .take_while(|c| *c != '\n')
            .take(24)
            .collect();
        let found = match self.peek() {
            None => "the end of the body".to_owned(),
            Some(b'\n') => "the end of the line".to_owned(),
            Some(_) => format!("{word:?}"),
        };
        self.error_at(self.at, expected, found)
    }

    /// An error about something read from `at` on.
    pub fn error_at(&self, at: usize, expected: &str, found: impl Into<String>) -> ParseError {
        let before = self.body.as_bytes().get(..at).unwrap_or_default();
        ParseError {
            line: 1 + before.iter().filter(|&&b| b == b'\n').count(),
            expected: expected.to_owned(),
            found: found.into(),
        }
    }
}

/// The pieces of the sample line read last, as they stand in the body.
#[derive(Debug, Default, Clone)]
pub(crate) struct Pieces<'a> {
    pub series: &'a str,
    pub name: Option<&'a str>,
    pub pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Pieces<'a> {
    pub fn clear(&mut self) {
        self.series = "";
        self.name = None;
        self.pairs.clear();
    }

    pub fn sets_empty(&self, name: &str) -> bool {
        let mut pairs = self.pairs.iter();
        pairs.any(|(n, value)| value.is_empty() && unescape(n) == name)
    }

    /// The pairs as the label set of an exemplar, if they may be one's.
    pub fn exemplar_labels(&self) -> Option<Labels> {
        let pairs = self.pairs.iter().map(|(n, v)| (unescape(n), unescape(v)));
        let pairs: Vec<_> = pairs.collect();
        exemplar::labels(&mut pairs.iter().map(|(n, v)| (&**n, &**v)).collect())
    }

    /// Unescapes, brings `le` and `quantile` into float form (Prometheus 3 stores them so) and
    /// sorts.
    pub fn labels(&self, kind: MetricKind) -> Result<Labels, NotUnique> {
        let bound_label = match kind {
            MetricKind::Histogram => Some("le"),
            MetricKind::Summary => Some("quantile"),
            _ => None,
        };
        let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::with_capacity(self.pairs.len() + 1);
        pairs.extend(self.name.map(|name| (METRIC_NAME.into(), unescape(name))));
        for (name, value) in &self.pairs {
            let mut value = unescape(value);
            if bound_label == Some(*name)
                && let Some(bound) = number::parse(&value)
            {
                value = Cow::Owned(number::bound(bound));
            }
            pairs.push((unescape(name), value));
        }
        pairs.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        match pairs.windows(2).find(|two| two[0].0 == two[1].0) {
            Some(two) => Err(NotUnique {
                name: two[0].0.clone().into_owned(),
                series: self.series.to_owned(),
            }),
            None => Ok(Labels::from_sorted(pairs.iter().map(|(n, v)| (&**n, &**v)))),
        }
    }
}

/// Resolves `\\`, `\"` and `\n`; any other backslash stands for itself.
pub(crate) fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let (resolved, taken) = match after.as_bytes().first() {
            Some(b'n') => ('\n', 1),
            Some(b'"') => ('"', 1),
            Some(b'\\') => ('\\', 1),
            _ => ('\\', 0),
        };
        out.push(resolved);
        rest = after.get(taken..).unwrap_or_default();
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_resolve_and_strangers_stay() {
        for (text, plain) in [
            (r"a\\b", r"a\b"),
            (r"a\nb", "a\nb"),
            (r#"\"q\""#, "\"q\""),
            (r"\q\", r"\q\"),
            (r"\\n", r"\n"),
            ("é\\é", "é\\é"),
        ] {
            assert_eq!(unescape(text), plain);
        }
    }

    #[test]
    fn a_byte_that_is_no_text_is_placed() {
        let error = decode(b"a 1\nb{c=\"\xff\"} 1\n").unwrap_err();
        assert_eq!(error.to_string(), "line 2: expected UTF-8, found byte 0xff");
    }
}
