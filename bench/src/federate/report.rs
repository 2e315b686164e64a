//! Medians and ratios as Markdown, and every figure as JSON.

use std::fmt::Write;

use anyhow::Context;
use serde::Serialize;

use super::options::Options;
use crate::system::Kind;
use crate::table::{Report, machine, version};

/// One system's rounds.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    pub kind: Kind,
    pub first_byte_ms: Vec<f64>,
    pub total_ms: Vec<f64>,
    /// Of all processes, for one answer.
    pub cpu_ms: f64,
    pub bytes: usize,
    /// What the processes took at most above what they held before.
    pub extra_memory_bytes: u64,
}

fn median(of: &[f64]) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

pub fn report(options: &Options, began_s: i64, figures: &[Figure]) -> anyhow::Result<Report> {
    let text = markdown(options, figures)?;
    let json = serde_json::json!({"series": options.shape.series, "figures": figures});
    let place = (&**options.directory(), began_s, "federate");
    Ok(Report::new(place, text, json))
}

fn markdown(options: &Options, figures: &[Figure]) -> anyhow::Result<String> {
    let programs = &options.load.programs;
    let binaries = [&programs.quorate, &programs.prometheus]
        .into_iter()
        .flatten();
    let versions: Vec<String> = binaries.map(|binary| version(binary)).collect();
    let prometheus = figures.iter().find(|f| f.kind == Kind::Prometheus);
    let victoria = figures.iter().find(|f| f.kind == Kind::VictoriaMetrics);
    let mut text = format!(
        "/federate of {} series{}, {}; {}; medians of {}\n\n\
         | system | first byte | whole | CPU | bytes | memory on top | of Prometheus: first byte, whole, CPU | of VictoriaMetrics: whole, CPU |\n\
         |---|---:|---:|---:|---:|---:|---|---|\n",
        options.shape.series,
        if options.gzip { ", gzip" } else { "" },
        machine()?,
        versions.join(", "),
        options.load.rounds,
    );
    for figure in figures {
        let (first, total) = (median(&figure.first_byte_ms), median(&figure.total_ms));
        let share = |own: f64, other: f64| format!("{:.2}", own / other);
        let beside = |other: Option<&Figure>, with_first: bool| match other {
            None => String::new(),
            Some(other) => {
                let mut shares = Vec::new();
                if with_first {
                    shares.push(share(first, median(&other.first_byte_ms)));
                }
                shares.push(share(total, median(&other.total_ms)));
                shares.push(share(figure.cpu_ms, other.cpu_ms));
                shares.join(", ")
            }
        };
        writeln!(
            text,
            "| {} | {first:.1} ms | {total:.1} ms | {:.1} ms | {} | {:.1} MiB | {} | {} |",
            figure.kind.name(),
            figure.cpu_ms,
            figure.bytes,
            figure.extra_memory_bytes as f64 / f64::from(1 << 20),
            beside(prometheus, true),
            beside(victoria, false),
        )
        .context("a String takes all")?;
    }
    Ok(text)
}
