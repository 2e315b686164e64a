//! `/api/v1/import` and `/api/v1/import/prometheus`, as VictoriaMetrics has them.
//!
//! Where VictoriaMetrics skips a bad line and answers 204, this answers 400 with the line and the
//! cause, after all good ones were stored: what is not stored is never passed over in silence.

use std::borrow::Cow;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use ingest::lines::Problems;
use ingest::push::path;
use ingest::textlines::{self, Options, Place};
use ingest::{gzip, jsonlines};
use model::Timestamp;
use model::limits::{
    EXPOSITION_BYTES_MAX, JSON_LINE_BYTES_MAX, LINE_BYTES_MAX, LINES_MEMORY_FACTOR,
};

use super::feed::Feed;
use super::{Shared, header_text, open, store, store_all, told};
use crate::web::body;
use crate::web::errors::TextError;
use crate::web::params::Form;

/// What stands in front of the path of a group.
const IMPORT: &str = "/api/v1/import/prometheus";

/// Series as lines of JSON.
pub async fn json(
    State(api): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    incoming: Body,
) -> Result<StatusCode, TextError> {
    open(&api)?;
    let form = Form::parse(uri.query().unwrap_or_default().as_bytes());
    let extra = extra_labels(&form)?;
    let mut feed = Feed::new(&headers, incoming, &api.body_budget, JSON_LINE_BYTES_MAX)?;
    let mut line = 0;
    let problems = store_all(&api, &mut feed, |block, last, parsed| {
        jsonlines::read(block, last, &extra, &mut line, parsed)
    });
    answer(&problems.await?)
}

/// Exposition text, or OpenMetrics if the content type says so. A path of a group's labels may
/// follow, as a Pushgateway has it.
pub async fn text(
    State(api): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    incoming: Body,
) -> Result<StatusCode, TextError> {
    open(&api)?;
    let form = Form::parse(uri.query().unwrap_or_default().as_bytes());
    let mut extra = extra_labels(&form)?;
    extra.extend(group_labels(&api, uri.path())?);
    let options = Options {
        now: default_time(&form)?.unwrap_or_else(|| api.clock.now()),
        extra: &extra,
    };
    let kind = header_text(&headers, header::CONTENT_TYPE);
    if kind.starts_with("application/openmetrics-text") {
        return openmetrics(&api, &options, &headers, incoming).await;
    }
    let mut feed = Feed::new(&headers, incoming, &api.body_budget, LINE_BYTES_MAX)?;
    let mut place = Place::default();
    let problems = store_all(&api, &mut feed, |block, last, parsed| {
        textlines::read(block, last, &options, &mut place, parsed)
    });
    answer(&problems.await?)
}

async fn openmetrics(
    api: &Shared,
    options: &Options<'_>,
    headers: &HeaderMap,
    incoming: Body,
) -> Result<StatusCode, TextError> {
    let bytes = body::read(incoming, EXPOSITION_BYTES_MAX, &api.body_budget).await?;
    let broken = |e: &dyn std::error::Error| TextError::bad_request(e.to_string());
    let is_packed = header_text(headers, header::CONTENT_ENCODING) == "gzip";
    let mut share = api.body_budget.share();
    let parsing = || {
        let plain = match is_packed {
            true => {
                let plain = gzip::decompress(&bytes, EXPOSITION_BYTES_MAX);
                Cow::Owned(plain.map_err(|e| broken(&e))?)
            }
            false => Cow::Borrowed(&*bytes),
        };
        share.cover(LINES_MEMORY_FACTOR * plain.len())?;
        let parsed = textlines::read_openmetrics(&plain, options);
        parsed.map_err(|e| broken(&e))
    };
    let weight = body::weight(&bytes, is_packed);
    let mut parsed = api.body_budget.apart(weight, parsing).await?;
    store(api, &mut parsed).await?;
    answer(&parsed.problems)
}

fn answer(problems: &Problems) -> Result<StatusCode, TextError> {
    if problems.is_empty() {
        return Ok(StatusCode::NO_CONTENT);
    }
    let text = told(problems);
    let count = problems.total;
    Err(TextError::bad_request(format!(
        "{text}\n{count} not stored, all others are"
    )))
}

/// `extra_label=name=value`, any number of times.
fn extra_labels(form: &Form) -> Result<Vec<(String, String)>, TextError> {
    let pairs = form.all("extra_label").map(|pair| {
        let parts = pair.split_once('=').filter(|(name, _)| !name.is_empty());
        let parts = parts.map(|(name, value)| (name.to_owned(), value.to_owned()));
        parts.ok_or_else(|| {
            TextError::bad_request(format!("extra_label {pair:?} is not name=value"))
        })
    });
    pairs.collect()
}

/// The labels of `/metrics/job/…` behind the path; none when nothing is there.
fn group_labels(api: &Shared, whole_path: &str) -> Result<Vec<(String, String)>, TextError> {
    let prefix = format!("{}{IMPORT}", api.settings.route_prefix);
    let rest = whole_path.strip_prefix(&prefix);
    let rest = rest.or_else(|| whole_path.strip_prefix(IMPORT));
    let Some(rest) = rest.filter(|rest| !rest.is_empty()) else {
        return Ok(Vec::new());
    };
    let key = path::parse(rest, api.settings.push_names)?;
    Ok(key
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

/// `timestamp`: milliseconds, of samples that have none.
fn default_time(form: &Form) -> Result<Option<Timestamp>, TextError> {
    match form.first("timestamp") {
        "" => Ok(None),
        text => match text.parse() {
            Ok(ms) => Ok(Some(Timestamp(ms))),
            Err(_) => Err(TextError::bad_request(format!(
                "timestamp {text:?} is not milliseconds since 1970"
            ))),
        },
    }
}
