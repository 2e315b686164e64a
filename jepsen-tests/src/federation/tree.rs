//! Trees of processes: one that would be a loop, a child that is a Prometheus, a child that Consul
//! knows.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use hyper::Method;
use tokio::time::Instant;

use super::{PATIENCE, REQUEST, Up, series, until, write};
use crate::client::wall_ms;
use crate::cluster::free_ports;
use crate::differ::peers::{Client, Folder, Programs, Prometheus};
use crate::http::{Connection, Reply};
use crate::process::{Process, Program};

/// A parent's configuration with one child.
fn parent(child: &str) -> String {
    format!("global: {{scrape_interval: 15s}}\nfederation:\n  children:\n    - {child}\n")
}

fn by_target(name: &str, address: SocketAddr, more: &str) -> String {
    parent(&format!(
        "{{name: {name}, targets: ['{address}'], match: ['{{__name__=~\"leaf.*\"}}'], \
         interval: 300ms{more}}}"
    ))
}

/// `high` reads `low`, and then `low` is told to read `high`: that is refused, since what `high` has
/// comes from `low`.
pub async fn loops(programs: &Programs) -> anyhow::Result<String> {
    let mut low = Up::start(programs, 1, "global: {}\n").await?;
    let (below, nodes) = (low.target(0), low.cluster.targets());
    write(below, &series("leaf", 0..20, wall_ms(), 7.0)).await?;
    let high = Up::start(programs, 1, &by_target("low", below.api, "")).await?;
    let above = high.target(0);
    until(above, "count(leaf{quorate_child=\"low\"})", &[20.0]).await?;

    low.cluster.configure(&by_target("high", above.api, ""))?;
    Client::new(below.api).order("/-/reload").await?;
    until(below, "up{job=\"federation\",instance=\"high\"}", &[0.0]).await?;
    // New samples are pulled up, and none comes down again.
    write(below, &series("leaf", 0..20, wall_ms(), 8.0)).await?;
    until(above, "count(leaf{quorate_child=\"low\"} == 8)", &[20.0]).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let again = super::query(below, "count(leaf{quorate_child!=\"\"})").await?;
    ensure!(again.is_empty(), "its own series came back: {again:?}");
    let log = std::fs::read_to_string(&low.cluster.process(0).program().log)?;
    let told = log.lines().find(|line| line.contains("a loop"));
    let told = told.context("the log does not tell of the loop")?;
    ensure!(
        told.contains("high"),
        "the log does not say which child: {told}"
    );

    // It is the sight of its own id that refuses, so it holds behind a restart of both.
    low.cluster.kill_all()?;
    low.ready().await?;
    ensure!(nodes == low.cluster.targets(), "the same addresses");
    until(below, "up{job=\"federation\",instance=\"high\"}", &[0.0]).await?;
    Ok("loops: a child that has our own series is refused, and the log says so".to_owned())
}

/// A child that is a real Prometheus.
pub async fn prometheus(programs: &Programs) -> anyhow::Result<String> {
    let child = Prometheus::start(programs).await?;
    let at = wall_ms();
    let mut client = Client::new(child.address);
    client.write(&series("leaf", 0..200, at, 4.0)).await?;
    client.write(&series("other", 0..10, at, 4.0)).await?;
    let config = by_target("old", child.address, ", kind: prometheus");
    let up = Up::start(programs, 1, &config).await?;
    let target = up.target(0);
    until(target, "count(leaf{quorate_child=\"old\"} == 4)", &[200.0]).await?;
    // It is scraped, as a job of its own.
    let up_now = "up{job=\"federation/old\"}";
    until(target, up_now, &[1.0]).await?;
    // Its own timestamps came along.
    let at = format!("max(timestamp(leaf)) * 1000 == bool {at}");
    until(target, &at, &[1.0]).await?;
    let others = super::query(target, "count(other)").await?;
    ensure!(others.is_empty(), "what no selector chose came too");
    client
        .write(&series("leaf", 0..200, wall_ms(), 5.0))
        .await?;
    until(target, "count(leaf == 5)", &[200.0]).await?;
    child.stop().await?;
    until(target, up_now, &[0.0]).await?;
    Ok("a Prometheus as a child: 200 series with their own times, up goes with it".to_owned())
}

/// A child whose nodes are a service of Consul.
pub async fn by_consul(programs: &Programs, binary: PathBuf) -> anyhow::Result<String> {
    let folder = Folder::create("quorate-consul")?;
    let ports = free_ports(3)?;
    let http = SocketAddr::from((Ipv4Addr::LOCALHOST, ports[0]));
    let mut agent = consul(programs, binary, &ports, &folder)?;
    agent.start()?;
    let child = Up::start(programs, 1, "global: {}\n").await?;
    register(http, "leaves", child.target(0).api).await?;
    write(child.target(0), &series("leaf", 0..30, wall_ms(), 1.0)).await?;
    let config = parent(&format!(
        "{{name: found, consul: {{server: '{http}', service: leaves}}, \
         match: ['{{__name__=\"leaf\"}}'], interval: 300ms}}"
    ));
    let up = Up::start(programs, 1, &config).await?;
    until(
        up.target(0),
        "count(leaf{quorate_child=\"found\"})",
        &[30.0],
    )
    .await?;
    // The service moves to another cluster: what it has comes too.
    let other = Up::start(programs, 1, "global: {}\n").await?;
    write(other.target(0), &series("leaf", 30..50, wall_ms(), 1.0)).await?;
    register(http, "leaves", other.target(0).api).await?;
    until(
        up.target(0),
        "count(leaf{quorate_child=\"found\"})",
        &[50.0],
    )
    .await?;
    agent.stop().await?;
    Ok("Consul: a child is found by its service, and followed when that moves".to_owned())
}

/// An agent that forgets everything when it ends.
fn consul(
    programs: &Programs,
    binary: PathBuf,
    ports: &[u16],
    folder: &Folder,
) -> anyhow::Result<Process> {
    let [http, server, lan] = ports else {
        bail!("three ports are needed");
    };
    Ok(Process::new(Program {
        launcher: programs.launcher.clone(),
        binary,
        arguments: vec![
            "agent".to_owned(),
            "-dev".to_owned(),
            "-bind=127.0.0.1".to_owned(),
            format!("-http-port={http}"),
            format!("-server-port={server}"),
            format!("-serf-lan-port={lan}"),
            "-grpc-port=-1".to_owned(),
            "-serf-wan-port=-1".to_owned(),
            "-dns-port=-1".to_owned(),
        ],
        environment: Vec::new(),
        log: folder.0.join("log"),
    }))
}

/// Puts the service where `at` is, as soon as the agent takes it.
async fn register(agent: SocketAddr, service: &str, at: SocketAddr) -> anyhow::Result<()> {
    let body = serde_json::json!({
        "Name": service, "ID": service, "Address": at.ip().to_string(), "Port": at.port(),
    });
    let body = Bytes::from(body.to_string());
    let end = Instant::now() + PATIENCE;
    loop {
        let path = "/v1/agent/service/register";
        let sent = Connection::new(agent)
            .send(Method::PUT, path, &[], body.clone(), REQUEST)
            .await;
        match sent {
            Reply::Answer { status: 200, .. } => return Ok(()),
            other if Instant::now() > end => bail!("the agent takes no service: {other:?}"),
            _ => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
