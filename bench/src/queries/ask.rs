//! One question asked of one system, over and over: how long an answer takes and what it costs.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jepsen_tests::cluster::Target;
use jepsen_tests::differ::answer::{Answer, Outcome, Sample};
use jepsen_tests::http::{Connection, Reply};
use serde::Serialize;

use super::questions::Question;
use crate::system::{Kind, System};

const DEADLINE: Duration = Duration::from_secs(120);
/// Times a question is asked in one round.
const REPEATS_MIN: usize = 3;
const REPEATS_MAX: usize = 500;

/// What one round measured.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    pub latencies_ms: Vec<f64>,
    /// Of all processes, for one answer.
    pub cpu_ms: f64,
    /// The sum of the processes' peaks meanwhile.
    pub peak_memory_bytes: u64,
    /// What nodes were sent by others for one answer, if they tell.
    pub bytes_between_nodes: Option<f64>,
}

/// Asks for about `time`, of the nodes in turn.
pub async fn measure(
    system: &mut System,
    question: &Question,
    time: Duration,
) -> anyhow::Result<Cost> {
    let targets = system.targets().to_vec();
    let mut connections: Vec<Connection> = targets.iter().map(|t| Connection::new(t.api)).collect();
    for connection in &mut connections {
        get(connection, &question.path).await?;
    }
    system.forget_peak_memory()?;
    let bytes_before = bytes_received(&targets).await;
    let cpu_before = system.cpu_seconds()?;
    let begin = Instant::now();
    let mut latencies_ms = Vec::new();
    while latencies_ms.len() < REPEATS_MAX
        && (latencies_ms.len() < REPEATS_MIN || begin.elapsed() < time)
    {
        let n = latencies_ms.len() % connections.len();
        let began = Instant::now();
        get(&mut connections[n], &question.path).await?;
        latencies_ms.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let asked = latencies_ms.len() as f64;
    let cpu_ms = (system.cpu_seconds()? - cpu_before) * 1e3 / asked;
    let bytes_after = bytes_received(&targets).await;
    let between = bytes_before.zip(bytes_after);
    Ok(Cost {
        latencies_ms,
        cpu_ms,
        peak_memory_bytes: system.peak_memory_bytes()?,
        bytes_between_nodes: between.map(|(before, after)| (after - before) / asked),
    })
}

pub async fn get(connection: &mut Connection, path: &str) -> anyhow::Result<bytes::Bytes> {
    match connection.get(path, DEADLINE).await {
        Reply::Answer { status: 200, body } => Ok(body),
        Reply::Answer { status, body } => {
            let text = String::from_utf8_lossy(&body);
            bail!("{status}: {}", text.chars().take(300).collect::<String>())
        }
        Reply::NotSent(why) | Reply::Lost(why) => bail!("{why}"),
    }
}

/// The sum over all nodes of what they say to have received for queries.
async fn bytes_received(targets: &[Target]) -> Option<f64> {
    let mut sum = None;
    for target in targets {
        let body = get(&mut Connection::new(target.api), "/metrics")
            .await
            .ok()?;
        let text = String::from_utf8_lossy(&body);
        for line in text
            .lines()
            .filter(|l| l.starts_with("quorate_query_received_bytes_total"))
        {
            let value: f64 = line.rsplit(' ').next()?.parse().ok()?;
            sum = Some(sum.unwrap_or(0.0) + value);
        }
    }
    sum
}

/// Why the systems' answers to a question are not the same; none where they are.
///
/// VictoriaMetrics means something else by `rate` and `increase` (it takes the sample before the
/// window, and does not extrapolate), so its values may be a tenth off and points at the edges
/// missing; its series may not.
pub async fn disagreement(
    systems: &[System],
    question: &Question,
) -> anyhow::Result<Vec<(Kind, String)>> {
    let mut first = None;
    let mut differ = Vec::new();
    for system in systems {
        for target in system.targets() {
            let body = get(&mut Connection::new(target.api), &question.path)
                .await
                .with_context(|| format!("{}: {}", system.kind().name(), question.name))?;
            let Some(first) = &first else {
                first = Some(body);
                continue;
            };
            let found = match (question.is_metadata, system.kind()) {
                (true, _) => metadata(first, &body)?,
                (false, Kind::VictoriaMetrics) => loosely(first, &body, question.is_choice)?,
                (false, _) => strictly(first, &body)?,
            };
            differ.extend(found.map(|why| (system.kind(), why)));
        }
    }
    differ.dedup_by_key(|(kind, _)| *kind);
    Ok(differ)
}

fn strictly(a: &[u8], b: &[u8]) -> anyhow::Result<Option<String>> {
    let (a, b) = (Answer::read(200, a)?, Answer::read(200, b)?);
    Ok(a.compare(&b, false).err())
}

fn loosely(a: &[u8], b: &[u8], is_choice: bool) -> anyhow::Result<Option<String>> {
    let (a, b) = (Answer::read(200, a)?, Answer::read(200, b)?);
    let (Outcome::Data { rows: a, .. }, Outcome::Data { rows: b, .. }) = (a.outcome, b.outcome)
    else {
        return Ok(Some("an error".to_owned()));
    };
    if a.len() != b.len() {
        return Ok(Some(format!("{} or {} series", a.len(), b.len())));
    }
    for row in &a {
        let Some(other) = b.iter().find(|other| other.labels == row.labels) else {
            match is_choice {
                true => continue,
                false => return Ok(Some(format!("no series {:?}", row.labels))),
            }
        };
        for (at_ms, sample) in &row.points {
            let Ok(n) = other.points.binary_search_by_key(at_ms, |p| p.0) else {
                continue;
            };
            let (Sample::Float(x), Sample::Float(y)) = (sample, &other.points[n].1) else {
                return Ok(Some("not a number".to_owned()));
            };
            if (x - y).abs() > 0.1 * x.abs().max(y.abs()) {
                return Ok(Some(format!("{x} or {y} at {at_ms} of {:?}", row.labels)));
            }
        }
    }
    Ok(None)
}

/// Lists as sets: nobody promises an order, and VictoriaMetrics has the label names of other days.
fn metadata(a: &[u8], b: &[u8]) -> anyhow::Result<Option<String>> {
    let set = |bytes: &[u8]| -> anyhow::Result<BTreeSet<String>> {
        let value: serde_json::Value = serde_json::from_slice(bytes)?;
        let list = value["data"].as_array().context("no list")?;
        Ok(list.iter().map(ToString::to_string).collect())
    };
    let (a, b) = (set(a)?, set(b)?);
    Ok((a != b).then(|| format!("{} or {} entries", a.len(), b.len())))
}
