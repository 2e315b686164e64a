//! What one target's scrapes have in common: which series it had last time, and so which got a
//! staleness marker now.
//!
//! A plain state: no clock, no network, no sink. Invariant: a series is taken for present from
//! the moment a batch that holds it may have been stored, until a batch that holds its marker
//! certainly was. So a lost write is followed by one marker too many, never by one too few.

use std::sync::Arc;
use std::time::Duration;

use model::sample::STALE_NAN;
use model::{Batch, Labels, Timestamp, hash, limits};

use super::{FetchError, Fetched, Format, Target, choose_format};
use crate::exposition::{Entry, NotUnique, ParseError, Parser};
use crate::{openmetrics, relabel, text};

/// Why a scrape failed as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScrapeError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("{0}")]
    ContentType(String),
    #[error(transparent)]
    Parse(#[from] ParseError),
    #[error(transparent)]
    NotUnique(#[from] NotUnique),
    #[error("missing metric name (__name__ label)")]
    NoName,
    /// More than a limit of the job or of the store allows.
    #[error("{0}")]
    Limit(String),
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
    present: hash::Set<Labels>,
    /// What `present` becomes when the last batch is known to be stored.
    pending: Option<hash::Set<Labels>>,
    reported: bool,
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
    tracked: hash::Set<Labels>,
    scraped: usize,
    post_relabeling: usize,
    added: usize,
}

impl Scrape {
    pub fn new(target: Arc<Target>) -> Self {
        Self {
            target,
            scrapes: 0,
            lines: hash::Map::default(),
            present: hash::Set::default(),
            pending: None,
            reported: false,
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
        let mut reading = Reading::default();
        let read = match fetched {
            Ok(fetched) => self.read(scraped_at, &fetched, &mut reading),
            Err(e) => Err(e.into()),
        };
        let error = read.err();
        if error.is_some() {
            reading.batch = Batch::default();
            reading.tracked.clear();
        }
        let mut batch = reading.batch;
        for gone in self.present.difference(&reading.tracked) {
            batch.add_sample(gone.clone(), scraped_at, STALE_NAN);
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
    }

    /// The last batch may or may not be stored: whatever was or may be present stays so.
    pub fn lost(&mut self) {
        self.present
            .extend(self.pending.take().into_iter().flatten());
    }

    /// Markers for everything: the target is gone for good.
    pub fn end(&mut self, at: Timestamp) -> Batch {
        self.lost();
        let mut batch = Batch::default();
        for labels in self.present.drain() {
            batch.add_sample(labels, at, STALE_NAN);
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
        let format = choose_format(&fetched.content_type, self.target.fallback_protocol)
            .map_err(ScrapeError::ContentType)?;
        let mut parser = match format {
            Format::Text => Parser::Text(text::Parser::new(&fetched.body)?),
            Format::OpenMetrics => Parser::OpenMetrics(openmetrics::Parser::new(&fetched.body)?),
        };
        let samples_max = match self.target.limits.samples {
            0 => usize::MAX,
            samples => samples,
        };
        let mut samples = 0;
        while let Some(entry) = parser.next_entry()? {
            let Entry::Sample(line) = entry else { continue };
            reading.scraped += 1;
            let (labels, is_new) = self.labels_of(line.series, &parser)?;
            let Some(labels) = labels else { continue };
            reading.post_relabeling += 1;
            let timestamp = line.timestamp.filter(|_| self.target.honor_timestamps);
            if timestamp.is_none() && !reading.seen.insert(labels.clone()) {
                continue;
            }
            samples += 1;
            // Beyond the limit only counting goes on, so that the report tells by how much.
            if samples > samples_max {
                self.lines.remove(line.series);
                continue;
            }
            reading.added += usize::from(is_new);
            if timestamp.is_none() || self.target.track_timestamps_staleness {
                reading.tracked.insert(labels.clone());
            }
            reading
                .batch
                .add_sample(labels, timestamp.unwrap_or(scraped_at), line.value);
        }
        if samples > samples_max {
            return Err(ScrapeError::Limit("sample limit exceeded".to_owned()));
        }
        if !fetched.body.is_empty() {
            self.lines.retain(|_, line| line.seen == self.scrapes);
        }
        Ok(())
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
        let labels = stored_labels(&self.target, &parser.labels()?, |name| {
            parser.sets_empty(name)
        });
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
