//! The body of a push: text format into families, by the rules of client libraries' own parser
//! (`expfmt.TextParser`), which differ from a scraper's: `#TYPE` without a blank counts, samples
//! join the histogram or summary their suffix names, a type comes before its samples and once,
//! the last line must end.

use model::group::{Family, FamilyKind, GroupingKey};
use model::quote::quote_bytes;
use model::{hash, limits, number};

use super::check::{self, Building, Metric, Value};
use super::{Names, PushError, Rules};

/// Parses a body pushed to the group of `key`. The families carry the group's labels in place of
/// their own of the same names, and no name twice; `le` and `quantile` are in float form, every
/// histogram has its `+Inf` bucket, every histogram and summary its sum and count, as a scrape of
/// the original would have stored them.
pub fn parse(
    body: &[u8],
    key: &GroupingKey,
    rules: impl Into<Rules>,
) -> Result<Vec<Family>, PushError> {
    let rules = rules.into();
    let mut parser = Parser::new(body, rules.names);
    parser.read()?;
    if parser.timestamps {
        return Err(PushError::Timestamps);
    }
    check::finish(parser.families, key, rules.unchecked)
}

/// The families of a body as they stand there.
pub(super) fn buildings(body: &[u8]) -> Result<Vec<Building>, PushError> {
    let mut parser = Parser::new(body, Names::Utf8);
    parser.read()?;
    Ok(parser.families)
}

/// What of a histogram or summary a sample's name means.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Whole,
    Sum,
    Count,
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    line: usize,
    names: Names,
    families: Vec<Building>,
    by_name: hash::Map<String, usize>,
    timestamps: bool,
    /// Lines of samples so far.
    samples: usize,
}

/// One sample line while it is read.
struct Line {
    family: Option<(usize, Part)>,
    labels: Vec<(String, String)>,
    bound: Option<f64>,
}

type Step<T = ()> = Result<T, String>;

impl<'a> Parser<'a> {
    fn new(bytes: &'a [u8], names: Names) -> Self {
        Self {
            bytes,
            at: 0,
            line: 0,
            names,
            families: Vec::new(),
            by_name: hash::Map::default(),
            timestamps: false,
            samples: 0,
        }
    }
}

