//! How a selector chooses series by a label.

use std::fmt;

use crate::Labels;
pub use crate::regex::PatternError;
use crate::regex::{Regex, Test};

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

/// `name op value`, with a regular expression compiled and anchored at both ends.
///
/// A label that is not set compares as the empty text.
#[derive(Clone)]
pub struct Matcher {
    pub name: String,
    pub op: MatchOp,
    pub value: String,
    test: Option<Test>,
}

impl Matcher {
    /// Compiles the pattern where `op` needs one.
    pub fn new(
        op: MatchOp,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<Self, PatternError> {
        let (name, value) = (name.into(), value.into());
        let test = match op {
            MatchOp::Regex | MatchOp::NotRegex => Some(Test::new(&value)?),
            MatchOp::Equal | MatchOp::NotEqual => None,
        };
        Ok(Self {
            name,
            op,
            value,
            test,
        })
    }

    /// `name="value"`.
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            op: MatchOp::Equal,
            value: value.into(),
            test: None,
        }
    }

    /// Whether a label value (empty when the label is not set) is chosen.
    pub fn matches(&self, value: &str) -> bool {
        match (self.op, &self.test) {
            (MatchOp::Equal, _) => self.value == value,
            (MatchOp::NotEqual, _) => self.value != value,
            (MatchOp::Regex, Some(test)) => test.is_match(value),
            (MatchOp::NotRegex, Some(test)) => !test.is_match(value),
            (MatchOp::Regex | MatchOp::NotRegex, None) => {
                unreachable!("a pattern matcher is built with its expression")
            }
        }
    }

    /// Whether a series without this label is chosen: such a matcher alone cannot use an index.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// All values that `=` or `=~` chooses, sorted, when they are few enough to look each one up:
    /// those of `a`, `a|b|c`, `node-[0-3]`. Bounded by the pattern's own length, or by 256.
    pub fn literals(&self) -> Option<&[String]> {
        match (self.op, &self.test) {
            (MatchOp::Equal, _) => Some(std::slice::from_ref(&self.value)),
            (MatchOp::Regex, Some(Test::OneOf(texts))) => Some(texts),
            _ => None,
        }
    }

    /// What every value that `=~` chooses begins with; may be empty.
    pub fn prefix(&self) -> &str {
        match (self.op, &self.test) {
            (MatchOp::Equal, _) => &self.value,
            (MatchOp::Regex, Some(Test::Search { prefix, .. })) => prefix,
            _ => "",
        }
    }
}

/// Whether all `matchers` choose `labels`.
pub fn matches_all(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers
        .iter()
        .all(|m| m.matches(labels.get(&m.name).unwrap_or_default()))
}

/// Compiles `pattern` so that it must match the whole text: [`Regex::anchored`].
pub fn compile_anchored(pattern: &str) -> Result<Regex, PatternError> {
    Regex::anchored(pattern)
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
        let error = Matcher::new(MatchOp::Regex, "job", "a)(b").unwrap_err();
        assert_eq!(
            error.to_string(),
            "error parsing regexp: unexpected ): `a)(b`"
        );
    }

    #[test]
    fn an_index_learns_what_can_match() {
        let regex = |pattern: &str| Matcher::new(MatchOp::Regex, "job", pattern).unwrap();
        let literals = |pattern: &str| regex(pattern).literals().map(<[String]>::to_vec);
        assert_eq!(
            literals("b|a|(?:c|a)"),
            Some(vec!["a".into(), "b".into(), "c".into()])
        );
        assert_eq!(
            literals("n-[12]x?").map(|l| l.join(" ")),
            Some("n-1 n-1x n-2 n-2x".into())
        );
        assert_eq!(
            literals("(?i)k"),
            Some(vec!["K".into(), "k".into(), "\u{212a}".into()])
        );
        assert_eq!(literals(""), Some(vec![String::new()]));
        for many in ["a.*", "a+", ".", "[a-z][a-z]", "^a", "a{2}b*"] {
            assert_eq!(literals(many), None, "{many}");
        }
        let names: Vec<String> = (0..5000).map(|n| format!("host-{n:04}")).collect();
        assert_eq!(literals(&names.join("|")), Some(names));
        for (pattern, prefix) in [
            ("a.*", "a"),
            ("^(ab)c[x-z]+", "abc"),
            ("a|bb*", ""),
            ("a?.*", ""),
        ] {
            assert_eq!(regex(pattern).prefix(), prefix, "{pattern}");
        }
        assert_eq!(
            Matcher::new(MatchOp::NotRegex, "job", "a|b")
                .unwrap()
                .literals(),
            None
        );
    }
}
