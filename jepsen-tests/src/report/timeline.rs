//! Operations as bars, one row per lane. Bars that would share a pixel are drawn as one, so that
//! the size of the page depends on its width and not on the length of the history; an operation
//! that a finding names always gets a bar of its own.

use std::collections::{BTreeMap, BTreeSet};

use super::{Axis, escaped, put};
use crate::checker::{Evidence, Results};
use crate::history::{Entry, Kind};

const ROW: f64 = 14.0;

pub fn draw(axis: Axis, evidence: &Evidence, results: &Results) -> String {
    let lanes = evidence.plan.lanes.len() as u64 + 1;
    let named: BTreeSet<u64> = results
        .reports
        .iter()
        .flat_map(|report| &report.findings)
        .flat_map(|finding| finding.ops.iter().copied())
        .collect();
    let mut rows: BTreeMap<u64, Vec<&Entry>> = BTreeMap::new();
    for entry in &evidence.history {
        rows.entry(entry.proc % lanes).or_default().push(entry);
    }
    let mut svg = axis.open(lanes as f64 * ROW, &evidence.faults);
    for (lane, entries) in rows {
        let y = lane as f64 * ROW;
        let name = match lane + 1 == lanes {
            true => "final reads".to_owned(),
            false => format!("lane {lane}"),
        };
        put(
            &mut svg,
            format_args!("<text x=\"2\" y=\"{:.0}\">{name}</text>", y + 10.0),
        );
        draw_row(&mut svg, axis, y, &entries);
        for entry in entries.iter().filter(|e| named.contains(&e.i)) {
            frame(&mut svg, axis, y, entry);
        }
    }
    svg += "</svg></div>";
    svg
}

fn draw_row(svg: &mut String, axis: Axis, y: f64, entries: &[&Entry]) {
    let mut open: Option<(f64, f64, Kind)> = None;
    for entry in entries {
        let (from, to) = (axis.x(entry.t0), axis.x(entry.t1));
        open = match open {
            Some((start, end, kind)) if kind == entry.kind && from - end < 1.0 => {
                Some((start, to.max(end), kind))
            }
            other => {
                bar(svg, y, other);
                Some((from, to, entry.kind))
            }
        };
    }
    bar(svg, y, open);
}

fn bar(svg: &mut String, y: f64, bar: Option<(f64, f64, Kind)>) {
    let Some((from, to, kind)) = bar else {
        return;
    };
    put(
        svg,
        format_args!(
            "<rect class={} x=\"{from:.1}\" y=\"{:.0}\" width=\"{:.1}\" height=\"{}\"/>",
            class(kind),
            y + 2.0,
            (to - from).max(0.7),
            ROW - 4.0
        ),
    );
}

fn frame(svg: &mut String, axis: Axis, y: f64, entry: &Entry) {
    let (from, to) = (axis.x(entry.t0), axis.x(entry.t1));
    let what = format!(
        "operation {} on node {}: {:?}",
        entry.i, entry.node, entry.call
    );
    put(
        svg,
        format_args!(
            "<rect class=bad id=op{} x=\"{:.1}\" y=\"{y:.0}\" width=\"{:.1}\" height=\"{ROW}\">\
             <title>{}</title></rect>",
            entry.i,
            from - 2.0,
            to - from + 4.0,
            escaped(&what.chars().take(300).collect::<String>())
        ),
    );
}

pub fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Ok => "ok",
        Kind::Fail => "fail",
        Kind::Info => "info",
    }
}
