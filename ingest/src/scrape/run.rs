//! The loop of one target: wait, fetch, ingest, store, tell.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::batch::Fence;
use model::port::Clock;
use model::sink::{Reason, Sink, Written};
use model::{Batch, Timestamp};
use tokio::sync::watch;
use tracing::{debug, warn};

use super::{Fetch, FetchError, MetadataCell, Scrape, ScrapeError, Target};
use crate::metrics::{Metrics, Outcome};

/// Whether a loop goes on; watched by it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    #[default]
    Run,
    /// The target is gone from discovery or configuration: its series end here.
    TargetGone,
    /// Another node scrapes it from now on: its series go on there, without a marker between.
    LeaseMoved,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    #[default]
    Unknown,
    Up,
    Down,
}

impl Health {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A target as the targets page shows it.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Status {
    pub health: Health,
    pub last_error: Option<String>,
    pub last_scrape: Option<Timestamp>,
    pub last_duration: Duration,
    pub samples_scraped: usize,
}

/// A [`Status`] that a loop writes and a page reads. Clones share it.
#[derive(Debug, Default, Clone)]
pub struct StatusCell(Arc<Mutex<Status>>);

impl StatusCell {
    pub fn get(&self) -> Status {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, status: Status) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

/// Everything the loop of one target needs.
pub struct Loop {
    pub target: Arc<Target>,
    pub fetch: Arc<dyn Fetch>,
    pub sink: Arc<dyn Sink>,
    pub clock: Arc<dyn Clock>,
    /// Where in each interval the target is scraped; see [`Target::offset`].
    pub offset: Duration,
    /// The lease under which this node scrapes; `None` while it holds none: nothing is scraped.
    pub fence: Box<dyn Fn() -> Option<Fence> + Send + Sync>,
    pub status: StatusCell,
    pub metadata: MetadataCell,
    pub metrics: Metrics,
}

impl Loop {
    /// Scrapes until told to stop; a dropped sender counts as a lease that moved.
    pub async fn run(self, mut stop: watch::Receiver<Stop>) {
        let mut scrape = Scrape::new(self.target.clone(), self.metadata.clone());
        let mut last_due = None;
        let end = tokio::select! {
            biased;
            end = stop.wait_for(|stop| *stop != Stop::Run) => {
                end.map_or(Stop::LeaseMoved, |stop| *stop)
            }
            never = self.scrape_forever(&mut scrape, &mut last_due) => match never {},
        };
        if end == Stop::TargetGone {
            self.end(&mut scrape, last_due).await;
        }
    }

    async fn scrape_forever(
        &self,
        scrape: &mut Scrape,
        last_due: &mut Option<Timestamp>,
    ) -> std::convert::Infallible {
        let interval_ms = (self.target.interval.as_millis() as i64).max(1);
        let offset_ms = self.offset.as_millis() as i64;
        loop {
            let now = self.clock.now();
            let due = next_due(now, *last_due, interval_ms, offset_ms);
            tokio::time::sleep(Duration::from_millis((due.0 - now.0).unsigned_abs())).await;
            *last_due = Some(due);
            if let Some(fence) = (self.fence)() {
                self.scrape_once(scrape, due, interval_ms, fence).await;
            }
        }
    }

