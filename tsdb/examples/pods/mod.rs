//! Series as a cluster of containers has them, for what is measured here.

use model::Labels;
use model::hash::split_mix;

pub const SERIES_OF_POD: u64 = 250;

/// Ten labels, series of one pod one behind the other, half of them with a
/// label of the metric's own.
pub fn labels(n: u64) -> Labels {
    let (pod, metric) = (n / SERIES_OF_POD, n % SERIES_OF_POD);
    let app = pod % 40;
    let hash = split_mix(pod);
    let own = match metric % 8 {
        0..4 => ("le", format!("{}", 1 << (metric % 12))),
        4..6 => ("device", format!("eth{}", metric % 3)),
        _ => ("code", format!("{}", 200 + metric % 5)),
    };
    Labels::from_pairs([
        (
            "__name__",
            format!("app{}_subsystem_{}_seconds_total", app % 3, metric / 2),
        ),
        ("cluster", "production-eu-1".to_owned()),
        ("container", format!("app-{app}")),
        (
            "instance",
            format!("10.{}.{}.{}:9100", pod % 7, hash % 256, pod % 251),
        ),
        ("job", format!("team-{}/app-{app}", app % 9)),
        ("namespace", format!("team-{}", app % 9)),
        (
            "node",
            format!("ip-10-0-{}-{}.internal", hash % 16, hash % 61),
        ),
        (
            "pod",
            format!(
                "app-{app}-{:09x}-{:05x}",
                hash % (1 << 36),
                split_mix(hash) % (1 << 20)
            ),
        ),
        (
            "uid",
            format!("{:016x}{:016x}", split_mix(pod + 7), split_mix(pod + 8)),
        ),
        own,
    ])
}

/// Another number below `series` for each.
pub fn shuffled(series: u64) -> Vec<u64> {
    let mut all: Vec<u64> = (0..series).collect();
    all.sort_by_key(|n| split_mix(*n));
    all
}
