//! One system, one shape, once: fresh start, send, settle, measure, ask, stop, count the disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::bail;
use jepsen_tests::client::wall_ms;
use serde::Serialize;

use crate::options::Options;
use crate::query;
use crate::send::send;
use crate::shape::{INTERVAL_MS, SERIES_PER_METRIC, Shape};
use crate::system::{Kind, System};

/// What one round measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    pub kind: Kind,
    pub shape: Shape,
    /// Acknowledged.
    pub samples: u64,
    pub retries: u64,
    pub elapsed_s: f64,
    /// Of all processes, from the first request to the end of the settling time.
    pub cpu_s: f64,
    pub disk_bytes: u64,
    /// Sent to the disks from the first request to the end of the settling time.
    pub written_bytes: u64,
    pub peak_memory_bytes: u64,
    /// Resident once all is settled, before the queries.
    pub steady_memory_bytes: u64,
    /// Of requests, from when they were due to their acknowledgement.
    pub latency_ms: Percentiles,
    /// Median milliseconds, or why there is no answer.
    pub queries: BTreeMap<String, Result<f64, String>>,
    /// Not everything was sent in the time allowed.
    pub cut: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p99: f64,
}

impl Percentiles {
    /// Of numbers that ascend, one at least.
    fn of(ascending: &[f64]) -> Self {
        let at = |share: f64| ascending[(share * (ascending.len() - 1) as f64).round() as usize];
        Self {
            p50: at(0.5),
            p99: at(0.99),
        }
    }
}

impl Figure {
    pub fn cpu_s_per_million(&self) -> f64 {
        self.cpu_s / (self.samples as f64 / 1e6)
    }

    pub fn disk_bytes_per_sample(&self) -> f64 {
        self.disk_bytes as f64 / self.samples as f64
    }

    pub fn written_bytes_per_sample(&self) -> f64 {
        self.written_bytes as f64 / self.samples as f64
    }

    pub fn samples_per_second(&self) -> f64 {
        self.samples as f64 / self.elapsed_s
    }

    pub fn line(&self) -> String {
        format!(
            "{} samples in {:.1} s, {:.2} CPU s per million, {:.2} bytes per sample, {:.1} written, \
             {} MiB peak, {} steady, p50 {:.1} ms, p99 {:.1} ms, {} retries{}",
            self.samples,
            self.elapsed_s,
            self.cpu_s_per_million(),
            self.disk_bytes_per_sample(),
            self.written_bytes_per_sample(),
            self.peak_memory_bytes >> 20,
            self.steady_memory_bytes >> 20,
            self.latency_ms.p50,
            self.latency_ms.p99,
            self.retries,
            if self.cut { ", cut short" } else { "" }
        )
    }
}

pub async fn run(options: &Options, kind: Kind, shape: Shape) -> anyhow::Result<Figure> {
    let work = Work::create(&options.directory)?;
    let mut system = System::start(&options.programs(), kind, &work.0).await?;
    let base_ms = wall_ms() - i64::from(options.rounds) * INTERVAL_MS;
    let cpu_before = system.cpu_seconds()?;
    let written_before = system.written_bytes()?;
    let sent = send(&options.load(), shape, system.targets(), base_ms)?;
    tokio::time::sleep(options.settle).await;
    system.flush().await?;
    let cpu_s = system.cpu_seconds()? - cpu_before;
    let written_bytes = system.written_bytes()? - written_before;
    if sent.samples == 0 {
        bail!("nothing was sent in {:?}", options.send_max);
    }
    let steady_memory_bytes = system.memory_bytes()?;
    let end_ms = base_ms + i64::from(sent.rounds - 1) * INTERVAL_MS;
    for target in system.targets() {
        let expected = u64::from(SERIES_PER_METRIC.min(options.series)) * u64::from(sent.rounds);
        // Whole seconds are asked for, so the end is rounded up.
        let stored = query::stored_samples(*target, end_ms + 999, sent.rounds).await?;
        if stored != expected {
            bail!(
                "{} has {stored} of {expected} acknowledged samples",
                target.api
            );
        }
    }
    let queries = query::ask(system.targets(), end_ms + 999).await;
    let peak_memory_bytes = system.peak_memory_bytes()?;
    Ok(Figure {
        kind,
        shape,
        samples: sent.samples,
        retries: sent.retries,
        elapsed_s: sent.elapsed_s,
        cpu_s,
        disk_bytes: system.stop().await?,
        written_bytes,
        peak_memory_bytes,
        steady_memory_bytes,
        latency_ms: Percentiles::of(&sent.latencies_ms),
        queries,
        cut: sent.rounds < options.rounds,
    })
}

/// A directory that goes with the round.
pub struct Work(pub PathBuf);

impl Work {
    pub fn create(directory: &Path) -> anyhow::Result<Self> {
        let path =
            directory
                .canonicalize()?
                .join(format!("work-{}-{}", std::process::id(), made()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

/// How many were made before.
fn made() -> u32 {
    static MADE: AtomicU32 = AtomicU32::new(0);
    MADE.fetch_add(1, Ordering::Relaxed)
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("bench: remove {}: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_those_in_order() {
        let hundred: Vec<f64> = (0..=100).map(f64::from).collect();
        let expected = Percentiles {
            p50: 50.0,
            p99: 99.0,
        };
        assert_eq!(Percentiles::of(&hundred), expected);
        assert_eq!(Percentiles::of(&[7.0]), Percentiles { p50: 7.0, p99: 7.0 });
    }
}
