//! `/api/v1/query` and `/api/v1/query_range`.
//!
//! Promise: parameters are checked in Prometheus' order and refused in its words. Not here:
//! evaluation, and the limits it runs under (`queries`).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use model::limits::QUERY_POINTS_MAX;
use model::trail::Trail;
use promql::{Matrix, QueryParams, QueryResult, Value, VectorSample};

use super::Shared;
use super::errors::ApiError;
use super::explain;
use super::json::{self, Around, Pieces};
use super::moment::Moment;
use super::params::{Asker, Form, parse_nanos};
use crate::queries::log::Origin;
use crate::queries::memory::Held;
use crate::queries::{Answer, Failure, Query, Span, write_samples};

const TRUNCATED: &str = "results truncated due to limit";
const JSON: &str = "application/json";

/// Values up to so many bytes become one text, whose length is told; more than that is sent in pieces.
const WHOLE_BYTES_MAX: usize = 256 << 10;

/// One instant.
pub async fn instant(
    State(api): State<Shared>,
    headers: HeaderMap,
    Asker(origin): Asker,
    form: Form,
) -> Result<Response, ApiError> {
    let limit = form.limit()?;
    let at = form.moment_or("time", api.clock.now())?.of_query();
    let options = Options::read(&api, &form, &headers)?;
    run(&api, &form, options, Span::Instant(at), origin, limit).await
}

/// Every step of a range.
pub async fn range(
    State(api): State<Shared>,
    headers: HeaderMap,
    Asker(origin): Asker,
    form: Form,
) -> Result<Response, ApiError> {
    let limit = form.limit()?;
    let start = form.moment("start")?;
    let end = form.moment("end")?;
    if end.is_before(start) {
        let error = "end timestamp must not be before start time";
        return Err(ApiError::bad_parameter("end", error));
    }
    let step = parse_step(&form, start, end)?;
    let options = Options::read(&api, &form, &headers)?;
    let (start, end) = (start.of_query(), end.of_query());
    if end < start {
        // So far apart that counting in nanoseconds turned them round: no step is between them.
        return nothing(&api, &form);
    }
    let span = Span::Range { start, end, step };
    run(&api, &form, options, span, origin, limit).await
}

async fn run(
    api: &Shared,
    form: &Form,
    options: Options,
    span: Span,
    origin: Origin,
    limit: Option<usize>,
) -> Result<Response, ApiError> {
    let query = Query {
        text: form.first("query"),
        span,
        params: options.params,
        time_max: options.timeout,
        trail: options.trail.clone(),
        origin: Some(origin),
    };
    let answer = api
        .queries
        .run(query)
        .await
        .map_err(|failure| match failure {
            // Prometheus waits before it parses, and calls whatever happens until then the query's fault.
            Failure::Queue if options.is_timeout_given => ApiError::bad_parameter("query", failure),
            failure => failure.into(),
        })?;
    let per_step = api.settings.per_step_stats;
    let stats = match form.first("stats") {
        "" => None,
        asked => Some(write_stats(&answer, per_step && asked == "all")),
    };
    let explained = options.trail.map(|trail| explain::write(&trail));
    let beside = json::Beside {
        stats: stats.as_deref(),
        explain: explained.as_deref(),
    };
    respond(api, answer.result, beside, limit)
}

/// A matrix without series, for an expression that is one.
fn nothing(api: &Shared, form: &Form) -> Result<Response, ApiError> {
    let expr = promql::parse_with(form.first("query"), api.settings.parse);
    expr.map_err(|e| ApiError::bad_parameter("query", e))?;
    let value = Value::Matrix(Matrix::default());
    let write = |json: &mut json::Json| json::write_result(json, &value, json::Beside::default());
    Ok(json_response(json::success(write, &[], &[])))
}

/// The distance of two points: at least a millisecond, and not too many of them.
fn parse_step(form: &Form, start: Moment, end: Moment) -> Result<Duration, ApiError> {
    let nanos = parse_nanos(form.first("step")).map_err(|e| ApiError::bad_parameter("step", e))?;
    if nanos <= 0 {
        return Err(ApiError::bad_parameter(
            "step",
            "zero or negative query resolution step widths are not accepted. \
             Try a positive integer",
        ));
    }
    if end.since(start) / nanos > QUERY_POINTS_MAX {
        return Err(ApiError::bad_data(
            "exceeded maximum resolution of 11,000 points per timeseries. \
             Try decreasing the query resolution (?step=XX)",
        ));
    }
    Ok(Duration::from_millis((nanos as u64 / 1_000_000).max(1)))
}

