//! Series as lines of JSON, in VictoriaMetrics' shape, both ways:
//! `{"metric":{"__name__":"up"},"values":[1,0],"timestamps":[1650000000000,1650000015000]}`.
//!
//! Source: docs.victoriametrics.com, "How to import data in JSON line format". Times are
//! milliseconds. What JSON has no number for is written as there: `"Infinity"`, `"-Infinity"`;
//! not a number is `"NaN"` and the staleness marker `null`, both of which VictoriaMetrics reads as
//! no value. What was written reads back to the same bits, except that all ordinary NaNs are one.

mod cursor;
#[cfg(test)]
mod tests;
mod write;

use model::sample::STALE_NAN;
use model::{Labels, LabelsBuilder, Timestamp, number};

use crate::lines::{self, Parsed};
use cursor::{Cursor, JsonError};
pub use write::write;

/// Reads the whole lines of `block` into `parsed` and returns their length. `extra` is set on every
/// series; `line` is the number of the line read last, and stays so.
pub fn read(
    block: &[u8],
    last: bool,
    extra: &[(String, String)],
    line: &mut u64,
    parsed: &mut Parsed,
) -> usize {
    let length = lines::whole_lines(block, last);
    for bytes in lines::split(&block[..length]) {
        *line += 1;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let text = String::from_utf8_lossy(bytes);
        let outcome = std::str::from_utf8(bytes)
            .map_err(|_| "invalid UTF-8".to_owned())
            .and_then(|text| read_line(text, extra));
        match outcome {
            Ok(object) => object.put(*line, parsed),
            Err(cause) => parsed.problems.add(*line, &text, cause),
        }
    }
    length
}

/// What one line holds.
struct Object {
    labels: Labels,
    values: Vec<f64>,
    timestamps: Vec<Timestamp>,
}

impl Object {
    fn put(self, line: u64, parsed: &mut Parsed) {
        let series = parsed.batch.add_series(self.labels);
        for (at, value) in self.timestamps.into_iter().zip(self.values) {
            parsed.batch.rows.push(series, at, value);
            parsed.lines.push(line);
        }
    }
}

fn read_line(text: &str, extra: &[(String, String)]) -> Result<Object, String> {
    let mut cursor = Cursor::new(text);
    let mut parts = Parts::default();
    parts.read(&mut cursor).map_err(|e| e.to_string())?;
    let mut labels = parts.metric.ok_or("missing \"metric\"")?;
    for (name, value) in extra {
        labels.set(name, value);
    }
    let values = parts.values.ok_or("missing \"values\"")?;
    let timestamps = parts.timestamps.ok_or("missing \"timestamps\"")?;
    if values.len() != timestamps.len() {
        return Err(format!(
            "{} values but {} timestamps",
            values.len(),
            timestamps.len()
        ));
    }
    let labels = labels.build();
    if labels.metric_name().is_empty() {
        return Err("\"metric\" has no __name__".to_owned());
    }
    Ok(Object {
        labels,
        values,
        timestamps,
    })
}

#[derive(Default)]
struct Parts {
    metric: Option<LabelsBuilder>,
    values: Option<Vec<f64>>,
    timestamps: Option<Vec<Timestamp>>,
}

impl Parts {
    fn read(&mut self, cursor: &mut Cursor<'_>) -> Result<(), JsonError> {
        cursor.expect(b'{', "expected an object")?;
        let mut more = !cursor.eat(b'}');
        while more {
            let key = cursor.string()?;
            cursor.expect(b':', "expected ':'")?;
            match &*key {
                "metric" => self.metric = Some(metric(cursor)?),
                "values" => self.values = Some(list(cursor, value)?),
                "timestamps" => self.timestamps = Some(list(cursor, timestamp)?),
                _ => cursor.skip()?,
            }
            more = cursor.goes_on(b'}', "expected ',' or '}'")?;
        }
        match cursor.peek() {
            None => Ok(()),
            Some(_) => Err(cursor.error("something behind the object")),
        }
    }
}

fn metric(cursor: &mut Cursor<'_>) -> Result<LabelsBuilder, JsonError> {
    let mut labels = LabelsBuilder::default();
    cursor.expect(b'{', "expected an object of labels")?;
    let mut more = !cursor.eat(b'}');
    while more {
        let name = cursor.string()?;
        cursor.expect(b':', "expected ':'")?;
        labels.set(&name, &cursor.string()?);
        more = cursor.goes_on(b'}', "expected ',' or '}'")?;
    }
    Ok(labels)
}

fn list<T>(
    cursor: &mut Cursor<'_>,
    element: fn(&mut Cursor<'_>) -> Result<T, JsonError>,
) -> Result<Vec<T>, JsonError> {
    let mut elements = Vec::new();
    cursor.expect(b'[', "expected an array")?;
    let mut more = !cursor.eat(b']');
    while more {
        elements.push(element(cursor)?);
        more = cursor.goes_on(b']', "expected ',' or ']'")?;
    }
    Ok(elements)
}

fn value(cursor: &mut Cursor<'_>) -> Result<f64, JsonError> {
    if cursor.eat_word("null") {
        return Ok(STALE_NAN);
    }
    let wrong = cursor.error("expected a number, null or \"Infinity\", \"-Infinity\", \"NaN\"");
    let value = match cursor.peek() {
        Some(b'"') => number::parse(&cursor.string()?).filter(|value| !value.is_finite()),
        _ => number::parse(cursor.number()?),
    };
    value.ok_or(wrong)
}

fn timestamp(cursor: &mut Cursor<'_>) -> Result<Timestamp, JsonError> {
    let wrong = cursor.error("expected whole milliseconds");
    let text = cursor.number()?;
    let whole = text.parse().ok().or_else(|| {
        let float: f64 = text.parse().ok()?;
        let in_range = float.abs() < 9e15 && float.fract() == 0.0;
        in_range.then_some(float as i64)
    });
    whole.map(Timestamp).ok_or(wrong)
}
