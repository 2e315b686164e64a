//! The processes under test: started, killed, paused, and never left behind.
//!
//! Signals go to recorded children only. Each child is started through a launcher
//! ([`become_node`]) that asks the kernel to kill it when the harness dies, whatever the harness
//! dies of; dropping [`Cluster`] kills those still alive.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use serde::Deserialize;
use tokio::time::Instant;

use crate::http::{Connection, Reply};

/// Where a node answers: Prometheus' API and Pushgateway's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub api: SocketAddr,
    pub push: SocketAddr,
}

/// How to start a node.
#[derive(Debug, Clone)]
pub struct Start {
    pub binary: PathBuf,
    /// This harness' own program, for [`become_node`].
    pub launcher: PathBuf,
    /// Set for the nodes only.
    pub environment: Vec<(String, String)>,
}

/// Nodes on one host, each a process.
pub struct Cluster {
    start: Start,
    nodes: Vec<Node>,
}

struct Node {
    target: Target,
    peer: SocketAddr,
    directory: PathBuf,
    child: Option<Child>,
    paused: bool,
}

const STOP_DEADLINE: Duration = Duration::from_secs(15);
const PROBE_DEADLINE: Duration = Duration::from_millis(1_000);

impl Cluster {
    /// Chooses ports and lays out `directory/node-N`; starts nothing.
    pub fn prepare(start: Start, nodes: usize, directory: &Path) -> anyhow::Result<Self> {
        let mut ports = free_ports(nodes * 3)?.into_iter();
        let mut address = || {
            let port = ports.next().context("ports were counted")?;
            anyhow::Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        };
        let mut laid_out = Vec::new();
        for n in 0..nodes {
            let directory = directory.join(format!("node-{n}"));
            std::fs::create_dir_all(&directory)
                .with_context(|| format!("create {}", directory.display()))?;
            let config = "global:\n  scrape_interval: 15s\n";
            std::fs::write(directory.join("prometheus.yml"), config)?;
            laid_out.push(Node {
                target: Target {
                    api: address()?,
                    push: address()?,
                },
                peer: address()?,
                directory,
                child: None,
                paused: false,
            });
        }
        Ok(Self {
            start,
            nodes: laid_out,
        })
    }

    pub fn targets(&self) -> Vec<Target> {
        self.nodes.iter().map(|node| node.target).collect()
    }

    /// How many nodes there are, running or not.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn pid(&self, n: usize) -> Option<u32> {
        self.nodes[n].child.as_ref().map(Child::id)
    }

    pub fn log_path(&self, n: usize) -> PathBuf {
        self.nodes[n].directory.join("log")
    }

    pub fn start_all(&mut self) -> anyhow::Result<()> {
        (0..self.nodes.len()).try_for_each(|n| self.start(n))
    }

    /// Starts node `n` unless it runs.
    pub fn start(&mut self, n: usize) -> anyhow::Result<()> {
        if self.nodes[n].child.is_some() {
            return Ok(());
        }
        let arguments = self.arguments(n);
        let node = &mut self.nodes[n];
        let log = open_log(&node.directory.join("log"))?;
        let child = Command::new(&self.start.launcher)
            .arg("become-node")
            .arg(&self.start.binary)
            .args(arguments)
            .envs(self.start.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", self.start.launcher.display()))?;
        node.child = Some(child);
        node.paused = false;
        Ok(())
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self, n: usize) -> anyhow::Result<()> {
        let node = &mut self.nodes[n];
        if let Some(mut child) = node.child.take() {
            child.kill()?;
            child.wait()?;
        }
        node.paused = false;
        Ok(())
    }

    /// SIGKILL to all before the first is waited for.
    pub fn kill_all(&mut self) -> anyhow::Result<()> {
        for child in self.nodes.iter_mut().filter_map(|n| n.child.as_mut()) {
            child.kill()?;
        }
        (0..self.nodes.len()).try_for_each(|n| self.kill(n))
    }

    /// SIGTERM, then waits; a node that does not end is killed, and that is an error.
    pub async fn stop(&mut self, n: usize) -> anyhow::Result<()> {
        self.signal(n, Signal::TERM)?;
        let deadline = Instant::now() + STOP_DEADLINE;
        let node = &mut self.nodes[n];
        while let Some(child) = &mut node.child {
            if child.try_wait()?.is_some() {
                node.child = None;
            } else if Instant::now() > deadline {
                self.kill(n)?;
                bail!("node {n} did not stop within {STOP_DEADLINE:?} of SIGTERM");
            } else {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }

    pub fn pause(&mut self, n: usize) -> anyhow::Result<()> {
        self.signal(n, Signal::STOP)?;
        self.nodes[n].paused = true;
        Ok(())
    }

    pub fn resume(&mut self, n: usize) -> anyhow::Result<()> {
        self.signal(n, Signal::CONT)?;
        self.nodes[n].paused = false;
        Ok(())
    }

    /// Nodes that ended without being asked, with how; they count as stopped from now on.
    pub fn reap(&mut self) -> anyhow::Result<Vec<(usize, String)>> {
        let mut died = Vec::new();
        for (n, node) in self.nodes.iter_mut().enumerate() {
            let Some(child) = &mut node.child else {
                continue;
            };
            if let Some(status) = child.try_wait()? {
                node.child = None;
                died.push((n, status.to_string()));
            }
        }
        Ok(died)
    }

    /// Everything runs and nothing is paused.
    pub fn heal(&mut self) -> anyhow::Result<()> {
        for n in 0..self.nodes.len() {
            if self.nodes[n].paused {
                self.resume(n)?;
            }
            self.start(n)?;
        }
        Ok(())
    }

    fn signal(&self, n: usize, signal: Signal) -> anyhow::Result<()> {
        match &self.nodes[n].child {
            Some(child) => Ok(kill_process(Pid::from_child(child), signal)?),
            None => bail!("node {n} does not run"),
        }
    }

    fn arguments(&self, n: usize) -> Vec<String> {
        let node = &self.nodes[n];
        let join: Vec<String> = self.nodes.iter().map(|n| n.peer.to_string()).collect();
        let flag = |name: &str, value: &dyn std::fmt::Display| format!("--{name}={value}");
        vec![
            flag("storage.tsdb.path", &node.directory.join("data").display()),
            flag(
                "config.file",
                &node.directory.join("prometheus.yml").display(),
            ),
            flag("web.listen-address", &node.target.api),
            flag("push.listen-address", &node.target.push),
            flag("cluster.listen-address", &node.peer),
            flag("cluster.advertise-address", &node.peer),
            flag("cluster.join", &join.join(",")),
            flag("cluster.bootstrap-expect", &self.nodes.len()),
            "--web.enable-lifecycle".to_owned(),
            "--web.enable-remote-write-receiver".to_owned(),
        ]
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                // Already gone is as good; there is nobody to tell in a drop.
                child.kill().ok();
                child.wait().ok();
            }
        }
    }
}

