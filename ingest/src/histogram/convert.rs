//! A body's entries with its classic histograms as native ones
//! (`convert_classic_histograms_to_nhcb`).
//!
//! Promise: as in Prometheus 3.5 the histogram stands behind the last of its series, series of a
//! native histogram that is exposed beside them are left alone, and the classic series stay only
//! if the job keeps them; what makes no histogram gives none.

use std::borrow::Cow;

use model::labels::METRIC_NAME;
use model::{Labels, Timestamp};

use super::classic::Classic;
use crate::exposition::{
    BodyError, Entry, ExemplarSeen, HistogramLine, MetricKind, NotUnique, Parser, SampleLine,
};

/// Wraps the parser of a body.
pub struct Converter<'a> {
    parser: Parser<'a>,
    keep_classic: bool,
    /// What the last `# TYPE` said.
    family: Cow<'a, str>,
    kind: MetricKind,
    collecting: Option<Collecting<'a>>,
    /// The native histogram whose classic series may follow.
    native: Option<Labels>,
    /// What ended a histogram and is given after it.
    held: Option<Entry<'a>>,
    /// The converted histogram given last, while it is the last entry.
    given: Option<Collecting<'a>>,
}

/// The histogram whose series are being read.
struct Collecting<'a> {
    /// Without `le`, under the histogram's own name.
    labels: Labels,
    kind_and_unit: (MetricKind, &'a str),
    classic: Classic,
    exemplars: Vec<ExemplarSeen>,
    timestamp: Option<Timestamp>,
}

/// One series of a classic histogram.
enum Part {
    Bucket(f64),
    Count,
    Sum,
}

impl<'a> Converter<'a> {
    pub fn new(parser: Parser<'a>, keep_classic: bool) -> Self {
        Self {
            parser,
            keep_classic,
            family: Cow::Borrowed(""),
            kind: MetricKind::Unknown,
            collecting: None,
            native: None,
            held: None,
            given: None,
        }
    }

