//! InfluxDB's write API, versions 1 and 2, and what its clients ask before they write.
//!
//! Answers have InfluxDB's codes and shapes: 204 when everything is stored; 400 when some lines
//! cannot be, which names them and leaves the others stored. A value that differs from one stored
//! for the same series and time is refused, where InfluxDB would replace it.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use ingest::influx::{Options, Precision, read};
use ingest::lines::Problems;
use model::limits::LINE_BYTES_MAX;
use serde_json::{Value, json};

use super::feed::Feed;
use super::{Shared, open, store_all, told};
use crate::web::errors::{TextError, tell_when};
use crate::web::params::Form;

/// The version of InfluxDB whose API this is; clients look for the header.
const VERSION: &str = "1.8.10";
const VERSION_HEADER: &str = "x-influxdb-version";

/// Which version's answers are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Api {
    V1,
    V2,
}

/// `POST /write?db=&rp=&precision=`.
pub async fn write_v1(
    State(api): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let form = Form::parse(uri.query().unwrap_or_default().as_bytes());
    let outcome = write(&api, &form, form.first("db"), &headers, body).await;
    answer(outcome, Api::V1)
}

/// `POST /api/v2/write?org=&bucket=&precision=`; the bucket takes the place of the database.
pub async fn write_v2(
    State(api): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let form = Form::parse(uri.query().unwrap_or_default().as_bytes());
    let database = match form.first("bucket") {
        "" => form.first("db"),
        bucket => bucket,
    };
    let outcome = write(&api, &form, database, &headers, body).await;
    answer(outcome, Api::V2)
}

async fn write(
    api: &Shared,
    form: &Form,
    database: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Problems, TextError> {
    open(api)?;
    let precision = form.first("precision");
    let precision = Precision::parse(precision).ok_or_else(|| {
        let text = format!("invalid precision {precision:?} (use n, u, ms, s, m or h)");
        TextError::bad_request(text)
    })?;
    let options = Options {
        precision,
        now: api.clock.now(),
        database,
    };
    let mut feed = Feed::new(headers, body, &api.body_budget, LINE_BYTES_MAX)?;
    let mut line = 0;
    store_all(api, &mut feed, |block, last, parsed| {
        read(block, last, &options, &mut line, parsed)
    })
    .await
}

fn answer(outcome: Result<Problems, TextError>, api: Api) -> Response {
    let mut response = match outcome {
        Ok(problems) if problems.is_empty() => StatusCode::NO_CONTENT.into_response(),
        Ok(problems) => {
            let text = told(&problems);
            let body = match api {
                Api::V1 => {
                    json!({"error": format!("partial write: {text} dropped={}", problems.total)})
                }
                Api::V2 => json!({
                    "code": "invalid",
                    "message": format!("partial write: {text}"),
                    "line": problems.first.first().map(|problem| problem.line),
                }),
            };
            reply(StatusCode::BAD_REQUEST, &body)
        }
        Err(error) => failed(&error, api),
    };
    let version = HeaderValue::from_static(VERSION);
    response.headers_mut().insert(VERSION_HEADER, version);
    response
}

fn failed(error: &TextError, api: Api) -> Response {
    let body = match api {
        Api::V1 => json!({"error": error.message}),
        Api::V2 => json!({"code": code(error.status), "message": error.message}),
    };
    let mut response = reply(error.status, &body);
    tell_when(&mut response);
    response
}

fn reply(status: StatusCode, body: &Value) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, body.to_string()).into_response()
}

/// InfluxDB 2's names of what went wrong.
fn code(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "invalid",
        StatusCode::NOT_FOUND => "not found",
        StatusCode::PAYLOAD_TOO_LARGE => "request too large",
        StatusCode::TOO_MANY_REQUESTS => "too many requests",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        _ => "internal error",
    }
}

/// `/ping`: 204, or 200 with the version for those who want an answer with a body.
pub async fn ping(uri: Uri) -> Response {
    let form = Form::parse(uri.query().unwrap_or_default().as_bytes());
    let headers = [(VERSION_HEADER, VERSION), ("x-influxdb-build", "OSS")];
    match form.first("verbose") {
        "" | "0" | "false" => (StatusCode::NO_CONTENT, headers).into_response(),
        _ => (headers, reply(StatusCode::OK, &json!({"version": VERSION}))).into_response(),
    }
}

/// `/health` as InfluxDB 2 answers it; fails while this node is not ready.
pub async fn health(State(api): State<Shared>) -> Response {
    let (status, verdict, message) = match api.status.ready() {
        Ok(()) => (
            StatusCode::OK,
            "pass",
            "ready for queries and writes".to_owned(),
        ),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, "fail", reason),
    };
    let body = json!({
        "name": "influxdb",
        "message": message,
        "status": verdict,
        "checks": [],
        "version": VERSION,
    });
    ([(VERSION_HEADER, VERSION)], reply(status, &body)).into_response()
}

/// `/influx/query`: clients create their database and look for it; there is nothing to create.
pub async fn query(form: Form) -> Response {
    let question = form.first("q").trim().to_ascii_uppercase();
    let (status, body): (StatusCode, Value) = match question {
        q if q.starts_with("CREATE DATABASE") => {
            (StatusCode::OK, json!({"results": [{"statement_id": 0}]}))
        }
        q if q.starts_with("SHOW DATABASES") => {
            let series = json!([{"name": "databases", "columns": ["name"], "values": []}]);
            let results = json!([{"statement_id": 0, "series": series}]);
            (StatusCode::OK, json!({"results": results}))
        }
        _ => {
            let why = "InfluxQL is not served here: ask with PromQL at /api/v1/query";
            (StatusCode::BAD_REQUEST, json!({"error": why}))
        }
    };
    ([(VERSION_HEADER, VERSION)], reply(status, &body)).into_response()
}
