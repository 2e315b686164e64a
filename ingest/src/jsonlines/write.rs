//! Samples of a series as lines of JSON.

use std::fmt::Write;
use std::ops::Range;

use model::sample::is_stale;
use model::{Labels, Samples, number};

/// Appends one line, with the samples at `rows`, all of which are floats.
pub fn write(labels: &Labels, samples: &Samples, rows: Range<usize>, out: &mut String) {
    out.push_str("{\"metric\":{");
    for (index, (name, value)) in labels.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_string(name, out);
        out.push(':');
        write_string(value, out);
    }
    out.push_str("},\"values\":[");
    for (index, value) in samples.values[rows.clone()].iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_value(*value, out);
    }
    out.push_str("],\"timestamps\":[");
    for (index, at) in samples.timestamps[rows].iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        write!(out, "{comma}{at}").expect("a text takes everything");
    }
    out.push_str("]}\n");
}

fn write_value(value: f64, out: &mut String) {
    match value {
        _ if is_stale(value) => out.push_str("null"),
        _ if value.is_nan() => out.push_str("\"NaN\""),
        f64::INFINITY => out.push_str("\"Infinity\""),
        f64::NEG_INFINITY => out.push_str("\"-Infinity\""),
        _ => number::write_json(out, value),
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("a text takes everything");
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
