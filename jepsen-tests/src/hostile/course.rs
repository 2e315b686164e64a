//! Senders that share a target of pushes, and the checks between them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, ensure};
use bytes::Bytes;
use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

use super::shot::{Port, Shot, shot};
use super::{Settings, page, readers};
use crate::client::wall_ms;
use crate::cluster::{Cluster, Start, Target, all_ready, free_ports};
use crate::differ::peers::Folder;
use crate::http::{Connection, Reply};
use crate::splitmix::SplitMix64;

const READY: Duration = Duration::from_secs(60);
/// For a bomb in a debug build, behind two others.
const REQUEST: Duration = Duration::from_secs(180);
/// For bytes that may be no request.
const GARBAGE: Duration = Duration::from_millis(300);
const CHECKS: u64 = 12;
const PROBLEMS_MAX: usize = 20;
/// The head of an answer.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// What came of a run.
#[derive(Debug, Default)]
pub struct Told {
    /// By what was tried and the code that came back; 0 where the connection ended without one.
    pub answers: BTreeMap<(&'static str, u16), u64>,
    pub problems: Vec<String>,
    pub rss_mib_max: u64,
    pub samples: usize,
    /// Who read the page.
    pub readers: Vec<&'static str>,
    pub took: Duration,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for ((kind, code), count) in &self.answers {
            kinds
                .entry(kind)
                .or_default()
                .push(format!("{code}: {count}"));
        }
        for (kind, codes) in kinds {
            writeln!(f, "{kind:<16} {}", codes.join(", "))?;
        }
        let sent: u64 = self.answers.values().sum();
        write!(
            f,
            "{sent} requests in {} s, {} MiB at most, {} samples on the page at the end, read by {}",
            self.took.as_secs(),
            self.rss_mib_max,
            self.samples,
            self.readers.join(", "),
        )
    }
}

struct Run {
    settings: Settings,
    targets: Vec<Target>,
    /// Where there is no HTTP, if there is such a place.
    sockets: Option<Sockets>,
    left: RefCell<u64>,
    told: RefCell<Told>,
}

/// Where one node listens for Graphite and StatsD.
struct Sockets {
    graphite: SocketAddr,
    pickle: SocketAddr,
    statsd: SocketAddr,
}

impl Sockets {
    /// Ports, and the flags that open them.
    fn prepare(arguments: &mut Vec<String>) -> anyhow::Result<Self> {
        let ports = free_ports(3)?;
        let at = |n: usize| SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, ports[n]));
        let (graphite, pickle, statsd) = (at(0), at(1), at(2));
        arguments.extend([
            format!("--graphite.listen-address={graphite}"),
            format!("--graphite.pickle-listen-address={pickle}"),
            format!("--statsd.listen-address={statsd}"),
            "--statsd.flush-interval=1s".to_owned(),
        ]);
        Ok(Self {
            graphite,
            pickle,
            statsd,
        })
    }
}

/// Sends everything; what is wrong is in [`Told::problems`].
pub async fn run(settings: &Settings, launcher: PathBuf, binary: PathBuf) -> anyhow::Result<Told> {
    let folder = Folder::create("quorate-hostile")?;
    let mut start = Start::new(binary, launcher);
    start.arguments = vec![
        "--cluster.shards=4".to_owned(),
        "--web.enable-otlp-receiver".to_owned(),
        "--enable-feature=native-histograms".to_owned(),
    ];
    // All nodes have the same flags, so only one can listen there.
    let sockets = match settings.nodes {
        1 => Some(Sockets::prepare(&mut start.arguments)?),
        _ => None,
    };
    let mut cluster = Cluster::prepare(&start, settings.nodes, &folder.0)?;
    cluster.start_all()?;
    ensure!(
        all_ready(&cluster.targets(), READY).await,
        "not ready:\n{}",
        cluster.last_words()
    );
    let begun = Instant::now();
    let run = Run {
        settings: settings.clone(),
        targets: cluster.targets(),
        sockets,
        left: RefCell::new(settings.pushes),
        told: RefCell::default(),
    };
    let senders = (0..settings.senders).map(|n| run.send_all(n));
    let checks = run.check_all(&mut cluster);
    let (_, checked) = futures::future::join(futures::future::join_all(senders), checks).await;
    checked?;
    let mut told = run.told.into_inner();
    told.took = begun.elapsed();
    for node in 0..cluster.len() {
        let log = std::fs::read(&cluster.process(node).program().log)?;
        let panics = String::from_utf8_lossy(&log);
        let panics = panics.lines().filter(|line| line.contains("panicked"));
        let panics = panics.take(3);
        told.problems
            .extend(panics.map(|line| format!("in the log of node {node}: {line}")));
        if cluster.process(node).pid().is_some() {
            cluster.process(node).stop().await?;
        }
    }
    Ok(told)
}

