//! Which series of two vectors belong together.

use model::Labels;
use model::hash::Map;
use model::labels::METRIC_NAME;

use super::{Column, LABEL_COST, Pace};
use crate::ast::Matching;
use crate::error::QueryError;

/// The labels two series must share to match.
pub(super) fn signature(matching: &Matching, labels: &Labels) -> Labels {
    let listed = |name: &str| matching.labels.iter().any(|l| l == name);
    let mut builder = labels.to_builder();
    if matching.on {
        builder.retain(|name, _| listed(name));
    } else {
        builder.retain(|name, _| name != METRIC_NAME && !listed(name));
    }
    builder.build()
}

/// Numbers for signatures: equal signatures, equal numbers, counted from zero.
#[derive(Default)]
pub(super) struct Signatures {
    numbers: Map<Labels, usize>,
}

impl Signatures {
    /// The number of each column's signature; new ones are numbered.
    pub async fn number(
        &mut self,
        matching: &Matching,
        columns: &[Column],
        pace: &mut Pace<'_>,
    ) -> Result<Vec<usize>, QueryError> {
        let mut numbers = Vec::with_capacity(columns.len());
        for column in columns {
            pace.spend(LABEL_COST).await?;
            let next = self.numbers.len();
            let signature = signature(matching, &column.labels);
            numbers.push(*self.numbers.entry(signature).or_insert(next));
        }
        Ok(numbers)
    }

    pub fn len(&self) -> usize {
        self.numbers.len()
    }
}
