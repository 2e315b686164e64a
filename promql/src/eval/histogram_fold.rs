//! What `sum` and `avg` make of groups that have histograms.

use model::Histogram;

use super::Point;
use crate::native::{self, Incompatible, Sum};

/// The histograms of a group at one instant.
#[derive(Debug, Clone, Default)]
pub(super) enum HistogramFold {
    #[default]
    Empty,
    Sum(Box<Sum>),
    Mean(Box<Sum>, f64),
    /// Floats were there before: there will be no result, so nothing is summed.
    Mixed,
    /// Histograms do not fit each other; nothing that comes later is looked at.
    Failed,
}

impl HistogramFold {
    /// Takes one more histogram in; the first that does not fit is told.
    pub fn add(&mut self, histogram: &Histogram, is_mean: bool) -> Result<(), Incompatible> {
        let outcome = match self {
            Self::Empty => {
                let first = Box::new(Sum::from(histogram));
                *self = if is_mean {
                    Self::Mean(first, 1.0)
                } else {
                    Self::Sum(first)
                };
                return Ok(());
            }
            Self::Sum(sum) => sum.add(&Sum::from(histogram)),
            Self::Mean(mean, count) => {
                *count += 1.0;
                native::move_mean(mean, histogram, *count)
            }
            Self::Mixed | Self::Failed => return Ok(()),
        };
        if outcome.is_err() {
            *self = Self::Failed;
        }
        outcome
    }

    pub fn is_failed(&self) -> bool {
        matches!(self, Self::Failed)
    }

    pub fn point(self) -> Option<Point> {
        match self {
            Self::Sum(sum) | Self::Mean(sum, _) => Some(Point::of(sum.into_histogram())),
            Self::Empty | Self::Mixed | Self::Failed => None,
        }
    }
}
