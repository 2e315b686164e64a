//! A run as one page: no script, no asset, nothing to fetch. The verdict and why, then the same
//! time axis three times (operations per lane, latency, availability), with the faults behind.

mod charts;
mod timeline;

use std::fmt::Write;

use crate::checker::{Evidence, Finding, Report, Results};
use crate::history::FaultRecord;

/// The time axis all drawings share.
#[derive(Debug, Clone, Copy)]
struct Axis {
    end_ns: i64,
    width: f64,
}

/// Room for names left of the axis.
const MARGIN: f64 = 70.0;

impl Axis {
    fn of(evidence: &Evidence) -> Self {
        let end_ns = evidence
            .history
            .iter()
            .map(|e| e.t1)
            .max()
            .unwrap_or(0)
            .max(1);
        let seconds = end_ns as f64 / 1e9;
        Self {
            end_ns,
            width: (seconds * 20.0).clamp(1_000.0, 8_000.0),
        }
    }

    fn x(&self, at_ns: i64) -> f64 {
        MARGIN + at_ns as f64 / self.end_ns as f64 * self.width
    }

    /// Opens a drawing of `height` with the faults as bands and a mark every so many seconds.
    fn open(&self, height: f64, faults: &[FaultRecord]) -> String {
        let mut svg = format!(
            "<div class=scroll><svg width=\"{:.0}\" height=\"{:.0}\">",
            MARGIN + self.width + 20.0,
            height + 20.0
        );
        for fault in faults {
            let (from, to) = (self.x(fault.t0), self.x(fault.t1));
            put(
                &mut svg,
                format_args!(
                    "<rect class=\"band {kind}\" x=\"{from:.1}\" y=\"0\" width=\"{w:.1}\" \
                     height=\"{height:.0}\"><title>{kind} {nodes:?}</title></rect>",
                    kind = fault.kind.as_str(),
                    w = (to - from).max(1.0),
                    nodes = fault.nodes,
                ),
            );
        }
        let seconds = self.end_ns / 1_000_000_000;
        let step = (seconds / 40).max(1) as usize;
        for second in (0..=seconds).step_by(step) {
            let x = self.x(second * 1_000_000_000);
            put(
                &mut svg,
                format_args!(
                    "<line class=tick x1=\"{x:.1}\" y1=\"0\" x2=\"{x:.1}\" y2=\"{height:.0}\"/>\
                     <text x=\"{x:.1}\" y=\"{:.0}\">{second}s</text>",
                    height + 14.0
                ),
            );
        }
        svg
    }
}

