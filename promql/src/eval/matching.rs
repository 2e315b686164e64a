//! Which series of two vectors belong together.

use model::Labels;
use model::hash::Map;
use model::labels::METRIC_NAME;

use super::Column;
use crate::ast::Matching;

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
    pub fn number(&mut self, matching: &Matching, columns: &[Column]) -> Vec<usize> {
        let number = |column: &Column| {
            let next = self.numbers.len();
            *self
                .numbers
                .entry(signature(matching, &column.labels))
                .or_insert(next)
        };
        columns.iter().map(number).collect()
    }

    pub fn len(&self) -> usize {
        self.numbers.len()
    }
}
