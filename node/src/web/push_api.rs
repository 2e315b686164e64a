//! Pushgateway's API: `/api/v1/metrics`, `/api/v1/status`, `/api/v1/admin/wipe`, and the order to
//! stop. Shapes and texts are those of Pushgateway 1.11.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::group::{Family, FamilyKind, FamilySample, Group};
use model::{Labels, Timestamp, number};
use tracing::info;

use super::errors::TextError;
use super::json::Json;
use super::{Shared, instant, text};

/// What Pushgateway sends with every answer of its API.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        "Accept, Authorization, Content-Type, Origin",
    ),
    (
        header::ACCESS_CONTROL_ALLOW_METHODS,
        "GET, POST, DELETE, OPTIONS",
    ),
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
    (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
];

fn with_headers(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

/// To OPTIONS.
pub async fn options() -> Response {
    with_headers(StatusCode::OK.into_response())
}

fn answer(data: impl FnOnce(&mut Json)) -> Response {
    let mut json = Json::default();
    json.raw("{\"status\":\"success\",\"data\":");
    data(&mut json);
    json.raw("}");
    let kind = [(header::CONTENT_TYPE, "application/json")];
    with_headers((kind, json.into_string()).into_response())
}

/// What runs here.
pub async fn status(State(api): State<Shared>) -> Response {
    let build = api.status.build();
    let flags: BTreeMap<_, _> = api.status.flags().into_iter().collect();
    let started = instant::format(api.status.runtime().started);
    answer(|json| {
        json.raw("{\"build_information\":").value(&BTreeMap::from([
            ("branch", build.branch),
            ("buildDate", build.build_date),
            ("buildUser", build.build_user),
            ("goVersion", build.go_version),
            ("revision", build.revision),
            ("version", build.version),
        ]));
        json.raw(",\"flags\":").value(&flags);
        json.raw(",\"start_time\":").text(&started).raw("}");
    })
}

/// Every group with what was pushed to it.
pub async fn metrics(State(api): State<Shared>) -> Result<Response, TextError> {
    let groups = api.groups.groups().await?;
    Ok(answer(|json| {
        json.list(&groups, write_group);
    }))
}

fn write_group(json: &mut Json, group: &Group) {
    let key: BTreeMap<&str, &str> = group.key.iter().collect();
    json.raw("{\"labels\":").value(&key);
    let succeeded = group.push_time > group.push_failure_time
        || (group.push_time == group.push_failure_time && group.push_time > Timestamp(0));
    json.raw(",\"last_push_successful\":").value(&succeeded);
    let times = ingest::push::time_families(group);
    let mut all: Vec<&Family> = group.families.iter().chain(&times).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    for family in all {
        json.raw(",").text(&family.name).raw(":");
        write_family(json, family, group);
    }
    json.raw("}");
}

fn write_family(json: &mut Json, family: &Family, group: &Group) {
    let at = group.push_time.max(group.push_failure_time);
    json.raw("{\"time_stamp\":").text(&instant::format(at));
    let kind = family.kind.as_str().to_uppercase();
    json.raw(",\"type\":").text(&kind);
    if let Some(help) = family.help.as_ref().filter(|help| !help.is_empty()) {
        json.raw(",\"help\":").text(help);
    }
    json.raw(",\"metrics\":[");
    let bound = match family.kind {
        FamilyKind::Histogram => "le",
        FamilyKind::Summary => "quantile",
        _ => "",
    };
    let is_one = |a: &FamilySample, b: &FamilySample| {
        !bound.is_empty()
            && a.labels.without(bound) == b.labels.without(bound)
            && a.empty_labels() == b.empty_labels()
    };
    for (at, samples) in family.samples.chunk_by(is_one).enumerate() {
        json.raw(if at > 0 { "," } else { "" });
        write_metric(json, samples, bound, group);
    }
    json.raw("]}");
}

fn write_metric(json: &mut Json, samples: &[FamilySample], bound: &str, group: &Group) {
    let Some(first) = samples.first() else { return };
    let labels = match bound {
        "" => first.labels.clone(),
        bound => first.labels.without(bound),
    };
    let mut shown = shown_labels(&labels, group);
    let empty = first.empty_labels().iter();
    shown.extend(empty.map(|name| (name.as_str(), "")));
    json.raw("{\"labels\":").value(&shown);
    if bound.is_empty() {
        json.raw(",\"value\":")
            .text(&number::exposition(first.value));
        json.raw("}");
        return;
    }
    let name = if bound == "le" {
        "buckets"
    } else {
        "quantiles"
    };
    json.raw(",\"").raw(name).raw("\":");
    match samples.iter().find_map(FamilySample::native) {
        Some(native) => {
            json.buckets(&promql::native::buckets(native));
        }
        None => {
            let bounds: BTreeMap<String, String> = samples
                .iter()
                .filter(|s| !s.is_implied())
                .filter_map(|s| Some((s.labels.get(bound)?, s.value)))
                .map(|(at, value)| (float(at), number::exposition(value)))
                .collect();
            json.value(&bounds);
        }
    }
    for (name, suffix) in [("count", "_count"), ("sum", "_sum")] {
        let value = samples.iter().find(|s| s.suffix == suffix);
        let value = number::exposition(value.map_or(0.0, |s| s.value));
        json.raw(",\"").raw(name).raw("\":").text(&value);
    }
    json.raw("}");
}

/// A bound as a number is written.
fn float(text: &str) -> String {
    number::parse(text).map_or_else(|| text.to_owned(), number::exposition)
}

/// With the group's labels that are empty, and the instance that every metric has.
fn shown_labels<'a>(labels: &'a Labels, group: &'a Group) -> BTreeMap<&'a str, &'a str> {
    let mut shown: BTreeMap<&str, &str> = labels.iter().collect();
    shown.extend(group.key.iter());
    shown.entry("instance").or_insert("");
    shown
}

/// Removes every group; each shard's at one instant.
pub async fn wipe(State(api): State<Shared>) -> Result<Response, TextError> {
    info!("wiping all groups, asked over HTTP");
    api.groups.wipe().await?;
    Ok(with_headers(StatusCode::ACCEPTED.into_response()))
}

/// Begins to stop.
pub async fn quit(State(api): State<Shared>, method: Method) -> Response {
    if method != Method::PUT && method != Method::POST {
        let mut response = text("Only POST or PUT requests allowed.");
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        return response;
    }
    if !api.settings.push_lifecycle {
        let mut response = text("Lifecycle API is not enabled.");
        *response.status_mut() = StatusCode::FORBIDDEN;
        return response;
    }
    info!("termination requested over HTTP");
    api.status.quit();
    text("Requesting termination... Goodbye!")
}
