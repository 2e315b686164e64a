//! Samples read and held, counted as Prometheus counts them.
//!
//! Prometheus computes instant by instant and releases in between, we hold whole columns. So that
//! limits and statistics say the same, this file follows its bookkeeping: what an operator would
//! hold at each instant, from how many samples its operands and its result have there.
//!
//! What a step made is a [`Made`], which adds up over series; what that comes to is told by
//! [`Pace::book`] from the plan alone. So shards tell counts, and whoever asks them books the sums:
//! where series lie changes nothing. One thing hangs on the order of series, of which a window stays
//! held while the results of others are: the one that holds most counts as the last.

use futures::FutureExt;
use futures::future::BoxFuture;
use model::fragment::StepCount;

use super::functions::{is_over_windows, keeps_samples};
use super::runs::{Runs, Walk};
use super::{Pace, operands};
use crate::ast::AggregateOp;
use crate::error::QueryError;
use crate::plan::{Op, Step};

/// What one step of a plan made: a [`StepCount`] that takes as little room as it can.
#[derive(Debug, Default, Clone)]
pub(crate) struct Made {
    /// As there.
    pub sizes: Runs,
    pub points: Runs,
    pub rounded: Runs,
    pub read: Runs,
    pub windows: u64,
    pub results: u64,
    pub is_scalar: bool,
}

impl Made {
    /// All samples that are told of.
    pub fn total(&self) -> u64 {
        let lists = [&self.sizes, &self.points, &self.rounded, &self.read];
        let listed = lists.map(Runs::total).into_iter();
        listed
            .chain([self.windows, self.results])
            .fold(0, u64::saturating_add)
    }

    /// How many counts it is when it is told.
    pub fn told(&self) -> usize {
        self.sizes.len() + self.points.len() + self.rounded.len()
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        let lists = [&self.sizes, &self.points, &self.rounded, &self.read];
        lists.map(Runs::bytes).iter().sum()
    }

    /// Adds what the same step made of other series.
    pub fn add(&mut self, other: &Self) {
        self.read.add(&other.read);
        if self.is_scalar || other.is_scalar {
            self.sizes.clone_from(&other.sizes);
            self.is_scalar = true;
            return;
        }
        if !self.points.is_empty() || !other.points.is_empty() {
            let points = |made: &Self| match made.points.is_empty() {
                true => made.sizes.clone(),
                false => made.points.clone(),
            };
            let mut all = points(self);
            all.add(&points(other));
            self.points = all;
        }
        self.sizes.add(&other.sizes);
        self.rounded.add(&other.rounded);
        // Nothing is held beside the results of whichever comes last.
        self.windows = self.windows.max(other.windows);
        self.results = self.results.saturating_add(other.results);
    }
}

impl From<&StepCount> for Made {
    fn from(count: &StepCount) -> Self {
        Self {
            sizes: count.sizes.as_slice().into(),
            points: count.points.as_slice().into(),
            rounded: count.rounded.as_slice().into(),
            read: count.read.as_slice().into(),
            windows: count.windows,
            results: count.results,
            is_scalar: count.is_scalar,
        }
    }
}

impl From<Made> for StepCount {
    fn from(made: Made) -> Self {
        let all = |runs: &Runs| runs.to_vec(runs.len());
        Self {
            sizes: all(&made.sizes),
            points: all(&made.points),
            rounded: all(&made.rounded),
            read: all(&made.read),
            windows: made.windows,
            results: made.results,
            is_scalar: made.is_scalar,
        }
    }
}

/// What is known of an operand besides its values.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Samples held before any of it was computed.
    base: u64,
    /// Samples it has at each instant.
    sizes: Runs,
    /// Points it has at each instant, if those are fewer: histograms count for several samples.
    points: Runs,
    /// Samples read from series for each instant.
    pub read: Runs,
    /// Of ranges made by a subquery: what computing them read, and what they hold.
    pub read_within: u64,
    held_within: u64,
}

impl Tally {
    fn total(&self) -> u64 {
        self.sizes.total()
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        self.sizes.bytes() + self.points.bytes() + self.read.bytes()
    }

    /// What gathering it at each instant adds: a histogram is shared, so it counts once.
    fn gathered(&self) -> &Runs {
        match self.points.is_empty() {
            true => &self.sizes,
            false => &self.points,
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
    Counted(Vec<Entry>, Vec<Made>),
    /// The most, of those that told no more.
    Peak(u64),
}

/// Runs of instants that are booked without a look at whether it is another one's turn.
const RUNS_PER_TURN: usize = 16 << 10;

impl Pace<'_> {
    /// Books what a step has made and read; `self.current` is what was held before it began.
    pub(super) async fn book(
        &mut self,
        entry: Entry,
        mut operands: Vec<Tally>,
        made: Made,
        shards: Option<HeldByShards>,
    ) -> Result<Tally, QueryError> {
        let steps = entry.steps;
        let before = self.current;
        let base = operands.first().map_or(before, |operand| operand.base);
        let Made {
            mut sizes,
            points,
            rounded,
            mut read,
            windows,
            results,
            ..
        } = made;
        sizes.truncate(steps);
        read.truncate(steps);
        let total = sizes.total();
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
                let none = Runs::default();
                self.gather(&[found], base, (&sizes, &none), steps).await?;
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
                self.gather(&operands, base, (&sizes, &rounded), steps)
                    .await?;
                self.current += kept;
                operands.truncate(1);
            }
            How::Keep => {}
            How::Subquery => {
                tally.read_within = operands.iter().map(|t| t.read.total()).sum();
                tally.held_within = operands.iter().map(Tally::total).sum();
                operands.clear();
            }
            How::Spread => {
                let read = operands.iter().map(|t| t.read.total()).sum();
                tally.read = Runs::each(read, steps);
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
            How::Gather => {
                self.gather(&operands, base, (&sizes, &rounded), steps)
                    .await?;
            }
            How::Shards { folded } => {
                self.book_shards(before, shards).await?;
                if folded {
                    self.replace(base, total);
                }
            }
        }
        for operand in &operands {
            tally.read.add(&operand.read);
        }
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
        counts: Vec<Made>,
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
        (sizes, rounded): (&Runs, &Runs),
        steps: usize,
    ) -> Result<(), QueryError> {
        let mut held = self.current;
        let mut made = [Walk::over(sizes), Walk::over(rounded)];
        let gathered = operands.iter().map(|t| Walk::over(t.gathered()));
        let mut gathered: Vec<Walk<'_>> = gathered.collect();
        let (mut passed, mut runs) = (0, 0_usize);
        while passed < steps {
            if runs.is_multiple_of(RUNS_PER_TURN) {
                self.spend(RUNS_PER_TURN.min(steps - passed)).await?;
            }
            runs += 1;
            let ahead = made.iter().chain(&gathered).map(Walk::left);
            let times = ahead.fold(steps - passed, usize::min);
            passed += times;
            // What is held grows at each of these instants, so the last one's is the most.
            let each: u64 = made.iter_mut().map(|walk| walk.pass(times)).sum();
            let gathered: u64 = gathered.iter_mut().map(|walk| walk.pass(times)).sum();
            held += each * times as u64;
            self.current = held + gathered;
            self.notice()?;
        }
        self.replace(base, sizes.total());
        Ok(())
    }

    /// No limit is looked at here.
    fn replace(&mut self, base: u64, result: u64) {
        self.current = base + result;
        self.peak = self.peak.max(self.current);
    }
}
