//! Samples read and held, counted as Prometheus counts them.
//!
//! Prometheus computes instant by instant and releases in between, we hold whole columns. So that
//! limits and statistics say the same, this file follows its bookkeeping: what an operator would
//! hold at each instant, from how many samples its operands and its result have there.
//!
//! What a step made is a [`StepCount`], which adds up over series; what that comes to is told by
//! [`Pace::book`] from the plan alone. So shards tell counts, and whoever asks them books the sums:
//! where series lie changes nothing. One thing hangs on the order of series, of which a window stays
//! held while the results of others are: the one that holds most counts as the last.

use futures::FutureExt;
use futures::future::BoxFuture;
use model::fragment::StepCount;

use super::functions::{is_over_windows, keeps_samples};
use super::{Pace, operands};
use crate::ast::AggregateOp;
use crate::error::QueryError;
use crate::plan::{Op, Step};

/// What is known of an operand besides its values.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Samples held before any of it was computed.
    base: u64,
    /// Samples it has at each instant.
    sizes: Vec<u64>,
    /// Points it has at each instant, if those are fewer: histograms count for several samples.
    points: Vec<u64>,
    /// Samples read from series for each instant; empty for none.
    pub read: Vec<u64>,
    /// Of ranges made by a subquery: what computing them read, and what they hold.
    pub read_within: u64,
    held_within: u64,
}

impl Tally {
    fn total(&self) -> u64 {
        self.sizes.iter().sum()
    }

    /// What gathering it at `step` adds: a histogram is shared, so it counts once.
    fn gathered(&self, step: usize) -> u64 {
        let points = match self.points.is_empty() {
            true => &self.sizes,
            false => &self.points,
        };
        points.get(step).copied().unwrap_or(0)
    }

    /// Adds what another operand of the same grid read.
    fn read_with(&mut self, other: &Self) {
        if self.read.is_empty() {
            self.read = other.read.clone();
            return;
        }
        for (read, more) in self.read.iter_mut().zip(&other.read) {
            *read += more;
        }
    }
}

/// How a step is booked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// Values found are held.
    Select,
    /// Info series that were read are held, gathered, and some not released.
    Info,
    /// Samples are found at each instant, and turned into results at once.
    SelectTime,
    /// Nothing is held that was not before.
    Keep,
    Subquery,
    Spread,
    Windows,
    /// Operands are replaced without being gathered.
    Replace,
    /// Operands are gathered at each instant and a result is added; they are released at the end.
    Gather,
    Shards {
        folded: bool,
    },
}

/// What booking a step needs to know of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    how: How,
    operands: usize,
    steps: usize,
}

impl Entry {
    pub fn of(step: &Step<'_>) -> Self {
        let how = match &step.op {
            Op::Select { .. } => How::Select,
            Op::SelectTime { .. } => How::SelectTime,
            Op::Info(_) => How::Info,
            // Which info series count is known once they are joined.
            Op::SelectInfo { .. } | Op::Range { .. } | Op::String(..) | Op::Negate => How::Keep,
            Op::Subquery { .. } => How::Subquery,
            Op::Spread => How::Spread,
            Op::Call(call) if is_over_windows(call) => How::Windows,
            Op::Call(call) if keeps_samples(call) => How::Keep,
            Op::Aggregate(aggregate) if aggregate.op != AggregateOp::CountValues => How::Replace,
            Op::Part { .. } => How::Shards { folded: false },
            Op::Combine { .. } => How::Shards { folded: true },
            Op::Number(_) | Op::Call(_) | Op::Binary(_) | Op::Aggregate(_) => How::Gather,
        };
        Self {
            how,
            operands: operands(&step.op),
            steps: step.grid.steps,
        }
    }
}

/// What the shards held for their shares of a node.
#[derive(Debug)]
pub(super) enum HeldByShards {
    /// The steps by which each computed it, and what those made on all.
    Counted(Vec<Entry>, Vec<StepCount>),
    /// The most, of those that told no more.
    Peak(u64),
}

/// Instants that are booked without a look at whether it is another one's turn.
const INSTANTS_PER_TURN: usize = 16 << 10;

