//! Queries parsed before: dashboards and the shards of a node ask the same ones over and over.
//!
//! Bounded: few, short, and none whose regular expressions may take much more memory than their text.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use model::limits::{PARSED_QUERIES_MAX, PARSED_QUERY_BYTES_MAX};

use crate::ast::Expr;
use crate::error::ParseError;
use crate::parser::{ParseOptions, parse_with};

/// The queries parsed last, the newest use first.
#[derive(Debug, Default)]
pub(crate) struct Parsed(Mutex<VecDeque<Entry>>);

#[derive(Debug)]
struct Entry {
    query: String,
    options: ParseOptions,
    expr: Arc<Expr>,
}

impl Parsed {
    /// The tree of `query`, parsed now or before.
    pub fn get(&self, query: &str, options: ParseOptions) -> Result<Arc<Expr>, ParseError> {
        if let Some(expr) = self.find(query, options) {
            return Ok(expr);
        }
        let expr = Arc::new(parse_with(query, options)?);
        if is_kept(query) {
            let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            entries.truncate(PARSED_QUERIES_MAX - 1);
            entries.push_front(Entry {
                query: query.to_owned(),
                options,
                expr: expr.clone(),
            });
        }
        Ok(expr)
    }

    fn find(&self, query: &str, options: ParseOptions) -> Option<Arc<Expr>> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |entry: &Entry| entry.query == query && entry.options == options;
        let at = entries.iter().position(known)?;
        let entry = entries.remove(at)?;
        let expr = entry.expr.clone();
        entries.push_front(entry);
        Some(expr)
    }
}

/// Repetitions by number and classes of Unicode make much of few characters.
fn is_kept(query: &str) -> bool {
    let repeats = |pair: &[u8]| pair[0] == b'{' && pair[1].is_ascii_digit();
    let is_class = |pair: &[u8]| pair[0] == b'\\' && matches!(pair[1], b'p' | b'P');
    let mut pairs = query.as_bytes().windows(2);
    query.len() <= PARSED_QUERY_BYTES_MAX && !pairs.any(|pair| repeats(pair) || is_class(pair))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_is_parsed_once_and_the_oldest_leaves() {
        let parsed = Parsed::default();
        let options = ParseOptions::default();
        let get = |query: &str| parsed.get(query, options).unwrap();
        let first = get("sum(x)");
        assert!(Arc::ptr_eq(&first, &get("sum(x)")));
        let other = ParseOptions {
            experimental_functions: !options.experimental_functions,
            ..options
        };
        assert!(!Arc::ptr_eq(&first, &parsed.get("sum(x)", other).unwrap()));
        for n in 0..PARSED_QUERIES_MAX {
            get(&format!("x{n}"));
        }
        assert_eq!(parsed.0.lock().unwrap().len(), PARSED_QUERIES_MAX);
        assert!(!Arc::ptr_eq(&first, &get("sum(x)")));
        for large in ["x{a=~\".{1000}\"}", "x{a=~\"\\\\pL*\"}", &"-".repeat(2000)] {
            assert!(!is_kept(large), "{large}");
        }
        assert!(parsed.get("sum(", options).is_err());
    }
}
