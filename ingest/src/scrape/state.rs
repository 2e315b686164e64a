//! What one target's scrapes have in common: which series it had last time, and so which got a
//! staleness marker now.
//!
//! A plain state: no clock, no network, no sink. Invariant: a series is taken for present from
//! the moment a batch that holds it may have been stored, until a batch that holds its marker
//! certainly was. So a lost write is followed by one marker too many, never by one too few.

use std::sync::Arc;
use std::time::Duration;

use model::labels::is_legacy_name;
use model::sample::STALE_NAN;
use model::{Batch, Exemplar, Histogram, Labels, Timestamp, Value, hash, limits};

use super::metadata::MetadataCell;
use super::unstamped::{Newest, Unstamped};
use super::{FetchError, Fetched, Format, Target, choose_format};
use crate::exposition::{BodyError, Entry, NotUnique, ParseError, Parser};
use crate::histogram::buckets::{TooManyBuckets, limit_buckets, reduce_resolution};
use crate::histogram::check::check as check_histogram;
use crate::histogram::convert::Converter;
use crate::typed::typed;
use crate::{exemplar, openmetrics, protobuf, relabel, text};

/// Why a scrape failed as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScrapeError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("{0}")]
    ContentType(String),
    #[error(transparent)]
    Parse(#[from] BodyError),
    #[error(transparent)]
    NotUnique(#[from] NotUnique),
    #[error("missing metric name (__name__ label)")]
    NoName,
    #[error("invalid metric name or label names: {0}")]
    BadName(Labels),
    #[error("{0}")]
    Histogram(String),
    /// More than a limit of the job or of the store allows.
    #[error("{0}")]
    Limit(String),
}

impl From<ParseError> for ScrapeError {
    fn from(error: ParseError) -> Self {
        Self::Parse(error.into())
    }
}

/// What one scrape comes to.
#[derive(Debug, Default, PartialEq)]
pub struct Ingested {
    /// Samples, staleness markers and the target's own series (`up` and so on).
    pub batch: Batch,
    pub error: Option<ScrapeError>,
    pub samples_scraped: usize,
    pub samples_post_relabeling: usize,
    pub series_added: usize,
}

/// The series every scrape of a target writes about itself.
const REPORT_SERIES: [&str; 5] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
];

/// The scrapes of one target.
#[derive(Debug)]
pub struct Scrape {
    target: Arc<Target>,
    scrapes: u64,
    /// Sample lines of the last good scrape, by their name and labels as text.
    lines: hash::Map<Box<str>, Line>,
    /// Series that will need a marker when they vanish.
    present: hash::Map<Labels, Kind>,
    /// What `present` becomes when the last batch is known to be stored.
    pending: Option<hash::Map<Labels, Kind>>,
    reported: bool,
    metadata: MetadataCell,
    unstamped: Unstamped,
}

/// What a series holds, so that its marker is of the same kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Float,
    Histogram { is_integer: bool },
}

impl Kind {
    fn of(value: &Value) -> Self {
        match value {
            Value::Float(_) => Self::Float,
            Value::Histogram(histogram) => Self::Histogram {
                is_integer: histogram.is_integer,
            },
        }
    }

    fn marker(self) -> Value {
        match self {
            Self::Float => Value::Float(STALE_NAN),
            Self::Histogram { is_integer } => Value::Histogram(Arc::new(Histogram {
                is_integer,
                sum: STALE_NAN,
                ..Histogram::default()
            })),
        }
    }
}

#[derive(Debug)]
struct Line {
    /// As stored; `None` when relabelling drops it.
    labels: Option<Labels>,
    seen: u64,
}

/// A body while it is read.
#[derive(Default)]
struct Reading {
    batch: Batch,
    /// Series without a timestamp of their own.
    seen: hash::Set<Labels>,
    /// Series that need a marker when they vanish.
    tracked: hash::Map<Labels, Kind>,
    scraped: usize,
    post_relabeling: usize,
    added: usize,
    /// Samples and histograms that count for the job's limit.
    samples: usize,
    too_many_buckets: bool,
    /// What histograms and exemplars take so far.
    memory_bytes: usize,
    unstamped: Newest,
}

impl Reading {
    fn count_memory(&mut self, bytes: usize) -> Result<(), ScrapeError> {
        self.memory_bytes += bytes;
        let max = limits::WRITE_MEMORY_BYTES_MAX;
        match self.memory_bytes > max {
            true => Err(ScrapeError::Limit(format!(
                "histograms and exemplars of more than {max} bytes in memory"
            ))),
            false => Ok(()),
        }
    }
}

