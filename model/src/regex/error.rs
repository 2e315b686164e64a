//! Why a pattern is refused, in the words of Go's `regexp/syntax`, which Prometheus shows.

/// A pattern that is no regular expression, or too large a one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {problem}: `{part}`")]
pub struct PatternError {
    pub problem: Problem,
    /// The part of the pattern that is wrong; all of it where Go names all of it.
    pub part: String,
}

/// Go's error codes, as far as a pattern of valid UTF-8 can meet them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("invalid character class range")]
    CharRange,
    #[error("invalid escape sequence")]
    Escape,
    #[error("invalid named capture")]
    NamedCapture,
    #[error("invalid or unsupported Perl syntax")]
    PerlSyntax,
    #[error("invalid nested repetition operator")]
    NestedRepetition,
    #[error("invalid repeat count")]
    RepeatCount,
    #[error("invalid UTF-8")]
    Utf8,
    #[error("missing closing ]")]
    OpenBracket,
    #[error("missing closing )")]
    OpenParen,
    #[error("missing argument to repetition operator")]
    RepeatsNothing,
    #[error("trailing backslash at end of expression")]
    TrailingBackslash,
    #[error("unexpected )")]
    ClosingParen,
    /// Our bound is lower than Go's, see `limits::REGEX_DEPTH_MAX`.
    #[error("expression nests too deeply")]
    Depth,
    #[error("expression too large")]
    Size,
}

impl PatternError {
    pub(super) fn new(problem: Problem, part: impl Into<String>) -> Self {
        Self {
            problem,
            part: part.into(),
        }
    }
}
