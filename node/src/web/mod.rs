//! HTTP as Prometheus and Pushgateway speak it: two routers over plain ports.
//!
//! What stays true: bytes from outside never panic and never cost more memory than a named bound;
//! paths, parameters, codes and texts are those of Prometheus 3.5 and Pushgateway 1.11, so that
//! their clients cannot tell; 2xx on a write is given only when the [`Sink`](model::sink::Sink)
//! or the groups said that everything is decided.
//!
//! In reading order:
//! - [`state`]: what the handlers stand on
//! - [`errors`]: every error's HTTP code; [`body`], [`params`], [`multipart`], [`moment`], [`instant`]: what came in;
//!   [`elsewhere`]: what was nearly right
//! - [`json`]: results as Prometheus' bytes
//! - [`query`], [`explain`], [`exemplars`], [`expressions`], [`metadata`], [`federate`], [`stream`], [`read`]:
//!   the way out
//! - [`write`], [`otlp`], [`push`], [`lines`]: the way in; [`push_api`], [`push_page`]: what was pushed,
//!   and wiping it
//! - [`targets`], [`rules`]: what the cluster scrapes and evaluates
//! - [`lifecycle`], [`status`], [`admin`]: the node and the store themselves
//! - [`encoding`]: compression and cross-origin headers; [`metrics`]: what is counted;
//!   [`serve`]: a listener and its connections; [`request_line`]: what they send bare; [`strict`]: what
//!   is no request

pub mod admin;
#[cfg(test)]
mod back_pressure;
mod backfill;
pub mod body;
mod elsewhere;
pub mod encoding;
pub mod errors;
pub mod exemplars;
pub mod explain;
pub mod expressions;
pub mod federate;
pub mod instant;
pub mod json;
mod known;
pub mod lifecycle;
pub mod lines;
mod media;
pub mod metadata;
pub mod metrics;
pub mod moment;
mod multipart;
pub mod otlp;
pub mod params;
pub mod push;
pub mod push_api;
pub mod push_page;
pub mod query;
pub mod read;
mod request_line;
pub mod rules;
pub mod serve;
pub mod state;
pub mod status;
pub mod stream;
mod strict;
pub mod targets;
pub mod write;

#[cfg(test)]
mod twin;

use std::sync::Arc;

use axum::handler::Handler;
use axum::http::{Method, StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post};
use axum::{Router, response::Response};
use tower::ServiceExt as _;

use metrics::Measure;
pub use serve::{Bounds, serve};
pub use state::{ApiState, Status};

type Shared = Arc<ApiState>;

