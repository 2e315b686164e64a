//! How long a query may run, how much it may hold, and when it lets others run.
//!
//! Evaluation shares its runtime with everything else on a node, Raft heartbeats included, so no
//! stretch of it is long: after [`VALUES_PER_TURN`] values it looks at the clock and yields.
//!
//! Two things are bounded: samples, counted as Prometheus does (`account`), and the bytes that
//! whole columns really take, which Prometheus does not have to hold.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::port::Clock;

use crate::error::QueryError;

/// Values between two turns: around a millisecond of work.
const VALUES_PER_TURN: usize = 100_000;

/// So many instants, a turn's worth at a time.
pub(super) fn turns(steps: usize) -> impl Iterator<Item = Range<usize>> {
    let starts = (0..steps).step_by(VALUES_PER_TURN);
    starts.map(move |start| start..steps.min(start + VALUES_PER_TURN))
}

/// What a query may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// On the monotonic clock.
    pub deadline: Duration,
    pub samples_max: usize,
    pub bytes_max: usize,
}

pub(crate) struct Pace<'a> {
    clock: &'a dyn Clock,
    is_closed: &'a AtomicBool,
    bounds: Bounds,
    /// Bytes held.
    held: usize,
    spent: usize,
    /// Samples Prometheus would hold now, and the most it would have held.
    pub(super) current: u64,
    pub(super) peak: u64,
}

impl<'a> Pace<'a> {
    pub fn new(clock: &'a dyn Clock, is_closed: &'a AtomicBool, bounds: Bounds) -> Self {
        Self {
            clock,
            is_closed,
            bounds,
            held: 0,
            spent: 0,
            current: 0,
            peak: 0,
        }
    }

    /// Whether the query may go on.
    pub fn check(&self) -> Result<(), QueryError> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(QueryError::Canceled);
        }
        if self.clock.monotonic() >= self.bounds.deadline {
            return Err(QueryError::Timeout);
        }
        Ok(())
    }

    /// Counts work that is about to be done and takes a turn when it is due. A column counts for
    /// more than its values, so that very many short ones are noticed too.
    pub async fn spend(&mut self, values: usize) -> Result<(), QueryError> {
        self.spent = self.spent.saturating_add(values + 16);
        if self.spent < VALUES_PER_TURN {
            return Ok(());
        }
        self.spent = 0;
        tokio::task::yield_now().await;
        self.check()
    }

    /// So many times the same, unless that would be too much to hold too.
    pub async fn filled<T: Clone>(&mut self, value: T, times: usize) -> Result<Vec<T>, QueryError> {
        self.expect_bytes(times.saturating_mul(size_of::<T>()))?;
        if times < VALUES_PER_TURN {
            return Ok(vec![value; times]);
        }
        let mut all = Vec::with_capacity(times);
        for times in turns(times) {
            self.spend(times.len()).await?;
            all.resize(times.end, value.clone());
        }
        Ok(all)
    }

    /// Calls `f` with each value and its instant.
    pub async fn each<T>(
        &mut self,
        values: &mut [T],
        mut f: impl FnMut(usize, &mut T),
    ) -> Result<(), QueryError> {
        for steps in turns(values.len()) {
            self.spend(steps.len()).await?;
            let values = &mut values[steps.clone()];
            steps.zip(values).for_each(|(step, value)| f(step, value));
        }
        Ok(())
    }

    /// Notes how many bytes are held now.
    pub fn hold(&mut self, bytes: usize) -> Result<(), QueryError> {
        self.held = bytes;
        self.expect(0, 0)
    }

    /// Refuses before so many columns of so many values would be held too.
    pub fn expect(&self, columns: usize, steps: usize) -> Result<(), QueryError> {
        self.expect_bytes(columns.saturating_mul(steps).saturating_mul(8))
    }

    /// Refuses before so many bytes would be held too.
    pub fn expect_bytes(&self, more: usize) -> Result<(), QueryError> {
        if self.held.saturating_add(more) > self.bounds.bytes_max {
            return Err(QueryError::TooManySamples);
        }
        Ok(())
    }

    /// Notes more bytes, those of histograms just made.
    pub fn hold_more(&mut self, bytes: usize) -> Result<(), QueryError> {
        self.hold(self.held.saturating_add(bytes))
    }

    /// As [`Self::notice`], with more samples that are let go at once.
    pub fn glimpse(&mut self, more: u64) -> Result<(), QueryError> {
        self.current += more;
        let outcome = self.notice();
        self.current -= more;
        outcome
    }

    pub fn samples_max(&self) -> u64 {
        self.bounds.samples_max as u64
    }

    /// Looks at how many samples Prometheus would hold now.
    pub fn notice(&mut self) -> Result<(), QueryError> {
        self.peak = self.peak.max(self.current);
        if self.current > self.samples_max() {
            return Err(QueryError::TooManySamples);
        }
        Ok(())
    }
}

#[cfg(test)]
pub(in crate::eval) mod tests {
    use futures::FutureExt;
    use model::Timestamp;

    use super::*;

    struct Still;

    impl Clock for Still {
        fn now(&self) -> Timestamp {
            Timestamp(0)
        }

        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
    }

    /// Without any hurry, and with a mebibyte to hold.
    pub(in crate::eval) fn at_ease<T>(work: impl FnOnce(&mut Pace<'_>) -> T) -> T {
        let (clock, is_closed) = (Still, AtomicBool::new(false));
        let bounds = Bounds {
            deadline: Duration::MAX,
            samples_max: 1 << 20,
            bytes_max: 1 << 20,
        };
        work(&mut Pace::new(&clock, &is_closed, bounds))
    }

    /// What a future comes to whose turn it always is.
    pub(in crate::eval) fn finish<T>(future: impl Future<Output = T>) -> T {
        let mut future = Box::pin(future);
        loop {
            if let Some(result) = future.as_mut().now_or_never() {
                return result;
            }
        }
    }

    #[test]
    fn what_cannot_be_held_is_not_made() {
        at_ease(|pace| {
            let mut filled = |times| pace.filled(1.0, times).now_or_never();
            assert_eq!(filled(3), Some(Ok(vec![1.0; 3])));
            assert_eq!(filled((1 << 17) + 1), Some(Err(QueryError::TooManySamples)));
            // It takes a turn on the way.
            assert_eq!(filled(1 << 17), None);
        });
    }
}