/// Turns this process into `command`, to be killed by the kernel when its parent dies.
/// Returns only if that failed.
pub fn become_node(command: &[std::ffi::OsString]) -> anyhow::Error {
    let Some((binary, arguments)) = command.split_first() else {
        return anyhow::anyhow!("become-node needs a program");
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return anyhow::anyhow!("tie the node's life to the harness: {error}");
    }
    let error = Command::new(binary).args(arguments).exec();
    anyhow::anyhow!("run {}: {error}", binary.display())
}

/// Waits until every target answers 200 on `/-/ready`; false when `deadline` passes first.
pub async fn all_ready(targets: &[Target], deadline: Duration) -> bool {
    let end = Instant::now() + deadline;
    loop {
        let probes = targets.iter().map(|target| is_ready(*target));
        if futures::future::join_all(probes).await.iter().all(|&r| r) {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn is_ready(target: Target) -> bool {
    let mut connection = Connection::new(target.api);
    let reply = connection.get("/-/ready", PROBE_DEADLINE).await;
    matches!(reply, Reply::Answer { status: 200, .. })
}

/// The node that says of itself to lead the most shards, if any does.
pub async fn most_leading(targets: &[Target]) -> Option<usize> {
    let counts = futures::future::join_all(targets.iter().map(|t| shards_led(*t))).await;
    let (n, led) = counts
        .iter()
        .enumerate()
        .max_by_key(|(n, led)| (**led, std::cmp::Reverse(*n)))?;
    (*led > 0).then_some(n)
}

async fn shards_led(target: Target) -> usize {
    let mut connection = Connection::new(target.api);
    let reply = connection
        .get("/api/v1/status/cluster", PROBE_DEADLINE)
        .await;
    let Reply::Answer { status: 200, body } = reply else {
        return 0;
    };
    match serde_json::from_slice::<StatusAnswer>(&body) {
        Ok(answer) => answer.led(),
        Err(_) => 0,
    }
}

#[derive(Deserialize)]
struct StatusAnswer {
    data: ClusterStatus,
}

#[derive(Deserialize)]
struct ClusterStatus {
    shards: Vec<ShardStatus>,
}

#[derive(Deserialize)]
struct ShardStatus {
    role: String,
}

impl StatusAnswer {
    fn led(&self) -> usize {
        let shards = self.data.shards.iter();
        shards.filter(|shard| shard.role == "leader").count()
    }
}

/// Ports nobody holds, below the range the kernel gives to outgoing connections: a port from
/// inside it could be taken while its node is down. Each call goes on where the last one of this
/// process stopped, for the ports it gave are not bound yet.
fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 20_000;
    let end = ephemeral_start().clamp(FIRST + 1_000, 60_000);
    let width = end - FIRST;
    let offset = std::process::id().wrapping_mul(97);
    let mut ports = Vec::new();
    for _ in 0..width {
        let step = TRIED.fetch_add(1, Ordering::Relaxed);
        let port = (FIRST + offset.wrapping_add(step) % width) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            ports.push(port);
        }
        if ports.len() == count {
            return Ok(ports);
        }
    }
    bail!("no {count} free ports between {FIRST} and {end}")
}

fn ephemeral_start() -> u32 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(32_768)
}

fn open_log(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leadership_is_read_from_the_status_answer() {
        let text = r#"{"status":"success","data":{"cluster_id":"00","node_id":"17","members":[],
            "shards":[{"id":0,"leader":"17","replicas":["17","18","19"],"role":"leader","term":1,
            "last_log":10,"applied":10},{"id":1,"leader":null,"replicas":[],"role":"follower",
            "term":1,"last_log":10,"applied":10}],"meta":{"id":0,"leader":"18","replicas":[],
            "role":"follower","term":1,"last_log":1,"applied":1}}}"#;
        assert_eq!(serde_json::from_str::<StatusAnswer>(text).unwrap().led(), 1);
    }

    #[test]
    fn ports_are_distinct_and_not_for_outgoing_connections() {
        let ports = free_ports(9).unwrap();
        let distinct: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(distinct.len(), 9);
        assert!(ports.iter().all(|p| u32::from(*p) < ephemeral_start()));
    }
}
