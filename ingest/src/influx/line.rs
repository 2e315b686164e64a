//! One line of the line protocol: `measurement[,tag=value…] field=value[,field=value…] [time]`.
//!
//! Grammar: docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol, and InfluxDB's words
//! for what breaks it. A backslash escapes a comma, an equal sign and a blank outside of strings,
//! a quote and a backslash inside; before everything else it stands for itself. A line ends at a
//! line feed that stands in no string.

use std::borrow::Cow;

use model::number;

/// A line taken apart; text still has its escapes.
#[derive(Debug, Default, PartialEq)]
pub struct Line<'a> {
    pub measurement: &'a str,
    pub tags: Vec<(&'a str, &'a str)>,
    pub fields: Vec<(&'a str, Value)>,
    /// In the precision of the request.
    pub time: Option<i64>,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    Number(f64),
    /// A string, which no series can hold.
    Text,
}

/// Where the line that begins `block` ends, without its line feed; `None` if that is not in there.
pub fn end(block: &[u8]) -> Option<usize> {
    let mut at = 0;
    let comment = block
        .iter()
        .find(|b| !matches!(b, b' ' | b'\t' | b'\r' | 0))
        == Some(&b'#');
    let (mut quoted, mut blanks, mut equals) = (false, 0, 0);
    while let Some(byte) = block.get(at) {
        match byte {
            b'\\' if !comment && block.get(at + 1).is_some_and(|next| *next != b'\n') => at += 1,
            b'\n' if !quoted => return Some(at),
            // Strings stand only where fields do: behind the first blank and an equal sign.
            b' ' if !quoted => blanks += 1,
            b'=' if !quoted && blanks > 0 => equals += 1,
            b'"' if !comment && blanks > 0 && equals > 0 => quoted = !quoted,
            _ => {}
        }
        at += 1;
    }
    None
}

/// Takes a line apart; the error is InfluxDB's cause.
pub fn parse(line: &str) -> Result<Line<'_>, &'static str> {
    let (key, rest) = cut(line, b' ');
    let rest = rest.ok_or("missing fields")?.trim_start_matches(' ');
    let (measurement, tags) = cut(key, b',');
    if measurement.is_empty() {
        return Err("missing measurement");
    }
    let mut parsed = Line {
        measurement,
        ..Line::default()
    };
    if let Some(tags) = tags {
        parsed.tags = read_tags(tags)?;
    }
    let fields_end = fields_end(rest)?;
    let (fields, time) = rest.split_at(fields_end);
    if fields.is_empty() {
        return Err("missing fields");
    }
    parsed.fields = read_fields(fields)?;
    parsed.time = match time.trim_matches([' ', '\t', '\r']) {
        "" => None,
        text => Some(text.parse().map_err(|_| "bad timestamp")?),
    };
    Ok(parsed)
}

/// Undoes the escapes of a measurement, tag or field key.
pub fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, rest.peek()) {
            ('\\', Some(',' | '=' | ' ')) => {}
            _ => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// The text before the first `at` that is not escaped, and what stands behind it.
fn cut(text: &str, at: u8) -> (&str, Option<&str>) {
    let bytes = text.as_bytes();
    let mut index = 0;
    while let Some(byte) = bytes.get(index) {
        if *byte == at {
            return (&text[..index], Some(&text[index + 1..]));
        }
        // What is escaped may be a character of several bytes: none of them is `at`.
        index += if *byte == b'\\' { 2 } else { 1 };
    }
    (text, None)
}

fn read_tags(text: &str) -> Result<Vec<(&str, &str)>, &'static str> {
    let mut tags = Vec::new();
    let mut rest = Some(text);
    while let Some(text) = rest {
        let (pair, behind) = cut(text, b',');
        let (key, value) = cut(pair, b'=');
        let value = value.ok_or("missing tag value")?;
        if key.is_empty() {
            return Err("missing tag key");
        }
        if value.is_empty() {
            return Err("missing tag value");
        }
        if cut(value, b'=').1.is_some() {
            return Err("invalid tag format");
        }
        tags.push((key, value));
        rest = behind;
    }
    Ok(tags)
}

/// Where the fields end: at a blank outside of strings, or with the line.
fn fields_end(text: &str) -> Result<usize, &'static str> {
    let bytes = text.as_bytes();
    let (mut at, mut quoted) = (0, false);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            b'"' => quoted = !quoted,
            b' ' if !quoted => return Ok(at),
            _ => {}
        }
        at += 1;
    }
    match quoted {
        true => Err("unbalanced quotes"),
        false => Ok(text.len()),
    }
}

fn read_fields(text: &str) -> Result<Vec<(&str, Value)>, &'static str> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (key, behind) = cut(rest, b'=');
        let behind = behind.ok_or("missing field value")?;
        if key.is_empty() {
            return Err("missing field key");
        }
        let value_end = value_end(behind);
        let (value, tail) = behind.split_at(value_end);
        fields.push((key, read_value(value)?));
        match tail.strip_prefix(',') {
            None if tail.is_empty() => return Ok(fields),
            None => return Err("invalid field format"),
            Some(tail) => rest = tail,
        }
    }
}

/// Where a field's value ends: a comma outside of a string.
fn value_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    if bytes.first() != Some(&b'"') {
        return bytes.iter().position(|b| *b == b',').unwrap_or(text.len());
    }
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            b'"' => return at + 1,
            _ => {}
        }
        at += 1;
    }
    text.len()
}

fn read_value(text: &str) -> Result<Value, &'static str> {
    let first = *text.as_bytes().first().ok_or("missing field value")?;
    match first {
        b'"' => return Ok(Value::Text),
        b'0'..=b'9' | b'+' | b'-' | b'.' => {}
        _ => {
            return match text {
                "t" | "T" | "true" | "True" | "TRUE" => Ok(Value::Number(1.0)),
                "f" | "F" | "false" | "False" | "FALSE" => Ok(Value::Number(0.0)),
                _ if first.is_ascii_alphabetic() && matches!(first, b't' | b'T' | b'f' | b'F') => {
                    Err("invalid boolean")
                }
                _ => Err("invalid number"),
            };
        }
    }
    let number = match text.as_bytes().last() {
        Some(b'i') => text[..text.len() - 1].parse::<i64>().ok().map(|n| n as f64),
        Some(b'u') => text[..text.len() - 1].parse::<u64>().ok().map(|n| n as f64),
        _ => number::parse(text).filter(|n| n.is_finite()),
    };
    number.map(Value::Number).ok_or("invalid number")
}
