//! Pages about the node: `/api/v1/status/…`, `/api/v1/targets`, `/metrics`, `/version`.
//!
//! Shapes are Prometheus' where it has them; `status/cluster` is ours.

use std::collections::BTreeMap;
use std::fmt::Write;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use federation::Escaping;
use serde_json::json;

use super::json::{Json, success};
use super::params::Form;
use super::query::json_response;
use super::state::{ClusterStatus, Shard, Target};
use super::{Shared, instant, text};

/// Go's zero time, for a target that was never scraped.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// What was built.
pub async fn build(State(api): State<Shared>) -> Response {
    respond(&api.status.build())
}

/// The same outside the API, as text.
pub async fn version(State(api): State<Shared>) -> Response {
    let mut json = Json::default();
    json.value(&api.status.build()).raw("\n");
    text(json.into_string())
}

/// Every flag with the value in force.
pub async fn flags(State(api): State<Shared>) -> Response {
    let flags: BTreeMap<_, _> = api.status.flags().into_iter().collect();
    respond(&flags)
}

/// The configuration in force.
pub async fn config(State(api): State<Shared>) -> Response {
    respond(&BTreeMap::from([("yaml", api.status.config_yaml())]))
}

/// The running process, under Prometheus' names for a Go program's.
pub async fn runtime(State(api): State<Shared>) -> Response {
    let process = api.status.runtime();
    let mut json = Json::default();
    let fields = [
        ("startTime", json!(instant::format(process.started))),
        ("CWD", json!(process.directory)),
        ("hostname", json!(process.hostname)),
        ("serverTime", json!(instant::format(api.clock.now()))),
        ("reloadConfigSuccess", json!(process.last_reload_succeeded)),
        (
            "lastConfigTime",
            json!(instant::format(process.last_config_time)),
        ),
        ("corruptionCount", json!(process.corruptions)),
        ("goroutineCount", json!(process.tasks)),
        ("GOMAXPROCS", json!(process.threads)),
        ("GOMEMLIMIT", json!(process.memory_limit_bytes)),
        ("GOGC", json!("")),
        ("GODEBUG", json!("")),
        ("storageRetention", json!(process.retention)),
    ];
    json.raw("{");
    for (at, (name, value)) in fields.iter().enumerate() {
        json.raw(if at > 0 { "," } else { "" });
        json.text(name).raw(":").value(value);
    }
    json.raw("}");
    json_response(success(
        |data| {
            data.raw(&json.into_string());
        },
        &[],
        &[],
    ))
}

/// Members and shards as this node knows them; `?format=text` for people.
pub async fn cluster(State(api): State<Shared>, form: Form) -> Response {
    let cluster = api.status.cluster();
    match form.first("format") {
        "text" => text(table(&cluster)),
        _ => respond(&cluster),
    }
}

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
    json_response(success(write, &[], &[]))
}

/// The node's own telemetry.
pub async fn metrics(State(api): State<Shared>) -> Response {
    let kind = [(header::CONTENT_TYPE, Escaping::default().content_type())];
    (kind, api.status.metrics_text()).into_response()
}

