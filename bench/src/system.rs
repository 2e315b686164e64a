//! The systems under measurement, each started fresh, each to be stopped cleanly before its disk
//! is counted.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use jepsen_tests::cluster::{Cluster, Start, Target, all_ready, free_ports};
use jepsen_tests::http::{Connection, Reply};
use jepsen_tests::process::{Process, Program};
use serde::Serialize;

use crate::measure;

/// Pushgateway's flag that leaves out its check against other groups.
const UNCHECKED: &str = "--push.disable-consistency-check";

const READY_DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Quorate { nodes: usize },
    Prometheus,
    VictoriaMetrics,
    Pushgateway,
}

/// Where the systems' programs are.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    pub quorate: Option<PathBuf>,
    pub prometheus: Option<PathBuf>,
    pub victoria: Option<PathBuf>,
    pub pushgateway: Option<PathBuf>,
}

impl Kind {
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        match text {
            "quorate-1" => Ok(Self::Quorate { nodes: 1 }),
            "quorate-3" => Ok(Self::Quorate { nodes: 3 }),
            "prometheus" => Ok(Self::Prometheus),
            "victoria-metrics" => Ok(Self::VictoriaMetrics),
            "pushgateway" => Ok(Self::Pushgateway),
            _ => bail!(
                "no system {text:?}; there are quorate-1, quorate-3, prometheus, victoria-metrics, \
                 pushgateway"
            ),
        }
    }

    /// Its data directories, if it is started below `directory`.
    pub fn data_below(self, directory: &Path) -> Vec<PathBuf> {
        match self {
            Self::Quorate { nodes } => {
                let data = |n| directory.join(format!("node-{n}/data"));
                (0..nodes).map(data).collect()
            }
            _ => vec![directory.join("data")],
        }
    }

    pub fn name(self) -> String {
        match self {
            Self::Quorate { nodes: 1 } => "quorate, 1 node".to_owned(),
            Self::Quorate { nodes } => format!("quorate, {nodes} nodes, RF={nodes}"),
            Self::Prometheus => "Prometheus".to_owned(),
            Self::VictoriaMetrics => "VictoriaMetrics".to_owned(),
            Self::Pushgateway => "Pushgateway".to_owned(),
        }
    }
}

/// A running system.
pub struct System {
    kind: Kind,
    targets: Vec<Target>,
    processes: Processes,
    data: Vec<PathBuf>,
}

enum Processes {
    Cluster(Cluster),
    One(Box<Process>),
}

impl System {
    /// Starts it with its data below `directory` and waits until it is ready.
    pub async fn start(programs: &Programs, kind: Kind, directory: &Path) -> anyhow::Result<Self> {
        let mut system = match kind {
            Kind::Quorate { nodes } => quorate(programs, nodes, directory)?,
            Kind::Prometheus => prometheus(programs, directory)?,
            Kind::VictoriaMetrics => victoria(programs, directory)?,
            Kind::Pushgateway => pushgateway(programs, directory)?,
        };
        for n in 0..system.len() {
            system.process(n).start()?;
        }
        if !all_ready(&system.targets, READY_DEADLINE).await {
            let words = system.process(0).last_words();
            bail!("not ready after {READY_DEADLINE:?}; its last words:\n  {words}");
        }
        Ok(system)
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Makes what was written visible where that takes an extra step.
    pub async fn flush(&self) -> anyhow::Result<()> {
        self.ask_victoria("/internal/force_flush").await
    }

    /// Makes few files of many where that is only done when asked for.
    pub async fn merge(&self) -> anyhow::Result<()> {
        self.ask_victoria("/internal/force_merge").await
    }

    /// What the others do by themselves.
    async fn ask_victoria(&self, path: &str) -> anyhow::Result<()> {
        if self.kind != Kind::VictoriaMetrics {
            return Ok(());
        }
        let mut connection = Connection::new(self.targets[0].api);
        match connection.get(path, READY_DEADLINE).await {
            Reply::Answer { status: 200, .. } => Ok(()),
            other => bail!("{path}: {other:?}"),
        }
    }

    /// Pushgateway is filled without its check, which looks at all that is stored, and started again
    /// with it. Others check from the first push on.
    pub async fn begin_checking(&mut self) -> anyhow::Result<()> {
        if self.kind != Kind::Pushgateway {
            return Ok(());
        }
        self.process(0).stop().await?;
        let Processes::One(process) = &mut self.processes else {
            unreachable!("a Pushgateway is one process");
        };
        let mut program = process.program().clone();
        program.arguments.retain(|flag| flag != UNCHECKED);
        **process = Process::new(program);
        process.start()?;
        match all_ready(&self.targets, READY_DEADLINE).await {
            true => Ok(()),
            false => bail!("not ready with its check"),
        }
    }

    /// From now on the peak begins at what is resident now.
    pub fn forget_peak_memory(&mut self) -> anyhow::Result<()> {
        self.pids()?
            .into_iter()
            .try_for_each(measure::forget_peak_memory)
    }

    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// CPU seconds of all its processes since they began.
    pub fn cpu_seconds(&mut self) -> anyhow::Result<f64> {
        self.pids()?.into_iter().map(measure::cpu_seconds).sum()
    }

    /// The sum of its processes' peaks.
    pub fn peak_memory_bytes(&mut self) -> anyhow::Result<u64> {
        let pids = self.pids()?.into_iter();
        pids.map(measure::peak_memory_bytes).sum()
    }

    /// What its processes have resident.
    pub fn memory_bytes(&mut self) -> anyhow::Result<u64> {
        self.pids()?.into_iter().map(measure::memory_bytes).sum()
    }

    /// Bytes that its processes caused to be written since they began.
    pub fn written_bytes(&mut self) -> anyhow::Result<u64> {
        self.pids()?.into_iter().map(measure::written_bytes).sum()
    }

    /// SIGKILL to all processes at once.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        for n in 0..self.len() {
            self.process(n).strike()?;
        }
        (0..self.len()).try_for_each(|n| self.process(n).kill())
    }

    /// Starts what was killed, and does not wait until it is ready.
    pub fn begin(&mut self) -> anyhow::Result<()> {
        (0..self.len()).try_for_each(|n| self.process(n).start())
    }

    /// Stops all processes by SIGTERM and counts what is on the disks then.
    pub async fn stop(mut self) -> anyhow::Result<u64> {
        for n in 0..self.len() {
            self.process(n).stop().await?;
        }
        let data = self.data.iter();
        data.map(|data| measure::disk_bytes(data, &[])).sum()
    }

    /// What is on its disks beside the log in which samples are until they are compacted.
    pub fn compacted_bytes(&self) -> anyhow::Result<u64> {
        let logs: &[&str] = match self.kind {
            Kind::Quorate { .. } => &["log"],
            Kind::Prometheus => &["wal", "wbl", "chunks_head"],
            Kind::VictoriaMetrics | Kind::Pushgateway => &[],
        };
        let data = self.data.iter();
        data.map(|data| measure::disk_bytes(data, logs)).sum()
    }

    fn pids(&mut self) -> anyhow::Result<Vec<u32>> {
        let mut pids = Vec::new();
        for n in 0..self.len() {
            let process = self.process(n);
            let pid = process.pid().context("it was not started")?;
            if let Some(status) = process.reap()? {
                bail!("it ended by itself, {status}:\n  {}", process.last_words());
            }
            pids.push(pid);
        }
        Ok(pids)
    }

    fn len(&self) -> usize {
        self.targets.len()
    }

    fn process(&mut self, n: usize) -> &mut Process {
        match &mut self.processes {
            Processes::Cluster(cluster) => cluster.process(n),
            Processes::One(process) => process,
        }
    }
}

