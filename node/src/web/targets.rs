//! `/api/v1/targets`, `/api/v1/scrape_pools`, and what targets say their metrics mean:
//! `/api/v1/targets/metadata`, `/api/v1/metadata`.
//!
//! Every node answers for the whole cluster. A node that should know something and did not answer
//! is named in `warnings`: what is shown without it is still right, and a page that shows nothing
//! while one machine is away would be of no use then. `consistency` has no meaning here.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::response::Response;
use model::matcher::matches_all;

use super::errors::ApiError;
use super::json::{Json, success};
use super::known::Known;
use super::params::{Form, parse_integer};
use super::query::json_response;
use super::state::{MetricMetadata, Target};
use super::{Shared, instant};

/// Go's zero time, for a target that was never scraped.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Scrape targets; `state` and `scrapePool` narrow them.
pub async fn targets(State(api): State<Shared>, form: Form) -> Response {
    let all = api.status.targets().await;
    let state = form.first("state").to_lowercase();
    let shows = |kind: &str| matches!(state.as_str(), "" | "any") || state == kind;
    let pool = form.first("scrapePool");
    let in_pool = |name: &str| pool.is_empty() || pool == name;
    let mut active: Vec<_> = all.active.iter().collect();
    active.retain(|t| shows("active") && in_pool(&t.scrape_pool));
    let mut dropped: Vec<_> = all.dropped.iter().collect();
    dropped.retain(|t| shows("dropped") && in_pool(&t.scrape_pool));
    let counts = shows("dropped").then_some(&all.dropped_counts);
    let write = |json: &mut Json| {
        json.raw("{\"activeTargets\":")
            .list(&active, |json, target| write_target(json, target));
        json.raw(",\"droppedTargets\":").list(&dropped, |json, t| {
            json.raw("{\"discoveredLabels\":")
                .labels(&t.discovered_labels);
            json.raw(",\"scrapePool\":").text(&t.scrape_pool).raw("}");
        });
        json.raw(",\"droppedTargetCounts\":")
            .value(&counts)
            .raw("}");
    };
    json_response(success(write, &all.warnings, &[]))
}

/// Names of the jobs.
pub async fn scrape_pools(State(api): State<Shared>) -> Response {
    let mut pools = api.status.scrape_pools();
    pools.sort();
    let write = |json: &mut Json| {
        json.raw("{\"scrapePools\":").texts(&pools).raw("}");
    };
    json_response(success(write, &[], &[]))
}

/// What each target says of its metrics; of one `metric` its name is left out.
pub async fn target_metadata(State(api): State<Shared>, form: Form) -> Result<Response, ApiError> {
    let limit = limit(&form, "limit")?;
    let matchers = match form.first("match_target") {
        "" => Vec::new(),
        text => {
            promql::parse_matchers(text).map_err(|e| ApiError::bad_parameter("match_target", e))?
        }
    };
    let metric = Some(form.first("metric")).filter(|metric| !metric.is_empty());
    let known = api.status.metadata(metric).await;
    let mut found = Vec::new();
    for target in &known.targets {
        if limit.is_some_and(|limit| found.len() >= limit) {
            break;
        }
        // As in Prometheus, the limit is looked at between targets only.
        if matches_all(&matchers, &target.labels) {
            found.extend(target.metrics.iter().map(|of| (&target.labels, of)));
        }
    }
    let write = |json: &mut Json| {
        json.list(&found, |json, (labels, of)| {
            json.raw("{\"target\":").labels(labels);
            if metric.is_none() {
                json.raw(",\"metric\":").text(&of.metric);
            }
            json.raw(",\"type\":").text(&of.kind);
            json.raw(",\"help\":").text(&of.help);
            json.raw(",\"unit\":").text(&of.unit).raw("}");
        });
    };
    Ok(json_response(success(write, &known.warnings, &[])))
}

