//! Differences: each is added to what its series stands at, and the sum becomes its next sample.
//!
//! A difference counts once. One that ends where the total ends, or before it at an instant that has
//! a sample, was counted already; any other that is not later is out of order and not counted, and
//! neither is one that began before the series did, as the OpenTelemetry collector's processor has
//! it. What cannot be stored is not counted. A gap between two differences changes nothing.

use std::ops::Range;

use model::batch::DeltaSpan;
use model::sample::is_stale;
use model::sink::{Reason, Rejection};
use model::{Histogram, SeriesId, Timestamp};

use super::{Bounds, Judged, Prepared, Recalled, State, id_of, stored_value};
use crate::command::AddCommand;
use crate::running::{Total, add};
use crate::value::Value;

impl State {
    pub(super) fn add(
        &mut self,
        index: u64,
        command: &AddCommand,
        prepared: &Prepared,
    ) -> Vec<Rejection> {
        let recalled = &prepared.recalled;
        self.put_back(&prepared.returning);
        self.running.forget(command.stale_before);
        let write = &command.write;
        let new = self.register(&write.labels);
        let stale = self.fences.admit(&write.fences);
        let bounds = Bounds::new(write, self.max_time);
        let totals_max = command.totals_max as usize;
        let mut judged = Judged::default();
        for (row, delta) in deltas(command).enumerate() {
            let (at, row) = (delta.at, row as u32);
            let id = id_of(write.rows.series[row as usize], &new);
            let refused = match stale.iter().any(|range: &Range<u32>| range.contains(&row)) {
                true => Some(Reason::Fenced),
                false => self.add_one(id, delta, totals_max, &bounds, recalled),
            };
            judged.note(row, at, refused);
        }
        self.finish(index, write, &new, judged)
    }

    fn add_one(
        &mut self,
        id: SeriesId,
        delta: Delta,
        totals_max: usize,
        bounds: &Bounds,
        recalled: &Recalled,
    ) -> Option<Reason> {
        let total = self.running.get(id).cloned();
        let series = self.head.series(id);
        let series = series.expect("the log registers a series before it is written to");
        let is_old = total.as_ref().is_some_and(|total| {
            delta.span.start_ns < total.span.start_ns || delta.span.end_ns <= total.span.end_ns
        });
        // Of two that end within one millisecond the second shows with the next sample.
        let is_hidden = total
            .as_ref()
            .is_some_and(|total| total.span.end() == delta.at);
        let is_late = series.last().is_some_and(|last| delta.at <= last);
        if is_old || (is_late && !is_hidden) {
            let is_same = total.is_some_and(|total| total.span.end_ns == delta.span.end_ns);
            let is_there = stored_value(series, id, delta.at, recalled).is_some();
            return (!is_same && !is_there).then_some(Reason::OutOfOrder);
        }
        if total.is_none() && self.running.len() >= totals_max {
            return Some(Reason::SeriesLimit);
        }
        let sum = match &total {
            None => delta.value.clone(),
            Some(total) => add(&total.value, &delta.value),
        };
        let ends = delta.is_end();
        if !is_hidden {
            let shown = if ends { &delta.value } else { &sum };
            let refused = self.store(id, delta.at, shown.clone(), bounds, recalled);
            if refused.is_some() {
                return refused;
            }
        }
        if total.is_none() && ends {
            return None;
        }
        let start_ns = total.map_or(delta.span.start_ns, |total| total.span.start_ns);
        let total = Total {
            span: DeltaSpan {
                start_ns,
                end_ns: delta.span.end_ns,
            },
            value: sum,
            told: delta.told,
        };
        self.running.set(id, total);
        None
    }
}

/// One row.
struct Delta {
    at: Timestamp,
    span: DeltaSpan,
    value: Value,
    told: Timestamp,
}

impl Delta {
    /// Whether it says that the series has ended.
    fn is_end(&self) -> bool {
        match &self.value {
            Value::Float(bits) => is_stale(f64::from_bits(*bits)),
            Value::Histogram(bytes) => {
                Histogram::decode(bytes).is_ok_and(|histogram| histogram.is_stale())
            }
        }
    }
}

fn deltas(command: &AddCommand) -> impl Iterator<Item = Delta> {
    let rows = &command.write.rows;
    let mut histograms = rows.histograms.iter().peekable();
    let instants = rows.timestamps.iter().zip(&rows.values).enumerate();
    let spans = instants.zip(&command.deltas);
    spans.map(move |((row, (&at, value)), &span)| {
        let histogram = histograms.next_if(|(place, _)| *place as usize == row);
        Delta {
            at,
            span,
            value: match histogram {
                None => Value::Float(value.to_bits()),
                Some((_, bytes)) => Value::Histogram(bytes.clone()),
            },
            told: command.write.proposed_at,
        }
    })
}
