//! What this node's pages ask the programs on the other nodes, and what it answers them.
//!
//! A target is scraped by one node, and only that one knows how its last scrape went and what its
//! metrics mean. Questions and answers are JSON; what cannot be read counts as no answer. Nodes of
//! another version may not know a question: they are named like those that are silent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cluster::{Answers, Asked, Cluster};
use model::{Labels, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::scrape::{Pools, Told};
use crate::web::state::{MetricMetadata, TargetMetadata};

/// How the last scrapes went of the targets that the asked node holds the leases of.
const TARGETS: &str = "targets";
/// What those targets say their metrics mean.
const METADATA: &str = "metadata";

/// [`Told`] on the wire.
#[derive(Serialize, Deserialize)]
struct TargetAnswer {
    identity: u64,
    last_error: String,
    last_scrape_ms: Option<i64>,
    duration_nanos: u64,
    healthy: Option<bool>,
}

#[derive(Serialize, Deserialize)]
struct MetadataQuestion {
    metric: Option<String>,
}

/// A target of a pool and its metrics.
#[derive(Serialize, Deserialize)]
struct MetadataAnswer {
    pool: String,
    labels: Vec<(String, String)>,
    metrics: Vec<MetricMetadata>,
}

/// Answers for the targets scraped here.
pub struct Neighbour(pub Arc<Pools>);

#[async_trait]
impl Answers for Neighbour {
    async fn answer(&self, kind: &str, payload: Bytes) -> Result<Bytes, String> {
        match kind {
            TARGETS => to_bytes(&self.targets()),
            METADATA => {
                let question: MetadataQuestion = from_bytes(&payload)?;
                to_bytes(&self.metadata(question.metric.as_deref()))
            }
            other => Err(format!("unknown question {other}")),
        }
    }
}

impl Neighbour {
    fn targets(&self) -> Vec<TargetAnswer> {
        let told = self.0.told().into_iter();
        told.map(|(identity, told)| TargetAnswer {
            identity,
            last_error: told.last_error,
            last_scrape_ms: told.last_scrape.map(|at| at.0),
            duration_nanos: u64::try_from(told.duration.as_nanos()).unwrap_or(u64::MAX),
            healthy: told.healthy,
        })
        .collect()
    }

    fn metadata(&self, metric: Option<&str>) -> Vec<MetadataAnswer> {
        let own = self.0.metadata(metric).into_iter();
        own.map(|(pool, target)| MetadataAnswer {
            pool,
            labels: pairs(&target.labels),
            metrics: target.metrics,
        })
        .collect()
    }
}

/// What the other nodes tell of their targets, by identity; and who did not.
pub async fn ask_targets(cluster: &Cluster) -> (BTreeMap<u64, Told>, Vec<String>) {
    let asked = cluster.ask_others(TARGETS, Bytes::new()).await;
    let (answers, silent) = read::<Vec<TargetAnswer>>(asked);
    let told = answers.into_iter().flatten().map(|answer| {
        let told = Told {
            last_error: answer.last_error,
            last_scrape: answer.last_scrape_ms.map(Timestamp),
            duration: Duration::from_nanos(answer.duration_nanos),
            healthy: answer.healthy,
        };
        (answer.identity, told)
    });
    (told.collect(), silent)
}

/// What targets of all nodes say their metrics mean, by pool and labels; and who is missing.
pub async fn ask_metadata(
    cluster: &Cluster,
    pools: &Pools,
    metric: Option<&str>,
) -> (Vec<TargetMetadata>, Vec<String>) {
    let question = MetadataQuestion {
        metric: metric.map(str::to_owned),
    };
    let (answers, silent) = match to_bytes(&question) {
        Ok(payload) => read::<Vec<MetadataAnswer>>(cluster.ask_others(METADATA, payload).await),
        Err(why) => (Vec::new(), vec![why]),
    };
    // A target whose lease moved between two answers is in both: the last one stays.
    let mut all: BTreeMap<(String, Labels), Vec<MetricMetadata>> = BTreeMap::new();
    for answer in answers.into_iter().flatten() {
        let labels = Labels::from_pairs(answer.labels);
        all.insert((answer.pool, labels), answer.metrics);
    }
    for (pool, target) in pools.metadata(metric) {
        all.insert((pool, target.labels), target.metrics);
    }
    let targets = all.into_iter();
    let targets = targets.map(|((_, labels), metrics)| TargetMetadata { labels, metrics });
    (targets.collect(), silent)
}

/// Answers that can be read, and a line about each node that gave none.
fn read<T: DeserializeOwned>(asked: Vec<Asked>) -> (Vec<T>, Vec<String>) {
    let (mut answers, mut silent) = (Vec::new(), Vec::new());
    for one in asked {
        let answer = one.answer.map_err(|error| error.to_string());
        match answer.and_then(|bytes| from_bytes(&bytes)) {
            Ok(answer) => answers.push(answer),
            Err(why) => silent.push(format!(
                "node {} at {} did not tell of the targets it scrapes: {why}",
                one.node, one.address
            )),
        }
    }
    (answers, silent)
}

fn to_bytes(value: &impl Serialize) -> Result<Bytes, String> {
    let bytes = serde_json::to_vec(value).map_err(|e| e.to_string())?;
    Ok(bytes.into())
}

fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|e| format!("unreadable: {e}"))
}

fn pairs(labels: &Labels) -> Vec<(String, String)> {
    let pairs = labels.iter();
    pairs.map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use cluster::AskError;
    use model::NodeId;

    use super::*;

    #[test]
    fn silent_nodes_are_named_and_others_heard() {
        let asked = |node, answer: Result<&'static str, AskError>| Asked {
            node: NodeId(node),
            address: format!("h{node}:1"),
            answer: answer.map(|text| Bytes::from_static(text.as_bytes())),
        };
        let (answers, silent) = read::<Vec<u64>>(vec![
            asked(1, Ok("[7]")),
            asked(2, Err(AskError::TooSlow)),
            asked(3, Ok("{")),
        ]);
        assert_eq!(answers, [vec![7]]);
        assert_eq!(silent.len(), 2);
        assert_eq!(
            silent[0],
            "node n2 at h2:1 did not tell of the targets it scrapes: no answer in time"
        );
        assert!(silent[1].starts_with("node n3 at h3:1"), "{silent:?}");
    }
}