const STYLE: &str = "
body{font:14px system-ui,sans-serif;margin:2em;max-width:110em;color:#222}
h1 span,.verdict{padding:.1em .5em;border-radius:.3em;color:#fff}
.valid{background:#2a8a4a}.invalid{background:#c0392b}.unknown{background:#b9770e}
table{border-collapse:collapse;margin:.5em 0}td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto;border:1px solid #ddd;margin:.5em 0}
svg text{font:10px system-ui,sans-serif;fill:#555}
.tick{stroke:#0001}.band{opacity:.25;fill:#8e44ad}
.kill-one,.kill-leader{fill:#e67e22}.kill-all{fill:#c0392b}.pause{fill:#2980b9}.restart{fill:#7f8c8d}
.ok{fill:#2a8a4a}.fail{fill:#c0392b}.info{fill:#e0a800}.bad{fill:none;stroke:#c0392b;stroke-width:2}
.key i{display:inline-block;width:1em;height:.8em;margin:0 .3em 0 1em}
code{background:#f4f4f4;padding:0 .2em}
li.finding{color:#c0392b}
";

/// The whole page.
pub fn page(evidence: &Evidence, results: &Results) -> String {
    let axis = Axis::of(evidence);
    let settings = &evidence.plan.settings;
    let verdict = results.verdict.as_str();
    let mut html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>{verdict}: seed {seed}</title>\
         <style>{STYLE}</style><h1><span class={verdict}>{verdict}</span> seed {seed}, {seconds} s, \
         {nodes} nodes</h1>",
        seed = settings.seed,
        seconds = settings.seconds,
        nodes = settings.nodes,
    );
    verdicts(&mut html, results);
    put(
        &mut html,
        format_args!(
            "<h2>Operations</h2><p class=key>One row per lane. <i style=\"background:#2a8a4a\"></i>ok \
             <i style=\"background:#c0392b\"></i>fail: did not happen \
             <i style=\"background:#e0a800\"></i>info: in doubt. Bands are faults: orange kill -9 of \
             one, red of all, blue pause, grey restart. A red frame is in a finding above.</p>"
        ),
    );
    html += &timeline::draw(axis, evidence, results);
    html += "<h2>Latency</h2><p>Milliseconds, logarithmic; each dot is one operation.</p>";
    html += &charts::latency(axis, evidence);
    latencies(&mut html, results);
    html += "<h2>Availability</h2><p>Per node and 100 ms: green all ok, yellow some, red none, \
             white nothing ended.</p>";
    html += &charts::availability(axis, evidence, results);
    outages(&mut html, results);
    html += "<p>Beside this page: <code>plan.json</code>, <code>history.jsonl</code>, \
             <code>nemesis.jsonl</code>, <code>results.json</code>, <code>nodes/*/log</code>, \
             <code>repro.sh</code>.</p></html>\n";
    html
}

fn verdicts(html: &mut String, results: &Results) {
    html.push_str("<h2>Verdict</h2>");
    for report in &results.reports {
        let verdict = report.verdict.as_str();
        let open = if report.findings.is_empty() {
            ""
        } else {
            " open"
        };
        put(
            html,
            format_args!(
                "<details{open}><summary><span class=\"verdict {verdict}\">{verdict}</span> \
                 <b>{}</b> {}</summary>",
                escaped(&report.checker),
                escaped(&report.summary)
            ),
        );
        findings(html, report);
        html.push_str("<table>");
        for (name, value) in &report.facts {
            let (name, value) = (escaped(name), escaped(&value.to_string()));
            put(html, format_args!("<tr><td>{name}<td>{value}"));
        }
        html.push_str("</table></details>");
    }
}

fn findings(html: &mut String, report: &Report) {
    html.push_str("<ul>");
    for Finding { what, ops } in &report.findings {
        put(html, format_args!("<li class=finding>{}", escaped(what)));
        for op in ops {
            put(
                html,
                format_args!(" <a href=\"#op{op}\">operation {op}</a>"),
            );
        }
    }
    html.push_str("</ul>");
}

fn latencies(html: &mut String, results: &Results) {
    html.push_str("<table><tr><th>operation<th>ok<th>p50 ms<th>p99 ms<th>p99.9 ms<th>max ms");
    for row in &results.availability.latencies {
        let ms = |us: i64| format!("<td class=n>{:.1}", us as f64 / 1e3);
        put(
            html,
            format_args!(
                "<tr><td>{}<td class=n>{}{}{}{}{}",
                row.f,
                row.count,
                ms(row.p50_us),
                ms(row.p99_us),
                ms(row.p999_us),
                ms(row.max_us)
            ),
        );
    }
    html.push_str("</table>");
}

fn outages(html: &mut String, results: &Results) {
    html.push_str(
        "<table><tr><th>fault<th>nodes<th>at s<th>recovery ms<th>longest stop of writes ms\
         <th>all ready ms",
    );
    for outage in &results.availability.outages {
        let or_dash = |ms: Option<i64>| ms.map_or_else(|| "–".to_owned(), |ms| ms.to_string());
        put(
            html,
            format_args!(
                "<tr><td>{}<td>{:?}<td class=n>{:.1}<td class=n>{}<td class=n>{}<td class=n>{}",
                outage.kind.as_str(),
                outage.nodes,
                outage.at_ms as f64 / 1e3,
                or_dash(outage.recovery_ms),
                outage.stop_ms,
                or_dash(outage.ready_ms)
            ),
        );
    }
    html.push_str(
        "</table><p>Recovery: until every register and series tried since was written again. \
         Stop: no write at all was acknowledged.</p>",
    );
}

/// Appends formatted text; a `String` takes all of it.
fn put(html: &mut String, text: std::fmt::Arguments<'_>) {
    html.write_fmt(text).expect("a String grows");
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::{coverage, judge};

    #[test]
    fn a_page_needs_nothing_else_and_shows_what_it_was_given() {
        let mut evidence = coverage::tests::sound();
        evidence
            .panics
            .push((1, "<script>alert(1)</script>".into()));
        let results = judge(&evidence);
        let page = page(&evidence, &results);
        assert!(!page.contains("<script"), "what a node says is text");
        assert!(!page.contains("http://") && !page.contains("https://"));
        assert!(page.contains("<h1><span class=invalid>invalid</span>"));
        assert!(page.contains("class=\"band pause\""));
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    }
}
