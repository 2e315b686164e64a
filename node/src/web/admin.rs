//! `/api/v1/admin/tsdb/…` and `/api/v1/status/tsdb`: what operators do to the store, and how big it is.
//!
//! Promise: orders are taken only with `--web.enable-admin-api`; success means that it holds on
//! every replica of every shard. Whatever went wrong may be ordered again.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use model::Timestamp;
use model::admin::Count;
use model::sink::WriteError;

use super::errors::{ApiError, ErrorType};
use super::json::{Json, success};
use super::params::{Form, MAX_TIME, MIN_TIME, parse_bool, parse_integer};
use super::query::json_response;
use super::{Shared, instant};

/// Entries of each list of the store's status, unless asked otherwise.
const STATISTICS: usize = 10;

/// Forgets samples.
pub async fn delete_series(State(api): State<Shared>, form: Form) -> Result<Response, ApiError> {
    check_enabled(&api)?;
    let form = form.plain();
    form.strict().map_err(ApiError::bad_data)?;
    if form.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let start = form.time_or("start", MIN_TIME)?;
    let end = form.time_or("end", MAX_TIME)?;
    let any_of: Result<Vec<_>, _> = form.all("match[]").map(promql::parse_matchers).collect();
    let mut any_of = any_of.map_err(|e| ApiError::bad_parameter("match[]", e))?;
    // `{}` chooses nothing here, as in Prometheus: whoever wants all to go has to say so.
    any_of.retain(|matchers| !matchers.is_empty());
    if any_of.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    done(api.admin.delete_series(any_of, start, end).await)
}

/// Gives the room of deleted samples back.
pub async fn clean_tombstones(State(api): State<Shared>) -> Result<Response, ApiError> {
    check_enabled(&api)?;
    done(api.admin.clean_tombstones().await)
}

/// Pins what is stored now, under a name that is the answer.
pub async fn snapshot(State(api): State<Shared>, form: Form) -> Result<Response, ApiError> {
    check_enabled(&api)?;
    let without_head = match form.first("skip_head") {
        "" => false,
        text => parse_bool(text).map_err(|e| {
            ApiError::bad_parameter("skip_head", format!("unable to parse boolean: {e}"))
        })?,
    };
    let name = snapshot_name(api.clock.now(), api.dice.roll());
    match api.admin.snapshot(&name, !without_head).await {
        Ok(()) => Ok(json_response(success(
            |json| {
                json.raw("{\"name\":").text(&name).raw("}");
            },
            &[],
            &[],
        ))),
        Err(error) => Err(refused(error)),
    }
}

/// `20171210T211224Z-2be650b6d019eb54`, as Prometheus names them.
fn snapshot_name(at: Timestamp, draw: u64) -> String {
    let second = Timestamp(at.0.div_euclid(1000) * 1000);
    let instant = instant::format(second).replace(['-', ':'], "");
    format!("{instant}-{:016x}", draw >> 1)
}

/// Cardinality of the newest samples; `limit` entries a list.
pub async fn statistics(State(api): State<Shared>, form: Form) -> Result<Response, ApiError> {
    let limit = match form.first("limit") {
        "" => STATISTICS,
        text => parse_integer(text)
            .ok()
            .and_then(|limit| usize::try_from(limit).ok())
            .filter(|&limit| limit > 0)
            .ok_or_else(|| ApiError::bad_data("limit must be a positive number"))?,
    };
    let head = api.admin.head_statistics(limit).await?;
    // Prometheus' marks of a head without samples.
    let min_time = head.min_time.map_or(i64::MAX, |at| at.0);
    let max_time = head.max_time.map_or(i64::MIN, |at| at.0);
    let lists = [
        ("seriesCountByMetricName", &head.series_by_metric_name),
        ("labelValueCountByLabelName", &head.values_by_label_name),
        ("memoryInBytesByLabelName", &head.memory_by_label_name),
        ("seriesCountByLabelValuePair", &head.series_by_label_pair),
    ];
    let write = |json: &mut Json| {
        json.raw("{\"headStats\":{\"numSeries\":")
            .value(&head.series);
        json.raw(",\"numLabelPairs\":").value(&head.label_pairs);
        json.raw(",\"chunkCount\":").value(&head.chunks);
        json.raw(",\"minTime\":").value(&min_time);
        json.raw(",\"maxTime\":").value(&max_time).raw("}");
        for (name, counts) in lists {
            json.raw(",\"")
                .raw(name)
                .raw("\":")
                .list(counts, write_count);
        }
        json.raw("}");
    };
    Ok(json_response(success(write, &[], &[])))
}

fn write_count(json: &mut Json, count: &Count) {
    json.raw("{\"name\":").text(&count.name);
    json.raw(",\"value\":").value(&count.value).raw("}");
}

fn check_enabled(api: &Shared) -> Result<(), ApiError> {
    match api.settings.admin {
        true => Ok(()),
        false => Err(ApiError::new(ErrorType::Disabled, "admin APIs disabled")),
    }
}

fn done(outcome: Result<(), WriteError>) -> Result<Response, ApiError> {
    match outcome {
        Ok(()) => Ok(StatusCode::NO_CONTENT.into_response()),
        Err(error) => Err(refused(error)),
    }
}

