//! Series as a Kubernetes cluster has them: of each target fifty, from a node exporter, an HTTP
//! server with a histogram of twelve buckets, containers, and what kube-state-metrics tells.
//!
//! Every value is computed from series and round. Counters and buckets never fall, buckets of one
//! histogram never cross.

use jepsen_tests::splitmix::SplitMix64;

use crate::shape::Population;

pub const SERIES_PER_TARGET: u32 = 50;
pub const JOBS: u32 = 10;

pub const KUBERNETES: Population = Population { labels, value };

/// Upper bounds of the histogram's buckets, and the share of observations below each.
const BUCKETS: [(&str, f64); 12] = [
    ("0.005", 0.02),
    ("0.01", 0.10),
    ("0.025", 0.30),
    ("0.05", 0.50),
    ("0.1", 0.70),
    ("0.25", 0.85),
    ("0.5", 0.93),
    ("1", 0.97),
    ("2.5", 0.985),
    ("5", 0.995),
    ("10", 0.999),
    ("+Inf", 1.0),
];

/// What a slot of a target is: a metric and the labels it has beside the target's.
enum Slot {
    Cpu(u32),
    Memory,
    Load,
    Up,
    PodInfo,
    Bucket(u32),
    Sum,
    Count,
    Requests(u32),
    WorkingSet(u32),
    ContainerCpu(u32),
}

fn slot(series: u32) -> Slot {
    match series % SERIES_PER_TARGET {
        n @ 0..8 => Slot::Cpu(n),
        8 => Slot::Memory,
        9 => Slot::Load,
        10 => Slot::Up,
        11 => Slot::PodInfo,
        n @ 12..24 => Slot::Bucket(n - 12),
        24 => Slot::Sum,
        25 => Slot::Count,
        n @ 26..38 => Slot::Requests(n - 26),
        n @ 38..44 => Slot::WorkingSet(n - 38),
        n => Slot::ContainerCpu(n - 44),
    }
}

/// The labels every series of a target has.
fn target_labels(target: u32) -> Vec<(&'static str, String)> {
    vec![
        ("cluster", "eu-west-1".to_owned()),
        ("instance", instance(target)),
        ("job", format!("job-{}", target % JOBS)),
        ("namespace", format!("team-{}", target % 20)),
        ("pod", format!("web-{}-{:x}", target % 40, target * 7919)),
    ]
}

pub fn instance(target: u32) -> String {
    format!(
        "10.{}.{}.{}:9100",
        target / 62_500,
        target / 250 % 250,
        target % 250
    )
}

fn labels(series: u32) -> Vec<(&'static str, String)> {
    let target = series / SERIES_PER_TARGET;
    let mut labels = target_labels(target);
    let name = match slot(series) {
        Slot::Cpu(n) => {
            let modes = ["idle", "user", "system", "iowait"];
            labels.push(("cpu", (n / 4).to_string()));
            labels.push(("mode", modes[n as usize % 4].to_owned()));
            "node_cpu_seconds_total"
        }
        Slot::Memory => "node_memory_MemAvailable_bytes",
        Slot::Load => "node_load1",
        Slot::Up => "up",
        Slot::PodInfo => {
            labels.push(("node", format!("node-{}", target % 50)));
            "kube_pod_info"
        }
        Slot::Bucket(n) => {
            labels.push(("le", BUCKETS[n as usize].0.to_owned()));
            "http_request_duration_seconds_bucket"
        }
        Slot::Sum => "http_request_duration_seconds_sum",
        Slot::Count => "http_request_duration_seconds_count",
        Slot::Requests(n) => {
            labels.push(("method", ["GET", "POST", "PUT"][n as usize / 4].to_owned()));
            labels.push((
                "code",
                ["200", "302", "404", "500"][n as usize % 4].to_owned(),
            ));
            "http_requests_total"
        }
        Slot::WorkingSet(n) => {
            labels.push(("container", format!("app-{n}")));
            "container_memory_working_set_bytes"
        }
        Slot::ContainerCpu(n) => {
            labels.push(("container", format!("app-{n}")));
            "container_cpu_usage_seconds_total"
        }
    };
    labels.push(("__name__", name.to_owned()));
    labels.sort();
    labels
}

fn value(series: u32, round: u32) -> f64 {
    let target = series / SERIES_PER_TARGET;
    let noise =
        SplitMix64::new(u64::from(series) << 32 | u64::from(round)).between(0, 1_000) as f64;
    let size = SplitMix64::new(u64::from(series)).between(10, 1_000) as f64;
    let observed = observed(target, round);
    match slot(series) {
        Slot::Cpu(_) | Slot::ContainerCpu(_) => {
            ((f64::from(round) * size + noise * size / 1_000.0) / 100.0 * 1_000.0).round() / 1_000.0
        }
        Slot::Memory | Slot::WorkingSet(_) => size * 1_048_576.0 + noise * 4_096.0,
        Slot::Load => (size + noise).round() / 100.0,
        Slot::Up | Slot::PodInfo => 1.0,
        Slot::Bucket(n) => (observed * BUCKETS[n as usize].1).floor(),
        Slot::Sum => (observed * 0.31 * 1_000.0).round() / 1_000.0,
        Slot::Count => observed,
        Slot::Requests(_) => (f64::from(round) * size + noise * size / 1_000.0).floor(),
    }
}

/// Observations of a target's histogram up to a round.
fn observed(target: u32, round: u32) -> f64 {
    let mut own = SplitMix64::new(u64::from(target) ^ 0x0b5e);
    let size = own.between(200, 2_000);
    let mut noise = SplitMix64::new(u64::from(target) << 32 | u64::from(round) ^ 0x0b5e);
    (u64::from(round) * size + noise.between(0, size)) as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn series_differ_and_their_labels_are_sorted() {
        let mut seen = BTreeSet::new();
        for series in 0..10_000 {
            let labels = labels(series);
            assert!(labels.windows(2).all(|w| w[0].0 < w[1].0), "{labels:?}");
            assert!(seen.insert(format!("{labels:?}")));
        }
    }

    #[test]
    fn counters_and_buckets_never_fall() {
        for series in 0..2 * SERIES_PER_TARGET {
            let name = &labels(series)[0].1.clone();
            let falls = (1..200).any(|round| value(series, round) < value(series, round - 1));
            let is_gauge = matches!(
                slot(series),
                Slot::Memory | Slot::Load | Slot::WorkingSet(_)
            );
            assert_eq!(falls, is_gauge, "{name}");
        }
        for round in 0..100 {
            let buckets: Vec<f64> = (12..24).map(|series| value(series, round)).collect();
            assert!(buckets.is_sorted());
            assert_eq!(buckets.last(), Some(&value(25, round)));
        }
    }
}
