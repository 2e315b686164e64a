//! `/api/v1/import/write`: remote write of samples however old they are, for imports.
//!
//! Promise: as `/api/v1/write`, but that no window refuses a sample for its age or its order;
//! (series, timestamp) is still written once. Whatever is decided is answered with 200 and counts:
//! how much is stored, and of what is not, each reason with the first sample. Exemplars count as they are taken. 429 and 503 mean that
//! the same request may be sent again.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ingest::remote::{self, Decoded};
use model::Batch;
use model::limits::WRITE_BODY_BYTES_MAX;
use model::sink::Written;
use serde_json::json;

use super::errors::TextError;
use super::{Shared, body};

/// One request of an import.
pub async fn write(
    State(api): State<Shared>,
    headers: HeaderMap,
    incoming: Body,
) -> Result<Response, TextError> {
    if !api.settings.remote_write_receiver {
        return Err(TextError::new(
            StatusCode::NOT_FOUND,
            "receivers need to be enabled with --web.enable-remote-write-receiver",
        ));
    }
    let encoding = headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding != "snappy") {
        let why = "only snappy is acceptable as the encoding";
        return Err(TextError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    let bytes = body::read(incoming, WRITE_BODY_BYTES_MAX, &api.body_budget).await?;
    let Decoded {
        mut batch,
        problems,
        invalid,
        metadata,
    } = api
        .body_budget
        .apart(remote::declared_bytes(&bytes), || remote::decode(&bytes))
        .await?;
    batch.backfill = true;
    let mut refused = Refused::default();
    for problem in problems.into_iter().chain(invalid) {
        refused.add("left out", || problem);
    }
    let written = match batch.is_empty() {
        true => Written::default(),
        false => api.sink.write_kept(&batch).await?,
    };
    api.describe(&metadata).await?;
    let (samples, histograms) = refused.judge(&batch, &written);
    let body = json!({
        "status": "success",
        "data": {
            "samples": samples,
            "histograms": histograms,
            "exemplars": batch.exemplars.len(),
            "refused": refused.list(),
        },
    });
    let kind = [(header::CONTENT_TYPE, "application/json")];
    Ok((kind, body.to_string()).into_response())
}

/// By reason: how many, and the first.
#[derive(Default)]
struct Refused(BTreeMap<&'static str, (u64, String)>);

impl Refused {
    fn add(&mut self, reason: &'static str, first: impl FnOnce() -> String) {
        let (count, _) = self.0.entry(reason).or_insert_with(|| (0, first()));
        *count += 1;
    }

    /// How many floats and histograms are stored.
    fn judge(&mut self, batch: &Batch, written: &Written) -> (usize, usize) {
        let rows = &batch.rows;
        let mut histograms = 0;
        for rejection in &written.rejected {
            let row = rejection.row as usize;
            histograms += usize::from(rows.histogram(row).is_some());
            self.add(rejection.reason.as_str(), || {
                let series = rows.series.get(row).copied().unwrap_or_default();
                let labels = batch.series.get(series as usize).cloned();
                let at = rows.timestamps.get(row).copied().unwrap_or_default();
                format!("{} at {at}", labels.unwrap_or_default())
            });
        }
        let floats = rows.len() - rows.histograms.len() - (written.rejected.len() - histograms);
        (floats, rows.histograms.len() - histograms)
    }

    fn list(&self) -> Vec<serde_json::Value> {
        let reasons = self.0.iter();
        reasons
            .map(|(reason, (count, first))| json!({"reason": reason, "count": count, "first": first}))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use model::Timestamp;
    use prost::Message;
    use proto::remote::{Label, Sample, TimeSeries, WriteRequest};

    use super::super::twin::{NOW, Twin};

    const PATH: &str = "/api/v1/import/write";

    fn body(values: &[(i64, f64)]) -> Vec<u8> {
        let label = Label {
            name: "__name__".to_owned(),
            value: "up".to_owned(),
        };
        let samples = values.iter().map(|(timestamp, value)| Sample {
            timestamp: *timestamp,
            value: *value,
        });
        let series = TimeSeries {
            labels: vec![label],
            samples: samples.collect(),
            ..TimeSeries::default()
        };
        let request = WriteRequest {
            timeseries: vec![series],
            ..WriteRequest::default()
        };
        let message = request.encode_to_vec();
        snap::raw::Encoder::new().compress_vec(&message).unwrap()
    }

    #[tokio::test]
    async fn what_is_not_stored_is_counted_by_reason() {
        let twin = Twin::new();
        let up = [("__name__", "up")];
        twin.store.add(&up, NOW, 1.0);
        let headers = [("content-encoding", "snappy")];
        let body = body(&[(1, 5.0), (NOW.0, 2.0)]);
        let answer = twin.api_request("POST", PATH, &headers, body).await;
        assert_eq!(
            answer.seen(),
            (
                200,
                "{\"data\":{\"exemplars\":0,\"histograms\":0,\"refused\":[{\"count\":1,\"first\":\"{__name__=\\\"up\\\"} \
                 at 1795233379500\",\"reason\":\"duplicate sample for timestamp\"}],\"samples\":1},\
                 \"status\":\"success\"}"
            )
        );
        assert_eq!(twin.store.value(&up, Timestamp(1)), Some(5.0));
        let headers = [("content-encoding", "gzip")];
        let answer = twin.api_request("POST", PATH, &headers, "x").await;
        assert_eq!(answer.code, 415);
    }
}
