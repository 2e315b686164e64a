//! The way into a cluster: requests of remote write to `/api/v1/import/write` of any of its nodes.
//!
//! Promise: a sample counts as stored only when a node said that it is durable. A request without
//! an answer is sent again, to the next node; what was stored by it counts as stored.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use model::hash::{Set, xxh3};
use proto::remote::{Exemplar, Label, MetricMetadata};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::chunk::Samples;
use super::{native, wire};

const PATH: &str = "/api/v1/import/write";
/// Of one request.
const ROWS_MAX: usize = 10_000;
/// Of one series at a time.
const EXEMPLARS_MAX: usize = 1_000;
/// Buckets and labels count too: a request stays far below what a node takes.
const REQUEST_BYTES_MAX: usize = 4 << 20;
/// Requests under way: enough that every shard has work while one is read.
const UNDER_WAY_MAX: usize = 4;
const ANSWER_BYTES_MAX: usize = 1 << 20;
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Where and how.
#[derive(Debug, Clone)]
pub struct Target {
    /// `http://HOST:PORT` and perhaps a prefix, of one node or several.
    pub nodes: Vec<Uri>,
    /// User and password.
    pub user: Option<(String, String)>,
    /// Set on every series.
    pub labels: Vec<(String, String)>,
    /// How long a request is tried.
    pub patience: Duration,
}

/// What became of the samples.
#[derive(Debug, Default)]
pub struct Report {
    pub samples: u64,
    pub histograms: u64,
    /// Taken; one that its series has already counts as well.
    pub exemplars: u64,
    /// Metrics of which something was said.
    pub described: u64,
    /// By reason: how many, and the first.
    pub refused: BTreeMap<String, (u64, String)>,
    /// Distinct ones.
    pub series: u64,
    pub requests: u64,
    pub repeated: u64,
}

impl Report {
    pub fn refused(&self) -> u64 {
        self.refused.values().map(|(count, _)| count).sum()
    }

    pub fn text(&self) -> String {
        let mut text = format!(
            "{} series, {} samples and {} native histograms stored, {} refused; {} exemplars; \
             {} metrics described\n",
            self.series,
            self.samples,
            self.histograms,
            self.refused(),
            self.exemplars,
            self.described
        );
        for (reason, (count, first)) in &self.refused {
            text += &format!("refused: {count} {reason}; the first: {first}\n");
        }
        text
    }
}

/// An answer of a node.
#[derive(Debug, Deserialize)]
struct Answer {
    data: Counts,
}

#[derive(Debug, Deserialize)]
struct Counts {
    samples: u64,
    histograms: u64,
    exemplars: u64,
    refused: Vec<Refused>,
}

#[derive(Debug, Deserialize)]
struct Refused {
    reason: String,
    count: u64,
    first: String,
}

/// Gathers series into requests and sends them.
pub struct Sender {
    target: Arc<Target>,
    idle: Arc<Mutex<Vec<Connection>>>,
    /// A `WriteRequest` that grows.
    request: Vec<u8>,
    rows: usize,
    under_way: JoinSet<anyhow::Result<(Counts, u64)>>,
    seen: Set<u64>,
    report: Report,
    begun: Instant,
    told: Instant,
}

impl Sender {
    pub fn new(target: Target) -> Self {
        Self {
            target: Arc::new(target),
            idle: Arc::default(),
            request: Vec::new(),
            rows: 0,
            under_way: JoinSet::new(),
            seen: Set::default(),
            report: Report::default(),
            begun: Instant::now(),
            told: Instant::now(),
        }
    }

    /// Adds samples of a series, and sends when there are enough.
    pub async fn push(&mut self, labels: &[Label], samples: Samples) -> anyhow::Result<()> {
        if samples.is_empty() {
            return Ok(());
        }
        let labels = self.with_extra(labels);
        self.see(&labels);
        let Samples {
            mut floats,
            mut histograms,
        } = samples;
        histograms.iter_mut().for_each(native::compact);
        while !floats.is_empty() || !histograms.is_empty() {
            let room = ROWS_MAX.saturating_sub(self.rows).max(1);
            let behind = floats.split_off(floats.len().min(room));
            let room = room.saturating_sub(floats.len()).min(1_000);
            let later = histograms.split_off(histograms.len().min(room));
            self.rows += floats.len() + histograms.len();
            let samples = Samples {
                floats: std::mem::replace(&mut floats, behind),
                histograms: std::mem::replace(&mut histograms, later),
            };
            wire::put_series(&mut self.request, &labels, &samples);
            self.send_if_full().await?;
        }
        Ok(())
    }

    /// Adds exemplars of a series that is stored.
    pub async fn push_exemplars(
        &mut self,
        labels: &[Label],
        exemplars: Vec<Exemplar>,
    ) -> anyhow::Result<()> {
        let labels = self.with_extra(labels);
        for some in exemplars.chunks(EXEMPLARS_MAX) {
            wire::put_exemplars(&mut self.request, &labels, some);
            self.rows += some.len();
            self.send_if_full().await?;
        }
        Ok(())
    }

    /// Adds what is said of a metric.
    pub async fn push_metadata(&mut self, said: &MetricMetadata) -> anyhow::Result<()> {
        wire::put_metadata(&mut self.request, said);
        self.rows += 1;
        self.report.described += 1;
        self.send_if_full().await
    }

    async fn send_if_full(&mut self) -> anyhow::Result<()> {
        match self.rows >= ROWS_MAX || self.request.len() >= REQUEST_BYTES_MAX {
            true => self.send().await,
            false => Ok(()),
        }
    }

    /// Sends what is left and waits for all answers.
    pub async fn finish(mut self) -> anyhow::Result<Report> {
        self.flush().await?;
        self.report.series = self.seen.len() as u64;
        Ok(self.report)
    }

