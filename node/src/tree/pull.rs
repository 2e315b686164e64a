//! One stream of one child, from the cursor to its end.
//!
//! Order that nothing is lost by: rows are written and acknowledged, then the position behind them
//! is noted through Raft; only then it is asked from. Whoever notes it must come from where the
//! last one stopped, so of two nodes that both believe to hold the lease one is stopped.

use std::sync::Arc;
use std::time::Duration;

use cluster::{Cluster, Cursor};
use federation::stream::{Decoder, Frame};
use model::batch::Fence;
use model::limits::FEDERATED_ROWS_MAX;
use model::port::Clock;
use model::sink::{Reason, Sink};
use model::{Batch, Series};

use super::child::Child;
use super::origins;
use crate::scrape::{HttpFetch, Opened};

/// How long a child may say nothing in the middle of a stream.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// A long stream is noted on its way, so that it need not begin anew.
const NOTE_EVERY: Duration = Duration::from_secs(5);

/// One pull under a lease.
pub struct Pull<'a> {
    pub child: &'a Child,
    pub cluster: &'a Arc<Cluster>,
    pub http: &'a HttpFetch,
    pub clock: &'a dyn Clock,
    pub fence: Fence,
}

/// What a pull brought.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Pulled {
    pub samples: u64,
    /// Instants at which the parent has another value already.
    pub conflicts: u64,
}

impl Pull<'_> {
    /// From the first of `places` that answers.
    pub async fn run(&self, places: &[String]) -> Result<Pulled, String> {
        let own = self.cluster.cluster_id().ok_or("no cluster yet")?;
        let known = self.cluster.cursors().remove(&self.child.key());
        let since = known.as_ref().map(|cursor| cursor.position.as_str());
        let path = self.child.path(since);
        let mut errors = Vec::new();
        for place in places {
            let opened = match self.http.open(&format!("http://{place}{path}")).await {
                Ok(opened) => opened,
                Err(error) => {
                    errors.push(error.to_string());
                    continue;
                }
            };
            let told = opened.header(origins::HEADER);
            let origins = origins::read(told.as_deref().unwrap_or_default());
            if origins.is_empty() {
                errors.push(format!("{place} does not tell its origins: no quorate?"));
                continue;
            }
            origins::check(own, &origins)?;
            let stream = Stream {
                pull: self,
                origins,
                noted: since.map(str::to_owned),
                noted_at: self.clock.monotonic(),
                batch: Batch::default(),
                pulled: Pulled::default(),
            };
            return stream.read(opened).await;
        }
        Err(errors.join("; "))
    }
}

/// A stream that is being read.
struct Stream<'a> {
    pull: &'a Pull<'a>,
    origins: Vec<String>,
    /// The position that was noted last.
    noted: Option<String>,
    noted_at: Duration,
    batch: Batch,
    pulled: Pulled,
}

impl Stream<'_> {
    async fn read(mut self, mut opened: Opened) -> Result<Pulled, String> {
        let mut decoder = Decoder::default();
        loop {
            while let Some(frame) = decoder.next_frame().map_err(|e| e.to_string())? {
                match frame {
                    Frame::Samples(series) => self.add(series).await?,
                    Frame::Position(position) => {
                        let now = self.pull.clock.monotonic();
                        if now.saturating_sub(self.noted_at) >= NOTE_EVERY {
                            self.note(position).await?;
                            self.noted_at = now;
                        }
                    }
                    Frame::End(position) => {
                        self.note(position).await?;
                        return Ok(self.pulled);
                    }
                }
            }
            let bytes = tokio::time::timeout(SILENCE_MAX, opened.next()).await;
            match bytes.map_err(|_| "the child fell silent")? {
                Some(bytes) => decoder.push(&bytes?),
                None => return Err("the stream broke off".to_owned()),
            }
        }
    }

    async fn add(&mut self, series: Vec<Series>) -> Result<(), String> {
        for one in series {
            let place = self.batch.add_series(self.pull.child.labelled(&one.labels));
            let samples = &one.samples;
            for at in 0..samples.len() {
                let timestamp = samples.timestamps[at];
                match samples.histogram(at) {
                    Some(histogram) => {
                        let histogram = Arc::clone(histogram);
                        self.batch.rows.push_histogram(place, timestamp, histogram);
                    }
                    None => self.batch.rows.push(place, timestamp, samples.values[at]),
                }
            }
            if self.batch.rows.len() >= FEDERATED_ROWS_MAX {
                self.write().await?;
            }
        }
        Ok(())
    }

    /// Stores what was gathered. A row that cannot be stored now must come again: the pull fails.
    async fn write(&mut self) -> Result<(), String> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut self.batch);
        batch.fence = Some(self.pull.fence);
        batch.backfill = true;
        let rows = batch.rows.len() as u64;
        let written = self.pull.cluster.write(batch).await;
        let written = written.map_err(|e| e.to_string())?;
        for rejection in &written.rejected {
            match rejection.reason {
                Reason::Duplicate => self.pulled.conflicts += 1,
                reason => return Err(format!("not stored: {}", reason.as_str())),
            }
        }
        self.pulled.samples += rows - written.rejected.len() as u64;
        Ok(())
    }

    async fn note(&mut self, position: String) -> Result<(), String> {
        self.write().await?;
        let to = Cursor {
            position: position.clone(),
            origins: self.origins.clone(),
        };
        let from = self.noted.replace(position);
        if from == self.noted {
            return Ok(());
        }
        let child = self.pull.child.key();
        let noted = self.pull.cluster.advance_cursor(child, from, to).await;
        noted.map_err(|e| format!("the position is not noted: {e}"))
    }
}