fn refused(error: WriteError) -> ApiError {
    let kind = match &error {
        WriteError::Unavailable(_) | WriteError::Overloaded(_) => ErrorType::Unavailable,
        WriteError::Invalid(_) | WriteError::Inconsistent(_) | WriteError::Failed(_) => {
            ErrorType::Internal
        }
    };
    ApiError::new(kind, error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::state::Settings;
    use super::super::twin::{NOW, Twin};

    fn enabled() -> Twin {
        let twin = Twin::with(Settings {
            admin: true,
            ..Settings::default()
        });
        for (job, at) in [("a", -2000), ("a", -1000), ("b", -1000)] {
            let labels = [("__name__", "up"), ("job", job)];
            twin.store.add(&labels, NOW.plus_ms(at), 1.0);
        }
        twin
    }

    async fn order(twin: &Twin, method: &str, path: &str) -> (u16, String) {
        let path = format!("/api/v1/admin/tsdb/{path}");
        let answer = twin.api_request(method, &path, &[], "").await;
        (answer.code, answer.text().to_owned())
    }

    fn error(kind: &str, text: &str) -> String {
        format!(r#"{{"status":"error","errorType":"{kind}","error":"{text}"}}"#)
    }

    /// Prometheus 3.5.3 without `--web.enable-admin-api`.
    #[tokio::test]
    async fn orders_are_taken_only_when_enabled() {
        for path in ["delete_series", "clean_tombstones", "snapshot"] {
            let refused = (500, error("unavailable", "admin APIs disabled"));
            assert_eq!(order(&Twin::new(), "POST", path).await, refused);
            let got = enabled().get(&format!("/api/v1/admin/tsdb/{path}")).await;
            assert_eq!((got.code, got.header("allow")), (405, "OPTIONS, POST, PUT"));
        }
    }

    #[tokio::test]
    async fn deleted_samples_are_gone() {
        let twin = enabled();
        let start = NOW.plus_ms(-1500).seconds();
        let path = format!("delete_series?match[]={{job=%22a%22}}&start={start}");
        assert_eq!(order(&twin, "PUT", &path).await, (204, String::new()));
        let left = [("__name__", "up"), ("job", "a")];
        assert_eq!(twin.store.value(&left, NOW.plus_ms(-2000)), Some(1.0));
        assert_eq!(twin.store.value(&left, NOW.plus_ms(-1000)), None);
        let nothing = order(&twin, "POST", "delete_series?match[]={}").await;
        assert_eq!(nothing, (204, String::new()));
        assert_eq!(twin.store.value(&left, NOW.plus_ms(-2000)), Some(1.0));
        let all = order(&twin, "POST", "delete_series?match[]=up&match[]=none").await;
        assert_eq!(all, (204, String::new()));
        let series = twin.get("/api/v1/series?match[]=up").await;
        assert_eq!(series.text(), r#"{"status":"success","data":[]}"#);
        let cleaned = order(&twin, "POST", "clean_tombstones").await;
        assert_eq!(cleaned, (204, String::new()));
    }

    #[tokio::test]
    async fn snapshots_are_named_as_prometheus_names_them() {
        let twin = enabled();
        for (path, with_head) in [("snapshot", true), ("snapshot?skip_head=true", false)] {
            let (code, text) = order(&twin, "POST", path).await;
            let name = "20261121T035619Z-0000000000000003";
            let body = format!(r#"{{"status":"success","data":{{"name":"{name}"}}}}"#);
            assert_eq!((code, text), (200, body));
            let taken = twin.store.snapshots.lock().unwrap().pop();
            assert_eq!(taken, Some((name.to_owned(), with_head)));
        }
    }

    /// Prometheus 3.5.3, each by `curl -X POST`.
    #[tokio::test]
    async fn what_is_wrong_is_said_in_prometheus_words() {
        let twin = enabled();
        for (path, text) in [
            ("delete_series", "no match[] parameter provided"),
            (
                "delete_series?match[]=u(",
                r#"invalid parameter \"match[]\": 1:2: parse error: unexpected \"(\""#,
            ),
            (
                "delete_series?match[]=up&start=x",
                r#"invalid parameter \"start\": invalid time value for 'start': cannot parse \"x\" to a valid timestamp"#,
            ),
            (
                "snapshot?skip_head=x",
                r#"invalid parameter \"skip_head\": unable to parse boolean: strconv.ParseBool: parsing \"x\": invalid syntax"#,
            ),
        ] {
            let seen = order(&twin, "POST", path).await;
            assert_eq!(seen, (400, error("bad_data", text)), "{path}");
        }
        twin.store.broken.store(true, Ordering::SeqCst);
        let (code, text) = order(&twin, "POST", "clean_tombstones").await;
        assert_eq!(code, 503, "{text}");
    }

    /// Prometheus 3.5.3's shape.
    #[tokio::test]
    async fn the_head_is_counted() {
        let twin = enabled();
        let answer = twin.get("/api/v1/status/tsdb?limit=1").await;
        assert_eq!(
            answer.text(),
            concat!(
                r#"{"status":"success","data":{"headStats":{"numSeries":2,"numLabelPairs":3,"#,
                r#""chunkCount":2,"minTime":1795233377500,"maxTime":1795233378500},"#,
                r#""seriesCountByMetricName":[{"name":"up","value":2}],"#,
                r#""labelValueCountByLabelName":[{"name":"job","value":2}],"#,
                r#""memoryInBytesByLabelName":[{"name":"__name__","value":2}],"#,
                r#""seriesCountByLabelValuePair":[{"name":"__name__=up","value":2}]}}"#,
            )
        );
        let empty = Twin::new().get("/api/v1/status/tsdb").await;
        let none = r#""minTime":9223372036854775807,"maxTime":-9223372036854775808}"#;
        assert!(empty.text().contains(none), "{}", empty.text());
        for limit in ["0", "-1", "x"] {
            let answer = twin
                .get(&format!("/api/v1/status/tsdb?limit={limit}"))
                .await;
            let text = error("bad_data", "limit must be a positive number");
            assert_eq!(answer.seen(), (400, text.as_str()));
        }
    }
}
