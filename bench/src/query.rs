//! A few questions about the data, and how long the answers take.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jepsen_tests::cluster::Target;
use jepsen_tests::http::{Connection, Reply};

use crate::shape::{INTERVAL_MS, SERIES_PER_METRIC, labels};

const QUERY_DEADLINE: Duration = Duration::from_secs(30);
const REPEATS: usize = 15;

/// Name and path of each question; `end_s` is the time of the last sample.
fn questions(end_s: i64) -> Vec<(&'static str, String)> {
    let name = &labels(0)[0].1;
    let instance = &labels(0)[3].1;
    let instant = |query: String| format!("/api/v1/query?query={}&time={end_s}", escaped(&query));
    vec![
        (
            "one series, now",
            instant(format!("{name}{{instance=\"{instance}\"}}")),
        ),
        ("1,000 series, now", instant(name.clone())),
        (
            "sum by (zone) (rate 5m), now",
            instant(format!("sum by (zone) (rate({name}[5m]))")),
        ),
        (
            "sum by (zone) (rate 5m), 10 min",
            format!(
                "/api/v1/query_range?query={}&start={}&end={end_s}&step=15",
                escaped(&format!("sum by (zone) (rate({name}[5m]))")),
                end_s - 600
            ),
        ),
    ]
}

/// Median milliseconds of each question, asked of the targets in turn.
pub async fn ask(targets: &[Target], end_ms: i64) -> BTreeMap<String, Result<f64, String>> {
    let mut answers = BTreeMap::new();
    for (name, path) in questions(end_ms / 1000) {
        let mut times = Vec::new();
        let mut error = None;
        for n in 0..REPEATS {
            let mut connection = Connection::new(targets[n % targets.len()].api);
            let begin = Instant::now();
            match get(&mut connection, &path).await {
                Ok(_) => times.push(begin.elapsed().as_secs_f64() * 1e3),
                Err(cause) => error = Some(format!("{cause:#}")),
            }
        }
        times.sort_by(f64::total_cmp);
        let answer = match error {
            Some(error) => Err(error),
            None => Ok(times[times.len() / 2]),
        };
        answers.insert(name.to_owned(), answer);
    }
    answers
}

/// The metrics of so many series, and how many series each has.
pub fn metrics(series: u32) -> impl Iterator<Item = (String, u32)> {
    let firsts = (0..series).step_by(SERIES_PER_METRIC as usize);
    firsts.map(move |first| {
        let of = SERIES_PER_METRIC.min(series - first);
        (labels(first)[0].1.clone(), of)
    })
}

/// How many samples of the first metric the store has, by its own count.
pub async fn stored_samples(target: Target, end_ms: i64, rounds: u32) -> anyhow::Result<u64> {
    count_of(target, &labels(0)[0].1, end_ms, rounds).await
}

/// The same of any metric.
pub async fn count_of(target: Target, name: &str, end_ms: i64, rounds: u32) -> anyhow::Result<u64> {
    let range_s = i64::from(rounds) * INTERVAL_MS / 1000 + 60;
    let query = escaped(&format!("sum(count_over_time({name}[{range_s}s]))"));
    let path = format!("/api/v1/query?query={query}&time={}", end_ms / 1000);
    let body = get(&mut Connection::new(target.api), &path).await?;
    let answer: serde_json::Value = serde_json::from_slice(&body)?;
    let result = &answer["data"]["result"];
    if result.as_array().is_some_and(Vec::is_empty) {
        return Ok(0);
    }
    let text = result[0]["value"][1]
        .as_str()
        .with_context(|| format!("no value in {answer}"))?;
    Ok(text.parse::<f64>()? as u64)
}

async fn get(connection: &mut Connection, path: &str) -> anyhow::Result<bytes::Bytes> {
    match connection.get(path, QUERY_DEADLINE).await {
        Reply::Answer { status: 200, body } => Ok(body),
        Reply::Answer { status, body } => {
            bail!("{status}: {}", String::from_utf8_lossy(&body))
        }
        Reply::NotSent(why) | Reply::Lost(why) => bail!("{why}"),
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