    async fn scrape_once(
        &self,
        scrape: &mut Scrape,
        due: Timestamp,
        interval_ms: i64,
        fence: Fence,
    ) {
        let scraped_at = aligned(self.clock.now(), due, interval_ms);
        let begin = self.clock.monotonic();
        let request = self.target.request();
        let late = FetchError::Timeout {
            url: request.url.clone(),
        };
        let fetched = tokio::time::timeout(self.target.timeout, self.fetch.fetch(request)).await;
        let duration = self.clock.monotonic().saturating_sub(begin);
        let mut ingested = scrape.ingest(scraped_at, duration, fetched.unwrap_or(Err(late)));
        let rows = ingested.batch.rows.len();
        let batch = Batch {
            fence: Some(fence),
            ..std::mem::take(&mut ingested.batch)
        };
        let stored = self.sink.write(batch).await.map_err(|e| e.to_string());
        let stored = stored.and_then(|written| self.judge(&written, rows));
        match &stored {
            Ok(_) => scrape.written(),
            Err(error) => {
                scrape.lost();
                warn!(target = %self.target.url, error, "scrape not stored");
            }
        }
        if let Some(error) = &ingested.error {
            debug!(target = %self.target.url, %error, "scrape failed");
        }
        self.metrics.count(outcome(&ingested.error, &stored));
        let (error, left_out) = match stored {
            Ok(left_out) => (ingested.error.map(|e| e.to_string()), left_out),
            Err(error) => (Some(ingested.error.map_or(error, |e| e.to_string())), None),
        };
        self.status.set(Status {
            health: if error.is_none() {
                Health::Up
            } else {
                Health::Down
            },
            last_error: error.or(left_out),
            last_scrape: Some(scraped_at),
            last_duration: duration,
            samples_scraped: ingested.samples_scraped,
        });
    }

    /// A fenced row means that none of this node's rows count any more. Rows refused for another
    /// reason (a timestamp of their own, too old) leave the scrape good, as in Prometheus; what its page
    /// says of them is returned where they are of new series, which are too many.
    fn judge(&self, written: &Written, rows: usize) -> Result<Option<String>, String> {
        if written.rejected.iter().any(|r| r.reason == Reason::Fenced) {
            return Err(Reason::Fenced.as_str().to_owned());
        }
        let refused = written.rejected.len();
        self.metrics
            .samples
            .inc_by((rows - refused.min(rows)) as u64);
        self.metrics.samples_refused.inc_by(refused as u64);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for rejection in &written.rejected {
            *counts.entry(rejection.reason.as_str()).or_default() += 1;
        }
        for (reason, count) in &counts {
            warn!(target = %self.target.url, reason, count, "samples of a scrape not stored");
        }
        let limit = Reason::SeriesLimit.as_str();
        let too_many = counts.get(limit);
        Ok(too_many.map(|count| format!("{count} samples not stored: {limit}")))
    }

    /// Writes the last markers, once: without the lease they are another node's to write.
    async fn end(&self, scrape: &mut Scrape, last_due: Option<Timestamp>) {
        let Some(fence) = (self.fence)() else { return };
        let after_last = last_due.map_or(Timestamp::MIN, |due| due.plus_ms(1));
        let mut batch = scrape.end(self.clock.now().max(after_last));
        if batch.is_empty() {
            return;
        }
        batch.fence = Some(fence);
        if let Err(error) = self.sink.write(batch).await {
            warn!(target = %self.target.url, %error, "staleness markers not stored");
        }
    }
}

fn outcome<T>(error: &Option<ScrapeError>, stored: &Result<T, String>) -> Outcome {
    match (error, stored) {
        (_, Err(_)) => Outcome::NotStored,
        (None, Ok(_)) => Outcome::Ok,
        (Some(ScrapeError::Fetch(_)), Ok(_)) => Outcome::NotFetched,
        (Some(ScrapeError::Limit(_)), Ok(_)) => Outcome::BeyondLimit,
        (Some(_), Ok(_)) => Outcome::Malformed,
    }
}

/// The next instant of the target's grid that was not served yet.
fn next_due(
    now: Timestamp,
    last: Option<Timestamp>,
    interval_ms: i64,
    offset_ms: i64,
) -> Timestamp {
    let due = now.plus_ms((offset_ms - now.0).rem_euclid(interval_ms));
    match last {
        // A timer may fire early. But a clock set far back must not silence the target.
        Some(last) if due <= last && last.0 - now.0 < interval_ms => last.plus_ms(interval_ms),
        _ => due,
    }
}

/// The grid's instant where the scrape is close to it, so that timestamps stay regular and small:
/// within a hundredth of the interval, at most 2 ms (Prometheus' tolerance).
fn aligned(now: Timestamp, due: Timestamp, interval_ms: i64) -> Timestamp {
    let tolerance_ms = (interval_ms / 100).min(2) as u64;
    if now.0.abs_diff(due.0) <= tolerance_ms {
        due
    } else {
        now
    }
}