fn add(batch: &mut Batch, labels: Labels, at: Timestamp, value: Value) -> u32 {
    let series = batch.add_series(labels);
    match value {
        Value::Float(value) => batch.rows.push(series, at, value),
        Value::Histogram(histogram) => batch.rows.push_histogram(series, at, histogram),
    }
    series
}

impl Scrape {
    /// What the target says of its metrics goes to `metadata`.
    pub fn new(target: Arc<Target>, metadata: MetadataCell) -> Self {
        Self {
            target,
            scrapes: 0,
            lines: hash::Map::default(),
            present: hash::Map::default(),
            pending: None,
            reported: false,
            metadata,
            unstamped: Unstamped::default(),
        }
    }

    /// Turns the outcome of a fetch into what is to be stored. Afterwards call
    /// [`Scrape::written`] once it is; anything else counts as lost.
    pub fn ingest(
        &mut self,
        scraped_at: Timestamp,
        duration: Duration,
        fetched: Result<Fetched, FetchError>,
    ) -> Ingested {
        self.lost();
        self.scrapes += 1;
        self.metadata.begin();
        let mut reading = Reading::default();
        let read = match fetched {
            Ok(fetched) => self.read(scraped_at, &fetched, &mut reading),
            Err(e) => Err(e.into()),
        };
        let error = read.err();
        if error.is_some() {
            reading.batch = Batch::default();
            reading.tracked.clear();
        } else {
            self.unstamped.sent(reading.unstamped);
        }
        let mut batch = reading.batch;
        for (gone, kind) in &self.present {
            if !reading.tracked.contains_key(gone) {
                add(&mut batch, gone.clone(), scraped_at, kind.marker());
            }
        }
        let values = [
            f64::from(u8::from(error.is_none())),
            duration.as_secs_f64(),
            reading.scraped as f64,
            reading.post_relabeling as f64,
            reading.added as f64,
        ];
        for (name, value) in REPORT_SERIES.into_iter().zip(values) {
            batch.add_sample(self.report_labels(name), scraped_at, value);
        }
        self.pending = Some(reading.tracked);
        self.reported = true;
        Ingested {
            batch,
            error,
            samples_scraped: reading.scraped,
            samples_post_relabeling: reading.post_relabeling,
            series_added: reading.added,
        }
    }

    /// The last batch is stored.
    pub fn written(&mut self) {
        if let Some(present) = self.pending.take() {
            self.present = present;
        }
        self.unstamped.written();
    }

    /// The last batch may or may not be stored: whatever was or may be present stays so.
    pub fn lost(&mut self) {
        self.present
            .extend(self.pending.take().into_iter().flatten());
        self.unstamped.lost();
    }

    /// Markers for everything: the target is gone for good.
    pub fn end(&mut self, at: Timestamp) -> Batch {
        self.lost();
        let mut batch = Batch::default();
        for (labels, kind) in self.present.drain() {
            add(&mut batch, labels, at, kind.marker());
        }
        if std::mem::take(&mut self.reported) {
            for name in REPORT_SERIES {
                batch.add_sample(self.report_labels(name), at, STALE_NAN);
            }
        }
        self.lines.clear();
        batch
    }

    fn report_labels(&self, name: &str) -> Labels {
        let mut labels = self.target.labels.to_builder();
        labels.set(model::labels::METRIC_NAME, name).build()
    }

    fn read(
        &mut self,
        scraped_at: Timestamp,
        fetched: &Fetched,
        reading: &mut Reading,
    ) -> Result<(), ScrapeError> {
        let mut parser = self.parser(fetched)?;
        while let Some(entry) = parser.next_entry()? {
            let (series, value, timestamp) = match entry {
                Entry::Sample(line) => (line.series, Value::Float(line.value), line.timestamp),
                Entry::Histogram(line) => {
                    let value = Value::Histogram(Arc::new(line.histogram));
                    (line.series, value, line.timestamp)
                }
                entry => {
                    self.metadata.note(&entry);
                    continue;
                }
            };
            reading.scraped += 1;
            let is_float = matches!(value, Value::Float(_));
            if !is_float && !self.target.histograms.native {
                continue;
            }
            let (labels, is_new) = self.labels_of(&series, &parser)?;
            let Some(labels) = labels else { continue };
            let timestamp = timestamp.filter(|_| self.target.honor_timestamps);
            let at = timestamp.unwrap_or(scraped_at);
            if timestamp.is_none() && !reading.seen.insert(labels.clone()) {
                reading.post_relabeling += 1;
                continue;
            }
            let admitted = self.admit(value, reading)?;
            reading.post_relabeling += 1;
            let Some(value) = admitted else {
                // Beyond a limit only counting goes on, so that the report tells by how much.
                self.lines.remove(&*series);
                continue;
            };
            reading.added += usize::from(is_new);
            if timestamp.is_none() || self.target.track_timestamps_staleness {
                reading.tracked.insert(labels.clone(), Kind::of(&value));
            }
            let series = add(&mut reading.batch, labels, at, value);
            self.add_exemplars(&parser, series, at, is_float, reading)?;
        }
        if reading.samples > self.samples_max() {
            return Err(ScrapeError::Limit("sample limit exceeded".to_owned()));
        }
        if reading.too_many_buckets {
            return Err(ScrapeError::Limit(TooManyBuckets.to_string()));
        }
        if !fetched.body.is_empty() {
            self.lines.retain(|_, line| line.seen == self.scrapes);
            self.metadata.forget();
        }
        Ok(())
    }