impl Pace<'_> {
    /// Books what a step has made and read; `self.current` is what was held before it began.
    pub(super) async fn book(
        &mut self,
        entry: Entry,
        mut operands: Vec<Tally>,
        count: StepCount,
        shards: Option<HeldByShards>,
    ) -> Result<Tally, QueryError> {
        let steps = entry.steps;
        let before = self.current;
        let base = operands.first().map_or(before, |operand| operand.base);
        let StepCount {
            mut sizes,
            points,
            rounded,
            read,
            windows,
            results,
            ..
        } = count;
        sizes.resize(steps, 0);
        let total = sizes.iter().sum::<u64>();
        let mut tally = Tally {
            base,
            points,
            read,
            ..Tally::default()
        };
        match entry.how {
            How::Select => {
                tally.read = sizes.clone();
                self.current = before + total;
                self.notice()?;
            }
            How::SelectTime => {
                tally.read = sizes.clone();
                let found = Tally {
                    sizes: sizes.clone(),
                    ..Tally::default()
                };
                self.gather(&[found], base, (&sizes, &[])).await?;
            }
            How::Info => {
                let infos = Tally {
                    sizes: tally.read.clone(),
                    ..Tally::default()
                };
                operands.truncate(1);
                let of_base: u64 = operands.iter().map(Tally::total).sum();
                self.current = before + infos.total();
                self.notice()?;
                let kept = of_base + if steps > 1 { infos.total() } else { 0 };
                operands.push(infos);
                self.gather(&operands, base, (&sizes, &rounded)).await?;
                self.current += kept;
                operands.truncate(1);
            }
            How::Keep => {}
            How::Subquery => {
                tally.read_within = operands.iter().flat_map(|t| &t.read).sum();
                tally.held_within = operands.iter().map(Tally::total).sum();
                operands.clear();
            }
            How::Spread => {
                let read = operands.iter().flat_map(|t| &t.read).sum();
                tally.read = vec![read; steps];
                let once: u64 = operands.iter().map(Tally::total).sum();
                self.current = before + total.saturating_sub(once);
                self.notice()?;
                operands.clear();
            }
            How::Windows => {
                self.current = before + results;
                self.glimpse(windows)?;
                let within: u64 = operands.iter().map(|t| t.held_within).sum();
                self.current = self.current.saturating_sub(within);
            }
            How::Replace => self.replace(base, total),
            How::Gather => self.gather(&operands, base, (&sizes, &rounded)).await?,
            How::Shards { folded } => {
                self.book_shards(before, shards).await?;
                if folded {
                    self.replace(base, total);
                }
            }
        }
        operands.iter().for_each(|operand| tally.read_with(operand));
        tally.read.resize(steps, 0);
        tally.sizes = sizes;
        Ok(tally)
    }

    /// Boxed, since what it books in turn is booked as everything is; no part has parts.
    fn book_shards(
        &mut self,
        before: u64,
        shards: Option<HeldByShards>,
    ) -> BoxFuture<'_, Result<(), QueryError>> {
        let book = async move {
            match shards {
                Some(HeldByShards::Counted(entries, counts)) => {
                    self.replay(&entries, counts).await?;
                }
                Some(HeldByShards::Peak(peak)) => {
                    self.current = before + peak;
                    self.notice()?;
                }
                None => {}
            }
            Ok(())
        };
        book.boxed()
    }

    /// Books the steps of a whole plan by what they made.
    pub(super) async fn replay(
        &mut self,
        entries: &[Entry],
        counts: Vec<StepCount>,
    ) -> Result<Tally, QueryError> {
        let mut tallies: Vec<Tally> = Vec::new();
        for (&entry, count) in entries.iter().zip(counts) {
            let operands = tallies.split_off(tallies.len().saturating_sub(entry.operands));
            tallies.push(self.book(entry, operands, count, None).await?);
        }
        Ok(tallies.pop().unwrap_or_default())
    }

    async fn gather(
        &mut self,
        operands: &[Tally],
        base: u64,
        (sizes, rounded): (&[u64], &[u64]),
    ) -> Result<(), QueryError> {
        let mut held = self.current;
        for (step, size) in sizes.iter().enumerate() {
            if step % INSTANTS_PER_TURN == 0 {
                self.spend(INSTANTS_PER_TURN.min(sizes.len() - step))
                    .await?;
            }
            let gathered: u64 = operands.iter().map(|operand| operand.gathered(step)).sum();
            held += size + rounded.get(step).copied().unwrap_or(0);
            self.current = held + gathered;
            self.notice()?;
        }
        self.replace(base, sizes.iter().sum());
        Ok(())
    }

    /// No limit is looked at here.
    fn replace(&mut self, base: u64, result: u64) {
        self.current = base + result;
        self.peak = self.peak.max(self.current);
    }
}
