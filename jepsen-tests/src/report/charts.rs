//! Latency as dots, availability as strips; both bounded by pixels, not by operations.

use std::collections::BTreeSet;

use super::timeline::class;
use super::{Axis, put};
use crate::checker::availability::{BUCKET_MS, Bucket};
use crate::checker::{Evidence, Results};

const HEIGHT: f64 = 160.0;
const ROW: f64 = 14.0;
/// The range of the latency axis: 0.1 ms to 100 s in powers of ten.
const DECADES: f64 = 6.0;

pub fn latency(axis: Axis, evidence: &Evidence) -> String {
    let mut svg = axis.open(HEIGHT, &evidence.faults);
    for (decade, label) in ["0.1", "1", "10", "100", "1000", "10000"]
        .iter()
        .enumerate()
    {
        let y = HEIGHT - decade as f64 / DECADES * HEIGHT;
        put(
            &mut svg,
            format_args!(
                "<text x=\"2\" y=\"{y:.0}\">{label}</text><line class=tick x1=\"0\" y1=\"{y:.0}\" \
                 x2=\"{:.0}\" y2=\"{y:.0}\"/>",
                axis.x(axis.end_ns)
            ),
        );
    }
    let mut drawn = BTreeSet::new();
    for entry in &evidence.history {
        let ms = ((entry.t1 - entry.t0) as f64 / 1e6).max(0.1);
        let y = HEIGHT - (ms.log10() + 1.0) / DECADES * HEIGHT;
        let x = axis.x(entry.t0);
        let class = class(entry.kind);
        if drawn.insert((x as i64, y as i64, class)) {
            put(
                &mut svg,
                format_args!("<circle class={class} cx=\"{x:.0}\" cy=\"{y:.0}\" r=\"1.2\"/>"),
            );
        }
    }
    svg += "</svg></div>";
    svg
}

pub fn availability(axis: Axis, evidence: &Evidence, results: &Results) -> String {
    let nodes = &results.availability.nodes;
    let mut svg = axis.open(nodes.len() as f64 * ROW, &evidence.faults);
    for (node, buckets) in nodes.iter().enumerate() {
        let y = node as f64 * ROW;
        put(
            &mut svg,
            format_args!("<text x=\"2\" y=\"{:.0}\">node {node}</text>", y + 10.0),
        );
        strip(&mut svg, axis, y, buckets);
    }
    svg += "</svg></div>";
    svg
}

/// Neighbours of one colour are one bar.
fn strip(svg: &mut String, axis: Axis, y: f64, buckets: &[Bucket]) {
    let mut from = 0;
    for to in 1..=buckets.len() {
        let class = colour(&buckets[from]);
        if buckets.get(to).map(colour) == Some(class) {
            continue;
        }
        if let Some(class) = class {
            let x = |n: usize| axis.x(n as i64 * BUCKET_MS * 1_000_000);
            put(
                svg,
                format_args!(
                    "<rect class={class} x=\"{:.1}\" y=\"{:.0}\" width=\"{:.1}\" height=\"{}\"/>",
                    x(from),
                    y + 2.0,
                    x(to) - x(from),
                    ROW - 4.0
                ),
            );
        }
        from = to;
    }
}

fn colour(bucket: &Bucket) -> Option<&'static str> {
    match (bucket.ok, bucket.not_ok) {
        (0, 0) => None,
        (_, 0) => Some("ok"),
        (0, _) => Some("fail"),
        _ => Some("info"),
    }
}
