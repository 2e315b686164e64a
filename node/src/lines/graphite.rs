//! From the queue of Graphite's lines to the cluster.

use std::sync::Arc;
use std::time::Duration;

use ingest::graphite::{self, Options, Point, Tally, pickle};
use ingest::lines::{Parsed, part};
use ingest::mapping::Rules;
use model::Batch;
use model::limits::LINES_ROWS_MAX;
use model::port::Clock;
use model::sink::{Sink, WriteError, Written};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::intake::{Framing, Piece};
use super::metrics::{Fate, Lines};

/// Pauses between tries of a write: doubled from the first to the longest, all together the last.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(5);
const RETRY_TOTAL: Duration = Duration::from_secs(60);

/// Makes samples of what waits, and stores them.
pub struct Writer {
    pub sink: Arc<dyn Sink>,
    pub clock: Arc<dyn Clock>,
    pub rules: Rules,
    pub strict: bool,
    pub metrics: Lines,
}

impl Writer {
    /// Ends when the queue is closed and empty.
    pub async fn run(self, mut pieces: mpsc::Receiver<Piece>) {
        while let Some(first) = pieces.recv().await {
            let (mut parsed, mut tally) = (Parsed::default(), Tally::default());
            self.take(first, &mut parsed, &mut tally);
            while parsed.batch.rows.len() < LINES_ROWS_MAX {
                let Ok(next) = pieces.try_recv() else { break };
                self.take(next, &mut parsed, &mut tally);
            }
            self.count(tally);
            self.store(&parsed.batch).await;
        }
    }

    fn take(&self, piece: Piece, parsed: &mut Parsed, tally: &mut Tally) {
        let options = Options {
            rules: &self.rules,
            strict: self.strict,
            now: self.clock.now(),
        };
        match piece.framing {
            Framing::Lines => graphite::read(&piece.bytes, &options, parsed, tally),
            Framing::Pickle => match pickle::read(&piece.bytes) {
                Ok(points) => {
                    for (path, value, time) in &points {
                        let point = Point {
                            path,
                            value: *value,
                            time: Some(*time).filter(|time| time.is_finite() && *time != -1.0),
                        };
                        graphite::add(&point, &options, parsed, tally);
                    }
                }
                Err(error) => {
                    debug!(%error, "a pickled message was refused");
                    tally.malformed += 1;
                }
            },
        }
    }

    fn count(&self, tally: Tally) {
        self.metrics.count(Fate::Malformed, tally.malformed);
        self.metrics.count(Fate::Dropped, tally.dropped);
        self.metrics.count(Fate::Unmatched, tally.unmatched);
        self.metrics.bad_tags.inc_by(tally.bad_tags);
    }

    async fn store(&self, batch: &Batch) {
        let rows = batch.rows.len();
        for first in (0..rows).step_by(LINES_ROWS_MAX) {
            let span = first..rows.min(first + LINES_ROWS_MAX);
            let part = part(batch, span);
            let lines = part.rows.len() as u64;
            match self.write(&part).await {
                Ok(written) => {
                    let refused = written.rejected.len() as u64;
                    self.metrics.count(Fate::Refused, refused);
                    self.metrics.count(Fate::Stored, lines - refused);
                }
                Err(error) => {
                    warn!(%error, lines, "lines of graphite were lost");
                    self.metrics.count(Fate::Lost, lines);
                }
            }
        }
    }

    /// Tries for a while: a write that was taken before counts as taken now.
    async fn write(&self, part: &Batch) -> Result<Written, WriteError> {
        let (mut pause, mut waited) = (RETRY_FIRST, Duration::ZERO);
        loop {
            let error = match self.sink.write(part.clone()).await {
                Ok(written) => return Ok(written),
                Err(error @ (WriteError::Unavailable(_) | WriteError::Overloaded(_))) => error,
                Err(error) => return Err(error),
            };
            if waited >= RETRY_TOTAL {
                return Err(error);
            }
            sleep(pause).await;
            waited += pause;
            pause = (pause * 2).min(RETRY_LONGEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use model::Timestamp;
    use model::sink::{Reason, Rejection};

    use super::super::intake::Intake;
    use super::*;

    /// Fails so many times, then takes everything but the row it is told to refuse.
    #[derive(Default)]
    struct Store {
        failures: Mutex<usize>,
        refused: Option<u32>,
        rows: Mutex<Vec<(String, f64)>>,
    }

    #[async_trait]
    impl Sink for Store {
        async fn write(&self, batch: Batch) -> Result<Written, WriteError> {
            let mut failures = self.failures.lock().unwrap();
            if *failures > 0 {
                *failures -= 1;
                return Err(WriteError::Overloaded("full".into()));
            }
            let rows = &batch.rows;
            let names = rows
                .series
                .iter()
                .map(|s| batch.series[*s as usize].to_string());
            let mut kept = self.rows.lock().unwrap();
            kept.extend(names.zip(rows.values.iter().copied()));
            let rejected = self.refused.map(|row| Rejection {
                row,
                reason: Reason::TooOld,
            });
            Ok(Written {
                rejected: rejected.into_iter().collect(),
            })
        }
    }

    impl Clock for Store {
        fn now(&self) -> Timestamp {
            Timestamp(1000)
        }

        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
    }

    async fn run(store: Store, body: &[u8]) -> (Arc<Store>, Lines) {
        let store = Arc::new(store);
        let metrics = Lines::new("graphite");
        let writer = Writer {
            sink: store.clone(),
            clock: store.clone(),
            rules: Rules::default(),
            strict: false,
            metrics: metrics.clone(),
        };
        let (intake, pieces) = Intake::new(metrics.clone());
        intake.offer(body);
        drop(intake);
        writer.run(pieces).await;
        (store, metrics)
    }

    #[tokio::test(start_paused = true)]
    async fn lines_are_stored_and_counted_by_their_fate() {
        let store = Store {
            failures: Mutex::new(3),
            refused: Some(1),
            ..Store::default()
        };
        let (store, metrics) = run(store, b"a 1 1\nb 2 1\nbad\n").await;
        assert_eq!(store.rows.lock().unwrap().len(), 2);
        for (fate, count) in [
            (Fate::Stored, 1),
            (Fate::Refused, 1),
            (Fate::Malformed, 1),
            (Fate::Lost, 0),
        ] {
            assert_eq!(metrics.get(fate), count, "{fate:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_never_taken_is_counted_as_lost() {
        let store = Store {
            failures: Mutex::new(usize::MAX),
            ..Store::default()
        };
        let (_, metrics) = run(store, b"a 1 1\nb 2 1\n").await;
        assert_eq!(metrics.get(Fate::Lost), 2);
        assert_eq!(metrics.get(Fate::Stored), 0);
    }
}
