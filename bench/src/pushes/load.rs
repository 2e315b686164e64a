//! Pushes by many senders at once, each over a connection of its own, as fast as they are answered.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::future::try_join_all;
use hyper::Method;
use jepsen_tests::http::{Connection, Reply};

const FAMILIES: u32 = 4;
const SERIES_PER_FAMILY: u32 = 5;
/// Samples of one push.
pub const SAMPLES: u32 = FAMILIES * SERIES_PER_FAMILY;
const DEADLINE: Duration = Duration::from_secs(60);
/// Metrics of one group that is stored and left alone.
const STORED_PER_GROUP: u32 = 1000;
const WARMING: Duration = Duration::from_secs(2);

/// What was acknowledged, and how long each took.
#[derive(Debug, Clone, Default)]
pub struct Pushed {
    /// Ascending.
    pub took: Vec<Duration>,
    pub elapsed: Duration,
    /// Answers 429 and 503: the push was sent again.
    pub refused: u64,
}

impl Pushed {
    pub fn per_second(&self) -> f64 {
        self.took.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// `share` of the pushes were faster, in milliseconds.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let at = (self.took.len() as f64 * share) as usize;
        let at = at.min(self.took.len().saturating_sub(1));
        self.took
            .get(at)
            .map_or(f64::NAN, |t| t.as_secs_f64() * 1e3)
    }
}

/// Of a group that is pushed again and again; `turn` changes the values.
fn body(turn: u64) -> Bytes {
    let mut text = String::new();
    for family in 0..FAMILIES {
        let kind = if family % 2 == 0 { "gauge" } else { "counter" };
        text += &format!("# TYPE bench_metric_{family} {kind}\n");
        for series in 0..SERIES_PER_FAMILY {
            let value = turn * 10 + u64::from(series);
            text += &format!(
                "bench_metric_{family}{{stage=\"s{series}\",zone=\"z{}\"}} {value}\n",
                series % 3
            );
        }
    }
    text.into()
}

/// Of a group that is only stored.
fn stored_body(metrics: u32) -> Bytes {
    let lines = (0..metrics).map(|n| format!("stored_metric_{}{{n=\"{n}\"}} {n}.5\n", n % 20));
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines.concat().into()
}

async fn push(connection: &mut Connection, path: &str, body: Bytes) -> anyhow::Result<bool> {
    let reply = connection
        .send(Method::PUT, path, &[], body, DEADLINE)
        .await;
    match reply {
        Reply::Answer {
            status: 200 | 202, ..
        } => Ok(true),
        Reply::Answer {
            status: 429 | 503, ..
        } => Ok(false),
        other => bail!("{path}: {other:?}"),
    }
}

fn group_path(group: u32) -> String {
    format!("/metrics/job/bench/instance/i{group}")
}

/// Every group once, so that what is measured afterwards are pushes to groups that exist.
pub async fn fill(targets: &[SocketAddr], groups: u32) -> anyhow::Result<()> {
    each(targets, groups, |group| (group_path(group), body(0))).await
}

/// Groups of many metrics each, `metrics` in all.
pub async fn store(targets: &[SocketAddr], metrics: u32) -> anyhow::Result<()> {
    let body = stored_body(STORED_PER_GROUP);
    let path = |group| format!("/metrics/job/stored/instance/i{group}");
    each(targets, metrics.div_ceil(STORED_PER_GROUP), |group| {
        (path(group), body.clone())
    })
    .await
}

async fn each(
    targets: &[SocketAddr],
    count: u32,
    of: impl Fn(u32) -> (String, Bytes),
) -> anyhow::Result<()> {
    let next = Cell::new(0);
    let senders = (0..32).map(|sender| {
        let (next, of) = (&next, &of);
        let mut connection = Connection::new(targets[sender % targets.len()]);
        async move {
            while next.get() < count {
                let n = next.replace(next.get() + 1);
                let (path, body) = of(n);
                while !push(&mut connection, &path, body.clone()).await? {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            anyhow::Ok(())
        }
    });
    try_join_all(senders).await.map(drop)
}

/// Pushes for `period`, after a while of warming up that does not count.
pub async fn run(
    targets: &[SocketAddr],
    groups: u32,
    senders: u32,
    period: Duration,
    warm: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Pushed> {
    let begin = Instant::now() + WARMING;
    let end = begin + period;
    let all = (0..senders).map(|n| {
        let target = targets[n as usize % targets.len()];
        sender(target, n, (groups, senders), begin, end)
    });
    let warmed = async {
        tokio::time::sleep_until(begin.into()).await;
        warm()
    };
    let (parts, ()) = tokio::try_join!(try_join_all(all), warmed)?;
    let mut pushed = Pushed {
        elapsed: period,
        ..Pushed::default()
    };
    for part in parts {
        pushed.took.extend(part.took);
        pushed.refused += part.refused;
    }
    pushed.took.sort_unstable();
    Ok(pushed)
}

async fn sender(
    target: SocketAddr,
    number: u32,
    (groups, senders): (u32, u32),
    begin: Instant,
    end: Instant,
) -> anyhow::Result<Pushed> {
    let mut connection = Connection::new(target);
    let mut own = Pushed::default();
    let mut group = number;
    for turn in 1.. {
        let path = group_path(group % groups);
        group = group.wrapping_add(senders);
        // Every group is met, whatever divides whatever.
        if turn % u64::from(groups.div_ceil(senders)) == 0 {
            group = group.wrapping_add(1);
        }
        let sent = Instant::now();
        let taken = push(&mut connection, &path, body(turn)).await;
        let taken = taken.with_context(|| format!("sender {number}"))?;
        let now = Instant::now();
        if !taken {
            own.refused += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        } else if sent >= begin && now <= end {
            own.took.push(now - sent);
        }
        if now >= end {
            break;
        }
    }
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_has_as_many_samples_as_is_said() {
        let text = String::from_utf8(body(3).to_vec()).unwrap();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(samples.count(), SAMPLES as usize);
    }

    #[test]
    fn quantiles_are_of_what_was_seen() {
        let pushed = Pushed {
            took: (1..=100).map(Duration::from_millis).collect(),
            elapsed: Duration::from_secs(10),
            refused: 0,
        };
        assert_eq!(
            (pushed.per_second(), pushed.quantile_ms(0.99)),
            (10.0, 100.0)
        );
        assert!(Pushed::default().quantile_ms(0.5).is_nan());
    }
}