/// What both kinds of query take besides their times.
struct Options {
    params: QueryParams,
    timeout: Duration,
    /// Whether the request says how long it may take.
    is_timeout_given: bool,
    trail: Option<Arc<Trail>>,
}

impl Options {
    fn read(api: &Shared, form: &Form, headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut timeout = api.settings.query_timeout;
        let text = form.first("timeout");
        let is_timeout_given = !text.is_empty();
        if is_timeout_given {
            let asked = parse_nanos(text).map_err(|e| ApiError::bad_parameter("timeout", e))?;
            timeout = timeout.min(Duration::from_nanos(u64::try_from(asked).unwrap_or(0)));
        }
        let mut lookback = None;
        let text = form.first("lookback_delta");
        if !text.is_empty() {
            let asked = parse_nanos(text).map_err(|e| {
                ApiError::bad_data(format!("error parsing lookback delta duration: {e}"))
            })?;
            if let Some(asked) = u64::try_from(asked).ok().filter(|&asked| asked > 0) {
                lookback = Some(Duration::from_nanos(asked));
            }
        }
        let consistency = form.consistency(headers);
        let params = QueryParams {
            lookback,
            consistency: consistency.map_err(|e| ApiError::bad_parameter("consistency", e))?,
            timeout: Some(timeout),
        };
        let trail = match form.first("explain") {
            "" | "0" | "false" => None,
            "1" | "true" => Some(Arc::default()),
            _ => return Err(ApiError::bad_parameter("explain", "known are 1 and 0")),
        };
        Ok(Self {
            params,
            timeout,
            is_timeout_given,
            trail,
        })
    }
}

fn write_stats(answer: &Answer, per_step: bool) -> String {
    let mut json = json::Json::default();
    json.raw("{");
    answer.timings.write(&mut json);
    json.raw(",");
    write_samples(&mut json, &answer.result.stats, per_step);
    json.raw("}");
    json.into_string()
}

fn respond(
    api: &Shared,
    mut result: QueryResult,
    beside: json::Beside<'_>,
    limit: Option<usize>,
) -> Result<Response, ApiError> {
    if truncate(&mut result.value, limit) {
        result.warnings.push(TRUNCATED.to_owned());
    }
    let (warnings, infos) = (&result.warnings, &result.infos);
    let around = Around {
        beside,
        warnings,
        infos,
    };
    let held = |bytes| api.queries.memory.hold(bytes).map_err(Failure::Memory);
    let value = match result.value {
        Value::Matrix(matrix) if matrix.bytes() > WHOLE_BYTES_MAX => {
            let held = held(matrix.bytes())?;
            return Ok(in_pieces(Pieces::of_matrix(matrix, around), held));
        }
        Value::Vector(samples) if vector_bytes(&samples) > WHOLE_BYTES_MAX => {
            let held = held(vector_bytes(&samples))?;
            return Ok(in_pieces(Pieces::of_vector(samples, around), held));
        }
        value => value,
    };
    let write = |json: &mut json::Json| json::write_result(json, &value, beside);
    Ok(json_response(json::success(write, warnings, infos)))
}

/// About how many bytes the samples take.
fn vector_bytes(samples: &[VectorSample]) -> usize {
    let labels = samples.iter().map(|one| one.labels.as_canonical().len());
    size_of_val(samples) + labels.sum::<usize>()
}

/// Text is written as fast as it is read, series by series, and what stands in it is let go.
fn in_pieces(text: Pieces, held: Held) -> Response {
    let pieces = stream::unfold((text, held), async |(mut text, held)| {
        let piece = text.next()?;
        // A reader that takes all at once must not keep others from their turn.
        tokio::task::yield_now().await;
        Some((Ok::<_, Infallible>(piece), (text, held)))
    });
    let kind = [(header::CONTENT_TYPE, JSON)];
    (kind, Body::from_stream(pieces)).into_response()
}