/// What any target says of a metric, by metric; of those that no target has, what writes and pushes
/// said.
pub async fn metadata(State(api): State<Shared>, form: Form) -> Result<Response, ApiError> {
    let limit = limit(&form, "limit")?;
    let per_metric = self::limit(&form, "limit_per_metric")?;
    let metric = Some(form.first("metric")).filter(|metric| !metric.is_empty());
    let known = Known::ask(&api, metric).await;
    let mut by_metric: BTreeMap<&str, BTreeSet<&MetricMetadata>> = BTreeMap::new();
    for of in known.metrics() {
        let all = by_metric.entry(&of.metric).or_default();
        if per_metric.is_none_or(|most| most == 0 || all.len() < most) {
            all.insert(of);
        }
    }
    let metrics: Vec<_> = by_metric
        .into_iter()
        .take(limit.unwrap_or(usize::MAX))
        .map(|(metric, all)| (metric, all.into_iter().collect::<Vec<_>>()))
        .collect();
    let write = |json: &mut Json| {
        json.raw("{");
        for (at, (metric, all)) in metrics.iter().enumerate() {
            json.raw(if at > 0 { "," } else { "" });
            json.text(metric).raw(":").list(all, |json, of| {
                json.raw("{\"type\":").text(&of.kind);
                json.raw(",\"unit\":").text(&of.unit);
                json.raw(",\"help\":").text(&of.help).raw("}");
            });
        }
        json.raw("}");
    };
    Ok(json_response(success(write, known.warnings(), &[])))
}

/// `None` without one; below zero counts as none, zero as nothing.
fn limit(form: &Form, name: &str) -> Result<Option<usize>, ApiError> {
    match form.first(name) {
        "" => Ok(None),
        text => match parse_integer(text) {
            Ok(limit) => Ok(usize::try_from(limit).ok()),
            Err(_) => Err(ApiError::bad_data(format!("{name} must be a number"))),
        },
    }
}

