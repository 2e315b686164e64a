//! Prometheus' text format, 0.0.4 and 1.0.0, as a scraper reads it.
//!
//! Grammar: prometheus.io/docs/instrumenting/exposition_formats; where that leaves room, what
//! Prometheus 3.5 accepts: labels may be parted by blanks alone, a quoted name may stand among
//! the labels, `#TYPE` without a blank is a comment, the last line needs no end. A push is
//! read by other rules, those of client libraries.

use model::{Labels, Timestamp, number};

use crate::exposition::{
    Cursor, Entry, MetricKind, NotUnique, ParseError, Pieces, SampleLine, decode, unescape,
};

/// Cuts a body into entries.
#[derive(Debug, Clone)]
pub struct Parser<'a> {
    cursor: Cursor<'a>,
    last: Pieces<'a>,
    /// What the last `# TYPE` said, whichever family it named: as Prometheus applies it.
    kind: MetricKind,
}

impl<'a> Parser<'a> {
    pub fn new(body: &'a [u8]) -> Result<Self, ParseError> {
        Ok(Self {
            cursor: Cursor::new(decode(body)?),
            last: Pieces::default(),
            kind: MetricKind::Unknown,
        })
    }

    /// A parser of one line of a longer body, whose last `# TYPE` said `kind`.
    pub fn of_line(line: &'a [u8], kind: MetricKind) -> Result<Self, ParseError> {
        let parser = Self::new(line)?;
        Ok(Self { kind, ..parser })
    }

    /// What the last `# TYPE` said.
    pub fn kind(&self) -> MetricKind {
        self.kind
    }

