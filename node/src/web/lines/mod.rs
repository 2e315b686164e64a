//! The line protocols over HTTP: InfluxDB's, series as JSON, exposition text; and the way out of
//! the second.
//!
//! Promise: success only when every line is stored on a majority; what can never be stored is
//! told by line while all the rest is stored; 429 and 503 mean that the same request may be sent
//! again, whole. Bodies are taken in blocks, so that they may be of any length. Not here: what the
//! lines mean.

mod export;
mod feed;
mod import;
mod influx;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use ingest::lines::{Parsed, Problems, part};
use model::limits::LINES_ROWS_MAX;

use super::encoding;
use super::errors::TextError;
use super::{Shared, get_or_post, only};
use feed::Feed;

/// Every path of this module.
pub fn routes() -> Router<Shared> {
    let to_influx = |handler| only("OPTIONS, POST", handler);
    Router::new()
        .route("/api/v1/export", get_or_post(export::export))
        .route_layer(axum::middleware::from_fn(encoding::compress))
        .route("/write", to_influx(post(influx::write_v1)))
        .route("/influx/write", to_influx(post(influx::write_v1)))
        .route(
            "/api/v1/push/influx/write",
            to_influx(post(influx::write_v1)),
        )
        .route("/api/v2/write", to_influx(post(influx::write_v2)))
        .route("/influx/api/v2/write", to_influx(post(influx::write_v2)))
        .route("/ping", get(influx::ping).post(influx::ping))
        .route("/influx/ping", get(influx::ping).post(influx::ping))
        .route("/health", get(influx::health))
        .route("/influx/health", get(influx::health))
        .route("/influx/query", get(influx::query).post(influx::query))
        .route("/api/v1/import", only("OPTIONS, POST", post(import::json)))
        .route(
            "/api/v1/import/prometheus",
            only("OPTIONS, POST, PUT", post(import::text).put(import::text)),
        )
        .route(
            "/api/v1/import/prometheus/metrics/{*group}",
            only("OPTIONS, POST, PUT", post(import::text).put(import::text)),
        )
}

/// Receivers are closed where Prometheus' own is.
fn open(api: &Shared) -> Result<(), TextError> {
    match api.settings.remote_write_receiver {
        true => Ok(()),
        false => Err(TextError::new(
            StatusCode::NOT_FOUND,
            "receivers need to be enabled with --web.enable-remote-write-receiver",
        )),
    }
}

/// Stores what the lines of a body say, block by block; the result tells of what was not stored.
/// An error means that the whole body may be sent again: what is stored already counts as stored.
async fn store_all(
    api: &Shared,
    feed: &mut Feed,
    mut read: impl FnMut(&[u8], bool, &mut Parsed) -> usize,
) -> Result<Problems, TextError> {
    let mut problems = Problems::default();
    loop {
        let last = feed.fill().await?;
        let mut parsed = Parsed::default();
        let block = feed.bytes();
        let reading = || read(block, last, &mut parsed);
        let done = api.body_budget.apart(block.len(), reading).await;
        store(api, &mut parsed).await?;
        problems.append(parsed.problems);
        if last {
            return Ok(problems);
        }
        feed.advance(done)?;
    }
}

/// Stores one block in writes of a bounded size.
async fn store(api: &Shared, parsed: &mut Parsed) -> Result<(), TextError> {
    let rows = parsed.batch.rows.len();
    for first in (0..rows).step_by(LINES_ROWS_MAX) {
        let span = first..rows.min(first + LINES_ROWS_MAX);
        let written = api.sink.write(part(&parsed.batch, span)).await?;
        parsed.judge(first, &written);
    }
    Ok(())
}

/// What a client is told of lines that were not stored, one a line.
fn told(problems: &Problems) -> String {
    let mut text = String::new();
    for problem in &problems.first {
        let (line, what, cause) = (problem.line, &problem.text, &problem.cause);
        if !text.is_empty() {
            text.push('\n');
        }
        text += &match problem.refused {
            true => format!("line {line}: {cause}: series {what}"),
            false => format!("line {line}: unable to parse '{what}': {cause}"),
        };
    }
    match problems.untold() {
        0 => text,
        untold => format!("{text}\nand {untold} more"),
    }
}

/// A header's text; empty when there is none.
fn header_text(headers: &HeaderMap, name: axum::http::HeaderName) -> &str {
    let value = headers.get(name).map(|value| value.to_str());
    value.map_or("", |text| text.unwrap_or("?"))
}

#[cfg(test)]
mod tests;
