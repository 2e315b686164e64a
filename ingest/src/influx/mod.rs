//! InfluxDB's line protocol, to samples named as influxdb_exporter and VictoriaMetrics name them.
//!
//! A field becomes the series `measurement_field`, `measurement` when it is called `value`; tags
//! become labels; names are made legal ([`names`]), values stay. Integers, unsigned numbers and
//! truth values become numbers; strings are left out, since a series cannot hold them. A line
//! that breaks the grammar takes nothing with it.

pub mod line;
#[cfg(test)]
mod tests;

use model::labels::METRIC_NAME;
use model::limits::LABELS_MAX;
use model::{LabelsBuilder, Timestamp};

use crate::lines::Parsed;
use crate::names;
use line::{Line, Value};

/// The unit of the times of a request.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    #[default]
    Nanoseconds,
    Microseconds,
    Milliseconds,
    Seconds,
    Minutes,
    Hours,
}

impl Precision {
    /// The parameter `precision`, of both versions of the API.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" | "n" | "ns" => Self::Nanoseconds,
            "u" | "us" | "µ" | "µs" => Self::Microseconds,
            "ms" => Self::Milliseconds,
            "s" => Self::Seconds,
            "m" => Self::Minutes,
            "h" => Self::Hours,
            _ => return None,
        })
    }

    fn timestamp(self, time: i64) -> Option<Timestamp> {
        let ms = match self {
            Self::Nanoseconds => Some(time.div_euclid(1_000_000)),
            Self::Microseconds => Some(time.div_euclid(1_000)),
            Self::Milliseconds => Some(time),
            Self::Seconds => time.checked_mul(1_000),
            Self::Minutes => time.checked_mul(60_000),
            Self::Hours => time.checked_mul(3_600_000),
        };
        ms.map(Timestamp)
    }
}

/// What a request says beside its lines.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    pub precision: Precision,
    /// Of lines without a time.
    pub now: Timestamp,
    /// The label `db` of lines that have no such tag; none when empty.
    pub database: &'a str,
}

/// Reads the lines of `block` into `parsed` and returns how many bytes were whole lines; with
/// `last` all of them are. `line` is the number of the line read last, and stays so.
pub fn read(
    block: &[u8],
    last: bool,
    options: &Options<'_>,
    line: &mut u64,
    parsed: &mut Parsed,
) -> usize {
    let mut done = 0;
    while done < block.len() {
        let rest = &block[done..];
        let (text, length) = match line::end(rest) {
            Some(end) => (&rest[..end], end + 1),
            None if last => (rest, rest.len()),
            None => return done,
        };
        *line += 1;
        read_line(text, options, *line, parsed);
        // A string may hold line feeds.
        *line += text.iter().filter(|byte| **byte == b'\n').count() as u64;
        done += length;
    }
    done
}

fn read_line(bytes: &[u8], options: &Options<'_>, number: u64, parsed: &mut Parsed) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        let text = String::from_utf8_lossy(bytes);
        parsed.problems.add(number, &text, "invalid UTF-8");
        return;
    };
    let text = text.trim_start_matches([' ', '\t', '\0']);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() || text.starts_with('#') {
        return;
    }
    let outcome = line::parse(text).and_then(|line| add(&line, options, number, parsed));
    if let Err(cause) = outcome {
        parsed.problems.add(number, text, cause);
    }
}

fn add(
    line: &Line<'_>,
    options: &Options<'_>,
    number: u64,
    parsed: &mut Parsed,
) -> Result<(), &'static str> {
    let at = match line.time {
        None => options.now,
        Some(time) => {
            let at = options.precision.timestamp(time);
            at.ok_or("time outside range")?
        }
    };
    if line.tags.len() >= LABELS_MAX - 1 {
        return Err("too many tags");
    }
    let mut labels = LabelsBuilder::default();
    labels.set("db", options.database);
    for (key, value) in &line.tags {
        labels.set(&names::label(&line::unescape(key)), &line::unescape(value));
    }
    let measurement = line::unescape(line.measurement);
    for (key, value) in &line.fields {
        let Value::Number(value) = value else {
            continue;
        };
        let field = line::unescape(key);
        let name = match &*field {
            "value" => measurement.to_string(),
            field => format!("{measurement}_{field}"),
        };
        // A colon is what recording rules put into names.
        labels.set(METRIC_NAME, &names::label(&name));
        parsed.add(number, labels.build(), at, *value);
    }
    Ok(())
}
