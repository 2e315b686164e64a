//! Samples read and held, counted as Prometheus counts them.
//!
//! Prometheus computes instant by instant and releases in between, we hold whole columns. So that
//! limits and statistics say the same, this file follows its bookkeeping: what an operator would
//! hold at each instant, from how many samples its operands and its result have there.

use super::Pace;
use crate::error::QueryError;

/// What is known of an operand besides its values.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Samples held before any of it was computed.
    pub base: u64,
    /// Samples it has at each instant.
    pub sizes: Vec<u64>,
    /// Points it has at each instant, if those are fewer: histograms count for several samples.
    pub points: Option<Vec<u64>>,
    /// Samples read from series for each instant; empty for none.
    pub read: Vec<u64>,
    /// Of ranges made by a subquery: what computing them read, and what they hold.
    pub read_within: u64,
    pub held_within: u64,
}

impl Tally {
    pub fn total(&self) -> u64 {
        self.sizes.iter().sum()
    }

    /// What gathering it at `step` adds: a histogram is shared, so it counts once.
    fn gathered(&self, step: usize) -> u64 {
        let points = self.points.as_ref().unwrap_or(&self.sizes);
        points.get(step).copied().unwrap_or(0)
    }

    /// Adds what another operand of the same grid read.
    pub fn read_with(&mut self, other: &Self) {
        if self.read.is_empty() {
            self.read = other.read.clone();
            return;
        }
        for (read, more) in self.read.iter_mut().zip(&other.read) {
            *read += more;
        }
    }
}

impl Pace<'_> {
    /// An operator that gathers its operands at each instant and adds a result; releases them at
    /// the end.
    pub(super) fn gather(
        &mut self,
        operands: &[Tally],
        base: u64,
        result: &[u64],
    ) -> Result<(), QueryError> {
        let mut held = self.current;
        for (step, result) in result.iter().enumerate() {
            let gathered: u64 = operands.iter().map(|operand| operand.gathered(step)).sum();
            self.current = held + gathered + result;
            self.notice()?;
            held += result;
        }
        self.current = base + result.iter().sum::<u64>();
        self.notice()
    }

    /// An operator that replaces its operands by a result without gathering.
    pub(super) fn replace(&mut self, base: u64, result: &[u64]) -> Result<(), QueryError> {
        self.current = base + result.iter().sum::<u64>();
        self.notice()
    }
}
