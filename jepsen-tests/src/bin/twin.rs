//! A store that is trivially right, to test the harness on: takes quorate's flags, speaks the
//! parts of its HTTP that the workloads use, and keeps everything in one file that all "nodes"
//! share under a lock. `TWIN_BUG` makes it wrong in one chosen way, which the harness must catch.
//!
//! It purposely knows nothing of replication: killing all its processes loses nothing because the
//! file is not theirs.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a process to be tested against, outside the store's determinism"
)]

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use prost::Message;
use proto::remote::WriteRequest;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

/// How the twin is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// Acknowledges every 20th write without keeping it.
    LoseWrites,
    /// Keeps acknowledged writes in memory for a while; a kill loses them.
    AckBeforeStore,
    /// Answers reads from a view that may be half a second old.
    StaleReads,
    /// Now and then returns a sample twice.
    Duplicate,
    /// Now and then returns a value that was never written.
    Corrupt,
    /// Ends by itself after some writes.
    Crash,
    /// Refuses every 50th write as malformed.
    Refuse,
}

impl Bug {
    fn from_environment() -> anyhow::Result<Self> {
        Ok(match std::env::var("TWIN_BUG").as_deref() {
            Err(_) => Self::None,
            Ok("lose-writes") => Self::LoseWrites,
            Ok("ack-before-store") => Self::AckBeforeStore,
            Ok("stale-reads") => Self::StaleReads,
            Ok("duplicate") => Self::Duplicate,
            Ok("corrupt") => Self::Corrupt,
            Ok("crash") => Self::Crash,
            Ok("refuse") => Self::Refuse,
            Ok(other) => bail!("no bug {other:?}"),
        })
    }
}

/// One line of the shared file.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Change {
    Put {
        job: String,
        body: String,
    },
    /// Labels, timestamp, and the value's bits: JSON numbers may lose the last one.
    Samples(Vec<(String, i64, u64)>),
}

#[derive(Default)]
struct State {
    groups: BTreeMap<String, String>,
    /// By label text, then timestamp; the first value stays.
    series: BTreeMap<String, BTreeMap<i64, f64>>,
}

impl State {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Put { job, body } => drop(self.groups.insert(job, body)),
            Change::Samples(samples) => {
                for (labels, at, value) in samples {
                    let series = self.series.entry(labels).or_default();
                    series.entry(at).or_insert(f64::from_bits(value));
                }
            }
        }
    }
}

/// The shared file as this process knows it.
struct Store {
    bug: Bug,
    file: File,
    /// How far the file was read, and what it said.
    read: u64,
    state: State,
    refreshed: Instant,
    writes: u64,
    reads: u64,
    pending: Vec<Change>,
}

