//! How long a query may run, how much it may hold, and when it lets others run.
//!
//! Evaluation shares its runtime with everything else on a node, Raft heartbeats included, so no
//! stretch of it is long: after [`VALUES_PER_TURN`] values it looks at the clock and yields.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::port::Clock;

use crate::error::QueryError;

/// Values between two turns: around a millisecond of work.
const VALUES_PER_TURN: usize = 100_000;

pub(crate) struct Pace<'a> {
    clock: &'a dyn Clock,
    deadline: Duration,
    is_closed: &'a AtomicBool,
    samples_max: usize,
    held: usize,
    spent: usize,
}

impl<'a> Pace<'a> {
    pub fn new(
        clock: &'a dyn Clock,
        deadline: Duration,
        is_closed: &'a AtomicBool,
        samples_max: usize,
    ) -> Self {
        Self {
            clock,
            deadline,
            is_closed,
            samples_max,
            held: 0,
            spent: 0,
        }
    }

    /// Whether the query may go on.
    pub fn check(&self) -> Result<(), QueryError> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(QueryError::Canceled);
        }
        if self.clock.monotonic() >= self.deadline {
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

    /// Notes how many samples are held now.
    pub fn hold(&mut self, samples: usize) -> Result<(), QueryError> {
        self.held = samples;
        self.expect(0, 0)
    }

    /// Refuses before so many columns of so many values would be held too.
    pub fn expect(&self, columns: usize, steps: usize) -> Result<(), QueryError> {
        let more = columns.saturating_mul(steps);
        if self.held.saturating_add(more) > self.samples_max {
            return Err(QueryError::TooManySamples);
        }
        Ok(())
    }
}