/// The listener of Prometheus' API, all of it below `--web.route-prefix`.
pub fn api_router(state: ApiState) -> Router {
    let measure = Measure {
        metrics: state.http_metrics.clone(),
        clock: Arc::clone(&state.clock),
        prefix: state.settings.route_prefix.as_str().into(),
    };
    let prefix = state.settings.route_prefix.clone();
    let state = Arc::new(state);
    let json = Router::new()
        .route("/api/v1/query", get_or_post(query::instant))
        .route("/api/v1/query_range", get_or_post(query::range))
        .route(
            "/api/v1/series",
            preflight(
                "DELETE, GET, OPTIONS, POST",
                get(metadata::series)
                    .post(metadata::series)
                    .delete(metadata::delete_series),
            ),
        )
        .route("/api/v1/labels", get_or_post(metadata::label_names))
        .route(
            "/api/v1/label/{name}/values",
            get_json(metadata::label_values),
        )
        .route("/api/v1/format_query", get_or_post(expressions::format))
        .route("/api/v1/parse_query", get_or_post(expressions::parse))
        .route("/api/v1/query_exemplars", get_or_post(exemplars::query))
        .route("/api/v1/targets", get_json(targets::targets))
        .route(
            "/api/v1/targets/metadata",
            get_json(targets::target_metadata),
        )
        .route("/api/v1/scrape_pools", get_json(targets::scrape_pools))
        .route("/api/v1/metadata", get_json(targets::metadata))
        .route("/api/v1/rules", get_json(rules::rules))
        .route("/api/v1/alerts", get_json(rules::alerts))
        .route("/api/v1/alertmanagers", get_json(rules::alertmanagers))
        .route("/api/v1/notifications", get_json(status::notifications))
        .route("/api/v1/status/buildinfo", get_json(status::build))
        .route("/api/v1/status/cluster", get_json(status::cluster))
        .route("/api/v1/status/config", get_json(status::config))
        .route("/api/v1/status/flags", get_json(status::flags))
        .route("/api/v1/status/runtimeinfo", get_json(status::runtime))
        .route("/api/v1/status/tsdb", get_json(admin::statistics))
        .route("/api/v1/status/walreplay", get_json(status::log_replay))
        .route(
            "/api/v1/admin/tsdb/delete_series",
            order(admin::delete_series),
        )
        .route(
            "/api/v1/admin/tsdb/clean_tombstones",
            order(admin::clean_tombstones),
        )
        .route("/api/v1/admin/tsdb/snapshot", order(admin::snapshot))
        .route_layer(from_fn(encoding::compress))
        .route_layer(from_fn_with_state(
            Arc::clone(&state),
            encoding::cross_origin,
        ));
    let texts = Router::new()
        .route("/federate", only("GET, OPTIONS", get(federate::newest)))
        .route("/metrics", only("GET, OPTIONS", get(status::metrics)))
        .route(
            "/api/v1/federation/stream",
            only("GET, OPTIONS", get(stream::stream)),
        )
        .route_layer(from_fn(encoding::compress));
    let rest = Router::new()
        .route("/api/v1/read", only("OPTIONS, POST", post(read::remote)))
        .route("/api/v1/write", only("OPTIONS, POST", post(write::remote)))
        .route(
            "/api/v1/otlp/v1/metrics",
            only("OPTIONS, POST", post(otlp::metrics)),
        )
        .route(
            "/-/healthy",
            only("GET, HEAD, OPTIONS", get(lifecycle::healthy)),
        )
        .route(
            "/-/ready",
            only("GET, HEAD, OPTIONS", get(lifecycle::ready)),
        )
        .route("/-/reload", lifecycle_route(lifecycle::reload))
        .route("/-/quit", lifecycle_route(lifecycle::quit))
        .route("/", only("GET, OPTIONS", get(status::start_page)))
        .route("/graph", only("GET, OPTIONS", get(status::old_graph)))
        .route("/version", only("GET, OPTIONS", get(status::version)));
    let served = json
        .merge(texts)
        .merge(rest)
        .route(
            "/api/v1/import/write",
            only("OPTIONS, POST", post(backfill::write)),
        )
        .merge(lines::routes())
        .route_layer(from_fn_with_state(measure, metrics::measure))
        .fallback(elsewhere::lead)
        .layer(from_fn_with_state(Arc::clone(&state), encoding::preflight))
        .layer(from_fn(encoding::clean_path))
        .layer(from_fn(strict::refuse))
        .layer(from_fn_with_state(Arc::clone(&state), encoding::date))
        .with_state(Arc::clone(&state));
    let served = Router::new().fallback_service(served.map_request(encoding::escape_anew));
    match prefix.as_str() {
        "" => served,
        prefix => Router::new()
            .route("/", only("GET, OPTIONS", get(status::to_prefix)))
            .route(
                &format!("{prefix}/"),
                only("GET, OPTIONS", get(status::start_page)),
            )
            .with_state(state)
            .nest(prefix, served),
    }
}

/// The listener of Pushgateway.
pub fn push_router(state: ApiState) -> Router {
    let state = Arc::new(state);
    let path = state.settings.telemetry_path.clone();
    let metrics = Router::new()
        .route(&path, only("GET, OPTIONS", get(push::metrics)))
        .route_layer(from_fn(encoding::compress_success));
    let own = || get(push_api::metrics).options(push_api::options);
    let wipe = only("OPTIONS, PUT", axum::routing::put(push_api::wipe));
    let api = Router::new()
        .route("/api/v1/metrics", pushed("GET, OPTIONS", own()))
        .route(
            "/api/v1/status",
            pushed(
                "GET, OPTIONS",
                get(push_api::status).options(push_api::options),
            ),
        )
        .route("/-/quit", axum::routing::any(push_api::quit));
    // The page gives way to metrics that were asked to stand there.
    let api = match path.as_str() {
        "/" => api,
        _ => api.route("/", only("GET, OPTIONS", get(push_page::page))),
    };
    // Where the admin API is off, its paths are unknown.
    let api = match state.settings.push_admin {
        true => api.route("/api/v1/admin/wipe", wipe),
        false => api,
    };
    metrics
        .merge(api)
        .route("/-/healthy", only("GET, OPTIONS", get(push::ok)))
        .route("/-/ready", only("GET, OPTIONS", get(push::ready)))
        // Paths of groups are taken raw: percent signs and slashes have a meaning of their own.
        .fallback(push::group)
        .layer(from_fn_with_state(Arc::clone(&state), encoding::date))
        .with_state(state)
}

/// As [`only`], with the push API's own answer to OPTIONS.
fn pushed(allow: &'static str, methods: MethodRouter<Shared>) -> MethodRouter<Shared> {
    let denied = move || async move { errors::method_not_allowed(allow) };
    methods.head(denied).fallback(denied)
}