impl Parser<'_> {
    fn read(&mut self) -> Result<(), PushError> {
        self.run().map_err(|reason| PushError::Format {
            line: self.line,
            reason,
        })
    }

    fn run(&mut self) -> Step {
        loop {
            self.line += 1;
            self.skip_blanks();
            match self.bytes.get(self.at) {
                None => return Ok(()),
                Some(b'\n') => {}
                Some(b'#') => self.comment()?,
                Some(_) => self.sample()?,
            }
            self.at += 1;
        }
    }

    /// Every reader below leaves off at a byte it has not taken; lines end on their newline.
    fn peek(&self) -> Step<u8> {
        let end = || "unexpected end of input stream".to_owned();
        self.bytes.get(self.at).copied().ok_or_else(end)
    }

    fn skip_blanks(&mut self) {
        self.take_while(|b| b == b' ' || b == b'\t');
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &[u8] {
        let start = self.at;
        let rest = self.bytes.get(start..).unwrap_or_default();
        let len = rest.iter().position(|&b| !wanted(b)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// Up to the next blank or the end of the line, which must be there.
    fn word(&mut self) -> Step<Vec<u8>> {
        let word = self
            .take_while(|b| !matches!(b, b' ' | b'\t' | b'\n'))
            .to_vec();
        self.peek().map(|_| word)
    }

    fn comment(&mut self) -> Step {
        self.at += 1;
        self.skip_blanks();
        let keyword = self.word()?;
        let known = keyword == b"HELP" || keyword == b"TYPE";
        if !known || self.peek()? == b'\n' {
            self.take_while(|b| b != b'\n');
            return self.peek().map(drop);
        }
        self.skip_blanks();
        self.peek()?;
        let name = self.name("metric", true)?;
        match self.peek()? {
            b'\n' => return Ok(()),
            b' ' | b'\t' => {}
            _ => return Err("invalid metric name in comment".to_owned()),
        }
        let (family, _) = self.family(name)?;
        self.skip_blanks();
        if self.peek()? == b'\n' {
            return Ok(());
        }
        match keyword == b"HELP" {
            true => self.help(family),
            false => self.kind(family),
        }
    }

    fn help(&mut self, family: usize) -> Step {
        if self.families[family].help.is_some() {
            let name = quote_bytes(&self.families[family].name);
            return Err(format!("second HELP line for metric name {name}"));
        }
        let help = self.escaped(|b| b == b'\n')?;
        let not_text = |e: std::string::FromUtf8Error| {
            format!("docstring {} is not UTF-8", quote_bytes(e.as_bytes()))
        };
        self.families[family].help = Some(String::from_utf8(help).map_err(not_text)?);
        Ok(())
    }

    fn kind(&mut self, family: usize) -> Step {
        let name = &self.families[family].name;
        if self.families[family].kind.is_some() {
            return Err(format!(
                "second TYPE line for metric name {}, or TYPE reported after samples",
                quote_bytes(name)
            ));
        }
        let word = self.take_while(|b| b != b'\n').to_vec();
        self.peek()?;
        let kind = match word.to_ascii_lowercase().as_slice() {
            b"counter" => FamilyKind::Counter,
            b"gauge" => FamilyKind::Gauge,
            b"histogram" | b"gauge_histogram" => FamilyKind::Histogram,
            b"summary" => FamilyKind::Summary,
            b"untyped" => FamilyKind::Untyped,
            _ => return Err(format!("unknown metric type {}", quote_bytes(word))),
        };
        self.families[family].kind = Some(kind);
        Ok(())
    }

    /// A name as it stands, or in quotes; empty when none stands here.
    fn name(&mut self, what: &str, colon: bool) -> Step<String> {
        let bytes = match self.peek()? {
            b'"' => {
                self.at += 1;
                let name = self.escaped(|b| b == b'"' || b == b'\n')?;
                if self.peek()? == b'\n' {
                    let name = quote_bytes(name);
                    return Err(format!("{what} name {name} contains unescaped new-line"));
                }
                self.at += 1;
                name
            }
            b if b.is_ascii_alphabetic() || b == b'_' || (colon && b == b':') => self
                .take_while(|b| b.is_ascii_alphanumeric() || b == b'_' || (colon && b == b':'))
                .to_vec(),
            _ => Vec::new(),
        };
        self.peek()?;
        String::from_utf8(bytes)
            .map_err(|e| format!("invalid {what} name {}", quote_bytes(e.as_bytes())))
    }

    /// Up to a byte that ends it, escapes undone.
    fn escaped(&mut self, ends: impl Fn(u8) -> bool) -> Step<Vec<u8>> {
        let mut text = Vec::new();
        loop {
            text.extend_from_slice(self.take_while(|b| b != b'\\' && !ends(b)));
            if self.peek()? != b'\\' {
                return Ok(text);
            }
            self.at += 1;
            text.push(match self.peek()? {
                b'n' => b'\n',
                b @ (b'"' | b'\\') => b,
                b => return Err(format!("invalid escape sequence '\\{}'", char::from(b))),
            });
            self.at += 1;
        }
    }

    /// The family a name belongs to, made when there is none.
    fn family(&mut self, name: String) -> Step<(usize, Part)> {
        if !self.names.allow_metric(&name) {
            return Err(format!("invalid metric name {}", quote_bytes(name)));
        }
        check_length("metric name", &name)?;
        if let Some(&family) = self.by_name.get(&name) {
            return Ok((family, Part::Whole));
        }
        let suffixes = [
            ("_count", Part::Count),
            ("_sum", Part::Sum),
            ("_bucket", Part::Whole),
        ];
        for (suffix, part) in suffixes {
            let stem = name.strip_suffix(suffix).filter(|stem| !stem.is_empty());
            let Some(&family) = stem.and_then(|stem| self.by_name.get(stem)) else {
                continue;
            };
            match self.families[family].kind {
                Some(FamilyKind::Histogram) => return Ok((family, part)),
                Some(FamilyKind::Summary) if suffix != "_bucket" => return Ok((family, part)),
                _ => {}
            }
        }
        self.check_size()?;
        let family = self.families.len();
        self.by_name.insert(name.clone(), family);
        self.families.push(Building::new(name));
        Ok((family, Part::Whole))
    }

    fn sample(&mut self) -> Step {
        self.samples += 1;
        self.check_size()?;
        let mut line = Line {
            family: None,
            labels: Vec::new(),
            bound: None,
        };
        if self.peek()? != b'{' {
            let name = self.name("metric", true)?;
            if name.is_empty() {
                return Err("invalid metric name".to_owned());
            }
            self.begin(&mut line, name)?;
            self.skip_blanks();
        }
        if self.peek()? == b'{' {
            let inside = line.family.is_none();
            self.labels(&mut line, inside)?;
            self.skip_blanks();
            self.peek()?;
        }
        let Some((family, part)) = line.family else {
            return Err("invalid metric name".to_owned());
        };
        let word = self.word()?;
        let value = parse_number(&word)
            .ok_or_else(|| format!("expected float as value, got {}", quote_bytes(word)))?;
        self.timestamp()?;
        self.families[family].put(line.labels, line.bound, value, part)
    }

    fn check_size(&self) -> Step {
        let max = limits::PUSH_SAMPLES_MAX;
        match self.samples + self.families.len() > max {
            true => Err(format!("more than {max} samples and families")),
            false => Ok(()),
        }
    }

    fn begin(&mut self, line: &mut Line, name: String) -> Step {
        let (family, part) = self.family(name)?;
        self.families[family].kind.get_or_insert_default();
        line.family = Some((family, part));
        Ok(())
    }

    /// The family's name for messages; empty while a name in braces is still to come.
    fn family_name(&self, line: &Line) -> &str {
        line.family
            .map_or("", |(family, _)| &self.families[family].name)
    }

    /// Everything in braces. `inside` says that the metric's name stands among the labels.
    fn labels(&mut self, line: &mut Line, inside: bool) -> Step {
        self.at += 1;
        loop {
            self.skip_blanks();
            if self.peek()? == b'}' {
                self.at += 1;
                return Ok(());
            }
            let name = self.name("label", false)?;
            if name.is_empty() {
                let family = quote_bytes(self.family_name(line));
                return Err(format!("invalid label name for metric {family}"));
            }
            self.skip_blanks();
            match self.peek()? {
                b'=' => self.label(line, name)?,
                found if !inside => {
                    let found = char::from(found);
                    return Err(format!("expected '=' after label name, found {found:?}"));
                }
                _ if line.family.is_some() => {
                    let family = quote_bytes(self.family_name(line));
                    return Err(format!("multiple metric names for metric {family}"));
                }
                b',' | b'}' => self.begin(line, name)?,
                found => {
                    let found = char::from(found);
                    return Err(format!("unexpected end of metric name {found:?}"));
                }
            }
            if self.peek()? == b',' {
                self.at += 1;
            }
        }
    }

    /// `="value"` and what may follow it.
    fn label(&mut self, line: &mut Line, name: String) -> Step {
        if name == model::labels::METRIC_NAME {
            return Err(format!("label name {} is reserved", quote_bytes(name)));
        }
        if !self.names.allow_label(&name) {
            return Err(format!("invalid label name {}", quote_bytes(name)));
        }
        check_length("label name", &name)?;
        let bound_label = line
            .family
            .and_then(|(f, _)| self.families[f].bound_label());
        let is_bound = bound_label == Some(name.as_str());
        if !is_bound && line.labels.iter().any(|(n, _)| *n == name) {
            let family = quote_bytes(self.family_name(line));
            return Err(format!("duplicate label names for metric {family}"));
        }
        let value = self.label_value()?;
        if is_bound {
            line.bound = Some(parse_number(value.as_bytes()).ok_or_else(|| {
                let value = quote_bytes(&value);
                format!("expected float as value for '{name}' label, got {value}")
            })?);
        } else {
            line.labels.push((name, value.clone()));
        }
        if line.labels.len() > limits::LABELS_MAX {
            return Err(format!("more than {} labels", limits::LABELS_MAX));
        }
        self.skip_blanks();
        match self.peek()? {
            b',' | b'}' => Ok(()),
            _ => Err(format!(
                "unexpected end of label value {}",
                quote_bytes(value)
            )),
        }
    }

    fn label_value(&mut self) -> Step<String> {
        self.at += 1;
        self.skip_blanks();
        let found = self.peek()?;
        if found != b'"' {
            let found = char::from(found);
            return Err(format!(
                "expected '\"' at start of label value, found {found:?}"
            ));
        }
        self.at += 1;
        let value = self.escaped(|b| b == b'"' || b == b'\n')?;
        if self.peek()? == b'\n' {
            let value = quote_bytes(value);
            return Err(format!("label value {value} contains unescaped new-line"));
        }
        self.at += 1;
        self.peek()?;
        let value = String::from_utf8(value)
            .map_err(|e| format!("invalid label value {}", quote_bytes(e.as_bytes())))?;
        check_length("label value", &value)?;
        Ok(value)
    }

    /// The rest of a sample line. A timestamp must be right before it is refused.
    fn timestamp(&mut self) -> Step {
        if self.peek()? == b'\n' {
            return Ok(());
        }
        self.skip_blanks();
        let word = self.word()?;
        let text = String::from_utf8_lossy(&word);
        if text.parse::<i64>().is_err() {
            let word = quote_bytes(&word);
            return Err(format!("expected integer as timestamp, got {word}"));
        }
        let rest = self.take_while(|b| b != b'\n').to_vec();
        self.peek()?;
        if !rest.is_empty() {
            let rest = quote_bytes(rest);
            return Err(format!("spurious string after timestamp: {rest}"));
        }
        self.timestamps = true;
        Ok(())
    }
}

impl Building {
    /// Adds a sample; those of one histogram or summary gather in one metric.
    fn put(
        &mut self,
        labels: Vec<(String, String)>,
        bound: Option<f64>,
        value: f64,
        part: Part,
    ) -> Step {
        let kind = self.kind.unwrap_or_default();
        if !matches!(kind, FamilyKind::Histogram | FamilyKind::Summary) {
            self.metrics.push(Metric::new(labels, Value::Single(value)));
            return Ok(());
        }
        let histogram = kind == FamilyKind::Histogram;
        if histogram && part == Part::Count && value < 0.0 {
            return Err(format!(
                "negative count for histogram {}",
                quote_bytes(&self.name)
            ));
        }
        let bound = bound.filter(|bound| !bound.is_nan());
        let takes_bound = part == Part::Whole && bound.is_some();
        if histogram && takes_bound && value < 0.0 {
            let name = quote_bytes(&self.name);
            return Err(format!("negative bucket population for histogram {name}"));
        }
        let (bounds, sum, count) = self.compound(labels);
        match (part, bound) {
            (Part::Sum, _) => *sum = value,
            (Part::Count, _) if histogram => *count = value,
            // A summary counts in whole numbers.
            (Part::Count, _) => *count = value.trunc().max(0.0),
            (Part::Whole, Some(bound)) => bounds.push((bound, value)),
            (Part::Whole, None) => {}
        }
        Ok(())
    }
}

fn parse_number(word: &[u8]) -> Option<f64> {
    number::parse(std::str::from_utf8(word).ok()?)
}

fn check_length(what: &str, text: &str) -> Step {
    let (bytes, max) = (text.len(), limits::LABEL_BYTES_MAX);
    match bytes > max {
        true => Err(format!("{what} of {bytes} bytes, the limit is {max}")),
        false => Ok(()),
    }
}
