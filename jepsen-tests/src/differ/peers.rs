//! The servers that are asked: started fresh in a folder of their own, loaded, asked, ended.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use hyper::Method;

use super::answer::Answer;
use super::call::Call;
use super::data::{Series, WINDOW};
use super::question::Asked;
use super::{shapes, wire};
use crate::cluster::{Cluster, Start, Target, all_ready, free_ports};
use crate::http::{Connection, Reply};
use crate::process::{Process, Program};
use crate::splitmix::SplitMix64;

const READY_DEADLINE: Duration = Duration::from_secs(60);
const REQUEST_DEADLINE: Duration = Duration::from_secs(60);

/// What both must have switched on so that every feature can be asked for.
const FEATURES: &str = "--enable-feature=native-histograms,promql-experimental-functions,\
                        promql-duration-expr,exemplar-storage,metadata-wal-records";

fn configuration() -> String {
    format!(
        "global:\n  scrape_interval: 15s\nstorage:\n  tsdb:\n    out_of_order_time_window: {WINDOW}\n"
    )
}

/// The programs a run needs.
#[derive(Debug, Clone)]
pub struct Programs {
    pub launcher: PathBuf,
    pub quorate: PathBuf,
    /// Only the differential tester needs one.
    pub prometheus: Option<PathBuf>,
}

/// A folder that goes when it is dropped.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn create(name: &str) -> anyhow::Result<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("{name}-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("jepsen-tests: remove {}: {error}", self.0.display());
        }
    }
}

/// Nodes of one quorate.
pub struct Quorate {
    pub cluster: Cluster,
    pub folder: Folder,
}

impl Quorate {
    /// Started and ready.
    pub async fn start(programs: &Programs, nodes: usize, shards: u32) -> anyhow::Result<Self> {
        Self::start_with(programs, nodes, shards, &[]).await
    }

    /// With more flags.
    pub async fn start_with(
        programs: &Programs,
        nodes: usize,
        shards: u32,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let folder = Folder::create("quorate-differ")?;
        let mut start = Start::new(programs.quorate.clone(), programs.launcher.clone());
        start.configuration = configuration();
        start.arguments = vec![
            FEATURES.to_owned(),
            "--storage.tsdb.retention.time=100y".to_owned(),
            format!("--cluster.shards={shards}"),
            "--web.enable-admin-api".to_owned(),
        ];
        start
            .arguments
            .extend(flags.iter().map(|flag| (*flag).to_owned()));
        let cluster = Cluster::prepare(&start, nodes, &folder.0)?;
        let mut quorate = Self { cluster, folder };
        quorate.cluster.start_all()?;
        quorate.ready().await?;
        Ok(quorate)
    }

    /// Whether a node stores native histograms: some are sent to it.
    pub async fn takes_natives(programs: &Programs) -> anyhow::Result<bool> {
        let quorate = Self::start(programs, 1, 1).await?;
        let address = *quorate.addresses().first().context("one node")?;
        let mut series = shapes::natives(&mut SplitMix64::new(1));
        series.iter_mut().for_each(|s| s.points.truncate(3));
        match Client::new(address).write(&series).await {
            Ok(()) => Ok(true),
            Err(error) if error.to_string().contains("not supported") => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub async fn ready(&mut self) -> anyhow::Result<()> {
        if !all_ready(&self.cluster.targets(), READY_DEADLINE).await {
            bail!("quorate is not ready:\n{}", self.cluster.last_words());
        }
        Ok(())
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.cluster.targets().iter().map(|t| t.api).collect()
    }
}

/// One Prometheus.
pub struct Prometheus {
    pub address: SocketAddr,
    process: Process,
    folder: Folder,
}

impl Prometheus {
    /// Started and ready.
    pub async fn start(programs: &Programs) -> anyhow::Result<Self> {
        Self::start_in(programs, Folder::create("prometheus-differ")?).await
    }

    /// On what [`Prometheus::data`] of the folder holds.
    pub async fn start_in(programs: &Programs, folder: Folder) -> anyhow::Result<Self> {
        let binary = programs
            .prometheus
            .clone()
            .context("no Prometheus was named")?;
        let port = *free_ports(1)?.first().context("one was asked for")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut process = Process::new(program(programs, binary, address, &folder.0)?);
        process.start()?;
        let target = Target {
            api: address,
            push: address,
        };
        if !all_ready(&[target], READY_DEADLINE).await {
            bail!("Prometheus is not ready:\n  {}", process.last_words());
        }
        Ok(Self {
            address,
            process,
            folder,
        })
    }

    /// Its data directory in a folder.
    pub fn data(folder: &Folder) -> PathBuf {
        folder.0.join("data")
    }

    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Ends it; its folder stays.
    pub async fn stop(mut self) -> anyhow::Result<Folder> {
        self.process.stop().await?;
        Ok(self.folder)
    }

    pub fn last_words(&self) -> String {
        self.process.last_words()
    }
}

fn program(
    programs: &Programs,
    binary: PathBuf,
    address: SocketAddr,
    folder: &Path,
) -> anyhow::Result<Program> {
    let config = folder.join("prometheus.yml");
    std::fs::write(&config, configuration())?;
    Ok(Program {
        launcher: programs.launcher.clone(),
        binary,
        arguments: vec![
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", folder.join("data").display()),
            format!("--web.listen-address={address}"),
            "--storage.tsdb.retention.time=100y".to_owned(),
            "--web.enable-remote-write-receiver".to_owned(),
            "--web.enable-admin-api".to_owned(),
            FEATURES.to_owned(),
        ],
        environment: Vec::new(),
        log: folder.join("log"),
    })
}

/// One connection to one server.
pub struct Client(Connection);

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self(Connection::new(address))
    }