    /// The same, and goes on.
    pub async fn flush(&mut self) -> anyhow::Result<()> {
        self.send().await?;
        while !self.under_way.is_empty() {
            self.hear().await?;
        }
        Ok(())
    }

    /// A line for whoever waits, now.
    pub fn tell(&mut self, what: &str) {
        self.told = Instant::now();
        let seconds = self.begun.elapsed().as_secs_f64().max(0.001);
        let done = self.report.samples + self.report.histograms;
        let (series, refused) = (self.seen.len(), self.report.refused());
        let rate = done as f64 / seconds;
        let line = format!(
            "{what}: {series} series, {done} samples stored, {refused} refused, {rate:.0} a second\n"
        );
        // Nobody reads: the import goes on.
        std::io::stderr().write_all(line.as_bytes()).ok();
    }

    fn with_extra(&self, labels: &[Label]) -> Vec<Label> {
        let mut all = labels.to_vec();
        for (name, value) in &self.target.labels {
            all.retain(|label| label.name != *name);
            all.push(Label {
                name: name.clone(),
                value: value.clone(),
            });
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn see(&mut self, labels: &[Label]) {
        let mut hash = 0;
        for label in labels {
            hash = xxh3(hash, label.name.as_bytes());
            hash = xxh3(hash, label.value.as_bytes());
        }
        self.seen.insert(hash);
    }

    async fn send(&mut self) -> anyhow::Result<()> {
        if self.request.is_empty() {
            return Ok(());
        }
        let request = std::mem::take(&mut self.request);
        self.rows = 0;
        let body = snap::raw::Encoder::new().compress_vec(&request)?;
        while self.under_way.len() >= UNDER_WAY_MAX {
            self.hear().await?;
        }
        let (target, idle) = (Arc::clone(&self.target), Arc::clone(&self.idle));
        self.under_way.spawn(deliver(target, idle, body.into()));
        if self.told.elapsed() >= TELL_EVERY {
            self.tell("so far");
        }
        Ok(())
    }

    /// Waits for one answer.
    async fn hear(&mut self) -> anyhow::Result<()> {
        let Some(answered) = self.under_way.join_next().await else {
            return Ok(());
        };
        let (counts, repeated) = answered??;
        let report = &mut self.report;
        report.requests += 1;
        report.repeated += repeated;
        report.samples += counts.samples;
        report.histograms += counts.histograms;
        report.exemplars += counts.exemplars;
        for refused in counts.refused {
            let entry = report.refused.entry(refused.reason);
            let (count, _) = entry.or_insert((0, refused.first));
            *count += refused.count;
        }
        Ok(())
    }
}

/// One connection and the node it leads to.
struct Connection {
    node: usize,
    sender: SendRequest<Full<Bytes>>,
}

/// Sends one request until it is answered; how often it was repeated.
async fn deliver(
    target: Arc<Target>,
    idle: Arc<Mutex<Vec<Connection>>>,
    body: Bytes,
) -> anyhow::Result<(Counts, u64)> {
    let begun = Instant::now();
    let mut pause = PAUSE_MIN;
    let mut repeated = 0;
    let mut node = 0;
    loop {
        let pooled = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let tried = tokio::time::timeout(ANSWER_TIME_MAX, attempt(&target, pooled, node, &body));
        let why = match tried.await {
            Ok(Ok((connection, 200, answer))) => {
                let answer: Answer =
                    serde_json::from_slice(&answer).context("read the node's answer")?;
                idle.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(connection);
                return Ok((answer.data, repeated));
            }
            Ok(Ok((_, status, answer))) => {
                let text = String::from_utf8_lossy(&answer).trim().to_owned();
                if status != 429 && status < 500 {
                    bail!("refused with {status}: {text}");
                }
                format!("{status}: {text}")
            }
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "no answer in time".to_owned(),
        };
        if begun.elapsed() >= target.patience {
            bail!("given up after {:?}: {why}", target.patience);
        }
        node = (node + 1) % target.nodes.len();
        repeated += 1;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn attempt(
    target: &Target,
    pooled: Option<Connection>,
    node: usize,
    body: &Bytes,
) -> anyhow::Result<(Connection, u16, Bytes)> {
    let mut connection = match pooled.filter(|connection| !connection.sender.is_closed()) {
        Some(connection) => connection,
        None => connect(target, node).await?,
    };
    let uri = &target.nodes[connection.node];
    let authority = uri.authority().context("the target has no host")?;
    let mut request = Request::post(format!("{}{PATH}", uri.path().trim_end_matches('/')))
        .header("host", authority.as_str())
        .header("content-type", "application/x-protobuf")
        .header("content-encoding", "snappy");
    if let Some((user, password)) = &target.user {
        let pair = BASE64_STANDARD.encode(format!("{user}:{password}"));
        request = request.header("authorization", format!("Basic {pair}"));
    }
    let request = request.body(Full::new(body.clone()))?;
    connection.sender.ready().await?;
    let response = connection.sender.send_request(request).await?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    let answer = body.collect().await.map_err(|e| anyhow::anyhow!(e))?;
    Ok((connection, status, answer.to_bytes()))
}

async fn connect(target: &Target, node: usize) -> anyhow::Result<Connection> {
    let uri = &target.nodes[node];
    let host = uri.host().context("the target has no host")?;
    let port = uri.port_u16().unwrap_or(80);
    let attempt = || format!("connect to {uri}");
    let stream = TcpStream::connect((host, port))
        .await
        .with_context(attempt)?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Ends with the sender, which reports its error.
    tokio::spawn(async move { connection.await.ok() });
    Ok(Connection { node, sender })
}