    /// See [`Parser::next_entry`].
    pub fn next_entry(&mut self) -> Result<Option<Entry<'a>>, BodyError> {
        loop {
            self.given = None;
            let entry = match self.held.take() {
                Some(entry) => entry,
                None => match self.parser.next_entry()? {
                    Some(entry) => entry,
                    None => return Ok(self.finish()),
                },
            };
            let part = self.part(&entry);
            let goes_on = match (&part, &self.collecting) {
                (Some((_, labels)), Some(collecting)) => collecting.labels == *labels,
                _ => false,
            };
            if !goes_on && let Some(histogram) = self.finish() {
                self.held = Some(entry);
                return Ok(Some(histogram));
            }
            match (part, &entry) {
                (Some((part, labels)), Entry::Sample(line)) => {
                    self.collect(part, labels, line);
                    if self.keep_classic {
                        return Ok(Some(entry));
                    }
                }
                _ => {
                    self.note(&entry);
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// See [`Parser::labels`].
    pub fn labels(&self) -> Result<Labels, NotUnique> {
        match &self.given {
            Some(given) => Ok(given.labels.clone()),
            None => self.parser.labels(),
        }
    }

    /// See [`Parser::kind_and_unit`].
    pub fn kind_and_unit(&self) -> (MetricKind, &'a str) {
        match &self.given {
            Some(given) => given.kind_and_unit,
            None => self.parser.kind_and_unit(),
        }
    }

    /// See [`Parser::sets_empty`]; of a converted histogram that is not known any more.
    pub fn sets_empty(&self, name: &str) -> bool {
        self.given.is_none() && self.parser.sets_empty(name)
    }

    /// See [`Parser::exemplars`].
    pub fn exemplars(&self) -> Vec<ExemplarSeen> {
        match &self.given {
            Some(given) => given.exemplars.clone(),
            None => self.parser.exemplars(),
        }
    }

    /// Which part of a classic histogram the entry is, and the histogram's labels.
    fn part(&self, entry: &Entry<'a>) -> Option<(Part, Labels)> {
        if !matches!(entry, Entry::Sample(_)) || self.kind != MetricKind::Histogram {
            return None;
        }
        let labels = self.parser.labels().ok()?;
        let suffix = labels.metric_name().strip_prefix(&*self.family)?;
        let part = match suffix {
            "_bucket" => {
                let bound = model::number::parse(labels.get("le")?)?;
                Part::Bucket(Some(bound).filter(|bound| !bound.is_nan())?)
            }
            "_count" => Part::Count,
            "_sum" => Part::Sum,
            _ => return None,
        };
        let mut own = labels.to_builder();
        own.set(METRIC_NAME, &self.family);
        own.retain(|name, _| name != "le");
        let own = own.build();
        (self.native.as_ref() != Some(&own)).then_some((part, own))
    }

    fn collect(&mut self, part: Part, labels: Labels, line: &SampleLine<'a>) {
        let exemplars = self.parser.exemplars();
        let kind_and_unit = self.parser.kind_and_unit();
        let collecting = self.collecting.get_or_insert_with(|| Collecting {
            labels,
            kind_and_unit,
            classic: Classic::default(),
            exemplars: Vec::new(),
            timestamp: None,
        });
        collecting.timestamp = line.timestamp;
        collecting.exemplars.extend(exemplars);
        match part {
            Part::Bucket(bound) => collecting.classic.set_bucket(bound, line.value),
            Part::Count => collecting.classic.set_count(line.value),
            Part::Sum => collecting.classic.set_sum(line.value),
        }
    }

    /// The histogram collected so far, which ends here.
    fn finish(&mut self) -> Option<Entry<'a>> {
        let mut collected = self.collecting.take()?;
        let histogram = std::mem::take(&mut collected.classic).convert()?;
        let line = HistogramLine {
            series: collected.labels.to_string().into(),
            histogram,
            timestamp: collected.timestamp,
        };
        self.given = Some(collected);
        Some(Entry::Histogram(line))
    }

    fn note(&mut self, entry: &Entry<'a>) {
        match entry {
            Entry::Type { name, kind } => (self.family, self.kind) = (name.clone(), *kind),
            Entry::Histogram(_) => self.native = self.parser.labels().ok(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{openmetrics, text};

    /// Series and, of histograms, buckets; exemplars behind a `#`.
    fn shown(mut parser: Parser<'_>) -> Vec<String> {
        let mut shown = Vec::new();
        while let Some(entry) = parser.next_entry().unwrap() {
            let value = match &entry {
                Entry::Sample(line) => line.value.to_string(),
                Entry::Histogram(line) => format!("{:?}", line.histogram.positive_buckets),
                _ => continue,
            };
            let mut line = format!("{} {value}", parser.labels().unwrap());
            for exemplar in parser.exemplars() {
                line += &format!(" # {} {}", exemplar.labels, exemplar.value);
            }
            shown.push(line);
        }
        shown
    }

    const BODY: &str = "# TYPE h histogram\n\
        h_bucket{a=\"1\",le=\"1\"} 2\nh_bucket{a=\"1\",le=\"+Inf\"} 3\nh_count{a=\"1\"} 3\n\
        h_sum{a=\"1\"} 4\n\
        h_bucket{a=\"2\",le=\"1\"} 5\nh_bucket{a=\"2\",le=\"+Inf\"} 6\nh_count{a=\"2\"} 6\n\
        h_sum{a=\"2\"} 4\n\
        h_max 7\n\
        # TYPE other gauge\nother_bucket{le=\"1\"} 1\n";

    #[test]
    fn series_of_a_histogram_become_one() {
        let parser = Parser::Text(text::Parser::new(BODY.as_bytes()).unwrap());
        let converted = Parser::Converter(Box::new(Converter::new(parser, false)));
        assert_eq!(
            shown(converted),
            [
                r#"{__name__="h", a="1"} [2.0, 1.0]"#,
                r#"{__name__="h", a="2"} [5.0, 1.0]"#,
                r#"{__name__="h_max"} 7"#,
                r#"{__name__="other_bucket", le="1"} 1"#,
            ]
        );
    }

    #[test]
    fn classic_series_may_stay_and_exemplars_come_along() {
        let body = "# TYPE h histogram\n\
            h_bucket{le=\"1\"} 2 # {t=\"x\"} 0.5 1\nh_bucket{le=\"+Inf\"} 3\n# EOF\n";
        for keep in [false, true] {
            let parser = Parser::OpenMetrics(openmetrics::Parser::new(body.as_bytes()).unwrap());
            let converted = Parser::Converter(Box::new(Converter::new(parser, keep)));
            let mut expected = vec![r#"{__name__="h"} [2.0, 1.0] # {t="x"} 0.5"#];
            if keep {
                let classic = [
                    r#"{__name__="h_bucket", le="1.0"} 2 # {t="x"} 0.5"#,
                    r#"{__name__="h_bucket", le="+Inf"} 3"#,
                ];
                expected.splice(0..0, classic);
            }
            assert_eq!(shown(converted), expected);
        }
    }
}
