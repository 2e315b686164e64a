//! OpenMetrics text, 1.0 and 0.0.1, as a scraper reads it.
//!
//! Grammar: the OpenMetrics specification 1.0, to the strictness of Prometheus 3.5: single
//! spaces, no empty lines, `# EOF` last. `_created` samples are ordinary series. Not checked, as there: that a family's lines stand together.

use model::{Labels, Timestamp, number};

use crate::exposition::{
    Cursor, Entry, ExemplarSeen, MetricKind, NotUnique, ParseError, Pieces, SampleLine, decode,
    unescape,
};

/// Cuts a body into entries.
#[derive(Debug, Clone)]
pub struct Parser<'a> {
    cursor: Cursor<'a>,
    last: Pieces<'a>,
    /// What the last `# TYPE` said, whichever family it named: as Prometheus applies it.
    kind: MetricKind,
    /// What the last `# UNIT` said, likewise.
    unit: &'a str,
    ended: bool,
    /// Of the sample line read last: its labels, and value and time.
    exemplar_labels: Pieces<'a>,
    exemplar: Option<(f64, Option<Timestamp>)>,
}

impl<'a> Parser<'a> {
    /// An empty body is a target that shows nothing (as Prometheus takes it), not a lost `# EOF`.
    pub fn new(body: &'a [u8]) -> Result<Self, ParseError> {
        Ok(Self {
            cursor: Cursor::new(decode(body)?),
            last: Pieces::default(),
            kind: MetricKind::Unknown,
            unit: "",
            ended: body.is_empty(),
            exemplar_labels: Pieces::default(),
            exemplar: None,
        })
    }

