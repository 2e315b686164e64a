//! Pages about the node: `/api/v1/status/…`, `/metrics`, `/version`.
//!
//! Shapes are Prometheus' where it has them; `status/cluster` is ours.

use std::collections::BTreeMap;
use std::fmt::Write;

use axum::extract::{OriginalUri, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use federation::Escaping;
use serde_json::json;

use super::encoding::redirect;
use super::json::{Json, success};
use super::params::Form;
use super::query::json_response;
use super::state::{ClusterStatus, Settings, Shard};
use super::{Shared, instant, text};

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

/// How far the log was read when starting. This node listens only once it has been.
pub async fn log_replay() -> Response {
    let write = |json: &mut Json| {
        json.raw("{\"min\":0,\"max\":0,\"current\":0}");
    };
    json_response(success(write, &[], &[]))
}

/// What an operator should know now.
pub async fn notifications(State(api): State<Shared>) -> Response {
    let notifications = api.status.notifications();
    let write = |json: &mut Json| {
        json.list(&notifications, |json, one| {
            json.raw("{\"text\":").text(&one.text);
            json.raw(",\"date\":").text(&instant::format(one.since));
            json.raw(",\"active\":true}");
        });
    };
    json_response(success(write, &[], &[]))
}

/// Where Prometheus' pages begin.
pub async fn start_page(State(api): State<Shared>, OriginalUri(uri): OriginalUri) -> Response {
    let Settings {
        route_prefix,
        external_path,
        ..
    } = &api.settings;
    // A directory without its slash.
    if uri.path() == route_prefix {
        let (code, location) = (StatusCode::MOVED_PERMANENTLY, format!("{route_prefix}/"));
        return redirect(code, "Moved Permanently", &location);
    }
    redirect(
        StatusCode::FOUND,
        "Found",
        &format!("{external_path}/query"),
    )
}

/// Where a prefix is, the way below it.
pub async fn to_prefix(State(api): State<Shared>) -> Response {
    redirect(StatusCode::FOUND, "Found", &api.settings.route_prefix)
}

/// Where links to the graph of Prometheus 2 lead.
pub async fn old_graph(State(api): State<Shared>, uri: Uri) -> Response {
    let (path, query) = (&api.settings.external_path, uri.query().unwrap_or_default());
    let location = format!("{path}/query?{query}");
    redirect(StatusCode::FOUND, "Found", &location)
}

/// Members and shards as this node knows them; `?format=text` for people.
pub async fn cluster(State(api): State<Shared>, form: Form) -> Response {
    let cluster = api.status.cluster();
    match form.first("format") {
        "text" => text(table(&cluster)),
        _ => respond(&cluster),
    }
}

/// The node's own telemetry.
pub async fn metrics(State(api): State<Shared>) -> Response {
    let kind = [(header::CONTENT_TYPE, Escaping::default().content_type())];
    (kind, api.status.metrics_text()).into_response()
}

pub fn respond(data: &impl serde::Serialize) -> Response {
    json_response(success(
        |json| {
            json.value(data);
        },
        &[],
        &[],
    ))
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
    use std::sync::atomic::Ordering;

    use super::super::state::Settings;
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

    #[tokio::test]
    async fn what_an_operator_should_know_is_told() {
        let twin = Twin::new();
        let none = twin.get("/api/v1/notifications").await;
        assert_eq!(none.text(), r#"{"status":"success","data":[]}"#);
        twin.store.stopping.store(true, Ordering::SeqCst);
        let one = twin.get("/api/v1/notifications").await;
        assert_eq!(
            one.text(),
            r#"{"status":"success","data":[{"text":"stopping","date":"2026-11-21T03:56:19.5Z","active":true}]}"#
        );
        let replayed = data("/api/v1/status/walreplay").await;
        assert_eq!(replayed, r#"{"min":0,"max":0,"current":0}"#);
    }

    /// Prometheus 3.5.3.
    #[tokio::test]
    async fn old_links_lead_on() {
        for (path, location, body) in [
            ("/", "/query", "<a href=\"/query\">Found</a>.\n\n"),
            ("/graph", "/query?", "<a href=\"/query?\">Found</a>.\n\n"),
            (
                "/graph?g0.expr=up&g0.tab=1",
                "/query?g0.expr=up&g0.tab=1",
                "<a href=\"/query?g0.expr=up&amp;g0.tab=1\">Found</a>.\n\n",
            ),
        ] {
            let answer = Twin::new().get(path).await;
            assert_eq!(answer.seen(), (302, body));
            assert_eq!(answer.header("location"), location);
        }
        assert_eq!(Twin::new().get("/query").await.code, 404);
    }

    /// Prometheus 3.5.3 with `--web.external-url=http://x.y/pre/`, without and with `--web.route-prefix=/`.
    #[tokio::test]
    async fn links_lead_below_the_external_url() {
        let below = |prefix: &str| {
            Twin::with(Settings {
                route_prefix: prefix.to_owned(),
                external_path: "/pre".to_owned(),
                ..Settings::default()
            })
        };
        let (behind, plain) = (below("/pre"), below(""));
        for (twin, path, code, location) in [
            (&behind, "/", 302, "/pre"),
            (&behind, "/pre", 301, "/pre/"),
            (&behind, "/pre/", 302, "/pre/query"),
            (&behind, "/pre/graph?a=b", 302, "/pre/query?a=b"),
            (&plain, "/", 302, "/pre/query"),
            (&plain, "/graph", 302, "/pre/query?"),
        ] {
            let answer = twin.get(path).await;
            assert_eq!(
                (answer.code, answer.header("location")),
                (code, location),
                "{path}"
            );
        }
        assert_eq!(behind.get("/graph").await.code, 404);
        assert_eq!(behind.get("/pre/version").await.code, 200);
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