impl Run {
    /// One sender: its dice give the same requests in every run of a seed.
    async fn send_all(&self, n: u64) {
        let mut dice = SplitMix64::new(self.settings.seed << 8 | n);
        let lanes = self.targets.iter().map(|target| (target.push, target.api));
        let mut lanes: Vec<_> = lanes
            .map(|(push, api)| (Lane::new(push), Lane::new(api)))
            .collect();
        while self.take_one() {
            let shot = shot(&mut dice, wall_ms());
            let (push, api) = &mut lanes[dice.between(0, self.targets.len() as u64) as usize];
            let code = match shot.port {
                Port::Push => push.fire(&shot).await,
                Port::Api => api.fire(&shot).await,
                Port::Graphite | Port::Pickle | Port::StatsD => self.drop_in(&shot).await,
            };
            self.note(&shot, code);
        }
    }

    /// Leaves bytes where nobody answers; a connection that is closed before they are through is
    /// the answer to some of them.
    async fn drop_in(&self, shot: &Shot) -> u16 {
        let Some(sockets) = &self.sockets else {
            return 0;
        };
        let lines = match shot.port {
            Port::StatsD => None,
            Port::Pickle => Some(sockets.pickle),
            _ => Some(sockets.graphite),
        };
        let sending = async {
            match lines {
                Some(address) => {
                    let mut stream = TcpStream::connect(address).await?;
                    stream.write_all(&shot.body).await?;
                    stream.shutdown().await
                }
                None => {
                    let socket = UdpSocket::bind("127.0.0.1:0").await?;
                    let sent = socket.send_to(&shot.body, sockets.statsd).await;
                    sent.map(drop)
                }
            }
        };
        drop(timeout(GARBAGE, sending).await);
        0
    }

    fn take_one(&self) -> bool {
        let mut left = self.left.borrow_mut();
        let some = *left > 0 && self.told.borrow().problems.len() < PROBLEMS_MAX;
        *left -= u64::from(some);
        some
    }

    fn note(&self, shot: &Shot, code: u16) {
        let mut told = self.told.borrow_mut();
        *told.answers.entry((shot.kind, code)).or_default() += 1;
        // A whole request that is not answered is as bad as a wrong answer.
        let silent = code == 0 && shot.cut.is_none();
        if silent || code >= 500 {
            let head = String::from_utf8_lossy(&shot.head);
            let head: String = head.chars().take(200).collect();
            let body = &shot.body[..shot.body.len().min(120)];
            told.problems.push(format!(
                "{} answered with {code}: {head:?} {:?}",
                shot.kind,
                String::from_utf8_lossy(body)
            ));
        }
    }

    fn problem(&self, problem: String) {
        self.told.borrow_mut().problems.push(problem);
    }

