//! Graphite's plaintext and pickle protocols, to samples named by mapping rules.
//!
//! A line is `path value time`, its path perhaps with tags: `name;tag=value`. As graphite_exporter
//! does, a rule's labels win over tags, a tag without `=` is left out and counted, and what no
//! rule names keeps its path with every other character than letters, digits, `_` and `:` as `_`.
//! Unlike there, samples keep the time the line gives; without one, or with -1, it is now.

pub mod pickle;
#[cfg(test)]
mod tests;

use model::labels::METRIC_NAME;
use model::{LabelsBuilder, Timestamp, number};

use crate::lines::{self, Parsed};
use crate::mapping::{Action, MetricType, Rules};
use crate::names;

/// How lines are taken.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    pub rules: &'a Rules,
    /// Whether only what a rule names is kept.
    pub strict: bool,
    /// Of lines without a time.
    pub now: Timestamp,
}

/// Lines that became no sample, by reason.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub malformed: u64,
    /// By a rule's action.
    pub dropped: u64,
    /// No rule fits, and only what a rule names is kept.
    pub unmatched: u64,
    /// Tags that were left out; their lines were kept.
    pub bad_tags: u64,
}

/// One measurement, whichever protocol it came by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point<'a> {
    pub path: &'a str,
    pub value: f64,
    /// Seconds since 1970.
    pub time: Option<f64>,
}

/// Reads whole lines.
pub fn read(block: &[u8], options: &Options<'_>, parsed: &mut Parsed, tally: &mut Tally) {
    for line in lines::split(block) {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match std::str::from_utf8(line).ok().and_then(read_line) {
            Some(point) => add(&point, options, parsed, tally),
            None => tally.malformed += 1,
        }
    }
}

fn read_line(line: &str) -> Option<Point<'_>> {
    let mut words = line.split_ascii_whitespace();
    let (path, value, time) = (words.next()?, words.next()?, words.next());
    if words.next().is_some() {
        return None;
    }
    let time = match time {
        None | Some("N") => None,
        Some(text) => Some(number::parse(text).filter(|time| time.is_finite())?),
    };
    Some(Point {
        path,
        value: number::parse(value)?,
        time: time.filter(|time| *time != -1.0),
    })
}

/// Adds one measurement.
pub fn add(point: &Point<'_>, options: &Options<'_>, parsed: &mut Parsed, tally: &mut Tally) {
    let mut tags = point.path.split(';');
    let path = tags.next().unwrap_or_default();
    if path.is_empty() {
        tally.malformed += 1;
        return;
    }
    let mut labels = LabelsBuilder::default();
    for tag in tags {
        match tag.split_once('=').filter(|(name, _)| !name.is_empty()) {
            Some((name, value)) => {
                labels.set(&names::label(name), value);
            }
            None => tally.bad_tags += 1,
        }
    }
    let mapped = options.rules.find(path, MetricType::Gauge);
    match &mapped {
        None if options.strict => tally.unmatched += 1,
        Some(mapped) if mapped.rule.action == Action::Drop => tally.dropped += 1,
        _ => {
            let mut value = point.value;
            let name = match &mapped {
                Some(mapped) => {
                    for (name, value) in &mapped.labels {
                        labels.set(name, value);
                    }
                    value *= mapped.rule.scale.unwrap_or(1.0);
                    &mapped.name
                }
                None => path,
            };
            labels.set(METRIC_NAME, &names::metric(name));
            let at = point.time.map_or(options.now, milliseconds);
            parsed.add(0, labels.build(), at, value);
        }
    }
}

/// Saturates at the ends of time, where no sample is taken anyway.
fn milliseconds(seconds: f64) -> Timestamp {
    Timestamp((seconds * 1000.0).floor() as i64)
}