fn respond(data: &impl serde::Serialize) -> Response {
    json_response(success(
        |json| {
            json.value(data);
        },
        &[],
        &[],
    ))
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

/// The cluster for a terminal.
fn table(cluster: &ClusterStatus) -> String {
    let mut out = format!(
        "cluster {}, node {}\n\n",
        cluster.cluster_id, cluster.node_id
    );
    let heading = ["MEMBER", "ADDRESS", "ZONE", "ALIVE", "VERSION"].map(str::to_owned);
    let members = cluster.members.iter().map(|m| {
        let alive = if m.alive { "yes" } else { "no" };
        [
            m.id.to_string(),
            m.address.clone(),
            m.zone.clone(),
            alive.to_owned(),
            m.version.clone(),
        ]
    });
    write_columns(&mut out, std::iter::once(heading).chain(members).collect());
    out.push('\n');
    let heading = [
        "SHARD", "LEADER", "REPLICAS", "ROLE", "TERM", "LAST LOG", "APPLIED", "LAG",
    ];
    let shards = cluster.shards.iter().map(shard_row);
    let heading = heading.map(str::to_owned);
    write_columns(&mut out, std::iter::once(heading).chain(shards).collect());
    out
}

fn shard_row(shard: &Shard) -> [String; 8] {
    let replicas: Vec<_> = shard.replicas.iter().map(ToString::to_string).collect();
    let leader = shard.leader.map_or("none".to_owned(), |id| id.to_string());
    let [role, term, last_log, applied, lag] = match &shard.here {
        Some(here) => [
            here.role.to_owned(),
            here.term.to_string(),
            here.last_log.to_string(),
            here.applied.to_string(),
            here.lag.to_string(),
        ],
        None => ["-"; 5].map(str::to_owned),
    };
    let id = shard.id.to_string();
    let replicas = replicas.join(",");
    [id, leader, replicas, role, term, last_log, applied, lag]
}

fn write_columns<const N: usize>(out: &mut String, rows: Vec<[String; N]>) {
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            write!(line, "{cell:width$}  ").expect("a String takes all");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::super::twin::Twin;

    const BUILD: &str = r#"{"version":"3.5.3+ds1","revision":"3.5.3+ds1-6","branch":"debian/sid","buildUser":"team+pkg-go@tracker.debian.org","buildDate":"20260929-11:59:39","goVersion":"go1.27.1"}"#;

    async fn data(path: &str) -> String {
        let answer = Twin::new().get(path).await;
        assert_eq!(answer.code, 200);
        assert_eq!(answer.header("content-type"), "application/json");
        let data = answer.text().strip_prefix(r#"{"status":"success","data":"#);
        let data = data.and_then(|d| d.strip_suffix('}'));
        data.expect("an envelope").to_owned()
    }

    /// Prometheus 3.5.3: `curl :9090/api/v1/status/buildinfo` and `curl :9090/version`.
    #[tokio::test]
    async fn the_build_has_prometheus_fields_and_no_others() {
        assert_eq!(data("/api/v1/status/buildinfo").await, BUILD);
        let version = Twin::new().get("/version").await;
        assert_eq!(version.seen(), (200, format!("{BUILD}\n").as_str()));
    }

    #[tokio::test]
    async fn flags_config_and_process_have_prometheus_shapes() {
        assert_eq!(
            data("/api/v1/status/flags").await,
            r#"{"a":"\u003c1\u003e","web.listen-address":":9090"}"#
        );
        assert_eq!(
            data("/api/v1/status/config").await,
            r#"{"yaml":"global:\n  scrape_interval: 1s\n"}"#
        );
        assert_eq!(
            data("/api/v1/status/runtimeinfo").await,
            concat!(
                r#"{"startTime":"2026-11-21T03:54:49.099Z","CWD":"/data","hostname":"","#,
                r#""serverTime":"2026-11-21T03:56:19.5Z","reloadConfigSuccess":false,"#,
                r#""lastConfigTime":"1970-01-01T00:00:00Z","corruptionCount":0,"#,
                r#""goroutineCount":0,"GOMAXPROCS":2,"GOMEMLIMIT":0,"GOGC":"","GODEBUG":"","#,
                r#""storageRetention":"15d"}"#
            )
        );
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
    async fn the_cluster_is_shown_to_programs_and_to_people() {
        assert_eq!(
            data("/api/v1/status/cluster").await,
            concat!(
                r#"{"clusterId":"000000000000000000000000000000ab","nodeId":"n7","members":["#,
                r#"{"id":"n7","address":"127.0.0.1:9192","zone":"a","alive":true,"version":"0.1.0"}],"#,
                r#""shards":[{"id":"s0","leader":"n7","replicas":["n7","n8"],"here":"#,
                r#"{"role":"leader","term":2,"lastLog":12,"applied":11,"lag":1}},"#,
                r#"{"id":"s1","leader":null,"replicas":["n7","n8"],"here":null}]}"#
            )
        );
        let table = Twin::new().get("/api/v1/status/cluster?format=text").await;
        assert_eq!(
            table.text(),
            "cluster 000000000000000000000000000000ab, node n7\n\
             \n\
             MEMBER  ADDRESS         ZONE  ALIVE  VERSION\n\
             n7      127.0.0.1:9192  a     yes    0.1.0\n\
             \n\
             SHARD  LEADER  REPLICAS  ROLE    TERM  LAST LOG  APPLIED  LAG\n\
             s0     n7      n7,n8     leader  2     12        11       1\n\
             s1     none    n7,n8     -       -     -         -        -\n"
        );
    }

    #[tokio::test]
    async fn own_telemetry_is_text() {
        let answer = Twin::new().get("/metrics").await;
        assert_eq!(answer.seen(), (200, "# TYPE own gauge\nown 1\n"));
        assert_eq!(
            answer.header("content-type"),
            "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
        );
    }
}