fn write_target(json: &mut Json, target: &Target) {
    let health = match target.healthy {
        None => "unknown",
        Some(true) => "up",
        Some(false) => "down",
    };
    let scraped = target.last_scrape.map(instant::format);
    json.raw("{\"discoveredLabels\":")
        .labels(&target.discovered_labels);
    json.raw(",\"labels\":").labels(&target.labels);
    let texts = |json: &mut Json, fields: &[(&str, &str)]| {
        for (name, value) in fields {
            json.raw(",").text(name).raw(":").text(value);
        }
    };
    texts(
        json,
        &[
            ("scrapePool", &target.scrape_pool),
            ("scrapeUrl", &target.scrape_url),
            ("globalUrl", &target.global_url),
            ("lastError", &target.last_error),
            ("lastScrape", scraped.as_deref().unwrap_or(NEVER)),
        ],
    );
    json.raw(",\"lastScrapeDuration\":")
        .value(&target.last_scrape_duration.as_secs_f64());
    texts(
        json,
        &[
            ("health", health),
            ("scrapeInterval", &target.scrape_interval),
            ("scrapeTimeout", &target.scrape_timeout),
        ],
    );
    json.raw("}");
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use model::{FamilyMetadata, MetadataStore, MetricKind};

    use super::super::twin::Twin;

    async fn data(path: &str) -> String {
        let answer = Twin::new().get(path).await;
        assert_eq!(answer.code, 200, "{}", answer.text());
        let data = answer.text().strip_prefix(r#"{"status":"success","data":"#);
        let data = data.and_then(|d| d.strip_suffix('}'));
        data.expect("an envelope").to_owned()
    }

    /// Prometheus 3.5.3: `curl ':9090/api/v1/targets?state=…'`; the time of the last scrape has
    /// fewer digits here.
    #[tokio::test]
    async fn targets_are_prometheus_bytes() {
        let active = concat!(
            r#"{"activeTargets":[{"discoveredLabels":{"__address__":"127.0.0.1:21992","#,
            r#""__metrics_path__":"/metrics","__scheme__":"http","__scrape_interval__":"1s","#,
            r#""__scrape_timeout__":"1s","job":"exp"},"labels":{"instance":"127.0.0.1:21992","#,
            r#""job":"exp"},"scrapePool":"exp","scrapeUrl":"http://127.0.0.1:21992/metrics","#,
            r#""globalUrl":"http://vm:21992/metrics","lastError":"","#,
            r#""lastScrape":"2026-11-21T03:56:19.555Z","lastScrapeDuration":0.001228454,"#,
            r#""health":"up","scrapeInterval":"1s","scrapeTimeout":"1s"}],"droppedTargets":[],"#,
            r#""droppedTargetCounts":"#,
        );
        assert_eq!(
            data("/api/v1/targets").await,
            format!(r#"{active}{{"exp":0}}}}"#)
        );
        assert_eq!(
            data("/api/v1/targets?state=active&scrapePool=exp").await,
            format!("{active}null}}")
        );
        assert_eq!(
            data("/api/v1/targets?state=dropped").await,
            r#"{"activeTargets":[],"droppedTargets":[],"droppedTargetCounts":{"exp":0}}"#
        );
    }

    #[tokio::test]
    async fn pools_are_named() {
        assert_eq!(
            data("/api/v1/scrape_pools").await,
            r#"{"scrapePools":["exp","other"]}"#
        );
    }

    /// Shapes of Prometheus 3.5.3; the metrics are the twin's.
    #[tokio::test]
    async fn metadata_is_told_by_metric_and_by_target() {
        let up = r#"{"type":"gauge","unit":"","help":"A \u003c B."}"#;
        let up_too = r#"{"type":"gauge","unit":"","help":"Other."}"#;
        let total = r#"{"type":"counter","unit":"bytes","help":""}"#;
        for (path, found) in [
            ("metadata", format!(r#"{{"total":[{total}],"up":[{up},{up_too}]}}"#)),
            ("metadata?limit=1", format!(r#"{{"total":[{total}]}}"#)),
            ("metadata?limit=0", "{}".to_owned()),
            ("metadata?limit=-1&metric=up", format!(r#"{{"up":[{up},{up_too}]}}"#)),
            ("metadata?limit_per_metric=1&metric=up", format!(r#"{{"up":[{up}]}}"#)),
            ("metadata?metric=none", "{}".to_owned()),
            (
                "targets/metadata?metric=total",
                r#"[{"target":{"job":"exp"},"type":"counter","help":"","unit":"bytes"}]"#.to_owned(),
            ),
            (
                "targets/metadata?match_target={job=%22other%22}",
                r#"[{"target":{"job":"other"},"metric":"up","type":"gauge","help":"Other.","unit":""}]"#
                    .to_owned(),
            ),
            ("targets/metadata?limit=0", "[]".to_owned()),
        ] {
            assert_eq!(data(&format!("/api/v1/{path}")).await, found, "{path}");
        }
    }

    /// What a target says of its metric is all that is told of it, as in Prometheus.
    #[tokio::test]
    async fn of_metrics_without_a_target_senders_words_are_told() {
        let twin = Twin::new();
        let word = |name: &str, help: &str| FamilyMetadata {
            name: name.to_owned(),
            kind: MetricKind::Summary,
            help: help.to_owned(),
            unit: String::new(),
        };
        let told = vec![word("sent", "1"), word("sent", "2"), word("total", "3")];
        twin.store.describe(told).await.unwrap();
        let answer = twin.get("/api/v1/metadata?limit_per_metric=1").await;
        let expected = concat!(
            r#"{"status":"success","data":{"sent":[{"type":"summary","unit":"","help":"1"}],"#,
            r#""total":[{"type":"counter","unit":"bytes","help":""}],"#,
            r#""up":[{"type":"gauge","unit":"","help":"A \u003c B."}]}}"#
        );
        assert_eq!(answer.seen(), (200, expected));
        twin.store.broken.store(true, Ordering::SeqCst);
        let answer = twin.get("/api/v1/metadata?metric=total").await;
        let expected = concat!(
            r#"{"status":"success","data":{"total":[{"type":"counter","unit":"bytes","help":""}]},"#,
            r#""warnings":["what writes and pushes said of metrics is missing: no answer from shard s3"]}"#
        );
        assert_eq!(answer.seen(), (200, expected));
    }

    /// Prometheus 3.5.3, each by `curl -G`.
    #[tokio::test]
    async fn what_is_wrong_is_said_in_prometheus_words() {
        for (path, error) in [
            ("metadata?limit=x", "limit must be a number"),
            (
                "metadata?limit_per_metric=x",
                "limit_per_metric must be a number",
            ),
            ("targets/metadata?limit=x", "limit must be a number"),
            (
                "targets/metadata?match_target={",
                r#"invalid parameter \"match_target\": 1:2: parse error: unexpected end of input inside braces"#,
            ),
        ] {
            let answer = Twin::new().get(&format!("/api/v1/{path}")).await;
            let body = format!(r#"{{"status":"error","errorType":"bad_data","error":"{error}"}}"#);
            assert_eq!(answer.seen(), (400, body.as_str()), "{path}");
        }
    }
}