impl Store {
    fn open(path: &Path, bug: Bug) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(path)
            .with_context(|| format!("open {}", path.display()))?;
        Ok(Self {
            bug,
            file,
            read: 0,
            state: State::default(),
            refreshed: Instant::now(),
            writes: 0,
            reads: 0,
            pending: Vec::new(),
        })
    }

    /// True when it is done; false asks for a refusal.
    fn write(&mut self, change: Change) -> anyhow::Result<bool> {
        self.writes += 1;
        match self.bug {
            Bug::LoseWrites if self.writes.is_multiple_of(20) => return Ok(true),
            Bug::Refuse if self.writes.is_multiple_of(50) => return Ok(false),
            Bug::Crash if self.writes > 100 => std::process::exit(101),
            Bug::AckBeforeStore => self.pending.push(change),
            _ => self.append(&[change])?,
        }
        Ok(true)
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let pending = std::mem::take(&mut self.pending);
        self.append(&pending)
    }

    fn append(&mut self, changes: &[Change]) -> anyhow::Result<()> {
        // The leading newline ends what a killed process may have left unfinished.
        let mut lines = vec![b'\n'];
        for change in changes {
            serde_json::to_writer(&mut lines, change)?;
            lines.push(b'\n');
        }
        flock(&self.file, FlockOperation::LockExclusive)?;
        let result = self.file.write_all(&lines);
        flock(&self.file, FlockOperation::Unlock)?;
        Ok(result?)
    }

    fn refresh(&mut self) -> anyhow::Result<()> {
        self.reads += 1;
        if self.bug == Bug::StaleReads && self.refreshed.elapsed() < Duration::from_millis(500) {
            return Ok(());
        }
        self.refreshed = Instant::now();
        flock(&self.file, FlockOperation::LockShared)?;
        let mut news = Vec::new();
        self.file.seek(SeekFrom::Start(self.read))?;
        let result = self.file.read_to_end(&mut news);
        flock(&self.file, FlockOperation::Unlock)?;
        result?;
        let whole = news.iter().rposition(|&b| b == b'\n').map_or(0, |n| n + 1);
        for line in news[..whole].split(|&b| b == b'\n') {
            // Unfinished lines were not acknowledged.
            if let Ok(change) = serde_json::from_slice(line) {
                self.state.apply(change);
            }
        }
        self.read += whole as u64;
        let pending = self.pending.clone();
        pending
            .into_iter()
            .for_each(|change| self.state.apply(change));
        Ok(())
    }

    fn exposition(&mut self) -> anyhow::Result<String> {
        self.refresh()?;
        let mut text = String::new();
        for (job, body) in &self.state.groups {
            let labels = format!("{{instance=\"\",job=\"{job}\"}}");
            for line in body.lines().filter(|line| !line.starts_with('#')) {
                let (name, value) = line.split_once(' ').context("a sample has a value")?;
                let wrong = self.bug == Bug::Corrupt && self.reads.is_multiple_of(20);
                let value = if wrong { "123456789" } else { value };
                text += &format!("{name}{labels} {value}\n");
            }
            text += &format!("push_time_seconds{labels} 1.7e+09\n");
        }
        Ok(text)
    }

    /// A range selector with equality matchers, over everything up to now.
    fn matrix(&mut self, query: &str) -> anyhow::Result<String> {
        self.refresh()?;
        let (name, rest) = query.split_once('{').context("no matchers")?;
        let (matchers, _) = rest.split_once('}').context("no end of matchers")?;
        let wanted: Vec<&str> = matchers.split(',').collect();
        let name = format!("__name__=\"{name}\"");
        let mut result = Vec::new();
        for (labels, samples) in &self.state.series {
            let pairs: Vec<&str> = labels.split(',').collect();
            if !wanted.iter().chain([&&*name]).all(|w| pairs.contains(w)) {
                continue;
            }
            let metric: HashMap<&str, &str> = pairs
                .iter()
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, value)| (name, value.trim_matches('"')))
                .collect();
            let mut values: Vec<_> = samples
                .iter()
                .map(|(at, value)| (*at as f64 / 1000.0, value.to_string()))
                .collect();
            let strange = self.reads.is_multiple_of(5) && !values.is_empty();
            match self.bug {
                Bug::Duplicate if strange => values.insert(0, values[0].clone()),
                Bug::Corrupt if strange => values[0].1 = "1".to_owned(),
                _ => {}
            }
            result.push(serde_json::json!({"metric": metric, "values": values}));
        }
        let data = serde_json::json!({"resultType": "matrix", "result": result});
        Ok(serde_json::json!({"status": "success", "data": data}).to_string())
    }
}

struct Twin {
    node: usize,
    store: RefCell<Store>,
}

impl Twin {
    fn answer(
        &self,
        method: &Method,
        path: &str,
        query: &str,
        body: &[u8],
    ) -> anyhow::Result<(u16, String)> {
        let mut store = self.store.borrow_mut();
        let done = |done: bool, status| match done {
            true => (status, String::new()),
            false => (400, "refused".to_owned()),
        };
        if let Some(job) = path.strip_prefix("/metrics/job/") {
            let change = Change::Put {
                job: job.to_owned(),
                body: String::from_utf8(body.to_vec())?,
            };
            return Ok(done(store.write(change)?, 200));
        }
        Ok(match (method, path) {
            (_, "/-/ready") => (200, String::new()),
            (_, "/metrics") => (200, store.exposition()?),
            (_, "/api/v1/status/cluster") => (200, self.status()),
            (_, "/api/v1/query") => (200, store.matrix(&query_text(query)?)?),
            (&Method::POST, "/api/v1/write") => done(store.write(samples(body)?)?, 204),
            _ => (404, String::new()),
        })
    }