    /// Adds what the entry read last has of exemplars. One without a time of its own gets that of
    /// its sample, once; that of a histogram is dropped, as its repetition could not be told.
    fn add_exemplars(
        &self,
        parser: &Parser<'_>,
        series: u32,
        at: Timestamp,
        is_float: bool,
        reading: &mut Reading,
    ) -> Result<(), ScrapeError> {
        let mut exemplars = parser.exemplars();
        exemplars.retain(|seen| is_float || seen.timestamp.is_some());
        exemplars.sort_by(|a, b| {
            let by_time = a.timestamp.cmp(&b.timestamp);
            let by_value = by_time.then(a.value.total_cmp(&b.value));
            by_value.then_with(|| a.labels.cmp(&b.labels))
        });
        let of = &reading.batch.series[series as usize];
        let news = self.unstamped.news(of, exemplars, &mut reading.unstamped);
        for seen in news {
            let exemplar = Exemplar {
                labels: seen.labels,
                value: seen.value,
                timestamp: seen.timestamp.unwrap_or(at),
            };
            reading.count_memory(exemplar::size(&exemplar))?;
            reading.batch.exemplars.push((series, exemplar));
        }
        Ok(())
    }

    fn parser<'a>(&self, fetched: &'a Fetched) -> Result<Parser<'a>, ScrapeError> {
        let body = &fetched.body;
        let histograms = self.target.histograms;
        let format = choose_format(&fetched.content_type, self.target.fallback_protocol)
            .map_err(ScrapeError::ContentType)?;
        let parser = match format {
            Format::Text => Parser::Text(text::Parser::new(body)?),
            Format::OpenMetrics => Parser::OpenMetrics(openmetrics::Parser::new(body)?),
            Format::Protobuf => {
                let parser = protobuf::Parser::new(body, histograms.keep_classic);
                Parser::Protobuf(Box::new(parser))
            }
        };
        if !(histograms.convert_classic && histograms.native) {
            return Ok(parser);
        }
        let converter = Converter::new(parser, histograms.keep_classic);
        Ok(Parser::Converter(Box::new(converter)))
    }

    fn samples_max(&self) -> usize {
        match self.target.limits.samples {
            0 => usize::MAX,
            samples => samples,
        }
    }

    /// The value as it is stored; `None` beyond a limit of the job.
    fn admit(&self, value: Value, reading: &mut Reading) -> Result<Option<Value>, ScrapeError> {
        let value = match value {
            Value::Histogram(histogram) => match self.admit_histogram(&histogram) {
                Ok(histogram) => {
                    reading.count_memory(histogram.size())?;
                    Value::Histogram(Arc::new(histogram))
                }
                Err(NotAdmitted::TooManyBuckets) => {
                    reading.too_many_buckets = true;
                    return Ok(None);
                }
                Err(NotAdmitted::Invalid(why)) => return Err(ScrapeError::Histogram(why)),
            },
            float => float,
        };
        reading.samples += 1;
        Ok((reading.samples <= self.samples_max()).then_some(value))
    }

    fn admit_histogram(&self, histogram: &Histogram) -> Result<Histogram, NotAdmitted> {
        let settings = self.target.histograms;
        check_histogram(histogram).map_err(NotAdmitted::Invalid)?;
        let mut histogram = histogram.clone();
        reduce_resolution(&mut histogram, settings.schema_max);
        if settings.buckets_max > 0 {
            limit_buckets(&mut histogram, settings.buckets_max)?;
        }
        let buckets = histogram.positive_buckets.len() + histogram.negative_buckets.len();
        if buckets > limits::HISTOGRAM_SENT_BYTES_MAX {
            let max = limits::HISTOGRAM_SENT_BYTES_MAX;
            let why = format!("a histogram of {buckets} buckets, the limit is {max}");
            return Err(NotAdmitted::Invalid(why));
        }
        Ok(histogram)
    }

    /// The labels a sample line is stored under, from memory where the line was there before, and
    /// whether it is new.
    fn labels_of(
        &mut self,
        series: &str,
        parser: &Parser<'_>,
    ) -> Result<(Option<Labels>, bool), ScrapeError> {
        if let Some(line) = self.lines.get_mut(series) {
            line.seen = self.scrapes;
            return Ok((line.labels.clone(), false));
        }
        let mut exposed = parser.labels()?;
        if self.target.type_and_unit_labels {
            let (kind, unit) = parser.kind_and_unit();
            exposed = typed(exposed, kind, unit);
        }
        let labels = stored_labels(&self.target, &exposed, |name| parser.sets_empty(name));
        if let Some(labels) = &labels {
            check(&self.target, labels)?;
        }
        let line = Line {
            labels: labels.clone(),
            seen: self.scrapes,
        };
        self.lines.insert(series.into(), line);
        Ok((labels, true))
    }
}

