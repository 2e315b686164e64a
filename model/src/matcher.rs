//! How a selector chooses series by a label.

use std::fmt;

use regex::Regex;

use crate::Labels;

/// The four comparisons of a label matcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MatchOp {
    Equal,
    NotEqual,
    Regex,
    NotRegex,
}

impl MatchOp {
    /// As PromQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }
}

/// A pattern that is not a regular expression, or too large a one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid regular expression {pattern:?}: {reason}")]
pub struct PatternError {
    pub pattern: String,
    pub reason: String,
}

/// `name op value`, with a regular expression compiled and anchored at both ends.
///
/// A label that is not set compares as the empty text.
#[derive(Clone)]
pub struct Matcher {
    pub name: String,
    pub op: MatchOp,
    pub value: String,
    regex: Option<Regex>,
}

impl Matcher {
    /// Compiles the pattern where `op` needs one.
    pub fn new(
        op: MatchOp,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<Self, PatternError> {
        let (name, value) = (name.into(), value.into());
        let regex = match op {
            MatchOp::Regex | MatchOp::NotRegex => Some(compile_anchored(&value)?),
            MatchOp::Equal | MatchOp::NotEqual => None,
        };
        Ok(Self {
            name,
            op,
            value,
            regex,
        })
    }

    /// `name="value"`.
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            op: MatchOp::Equal,
            value: value.into(),
            regex: None,
        }
    }

    /// Whether a label value (empty when the label is not set) is chosen.
    pub fn matches(&self, value: &str) -> bool {
        match (self.op, &self.regex) {
            (MatchOp::Equal, _) => self.value == value,
            (MatchOp::NotEqual, _) => self.value != value,
            (MatchOp::Regex, Some(regex)) => regex.is_match(value),
            (MatchOp::NotRegex, Some(regex)) => !regex.is_match(value),
            (MatchOp::Regex | MatchOp::NotRegex, None) => {
                unreachable!("a pattern matcher is built with its expression")
            }
        }
    }

    /// Whether a series without this label is chosen: such a matcher alone cannot use an index.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }
}

/// Whether all `matchers` choose `labels`.
pub fn matches_all(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers
        .iter()
        .all(|m| m.matches(labels.get(&m.name).unwrap_or_default()))
}

/// Compiles `pattern` as Prometheus does: it must match the whole text, and `.` matches a newline.
pub fn compile_anchored(pattern: &str) -> Result<Regex, PatternError> {
    regex::RegexBuilder::new(&format!("^(?s:{pattern})$"))
        .size_limit(crate::limits::REGEX_BYTES_MAX)
        .build()
        .map_err(|e| PatternError {
            pattern: pattern.to_owned(),
            reason: e.to_string(),
        })
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (self.op, &self.name, &self.value) == (other.op, &other.name, &other.value)
    }
}

impl Eq for Matcher {}

/// As PromQL writes it: `job=~"a|b"`.
impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.name, self.op.as_str(), self.value)
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_anchored_and_dot_matches_newline() {
        let m = Matcher::new(MatchOp::Regex, "job", "a.b|c").unwrap();
        assert!(m.matches("a\nb") && m.matches("c"));
        assert!(!m.matches("xc") && !m.matches("cx") && !m.matches(""));
        let m = Matcher::new(MatchOp::NotRegex, "job", ".+").unwrap();
        assert!(m.matches_empty());
    }

    #[test]
    fn an_unset_label_compares_as_empty() {
        let labels = Labels::from_pairs([("job", "node")]);
        let unset = Matcher::equal("zone", "");
        let other = Matcher::new(MatchOp::NotEqual, "zone", "eu").unwrap();
        assert!(matches_all(&[unset, other], &labels));
    }

    #[test]
    fn a_bad_pattern_is_named() {
        let error = Matcher::new(MatchOp::Regex, "job", "(").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("invalid regular expression \"(\"")
        );
    }
}
