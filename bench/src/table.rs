//! Medians as a table, with what one must know to read it.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::bail;
use serde::Serialize;

use crate::options::Options;
use crate::round::Figure;
use crate::shape::Shape;
use crate::system::Kind;

/// Under what the figures came about.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Facts {
    pub began_s: i64,
    pub machine: String,
    pub versions: Vec<String>,
    pub series: u32,
    pub rounds: u32,
    pub runs: u32,
    pub senders: u32,
    /// Of a hundred series, those that others replace in an hour of the data.
    pub churn: u32,
    /// Samples a second; as fast as they are acknowledged where there is none.
    pub rate: Option<u32>,
}

impl Facts {
    pub fn gather(options: &Options) -> anyhow::Result<Self> {
        let binaries = options
            .quorate
            .iter()
            .chain(&options.prometheus)
            .chain(&options.victoria);
        let versions = binaries.map(|binary| version(binary)).collect();
        Ok(Self {
            began_s: jepsen_tests::client::wall_ms() / 1000,
            machine: machine()?,
            versions,
            series: options.series,
            rounds: options.rounds,
            runs: options.runs,
            senders: options.senders,
            churn: options.churn,
            rate: options.rate,
        })
    }
}

impl Facts {
    /// How series come and go, and how fast they are written, if that is said.
    fn manner(&self) -> String {
        let mut text = String::new();
        if self.churn > 0 {
            let churn = self.churn;
            put(
                &mut text,
                format_args!(", {churn} % of the series replaced in an hour of the data"),
            );
        }
        if let Some(rate) = self.rate {
            put(&mut text, format_args!(", {rate} samples a second"));
        }
        text
    }
}

pub fn markdown(facts: &Facts, figures: &[Figure]) -> String {
    let mut text = format!(
        "{} series, {} samples each, {} senders{}, median of {} runs. {}.\n\n",
        facts.series,
        facts.rounds,
        facts.senders,
        facts.manner(),
        facts.runs,
        facts.machine
    );
    for version in &facts.versions {
        put(&mut text, format_args!("- {version}\n"));
    }
    text += "\n| request | system | CPU s per million samples | bytes per sample on disk | \
             written | peak memory MiB | steady | KiB per series: peak | steady | samples/s | p50 ms | p99 ms | sent again |\n\
             |---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";
    let rows = rows(figures);
    let kib_each = |bytes: u64| bytes as f64 / f64::from(1 << 10) / f64::from(facts.series);
    for (shape, kind, of) in &rows {
        let cut = if of.iter().any(|f| f.cut) {
            " (cut short)"
        } else {
            ""
        };
        put(
            &mut text,
            format_args!(
                "| {}{cut} | {} | {:.2} | {:.2} | {:.1} | {:.0} | {:.0} | {:.2} | {:.2} | {:.0} | {:.1} | {:.1} | {:.0} |\n",
                shape.name(),
                kind.name(),
                median(of, Figure::cpu_s_per_million),
                median(of, Figure::disk_bytes_per_sample),
                median(of, Figure::written_bytes_per_sample),
                median(of, |f| f.peak_memory_bytes as f64 / (1 << 20) as f64),
                median(of, |f| f.steady_memory_bytes as f64 / (1 << 20) as f64),
                median(of, |f| kib_each(f.peak_memory_bytes)),
                median(of, |f| kib_each(f.steady_memory_bytes)),
                median(of, Figure::samples_per_second),
                median(of, |f| f.latency_ms.p50),
                median(of, |f| f.latency_ms.p99),
                median(of, |f| f.retries as f64),
            ),
        );
    }
    queries(&mut text, &rows);
    text += "\nCPU and memory are sums over all nodes, CPU without the queries, the peak of memory with them, steady memory \
             before them; per series are the memory over the series that are written at a time; p50 and p99 are of requests, from when they were due; disk is all data directories after a \
             clean stop, every replica counted; written are bytes per sample sent to the disks until \
             then, logs and rewriting included. quorate acknowledges after an fsync on a majority; \
             Prometheus acknowledges before any.\n";
    text
}

fn queries(text: &mut String, rows: &[(Shape, Kind, Vec<&Figure>)]) {
    let Some(first) = rows.first().and_then(|(_, _, of)| of.first()) else {
        return;
    };
    let names: Vec<&String> = first.queries.keys().collect();
    text.push_str("\n| query, median ms | system |");
    for name in &names {
        put(text, format_args!(" {name} |"));
    }
    put(
        text,
        format_args!("\n|---|---|{}\n", "---:|".repeat(names.len())),
    );
    for (shape, kind, of) in rows {
        put(text, format_args!("| {} | {} |", shape.name(), kind.name()));
        for name in &names {
            let answers: Result<Vec<f64>, &String> = of
                .iter()
                .map(|f| f.queries[*name].as_ref().copied())
                .collect();
            match answers {
                Ok(times) => put(text, format_args!(" {:.1} |", middle(times))),
                Err(error) => put(text, format_args!(" {} |", one_line(error))),
            }
        }
        text.push('\n');
    }
}

