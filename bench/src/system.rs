//! The systems under measurement, each started fresh, each to be stopped cleanly before its disk
//! is counted.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use jepsen_tests::cluster::{Cluster, Start, Target, all_ready, free_ports};
use jepsen_tests::process::{Process, Program};
use serde::Serialize;

use crate::measure;
use crate::options::Options;

const READY_DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Quorate { nodes: usize },
    Prometheus,
}

impl Kind {
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        match text {
            "quorate-1" => Ok(Self::Quorate { nodes: 1 }),
            "quorate-3" => Ok(Self::Quorate { nodes: 3 }),
            "prometheus" => Ok(Self::Prometheus),
            _ => bail!("no system {text:?}; there are quorate-1, quorate-3, prometheus"),
        }
    }

    pub fn name(self) -> String {
        match self {
            Self::Quorate { nodes: 1 } => "quorate, 1 node".to_owned(),
            Self::Quorate { nodes } => format!("quorate, {nodes} nodes, RF={nodes}"),
            Self::Prometheus => "Prometheus".to_owned(),
        }
    }
}

/// A running system.
pub struct System {
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
    pub async fn start(options: &Options, kind: Kind, directory: &Path) -> anyhow::Result<Self> {
        let mut system = match kind {
            Kind::Quorate { nodes } => quorate(options, nodes, directory)?,
            Kind::Prometheus => prometheus(options, directory)?,
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

    /// Stops all processes by SIGTERM and counts what is on the disks then.
    pub async fn stop(mut self) -> anyhow::Result<u64> {
        for n in 0..self.len() {
            self.process(n).stop().await?;
        }
        self.data.iter().map(|data| measure::disk_bytes(data)).sum()
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

fn quorate(options: &Options, nodes: usize, directory: &Path) -> anyhow::Result<System> {
    let binary = options.quorate.clone().context("no quorate was named")?;
    let start = Start::new(binary, std::env::current_exe()?);
    let cluster = Cluster::prepare(&start, nodes, directory)?;
    Ok(System {
        targets: cluster.targets(),
        processes: Processes::Cluster(cluster),
        data: (0..nodes)
            .map(|n| directory.join(format!("node-{n}/data")))
            .collect(),
    })
}

fn prometheus(options: &Options, directory: &Path) -> anyhow::Result<System> {
    let binary = options
        .prometheus
        .clone()
        .context("no Prometheus was named")?;
    std::fs::create_dir_all(directory)?;
    let config = directory.join("prometheus.yml");
    std::fs::write(&config, "global:\n  scrape_interval: 15s\n")?;
    let port = free_ports(1)?
        .into_iter()
        .next()
        .context("one was asked for")?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let data = directory.join("data");
    let process = Process::new(Program {
        launcher: std::env::current_exe()?,
        binary,
        arguments: vec![
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", data.display()),
            format!("--web.listen-address={address}"),
            "--web.enable-remote-write-receiver".to_owned(),
        ],
        environment: Vec::new(),
        log: directory.join("log"),
    });
    Ok(System {
        targets: vec![Target {
            api: address,
            push: address,
        }],
        processes: Processes::One(Box::new(process)),
        data: vec![data],
    })
}