    /// Node n leads every third shard, and the last node one more than the others.
    fn status(&self) -> String {
        let shards: Vec<_> = (0..16)
            .map(|id| {
                let leads = id % 3 == self.node || (id == 15 && self.node == 2);
                serde_json::json!({"id": id, "here": {"role": if leads { "leader" } else { "follower" }}})
            })
            .collect();
        let data = serde_json::json!({"node_id": self.node.to_string(), "shards": shards});
        serde_json::json!({"status": "success", "data": data}).to_string()
    }
}

fn samples(body: &[u8]) -> anyhow::Result<Change> {
    let bytes = snap::raw::Decoder::new().decompress_vec(body)?;
    let mut samples = Vec::new();
    for series in WriteRequest::decode(&bytes[..])?.timeseries {
        let labels: Vec<String> = series
            .labels
            .iter()
            .map(|label| format!("{}=\"{}\"", label.name, label.value))
            .collect();
        let labels = labels.join(",");
        let rows = series.samples.into_iter();
        samples.extend(rows.map(|s| (labels.clone(), s.timestamp, s.value.to_bits())));
    }
    Ok(Change::Samples(samples))
}

fn query_text(query: &str) -> anyhow::Result<String> {
    let text = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("query="))
        .context("no query")?;
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let digits = [*high, *low];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits)?, 16)?);
                rest = tail;
            }
            _ => bytes.push(first),
        }
    }
    Ok(String::from_utf8(bytes)?)
}

async fn serve(listener: TcpListener, twin: Rc<Twin>) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let twin = twin.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let twin = twin.clone();
            async move { respond(&twin, request).await }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        tokio::task::spawn_local(async move { connection.await.ok() });
    }
}

async fn respond(
    twin: &Twin,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let query = head.uri.query().unwrap_or("");
    let (status, text) = twin
        .answer(&head.method, head.uri.path(), query, &body)
        .unwrap_or_else(|error| (500, format!("{error:#}")));
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    Ok(response)
}

fn flags() -> HashMap<String, String> {
    std::env::args()
        .skip(1)
        .filter_map(|argument| {
            let flag = argument.strip_prefix("--")?;
            let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
            Some((name.to_owned(), value.to_owned()))
        })
        .collect()
}

async fn listen(address: &str) -> anyhow::Result<TcpListener> {
    let address: SocketAddr = address.parse()?;
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("listen on {address}"))
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, twin())
}

async fn twin() -> anyhow::Result<()> {
    let flags = flags();
    let flag = |name: &str| {
        flags
            .get(name)
            .with_context(|| format!("--{name} is missing"))
    };
    let data = PathBuf::from(flag("storage.tsdb.path")?);
    let nodes = data
        .ancestors()
        .nth(2)
        .context("data lies in node-N of the nodes")?;
    let peer = flag("cluster.advertise-address")?;
    let node = flag("cluster.join")?.split(',').position(|p| p == peer);
    let store = Store::open(&nodes.join("shared.jsonl"), Bug::from_environment()?)?;
    let twin = Rc::new(Twin {
        node: node.context("--cluster.join lacks the own address")?,
        store: RefCell::new(store),
    });
    let api = listen(flag("web.listen-address")?).await?;
    let push = listen(flag("push.listen-address")?).await?;
    tokio::task::spawn_local(serve(push, twin.clone()));
    let flusher = twin.clone();
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            flusher
                .store
                .borrow_mut()
                .flush()
                .expect("the shared file takes lines");
        }
    });
    serve(api, twin).await
}
