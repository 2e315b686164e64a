//! Why a text is not PromQL, and why a query has no answer.
//!
//! The texts are Prometheus', because dashboards and people compare them. This file does not know
//! HTTP: which status an error becomes is the caller's table.

use std::fmt;

use model::source::SourceError;

use crate::duration::DurationError;

/// A stretch of the query text, in bytes: `start .. end`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// From the start of this to the end of `other`.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        Self::new(self.start, other.end)
    }
}

/// A place in the text as people count it: from one, columns in bytes. An empty text has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl Position {
    /// Where byte `offset` of `text` stands.
    pub fn of(text: &str, offset: usize) -> Self {
        if text.is_empty() {
            return Self { line: 0, column: 0 };
        }
        let before = &text.as_bytes()[..offset.min(text.len())];
        let line_start = before
            .iter()
            .rposition(|&b| b == b'\n')
            .map_or(0, |at| at + 1);
        Self {
            line: before.iter().filter(|&&b| b == b'\n').count() + 1,
            column: before.len() - line_start + 1,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str("unknown position"),
            line => write!(f, "{line}:{}", self.column),
        }
    }
}

/// A text that is not an expression, or one whose types do not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{position}: parse error: {message}")]
pub struct ParseError {
    pub span: Span,
    pub position: Position,
    pub message: String,
}

impl ParseError {
    pub fn new(text: &str, span: Span, message: impl Into<String>) -> Self {
        Self {
            span,
            position: Position::of(text, span.start),
            message: message.into(),
        }
    }
}

/// A duration of the query that has no value.
impl From<DurationError> for QueryError {
    fn from(error: DurationError) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum QueryError {
    /// The text is wrong; the same text will never do.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// Times or resolution are wrong.
    #[error("{0}")]
    Invalid(String),
    /// The text is right, the data it met are not what it needs.
    #[error("{0}")]
    Execution(String),
    #[error("query timed out in expression evaluation")]
    Timeout,
    #[error("query was canceled in expression evaluation")]
    Canceled,
    #[error("query processing would load too many samples into memory in query execution")]
    TooManySamples,
    #[error(transparent)]
    Source(#[from] SourceError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_bytes_from_one() {
        let text = "a\nbé c";
        assert_eq!(Position::of(text, 0).to_string(), "1:1");
        assert_eq!(Position::of(text, 2).to_string(), "2:1");
        assert_eq!(Position::of(text, 6).to_string(), "2:5");
        assert_eq!(Position::of(text, 99).to_string(), "2:6");
    }
}