    /// The next entry; `None` at the end. After an error there is nothing more to ask.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'a>>, ParseError> {
        loop {
            self.skip_blanks();
            match self.cursor.peek() {
                None => return Ok(None),
                Some(b'\n') => {
                    self.cursor.eat(b'\n');
                }
                Some(b'#') => {
                    if let Some(entry) = self.comment()? {
                        return Ok(Some(entry));
                    }
                }
                Some(_) => return self.sample().map(|line| Some(Entry::Sample(line))),
            }
        }
    }

    /// The labels of the sample line read last, its name among them.
    pub fn labels(&self) -> Result<Labels, NotUnique> {
        self.last.labels(self.kind)
    }

    /// Whether the sample line read last gives the label an empty value.
    pub fn sets_empty(&self, name: &str) -> bool {
        self.last.sets_empty(name)
    }

    fn skip_blanks(&mut self) {
        self.cursor.take_while(|b| b == b' ' || b == b'\t');
    }

    /// `# HELP`, `# TYPE`, or a line that says nothing.
    fn comment(&mut self) -> Result<Option<Entry<'a>>, ParseError> {
        self.cursor.eat(b'#');
        let blanks = self.cursor.take_while(|b| b == b' ' || b == b'\t');
        let keyword = self.cursor.take_while(|b| b.is_ascii_uppercase());
        let known = !blanks.is_empty() && matches!(keyword, "HELP" | "TYPE");
        if !known || !matches!(self.cursor.peek(), Some(b' ' | b'\t')) {
            self.cursor.take_line();
            return Ok(None);
        }
        self.skip_blanks();
        let name = match self.cursor.peek() {
            Some(b'"') => self.cursor.take_quoted(true)?,
            _ => self.cursor.take_name(true),
        };
        if name.is_empty() {
            return Err(self
                .cursor
                .expected(&format!("a metric name after {keyword}")));
        }
        let name = unescape(name);
        let at = self.cursor.position();
        let line = self.cursor.take_line();
        let rest = line.strip_prefix([' ', '\t']).unwrap_or(line);
        if keyword == "HELP" {
            return Ok(Some(Entry::Help {
                name,
                help: unescape(rest),
            }));
        }
        self.kind = match rest {
            "counter" => MetricKind::Counter,
            "gauge" => MetricKind::Gauge,
            "histogram" => MetricKind::Histogram,
            "summary" => MetricKind::Summary,
            "untyped" => MetricKind::Unknown,
            _ => {
                let expected = "counter, gauge, histogram, summary or untyped as type";
                return Err(self.cursor.error_at(at, expected, format!("{rest:?}")));
            }
        };
        Ok(Some(Entry::Type {
            name,
            kind: self.kind,
        }))
    }

    fn sample(&mut self) -> Result<SampleLine<'a>, ParseError> {
        self.last.clear();
        let start = self.cursor.position();
        let name = self.cursor.take_name(true);
        if !name.is_empty() {
            self.last.name = Some(name);
        } else if self.cursor.peek() != Some(b'{') {
            return Err(self
                .cursor
                .expected("a metric name, a comment or an empty line"));
        }
        self.last.series = self.cursor.since(start);
        self.skip_blanks();
        if self.cursor.eat(b'{') {
            self.labels_in_braces()?;
            self.last.series = self.cursor.since(start);
        }
        if self.last.name.is_none() {
            let series = format!("{:?}", self.last.series);
            return Err(self.cursor.error_at(start, "a metric name", series));
        }
        let value = self.value()?;
        let timestamp = self.timestamp()?;
        Ok(SampleLine {
            series: self.last.series.into(),
            value,
            timestamp,
        })
    }

    /// Everything up to the closing brace. Commas between labels may be missing.
    fn labels_in_braces(&mut self) -> Result<(), ParseError> {
        loop {
            self.skip_blanks();
            let quoted = self.cursor.peek() == Some(b'"');
            let name = match self.cursor.peek() {
                Some(b'}') => {
                    self.cursor.eat(b'}');
                    return Ok(());
                }
                Some(b'"') => self.cursor.take_quoted(true)?,
                _ => self.cursor.take_name(false),
            };
            if name.is_empty() && !quoted {
                return Err(self.cursor.expected("a label name or '}'"));
            }
            self.skip_blanks();
            if self.cursor.eat(b'=') {
                self.skip_blanks();
                if self.cursor.peek() != Some(b'"') {
                    return Err(self
                        .cursor
                        .expected("a quoted label value after the equal sign"));
                }
                let value = self.cursor.take_quoted(true)?;
                self.last.pairs.push((name, value));
            } else if quoted && self.last.name.is_none() {
                if !matches!(self.cursor.peek(), Some(b',' | b'}')) {
                    return Err(self.cursor.expected("',' or '}' after the metric name"));
                }
                self.last.name = Some(name);
            } else {
                return Err(self.cursor.expected("an equal sign after the label name"));
            }
            self.skip_blanks();
            self.cursor.eat(b',');
        }
    }

    fn value(&mut self) -> Result<f64, ParseError> {
        self.skip_blanks();
        let at = self.cursor.position();
        let word = self
            .cursor
            .take_while(|b| !matches!(b, b'{' | b' ' | b'\t' | b'\n'));
        if word.is_empty() {
            return Err(self.cursor.expected("a value"));
        }
        let found = || {
            self.cursor
                .error_at(at, "a number as value", format!("{word:?}"))
        };
        number::parse(word).ok_or_else(found)
    }

    /// An optional timestamp in milliseconds, and the end of the line.
    fn timestamp(&mut self) -> Result<Option<Timestamp>, ParseError> {
        self.skip_blanks();
        if matches!(self.cursor.peek(), None | Some(b'\n')) {
            return Ok(None);
        }
        let at = self.cursor.position();
        self.cursor.take_while(|b| b.is_ascii_digit());
        let word = self.cursor.since(at);
        let Ok(milliseconds) = word.parse() else {
            let line = self.cursor.since(at).to_owned() + self.cursor.take_line();
            let expected = "a timestamp in whole milliseconds or the end of the line";
            return Err(self.cursor.error_at(at, expected, format!("{line:?}")));
        };
        self.skip_blanks();
        match self.cursor.peek() {
            None | Some(b'\n') => Ok(Some(Timestamp(milliseconds))),
            Some(_) => Err(self
                .cursor
                .expected("the end of the line after the timestamp")),
        }
    }
}