/// `methods`, and for every other one 405 with the methods there are.
fn only(allow: &'static str, methods: MethodRouter<Shared>) -> MethodRouter<Shared> {
    let denied = move || async move { errors::method_not_allowed(allow) };
    let methods = match allow.contains("HEAD") {
        true => methods,
        false => methods.head(denied),
    };
    methods
        .options(move || async move { [(header::ALLOW, allow)] })
        .fallback(denied)
}

fn get_json<H, T>(handler: H) -> MethodRouter<Shared>
where
    H: Handler<T, Shared>,
    T: 'static,
{
    preflight("GET, OPTIONS", get(handler))
}

fn get_or_post<H, T>(handler: H) -> MethodRouter<Shared>
where
    H: Handler<T, Shared>,
    T: 'static,
{
    preflight("GET, OPTIONS, POST", get(handler.clone()).post(handler))
}

/// POST and PUT run `handler`.
fn order<H, T>(handler: H) -> MethodRouter<Shared>
where
    H: Handler<T, Shared>,
    T: 'static,
{
    preflight("OPTIONS, POST, PUT", post(handler.clone()).put(handler))
}

/// As [`only`], with the API's own answer to OPTIONS.
fn preflight(allow: &'static str, methods: MethodRouter<Shared>) -> MethodRouter<Shared> {
    let denied = move || async move { errors::method_not_allowed(allow) };
    methods
        .head(denied)
        .options(|| async { StatusCode::NO_CONTENT })
        .fallback(denied)
}

/// POST and PUT run `handler`; GET names them.
fn lifecycle_route<H, T>(handler: H) -> MethodRouter<Shared>
where
    H: Handler<T, Shared>,
    T: 'static,
{
    let refused = |method: Method| async move {
        debug_assert!(method == Method::GET || method == Method::HEAD);
        lifecycle::wrong_method()
    };
    only(
        "GET, OPTIONS, POST, PUT",
        post(handler.clone()).put(handler).get(refused),
    )
}

