//! Where paths lead that are not served, but nearly: the API's with a slash too many behind them, or in
//! other letters.
//!
//! Prometheus' router knows the API's paths without their prefix, and so names them in what it leads
//! to: `/api/v1/query/` to `/query`. Whoever follows sees what he would see there.

use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::encoding::redirect;
use super::errors;

const PREFIX: &str = "/api/v1";

/// Paths below the prefix and their methods; `*` is any part.
const PATHS: [(&str, &str); 25] = [
    ("/query", "GET POST"),
    ("/query_range", "GET POST"),
    ("/query_exemplars", "GET POST"),
    ("/format_query", "GET POST"),
    ("/parse_query", "GET POST"),
    ("/labels", "GET POST"),
    ("/label/*/values", "GET"),
    ("/series", "GET POST DELETE"),
    ("/scrape_pools", "GET"),
    ("/targets", "GET"),
    ("/targets/metadata", "GET"),
    ("/alertmanagers", "GET"),
    ("/metadata", "GET"),
    ("/status/config", "GET"),
    ("/status/runtimeinfo", "GET"),
    ("/status/buildinfo", "GET"),
    ("/status/flags", "GET"),
    ("/status/tsdb", "GET"),
    ("/status/walreplay", "GET"),
    ("/notifications", "GET"),
    ("/read", "POST"),
    ("/write", "POST"),
    ("/alerts", "GET"),
    ("/rules", "GET"),
    ("/admin/tsdb/*", "POST PUT"),
];
const ORDERS: [&str; 3] = ["delete_series", "clean_tombstones", "snapshot"];

/// To the path that was meant, or 404.
pub async fn lead(method: Method, uri: Uri) -> Response {
    let below = uri.path().strip_prefix(PREFIX);
    let Some(path) = below.and_then(|below| meant(&method, below)) else {
        return errors::not_found().await.into_response();
    };
    let query = uri.query().map(|query| format!("?{query}"));
    let location = path + &query.unwrap_or_default();
    match method {
        Method::GET => redirect(
            StatusCode::MOVED_PERMANENTLY,
            "Moved Permanently",
            &location,
        ),
        _ => {
            let code = StatusCode::TEMPORARY_REDIRECT;
            (code, [(header::LOCATION, location)]).into_response()
        }
    }
}

fn meant(method: &Method, below: &str) -> Option<String> {
    let path = below.strip_suffix('/').unwrap_or(below);
    if *method == Method::GET && path != below && is_start_of_label(path) {
        return Some(path.to_owned());
    }
    let mut served = PATHS
        .iter()
        .filter(|(_, methods)| methods.split(' ').any(|name| name == method.as_str()));
    served.find_map(|(pattern, _)| fitted(path, pattern))
}

/// A quirk of that router: it has a node where the name of a label ends.
fn is_start_of_label(path: &str) -> bool {
    match path.strip_prefix("/label") {
        Some("") => true,
        Some(rest) => rest[1..].find('/').is_none() && rest.len() > 1,
        None => false,
    }
}

/// `path` in the letters of `pattern`.
fn fitted(path: &str, pattern: &str) -> Option<String> {
    let (parts, wanted) = (path.split('/'), pattern.split('/'));
    if parts.clone().count() != wanted.clone().count() {
        return None;
    }
    let orders = || ORDERS.iter().copied();
    let parts = parts.zip(wanted).map(|(part, wanted)| match wanted {
        "*" if pattern.starts_with("/admin") => {
            orders().find(|order| part.eq_ignore_ascii_case(order))
        }
        "*" => (!part.is_empty()).then_some(part),
        wanted => part.eq_ignore_ascii_case(wanted).then_some(wanted),
    });
    let parts: Option<Vec<&str>> = parts.collect();
    Some(parts?.join("/"))
}

#[cfg(test)]
mod tests {
    use super::super::twin::Twin;
    use super::*;

    /// Served here, and unknown to Prometheus' router.
    const OWN: [&str; 4] = [
        "/federation/stream",
        "/import/write",
        "/otlp/v1/metrics",
        "/status/cluster",
    ];

    #[test]
    fn every_route_of_the_api_is_led_to() {
        let source = include_str!("mod.rs");
        let routes = source
            .split("pub fn ")
            .find(|code| code.starts_with("api_router"));
        let quoted = routes.unwrap().split('"').skip(1).step_by(2);
        let below = quoted.filter_map(|text| text.strip_prefix(PREFIX));
        let led = |path: &str| {
            PATHS
                .iter()
                .any(|(pattern, _)| fitted(path, pattern).is_some())
        };
        let (led, own): (Vec<&str>, Vec<&str>) = below.partition(|path| led(path));
        assert_eq!(led.len(), PATHS.len() - 1 + ORDERS.len());
        assert!(own.iter().all(|path| OWN.contains(path)), "{own:?}");
    }

    /// Prometheus 3.5.3.
    #[tokio::test]
    async fn paths_that_are_nearly_right_lead_to_those_that_are() {
        let twin = Twin::new();
        for (method, path, code, location) in [
            ("GET", "/api/v1/query/", 301, "/query"),
            ("GET", "/api/v1/query/?query=1", 301, "/query?query=1"),
            ("GET", "/api/v1/QUERY", 301, "/query"),
            ("POST", "/api/v1/query/", 307, "/query"),
            ("GET", "/api/v1/label/A/Values/", 301, "/label/A/values"),
            ("GET", "/api/v1/label/a%2F", 301, "/label/a"),
            ("GET", "/api/v1/label/", 301, "/label"),
            (
                "PUT",
                "/api/v1/admin/TSDB/Snapshot",
                307,
                "/admin/tsdb/snapshot",
            ),
            ("DELETE", "/api/v1/series/", 307, "/series"),
            ("PUT", "/api/v1/query/", 404, ""),
            ("HEAD", "/api/v1/query/", 404, ""),
            ("POST", "/api/v1/rules/", 404, ""),
            ("GET", "/api/v1/label", 404, ""),
            ("GET", "/api/v1/labels/x/", 404, ""),
            ("POST", "/api/v1/admin/tsdb/x/", 404, ""),
            ("GET", "/query/", 404, ""),
        ] {
            let answer = twin.api_request(method, path, &[], "").await;
            let seen = (answer.code, answer.header("location"));
            assert_eq!(seen, (code, location), "{method} {path}");
        }
        let answer = twin.get("/api/v1/query/").await;
        let link = "<a href=\"/query\">Moved Permanently</a>.\n\n";
        assert_eq!(answer.seen(), (301, link));
    }
}
