//! `federation`: what only several processes show of a tree.
//!
//! - [`since`]: `/federate?since=` over three nodes: what changed and nothing else, behind a change of
//!   leaders too, and in how many bytes
//! - [`tree`]: parents that refuse a loop, that scrape a real Prometheus, and that find a child by
//!   Consul

pub mod since;
pub mod tree;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use hyper::Method;
use model::Value;
use tokio::time::Instant;

use crate::cluster::{Cluster, Start, Target, all_ready};
use crate::differ::command::Find;
use crate::differ::data::{Point, Series};
use crate::differ::peers::{Folder, Programs};
use crate::differ::wire;
use crate::http::{Connection, Reply};

pub const USAGE: &str = "\
jepsen-tests federation [--prometheus PATH] [--consul PATH] [--bin PATH]
    deltas of /federate, loops, a child that is a Prometheus, a child by Consul; the last two where
    the programs are named (or PROMETHEUS_BIN, QUORATE_CONSUL)";

const READY: Duration = Duration::from_secs(60);
const REQUEST: Duration = Duration::from_secs(30);
/// Far above what any step takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs everything that can be run; an error is what does not hold.
pub fn federation(arguments: Vec<OsString>, quorate: Find) -> anyhow::Result<ExitCode> {
    let mut binary = None;
    let mut prometheus = std::env::var_os("PROMETHEUS_BIN").map(PathBuf::from);
    let mut consul = std::env::var_os("QUORATE_CONSUL").map(PathBuf::from);
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            lexopt::Arg::Long("bin") => binary = Some(parser.value()?.into()),
            lexopt::Arg::Long("prometheus") => prometheus = Some(parser.value()?.into()),
            lexopt::Arg::Long("consul") => consul = Some(parser.value()?.into()),
            other => bail!("{}\n{USAGE}", other.unexpected()),
        }
    }
    let (launcher, quorate) = quorate(binary)?;
    let programs = Programs {
        launcher,
        quorate,
        prometheus: prometheus.map(|path| path.canonicalize()).transpose()?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        println!("{}", since::run(&programs).await.context("since=")?);
        println!("{}", tree::loops(&programs).await.context("loops")?);
        match &programs.prometheus {
            Some(_) => println!(
                "{}",
                tree::prometheus(&programs).await.context("a Prometheus")?
            ),
            None => println!("SKIP: no Prometheus to be a child"),
        }
        match consul {
            Some(consul) => {
                let consul = consul.canonicalize()?;
                println!(
                    "{}",
                    tree::by_consul(&programs, consul).await.context("Consul")?
                );
            }
            None => println!("SKIP: no Consul to find a child by"),
        }
        println!("VALID");
        Ok(ExitCode::SUCCESS)
    })
}

/// A cluster, ready, in a folder that goes with it.
struct Up {
    cluster: Cluster,
    _folder: Folder,
}

impl Up {
    async fn start(programs: &Programs, nodes: usize, configuration: &str) -> anyhow::Result<Self> {
        let mut up = Self::prepare(programs, nodes, configuration)?;
        up.ready().await?;
        Ok(up)
    }

    /// Ports and files only.
    fn prepare(programs: &Programs, nodes: usize, configuration: &str) -> anyhow::Result<Self> {
        let folder = Folder::create("quorate-federation")?;
        let mut start = Start::new(programs.quorate.clone(), programs.launcher.clone());
        start.arguments = vec!["--cluster.shards=4".to_owned()];
        start.configuration = configuration.to_owned();
        let cluster = Cluster::prepare(&start, nodes, &folder.0)?;
        Ok(Self {
            cluster,
            _folder: folder,
        })
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        self.cluster.start_all()?;
        match all_ready(&self.cluster.targets(), READY).await {
            true => Ok(()),
            false => bail!("not ready:\n{}", self.cluster.last_words()),
        }
    }

    fn target(&self, n: usize) -> Target {
        self.cluster.targets()[n]
    }
}

/// Series of one metric with one sample each.
fn series(
    metric: &str,
    numbers: impl Iterator<Item = usize>,
    at_ms: i64,
    value: f64,
) -> Vec<Series> {
    let one = |n: usize| Series {
        labels: vec![
            ("__name__".to_owned(), metric.to_owned()),
            ("series".to_owned(), format!("{n:06}")),
        ],
        points: vec![Point {
            at_ms,
            value: Value::Float(value),
        }],
    };
    numbers.map(one).collect()
}

/// Writes until it is acknowledged: the same again is harmless.
async fn write(target: Target, series: &[Series]) -> anyhow::Result<()> {
    let body = wire::body(series)?;
    let end = Instant::now() + PATIENCE;
    loop {
        let sent = Connection::new(target.api)
            .send(
                Method::POST,
                "/api/v1/write",
                &wire::HEADERS,
                body.clone(),
                REQUEST,
            )
            .await;
        match sent {
            Reply::Answer {
                status: 200..=299, ..
            } => return Ok(()),
            other if Instant::now() > end => bail!("a write is not taken: {other:?}"),
            _ => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// The values of an instant query.
async fn query(target: Target, query: &str) -> anyhow::Result<Vec<f64>> {
    let escaped = crate::differ::question::escaped(query);
    let path = format!("/api/v1/query?query={escaped}");
    let body: Bytes = match Connection::new(target.api).get(&path, REQUEST).await {
        Reply::Answer { status: 200, body } => body,
        other => bail!("{query}: {other:?}"),
    };
    let answer: serde_json::Value = serde_json::from_slice(&body)?;
    let result = answer["data"]["result"].as_array().context("no result")?;
    let values = result.iter().map(|one| {
        let text = one["value"][1].as_str().context("no value")?;
        Ok(text.parse()?)
    });
    values.collect()
}

/// Asks again until the values are those.
async fn until(target: Target, asked: &str, expected: &[f64]) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let found = query(target, asked).await;
        match &found {
            Ok(values) if values == expected => return Ok(()),
            _ if Instant::now() > end => bail!("{asked} is {found:?}, not {expected:?}"),
            _ => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
