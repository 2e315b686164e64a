//! `/api/v1/series`, `/api/v1/labels`, `/api/v1/label/<name>/values`.

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use federation::escaping::unescape_values;
use model::source::MetadataSelection;
use model::{Matcher, Timestamp};

use super::Shared;
use super::errors::{ApiError, ErrorType};
use super::json::{self, Json};
use super::params::{Form, MAX_TIME, MIN_TIME, quote_bytes, unescape};
use super::query::json_response;

const TRUNCATED: &str = "results truncated due to limit";

/// Label sets that match.
pub async fn series(
    State(api): State<Shared>,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, ApiError> {
    let form = form.plain();
    form.strict().map_err(ApiError::bad_data)?;
    if form.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let bad = |e| ApiError::bad_parameter("match[]", e);
    let (selection, limit) = select(&form, &headers, |form| form.matchers().map_err(bad))?;
    let found = api.source.series(&selection).await?;
    Ok(respond(found, limit, |json, labels| {
        json.labels(labels);
    }))
}

/// Deleting is an order of the admin API; here Prometheus says just this.
pub async fn delete_series() -> ApiError {
    ApiError::new(ErrorType::Internal, "not implemented")
}

/// Names of labels.
pub async fn label_names(
    State(api): State<Shared>,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, ApiError> {
    let (selection, limit) = select(&form, &headers, matchers)?;
    let found = api.source.label_names(&selection).await?;
    Ok(respond(found, limit, |json, name| {
        json.text(name);
    }))
}

/// Values of the label in the path.
pub async fn label_values(
    State(api): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, ApiError> {
    let name = label_in(uri.path())?;
    let (selection, limit) = select(&form, &headers, matchers)?;
    let found = api.source.label_values(&name, &selection).await?;
    Ok(respond(found, limit, |json, value| {
        json.text(value);
    }))
}

/// The name between the last slash but one and the last: the router saw to the rest of the path.
fn label_in(path: &str) -> Result<String, ApiError> {
    let raw = path.rsplit('/').nth(1).unwrap_or_default();
    let bytes = unescape(raw.as_bytes(), false).map_err(ApiError::bad_data)?;
    let invalid = || ApiError::bad_data(format!("invalid label name: {}", quote_bytes(&bytes)));
    let name = std::str::from_utf8(&bytes).map_err(|_| invalid())?;
    let name = unescape_values(name).into_owned();
    match name.is_empty() {
        true => Err(ApiError::bad_data("invalid label name: \"\"")),
        false => Ok(name),
    }
}

fn matchers(form: &Form) -> Result<Vec<Vec<Matcher>>, ApiError> {
    form.matchers().map_err(ApiError::bad_data)
}

/// What is asked for, checked in Prometheus' order: limit, start, end, matchers.
fn select(
    form: &Form,
    headers: &HeaderMap,
    matchers: impl FnOnce(&Form) -> Result<Vec<Vec<Matcher>>, ApiError>,
) -> Result<(MetadataSelection, Option<usize>), ApiError> {
    let limit = form.limit()?;
    let start = form.time_or("start", MIN_TIME)?;
    let end = form.time_or("end", MAX_TIME)?;
    let (start, end) = match start > end {
        true => turned_round(start, end),
        false => (start, end),
    };
    let any_of = matchers(form)?;
    let consistency = form.consistency(headers);
    let consistency = consistency.map_err(|e| ApiError::bad_parameter("consistency", e))?;
    let selection = MetadataSelection {
        any_of,
        start,
        end,
        consistency,
    };
    Ok((selection, limit))
}

/// From after to: Prometheus looks for a chunk that holds both ends, and begins chunks anew every two
/// hours. So there is none where such an hour lies between them; else what lies there is as good.
fn turned_round(start: Timestamp, end: Timestamp) -> (Timestamp, Timestamp) {
    const CHUNKS_MS: i64 = 2 * 3_600_000;
    match start.0.div_euclid(CHUNKS_MS) == end.0.div_euclid(CHUNKS_MS) {
        true => (end, start),
        false => (MAX_TIME, MAX_TIME),
    }
}

fn respond<T>(
    mut found: Vec<T>,
    limit: Option<usize>,
    each: impl FnMut(&mut Json, &T),
) -> Response {
    let mut warnings = Vec::new();
    if let Some(limit) = limit.filter(|&limit| found.len() > limit) {
        found.truncate(limit);
        warnings.push(TRUNCATED.to_owned());
    }
    let write = |json: &mut Json| {
        json.list(&found, each);
    };
    json_response(json::success(write, &warnings, &[]))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use model::source::Consistency;

    use super::super::twin::{NOW, Twin};

    fn twin() -> Twin {
        let twin = Twin::new();
        let own = ("instance", "127.0.0.1:21992");
        twin.store
            .add(&[("__name__", "up"), own, ("job", "exp")], NOW, 1.0);
        twin.store.add(
            &[("__name__", "t.utf8"), ("job", "<u>"), ("la.bel", "v")],
            NOW,
            3.0,
        );
        twin
    }

    /// Prometheus 3.5.3: `curl -G :9090/api/v1/series …`.
    #[tokio::test]
    async fn series_are_those_of_prometheus() {
        let twin = twin();
        let found = r#"{"status":"success","data":[{"__name__":"up","instance":"127.0.0.1:21992","job":"exp"}]}"#;
        for path in [
            "/api/v1/series?match[]=up",
            "/api/v1/series?match[]=up&match[]=up&start=1&limit=0",
            "/api/v1/series?match[]=up&start=1795233380&end=1795233000",
        ] {
            let answer = twin.get(path).await;
            assert_eq!(answer.seen(), (200, found), "{path}");
            assert_eq!(answer.header("content-type"), "application/json");
            assert_eq!(answer.header("vary"), "Origin");
        }
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let posted = twin.api_request("POST", "/api/v1/series", &form, "match%5B%5D=up");
        assert_eq!(posted.await.seen(), (200, found));
        let bad = [("content-type", "application/x-www-form-urlencoded; x")];
        let posted = twin.api_request("POST", "/api/v1/series", &bad, "match%5B%5D=up");
        assert_eq!(
            posted.await.seen(),
            (
                400,
                r#"{"status":"error","errorType":"bad_data","error":"error parsing form values: mime: invalid media parameter"}"#
            )
        );
        let none = r#"{"status":"success","data":[]}"#;
        for path in [
            "/api/v1/series?match[]=up&start=5&end=6",
            "/api/v1/series?match[]=up&start=5&end=1",
            "/api/v1/series?match[]=up&start=1e10&end=1",
        ] {
            assert_eq!(twin.get(path).await.seen(), (200, none), "{path}");
        }
        let limited = twin
            .get("/api/v1/series?match[]={job!=%22%22}&limit=1")
            .await;
        assert!(
            limited
                .text()
                .ends_with(r#"],"warnings":["results truncated due to limit"]}"#)
        );
        let deleted = twin.api_request("DELETE", "/api/v1/series?match[]=up", &[], "");
        assert_eq!(
            deleted.await.seen(),
            (
                500,
                r#"{"status":"error","errorType":"internal","error":"not implemented"}"#
            )
        );
    }

    #[tokio::test]
    async fn labels_and_values_are_those_of_prometheus() {
        let twin = twin();
        for (path, body) in [
            (
                "/api/v1/labels",
                r#"{"status":"success","data":["__name__","instance","job","la.bel"]}"#,
            ),
            (
                "/api/v1/labels?limit=2",
                r#"{"status":"success","data":["__name__","instance"],"warnings":["results truncated due to limit"]}"#,
            ),
            (
                "/api/v1/labels?match[]=up&x=%zz",
                r#"{"status":"success","data":["__name__","instance","job"]}"#,
            ),
            (
                "/api/v1/label/job/values",
                r#"{"status":"success","data":["\u003cu\u003e","exp"]}"#,
            ),
            (
                "/api/v1/label/la.bel/values",
                r#"{"status":"success","data":["v"]}"#,
            ),
            (
                "/api/v1/label/U__la_2e_bel/values",
                r#"{"status":"success","data":["v"]}"#,
            ),
            (
                "/api/v1/label/nosuch/values",
                r#"{"status":"success","data":[]}"#,
            ),
        ] {
            assert_eq!(twin.get(path).await.seen(), (200, body), "{path}");
        }
    }

    /// Prometheus 3.5.3, each by `curl -G`.
    #[tokio::test]
    async fn what_is_wrong_is_said_in_prometheus_words() {
        let twin = twin();
        for (path, error) in [
            ("/api/v1/series", "no match[] parameter provided"),
            (
                "/api/v1/series?match[]=up&x=%zz",
                r#"error parsing form values: invalid URL escape \"%zz\""#,
            ),
            (
                "/api/v1/series?match[]=u(",
                r#"invalid parameter \"match[]\": 1:2: parse error: unexpected \"(\""#,
            ),
            (
                "/api/v1/series?match[]={}",
                r#"invalid parameter \"match[]\": match[] must contain at least one non-empty matcher"#,
            ),
            (
                "/api/v1/series?match[]=up&start=x",
                r#"invalid parameter \"start\": invalid time value for 'start': cannot parse \"x\" to a valid timestamp"#,
            ),
            (
                "/api/v1/labels?match[]={}",
                "match[] must contain at least one non-empty matcher",
            ),
            (
                "/api/v1/labels?match[]=-",
                r"1:1: parse error: unexpected \u003cop:-\u003e",
            ),
            (
                "/api/v1/labels?limit=-1",
                r#"invalid parameter \"limit\": limit must be non-negative"#,
            ),
            ("/api/v1/label/U__/values", r#"invalid label name: \"\""#),
            (
                "/api/v1/label/%ff/values",
                r#"invalid label name: \"\\xff\""#,
            ),
        ] {
            let answer = twin.get(path).await;
            let body = format!(r#"{{"status":"error","errorType":"bad_data","error":"{error}"}}"#);
            assert_eq!(answer.seen(), (400, body.as_str()), "{path}");
        }
    }

    #[tokio::test]
    async fn a_missing_shard_is_an_error_and_consistency_is_passed_on() {
        let twin = twin();
        twin.get("/api/v1/labels?consistency=local").await;
        let seen = *twin.store.consistency.lock().unwrap();
        assert_eq!(seen, Some(Consistency::Local));
        twin.store.broken.store(true, Ordering::SeqCst);
        assert_eq!(
            twin.get("/api/v1/labels").await.seen(),
            (
                503,
                r#"{"status":"error","errorType":"unavailable","error":"no answer from shard s3"}"#
            )
        );
    }
}
