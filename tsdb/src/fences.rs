//! Which lease epoch each scrape target has reached. Rows that a former holder of the lease sends
//! late are told by their lower epoch.

use std::collections::BTreeMap;
use std::ops::Range;

use model::batch::Fence;

/// The highest epoch applied, by target. Grows with the targets ever scraped (16 bytes each).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Fences {
    epochs: BTreeMap<u64, u64>,
}

impl Fences {
    /// Raises each target's epoch, and returns the ranges of rows whose epoch is lower than what
    /// was reached before them.
    pub fn admit(&mut self, fences: &[(Range<u32>, Fence)]) -> Vec<Range<u32>> {
        let mut stale = Vec::new();
        for (rows, fence) in fences {
            let highest = self.epochs.entry(fence.target).or_insert(fence.epoch);
            if fence.epoch < *highest {
                stale.push(rows.clone());
            }
            *highest = fence.epoch.max(*highest);
        }
        stale
    }

    /// `(target, epoch)` by target.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.epochs.iter().map(|(&target, &epoch)| (target, epoch))
    }

    pub fn len(&self) -> usize {
        self.epochs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.epochs.is_empty()
    }
}

impl FromIterator<(u64, u64)> for Fences {
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(pairs: I) -> Self {
        Self {
            epochs: pairs.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_epoch_is_stale_for_its_target_alone() {
        let mut fences = Fences::default();
        let fence = |target, epoch| Fence { target, epoch };
        assert!(fences.admit(&[(0..2, fence(1, 5))]).is_empty());
        let stale = fences.admit(&[
            (0..2, fence(1, 4)),
            (2..3, fence(2, 1)),
            (3..4, fence(1, 6)),
            (4..5, fence(1, 5)),
        ]);
        assert_eq!(stale, vec![0..2, 4..5]);
        assert_eq!(fences.iter().collect::<Vec<_>>(), vec![(1, 6), (2, 1)]);
    }
}
