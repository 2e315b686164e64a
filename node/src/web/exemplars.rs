//! `/api/v1/query_exemplars`: observations that a trace is known of, of whatever an expression reads.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use model::source::MetadataSelection;

use super::Shared;
use super::errors::ApiError;
use super::json::{Json, success};
use super::params::{Form, MAX_TIME, MIN_TIME};
use super::query::json_response;

/// Exemplars by series. An expression without selectors has none to ask for: 204.
pub async fn query(
    State(api): State<Shared>,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, ApiError> {
    let start = form.moment_or("start", MIN_TIME)?;
    let end = form.moment_or("end", MAX_TIME)?;
    if end.is_before(start) {
        let error = "end timestamp must not be before start timestamp";
        return Err(ApiError::bad_data(error));
    }
    let expr = promql::parse_with(form.first("query"), api.settings.parse);
    let expr = expr.map_err(|e| ApiError::bad_data(e.to_string()))?;
    let mut any_of = promql::selectors(&expr);
    if any_of.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    // What is named twice is looked for once.
    let mut seen = Vec::new();
    any_of.retain(|matchers| {
        let is_new = !seen.contains(matchers);
        if is_new {
            seen.push(matchers.clone());
        }
        is_new
    });
    let consistency = form.consistency(&headers);
    let selection = MetadataSelection {
        any_of,
        start: start.timestamp(),
        end: end.timestamp(),
        consistency: consistency.map_err(|e| ApiError::bad_parameter("consistency", e))?,
    };
    let found = api.source.exemplars(&selection).await?;
    let write = |json: &mut Json| {
        json.list(&found, |json, series| {
            json.raw("{\"seriesLabels\":").labels(&series.labels);
            json.raw(",\"exemplars\":")
                .list(&series.exemplars, |json, one| {
                    json.raw("{\"labels\":").labels(&one.labels);
                    json.raw(",\"value\":").float(one.value);
                    json.raw(",\"timestamp\":")
                        .timestamp(one.timestamp)
                        .raw("}");
                });
            json.raw("}");
        });
    };
    Ok(json_response(success(write, &[], &[])))
}

#[cfg(test)]
mod tests {
    use super::super::twin::{NOW, Twin};

    /// Prometheus 3.5.3's shape: `query_exemplars?query=om_requests_total`.
    #[tokio::test]
    async fn exemplars_are_prometheus_bytes() {
        let twin = Twin::new();
        twin.store
            .add_exemplar(&[("__name__", "total"), ("path", "/a")], "abc", NOW, 0.5);
        twin.store
            .add_exemplar(&[("__name__", "other")], "def", NOW, 1e-7);
        let total = concat!(
            r#"[{"seriesLabels":{"__name__":"total","path":"/a"},"exemplars":"#,
            r#"[{"labels":{"trace_id":"abc"},"value":"0.5","timestamp":1795233379.500}]}]"#,
        );
        for (path, data) in [
            ("query=rate(total[5m])", total),
            ("query=total%2Btotal{path=%22/a%22}", total),
            ("query=total&start=1&end=2", "[]"),
            ("query=nosuch", "[]"),
        ] {
            let answer = twin.get(&format!("/api/v1/query_exemplars?{path}")).await;
            let body = format!(r#"{{"status":"success","data":{data}}}"#);
            assert_eq!(answer.seen(), (200, body.as_str()), "{path}");
        }
        let none = twin.get("/api/v1/query_exemplars?query=1").await;
        assert_eq!(none.seen(), (204, ""));
    }

    /// Prometheus 3.5.3, each by `curl -G`.
    #[tokio::test]
    async fn what_is_wrong_is_said_in_prometheus_words() {
        for (path, error) in [
            (
                "query=x{",
                "1:3: parse error: unexpected end of input inside braces",
            ),
            (
                "query=x&start=3&end=1",
                "end timestamp must not be before start timestamp",
            ),
            (
                "query=x&start=x",
                r#"invalid parameter \"start\": invalid time value for 'start': cannot parse \"x\" to a valid timestamp"#,
            ),
        ] {
            let answer = Twin::new()
                .get(&format!("/api/v1/query_exemplars?{path}"))
                .await;
            let body = format!(r#"{{"status":"error","errorType":"bad_data","error":"{error}"}}"#);
            assert_eq!(answer.seen(), (400, body.as_str()), "{path}");
        }
    }
}