    /// The next entry; `None` behind `# EOF`. After an error there is nothing more to ask.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'a>>, ParseError> {
        if self.ended {
            return Ok(None);
        }
        if self.cursor.eat_text("# ") {
            return self.comment();
        }
        match self.cursor.peek() {
            None => Err(self.cursor.expected("# EOF as last line")),
            Some(_) => self.sample().map(|line| Some(Entry::Sample(line))),
        }
    }

    /// The labels of the sample line read last, its name among them.
    pub fn labels(&self) -> Result<Labels, NotUnique> {
        self.last.labels(self.kind)
    }

    /// What the last `# TYPE` and the last `# UNIT` said.
    pub fn kind_and_unit(&self) -> (MetricKind, &'a str) {
        (self.kind, self.unit)
    }

    /// Whether the sample line read last gives the label an empty value.
    pub fn sets_empty(&self, name: &str) -> bool {
        self.last.sets_empty(name)
    }

    /// The exemplar of the sample line read last.
    pub fn exemplar(&self) -> Option<ExemplarSeen> {
        let (value, timestamp) = self.exemplar?;
        Some(ExemplarSeen {
            labels: self.exemplar_labels.exemplar_labels()?,
            value,
            timestamp,
        })
    }

    fn comment(&mut self) -> Result<Option<Entry<'a>>, ParseError> {
        if self.cursor.eat_text("EOF") {
            self.cursor.eat(b'\n');
            self.ended = true;
            return match self.cursor.peek() {
                None => Ok(None),
                Some(_) => Err(self.cursor.expected("nothing behind # EOF")),
            };
        }
        let at = self.cursor.position();
        let keyword = self.cursor.take_while(|b| b.is_ascii_uppercase());
        if !matches!(keyword, "HELP" | "TYPE" | "UNIT") || !self.cursor.eat(b' ') {
            return Err(self.cursor.error_at(
                at,
                "HELP, TYPE, UNIT or EOF behind '# '",
                format!("{keyword:?}"),
            ));
        }
        let raw_name = match self.cursor.peek() {
            Some(b'"') => self.cursor.take_quoted(false)?,
            _ => self.cursor.take_name(true),
        };
        if raw_name.is_empty() {
            return Err(self
                .cursor
                .expected(&format!("a metric name after {keyword}")));
        }
        let at = self.cursor.position();
        let line = self.cursor.take_line();
        let rest = line.strip_prefix(' ').ok_or_else(|| {
            let expected = format!("a space and a text in {keyword}");
            self.cursor.error_at(at, &expected, format!("{line:?}"))
        })?;
        if !self.cursor.eat(b'\n') {
            return Err(self.cursor.expected("the end of the line"));
        }
        let name = unescape(raw_name);
        let wrong = |expected: &str| self.cursor.error_at(at, expected, format!("{rest:?}"));
        match keyword {
            "HELP" => Ok(Some(Entry::Help {
                name,
                help: unescape(rest),
            })),
            "TYPE" => {
                let kind = kind_of(rest).ok_or_else(|| wrong("a metric type"))?;
                self.kind = kind;
                Ok(Some(Entry::Type { name, kind }))
            }
            _ => {
                let fits = rest.is_empty()
                    || name
                        .strip_suffix(rest)
                        .is_some_and(|stem| stem.ends_with('_'));
                if !fits {
                    return Err(wrong(&format!("a unit that ends the name {name:?}")));
                }
                self.unit = rest;
                Ok(Some(Entry::Unit { name, unit: rest }))
            }
        }
    }

    fn sample(&mut self) -> Result<SampleLine<'a>, ParseError> {
        self.last.clear();
        self.exemplar = None;
        let start = self.cursor.position();
        let name = self.cursor.take_name(true);
        if !name.is_empty() {
            self.last.name = Some(name);
        } else if self.cursor.peek() != Some(b'{') {
            return Err(self.cursor.expected("a metric name or '# '"));
        }
        if self.cursor.eat(b'{') {
            let mut pieces = std::mem::take(&mut self.last);
            self.labels_in_braces(&mut pieces, true)?;
            self.last = pieces;
        }
        self.last.series = self.cursor.since(start);
        if self.last.name.is_none() {
            let series = format!("{:?}", self.last.series);
            return Err(self.cursor.error_at(start, "a metric name", series));
        }
        let value = self.number("a number as value")?;
        let mut timestamp = None;
        if !matches!(self.cursor.peek(), Some(b'\n')) && !self.cursor.rest().starts_with(" # ") {
            let seconds = self.seconds()?;
            timestamp = Some(Timestamp((seconds * 1000.0) as i64));
        }
        if self.cursor.eat_text(" # ") {
            self.read_exemplar()?;
        }
        if !self.cursor.eat(b'\n') {
            return Err(self.cursor.expected("the end of the line"));
        }
        Ok(SampleLine {
            series: self.last.series.into(),
            value,
            timestamp,
        })
    }

    /// `{labels} value [timestamp]`.
    fn read_exemplar(&mut self) -> Result<(), ParseError> {
        if !self.cursor.eat(b'{') {
            return Err(self.cursor.expected("an exemplar's labels"));
        }
        let mut pieces = std::mem::take(&mut self.exemplar_labels);
        pieces.clear();
        self.labels_in_braces(&mut pieces, false)?;
        self.exemplar_labels = pieces;
        let value = self.number("a number as the exemplar's value")?;
        let mut timestamp = None;
        if self.cursor.peek() == Some(b' ') {
            timestamp = Some(Timestamp((self.seconds()? * 1000.0) as i64));
        }
        self.exemplar = Some((value, timestamp));
        Ok(())
    }

    /// Labels up to the closing brace; a metric's name may stand among them if `named`.
    fn labels_in_braces(&mut self, pieces: &mut Pieces<'a>, named: bool) -> Result<(), ParseError> {
        loop {
            if self.cursor.eat(b'}') {
                return Ok(());
            }
            let quoted = self.cursor.peek() == Some(b'"');
            let name = match quoted {
                true => self.cursor.take_quoted(false)?,
                false => self.cursor.take_name(false),
            };
            if name.is_empty() && !quoted {
                return Err(self.cursor.expected("a label name or '}'"));
            }
            if self.cursor.eat(b'=') {
                if self.cursor.peek() != Some(b'"') {
                    return Err(self
                        .cursor
                        .expected("a quoted label value after the equal sign"));
                }
                pieces.pairs.push((name, self.cursor.take_quoted(false)?));
            } else if named && quoted && pieces.name.is_none() {
                pieces.name = Some(name);
            } else {
                return Err(self.cursor.expected("an equal sign after the label name"));
            }
            if !self.cursor.eat(b',') && self.cursor.peek() != Some(b'}') {
                return Err(self.cursor.expected("',' or '}' after a label"));
            }
        }
    }

    /// One space and a timestamp.
    fn seconds(&mut self) -> Result<f64, ParseError> {
        let at = self.cursor.position();
        let expected = "a finite timestamp in seconds";
        match self.number(expected)? {
            seconds if seconds.is_finite() => Ok(seconds),
            seconds => Err(self.cursor.error_at(at, expected, seconds.to_string())),
        }
    }

    /// One space and a number.
    fn number(&mut self, expected: &str) -> Result<f64, ParseError> {
        if !self.cursor.eat(b' ') {
            return Err(self.cursor.expected(&format!("one space and {expected}")));
        }
        let at = self.cursor.position();
        let word = self.cursor.take_while(|b| b != b' ' && b != b'\n');
        number::parse(word).ok_or_else(|| self.cursor.error_at(at, expected, format!("{word:?}")))
    }
}

fn kind_of(text: &str) -> Option<MetricKind> {
    Some(match text {
        "counter" => MetricKind::Counter,
        "gauge" => MetricKind::Gauge,
        "histogram" => MetricKind::Histogram,
        "gaugehistogram" => MetricKind::GaugeHistogram,
        "summary" => MetricKind::Summary,
        "info" => MetricKind::Info,
        "stateset" => MetricKind::StateSet,
        "unknown" => MetricKind::Unknown,
        _ => return None,
    })
}
