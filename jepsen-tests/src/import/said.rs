//! What a log holds beside samples: exemplars, and what was said of metrics.
//!
//! A Prometheus is told of a histogram by remote write 2.0 and keeps it in its log. After the import both
//! answer the same of the exemplars; of the metric quorate says what Prometheus was told, which itself
//! tells that of scraped metrics only.

use anyhow::{Context, ensure};
use prost::Message as _;
use proto::remote_v2::metadata::MetricType;
use proto::remote_v2::{Exemplar, Metadata, Request, Sample, TimeSeries};
use serde_json::{Value, json};

use crate::differ::data::{BEGIN_MS, END_MS};
use crate::differ::peers::Client;

/// Places in the request's list of texts: labels, of the series and of the exemplars.
const SYMBOLS: [&str; 9] = [
    "",
    "__name__",
    "said_seconds_bucket",
    "le",
    "1.0",
    "trace_id",
    "Of whom it is said.",
    "seconds",
    "abc",
];
/// Short enough that the first is not too old for Prometheus.
const STEP_MS: i64 = 60_000;
const EXEMPLARS: usize = 20;

/// Tells a Prometheus.
pub async fn tell(prometheus: &mut Client) -> anyhow::Result<()> {
    let begin_ms = END_MS - STEP_MS * EXEMPLARS as i64;
    let times = (begin_ms..END_MS).step_by(STEP_MS as usize);
    let series = TimeSeries {
        labels_refs: vec![1, 2, 3, 4],
        samples: times
            .clone()
            .map(|timestamp| Sample {
                value: 1.0,
                timestamp,
            })
            .collect(),
        exemplars: times
            .map(|timestamp| Exemplar {
                labels_refs: vec![5, 8],
                value: 0.25 + timestamp as f64,
                timestamp: timestamp + 1,
            })
            .collect(),
        metadata: Some(Metadata {
            r#type: MetricType::Histogram.into(),
            help_ref: 6,
            unit_ref: 7,
        }),
        ..TimeSeries::default()
    };
    let request = Request {
        symbols: SYMBOLS.map(str::to_owned).to_vec(),
        timeseries: vec![series],
    };
    let body = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec())?;
    prometheus.write_v2(body.into()).await
}

/// Asks both, after the import.
pub async fn compare(prometheus: &mut Client, quorate: &mut Client) -> anyhow::Result<()> {
    let path = format!(
        "/api/v1/query_exemplars?query=said_seconds_bucket&start={}&end={}",
        BEGIN_MS / 1000 - 1,
        END_MS / 1000 + 1
    );
    let expected = read(prometheus, &path).await?;
    let found = read(quorate, &path).await?;
    let count = expected["data"][0]["exemplars"].as_array().map(Vec::len);
    ensure!(count == Some(EXEMPLARS), "Prometheus says {expected}");
    ensure!(found == expected, "exemplars: {expected}, not {found}");
    let told = read(quorate, "/api/v1/metadata?metric=said_seconds").await?;
    let expected = json!([{"type": "histogram", "help": SYMBOLS[6], "unit": SYMBOLS[7]}]);
    ensure!(told["data"]["said_seconds"] == expected, "metadata: {told}");
    println!("{EXEMPLARS} exemplars and the metadata of a metric are the same");
    Ok(())
}

async fn read(client: &mut Client, path: &str) -> anyhow::Result<Value> {
    let body = client.get(path).await?;
    serde_json::from_slice(&body).with_context(|| path.to_owned())
}