    /// Stores everything, slice after slice.
    pub async fn load(&mut self, slices: &[Vec<Series>]) -> anyhow::Result<()> {
        for slice in slices {
            self.write(slice).await?;
        }
        Ok(())
    }

    pub async fn write(&mut self, series: &[Series]) -> anyhow::Result<()> {
        self.write_as_is(wire::body(series)?).await
    }

    /// A request of remote write 2.0, compressed already.
    pub async fn write_v2(&mut self, body: bytes::Bytes) -> anyhow::Result<()> {
        self.write_body(&wire::HEADERS_V2, body).await
    }

    /// A request of remote write 1.0, compressed already.
    pub async fn write_as_is(&mut self, body: bytes::Bytes) -> anyhow::Result<()> {
        self.write_body(&wire::HEADERS, body).await
    }

    async fn write_body(
        &mut self,
        headers: &[(&str, &str)],
        body: bytes::Bytes,
    ) -> anyhow::Result<()> {
        for _ in 0..20 {
            let path = "/api/v1/write";
            let body = body.clone();
            let sent = self
                .0
                .send(Method::POST, path, headers, body, REQUEST_DEADLINE);
            match sent.await {
                Reply::Answer {
                    status: 200..=299, ..
                } => return Ok(()),
                Reply::Answer { status, body } if status < 500 && status != 429 => {
                    bail!(
                        "write refused with {status}: {}",
                        String::from_utf8_lossy(&body)
                    )
                }
                _ => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
        bail!("a write is not taken")
    }

    /// What there is.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<bytes::Bytes> {
        match self.0.get(path, REQUEST_DEADLINE).await {
            Reply::Answer { status: 200, body } => Ok(body),
            other => bail!("{path}: {other:?}"),
        }
    }

    /// The answer's status and bytes.
    pub async fn call(&mut self, call: &Call) -> anyhow::Result<(u16, bytes::Bytes)> {
        let (method, path) = (call.method.clone(), &call.path);
        let sent = self.0.send(
            method,
            path,
            call.headers,
            call.body.clone(),
            REQUEST_DEADLINE,
        );
        match sent.await {
            Reply::Answer { status, body } => Ok((status, body)),
            Reply::NotSent(why) | Reply::Lost(why) => bail!("{why}: {}", call.line),
        }
    }

    /// One value of a server's own metrics.
    pub async fn metric(&mut self, name: &str) -> anyhow::Result<f64> {
        let page = self.get("/metrics").await?;
        let page = String::from_utf8_lossy(&page);
        let mut values = page.lines().filter_map(|line| line.strip_prefix(name));
        let value = values.find_map(|rest| rest.strip_prefix(' '));
        let value = value.with_context(|| format!("no {name} on /metrics"))?;
        value.parse().with_context(|| format!("{name} is {value}"))
    }

    /// The answer's status and bytes.
    pub async fn ask(&mut self, asked: &Asked) -> anyhow::Result<(u16, bytes::Bytes)> {
        const FORM: [(&str, &str); 1] = [("content-type", "application/x-www-form-urlencoded")];
        let (path, form) = asked.request();
        let sent = self
            .0
            .send(Method::POST, path, &FORM, form, REQUEST_DEADLINE);
        match sent.await {
            Reply::Answer { status, body } => Ok((status, body)),
            Reply::NotSent(why) | Reply::Lost(why) => bail!("{why}: {}", asked.line()),
        }
    }

    /// POSTs to the API without a body; its answer must be a success.
    pub async fn order(&mut self, path: &str) -> anyhow::Result<bytes::Bytes> {
        let body = bytes::Bytes::new();
        let sent = self.0.send(Method::POST, path, &[], body, REQUEST_DEADLINE);
        match sent.await {
            Reply::Answer {
                status: 200..=299,
                body,
            } => Ok(body),
            other => bail!("{path}: {other:?}"),
        }
    }

    pub async fn answer(&mut self, asked: &Asked) -> anyhow::Result<Answer> {
        let (status, body) = self.ask(asked).await?;
        Answer::read(status, &body).with_context(|| asked.line())
    }
}
