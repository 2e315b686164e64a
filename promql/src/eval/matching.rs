//! Which series of two vectors belong together.

use model::Labels;
use model::hash::Map;
use model::labels::METRIC_NAME;

use super::{Column, LABEL_COST, Pace};
use crate::ast::Matching;
use crate::error::QueryError;

/// The labels two series must share to match.
pub(super) fn signature(matching: &Matching, labels: &Labels) -> Labels {
    labels.kept(|name| is_matching(matching, name))
}

fn is_matching(matching: &Matching, name: &[u8]) -> bool {
    let is_listed = matching.labels.iter().any(|l| l.as_bytes() == name);
    match matching.on {
        true => is_listed,
        false => !is_listed && name != METRIC_NAME.as_bytes(),
    }
}

/// Numbers for signatures: equal signatures, equal numbers, counted from zero.
#[derive(Default)]
pub(super) struct Signatures {
    /// By canonical form.
    numbers: Map<Box<[u8]>, usize>,
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
        let mut key = Vec::new();
        for column in columns {
            pace.spend(LABEL_COST).await?;
            key.clear();
            let labels = &column.labels;
            labels.write_kept(|name| is_matching(matching, name), &mut key);
            let known = self.numbers.get(key.as_slice()).copied();
            numbers.push(known.unwrap_or_else(|| {
                let next = self.numbers.len();
                self.numbers.insert(key.as_slice().into(), next);
                next
            }));
        }
        Ok(numbers)
    }

    pub fn len(&self) -> usize {
        self.numbers.len()
    }
}