fn quorate(programs: &Programs, nodes: usize, directory: &Path) -> anyhow::Result<System> {
    let binary = programs.quorate.clone().context("no quorate was named")?;
    let start = Start::new(binary, std::env::current_exe()?);
    let cluster = Cluster::prepare(&start, nodes, directory)?;
    Ok(System {
        kind: Kind::Quorate { nodes },
        targets: cluster.targets(),
        processes: Processes::Cluster(cluster),
        data: Kind::Quorate { nodes }.data_below(directory),
    })
}

fn prometheus(programs: &Programs, directory: &Path) -> anyhow::Result<System> {
    let binary = programs.prometheus.clone();
    let binary = binary.context("no Prometheus was named")?;
    std::fs::create_dir_all(directory)?;
    let config = directory.join("prometheus.yml");
    std::fs::write(&config, "global:\n  scrape_interval: 15s\n")?;
    one(Kind::Prometheus, binary, directory, |address, data| {
        vec![
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", data.display()),
            format!("--web.listen-address={address}"),
            "--web.enable-remote-write-receiver".to_owned(),
        ]
    })
}

fn victoria(programs: &Programs, directory: &Path) -> anyhow::Result<System> {
    let binary = programs.victoria.clone();
    let binary = binary.context("no VictoriaMetrics was named")?;
    std::fs::create_dir_all(directory)?;
    one(Kind::VictoriaMetrics, binary, directory, |address, data| {
        vec![
            format!("-storageDataPath={}", data.display()),
            format!("-httpListenAddr={address}"),
            "-search.disableCache".to_owned(),
            "-search.latencyOffset=0s".to_owned(),
            "-retentionPeriod=100y".to_owned(),
        ]
    })
}

/// It keeps its groups in a file, so that it can be started again with them.
fn pushgateway(programs: &Programs, directory: &Path) -> anyhow::Result<System> {
    let binary = programs.pushgateway.clone();
    let binary = binary.context("no Pushgateway was named")?;
    std::fs::create_dir_all(directory.join("data"))?;
    one(Kind::Pushgateway, binary, directory, |address, data| {
        vec![
            format!("--web.listen-address={address}"),
            format!("--persistence.file={}", data.join("groups").display()),
            UNCHECKED.to_owned(),
        ]
    })
}

/// A system of one process.
fn one(
    kind: Kind,
    binary: PathBuf,
    directory: &Path,
    arguments: impl Fn(SocketAddr, &Path) -> Vec<String>,
) -> anyhow::Result<System> {
    let port = free_ports(1)?.into_iter().next();
    let port = port.context("one was asked for")?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let data = directory.join("data");
    let process = Process::new(Program {
        launcher: std::env::current_exe()?,
        binary,
        arguments: arguments(address, &data),
        environment: Vec::new(),
        log: directory.join("log"),
    });
    Ok(System {
        kind,
        targets: vec![Target {
            api: address,
            push: address,
        }],
        processes: Processes::One(Box::new(process)),
        data: vec![data],
    })
}
