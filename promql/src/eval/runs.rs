//! How many samples there are at each instant, as runs of instants that have as many.
//!
//! A number has one at every instant, and most series have a sample at all of very many instants or at
//! none: what is counted takes next to nothing then. Where every instant has another count than the
//! one before, it takes eight bytes for each.

use std::ops::Range;

use super::pace::turns;
use super::{Column, Pace};
use crate::error::QueryError;

/// Counts at instants; at those behind the last run there is nothing.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Runs(Vec<Run>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// Of one instant; what does not fit could not be held.
    count: u32,
    /// The instant behind the last one.
    end: u32,
}

impl Runs {
    /// As many at each of so many instants.
    pub fn each(count: u64, steps: usize) -> Self {
        let mut runs = Self::default();
        runs.push(count, steps);
        runs
    }

    /// What `count` says that columns have at the instants of a range, the first of which is the first
    /// in the slice that it adds to.
    pub async fn counted(
        columns: &[Column],
        steps: usize,
        count: fn(&Column, Range<usize>, &mut [u64]),
        pace: &mut Pace<'_>,
    ) -> Result<Self, QueryError> {
        if columns.is_empty() {
            return Ok(Self::each(0, steps));
        }
        let (mut runs, mut counts) = (Self::default(), Vec::new());
        for steps in turns(steps) {
            pace.spend(steps.len()).await?;
            counts.clear();
            counts.resize(steps.len(), 0);
            for column in columns {
                pace.spend(steps.len()).await?;
                count(column, steps.clone(), &mut counts);
            }
            runs.extend(&counts);
        }
        Ok(runs)
    }

    fn push(&mut self, count: u64, times: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let end =
            u32::try_from(self.len() + times).expect("a grid has far fewer than 2^32 instants");
        match self.0.last_mut() {
            _ if times == 0 => {}
            Some(last) if last.count == count => last.end = end,
            _ => self.0.push(Run { count, end }),
        }
    }

    /// Counts at the next instants.
    pub fn extend(&mut self, counts: &[u64]) {
        for run in counts.chunk_by(|a, b| a == b) {
            self.push(run[0], run.len());
        }
    }

    /// How many instants it tells of.
    pub fn len(&self) -> usize {
        self.0.last().map_or(0, |last| last.end as usize)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of all instants together.
    pub fn total(&self) -> u64 {
        let mut begin = 0;
        let run = |run: &Run| {
            let times = run.end - std::mem::replace(&mut begin, run.end);
            u64::from(run.count) * u64::from(times)
        };
        self.0.iter().map(run).sum()
    }

    /// Forgets what is behind so many instants.
    pub fn truncate(&mut self, steps: usize) {
        let kept = self.0.partition_point(|run| (run.end as usize) < steps);
        self.0.truncate(kept + 1);
        if let Some(last) = self.0.last_mut() {
            // It is no more than what it was.
            last.end = (last.end as usize).min(steps) as u32;
        }
        self.0.retain(|run| run.end > 0);
    }

    /// Adds counts at the same instants.
    pub fn add(&mut self, other: &Self) {
        if self.is_empty() {
            self.clone_from(other);
        } else if !other.is_empty() {
            let mut sum = Self::default();
            let (mut own, mut more) = (Walk::over(self), Walk::over(other));
            let steps = self.len().max(other.len());
            while sum.len() < steps {
                let times = own.left().min(more.left()).min(steps - sum.len());
                sum.push(own.pass(times) + more.pass(times), times);
            }
            *self = sum;
        }
    }

    /// One after the other.
    pub fn to_vec(&self, steps: usize) -> Vec<u64> {
        let mut all = Vec::with_capacity(steps);
        for run in &self.0 {
            all.resize(run.end as usize, run.count.into());
        }
        all.resize(steps, 0);
        all
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<Run>()
    }
}

impl From<&[u64]> for Runs {
    fn from(counts: &[u64]) -> Self {
        let mut runs = Self::default();
        runs.extend(counts);
        runs
    }
}

/// A way along the instants.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    runs: &'a [Run],
    at: usize,
}

impl<'a> Walk<'a> {
    pub fn over(runs: &'a Runs) -> Self {
        Self {
            runs: &runs.0,
            at: 0,
        }
    }

    /// How many instants lie ahead that have as many as the next one.
    pub fn left(&self) -> usize {
        let end = self.runs.first().map_or(usize::MAX, |run| run.end as usize);
        end - self.at
    }

    /// Goes on by so many instants, of which none is behind those; how many samples each has.
    pub fn pass(&mut self, times: usize) -> u64 {
        let Some((run, rest)) = self.runs.split_first() else {
            return 0;
        };
        self.at += times;
        if self.at == run.end as usize {
            self.runs = rest;
        }
        run.count.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts() -> impl Strategy<Value = Vec<u64>> {
        let runs = prop::collection::vec((0u64..3, 1usize..6), 0..20);
        runs.prop_map(|runs| runs.iter().flat_map(|&(c, n)| vec![c; n]).collect())
    }

    proptest! {
        #[test]
        fn runs_are_as_the_counts_one_by_one(a in counts(), b in counts(), cut in 0usize..60) {
            let (mut runs, other) = (Runs::from(&a[..]), Runs::from(&b[..]));
            prop_assert_eq!(runs.to_vec(a.len()), a.clone());
            prop_assert_eq!((runs.len(), runs.total()), (a.len(), a.iter().sum()));
            let mut pieces = Runs::from(&a[..a.len() / 2]);
            pieces.extend(&a[a.len() / 2..]);
            prop_assert_eq!(&pieces, &runs);
            let mut cut_short = runs.clone();
            cut_short.truncate(cut);
            prop_assert_eq!(cut_short, Runs::from(&a[..cut.min(a.len())]));
            runs.add(&other);
            let all = a.len().max(b.len());
            let at = |counts: &[u64], step: usize| counts.get(step).copied().unwrap_or(0);
            let sums: Vec<u64> = (0..all).map(|step| at(&a, step) + at(&b, step)).collect();
            prop_assert_eq!(runs, Runs::from(&sums[..]));
        }
    }

    #[test]
    fn what_is_alike_takes_no_room() {
        let runs = Runs::each(1, 46_800_000);
        assert!(runs.bytes() <= 64);
        assert_eq!(runs.total(), 46_800_000);
    }
}
