//! Rates, percentiles and ratios as Markdown, and every figure as JSON.

use std::fmt::Write;

use anyhow::Context;
use serde::Serialize;

use super::load::SAMPLES;
use super::options::Options;
use crate::system::Kind;
use crate::table::{Report, machine, version};

/// What is pushed, beside what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Case {
    pub groups: u32,
    pub senders: u32,
    /// Metrics of other groups.
    pub stored: u32,
}

/// What one system made of one case.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figure {
    pub kind: Kind,
    pub case: Case,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub refused: u64,
    /// Of all processes.
    pub cpu_ms_per_push: f64,
    pub peak_memory_bytes: u64,
}

impl Figure {
    pub fn line(&self) -> String {
        let Case {
            groups,
            senders,
            stored,
        } = self.case;
        format!(
            "| {groups} | {stored} | {senders} | {} | {:.1} | {:.1} | {:.1} | {:.2} | {} | {:.0} |",
            self.kind.name(),
            self.per_second,
            self.p50_ms,
            self.p99_ms,
            self.cpu_ms_per_push,
            self.refused,
            self.peak_memory_bytes as f64 / f64::from(1 << 20),
        )
    }
}

pub fn report(options: &Options, began_s: i64, figures: &[Figure]) -> anyhow::Result<Report> {
    let text = markdown(options, figures)?;
    let json = serde_json::json!({"samples": SAMPLES, "figures": figures});
    let place = (&*options.directory, began_s, "pushes");
    Ok(Report::new(place, text, json))
}

fn markdown(options: &Options, figures: &[Figure]) -> anyhow::Result<String> {
    let programs = &options.programs;
    let binaries = [&programs.quorate, &programs.pushgateway];
    let versions = binaries.into_iter().flatten();
    let versions: Vec<String> = versions.map(|binary| version(binary)).collect();
    let mut text = format!(
        "Pushes of {SAMPLES} samples, checked against all groups; {}; {}; {} s each\n\n\
         | groups | stored beside | senders | system | pushes/s | p50 ms | p99 ms | CPU ms each | sent again | peak MiB |\n\
         |---:|---:|---:|---|---:|---:|---:|---:|---:|---:|\n",
        machine()?,
        versions.join(", "),
        options.period.as_secs(),
    );
    for figure in figures {
        text += &figure.line();
        text.push('\n');
    }
    for (kind, ratio) in ratios(figures) {
        writeln!(
            text,
            "\n{}: p99 beside {} stored metrics is {ratio:.2} of that beside none.",
            kind.name(),
            options.stored
        )
        .context("a String takes all")?;
    }
    Ok(text)
}

/// Of each system, the p99 beside stored metrics over that beside none, in the same run.
fn ratios(figures: &[Figure]) -> Vec<(Kind, f64)> {
    let stored = figures.iter().filter(|f| f.case.stored > 0);
    let ratio = |with: &Figure| {
        let without = Case {
            stored: 0,
            ..with.case
        };
        let mut same = figures.iter();
        let without = same.find(|f| f.kind == with.kind && f.case == without)?;
        Some((with.kind, with.p99_ms / without.p99_ms))
    };
    stored.filter_map(ratio).collect()
}
