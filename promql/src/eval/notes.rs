//! Annotations: what an answer says besides its values.

use model::fragment::PartNote;

use crate::ast::Expr;
use crate::error::Position;
use crate::quote::quote;

/// How many of each kind are told; of the rest only the number.
const SHOWN_MAX: usize = 10;

/// Warnings and infos, each text once, in the order they came up; the place is the last one that
/// gave rise to it.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    warnings: Vec<Note>,
    infos: Vec<Note>,
}

#[derive(Debug)]
struct Note {
    text: String,
    /// In the query, in bytes.
    offset: usize,
    at: Position,
}

impl Notes {
    pub fn warn(&mut self, query: &str, place: &Expr, text: &str) {
        note(&mut self.warnings, query, place, text);
    }

    pub fn inform(&mut self, query: &str, place: &Expr, text: &str) {
        note(&mut self.infos, query, place, text);
    }

    /// As [`Self::warn`], about a quantile outside 0 to 1.
    pub fn warn_quantile(&mut self, query: &str, place: &Expr, quantile: f64) {
        if !(0.0..=1.0).contains(&quantile) {
            let got = short_float(quantile);
            let text = format!("quantile value should be between 0 and 1, got {got}");
            self.warn(query, place, &text);
        }
    }

    /// As [`Self::inform`], about a rate of what does not look like a counter.
    pub fn inform_if_no_counter(&mut self, query: &str, place: &Expr, name: &str) {
        const SUFFIXES: [&str; 4] = ["_total", "_sum", "_count", "_bucket"];
        if !name.is_empty() && !SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
            let name = quote(name);
            let text = format!(
                "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {name}"
            );
            self.inform(query, place, &text);
        }
    }

    /// What a shard noted, for whoever puts the parts together.
    pub fn into_parts(self) -> Vec<PartNote> {
        let part = |is_warning| {
            move |note: Note| PartNote {
                is_warning,
                text: note.text,
                offset: u32::try_from(note.offset).unwrap_or(u32::MAX),
            }
        };
        let warnings = self.warnings.into_iter().map(part(true));
        let infos = self.infos.into_iter().map(part(false));
        warnings.chain(infos).collect()
    }

    /// Takes over what a shard noted.
    pub fn add_parts(&mut self, query: &str, notes: Vec<PartNote>) {
        for note in notes {
            let kind = match note.is_warning {
                true => &mut self.warnings,
                false => &mut self.infos,
            };
            add(kind, query, note.offset as usize, note.text);
        }
    }

    /// Warnings and infos.
    pub fn into_texts(self) -> (Vec<String>, Vec<String>) {
        (
            shorten(self.warnings, "warning"),
            shorten(self.infos, "info"),
        )
    }
}

fn note(notes: &mut Vec<Note>, query: &str, place: &Expr, text: &str) {
    // Prometheus loses the place of a subquery that is an argument.
    let start = match place {
        Expr::Subquery(_) => 0,
        place => place.span().start,
    };
    add(notes, query, start, text.to_owned());
}

fn add(notes: &mut Vec<Note>, query: &str, offset: usize, text: String) {
    let at = Position::of(query, offset);
    match notes.iter_mut().find(|note| note.text == text) {
        Some(note) => (note.offset, note.at) = (offset, at),
        None => notes.push(Note { text, offset, at }),
    }
}

fn shorten(notes: Vec<Note>, kind: &str) -> Vec<String> {
    let omitted = notes.len().saturating_sub(SHOWN_MAX);
    let shown = notes.into_iter().take(SHOWN_MAX);
    let mut texts: Vec<String> = shown
        .map(|note| format!("PromQL {kind}: {} ({})", note.text, note.at))
        .collect();
    if omitted > 0 {
        texts.push(format!("{omitted} more {kind} annotations omitted"));
    }
    texts
}

/// A float as messages show it: the shortest text, with an exponent from a million on and below a
/// ten-thousandth.
fn short_float(value: f64) -> String {
    let magnitude = value.abs();
    if value.is_finite() && magnitude != 0.0 && !(1e-4..1e6).contains(&magnitude) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    crate::printer::format_float(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_made_once_and_many_are_counted() {
        let query = "x + y";
        let expr = crate::parse(query).unwrap();
        let mut notes = Notes::default();
        for i in 0..12 {
            notes.warn_quantile(query, &expr, 2.0);
            notes.inform_if_no_counter(query, &expr, &format!("m{i}"));
            notes.inform_if_no_counter(query, &expr, "m_total");
        }
        let (warnings, infos) = notes.into_texts();
        let warning = "PromQL warning: quantile value should be between 0 and 1, got 2 (1:1)";
        assert_eq!(warnings, [warning]);
        assert_eq!(infos.len(), 11);
        assert_eq!(infos[10], "2 more info annotations omitted");
    }

    #[test]
    fn floats_are_short() {
        assert_eq!(short_float(-1e30), "-1e+30");
        assert_eq!(short_float(1.5e-7), "1.5e-07");
        assert_eq!(short_float(3_518_773.5), "3.5187735e+06");
        assert_eq!(short_float(999_999.5), "999999.5");
        assert_eq!(short_float(f64::INFINITY), "+Inf");
        assert_eq!(short_float(1.5), "1.5");
    }
}
