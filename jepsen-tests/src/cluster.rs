//! Nodes of one cluster on this host: their ports, directories and flags, the faults done to them,
//! and what they say of themselves.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use tokio::time::Instant;

use crate::http::{Connection, Reply};
use crate::process::{Process, Program};

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
    /// This harness' own program, for [`crate::process::become_node`].
    pub launcher: PathBuf,
    /// Set for the nodes only.
    pub environment: Vec<(String, String)>,
    /// Flags of every node beside those it needs here.
    pub arguments: Vec<String>,
    /// Every node's configuration file.
    pub configuration: String,
}

impl Start {
    /// `binary` with no more than it needs.
    pub fn new(binary: PathBuf, launcher: PathBuf) -> Self {
        Self {
            binary,
            launcher,
            environment: Vec::new(),
            arguments: Vec::new(),
            // Workloads write a series from several clients at once.
            configuration: "global:\n  scrape_interval: 15s\nstorage:\n  tsdb:\n    \
                            out_of_order_time_window: 1h\n"
                .to_owned(),
        }
    }
}

/// Nodes on one host, each a process.
pub struct Cluster {
    nodes: Vec<Node>,
}

struct Node {
    target: Target,
    configuration: PathBuf,
    process: Process,
}

const PROBE_DEADLINE: Duration = Duration::from_millis(1_000);

impl Cluster {
    /// Chooses ports and lays out `directory/node-N`; starts nothing.
    pub fn prepare(start: &Start, nodes: usize, directory: &Path) -> anyhow::Result<Self> {
        let ports = free_ports(nodes * 3)?;
        let addresses: Vec<SocketAddr> = ports
            .into_iter()
            .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .collect();
        let peers: Vec<SocketAddr> = addresses.chunks_exact(3).map(|own| own[2]).collect();
        let nodes = addresses
            .chunks_exact(3)
            .enumerate()
            .map(|(n, own)| lay_out(start, own, &peers, &directory.join(format!("node-{n}"))))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { nodes })
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

    /// One node's process, to do something to it.
    pub fn process(&mut self, n: usize) -> &mut Process {
        &mut self.nodes[n].process
    }

    /// Replaces every node's configuration file, for its next start or reload.
    pub fn configure(&self, configuration: &str) -> anyhow::Result<()> {
        self.nodes.iter().try_for_each(|node| {
            let path = &node.configuration;
            std::fs::write(path, configuration).with_context(|| path.display().to_string())
        })
    }

    pub fn start_all(&mut self) -> anyhow::Result<()> {
        self.processes().try_for_each(Process::start)
    }

    /// SIGKILL to all before the first is waited for.
    pub fn kill_all(&mut self) -> anyhow::Result<()> {
        self.processes().try_for_each(Process::strike)?;
        self.processes().try_for_each(Process::kill)
    }

    /// Nodes that ended without being asked, with how.
    pub fn reap(&mut self) -> anyhow::Result<Vec<(usize, String)>> {
        let mut died = Vec::new();
        for (n, process) in self.processes().enumerate() {
            died.extend(process.reap()?.map(|status| (n, status)));
        }
        Ok(died)
    }

    /// Everything runs and nothing is paused.
    pub fn heal(&mut self) -> anyhow::Result<()> {
        self.processes().try_for_each(Process::heal)
    }

    /// The end of every node's log.
    pub fn last_words(&mut self) -> String {
        let words = self.processes().enumerate();
        let words = words.map(|(n, process)| format!("node {n}:\n  {}\n", process.last_words()));
        words.collect()
    }

    fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        self.nodes.iter_mut().map(|node| &mut node.process)
    }
}

fn lay_out(
    start: &Start,
    own: &[SocketAddr],
    peers: &[SocketAddr],
    directory: &Path,
) -> anyhow::Result<Node> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("create {}", directory.display()))?;
    let config = directory.join("prometheus.yml");
    std::fs::write(&config, &start.configuration)?;
    let join: Vec<String> = peers.iter().map(SocketAddr::to_string).collect();
    let flag = |name: &str, value: &dyn std::fmt::Display| format!("--{name}={value}");
    let mut arguments = vec![
        flag("storage.tsdb.path", &directory.join("data").display()),
        flag("config.file", &config.display()),
        flag("web.listen-address", &own[0]),
        flag("push.listen-address", &own[1]),
        flag("cluster.listen-address", &own[2]),
        flag("cluster.advertise-address", &own[2]),
        flag("cluster.join", &join.join(",")),
        flag("cluster.bootstrap-expect", &peers.len()),
        "--web.enable-lifecycle".to_owned(),
        "--web.enable-remote-write-receiver".to_owned(),
    ];
    arguments.extend(start.arguments.iter().cloned());
    Ok(Node {
        target: Target {
            api: own[0],
            push: own[1],
        },
        configuration: config,
        process: Process::new(Program {
            launcher: start.launcher.clone(),
            binary: start.binary.clone(),
            arguments,
            environment: start.environment.clone(),
            log: directory.join("log"),
        }),
    })
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
    /// The answering node's own part, if the shard has a replica there.
    here: Option<HereStatus>,
}

#[derive(Deserialize)]
struct HereStatus {
    role: String,
}

impl StatusAnswer {
    fn led(&self) -> usize {
        let shards = self.data.shards.iter();
        let roles = shards.filter_map(|shard| shard.here.as_ref());
        roles.filter(|here| here.role == "leader").count()
    }
}

/// Ports nobody holds, below the range the kernel gives to outgoing connections: a port from
/// inside it could be taken while its node is down. Each call goes on where the last one of this
/// process stopped, for the ports it gave are not bound yet.
pub fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leadership_is_read_from_the_status_answer() {
        let text = r#"{"status":"success","data":{"clusterId":"00","nodeId":"n17","members":[],
            "shards":[
            {"id":"s0","leader":"n17","replicas":["n17"],"here":{"role":"leader","term":1}},
            {"id":"s1","leader":null,"replicas":[],"here":{"role":"follower","term":1}},
            {"id":"s2","leader":"n18","replicas":["n18"],"here":null}],
            "meta":{"id":"meta","leader":"n18","replicas":[],"here":null}}}"#;
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
