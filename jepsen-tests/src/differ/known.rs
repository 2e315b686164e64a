//! Where the two may differ, each with its reason. Whatever is here is counted and told, not
//! failed; an entry that nothing needs any more should go.

use super::answer::{Answer, Outcome};
use super::question::Asked;

pub struct Known {
    pub name: &'static str,
    pub reason: &'static str,
    /// Given the question, Prometheus' answer and ours.
    applies: fn(&Asked, &Answer, &Answer) -> bool,
}

pub const KNOWN: &[Known] = &[Known {
    name: "reference-crash",
    reason: "Prometheus 3.5.3 panics inside its engine and answers with the runtime's error; \
                 there is no right answer to compare with",
    applies: |_, reference, _| match &reference.outcome {
        Outcome::Error { text, .. } => text.contains("runtime error"),
        Outcome::Data { .. } => false,
    },
}];

/// The reason why this difference is none, if there is one.
pub fn known(asked: &Asked, reference: &Answer, own: &Answer) -> Option<&'static Known> {
    KNOWN
        .iter()
        .find(|known| (known.applies)(asked, reference, own))
}
