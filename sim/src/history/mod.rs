//! What clients asked, what they were told, and whether a correct store may have told them so.
//!
//! Pure: no clock, no network. Events come in the order in which they happened, which in one
//! thread is exact; every check is made when its event arrives, so a run ends at the first lie.
//!
//! - [`samples`]: nothing acknowledged is lost, nothing is invented, one value an instant
//! - [`groups`]: each push group is one register
//! - [`sums`]: each difference counts once
//! - [`words`]: what was told of metrics stays told
//! - [`deletions`]: what was deleted is gone, and nothing else
//! - [`replicas`]: leaders in order, one state an index

pub mod deletions;
pub mod groups;
pub mod replicas;
pub mod samples;
pub mod sums;
pub mod words;

/// The store broke a promise; the text says which and shows the evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(pub String);

/// A violation, as the result of a check.
pub fn violation<T>(text: String) -> Result<T, Violation> {
    Err(Violation(text))
}
