//! `/federate?since=` over three nodes. Bytes are those of the answers, not of the wire: nothing is
//! compressed, and they do not depend on the machine.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::{PATIENCE, REQUEST, Up, series, write};
use crate::client::wall_ms;
use crate::cluster::{all_ready, most_leading};
use crate::differ::peers::Programs;

const SERIES: usize = 10_000;
/// Of a hundred series, how many change.
const CHANGED: usize = 10;
/// Of the full answer's bytes, in a hundred.
const BYTES_MAX: usize = 12;

struct Answer {
    /// `full` or `changes`.
    kind: String,
    cursor: String,
    bytes: usize,
    /// Names of the series told.
    told: BTreeSet<String>,
}

/// What holds, with its figures.
pub async fn run(programs: &Programs) -> anyhow::Result<String> {
    let mut up = Up::start(programs, 3, "global: {scrape_interval: 15s}\n").await?;
    let nodes: Vec<_> = up.cluster.targets();
    // What is written later is later, and none of it lies ahead of the clock.
    let at = wall_ms() - 10_000;
    write(nodes[0], &series("delta", 0..SERIES, at, 1.0)).await?;
    let full = ask(nodes[0].api, "").await?;
    ensure!(full.kind == "full", "the first answer is {}", full.kind);
    ensure!(
        full.told.len() == SERIES,
        "{} series at first",
        full.told.len()
    );

    // Nothing changed: nothing is told, whoever is asked.
    let nothing = ask(nodes[1].api, &full.cursor).await?;
    ensure!(
        nothing.kind == "changes" && nothing.told.is_empty(),
        "{} told",
        nothing.told.len()
    );

    // One in ten changed, written by one node and asked of another.
    let changed = || (0..SERIES).step_by(100 / CHANGED);
    write(nodes[1], &series("delta", changed(), at + 1000, 2.0)).await?;
    let delta = ask(nodes[2].api, &nothing.cursor).await?;
    let expected: BTreeSet<String> = changed().map(|n| format!("{n:06}")).collect();
    ensure!(
        delta.kind == "changes",
        "an answer with a cursor is {}",
        delta.kind
    );
    ensure!(
        delta.told == expected,
        "{} told, {} changed",
        delta.told.len(),
        expected.len()
    );
    let percent = 100.0 * delta.bytes as f64 / full.bytes as f64;
    ensure!(
        delta.bytes * 100 <= full.bytes * BYTES_MAX,
        "{} bytes of {} are {percent:.2} %",
        delta.bytes,
        full.bytes
    );

    // The leader of the most shards is gone: the cursor holds at those that follow it.
    let leader = most_leading(&nodes).await.context("no leader")?;
    up.cluster.process(leader).kill()?;
    let others: Vec<_> = (0..3).filter(|n| *n != leader).collect();
    let (one, other) = (nodes[others[0]], nodes[others[1]]);
    let later = || (1..SERIES).step_by(1000);
    write(one, &series("delta", later(), at + 2000, 3.0)).await?;
    let after = eventually(other.api, &delta.cursor).await?;
    let expected: BTreeSet<String> = later().map(|n| format!("{n:06}")).collect();
    ensure!(
        after.kind == "changes",
        "behind a change of leaders it is {}",
        after.kind
    );
    ensure!(
        after.told == expected,
        "{} told, {} changed",
        after.told.len(),
        expected.len()
    );

    // And at the node that was away.
    up.cluster.process(leader).start()?;
    ensure!(all_ready(&nodes, PATIENCE).await, "the node is not back");
    let back = eventually(nodes[leader].api, &after.cursor).await?;
    ensure!(
        back.kind == "changes" && back.told.is_empty(),
        "{} told again",
        back.told.len()
    );
    let unknown = ask(nodes[leader].api, "q1.0.").await?;
    ensure!(
        unknown.kind == "full",
        "a cursor of nobody is answered with {}",
        unknown.kind
    );
    Ok(format!(
        "since=: {CHANGED} % of {SERIES} series changed are {} of {} bytes ({percent:.2} %); \
         {} told behind a change of leaders, nothing twice",
        delta.bytes,
        full.bytes,
        after.told.len()
    ))
}

/// Shards may be without a leader for a moment.
async fn eventually(address: SocketAddr, cursor: &str) -> anyhow::Result<Answer> {
    let end = Instant::now() + PATIENCE;
    loop {
        match ask(address, cursor).await {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

async fn ask(address: SocketAddr, cursor: &str) -> anyhow::Result<Answer> {
    let path = format!("/federate?match[]=delta&since={cursor}");
    let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(head.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        std::io::Result::Ok(bytes)
    };
    let bytes = timeout(REQUEST, exchange).await??;
    let text = String::from_utf8(bytes)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no head")?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("{path}: {head} {body}");
    }
    let head = head.to_ascii_lowercase();
    let header = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim().to_owned())
    };
    let chunked = header("transfer-encoding:").is_some_and(|how| how == "chunked");
    let body = if chunked {
        unchunk(body)?
    } else {
        body.to_owned()
    };
    Ok(Answer {
        kind: header("x-quorate-federate-answer:").context("no kind of answer")?,
        cursor: header("x-quorate-federate-cursor:").context("no cursor")?,
        bytes: body.len(),
        told: body.lines().filter_map(told).collect(),
    })
}

/// The number of a line's series.
fn told(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("series=\"")?;
    rest.split_once('"').map(|(number, _)| number.to_owned())
}

/// RFC 9112, section 7.1; one that breaks off is an error.
fn unchunk(mut rest: &str) -> anyhow::Result<String> {
    let mut body = String::new();
    loop {
        let (length, tail) = rest.split_once("\r\n").context("it broke off")?;
        let length = usize::from_str_radix(length, 16)?;
        if length == 0 {
            return Ok(body);
        }
        body.push_str(tail.get(..length).context("it broke off")?);
        rest = tail[length..]
            .strip_prefix("\r\n")
            .context("it broke off")?;
    }
}
