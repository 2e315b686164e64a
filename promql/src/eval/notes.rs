//! Annotations: what an answer says besides its values.

use model::fragment::PartNote;

use super::element::Trouble;
use crate::ast::{Aggregate, AggregateOp, Binary, Expr};
use crate::error::Position;
use crate::native::Incompatible;
use model::quote::quote;

/// How many of each kind are told; of the rest only the number.
const SHOWN_MAX: usize = 10;

/// Warnings and infos, each text once; the place is the last one that gave rise to it. They are told
/// sorted, as it depends on where series lie which came up first.
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
}

impl Notes {
    pub fn warn(&mut self, place: &Expr, text: &str) {
        note(&mut self.warnings, offset(place), text);
    }

    pub fn inform(&mut self, place: &Expr, text: &str) {
        note(&mut self.infos, offset(place), text);
    }

    /// As [`Self::warn`], about a quantile outside 0 to 1.
    pub fn warn_quantile(&mut self, place: &Expr, quantile: f64) {
        if !(0.0..=1.0).contains(&quantile) {
            let got = short_float(quantile);
            let text = format!("quantile value should be between 0 and 1, got {got}");
            self.warn(place, &text);
        }
    }

    /// As [`Self::inform`], about a rate of what does not look like a counter.
    pub fn inform_if_no_counter(&mut self, place: &Expr, name: &str) {
        const SUFFIXES: [&str; 4] = ["_total", "_sum", "_count", "_bucket"];
        if !name.is_empty() && !SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
            let name = quote(name);
            let text = format!(
                "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {name}"
            );
            self.inform(place, &text);
        }
    }

    /// As [`Self::inform_if_no_counter`], where metrics carry their type.
    pub fn inform_if_not_typed_counter(&mut self, place: &Expr, name: &str, ty: &str) {
        if !name.is_empty() && ty != "counter" {
            let (name, ty) = (quote(name), quote(ty));
            let text = format!(
                "metric might not be a counter, __type__ label is not set to \"counter\", got {ty}: {name}"
            );
            self.inform(place, &text);
        }
    }

    pub fn warn_mixed(&mut self, place: &Expr, name: &str) {
        let name = quote(name);
        let text = format!("encountered a mix of histograms and floats for metric name {name}");
        self.warn(place, &text);
    }

    pub fn warn_mixed_in_aggregation(&mut self, place: &Expr) {
        let text = "encountered a mix of histograms and floats for aggregation";
        self.warn(place, text);
    }

    pub fn warn_not_counter(&mut self, place: &Expr, name: &str) {
        let text = format!(
            "this native histogram metric is not a counter: {}",
            quote(name)
        );
        self.warn(place, &text);
    }

    pub fn warn_not_gauge(&mut self, place: &Expr, name: &str) {
        let text = format!(
            "this native histogram metric is not a gauge: {}",
            quote(name)
        );
        self.warn(place, &text);
    }

    pub fn warn_incompatible(&mut self, place: &Expr, name: &str, why: Incompatible) {
        let what = match why {
            Incompatible::Schema => {
                "a mix of histograms with exponential and custom buckets schemas"
            }
            Incompatible::Bounds => "histograms with incompatible custom buckets",
        };
        let text = format!("vector contains {what} for metric name {}", quote(name));
        self.warn(place, &text);
    }

    pub fn warn_ratio(&mut self, place: &Expr, ratio: f64, to: f64) {
        let (ratio, to) = (short_float(ratio), short_float(to));
        let text = format!("ratio value should be between -1 and 1, got {ratio}, capping to {to}");
        self.warn(place, &text);
    }

    /// Tells why a pair of values has no result.
    pub(super) fn tell(&mut self, binary: &Binary, trouble: Trouble) {
        let op = binary.op.as_str();
        let at = binary.left.span().start;
        match trouble {
            Trouble::Types(l, r) => {
                let shown = quote(op);
                let text = format!(
                    "incompatible sample types encountered for binary operator {shown}: {l} {op} {r}"
                );
                note(&mut self.infos, at, &text);
            }
            Trouble::Layout => {
                let text =
                    format!("incompatible bucket layout encountered for binary operator {op}");
                note(&mut self.warnings, at, &text);
            }
        }
    }

    pub fn inform_ignored_in_range(&mut self, place: &Expr, name: &str) {
        let name = quote(name);
        let text = format!(
            "ignored histograms in a range containing both floats and histograms for metric name {name}"
        );
        self.inform(place, &text);
    }

    /// Of `topk` and `bottomk` Prometheus tells the place of the whole, of others that of the operand.
    pub fn inform_ignored_in_aggregation(&mut self, aggregate: &Aggregate) {
        let offset = match aggregate.op {
            AggregateOp::Topk | AggregateOp::Bottomk => aggregate.span.start,
            _ => offset(&aggregate.expr),
        };
        let text = format!("ignored histogram in {} aggregation", aggregate.op.as_str());
        note(&mut self.infos, offset, &text);
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
    pub fn add_parts(&mut self, notes: &[PartNote]) {
        for note in notes {
            let kind = match note.is_warning {
                true => &mut self.warnings,
                false => &mut self.infos,
            };
            self::note(kind, note.offset as usize, &note.text);
        }
    }

    /// Warnings and infos about `query`.
    pub fn into_texts(self, query: &str) -> (Vec<String>, Vec<String>) {
        (
            shorten(self.warnings, query, "warning"),
            shorten(self.infos, query, "info"),
        )
    }
}

