//! What the line protocols have in common: lines cut out of blocks of bytes, a batch that
//! remembers from which line each row came, and what is told of lines that were not stored.
//!
//! Promise: of bad lines a bounded number is kept, each with a bounded excerpt, and all are
//! counted. Not here: what a line means, and what is done with the batch.

use std::ops::Range;

use model::hash::Map;
use model::limits::LINE_PROBLEMS_MAX;
use model::sink::Written;
use model::{Batch, Labels, Timestamp};

/// Of a line that is told of.
const EXCERPT_BYTES: usize = 200;

/// A line that was not stored, or not wholly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1 over the whole body.
    pub line: u64,
    /// The beginning of the line, or the series it stands for.
    pub text: String,
    pub cause: String,
    /// Whether the line was understood and the store refused what it says.
    pub refused: bool,
}

/// The first problems, and how many there are.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Problems {
    pub first: Vec<Problem>,
    pub total: u64,
}

impl Problems {
    /// A line that cannot be understood.
    pub fn add(&mut self, line: u64, text: &str, cause: impl Into<String>) {
        self.push(line, text, cause, false);
    }

    fn push(&mut self, line: u64, text: &str, cause: impl Into<String>, refused: bool) {
        self.total += 1;
        if self.first.len() < LINE_PROBLEMS_MAX {
            self.first.push(Problem {
                line,
                text: excerpt(text).to_owned(),
                cause: cause.into(),
                refused,
            });
        }
    }

    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// How many are not in `first`.
    pub fn untold(&self) -> u64 {
        self.total - self.first.len() as u64
    }

    /// Takes over what another block of the same body had to tell.
    pub fn append(&mut self, mut other: Self) {
        let room = LINE_PROBLEMS_MAX - self.first.len();
        other.first.sort_by_key(|problem| problem.line);
        other.first.truncate(room);
        self.first.append(&mut other.first);
        self.total += other.total;
    }
}

/// One block of lines, decoded.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Parsed {
    pub batch: Batch,
    /// From which line each row of the batch came.
    pub lines: Vec<u64>,
    pub problems: Problems,
}

impl Parsed {
    /// Adds one sample of a series that is named nowhere else in the batch.
    pub fn add(&mut self, line: u64, labels: Labels, at: Timestamp, value: f64) {
        self.batch.add_sample(labels, at, value);
        self.lines.push(line);
    }

    /// Notes what became of the rows from `first` on, written as a batch of their own: a problem
    /// for each that was refused.
    pub fn judge(&mut self, first: usize, written: &Written) {
        let batch = &self.batch;
        for rejection in &written.rejected {
            let row = first + rejection.row as usize;
            let series = batch.rows.series.get(row);
            let labels = series.and_then(|series| batch.series.get(*series as usize));
            let at = batch.rows.timestamps.get(row).copied().unwrap_or_default();
            let line = self.lines.get(row).copied().unwrap_or_default();
            let text = labels.map(ToString::to_string).unwrap_or_default();
            let cause = format!("{} at {at}", rejection.reason.as_str());
            self.problems.push(line, &text, cause, true);
        }
    }
}

/// Rows of a batch, as a batch: what one write takes. Exemplars stay behind.
pub fn part(batch: &Batch, rows: Range<usize>) -> Batch {
    let mut part = Batch::default();
    let mut places: Map<u32, u32> = Map::default();
    for row in rows {
        let series = batch.rows.series[row];
        let place = *places
            .entry(series)
            .or_insert_with(|| part.add_series(batch.series[series as usize].clone()));
        part.rows
            .push(place, batch.rows.timestamps[row], batch.rows.values[row]);
    }
    part
}

/// How many bytes of `block` are whole lines. `last` means that nothing comes behind the block.
pub fn whole_lines(block: &[u8], last: bool) -> usize {
    match last {
        true => block.len(),
        false => block
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1),
    }
}

/// The lines of a block without their ends (`\n` or `\r\n`).
pub fn split(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    let block = block.strip_suffix(b"\n").unwrap_or(block);
    block
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// At most [`EXCERPT_BYTES`] of a text, cut between characters.
fn excerpt(text: &str) -> &str {
    let mut end = text.len().min(EXCERPT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use model::sink::{Reason, Rejection};

    use super::*;

    #[test]
    fn lines_wait_until_they_are_whole() {
        assert_eq!(whole_lines(b"a\nb", false), 2);
        assert_eq!(whole_lines(b"a\nb", true), 3);
        assert_eq!(whole_lines(b"ab", false), 0);
        let lines: Vec<_> = split(b"a\r\n\nb\n").collect();
        assert_eq!(lines, [&b"a"[..], b"", b"b"]);
    }

    #[test]
    fn problems_are_bounded_and_counted() {
        let mut problems = Problems::default();
        for line in 1..=100 {
            problems.add(line, &"é".repeat(1000), "x");
        }
        assert_eq!((problems.total, problems.untold()), (100, 84));
        assert_eq!(problems.first[15].line, 16);
        assert_eq!(problems.first[0].text.len(), EXCERPT_BYTES);
        let mut both = problems.clone();
        both.append(problems);
        assert_eq!((both.total, both.first.len()), (200, LINE_PROBLEMS_MAX));
    }

    #[test]
    fn a_refused_row_is_told_with_its_line() {
        let mut parsed = Parsed::default();
        let named = |name| Labels::from_pairs([("__name__", name)]);
        parsed.add(3, named("a"), Timestamp(1), 1.0);
        parsed.add(7, named("b"), Timestamp(2), 1.0);
        let second = part(&parsed.batch, 1..2);
        assert_eq!(second.series, [named("b")]);
        assert_eq!(second.validate(), Ok(()));
        let rejected = vec![Rejection {
            row: 0,
            reason: Reason::TooOld,
        }];
        parsed.judge(1, &Written { rejected });
        let problem = &parsed.problems.first[0];
        assert_eq!(problem.line, 7);
        assert_eq!(problem.text, r#"{__name__="b"}"#);
        assert_eq!(problem.cause, "too old sample at 2");
    }
}