    /// Between the pushes, and once behind them.
    async fn check_all(&self, cluster: &mut Cluster) -> anyhow::Result<()> {
        let mut pace = SplitMix64::new(self.settings.seed);
        for n in 1..=CHECKS {
            let until = self.settings.pushes - self.settings.pushes * n / CHECKS;
            while *self.left.borrow() > until && self.told.borrow().problems.len() < PROBLEMS_MAX {
                if let Some((_, how)) = cluster.reap()?.pop() {
                    *self.left.borrow_mut() = 0;
                    self.problem(format!("the node ended: {how}\n{}", cluster.last_words()));
                    return Ok(());
                }
                self.weigh(cluster)?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            if let Err(error) = self.check(pace.between(0, 1 << 40)).await {
                self.problem(format!("check {n}: {error:#}"));
            }
            let sent = self.settings.pushes - *self.left.borrow();
            let told = self.told.borrow();
            eprintln!(
                "{sent} sent, {} samples on the page, {} MiB at most",
                told.samples, told.rss_mib_max
            );
        }
        self.weigh(cluster)
    }

    fn weigh(&self, cluster: &mut Cluster) -> anyhow::Result<()> {
        for node in 0..cluster.len() {
            let Some(pid) = cluster.process(node).pid() else {
                continue;
            };
            let rss = rss_mib(pid)?;
            let mut told = self.told.borrow_mut();
            let bound = self.settings.rss_mib;
            if rss > bound && told.rss_mib_max <= bound {
                let problem = format!("node {node}: {rss} MiB of memory, {bound} are allowed");
                told.problems.push(problem);
            }
            told.rss_mib_max = told.rss_mib_max.max(rss);
        }
        Ok(())
    }

    /// A well-formed push is taken by one node and shown by the next, and the whole page is one.
    async fn check(&self, number: u64) -> anyhow::Result<()> {
        let place = number as usize % self.targets.len();
        let mut connection = Connection::new(self.targets[place].push);
        let path = "/metrics/job/well_formed";
        let body = Bytes::from(format!("well_formed {number}\n"));
        let sent = connection.send(Method::PUT, path, &[], body, REQUEST).await;
        match sent {
            Reply::Answer { status: 200, .. } => {}
            other => bail!("a well-formed push: {other:?}"),
        }
        let next = self.targets[(place + 1) % self.targets.len()];
        let mut connection = Connection::new(next.push);
        // Only so do two names stay two: as a default the page has underscores for what is not plain.
        let accept = [("accept", "text/plain;escaping=values")];
        let page = connection.send(Method::GET, "/metrics", &accept, Bytes::new(), REQUEST);
        let text = match page.await {
            Reply::Answer { status: 200, body } => String::from_utf8(body.to_vec())?,
            other => bail!("the page: {other:?}"),
        };
        let page = page::read(&text).map_err(anyhow::Error::msg)?;
        let shown = page
            .samples
            .get("well_formed{instance=\"\",job=\"well_formed\"}");
        let shown = shown.map(|value| value.parse::<f64>());
        ensure!(
            shown == Some(Ok(number as f64)),
            "the well-formed push is shown as {shown:?}, not {number}"
        );
        let mut read_by = vec!["the strict reader"];
        read_by.extend(readers::prometheus_client(&text)?);
        if let Some(promtool) = &self.settings.promtool {
            read_by.push(readers::promtool(promtool, &text)?);
        }
        let accept = [("accept", readers::DELIMITED)];
        let page_2 = connection.send(Method::GET, "/metrics", &accept, Bytes::new(), REQUEST);
        match page_2.await {
            Reply::Answer { status: 200, body } => read_by.push(readers::protobuf(&body)?),
            other => bail!("the page as protobuf: {other:?}"),
        }
        let mut told = self.told.borrow_mut();
        told.samples = page.samples.len();
        told.readers = read_by;
        Ok(())
    }
}

fn rss_mib(pid: u32) -> anyhow::Result<u64> {
    let path = Path::new("/proc").join(pid.to_string()).join("status");
    let Ok(status) = std::fs::read_to_string(&path) else {
        return Ok(0);
    };
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line.map_or(Ok(0), |line| line.trim().trim_end_matches(" kB").parse())?;
    Ok(kib >> 10)
}

/// One connection, opened again when it broke.
struct Lane {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

impl Lane {
    fn new(address: SocketAddr) -> Self {
        let stream = None;
        Self { address, stream }
    }

    /// The status that came back, 0 when none did.
    async fn fire(&mut self, shot: &Shot) -> u16 {
        let deadline = if shot.kind == "garbage" {
            GARBAGE
        } else {
            REQUEST
        };
        // One that was closed meanwhile is no answer: once more on a fresh one.
        for fresh in [false, true] {
            let reused = self.stream.is_some();
            let (code, reusable) = match timeout(deadline, self.exchange(shot)).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) | Err(_) => (0, false),
            };
            if !reusable {
                self.stream = None;
            }
            if code != 0 || fresh || !reused {
                return code;
            }
        }
        0
    }

    async fn exchange(&mut self, shot: &Shot) -> std::io::Result<(u16, bool)> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => TcpStream::connect(self.address).await?,
        };
        let whole = [&shot.head[..], &shot.body].concat();
        let cut = shot.cut.map_or(whole.len(), |cut| cut.min(whole.len()));
        let written = stream.write_all(&whole[..cut]).await;
        if cut < whole.len() {
            return Ok((0, false));
        }
        // A server that refuses a body early answers, and then closes.
        let bodiless = shot.head.starts_with(b"HEAD ");
        let answer = read_answer(&mut stream, bodiless).await;
        let (code, reusable) = match (answer, written) {
            (Ok(answer), _) => answer,
            (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(error),
        };
        let reusable = reusable && shot.cut.is_none();
        if reusable {
            self.stream = Some(stream);
        }
        Ok((code, reusable))
    }
}

/// Reads one answer to its end: its code, and whether the connection can be used again.
async fn read_answer(stream: &mut TcpStream, bodiless: bool) -> std::io::Result<(u16, bool)> {
    let mut bytes = Vec::new();
    let head_len = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        let mut piece = [0; 8192];
        let n = stream.read(&mut piece).await?;
        if n == 0 || bytes.len() > HEAD_BYTES_MAX {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend(&piece[..n]);
    };
    let head = String::from_utf8_lossy(&bytes[..head_len]).to_ascii_lowercase();
    let code = head
        .get(9..12)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    if bodiless {
        return Ok((code, false));
    }
    let Some(length) = length.and_then(|length| length.trim().parse::<usize>().ok()) else {
        // In chunks, or to the end of the connection: not read any further.
        return Ok((code, false));
    };
    let mut missing = length.saturating_sub(bytes.len() - head_len);
    let mut piece = vec![0; 64 << 10];
    while missing > 0 {
        let n = stream.read(&mut piece).await?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        missing = missing.saturating_sub(n);
    }
    Ok((code, !head.contains("connection: close")))
}
