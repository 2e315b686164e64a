//! What the parent has of a child, against what the child acknowledged.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};

use super::METRIC;
use super::feed::Acknowledged;
use crate::cluster::Target;
use crate::http::{Connection, Reply};

const DEADLINE: Duration = Duration::from_secs(20);

/// What differs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Difference {
    pub acknowledged: usize,
    pub found: usize,
    /// Acknowledged and not there, or there with another value.
    pub holes: usize,
    /// There and never acknowledged, or there twice.
    pub strangers: usize,
}

impl Difference {
    pub fn is_none(&self) -> bool {
        self.holes == 0 && self.strangers == 0 && self.found == self.acknowledged
    }
}

/// Every sample a node of the parent gives of `child`, as series, instant and value.
pub async fn samples(
    target: Target,
    child: &str,
    end_ms: i64,
    span_s: i64,
) -> anyhow::Result<Vec<((usize, i64), f64)>> {
    let selector = format!("{METRIC}%7Bquorate_child%3D%22{child}%22%7D");
    let path = format!(
        "/api/v1/query?query={selector}%5B{span_s}s%5D&time={}",
        end_ms as f64 / 1e3
    );
    let body = match Connection::new(target.api).get(&path, DEADLINE).await {
        Reply::Answer { status: 200, body } => body,
        other => bail!("{path}: {other:?}"),
    };
    read(&body)
}

fn read(body: &[u8]) -> anyhow::Result<Vec<((usize, i64), f64)>> {
    let answer: serde_json::Value = serde_json::from_slice(body)?;
    let result = answer["data"]["result"].as_array().context("no result")?;
    let mut samples = Vec::new();
    for series in result {
        let n = series["metric"]["series"].as_str().context("no series")?;
        let n: usize = n.parse()?;
        for point in series["values"].as_array().context("no values")? {
            let at = point[0].as_f64().context("no instant")?;
            let value = point[1].as_str().context("no value")?.parse()?;
            samples.push(((n, (at * 1e3).round() as i64), value));
        }
    }
    Ok(samples)
}

pub fn compare(acknowledged: &Acknowledged, found: &[((usize, i64), f64)]) -> Difference {
    let mut seen: BTreeMap<(usize, i64), Vec<f64>> = BTreeMap::new();
    for (key, value) in found {
        seen.entry(*key).or_default().push(*value);
    }
    let hole = |(key, value): &(&(usize, i64), &f64)| {
        seen.get(*key).is_none_or(|values| !values.contains(*value))
    };
    let known = |key: &(usize, i64)| acknowledged.contains_key(key);
    Difference {
        acknowledged: acknowledged.len(),
        found: found.len(),
        holes: acknowledged.iter().filter(hole).count(),
        strangers: seen
            .iter()
            .map(|(key, values)| values.len() - usize::from(known(key)))
            .sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_strangers_and_repetitions_are_seen() {
        let acknowledged = Acknowledged::from([((1, 10), 1.0), ((1, 20), 2.0), ((2, 10), 3.0)]);
        let all = vec![((1, 10), 1.0), ((1, 20), 2.0), ((2, 10), 3.0)];
        assert!(compare(&acknowledged, &all).is_none());
        let mut twice = all.clone();
        twice.push(all[0]);
        assert_eq!(compare(&acknowledged, &twice).strangers, 1);
        let mut wrong = all.clone();
        wrong[2].1 = 4.0;
        assert_eq!(compare(&acknowledged, &wrong).holes, 1);
        assert_eq!(compare(&acknowledged, &all[1..]).holes, 1);
        let mut stranger = all;
        stranger.push(((9, 9), 0.0));
        assert_eq!(compare(&acknowledged, &stranger).strangers, 1);
    }

    #[test]
    fn an_answer_is_read() {
        let body = br#"{"data":{"result":[{"metric":{"series":"3"},"values":[[1.5,"2.5"],[1700000000.123,"7"]]}]}}"#;
        let read = read(body).unwrap();
        assert_eq!(read, [((3, 1500), 2.5), ((3, 1_700_000_000_123), 7.0)]);
    }
}