/// Why a histogram is not stored.
enum NotAdmitted {
    TooManyBuckets,
    Invalid(String),
}

impl From<TooManyBuckets> for NotAdmitted {
    fn from(_: TooManyBuckets) -> Self {
        Self::TooManyBuckets
    }
}

/// The exposed labels joined with the target's and relabelled. Where both name a label, the
/// target's wins and the exposed one moves to `exported_…`, or the other way round for a job
/// that honours labels; there an exposed empty value counts too.
fn stored_labels(
    target: &Target,
    exposed: &Labels,
    sets_empty: impl Fn(&str) -> bool,
) -> Option<Labels> {
    let mut labels = exposed.to_builder();
    let mut moved = Vec::new();
    for (name, value) in &target.labels {
        match exposed.get(name) {
            None if target.honor_labels && sets_empty(name) => {}
            Some(_) if target.honor_labels => {}
            conflict => {
                moved.extend(conflict.map(|exposed| (name, exposed)));
                labels.set(name, value);
            }
        }
    }
    moved.sort_by_key(|(name, _)| name.len());
    for (name, value) in moved {
        let mut name = format!("exported_{name}");
        while labels.get(&name).is_some() {
            name.insert_str(0, "exported_");
        }
        labels.set(&name, value);
    }
    relabel::apply(&target.metric_relabel, &mut labels).then(|| labels.build())
}

/// The job's limits and the store's; one series beyond them fails the scrape.
fn check(target: &Target, labels: &Labels) -> Result<(), ScrapeError> {
    let name = labels.metric_name();
    if name.is_empty() {
        return Err(ScrapeError::NoName);
    }
    if target.names.legacy && !is_legacy(labels) {
        return Err(ScrapeError::BadName(labels.clone()));
    }
    let limit = |own: usize, store: usize| if own == 0 { store } else { own.min(store) };
    let limits = &target.limits;
    let metric: String = name.chars().take(50).collect();
    let (count, max) = (labels.len(), limit(limits.labels, limits::LABELS_MAX));
    if count > max {
        return Err(ScrapeError::Limit(format!(
            "label_limit exceeded (metric: {metric}, number of labels: {count}, limit: {max})"
        )));
    }
    let name_max = limit(limits.label_name_bytes, limits::LABEL_BYTES_MAX);
    let value_max = limit(limits.label_value_bytes, limits::LABEL_BYTES_MAX);
    for (name, value) in labels {
        let label: String = name.chars().take(50).collect();
        let shown: String = value.chars().take(50).collect();
        if name.len() > name_max {
            let bytes = name.len();
            return Err(ScrapeError::Limit(format!(
                "label_name_length_limit exceeded (metric: {metric}, label name: {label}, \
                 length: {bytes}, limit: {name_max})"
            )));
        }
        if value.len() > value_max {
            let bytes = value.len();
            return Err(ScrapeError::Limit(format!(
                "label_value_length_limit exceeded (metric: {metric}, label name: {label}, \
                 value: {shown:?}, length: {bytes}, limit: {value_max})"
            )));
        }
    }
    Ok(())
}

/// Whether the metric's and every label's name is one of before UTF-8.
fn is_legacy(labels: &Labels) -> bool {
    let mut names = labels.iter().map(|(name, _)| name);
    is_legacy_name(labels.metric_name(), true) && names.all(|name| is_legacy_name(name, false))
}