/// Whether anything was cut off.
fn truncate(value: &mut Value, limit: Option<usize>) -> bool {
    let limit = limit.unwrap_or(usize::MAX);
    match value {
        Value::Vector(samples) if samples.len() > limit => samples.truncate(limit),
        Value::Matrix(series) if series.len() > limit => series.truncate(limit),
        _ => return false,
    }
    true
}

/// 200 with a body of JSON.
pub fn json_response(body: String) -> Response {
    ([(header::CONTENT_TYPE, JSON)], body).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use model::Timestamp;

    use super::super::twin::{NOW, Twin};

    fn twin() -> Twin {
        let twin = Twin::new();
        let name = ("__name__", "t_gauge");
        for (at, value) in [(-2000, 1.0), (-1000, 2.5)] {
            twin.store
                .add(&[name, ("a", "b"), ("job", "exp")], NOW.plus_ms(at), value);
        }
        twin.store
            .add(&[name, ("a", "c")], NOW.plus_ms(-1000), f64::INFINITY);
        twin
    }

    /// Prometheus 3.5.3: `curl -G :9090/api/v1/query …`.
    #[tokio::test]
    async fn instant_results_are_those_of_prometheus() {
        let twin = twin();
        for (path, data) in [
            (
                "query=1&time=3",
                r#"{"resultType":"scalar","result":[3,"1"]}"#,
            ),
            (
                "query=1&time=2024-01-01T00:00:00.5%2B02:00",
                r#"{"resultType":"scalar","result":[1704060000.5,"1"]}"#,
            ),
            (
                "query=%22a%3Cb%22&time=1.2345",
                r#"{"resultType":"string","result":[1.234,"a\u003cb"]}"#,
            ),
            ("query=nosuch", r#"{"resultType":"vector","result":[]}"#),
            (
                "query=t_gauge",
                concat!(
                    r#"{"resultType":"vector","result":["#,
                    r#"{"metric":{"__name__":"t_gauge","a":"b","job":"exp"},"value":[1795233379.500,"2.5"]},"#,
                    r#"{"metric":{"__name__":"t_gauge","a":"c"},"value":[1795233379.500,"+Inf"]}]}"#
                ),
            ),
            (
                "query=t_gauge[3s]&limit=1",
                concat!(
                    r#"{"resultType":"matrix","result":["#,
                    r#"{"metric":{"__name__":"t_gauge","a":"b","job":"exp"},"values":"#,
                    r#"[[1795233377.500,"1"],[1795233378.500,"2.5"]]}]},"#,
                    r#""warnings":["results truncated due to limit"]"#
                ),
            ),
        ] {
            let answer = twin.get(&format!("/api/v1/query?{path}")).await;
            let body = format!(r#"{{"status":"success","data":{data}}}"#);
            assert_eq!(answer.seen(), (200, body.as_str()), "{path}");
            assert_eq!(answer.header("content-type"), "application/json");
        }
    }

    #[tokio::test]
    async fn a_form_in_the_body_stands_before_the_url() {
        let form = [(
            "content-type",
            "application/x-www-form-urlencoded; charset=utf-8",
        )];
        let path = "/api/v1/query?query=2&time=4";
        let answer = twin()
            .api_request("POST", path, &form, "query=1&time=3")
            .await;
        let body = r#"{"status":"success","data":{"resultType":"scalar","result":[3,"1"]}}"#;
        assert_eq!(answer.seen(), (200, body));
    }

    /// Prometheus 3.5.3: `curl -G :9090/api/v1/query_range …`.
    #[tokio::test]
    async fn range_results_are_those_of_prometheus() {
        for (path, result) in [
            (
                "query=1&start=1&end=5&step=2",
                r#"[{"metric":{},"values":[[1,"1"],[3,"1"],[5,"1"]]}]"#,
            ),
            (
                "query=1/0&start=1.0015&end=5&step=1.5",
                r#"[{"metric":{},"values":[[1.002,"+Inf"],[2.502,"+Inf"],[4.002,"+Inf"]]}]"#,
            ),
            ("query=nosuch&start=1&end=5&step=2s", "[]"),
        ] {
            let answer = twin().get(&format!("/api/v1/query_range?{path}")).await;
            let body = format!(
                r#"{{"status":"success","data":{{"resultType":"matrix","result":{result}}}}}"#
            );
            assert_eq!(answer.seen(), (200, body.as_str()), "{path}");
        }
    }

    /// Prometheus 3.5.3, each by `curl -G`.
    #[tokio::test]
    async fn what_is_wrong_is_said_in_prometheus_words() {
        let step = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        let resolution = "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)";
        for (path, error) in [
            (
                "query?query=up{&time=1",
                r#"invalid parameter "query": 1:4: parse error: unexpected end of input inside braces"#,
            ),
            (
                "query?query=up&time=abc",
                r#"invalid parameter "time": invalid time value for 'time': cannot parse "abc" to a valid timestamp"#,
            ),
            (
                "query?query=up&timeout=abc",
                r#"invalid parameter "timeout": cannot parse "abc" to a valid duration"#,
            ),
            (
                "query?query=up&lookback_delta=x",
                r#"error parsing lookback delta duration: cannot parse "x" to a valid duration"#,
            ),
            (
                "query_range?query=1",
                r#"invalid parameter "start": cannot parse "" to a valid timestamp"#,
            ),
            (
                "query_range?query=1&start=5&end=x",
                r#"invalid parameter "end": cannot parse "x" to a valid timestamp"#,
            ),
            (
                "query_range?query=1&start=5&end=1",
                r#"invalid parameter "end": end timestamp must not be before start time"#,
            ),
            (
                "query_range?query=1&start=1&end=5",
                r#"invalid parameter "step": cannot parse "" to a valid duration"#,
            ),
            (
                "query_range?query=1&start=1&end=5&step=0",
                &format!(r#"invalid parameter "step": {step}"#),
            ),
            (
                "query_range?query=1&start=1&end=5&step=1e300",
                r#"invalid parameter "step": cannot parse "1e300" to a valid duration. It overflows int64"#,
            ),
            ("query_range?query=1&start=1&end=5&step=0.0001", resolution),
            ("query_range?query=1&start=1&end=11002&step=1", resolution),
            (
                "query_range?query=up[5m]&start=1&end=5&step=2s",
                r#"invalid parameter "query": invalid expression type "range vector" for range query, must be Scalar or instant Vector"#,
            ),
        ] {
            let answer = twin().get(&format!("/api/v1/{path}")).await;
            let error = error.replace('"', "\\\"");
            let body = format!(r#"{{"status":"error","errorType":"bad_data","error":"{error}"}}"#);
            assert_eq!(answer.seen(), (400, body.as_str()), "{path}");
        }
    }

    /// Prometheus 3.5.3 with `--enable-feature=promql-per-step-stats`; the twin's clock stands.
    #[tokio::test]
    async fn statistics_are_told_when_asked_for() {
        let timings = concat!(
            r#","stats":{"timings":{"evalTotalTime":0,"resultSortTime":0,"queryPreparationTime":0,"#,
            r#""innerEvalTime":0,"execQueueTime":0,"execTotalTime":0},"samples":{"#,
        );
        let steps = r#""totalQueryableSamplesPerStep":[[1795233379.5,2]],"#;
        let settings = crate::web::state::Settings {
            per_step_stats: true,
            ..Default::default()
        };
        for (twin, asked, steps) in [
            (Twin::new(), "all", ""),
            (Twin::with(settings.clone()), "all", steps),
            (Twin::with(settings), "true", ""),
        ] {
            for at in [-2000, -1000] {
                twin.store.add(&[("__name__", "m")], NOW.plus_ms(at), 1.0);
            }
            let path = format!("/api/v1/query?query=sum_over_time(m[1m])&stats={asked}");
            let answer = twin.get(&path).await;
            let told = format!(r#"{timings}{steps}"totalQueryableSamples":2,"peakSamples":"#);
            assert!(answer.text().contains(&told), "{}", answer.text());
        }
        let none = Twin::new().get("/api/v1/query?query=1&stats=").await;
        assert!(!none.text().contains("stats"), "{}", none.text());
    }

    #[tokio::test]
    async fn explanations_are_told_when_asked_for() {
        let twin = twin();
        for asked in ["", "&explain=", "&explain=0"] {
            let answer = twin
                .get(&format!("/api/v1/query?query=1&time=3{asked}"))
                .await;
            let data = r#"{"resultType":"scalar","result":[3,"1"]}"#;
            let body = format!(r#"{{"status":"success","data":{data}}}"#);
            assert_eq!(answer.seen(), (200, body.as_str()), "{asked}");
        }
        let told = twin.get("/api/v1/query?query=1&time=3&explain=1").await;
        let body = r#"{"status":"success","data":{"resultType":"scalar","result":[3,"1"],"explain":{"parts":[]}}}"#;
        assert_eq!(told.seen(), (200, body));
        assert_eq!(twin.get("/api/v1/query?query=1&explain=2").await.code, 400);
    }

    #[tokio::test]
    async fn a_missing_shard_is_unavailable() {
        let twin = twin();
        twin.store.broken.store(true, Ordering::SeqCst);
        let answer = twin.get("/api/v1/query?query=up").await;
        assert_eq!(answer.code, 503);
        assert!(answer.text().contains(r#""errorType":"unavailable""#));
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_ends_when_its_time_is_up() {
        let twin = twin();
        twin.store.hangs.store(true, Ordering::SeqCst);
        let timed_out = r#"{"status":"error","errorType":"timeout","error":"query timed out in expression evaluation"}"#;
        for path in ["query=t_gauge", "query=t_gauge&timeout=1.5"] {
            let answer = twin.get(&format!("/api/v1/query?{path}")).await;
            assert_eq!(answer.seen(), (503, timed_out));
        }
        // What never ran is another error: Prometheus 3.5.3 with `--query.max-concurrency=1`.
        let waited =
            r#"{"status":"error","errorType":"execution","error":"context deadline exceeded"}"#;
        let waited_as_asked = r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": context deadline exceeded"}"#;
        let none = twin.get("/api/v1/query?query=1&timeout=0").await;
        assert_eq!(none.seen(), (400, waited_as_asked));
        let slots = twin.queries.slots.clone();
        let all = u32::try_from(slots.available_permits()).unwrap();
        let _all = slots.acquire_many(all).await.unwrap();
        let queued = twin.get("/api/v1/query?query=1&timeout=5").await;
        assert_eq!(queued.seen(), (400, waited_as_asked));
        let queued = twin.get("/api/v1/query?query=1").await;
        assert_eq!(queued.seen(), (422, waited));
    }

    /// Whoever goes away takes the query along: its slot and its memory are free again.
    #[tokio::test]
    async fn a_query_ends_with_its_asker() {
        let twin = twin();
        let before = twin.queries.slots.available_permits();
        twin.store.hangs.store(true, Ordering::SeqCst);
        let mut asked = Box::pin(twin.get("/api/v1/query?query=t_gauge"));
        assert!(futures::poll!(&mut asked).is_pending());
        assert_eq!(twin.queries.slots.available_permits(), before - 1);
        drop(asked);
        assert_eq!(twin.queries.slots.available_permits(), before);
    }

    #[tokio::test]
    async fn all_queries_together_hold_no_more_than_there_is() {
        let twin = twin();
        for at in 0..10_000 {
            twin.store
                .add(&[("__name__", "large")], NOW.plus_ms(-at), 1.0);
        }
        let answer = twin.get("/api/v1/query?query=large[1h]").await;
        assert_eq!(answer.code, 422);
        assert!(
            answer
                .text()
                .contains("more than all queries together may hold (100000)")
        );
        assert_eq!(twin.queries.memory.held(), 0);
        let small = twin.get("/api/v1/query?query=t_gauge").await;
        assert_eq!(small.code, 200);
        assert_eq!(twin.queries.memory.held(), 0);
    }

    #[tokio::test]
    async fn the_longest_range_has_eleven_thousand_points() {
        let path = "/api/v1/query_range?query=1&start=0&end=11000&step=1";
        let answer = twin().get(path).await;
        assert_eq!(answer.code, 200);
        assert_eq!(answer.text().matches("],[").count(), 11_000);
        let last = Timestamp(11_000_000).seconds();
        assert!(answer.text().contains(&format!("[{last},")));
    }
}
