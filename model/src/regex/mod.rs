//! Regular expressions that mean what they mean in Go, as Prometheus compiles them.
//!
//! The grammar is ours, after RE2's as Go's `regexp/syntax` reads it with its Perl flags: ASCII
//! `\d \w \s \b`, no set operations in brackets, `\Q…\E`, octal escapes, repeat counts up to 1000,
//! and its error texts. Matching is `regex-automata`'s, which finds what Go finds: leftmost-first,
//! in linear time. A pattern must match a whole text, and its `.` matches a newline.
//!
//! It lives in `model` because selectors (`Matcher`), relabelling and `label_replace` must agree.

mod class;
mod error;
mod escape;
mod expand;
mod literals;
mod parse;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use regex_automata::nfa::thompson::WhichCaptures;
use regex_automata::{Anchored, Input, meta};
use regex_syntax::hir::{Hir, Look};

pub use error::{PatternError, Problem};
pub use expand::Captures;

use crate::limits::REGEX_BYTES_MAX;

/// A compiled pattern that matches whole texts.
#[derive(Clone)]
pub struct Regex {
    pattern: Box<str>,
    engine: meta::Regex,
    names: Arc<[(u32, Box<str>)]>,
}

impl Regex {
    /// Compiles `^(?s:pattern)$`, as relabelling and `label_replace` do. Like there, the pattern is
    /// not looked at on its own: one that closes the group it is put in is taken.
    pub fn anchored(pattern: &str) -> Result<Self, PatternError> {
        let tree = parse::parse(&format!("^(?s:{pattern})$"), false)?;
        Ok(Self {
            pattern: pattern.into(),
            engine: compile(&tree.hir, pattern, WhichCaptures::All)?,
            names: tree.names.into(),
        })
    }

    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Whether all of `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.engine.is_match(whole(text))
    }

    /// What the groups match when all of `text` does.
    pub fn captures<'t>(&'t self, text: &'t str) -> Option<Captures<'t>> {
        let mut found = self.engine.create_captures();
        self.engine.captures(whole(text), &mut found);
        found.is_match().then_some(Captures {
            text,
            found,
            names: &self.names,
        })
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Regex").field(&self.pattern).finish()
    }
}

fn whole(text: &str) -> Input<'_> {
    Input::new(text).anchored(Anchored::Yes)
}

fn compile(hir: &Hir, pattern: &str, captures: WhichCaptures) -> Result<meta::Regex, PatternError> {
    let config = meta::Config::new()
        .nfa_size_limit(Some(REGEX_BYTES_MAX))
        .which_captures(captures);
    // Names are checked and the tree is valid, so size is all that is left to go wrong.
    meta::Builder::new()
        .configure(config)
        .build_from_hir(hir)
        .map_err(|_too_large| PatternError::new(Problem::Size, pattern))
}

/// A selector's pattern, compiled to the cheapest test that answers like it.
#[derive(Clone)]
pub(crate) enum Test {
    /// `.*`
    Anything,
    /// `.+`
    NotEmpty,
    /// One of these, which are sorted.
    OneOf(Arc<[String]>),
    Search {
        /// What every match begins with; may be empty.
        prefix: Box<str>,
        engine: meta::Regex,
    },
}

impl Test {
    /// Reads `pattern` on its own, then anchors it: what Prometheus does with selectors.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        match pattern {
            ".*" => return Ok(Self::Anything),
            ".+" => return Ok(Self::NotEmpty),
            _ => {}
        }
        let hir = parse::parse(pattern, true)?.hir;
        if let Some(texts) = literals::texts(&hir, pattern) {
            return Ok(Self::OneOf(texts.into()));
        }
        let prefix = literals::prefix(&hir).into();
        let anchored = Hir::concat(vec![Hir::look(Look::Start), hir, Hir::look(Look::End)]);
        let engine = compile(&anchored, pattern, WhichCaptures::Implicit)?;
        Ok(Self::Search { prefix, engine })
    }

    pub fn is_match(&self, text: &str) -> bool {
        match self {
            Self::Anything => true,
            Self::NotEmpty => !text.is_empty(),
            Self::OneOf(texts) => texts.binary_search_by(|t| t.as_str().cmp(text)).is_ok(),
            Self::Search { prefix, engine } => {
                text.starts_with(&**prefix) && engine.is_match(whole(text))
            }
        }
    }
}