/// 200 with a body of text.
fn text(body: impl Into<String>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (kind, body.into()).into_response()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use model::matcher::compile_anchored;

    use super::state::Settings;
    use super::twin::Twin;

    const METHODS: [&str; 6] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"];
    const PATHS: [&str; 30] = [
        "/api/v1/query",
        "/api/v1/query_range",
        "/api/v1/series",
        "/api/v1/labels",
        "/api/v1/label/",
        "/api/v1/write",
        "/api/v1/targets",
        "/api/v1/status/cluster",
        "/api/v1/query_exemplars",
        "/api/v1/metadata",
        "/api/v1/format_query",
        "/api/v1/parse_query",
        "/api/v1/targets/metadata",
        "/api/v1/rules",
        "/api/v1/status/tsdb",
        "/api/v1/admin/tsdb/delete_series",
        "/api/v1/admin/tsdb/snapshot",
        "/graph",
        "/federate",
        "/write",
        "/api/v2/write",
        "/api/v1/import",
        "/api/v1/import/write",
        "/api/v1/import/prometheus/metrics/job/",
        "/api/v1/export",
        "/metrics/job/",
        "/metrics/job@base64/",
        "/-/ready",
        "/metrics",
        "/",
    ];
    const NAMES: [&str; 9] = [
        "query",
        "match[]",
        "start",
        "end",
        "step",
        "time",
        "limit",
        "timeout",
        "consistency",
    ];
    const HEADERS: [(&str, &str); 6] = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("content-type", "application/x-protobuf"),
        ("content-encoding", "gzip"),
        ("content-encoding", "snappy"),
        ("accept-encoding", "gzip"),
        ("accept", "text/plain;escaping=values"),
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn any_request_has_an_answer(
            method in prop::sample::select(&METHODS[..]),
            path in prop::sample::select(&PATHS[..]),
            tail in "[a-z@/%0-9=]{0,12}",
            pairs in prop::collection::vec(
                (prop::sample::select(&NAMES[..]), "[ -~]{0,12}|[0-9.eE+-]{0,6}"),
                0..4,
            ),
            headers in prop::collection::vec(prop::sample::select(&HEADERS[..]), 0..3),
            body in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let escape = |text: &str| -> String {
                text.bytes().map(|b| format!("%{b:02x}")).collect()
            };
            let query: Vec<_> = pairs.iter().map(|(n, v)| format!("{n}={}", escape(v))).collect();
            let path = format!("{path}{tail}?{}", query.join("&"));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            // Prometheus answers this one with 500.
            let deletes_series = method == "DELETE" && path.starts_with("/api/v1/series?");
            runtime.unwrap().block_on(async {
                let twin = Twin::with(Settings {
                    admin: true,
                    ..Settings::default()
                });
                for answer in [
                    twin.api_request(method, &path, &headers, body.clone()).await,
                    twin.push_request(method, &path, &headers, body.clone()).await,
                ] {
                    prop_assert!(answer.code < 500 || deletes_series, "{}", answer.code);
                }
                Ok(())
            })?;
        }
    }

    /// Prometheus 3.5.3: methods, unknown paths, origins.
    #[tokio::test]
    async fn what_is_not_served_is_refused_as_prometheus_does() {
        let twin = Twin::new();
        for path in ["/nosuch", "/api/v1/nosuch", "/metrics/x", "/-/nope"] {
            let answer = twin.get(path).await;
            assert_eq!(answer.seen(), (404, "404 page not found\n"), "{path}");
            assert_eq!(answer.header("date"), "Sat, 21 Nov 2026 03:56:19 GMT");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
        }
        for (method, path, allow) in [
            ("PUT", "/api/v1/query", "GET, OPTIONS, POST"),
            ("PUT", "/api/v1/series", "DELETE, GET, OPTIONS, POST"),
            ("HEAD", "/api/v1/query?query=1", "GET, OPTIONS, POST"),
            ("POST", "/api/v1/label/job/values", "GET, OPTIONS"),
            ("HEAD", "/metrics", "GET, OPTIONS"),
            ("GET", "/api/v1/write", "OPTIONS, POST"),
        ] {
            let answer = twin.api_request(method, path, &[], "").await;
            assert_eq!(
                (answer.code, answer.header("allow")),
                (405, allow),
                "{path}"
            );
            assert_eq!(answer.header("vary"), "");
        }
    }

    /// Prometheus 3.5.3.
    #[tokio::test]
    async fn unclean_paths_lead_to_clean_ones() {
        let twin = Twin::new();
        let got = twin.get("/api/v1/label//values?a=b&c").await;
        let body = "<a href=\"/api/v1/label/values?a=b&amp;c\">Moved Permanently</a>.\n\n";
        assert_eq!(got.seen(), (301, body));
        assert_eq!(got.header("location"), "/api/v1/label/values?a=b&c");
        let posted = twin.api_request("POST", "/api/v1//write", &[], "").await;
        assert_eq!(posted.seen(), (301, ""));
        assert_eq!(posted.header("location"), "/api/v1/write");
    }

    #[tokio::test]
    async fn any_origin_may_read_the_api() {
        let twin = Twin::new();
        let origin = [("origin", "http://a.example")];
        let path = "/api/v1/status/flags";
        let answer = twin.api_request("GET", path, &origin, "").await;
        for (name, value) in [
            (
                "access-control-allow-headers",
                "Accept, Authorization, Content-Type, Origin",
            ),
            ("access-control-allow-methods", "GET, POST, OPTIONS"),
            ("access-control-allow-origin", "http://a.example"),
            ("access-control-expose-headers", "Date"),
            ("vary", "Origin"),
        ] {
            assert_eq!(answer.header(name), value);
        }
        let preflight = twin.api_request("OPTIONS", path, &origin, "").await;
        assert_eq!(preflight.seen(), (204, ""));
        assert_eq!(
            preflight.header("access-control-allow-origin"),
            "http://a.example"
        );
        let options = twin.api_request("OPTIONS", "/federate", &origin, "").await;
        assert_eq!(
            (options.code, options.header("allow")),
            (200, "GET, OPTIONS")
        );
    }

    /// Prometheus 3.5.3 with `--web.cors.origin='https?://a\.example'`.
    #[tokio::test]
    async fn other_origins_may_be_shut_out() {
        let twin = Twin::with(Settings {
            cors_origin: compile_anchored("https?://a\\.example").unwrap(),
            ..Settings::default()
        });
        for (origin, allowed) in [
            ("http://a.example", "http://a.example"),
            ("http://b.example", ""),
            ("http://a.example.org", ""),
        ] {
            let path = "/api/v1/status/flags";
            let answer = twin
                .api_request("GET", path, &[("origin", origin)], "")
                .await;
            assert_eq!(answer.header("access-control-allow-origin"), allowed);
            assert_eq!(answer.code, 200);
        }
    }

    #[tokio::test]
    async fn answers_are_compressed_as_asked() {
        let asked = [("accept-encoding", "deflate, gzip, br, zstd")];
        let path = "/api/v1/status/config";
        let answer = Twin::new().api_request("GET", path, &asked, "").await;
        assert_eq!(answer.header("content-encoding"), "deflate");
        let mut plain = String::new();
        let mut decoder = flate2::read::ZlibDecoder::new(&answer.body[..]);
        decoder.read_to_string(&mut plain).unwrap();
        assert_eq!(plain, Twin::new().get(path).await.text());
    }
}
