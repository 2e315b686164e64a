//! Pushgateway's side: the URL and body of a push, and the page that shows all groups.
//!
//! Promise: what pushgateway 1.11 takes is taken, with the same outcome; what it refuses is
//! refused in its words, since scripts grep for them. Not here: the groups themselves
//! ([`model::group`]) and whatever pushes of other groups hold: a page decides conflicts between
//! groups when it is written.

mod body;
mod check;
mod delimited;
mod families;
mod gather;
pub mod path;
mod render;

pub use body::parse;
pub use delimited::parse_delimited;
pub use families::{families, of_text};
pub use gather::contradictions;
pub use render::{Escape, render, time_families};

use model::labels::is_legacy_name;

/// Which names metrics and labels may have.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Letters, digits, `_`, and `:` in metric names.
    #[default]
    Legacy,
    /// Any text, in quotes (`--push.enable-utf8-names`).
    Utf8,
}

impl Names {
    /// Whether a metric may be called `name`.
    pub fn allow_metric(self, name: &str) -> bool {
        match self {
            Self::Legacy => is_legacy_name(name, true),
            Self::Utf8 => !name.is_empty(),
        }
    }

    /// Whether a label may be called `name`.
    pub fn allow_label(self, name: &str) -> bool {
        match self {
            Self::Legacy => is_legacy_name(name, false),
            Self::Utf8 => !name.is_empty(),
        }
    }
}

/// What a body may say.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    pub names: Names,
    /// Takes series said twice and names that parts of a histogram have: what
    /// [`contradictions`] tells of (`--push.disable-consistency-check`).
    pub unchecked: bool,
}

impl From<Names> for Rules {
    fn from(names: Names) -> Self {
        let unchecked = false;
        Self { names, unchecked }
    }
}

/// Why a body was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// No exposition; the group is left as it is.
    #[error("text format parsing error in line {line}: {reason}")]
    Format { line: usize, reason: String },
    /// No message of protobuf, or one with names that are not allowed; the group is left as it is.
    #[error("{0}")]
    Protobuf(String),
    /// An exposition with timestamps; a failed push, which the group records.
    #[error(
        "pushed metrics are invalid or inconsistent with existing metrics: pushed metrics must not have timestamps"
    )]
    Timestamps,
    /// An exposition that cannot be a group's content; a failed push, which the group records.
    #[error("pushed metrics are invalid or inconsistent with existing metrics: {0}")]
    Inconsistent(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_legacy_unless_asked() {
        assert!(Names::Legacy.allow_metric("a:b_1") && !Names::Legacy.allow_label("a:b"));
        assert!(!Names::Legacy.allow_metric("1a") && !Names::Legacy.allow_metric(""));
        assert!(Names::Utf8.allow_label("a.b") && !Names::Utf8.allow_metric(""));
    }
}