/// The figures of each shape and system, in the order of their first appearance.
fn rows(figures: &[Figure]) -> Vec<(Shape, Kind, Vec<&Figure>)> {
    let mut rows: Vec<(Shape, Kind, Vec<&Figure>)> = Vec::new();
    for figure in figures {
        let same =
            |row: &&mut (Shape, Kind, Vec<&Figure>)| (row.0, row.1) == (figure.shape, figure.kind);
        match rows.iter_mut().find(same) {
            Some(row) => row.2.push(figure),
            None => rows.push((figure.shape, figure.kind, vec![figure])),
        }
    }
    rows
}

fn median(figures: &[&Figure], of: impl Fn(&Figure) -> f64) -> f64 {
    middle(figures.iter().map(|figure| of(figure)).collect())
}

/// The upper of the two in the middle when there is no one.
pub fn middle(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '|'], " ").chars().take(80).collect()
}

/// What a part of the benchmark found.
#[derive(Debug)]
pub struct Report {
    /// Without an ending.
    pub stem: PathBuf,
    pub text: String,
    pub figures: serde_json::Value,
    /// Why the figures are not what they should be.
    pub failure: Option<String>,
}

impl Report {
    /// One that is written into `directory`, as what began then.
    pub fn new(
        (directory, began_s, part): (&Path, i64, &str),
        text: String,
        figures: serde_json::Value,
    ) -> Self {
        let name = match part {
            "" => began_s.to_string(),
            part => format!("{began_s}-{part}"),
        };
        Self {
            stem: directory.join(name),
            text,
            figures,
            failure: None,
        }
    }

    /// Writes the text beside the figures, as .md and .json, and prints it; then its failure is an error.
    pub fn finish(&self) -> anyhow::Result<()> {
        let json = serde_json::to_string_pretty(&self.figures)?;
        std::fs::write(self.stem.with_extension("json"), json)?;
        std::fs::write(self.stem.with_extension("md"), &self.text)?;
        println!("{}", self.text);
        eprintln!("written to {}.md and .json", self.stem.display());
        match &self.failure {
            None => Ok(()),
            Some(failure) => bail!("{failure}"),
        }
    }
}

pub fn version(binary: &Path) -> String {
    let name = binary.file_name().unwrap_or_default().to_string_lossy();
    let output = std::process::Command::new(binary).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    match text.lines().find(|line| !line.trim().is_empty()) {
        Some(line) => line.to_owned(),
        None => format!("{name}, version unknown"),
    }
}

pub fn machine() -> anyhow::Result<String> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| {
            rest.trim_start_matches([' ', '\t', ':'])
        });
    let cores = std::thread::available_parallelism()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!("{cores} cores ({model}), Linux {}", kernel.trim()))
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a String grows");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::round::Percentiles;

    fn figure(kind: Kind, cpu_s: f64) -> Figure {
        Figure {
            kind,
            shape: Shape::Wide,
            samples: 2_000_000,
            retries: 1,
            elapsed_s: 4.0,
            cpu_s,
            disk_bytes: 3_000_000,
            written_bytes: 20_000_000,
            peak_memory_bytes: 64 << 20,
            steady_memory_bytes: 48 << 20,
            latency_ms: Percentiles { p50: 1.5, p99: 9.0 },
            queries: [
                ("a".to_owned(), Ok(1.5)),
                ("b".to_owned(), Err("400: not|yet\n".to_owned())),
            ]
            .into(),
            cut: false,
        }
    }

    #[test]
    fn a_row_is_the_median_of_its_runs() {
        let one = Kind::Quorate { nodes: 1 };
        let figures = [
            figure(one, 9.0),
            figure(Kind::Prometheus, 6.0),
            figure(one, 2.0),
            figure(one, 4.0),
        ];
        let facts = Facts {
            began_s: 0,
            machine: "2 cores".into(),
            versions: vec!["quorate 0".into()],
            series: 10,
            rounds: 20,
            runs: 3,
            senders: 4,
            churn: 0,
            rate: Some(70),
        };
        let text = markdown(&facts, &figures);
        assert!(
            text.contains("4 senders, 70 samples a second, median"),
            "{text}"
        );
        let row = "| 1 sample per series | quorate, 1 node | 2.00 | 1.50 | 10.0 | 64 | 48 \
                   | 6553.60 | 4915.20 | 500000 | 1.5 | 9.0 | 1 |";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("| Prometheus | 3.00 |"), "{text}");
        assert!(text.contains("| 1.5 | 400: not yet  |"), "{text}");
    }
}
