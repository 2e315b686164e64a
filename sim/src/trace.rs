//! Every event of a run as a line, and a hash over all lines.
//!
//! Two runs with equal hashes did the same things at the same virtual instants.

use std::fmt;
use std::io::Write;
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

/// Hashes lines and, if asked to, keeps them.
pub struct Trace {
    hash: Xxh3,
    lines: u64,
    out: Option<Box<dyn Write + Send>>,
}

impl Trace {
    pub fn new(out: Option<Box<dyn Write + Send>>) -> Self {
        Self {
            hash: Xxh3::new(),
            lines: 0,
            out,
        }
    }

    /// Adds one event of `who` at virtual time `at`.
    pub fn line(&mut self, at: Duration, who: &str, what: impl fmt::Display) {
        let line = format!("{:>12.6} {who} {what}\n", at.as_secs_f64());
        self.hash.update(line.as_bytes());
        self.lines += 1;
        if let Some(out) = &mut self.out {
            out.write_all(line.as_bytes())
                .expect("the trace can be written");
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash.digest()
    }

    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Makes sure that a kept trace is whole.
    pub fn finish(&mut self) {
        if let Some(out) = &mut self.out {
            out.flush().expect("the trace can be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_depends_on_time_author_and_text() {
        let hash = |at, who, what: &str| {
            let mut trace = Trace::new(None);
            trace.line(Duration::from_millis(at), who, what);
            trace.hash()
        };
        assert_eq!(hash(1, "n1", "x"), hash(1, "n1", "x"));
        for other in [hash(2, "n1", "x"), hash(1, "n2", "x"), hash(1, "n1", "y")] {
            assert_ne!(hash(1, "n1", "x"), other);
        }
    }
}