fn offset(place: &Expr) -> usize {
    match place {
        // Prometheus loses the place of a subquery that is an argument.
        Expr::Subquery(_) => 0,
        place => place.span().start,
    }
}

fn note(notes: &mut Vec<Note>, offset: usize, text: &str) {
    match notes.iter_mut().find(|note| note.text == text) {
        Some(note) => note.offset = offset,
        None => notes.push(Note {
            text: text.to_owned(),
            offset,
        }),
    }
}

fn shorten(mut notes: Vec<Note>, query: &str, kind: &str) -> Vec<String> {
    notes.sort_unstable_by(|a, b| a.text.cmp(&b.text));
    let omitted = notes.len().saturating_sub(SHOWN_MAX);
    let shown = notes.into_iter().take(SHOWN_MAX);
    let at = |note: &Note| Position::of(query, note.offset);
    let mut texts: Vec<String> = shown
        .map(|note| format!("PromQL {kind}: {} ({})", note.text, at(&note)))
        .collect();
    if omitted > 0 {
        texts.push(format!("{omitted} more {kind} annotations omitted"));
    }
    texts
}

/// A float as messages show it: the shortest text, with an exponent from a million on and below a
/// ten-thousandth.
pub(crate) fn short_float(value: f64) -> String {
    let magnitude = value.abs();
    if value.is_finite() && magnitude != 0.0 && !(1e-4..1e6).contains(&magnitude) {
        return model::number::exposition(value);
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
            notes.warn_quantile(&expr, 2.0);
            notes.inform_if_no_counter(&expr, &format!("m{i}"));
            notes.inform_if_no_counter(&expr, "m_total");
        }
        let (warnings, infos) = notes.into_texts(query);
        let warning = "PromQL warning: quantile value should be between 0 and 1, got 2 (1:1)";
        assert_eq!(warnings, [warning]);
        assert_eq!(infos.len(), 11);
        assert_eq!(infos[10], "2 more info annotations omitted");
    }

    #[test]
    fn which_shard_answered_first_does_not_show() {
        let query = "rate(x[5m])";
        let part = |name: &str| {
            let mut notes = Notes::default();
            notes.inform_if_no_counter(&crate::parse(query).unwrap(), name);
            notes.into_parts()
        };
        let told = |names: &[String]| {
            let mut notes = Notes::default();
            names.iter().for_each(|name| notes.add_parts(&part(name)));
            notes.into_texts(query)
        };
        let mut names: Vec<String> = (0..12).map(|i| format!("m{i}")).collect();
        let (_, infos) = told(&names);
        assert_eq!(infos.len(), 11);
        names.reverse();
        assert_eq!(told(&names).1, infos);
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
